"""Planned hot moves under load: 0 lost, 0 duplicated, and a ledger that agrees with what the receivers counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from topologies import MoveReport
from topologies.traffic.session import Family, FlowResult, Outcome

from .hot import Findings, made
from .lab import Lab, wall_clock

MOVER, CORRESPONDENTS = "vm1", ("vm2", "vm3")
ANNOUNCEMENTS = ("garp-request", "garp-reply", "na", "rarp", "none")
#: Seconds in which a datagram sent right before the announcement has surely reached its NVE, and in which one sent
#: right after the last confirmation may still be under way in the old direction.
_EDGE = 0.015
#: Processes in a row that a datagram or a change has to get through, each of which may wait as long as the sender did.
_HOPS = 6
#: Packets of the guests' own (neighbor probes) that may be redirected besides the datagrams, per correspondent.
_CHATTER = 5


@dataclass(frozen=True)
class Redirected:
    """What the ledger says a correspondent NVE still sent to the source, and what its flow's times say.

    least: datagrams sent while the redirect was certainly in force and nobody had been told of the new place.
    most: those that arrived after the redirect was asked for, sent before its NVE had confirmed.
    """

    nve: str
    ledger: int
    least: int
    most: int

    @property
    def agrees(self) -> bool:
        """Is the ledger's number possible?"""
        return self.least <= self.ledger <= self.most + _CHATTER


@dataclass(frozen=True)
class PlannedMove:
    """One move and what came of it."""

    underlay: str
    inside: Family
    announce: str
    report: MoveReport
    document: dict[str, Any]
    traffic: Outcome
    redirected: list[Redirected]
    wrong: list[str] = field(default_factory=list)  # what the comparison of all switches found

    @property
    def ledger(self) -> dict[str, Any]:
        """The NVA's account."""
        found: dict[str, Any] = self.document["ledger"]
        return found

    @property
    def convergence(self) -> float:
        """Seconds from the announcement to the last NVE's barrier reply."""
        barriers: dict[str, float] = self.ledger["barriers"]
        return max(barriers.values())

    @property
    def name(self) -> str:
        """For people."""
        one = self.report
        return f"IPv{self.inside} over {self.underlay}, {one.source} to {one.destination}, {self.announce}"

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found, ledger = Findings(self.wrong), self.ledger
        found.move(self.report, self.document, self.traffic, octets=True)
        stale = sum(one["packets"] for one in ledger["stale"])
        found.want("sum over correspondents", stale, ledger["redirected"]["packets"])
        found.words += [
            f"{one.nve} had {one.ledger} redirected by the ledger, {one.least} to {one.most} by the receivers"
            for one in self.redirected if not one.agrees
        ]
        return [f"{self.name}: {words}" for words in found.words]


def itinerary(count: int, families: Sequence[Family], first: int = 0) -> Iterator[tuple[Family, str]]:
    """(inside, announcement) of so many moves: the families in turn, every announcement that fits them."""
    for n in range(first, first + count):
        inside = families[n % len(families)]
        announce = ANNOUNCEMENTS[(n // len(families)) % len(ANNOUNCEMENTS)]
        yield inside, announce


def leg(number: int, nves: int = 4) -> tuple[str, str]:
    """(source, destination) of the n-th move (from 1 on) of a VM that goes round so many NVEs."""
    return f"nve{(number - 1) % nves + 1}", f"nve{number % nves + 1}"


def one(lab: Lab, inside: Family, announce: str, **options: Any) -> PlannedMove:
    """One move to the next NVE; `options` as for `topologies.move.move`."""
    vm, others = lab.vm(MOVER), [lab.vm(name) for name in CORRESPONDENTS]
    after = lab.nva.last_event()
    report, document, outcome = made(lab, vm, others, inside, lab.next_nve(vm), announce=announce, **options)
    wrong = lab.verify()
    times = _times(lab, after, report, document)
    edge = _EDGE + _HOPS * outcome.sender_lateness
    redirected = [
        _redirected(flow, times, document["ledger"], edge) for flow in outcome.flows
        if flow.pair.target is vm and flow.pair.source.nve.name != report.destination
    ]
    return PlannedMove(lab.underlay, inside, announce, report, document, outcome, redirected, wrong)


def _times(lab: Lab, after: str | None, report: MoveReport, document: dict[str, Any]) -> dict[str, float]:
    """When the NVA did what, on the clock of the datagrams (monotonic seconds)."""
    offset = wall_clock()
    entered = {step["state"]: step["at"] - offset for step in document["history"]}
    number = int(report.move or 0)
    in_force = lab.nva.await_event("move.redirect", after, move=number, phase="in-force")["at"] - offset
    # The NVA reads the same two clocks at its start; should somebody have set one since, nothing below would mean much.
    early, late = report.times["asked"] - 0.05, report.times["redirect_in_force"] + 0.05
    if not early <= in_force <= late:
        raise AssertionError(f"the NVA's clock and ours differ: {in_force} is not within {early} to {late}")
    return {"requested": entered["redirecting"], "in force": in_force, "steering": entered["steering"]}


def _redirected(flow: FlowResult, times: dict[str, float], ledger: dict[str, Any], edge: float) -> Redirected:
    nve = flow.pair.source.nve.name
    confirmed = times["steering"] + ledger["barriers"][nve] + edge
    told = times["steering"] - edge
    least = most = 0
    for sent, arrived in zip(flow.arrivals.sent_ns, flow.arrivals.arrived_ns, strict=True):
        least += times["in force"] <= sent / 1e9 <= told
        most += arrived / 1e9 >= times["requested"] and sent / 1e9 <= confirmed
    listed = {stale["nve"]: stale["packets"] for stale in ledger["stale"]}
    return Redirected(nve, listed.get(nve, 0), least, most)
