"""What an agent knows of its tasks, on the disk: a file for each, replaced as a whole, before it is acted on."""

from __future__ import annotations

import contextlib
import os
from enum import StrEnum
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..lockfile import Held, hold
from .definition import TaskDefinition
from .faults import AgentError
from .host import Process, pid_namespace

__all__ = ["Journal", "Leg", "Record", "Role", "Started", "Step", "replace_file"]


class Role(StrEnum):
    """What an agent is to a task."""

    HOME = "home"  # it runs here
    LEAVING = "leaving"  # it moves away; until the NVA has said otherwise it is ours
    ARRIVING = "arriving"  # it moves here; until the NVA has said so it is not ours
    LEFT = "left"  # it runs elsewhere; its connections are remembered for a while
    STOPPED = "stopped"  # it was stopped on request


class Step(StrEnum):
    """How far a move has come here. The five steps of the draft are stop, package, send, instantiate, start."""

    # at the source
    OPENED = "opened"  # the move is ours to carry out; the task runs
    STOP = "stop"  # it is being frozen
    PACKAGE = "package"
    SEND = "send"  # it is being sent; from here on the other agent may have it
    # at the destination
    OFFERED = "offered"
    RECEIVED = "received"  # the image is on the disk
    INSTANTIATE = "instantiate"  # it has been made again, and does not run
    START = "start"  # it is being started: from here on its image is never used again
    RUN = "run"  # all is ready but its process's word to go on; not recorded


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Started(_Model):
    """A process of a task; ``boot``: of which run of this machine; ``sight``: in which PID namespace, 0: not known."""

    pid: int
    started: int
    boot: str
    sight: int = 0

    def process(self, boot: str) -> Process | None:
        """The process, if it is of this boot and alive."""
        if self.hidden(boot):
            return None
        found = Process(self.pid, self.started)
        return found if self.boot == boot and found.alive else None


    def hidden(self, boot: str) -> bool:
        """Whether it may run and cannot be seen: its pid is of a PID namespace that is not ours."""
        return self.boot == boot and self.sight not in (0, pid_namespace())


class Leg(_Model):
    """A move, as one of its two agents sees it. ``changes``: old addresses to new ones."""

    move: int
    peer: str
    step: Step
    policy: Literal["keep", "migrate", "drop"] = "keep"
    changes: dict[str, str] = {}
    reset: bool = False  # its connections have been closed


class Record(_Model):
    """All that an agent knows of a task.

    Attributes:
        process: None while it has none that is known.
        leg: of the open move, or of the one it left with.
        ended: Unix time when it left, or was stopped.
        why: how the last move ended, for people.
        moved: number of the newest move of a task of that name as it came here: only a later one has taken it away.
    """

    definition: TaskDefinition
    role: Role
    process: Started | None = None
    leg: Leg | None = None
    ended: float | None = None
    why: str = ""
    moved: int = 0

    @property
    def name(self) -> str:
        """The task's name."""
        return self.definition.name


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file as a whole: after a crash there is the old content or the new. On the disk when it returns."""
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Journal:
    """The records of an agent, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._lock: IO[str] | None = None
        self._folder = folder / "tasks"
        self._images = folder / "images"
        for one in (self._folder, self._images):
            one.mkdir(parents=True, exist_ok=True, mode=0o700)

    def claim(self) -> None:
        """Be the only agent with these records until this process ends. Raises AgentError: there is another."""
        try:
            self._lock = hold(self._root / "agent.lock")
        except Held as held:
            raise AgentError(f"another agent (process {held.owner}) has the records in {self._root}") from None

    def release(self) -> None:
        """Let another agent have them."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def load(self) -> dict[str, Record]:
        """All records. Raises AgentError for one that cannot be read: nothing is guessed."""
        found = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = Record.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as e:
                raise AgentError(f"{path} cannot be read: {e}") from None
            found[record.name] = record
        return found

    def put(self, record: Record) -> None:
        """Have a record on the disk. Raises OSError."""
        replace_file(self._folder / f"{record.name}.json", record.model_dump_json(indent=1).encode())

    def drop(self, name: str) -> None:
        """Forget a task, its image included."""
        self.drop_image(name)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / f"{name}.json").unlink()
            sync_folder(self._folder)

    def image(self, name: str) -> Path:
        """Where the image of a task is."""
        return self._images / f"{name}.image"

    def drop_image(self, name: str) -> None:
        """Remove a task's image, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            self.image(name).unlink()
