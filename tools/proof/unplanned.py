"""Moves that nobody asked for: the port goes, comes up elsewhere, and the VM announces itself.

Packets that reach the source between the port's disappearance and the announcement have nowhere to go; that much is
lost in any system that is told nothing. What counts is what is lost beyond that, and how long a redirect outlives the
last packet that needed it.

Which datagrams were lost is known by their numbers. When those would have arrived is known from a flow that the move
does not touch: one process sends all flows on one schedule, so the n-th datagram of each was sent in the same turn.
That flow's turn comes last, so where the process was interrupted in between, a loss is taken for later than it was,
never for earlier.
"""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from topologies import VM, MoveReport
from topologies.traffic.session import Family, FlowResult, Outcome, Pair, UdpSession, both_ways

from .lab import Lab, wall_clock

RATE = 1000.0  # datagrams per second in each direction: one loss is one millisecond
KINDS = ("garp-request", "garp-reply", "na", "rarp")
ALLOWED = 0.005  # seconds after the announcement in which packets may still be lost
REDIRECT_GONE = 3.0  # seconds after the last stale packet in which the redirect must be gone
_BEFORE, _AFTER = 0.4, 0.2
_SETTLED = 20.0
#: Seconds that a datagram may have been under way when the port went, besides what the machine held it up.
_UNDER_WAY = 0.02
_AROUND = 200_000_000  # nanoseconds before and after a move in which the machine may hold up what belongs to it
#: How far the schedule of a flow may be from that of the reference flow, as a rule.
_SKEW = 0.002
#: Seconds after a barrier reply in which Open vSwitch may still forward the old way (its revalidations are 5 ms apart,
#: and two may be needed; measured up to 13 ms on a busy machine).
GUARD = 0.02
#: Seconds beyond ALLOWED that a test may tolerate: what two revalidations take, and, on a busy machine, six processes
#: in a row (two switches, the relay twice, the NVA, a switch) that each wait as long as the sender once had to.
_PATIENCE = 0.010
_HOPS = 6


@dataclass(frozen=True)
class Loss:
    """What a flow to the moving VM lost. Times in seconds.

    window: from the port's disappearance to the announcement. lost: datagrams in all. beyond: of these, the ones that
    would have arrived later than `ALLOWED` after the announcement; latest: when the last lost one would have arrived,
    counted from the announcement (negative: before it). unexplained: lost before the port was gone. skew: how far the
    reference's schedule is off, as a rule.
    """

    flow: str
    window: float
    lost: int
    beyond: int
    latest: float
    unexplained: int
    skew: float

    @property
    def excess(self) -> float:
        """Seconds by which the last loss came too late; 0 where it did not."""
        return max(0.0, self.latest - ALLOWED) if self.beyond else 0.0


@dataclass(frozen=True)
class UnplannedMove:
    """One move and what came of it.

    gone_after: seconds from the last stale packet to the redirect's removal. heard, confirmed: seconds from the
    announcement to the NVA's acting on it, and to the last NVE's barrier reply.
    """

    policy: str
    inside: Family
    announce: str
    report: MoveReport
    document: dict[str, Any]
    traffic: Outcome
    losses: list[Loss]
    gone_after: float
    heard: float
    confirmed: float
    wrong: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For people."""
        one = self.report
        return f"{self.announce}, announcements {self.policy}, IPv{self.inside}, {one.source} to {one.destination}"

    @property
    def held_up(self) -> float:
        """Seconds that a machine as busy as this one was may have held up a datagram or a change on its way."""
        return _held_up(self.traffic, self.report)

    @property
    def tolerance(self) -> float:
        """Seconds beyond `ALLOWED` that losses may last on a machine as busy as this one was."""
        return _PATIENCE + self.held_up

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        return [*self.late(), *self.faults()]

    def late(self) -> list[str]:
        """What took longer than it should: bounds in time, which a machine that others slow down may miss."""
        found = []
        for loss in self.losses:
            if loss.unexplained:
                found.append(f"{loss.flow}: {loss.unexplained} lost before the port was gone")
            late = f"{loss.flow}: the last of {loss.lost} was lost {loss.latest * 1e3:.1f} ms after the announcement"
            if loss.excess > self.tolerance:
                found.append(f"{late}, with a tolerance of {(ALLOWED + self.tolerance) * 1e3:.1f} ms")
            if loss.latest > self.confirmed + GUARD + self.held_up:
                found.append(f"{late}, but all had confirmed after {self.confirmed * 1e3:.1f} ms")
            if loss.skew > _SKEW:
                found.append(f"{loss.flow}: its schedule is not the reference's ({loss.skew * 1e3:.1f} ms off)")
        if self.gone_after > REDIRECT_GONE:
            found.append(f"the redirect was there {self.gone_after:.2f} s after the last stale packet")
        return [f"{self.name}: {words}" for words in found]

    def faults(self) -> list[str]:
        """What must not be so at any speed, in words."""
        ledger, found = self.document["ledger"], list(self.wrong)
        out = self.traffic
        for what, count in (("duplicated", out.duplicated), ("foreign", out.foreign), ("dropped", out.dropped)):
            if count:
                found.append(f"{count} {what}")
        if self.document["state"] != "settled" or self.document["trigger"] != "announcement":
            found.append(f"a move by {self.document['trigger']} that is {self.document['state']}")
        # All switches are told at once, so a redirected packet may be faster than its flow at the destination. It is
        # lost like those before it, and the ledger must say so: no more may be missing there than at the receivers.
        missing = ledger["redirected"]["packets"] - ledger["arrived"]["packets"]
        if not 0 <= missing == ledger["unaccounted"] <= sum(loss.lost for loss in self.losses):
            found.append(f"{ledger['redirected']} redirected, {ledger['arrived']} arrived, {self.losses}")
        if not ledger["exact"]:
            found.append("the ledger is not exact")
        return [f"{self.name}: {words}" for words in found]


def one(
    lab: Lab, policy: str, vm: VM, others: Sequence[VM], announce: str, inside: Family, tap_first: bool = True
) -> UnplannedMove:
    """Move a VM to the next NVE without asking anybody.

    others: two correspondents of its network. tap_first: the port at the destination is there before the source's
    goes, as when a running VM is migrated; else it comes up after that.
    """
    reference = Pair(others[0], others[1], inside, RATE)
    pairs = [pair for other in others for pair in both_ways(vm, other, inside, RATE)]
    after = lab.nva.last_event()
    with UdpSession([*pairs, reference], quiet=0.3) as session:
        time.sleep(_BEFORE)  # the load itself is what is waited for
        report = vm.move(lab.next_nve(vm), announce=announce, planned=False, tap_first=tap_first)
        opened = lab.nva.await_event("move.state", after, vm=vm.name, state="steering")
        number = opened["fields"]["move"]
        document = lab.await_closed(number, _SETTLED)
        time.sleep(_AFTER)
        outcome = session.stop()
    wrong = lab.verify()
    closed = lab.nva.await_event("move.closed", after, move=number)["at"]
    stale = max((stale["until"] for stale in document["ledger"]["stale"]), default=document["history"][0]["at"])
    *flows, untouched = outcome.flows
    if untouched.count.lost:
        wrong.append(f"{untouched.name}, which the move does not concern, lost {untouched.count.lost}")
    under_way = _UNDER_WAY + _held_up(outcome, report)
    losses = [_loss(flow, untouched, report, under_way) for flow in flows if flow.pair.target is vm]
    heard = document["history"][0]["at"] - wall_clock() - report.times["announced"]
    confirmed = heard + max(document["ledger"]["barriers"].values())
    return UnplannedMove(
        policy, inside, announce, report, document, outcome, losses, closed - stale, heard, confirmed, wrong
    )


def _held_up(traffic: Outcome, report: MoveReport) -> float:
    """How long processes in a row may have waited, going by the sender and by the flow that the move does not touch."""
    begun, done = (round(report.times[step] * 1e9) for step in ("paused", "announced"))
    untouched = traffic.flows[-1].arrivals
    delays = (
        there - here for here, there in zip(untouched.sent_ns, untouched.arrived_ns, strict=True)
        if begun - _AROUND <= here <= done + _AROUND
    )
    return max(_HOPS * traffic.sender_lateness, max(delays, default=0) / 1e9)


def _loss(flow: FlowResult, untouched: FlowResult, report: MoveReport, under_way: float) -> Loss:
    gone, announced = report.times["paused"], report.times["announced"]
    clock = _by_number(untouched)
    own = _by_number(flow)
    both = range(min(len(own), len(clock)))
    around = [abs(own[n] - clock[n]) for n in both if own[n] and clock[n]]
    delay = round(flow.count.delay_median * 1e9)
    lost = [(clock[n] + delay) / 1e9 for n in both if not own[n]]
    return Loss(
        flow.name, announced - gone, flow.count.lost,
        sum(at > announced + ALLOWED for at in lost), max(lost, default=gone) - announced,
        sum(at < gone - under_way for at in lost), statistics.median(around) / 1e9,
    )


def _by_number(flow: FlowResult) -> array[int]:
    """When each datagram was sent, monotonic nanoseconds, as far as it arrived (else 0)."""
    times = array("q", bytes(8 * flow.count.sent))
    for number, sent in zip(flow.arrivals.seq, flow.arrivals.sent_ns, strict=True):
        times[number] = sent
    return times
