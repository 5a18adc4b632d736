"""Which datagrams were lost, when they were sent, and which of them the fault itself had to drop.

A fault of the data plane (a switch that is down, a link that is cut) loses whatever would have crossed the broken NVE
meanwhile, in any system. That much is known: the flows that cross it, and the time from the break to the moment when
the NVE forwards again. Datagrams of those flows, sent in that time, are the fault's own; any other loss is ours.

When a lost datagram was sent follows from its neighbors in the same flow, which arrived and say when they were sent.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from topologies.traffic.session import FlowResult, Outcome

#: Seconds that a datagram may have been under way (or in a buffer of the switch that died) when the break began.
UNDER_WAY = 0.05


@dataclass(frozen=True)
class Outage:
    """What could not be delivered by anybody: these flows (by name), sent between two moments (monotonic seconds)."""

    why: str
    began: float
    ended: float
    flows: frozenset[str]

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.ended - self.began


@dataclass(frozen=True)
class Losses:
    """What one run lost.

    lost: in all. own: of these, the fault's own. thrown: of these, datagrams that waited in a queue which was thrown
    away with its port. beyond: all others. exposed: datagrams that were sent in no outage of their flow, lost or not.
    """

    lost: int
    own: int
    thrown: int
    beyond: int
    where: tuple[str, ...] = ()
    exposed: int = 0


def sent_at(flow: FlowResult, start: float, end: float) -> list[tuple[int, float]]:
    """(number, when it was sent) of each lost datagram of a flow, between whose first and last so much time lay."""
    times = array("d", bytes(8 * flow.count.sent))
    for number, sent in zip(flow.arrivals.seq, flow.arrivals.sent_ns, strict=True):
        times[number] = sent / 1e9
    found = []
    before, at = -1, start
    for number in range(flow.count.sent + 1):
        here = end if number == flow.count.sent else times[number]
        if not here:
            continue
        gap = number - before
        found += [(before + n, at + (here - at) * n / gap) for n in range(1, gap)]
        before, at = number, here
    return found


def span(outcome: Outcome) -> tuple[float, float]:
    """When the first and the last datagram that arrived were sent (monotonic seconds)."""
    stamps = [stamp for flow in outcome.flows for stamp in (*flow.arrivals.sent_ns[:1], *flow.arrivals.sent_ns[-1:])]
    return min(stamps, default=0) / 1e9, max(stamps, default=0) / 1e9


class Calendar:
    """The times in which datagrams of one flow are lost by no fault of ours."""

    def __init__(self, outages: Sequence[Outage], flow: str) -> None:
        spans = sorted((one.began - UNDER_WAY, one.ended) for one in outages if flow in one.flows)
        self._began: list[float] = []
        self._ended: list[float] = []
        for began, ended in spans:
            if self._ended and began <= self._ended[-1]:
                self._ended[-1] = max(self._ended[-1], ended)
            else:
                self._began.append(began)
                self._ended.append(ended)

    def covers(self, moment: float) -> bool:
        """Is it such a time?"""
        place = bisect.bisect_right(self._began, moment) - 1
        return place >= 0 and moment <= self._ended[place]


def account(outcome: Outcome, outages: Sequence[Outage], thrown: int, mover: str) -> Losses:
    """Sort what was lost. `thrown`: frames for the VM `mover` that were thrown away with a port."""
    start, end = span(outcome)
    lost = own = beyond = queued = exposed = 0
    where = []
    for flow in outcome.flows:
        calendar, missing = Calendar(outages, flow.name), sent_at(flow, start, end)
        others = [(number, at) for number, at in missing if not calendar.covers(at)]
        exposed += len(others) + sum(not calendar.covers(sent / 1e9) for sent in flow.arrivals.sent_ns)
        lost += len(missing)
        own += len(missing) - len(others)
        if flow.pair.target.name == mover:
            here = min(len(others), thrown - queued)
            queued += here
            others = others[here:]
        beyond += len(others)
        if others:
            first, last = (at - start for _, at in (others[0], others[-1]))
            where.append(f"{flow.name}: {len(others)}, sent {first:.3f} to {last:.3f} s")
    return Losses(lost, own, queued, beyond, tuple(where), exposed)
