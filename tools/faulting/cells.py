"""One fault at one state of a move, under traffic: what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from topologies.traffic.session import Outcome

from .faults import Fault
from .ground import MOVER, Ground
from .losses import Losses, Outage, account
from .staged import Staged

_BEFORE, _AFTER = 0.3, 0.4  # seconds of traffic before the move is asked for and after all is whole
_TAIL = 0.3  # seconds at the end in which nothing may be lost any more, whatever the fault was


@dataclass(frozen=True)
class Cell:
    """One run. left: moves still open afterwards. wrong: what the comparison of all switches found."""

    name: str
    state: str
    end: str
    losses: Losses
    sent: int
    doubled: int
    outages: list[Outage]
    left: list[int]
    wrong: list[str]
    others: list[str] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = [*self.others, *self.wrong]
        if self.losses.beyond:
            found.append(f"{self.losses.beyond} lost beyond what the fault drops ({'; '.join(self.losses.where)})")
        if self.doubled:
            found.append(f"{self.doubled} doubled")
        if self.left:
            found.append(f"moves left open: {self.left}")
        return [f"{self.name} while {self.state}: {words}" for words in found]


def run(ground: Ground, fault: Fault, state: str) -> Cell:
    """Bring a move to a state, break something, mend it, carry the move to its end, and count.

    Raises TopologyError where the machine, not the NVA, is at fault, and where something never comes right.
    """
    staged = Staged(ground, ground.vm(MOVER))
    with ground.session(ground.traffic(staged)) as session:
        time.sleep(_BEFORE)  # the load itself is what is waited for
        try:
            staged.reach(state)
            outages = fault.strike(ground, staged, staged.role(fault.role) if fault.role else None)
            document = staged.finish()
        finally:
            staged.release()
        ground.await_all_synced()
        left = [move["id"] for move in ground.await_ended()]
        ended = max((outage.ended for outage in outages), default=0.0)
        time.sleep(max(0.0, ended - time.monotonic()) + _AFTER)
        outcome = session.stop()
    others = aftermath(ground, outcome, [MOVER])
    if document["state"] not in fault.may_end(state):
        others.append(f"the move is {document['state']}: {document['error'] or document['history'][-1]['why']}")
    losses = account(outcome, outages, staged.thrown, MOVER)
    return Cell(
        fault.title, state, document["state"], losses, outcome.sent, outcome.duplicated, outages, left,
        ground.verify(), others, document,
    )


def aftermath(ground: Ground, outcome: Outcome, movers: Sequence[str]) -> list[str]:
    """What must be so whatever has happened, and is not: traffic flows, and VMs are where the directory says."""
    found = []
    for flow in outcome.flows:
        tail = round(_TAIL * flow.pair.rate)
        arrived = sum(number >= flow.count.sent - tail for number in set(flow.arrivals.seq))
        if arrived < min(tail, flow.count.sent):
            found.append(f"{flow.name} does not flow: of the last {tail} datagrams {arrived} arrived")
    if outcome.foreign:
        found.append(f"{outcome.foreign} foreign datagrams")
    if outcome.dropped:
        found.append(f"the receivers dropped {outcome.dropped}")
    for name in movers:
        vm = ground.vm(name)
        place = ground.directory(name)
        if place != (vm.nve.name, vm.spec.port):
            found.append(f"{name} is at {vm.nve.name}, but the directory says {place[0]} {place[1]}")
    return found
