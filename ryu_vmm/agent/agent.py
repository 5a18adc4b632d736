"""The agent itself: what it does when it starts, what it watches, and what it is asked for on its own host."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..cli.client import Refused, Unreachable
from ..errors import VmmError
from . import peers
from .arrival import Arrival
from .definition import Configuration, TaskDefinition
from .departure import Departure
from .faults import AgentError, PeerError, TaskSilent
from .nva import STEERED, Gone, told
from .records import Record, Role
from .tasks import Tasks

__all__ = ["Agent"]

LOG = logging.getLogger(__name__)
#: Seconds between attempts to recover a task, and one that the NVA does not know.
_AGAIN, _UNKNOWN_AGAIN = 1.0, 10.0


class Agent:
    """One host's agent. ``start`` brings its tasks back and serves; ``stop`` ends it, not its tasks.

    Args:
        configuration: see definition.Configuration.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.tasks = Tasks(configuration)
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._look = threading.Event()
        self._hidden: set[str] = set()  # tasks that are told of already
        self._again: dict[str, float] = {}  # task: not to be recovered before (monotonic)

    def start(self) -> None:
        """Serve other agents, bring every task to where the NVA says it is, and watch. Raises AgentError."""
        peers.check(self.configuration)
        self.tasks.nva.check()
        self.tasks.journal.claim()
        self._listener = peers.listener(self.configuration)
        self._thread(self._serve, "peers")
        for record in self.tasks.records():
            self._thread(partial(self._recover, record.name), f"recover {record.name}")
        self._thread(self._watch, "moves")
        LOG.info("agent of %s at %s", self.configuration.nve, self._listener.getsockname()[:2])

    def stop(self) -> None:
        """End the agent. Its tasks run on; the next agent adopts them."""
        self.tasks.ending.set()
        self._look.set()
        self.tasks.proceed()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for thread in self._threads:
            thread.join(5.0)
        self.tasks.journal.release()

    def _thread(self, work: Callable[[], None], name: str) -> None:
        def guarded() -> None:
            try:
                work()
            except Gone:
                pass
            except Exception:
                LOG.exception("%s", name)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()]
        self._threads.append(thread)
        thread.start()

    # --- other agents -------------------------------------------------------------------------------------------------
    def _serve(self) -> None:
        assert self._listener is not None
        while not self.tasks.ending.is_set():
            try:
                sock, where = self._listener.accept()
            except OSError:
                return
            self._thread(partial(self._arrival, sock, where), "arrival")

    def _arrival(self, sock: socket.socket, where: Any) -> None:
        try:
            peer = peers.answer(self.configuration, sock)
        except PeerError as e:
            LOG.warning("a connection from %s is refused: %s", where[0], told(e))
            return
        with peer:
            Arrival(self.tasks).take(peer)

    # --- after a start ------------------------------------------------------------------------------------------------
    def _recover(self, name: str, wait: bool = True) -> None:
        """Bring a task to where the NVA says it is; not ``wait``: unless somebody works on it."""
        with self.tasks.alone(name, wait) as mine:
            record = self.tasks.get(name)
            if record is None or not mine:
                return
            LOG.info("task %s: %s", name, record.role.value)
            match record.role:
                case Role.HOME:
                    self._at_home(record)
                case Role.LEAVING:
                    assert record.leg is not None
                    move = {"id": record.leg.move, "destination": record.leg.peer}
                    Departure(self.tasks, move).decide(record, "agent started anew")
                case Role.ARRIVING:
                    Arrival(self.tasks).recover(record)
                case Role.LEFT | Role.STOPPED:
                    pass

    def _at_home(self, record: Record) -> None:
        stray = None
        if self.tasks.process(record) is None:
            if self.tasks.hidden(record):
                if record.name not in self._hidden:
                    LOG.error("task %s was started in another PID namespace and may run there: it is left", record.name)
                self._hidden.add(record.name)
                return
            stray = self.tasks.stray(record.name)
            if stray is None:
                LOG.warning("task %s: its process has ended", record.name)
            else:
                LOG.warning("task %s runs as process %d, which no record knows: adopted", record.name, stray.pid)
                record = self.tasks.put(record, process=self.tasks.started(stray))
        home = self.tasks.nva.home(record.name)
        if home is None:
            self.tasks.unsure(record.name)
            return
        self.tasks.sure(record.name)
        if home != self.configuration.nve:
            LOG.warning("task %s is at %s, the NVA says: its copy here ends", record.name, home)
            self.tasks.leave(record)
            return
        try:
            self.tasks.resume(record)
        except TaskSilent as e:
            if stray is None:
                raise
            LOG.warning("task %s: process %d is none that can go on, it ends: %s", record.name, stray.pid, told(e))
            self.tasks.begin(record.definition)

    # --- moves --------------------------------------------------------------------------------------------------------
    def _watch(self) -> None:
        told_of = ""
        while not self.tasks.ending.is_set():
            try:
                for move in self.tasks.nva.open_moves():
                    self._consider(move)
                told_of = ""
            except (Unreachable, Refused) as e:
                if str(e) != told_of:
                    LOG.warning("%s", e)
                told_of = str(e)
            self._tidy()
            self._look.wait(self.configuration.times.poll)
            self._look.clear()

    def _consider(self, move: dict[str, Any]) -> None:
        """A move of a task that runs here, whoever asked for it, is carried out."""
        if move["source"] != self.configuration.nve or move["state"] in STEERED:
            return
        record = self.tasks.get(move["vm"])
        if record is None or record.role is not Role.HOME:
            return
        self._thread(partial(self._depart, move), f"move {move['id']}")

    def _depart(self, move: dict[str, Any]) -> None:
        with self.tasks.alone(move["vm"], wait=False) as mine:
            record = self.tasks.get(move["vm"]) if mine else None
            if record is not None and record.role is Role.HOME:
                Departure(self.tasks, move).run(record)

    def _tidy(self) -> None:
        """Remove what is left of tasks that went long enough ago; recover those that nobody has brought to an end."""
        for record in self.tasks.records():
            gone = record.role is Role.LEFT and time.time() - (record.ended or 0) > self.configuration.times.record
            dead = record.role is Role.HOME and self.tasks.process(record) is None and record.definition.restart
            stuck = record.role in (Role.LEAVING, Role.ARRIVING)
            unknown = self.tasks.is_unsure(record.name)
            if gone:
                with self.tasks.alone(record.name, wait=False) as mine:
                    if mine and self.tasks.get(record.name) == record:
                        self.tasks.forget(record)
            elif (dead or stuck or unknown) and time.monotonic() >= self._again.get(record.name, 0.0):
                self._again[record.name] = time.monotonic() + (_UNKNOWN_AGAIN if unknown else _AGAIN)
                self._thread(partial(self._recover, record.name, False), f"recover {record.name}")

    # --- what is asked for here ---------------------------------------------------------------------------------------
    def run(self, definition: TaskDefinition) -> Record:
        """Start a task and register it with the NVA. Raises AgentError, OSError, Unreachable."""
        with self.tasks.alone(definition.name):
            record = self.tasks.get(definition.name)
            if record is not None and record.role in (Role.HOME, Role.LEAVING, Role.ARRIVING):
                raise AgentError(f"{definition.name} is here already ({record.role.value})")
            stray = self.tasks.stray(definition.name)
            if stray is not None:
                raise AgentError(
                    f"{definition.name} runs here already, process {stray.pid}, and this agent has no record of it: "
                    f"its `state` may be another one ({self.configuration.state}), or another mount namespace's",
                    task=definition.name, pid=stray.pid,
                )  # fmt: skip
            self.tasks.drivers[definition.driver].check()
            if definition.register_vm:
                self.tasks.nva.register(definition.vm(self.configuration.nve))
            home = self.tasks.nva.home(definition.name)
            if home != self.configuration.nve:
                raise AgentError(f"the NVA has {definition.name} at {home or 'no NVE'}: it may not run here")
            try:
                return self.tasks.begin(definition, self.tasks.nva.newest_move(definition.name))
            except (VmmError, OSError):
                self.tasks.cell(definition.name).remove(definition)
                self.tasks.drop(definition.name)
                raise

    def move(self, name: str, to: str, connections: str | None = None, address: str | None = None) -> dict[str, Any]:
        """Ask the NVA for a move of a task that runs here, and carry it out. Raises AgentError, Unreachable."""
        record = self.tasks.need(name)
        if record.role is not Role.HOME:
            raise AgentError(f"{name} does not run here ({record.role.value})")
        body: dict[str, Any] = {"vm": name, "to": to, "requested_by": f"agent of {self.configuration.nve}"}
        if connections is not None:
            body["connections"] = connections
        if address is not None:
            body["address"] = address
        move = self.tasks.nva.ask_for_move(body)
        self._look.set()
        return move

    def end(self, name: str, remove: bool) -> None:
        """Stop a task; ``remove``: and forget it here and at the NVA. Raises AgentError, Unreachable."""
        with self.tasks.alone(name, wait=False) as mine:
            if not mine:
                raise AgentError(f"{name} is on the move")
            record = self.tasks.need(name)
            process = self.tasks.process(record)
            if process is not None:
                self.tasks.driver(record).end(process, self.configuration.times.ending)
            self.tasks.cell(name).remove(record.definition)
            if remove:
                if record.definition.register_vm:  # else whoever has registered it forgets it
                    self.tasks.nva.withdraw(name)
                self.tasks.drop(name)
            else:
                self.tasks.put(record, role=Role.STOPPED, process=None, ended=time.time())
