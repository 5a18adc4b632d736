"""A task arrives: the destination's part of a move, from the offer until the task runs here."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from ..checking import check
from ..cli.client import Unreachable
from ..errors import VmmError
from . import image
from .definition import TaskDefinition
from .faults import AgentError, PeerError
from .host import Process
from .nva import STEERED, Gone, Overruled, told
from .peers import Peer
from .records import Leg, Record, Role, Step, sync_folder
from .tasks import Tasks

__all__ = ["Arrival"]

LOG = logging.getLogger(__name__)
_FAILURES = (VmmError, OSError, Unreachable)


class Arrival:
    """Takes one task in.

    Args:
        tasks: the agent's.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    # --- from another agent -------------------------------------------------------------------------------------------
    def take(self, peer: Peer) -> None:
        """Serve a connection of another agent, to its end. Raises Gone only."""
        try:
            offer = peer.hear()
            definition, leg = self._checked(offer, peer.nve)
        except _FAILURES as e:
            self._refuse(peer, e)
            return
        with self._tasks.alone(definition.name, wait=False) as mine:
            if not mine:
                self._refuse(peer, AgentError(f"{definition.name} is being worked on here"))
                return
            self._take(peer, definition, leg)

    def _refuse(self, peer: Peer, why: BaseException) -> None:
        LOG.warning("refused what the agent of %s offers: %s", peer.nve, told(why))
        with contextlib.suppress(PeerError):
            peer.send({"error": told(why)})

    def _checked(self, offer: dict[str, Any], source: str) -> tuple[TaskDefinition, Leg]:
        """What is offered, if the NVA knows of that move. Raises InvalidInput, AgentError."""
        definition = check(TaskDefinition, offer.get("offer"))
        number = offer.get("move")
        if not isinstance(number, int):
            raise AgentError("the offer names no move")
        tasks = self._tasks
        move = tasks.nva.move(number, tasks.times.peer)
        wanted = {"vm": definition.name, "source": source, "destination": tasks.configuration.nve, "open": True}
        if move is None or any(move[key] != value for key, value in wanted.items()) or move["state"] in STEERED:
            raise AgentError(f"the NVA knows of no open move {number} of {definition.name} from {source} to here")
        changes = {row["old"]: row["new"] for row in move.get("addresses") or []}
        leg = check_leg(number, source, offer.get("policy"), changes)
        record = tasks.get(definition.name)
        if record is not None and record.role in (Role.HOME, Role.LEAVING):
            raise AgentError(f"{definition.name} runs here")
        arriving = sum(one.role is Role.ARRIVING for one in tasks.records())
        if arriving >= tasks.configuration.limits.arriving:
            raise AgentError(f"{arriving} tasks arrive already")
        tasks.drivers[definition.driver].check()
        return definition.readdressed(changes), leg

    def _take(self, peer: Peer, definition: TaskDefinition, leg: Leg) -> None:
        tasks = self._tasks
        record = tasks.put(Record(definition=definition, role=Role.ARRIVING, leg=leg))
        try:
            waiting = self._place(record)
            peer.send({"ready": True})
            self._receive(peer, record)
            record = tasks.put(record, leg=leg.model_copy(update={"step": Step.RECEIVED}))
            peer.send({"received": True})
            record = tasks.checkpoint(record, Step.INSTANTIATE)
            parts = self._image(record)
            record = self._restore(record, parts, waiting)
            peer.send({"instantiated": True})
        except Gone:
            raise
        except _FAILURES as e:
            # Nobody has been told that it may run here, and now nobody will be.
            self._refuse(peer, e)
            self.discard(record)
            return
        try:
            peer.hear(tasks.times.activated)
        except PeerError as e:  # the source may be dead: the task is here whole, and the NVA says whether it may run
            LOG.warning("move %d of %s: the source is silent (%s)", leg.move, record.name, told(e))
        self.finish(record, parts, peer)

    def _place(self, record: Record) -> Process | None:
        cell = self._tasks.cell(record.name)
        cell.make(record.definition, closed=False, mute=True)  # not plugged in: nothing comes and nothing goes
        return self._tasks.driver(record).prepare(cell, record.definition)

    def _receive(self, peer: Peer, record: Record) -> None:
        """The image, on the disk when this returns."""
        tasks = self._tasks
        size = peer.hear(tasks.times.prepared * 2 + tasks.times.task).get("image")
        most = tasks.configuration.limits.image
        if not isinstance(size, int) or not 0 < size <= most:
            raise AgentError(f"an image has 1 to {most} bytes, not {size}")
        path = tasks.journal.image(record.name)
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            left = size
            while left:
                document, data = peer.receive()
                if "error" in document or not 0 < len(data) <= left:
                    raise PeerError("the image is not as long as announced")
                file.write(data)
                left -= len(data)
            file.flush()
            os.fsync(file.fileno())
        with new.open("rb") as file:
            image.read(file, most)  # BadImage before anything is promised
        new.replace(path)
        sync_folder(path.parent)

    def _image(self, record: Record) -> Mapping[str, bytes]:
        with self._tasks.journal.image(record.name).open("rb") as file:
            return image.read(file, self._tasks.configuration.limits.image)

    def _restore(self, record: Record, parts: Mapping[str, bytes], waiting: Process | None) -> Record:
        leg = record.leg
        assert leg is not None
        driver, cell = self._tasks.driver(record), self._tasks.cell(record.name)
        drop = leg.policy == "drop"
        process = driver.restore(cell, record.definition, parts, waiting, drop, leg.changes)
        return record.model_copy(update={"process": self._tasks.started(process)})

    # --- the end ------------------------------------------------------------------------------------------------------
    def finish(self, record: Record, parts: Mapping[str, bytes], peer: Peer | None = None) -> None:
        """Ask the NVA for the task, and start it if it is ours; else nothing of it stays here. Raises Gone."""
        tasks, leg = self._tasks, record.leg
        assert leg is not None
        try:
            if peer is None:  # after a restart: else it was looked at a moment ago, and the task stands still
                tasks.check_number(record)
            # Not of a move that has ended: its source goes on with the task.
            tasks.nva.hook(leg.move, "activate", {"if_open": True})
        except (Overruled, AgentError) as e:
            verdict = tasks.verdict(record)
            if verdict != "here":
                if peer is not None:
                    self._refuse(peer, e)
                if verdict == "there":
                    self.discard(record)
                else:  # this may be the only whole copy: it neither runs nor goes before the NVA says so
                    tasks.unsure(record.name)
                return
        tasks.sure(record.name)
        record = self.start(record, parts)
        if peer is not None:
            with contextlib.suppress(PeerError):  # it asks the NVA
                peer.send({"running": True})

    def start(self, record: Record, parts: Mapping[str, bytes]) -> Record:
        """The NVA has said that the task is here: let it run. Its image is never used again."""
        tasks, leg = self._tasks, record.leg
        assert leg is not None
        cell, process = tasks.cell(record.name), tasks.process(record)
        record = tasks.checkpoint(record, Step.START)
        record = tasks.put(record)
        if process is None:
            return tasks.put(tasks.begin(record.definition), leg=None)
        cell.plug(record.definition)
        # What it says before the NVE takes it is lost, and TCP takes seconds to say it again. What its kernel answers
        # to packets that the NVA has held waits in the queues of neighbors that it does not know yet; what it asks for
        # them meets a closed door, lest Open vSwitch remember that it drops what this port sends.
        if not tasks.nva.await_bound(record.name, tasks.times.bound):
            LOG.warning("task %s: its NVE has not confirmed its ports; it runs all the same", record.name)
        cell.speak(record.definition)
        cell.learn(record.definition, parts.get("neighbors", b"[]"))
        tasks.checkpoint(record, Step.RUN)
        tasks.driver(record).run(cell, process, parts)
        record = tasks.put(record, role=Role.HOME, leg=None, moved=leg.move)
        tasks.journal.drop_image(record.name)
        cell.open(record.definition)
        LOG.info("task %s runs here, move %d, process %d", record.name, leg.move, process.pid)
        return record

    def discard(self, record: Record) -> None:
        """It is not ours, and will not be: nothing of it stays, and the NVA is told in case somebody waits."""
        LOG.info("task %s does not come here", record.name)
        self._tasks.forget(record)
        if record.leg is not None:
            with contextlib.suppress(*_FAILURES):
                self._tasks.check_number(record, 1.0)
                self._tasks.nva.hook(record.leg.move, "abort", {"why": "its destination has not got it"}, 1.0)

    # --- after a restart ----------------------------------------------------------------------------------------------
    def recover(self, record: Record) -> None:
        """This agent was started anew in the middle of an arrival. Waits for the NVA; raises Gone."""
        tasks, leg = self._tasks, record.leg
        assert leg is not None
        verdict = tasks.verdict(record)
        LOG.info("task %s was arriving (%s); the NVA says %s", record.name, leg.step.value, verdict)
        if verdict == "unknown" and leg.step is not Step.OFFERED:
            tasks.unsure(record.name)
            # Once it was started here the NVA had said so; else nothing of it goes, and nothing runs.
            if leg.step is Step.START and tasks.process(record) is not None:
                self._start_again(record)
        elif leg.step is Step.START and verdict == "here":
            self._start_again(record)
        elif leg.step is Step.START or verdict == "there" or leg.step is Step.OFFERED:
            if verdict == "here":
                tasks.begin(record.definition)
            else:
                self.discard(record)
        else:
            try:
                waiting = self._place(record)
                parts = self._image(record)
                record = self._restore(record, parts, waiting)
            except _FAILURES as e:
                LOG.exception("task %s cannot be made again from its image", record.name)
                if verdict == "here":
                    tasks.put(tasks.begin(record.definition), why=told(e))
                else:
                    self.discard(record)
                return
            self.finish(record, parts)

    def _start_again(self, record: Record) -> None:
        """It may have run already. If its process lives it goes on; else it begins anew, never from its image."""
        tasks = self._tasks
        process = tasks.process(record)
        if process is None:
            tasks.begin(record.definition)
            return
        tasks.cell(record.name).adopt(process)
        self.start(record, self._image(record))


def check_leg(number: int, source: str, policy: object, changes: dict[str, str]) -> Leg:
    """A leg from what another agent says. Raises AgentError."""
    if policy not in ("keep", "migrate", "drop"):
        raise AgentError(f"there is no policy {policy!r}")
    return Leg(move=number, peer=source, step=Step.OFFERED, policy=policy, changes=changes)


