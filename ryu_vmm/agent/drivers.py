"""State drivers: how a task's runtime state is taken and put back. One small interface; two implementations.

A driver works on a task's place (cell.Cell), which is closed while it takes or puts: no packet comes or goes. It never
asks where a task may run; that is the NVA's to say, and the agent's to obey.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from .cell import Cell
from .definition import TaskDefinition
from .host import Process
from .tcp import Connection

__all__ = ["Driver", "Package"]


@dataclass
class Package:
    """A frozen task's state.

    Attributes:
        parts: of the image, by name.
        connections: the TCP connections among it, for the record of those that have left.
    """

    parts: Mapping[str, bytes]
    connections: list[Connection] = field(default_factory=list)


class Driver(ABC):
    """Takes and restores the state of tasks of one kind. Raises AgentError; OSError where the kernel refuses."""

    name: str

    @abstractmethod
    def check(self) -> None:
        """Raises Unsupported, and says why, where this driver cannot be used on this host."""

    @abstractmethod
    def start(self, cell: Cell, definition: TaskDefinition) -> Process:
        """Start a task from its definition, in its namespace; it runs when this returns."""

    @abstractmethod
    def freeze(self, cell: Cell, process: Process) -> None:
        """Stop the task where it is. It does nothing from here until ``thaw``; it is not ended."""

    @abstractmethod
    def package(self, cell: Cell, process: Process) -> Package:
        """The state of a frozen task in a closed cell. The task can still be thawed; asked again, the same."""

    @abstractmethod
    def thaw(self, cell: Cell, process: Process, dropped: bool = False) -> None:
        """Have a frozen task, packaged or not, go on where it stopped. ``dropped``: its connections were reset."""

    @abstractmethod
    def reset(self, cell: Cell, process: Process) -> int:
        """Close all connections of a frozen, packaged task with RST, in a cell that lets these out; how many."""

    @abstractmethod
    def prepare(self, cell: Cell, definition: TaskDefinition) -> Process | None:
        """Do at the destination what needs no state, ahead of time; the process that waits for it, if there is one."""

    @abstractmethod
    def restore(
        self, cell: Cell, definition: TaskDefinition, parts: Mapping[str, bytes], waiting: Process | None,
        drop: bool = False, changes: Mapping[str, str] | None = None,
    ) -> Process:
        """Make the task again in a cell without link, from an image's parts. It does not run yet.

        drop: without its TCP connections. changes: old addresses to new ones; connections of the old ones are not made.
        """

    @abstractmethod
    def run(self, cell: Cell, process: Process, parts: Mapping[str, bytes]) -> None:
        """Have a task run that was restored from these parts; done again, it goes on where it ended."""

    def end(self, process: Process, grace: float) -> None:
        """End a task: SIGTERM, after ``grace`` seconds SIGKILL. What it started in its session goes with its cell."""
        process.end(grace)
