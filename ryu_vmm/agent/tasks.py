"""What an agent holds while it runs: configuration, journal, drivers, the NVA, and its tasks' records in memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import host
from .cell import Cell
from .cooperating import Cooperating
from .criu import Criu
from .definition import Configuration, TaskDefinition
from .drivers import Driver
from .faults import AgentError
from .nva import Authority, Overruled, has_run_there
from .records import Journal, Leg, Record, Role, Started, Step

__all__ = ["Tasks"]

LOG = logging.getLogger(__name__)


class Tasks:
    """An agent's tasks, and what both sides of a move need.

    Args:
        configuration: of the agent.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.times = configuration.times
        self.ending = threading.Event()
        self.boot = host.boot()
        self.journal = Journal(Path(configuration.state))
        self.nva = Authority(configuration, self.ending, self.moved)
        self.drivers: dict[str, Driver] = {
            "cooperating": Cooperating(configuration.times.task),
            "criu": Criu(configuration.criu),
        }
        self._lock = threading.RLock()
        self._records: dict[str, Record] = self.journal.load()
        self._unsure: set[str] = set()
        self._busy: dict[str, threading.Lock] = {}
        #: Steps at which moves wait for `proceed`: how tests find an agent in the middle of one.
        self.halts: set[str] = set()
        self.halted: str | None = None
        self._released = threading.Event()
        #: What the last moves took, by task: for people, and for measurements.
        self.reports: dict[str, list[dict[str, Any]]] = {}

    # --- records ------------------------------------------------------------------------------------------------------
    def records(self) -> list[Record]:
        """All of them, by name."""
        with self._lock:
            return [self._records[name] for name in sorted(self._records)]

    def get(self, name: str) -> Record | None:
        """A task's record."""
        with self._lock:
            return self._records.get(name)

    def need(self, name: str) -> Record:
        """A task's record. Raises AgentError if there is none."""
        record = self.get(name)
        if record is None:
            raise AgentError(f"there is no task {name} here", task=name)
        return record

    def put(self, record: Record, **changes: Any) -> Record:
        """Change a record; on the disk when this returns."""
        record = record.model_copy(update=changes)
        with self._lock:
            self.journal.put(record)
            self._records[record.name] = record
        return record

    def drop(self, name: str) -> None:
        """Forget a task."""
        with self._lock:
            self.journal.drop(name)
            self._records.pop(name, None)
            self._unsure.discard(name)

    @contextmanager
    def alone(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Be the only one who works on a task; with ``wait`` False perhaps not, then the value is False."""
        with self._lock:
            lock = self._busy.setdefault(name, threading.Lock())
        taken = lock.acquire(blocking=wait)
        try:
            yield taken
        finally:
            if taken:
                lock.release()

    def cell(self, name: str) -> Cell:
        """A task's place here."""
        record = self.get(name)
        process = None if record is None else self.process(record)
        return Cell(self.configuration, name, None if process is None else process.pid)

    def driver(self, record: Record) -> Driver:
        """What takes and restores its state."""
        return self.drivers[record.definition.driver]

    def process(self, record: Record) -> host.Process | None:
        """Its process, if that is alive."""
        return None if record.process is None else record.process.process(self.boot)

    def started(self, process: host.Process) -> Started:
        """A process, for the record."""
        return Started(pid=process.pid, started=process.started, boot=self.boot, sight=host.pid_namespace())

    def hidden(self, record: Record) -> bool:
        """Whether its process may run where this agent cannot see it."""
        return record.process is not None and record.process.hidden(self.boot)

    def stray(self, name: str) -> host.Process | None:
        """A process of a task that runs here, whatever the records know; None: there is none."""
        found = (host.Process.of(pid) for pid in host.marked("=".join(self.cell(name).mark)))
        return next(filter(None, found), None)

    # --- whose it is --------------------------------------------------------------------------------------------------
    def verdict(self, record: Record) -> str:
        """Where the NVA has a task that moves. Waits for it.

        ``here``; ``there``; ``open``: undecided; ``unknown``: it knows neither the move nor the task, or has taken the
        task for off.
        """
        assert record.leg is not None
        move, me = self.nva.move(record.leg.move), self.configuration.nve
        if move is not None and not _is_of(move, record, me):
            move = None  # another one has its number: the NVA's records are new
        arrives = move is not None and move.get("destination") == me
        ran = None if move is None else has_run_there(move)
        if move is not None and move["open"] and ran is not None:
            if ran:
                return "here" if arrives else "there"
            return "open"
        # It has ended, well or not: a move may also have failed after the task ran at its destination.
        home = self.nva.home(record.name)
        if home is not None:
            return "here" if home == me else "there"
        if ran is None:
            return "unknown"
        # What is neither here nor visible elsewhere is where its move has left it.
        return "here" if arrives == ran else "there"

    def check_number(self, record: Record, seconds: float | None = None) -> None:
        """Raise Overruled if the number of a record's move is another one's by now: the NVA's records are new."""
        assert record.leg is not None
        move = self.nva.move(record.leg.move, seconds)
        if move is not None and not _is_of(move, record, self.configuration.nve):
            raise Overruled(f"move {record.leg.move} is one of {move.get('vm')}, and not that of {record.name}")

    def unsure(self, name: str) -> None:
        """The NVA does not say where a task is: what is here of it stays as it is, and the NVA is asked again."""
        if name not in self._unsure:
            LOG.error(
                "task %s: the NVA does not say where it is. What is here of it stays as it is, until the NVA knows it "
                "again; register it where it is to run, or vmm-agent stop it", name,
            )  # fmt: skip
        self._unsure.add(name)

    def sure(self, name: str) -> None:
        """The NVA has said where a task is."""
        self._unsure.discard(name)

    def is_unsure(self, name: str) -> bool:
        """Whether the NVA did not say where a task is when it was last asked."""
        return name in self._unsure

    # --- life of a task that stays ------------------------------------------------------------------------------------
    def moved(self, name: str) -> int:
        """The newest move of a task of that name as it came here, as far as it is known."""
        record = self.get(name)
        return 0 if record is None else max(record.moved, 0 if record.leg is None else record.leg.move)

    def begin(self, definition: TaskDefinition, moved: int = 0) -> Record:
        """Start a task from its definition, in a place made anew; ``moved``: as records have it.

        Raises AgentError, OSError.
        """
        old = self.get(definition.name)
        if old is not None and self.hidden(old):
            raise AgentError(
                f"{definition.name} was started in another PID namespace and may run there: no second copy is started. "
                f"Start the agent there, or, if it has ended, vmm-agent stop {definition.name} and run it anew",
                task=definition.name,
            )
        moved = max(moved, self.moved(definition.name))
        record = Record(definition=definition, role=Role.HOME, why="" if old is None else old.why, moved=moved)
        record = self.put(record)
        cell = self.cell(definition.name)
        cell.make(definition, closed=False)
        cell.plug(definition)
        process = self.driver(record).start(cell, definition)
        LOG.info("task %s runs, process %d", record.name, process.pid)
        return self.put(record, process=self.started(process))

    def resume(self, record: Record, why: str = "") -> Record:
        """A task is to run here: go on where it stopped if its process is there, else begin anew."""
        process = self.process(record)
        cell = self.cell(record.name)
        if process is not None:
            cell.adopt(process)  # wherever it was made: a second copy is never the answer to a name that is lost
        else:
            if record.process is not None:
                LOG.warning("task %s begins anew: its process has ended", record.name)
            return self.put(self.begin(record.definition), why=why)
        if not cell.plugged(record.definition):
            cell.plug(record.definition)
        cell.open(record.definition)
        self.driver(record).thaw(cell, process, dropped=record.leg is not None and record.leg.reset)
        return self.put(record, role=Role.HOME, leg=None, why=why)

    def leave(self, record: Record) -> Record:
        """A task runs elsewhere: end what is left of it here; its connections are remembered and not answered."""
        cell, process = self.cell(record.name), self.process(record)
        if cell.exists:
            cell.close(record.definition)
        if process is not None:
            process.end(0)  # its sockets are in repair mode, or cannot send: nobody hears of it
        LOG.info("task %s has left for %s", record.name, record.leg.peer if record.leg else "?")
        return self.put(record, role=Role.LEFT, process=None, ended=time.time())

    def forget(self, record: Record) -> None:
        """Remove a task that has left, or was stopped, with its place."""
        self.cell(record.name).remove(record.definition)
        self.drop(record.name)

    # --- for tests ----------------------------------------------------------------------------------------------------
    def checkpoint(self, record: Record, step: Step) -> Record:
        """Note in memory how far a move has come; wait here if tests want that."""
        assert record.leg is not None
        record = record.model_copy(update={"leg": record.leg.model_copy(update={"step": step})})
        with self._lock:
            self._records[record.name] = record
        LOG.info("task %s, move %d: %s", record.name, record.leg.move if record.leg else 0, step.value)
        if step.value in self.halts:
            self.halts.discard(step.value)
            self._released.clear()
            self.halted = step.value
            self._released.wait()
            self.halted = None
        return record

    def proceed(self) -> None:
        """Let go whatever waits at a checkpoint."""
        self._released.set()


def _is_of(move: dict[str, Any], record: Record, me: str) -> bool:
    """Whether a move is the one that a record is about. What only names no task of its own counts as that."""
    ends = {move.get("source", me), move.get("destination", me)}
    return bool(move.get("vm", record.name) == record.name and record.leg and ends <= {me, record.leg.peer})


def leg_of(move: dict[str, Any], me: str, step: Step) -> Leg:
    """A move's document as a record has it."""
    changes = {row["old"]: row["new"] for row in move.get("addresses") or []}
    policy: Any = move.get("connections") or ("drop" if changes else "keep")
    peer = move["destination"] if move["source"] == me else move["source"]
    return Leg(move=move["id"], peer=peer, step=step, policy=policy, changes=changes)
