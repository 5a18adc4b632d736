"""Tasks that move, several at once, while the NVA is killed and control channels are cut: nothing lost or doubled.

The hypervisors ask again until their task is where it was to go: an NVA that has just been started refuses moves until
it has read its switches, and a move whose edge is out of reach is refused or ends.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from topologies import VM, MoveReport
from topologies.errors import ApiError, NotReady, TopologyError
from topologies.hypervisors import Patient
from topologies.traffic.session import Family, Outcome, Pair, UdpSession, both_ways

from .lab import Lab

MOVERS = tuple(f"{kind}{n}" for kind in ("task", "mob") for n in (1, 2, 3))
CLIENTS = ("cli1", "cli2", "cli3", "far1", "far2", "far3", "desk1", "desk2")
RATE = 200.0  # datagrams per second in each direction
_ANNOUNCEMENTS = ("none", "garp-request", "na", "rarp")
_BEFORE, _AFTER = 0.3, 0.3
_PATIENCE = 60.0


@dataclass(frozen=True)
class Crisis:
    """One round. what: "none", "killed" (the NVA) or "cut" (an edge's control channel)."""

    number: int
    what: str
    reports: list[MoveReport]
    asked: int  # requests for moves, refused ones included
    traffic: Outcome
    states: list[str]
    failed: list[str] = field(default_factory=list)  # tasks that never got to where they were to go
    wrong: list[str] = field(default_factory=list)  # what the comparison of all switches found

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        out, found = self.traffic, [*self.failed, *self.wrong]
        found += [
            f"{flow.name}: {flow.count.lost} lost, {flow.count.duplicated} doubled" for flow in out.flows
            if flow.count.lost or flow.count.duplicated
        ]
        if out.foreign or out.dropped:
            found.append(f"{out.foreign} foreign, {out.dropped} dropped by the receivers")
        if any(state != "settled" for state in self.states):
            found.append(f"moves that were carried out ended as {self.states}")
        return [f"round {self.number} ({self.what}): {words}" for words in found]


class _Mover:
    """A hypervisor with a task that has to get somewhere."""

    def __init__(self, lab: Lab, vm: VM, to: str, announce: str, after: float, pause: float) -> None:
        self._lab, self._vm, self._to, self._announce = lab, vm, to, announce
        self._after, self._pause = after, pause
        self.report: MoveReport | None = None
        self.asked = 0
        self.error = ""
        self.thread = threading.Thread(target=self._run, name=f"mover-{vm.name}")

    def _run(self) -> None:
        time.sleep(self._after)
        deadline = time.monotonic() + _PATIENCE
        rest = Patient(self._lab.nva.base, _PATIENCE)
        how: dict[str, Any] = {"announce": self._announce, "pause": self._pause, "rest": rest}
        while self.report is None:
            self.asked += 1
            try:
                # The NVA may be killed between writing it down and saying so: the same request again is the same move
                token = f"{self._vm.name}-{time.monotonic_ns()}"
                self.report = self._vm.move(self._to, deadline=30.0, request_id=token, **how)
            except (ApiError, NotReady) as error:
                if self._vm.nve.name == self._to or time.monotonic() > deadline:
                    self.error = f"{self._vm.name} to {self._to}: {error}"
                    return
                time.sleep(0.1)  # as an orchestrator asks again
            except TopologyError as error:
                self.error = f"{self._vm.name} to {self._to}: {error}"
                return


def one(lab: Lab, number: int, dice: random.Random) -> Crisis:
    """One round: two to six tasks move, and in two of three rounds something breaks meanwhile and is mended."""
    vms = [lab.vm(name) for name in dice.sample(MOVERS, dice.randint(2, len(MOVERS)))]
    families: tuple[Family, ...] = (4, 6)
    pairs: list[Pair] = []
    for vm in vms:
        for client in dice.sample(CLIENTS, 2):
            pairs += both_ways(vm, lab.vm(client), dice.choice(families), RATE)
    pairs += both_ways(vms[0], vms[1], 6, RATE)
    movers = []
    for vm in vms:
        to = dice.choice([nve.name for nve in lab.net.nves if nve is not vm.nve])
        announce, after, pause = dice.choice(_ANNOUNCEMENTS), dice.uniform(0.0, 0.4), dice.uniform(0.03, 0.2)
        movers.append(_Mover(lab, vm, to, announce, after, pause))
    what, mend = _trouble(lab, dice)
    with UdpSession(pairs, quiet=0.4) as session:
        time.sleep(_BEFORE)  # the load itself is what is waited for
        for mover in movers:
            mover.thread.start()
        mend()
        for mover in movers:
            mover.thread.join()
        reports = [mover.report for mover in movers if mover.report is not None]
        states = [str(lab.await_closed(report.move, _PATIENCE)["state"]) for report in reports]
        time.sleep(_AFTER)
        traffic = session.stop()
    lab.await_synced(_PATIENCE)
    failed, asked = [mover.error for mover in movers if mover.error], sum(mover.asked for mover in movers)
    return Crisis(number, what, reports, asked, traffic, states, failed, lab.verify())


def _trouble(lab: Lab, dice: random.Random) -> tuple[str, Callable[[], None]]:
    """What breaks in a round, and what breaks and mends it."""
    what = dice.choice(("none", "killed", "cut"))
    nve = dice.choice(lab.net.nves)
    after, away = dice.uniform(0.0, 0.5), dice.uniform(0.0, 1.2)

    def break_and_mend() -> None:
        if what == "none":
            return
        time.sleep(after)
        if what == "killed":
            lab.nva.kill()
        else:
            nve.cut()
        time.sleep(away)
        if what == "killed":
            lab.nva.start()
        else:
            nve.restore()

    return what, break_and_mend
