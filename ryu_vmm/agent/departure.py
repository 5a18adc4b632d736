"""A task leaves: the source's part of a move, from the request to the end of its own copy."""

from __future__ import annotations

import logging
import time
from typing import Any

from ..cli.client import Unreachable
from ..errors import VmmError
from . import image, peers
from .cell import Cell
from .definition import TaskDefinition
from .drivers import Package
from .faults import AgentError, HostError, PeerError, TaskSilent
from .nva import Gone, Overruled, told
from .peers import CHUNK, Peer
from .records import Record, Role, Step
from .tasks import Tasks, leg_of

__all__ = ["Departure"]

LOG = logging.getLogger(__name__)
_PREPARED = ("prepared", "redirecting")
#: What may go wrong on the way. The task then goes on here, unless the NVA says that it runs there.
_FAILURES = (VmmError, OSError, Unreachable)


class Departure:
    """Carries out one move of a task that runs here.

    Args:
        tasks: the agent's.
        move: the move's document.
    """

    #: Nothing of the task has been sent: the other agent cannot have it. Not known of a move of an earlier agent.
    _kept = False

    def __init__(self, tasks: Tasks, move: dict[str, Any]) -> None:
        self._tasks = tasks
        self._move = move
        self._number: int = move["id"]
        self._marks: dict[str, float] = {}
        self._package: Package | None = None

    def _mark(self, what: str) -> None:
        self._marks[what] = time.monotonic()

    def run(self, record: Record) -> None:
        """From beginning to end; the caller is alone with the task. Raises Gone only."""
        leg = leg_of(self._move, self._tasks.configuration.nve, Step.OPENED)
        record = self._tasks.put(record, role=Role.LEAVING, leg=leg)
        self._kept = True
        self._mark("opened")
        LOG.info("task %s leaves for %s, move %d, connections %s", record.name, leg.peer, leg.move, leg.policy)
        try:
            with self._connect(leg.peer) as peer:
                record = self._carry(peer, record)
        except Gone:
            raise
        except Exception as e:  # whatever it is, a task must not stay frozen
            LOG.warning("move %d of %s: %s", leg.move, record.name, told(e), exc_info=not isinstance(e, _FAILURES))
            self.decide(self._tasks.need(record.name), told(e))
        else:
            self._left(record, "")
        finally:
            self._report(record)

    def _report(self, record: Record) -> None:
        marks = self._marks
        row: dict[str, Any] = {"move": self._number, "to": self._move["destination"], "marks": dict(marks)}
        if "stopped" in marks and "running" in marks:
            row["pause"] = marks["running"] - marks["stopped"]
        if self._package is not None:
            row["connections"] = len(self._package.connections)
            row["bytes"] = image.size_of(self._package.parts)
        self._tasks.reports.setdefault(record.name, []).append(row)

    # --- the way there ------------------------------------------------------------------------------------------------
    def _connect(self, nve: str) -> Peer:
        configuration = self._tasks.configuration
        given = configuration.peers.get(nve)
        if given is not None:
            address, _, port = given.rpartition(":")
            return peers.call(configuration, nve, (address.strip("[]"), int(port)))
        document = self._move["underlay"].get(nve) or {}
        four = ":" not in configuration.listen
        found = document.get("ipv4" if four else "ipv6") or document.get("ipv4") or document.get("ipv6")
        if found is None:
            raise PeerError(f"NVE {nve} has no underlay address")
        return peers.call(configuration, nve, (found, configuration.port))

    def _carry(self, peer: Peer, record: Record) -> Record:
        tasks, leg = self._tasks, record.leg
        assert leg is not None
        definition, cell, driver = record.definition, tasks.cell(record.name), tasks.driver(record)
        process = tasks.process(record)
        if process is None:
            raise TaskSilent(f"{record.name}: its process has ended")
        peer.send({
            "offer": definition.model_dump(mode="json"), "move": leg.move, "policy": leg.policy, "changes": leg.changes,
        })
        peer.hear(tasks.times.prepared)
        self._mark("offered")
        tasks.nva.await_move(leg.move, lambda m: m["state"] in _PREPARED, tasks.times.prepared, "prepared")
        self._mark("prepared")
        cell.defer(definition)
        tasks.nva.hook(leg.move, "redirect", seconds=tasks.times.prepared)
        tasks.nva.await_move(leg.move, lambda m: bool(m["redirect_in_force"]), tasks.times.prepared, "redirected")
        self._mark("redirected")
        neighbors = cell.neighbors()
        self._await_quiet(cell, definition)
        record = tasks.checkpoint(record, Step.STOP)
        self._mark("stopped")
        driver.freeze(cell, process)
        cell.close(definition)
        record = tasks.checkpoint(record, Step.PACKAGE)
        self._package = driver.package(cell, process)
        self._package.parts = {**self._package.parts, "neighbors": neighbors}
        self._mark("packaged")
        record = tasks.checkpoint(record, Step.SEND)
        self._kept = False
        self._send(peer, self._package)
        self._mark("sent")
        peer.hear(tasks.times.peer)  # instantiated
        self._mark("instantiated")
        if leg.policy == "drop" or leg.changes:
            record = tasks.put(record, leg=record.leg and record.leg.model_copy(update={"reset": True}))
            cell.let_resets_out(definition)
            driver.reset(cell, process)
            self._mark("reset")
        peer.send({"go": True})
        answer = peer.hear(tasks.times.activated)
        self._mark("running")
        LOG.info("move %d of %s: the other agent says %s", leg.move, record.name, answer)
        return record

    def _await_quiet(self, cell: Cell, definition: TaskDefinition) -> None:
        """What was under way to the source still reaches the task: Open vSwitch lags behind what it has confirmed."""
        quiet, started = self._tasks.times.quiet, time.monotonic()
        seen, since = cell.received(definition), started
        while time.monotonic() - since < quiet and time.monotonic() - started < 1.0:
            time.sleep(min(0.002, quiet))
            now = cell.received(definition)
            if now != seen:
                seen, since = now, time.monotonic()

    def _send(self, peer: Peer, package: Package) -> None:
        data = memoryview(image.dumps(package.parts))
        peer.send({"image": len(data)})
        for at in range(0, len(data), CHUNK):
            peer.send({}, bytes(data[at : at + CHUNK]))
        peer.hear(self._tasks.times.peer)  # on the disk there

    # --- how it ends --------------------------------------------------------------------------------------------------
    def decide(self, record: Record, why: str) -> None:
        """Something went wrong, or this agent was started anew: the NVA says who has the task. Waits for it; Gone."""
        tasks = self._tasks
        if tasks.process(record) is None:
            # What it was is lost here. If the other agent has it whole, it is the one to go on.
            tasks.nva.await_decision(self._number, tasks.times.activated)
        try:
            tasks.check_number(record)
            tasks.nva.hook(self._number, "abort", {"why": why[:200] or "agent started anew"})
            mine = True
        except Overruled:
            # The move has ended, or the task runs there; or the NVA knows nothing of it.
            verdict = tasks.verdict(record)
            if verdict == "unknown" and self._kept and tasks.process(record) is not None:
                verdict = "here"
            if verdict not in ("here", "there"):
                # The other agent may have it whole, and may have been told to run it: nothing is ended, nothing begun.
                tasks.unsure(record.name)
                return
            mine = verdict == "here"
        tasks.sure(record.name)
        if not mine:
            self._left(record, why)
            return
        try:
            tasks.resume(record, why=f"move {self._number} failed: {why}")
        except (HostError, TaskSilent) as e:  # what cannot be thawed is ended and begins anew: there is one copy
            LOG.exception("task %s cannot go on where it stopped", record.name)
            tasks.put(tasks.begin(record.definition), leg=None, why=told(e))
        LOG.info("task %s goes on here: %s", record.name, why)

    def _left(self, record: Record, why: str) -> None:
        tasks = self._tasks
        record = tasks.leave(record.model_copy(update={"why": why}))
        connections = [] if self._package is None else self._package.connections
        cell = tasks.cell(record.name)
        if cell.exists and connections:
            try:
                cell.remember(record.definition, connections, tasks.times.record)
            except AgentError as e:
                LOG.warning("task %s: its connections are not recorded: %s", record.name, told(e))
