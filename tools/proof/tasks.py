"""Moves of tasks that keep their addresses, under load: by host routes and by ILA. Nothing lost, nothing doubled."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from topologies import MoveReport
from topologies.traffic.session import Family, Outcome, UdpSession, both_ways

from .capture import Capture
from .lab import Lab

RATE = 2000.0  # datagrams per second in each direction
_BEFORE, _AFTER = 0.4, 0.2  # seconds of traffic before a move and after it has settled
_SETTLED = 20.0
#: what moves, and its correspondents: by host routes, and with an address of the SIR prefix by ILA
Who = tuple[str, tuple[str, ...]]
HOST_ROUTE: Who = ("task1", ("cli2", "cli3"))
ILA: Who = ("mob1", ("far2", "far3"))
_PORT = 5001


@dataclass(frozen=True)
class TaskMove:
    """One move and what came of it.

    carried: frames of the datagrams on the destination's link to the underlay, by how they were carried; `wrong_sums`:
    those of them with a checksum that is not right (both None: nobody looked).
    """

    underlay: str
    how: str
    inside: Family
    report: MoveReport
    document: dict[str, Any]
    traffic: Outcome
    wrong: list[str] = field(default_factory=list)
    carried: dict[str, int] | None = None
    wrong_sums: list[str] | None = None

    @property
    def ledger(self) -> dict[str, Any]:
        """The NVA's account."""
        found: dict[str, Any] = self.document["ledger"]
        return found

    @property
    def name(self) -> str:
        """For people."""
        one = self.report
        return f"{one.vm} by {self.how}, IPv{self.inside} over {self.underlay}, {one.source} to {one.destination}"

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        out, ledger = self.traffic, self.ledger
        found = list(self.wrong)

        def want(what: str, is_: object, wanted: object) -> None:
            if is_ != wanted:
                found.append(f"{what} is {is_}, not {wanted}")

        for flow in out.flows:
            want(f"lost, {flow.name}, {flow.count.lost_runs}", flow.count.lost, 0)
            want(f"duplicated, {flow.name}", flow.count.duplicated, 0)
            if flow.count.sent < 1000:
                found.append(f"{flow.name}: only {flow.count.sent} datagrams were sent")
        want("foreign", out.foreign, 0)
        want("dropped by the receivers", out.dropped, 0)
        want("state", self.document["state"], "settled")
        want("left in the source's queue", self.report.left, 0)
        want("unaccounted", ledger["unaccounted"], 0)
        # packets only: switches count those from a tunnel without Ethernet without its 14 bytes
        want("packets arrived", ledger["arrived"]["packets"], ledger["redirected"]["packets"])
        want("lost in the ledger", ledger["lost"]["packets"], 0)
        want("held and lost", ledger["held"]["lost"], 0)
        want("exact", ledger["exact"], True)
        if not ledger["redirected"]["packets"]:
            found.append("nothing was redirected: this has shown nothing")
        if self.wrong_sums:
            found.append(f"checksums on the underlay: {Counter(self.wrong_sums)}")
        if self.how == "ILA" and self.carried is not None and self.carried.get("plain", 0) < 1000:
            found.append(f"carried by {self.carried}: not by ILA")
        return [f"{self.name}: {words}" for words in found]


def ways(underlay: str) -> list[tuple[Who, Family]]:
    """(who, inside) of all kinds of moves that there are over such an underlay."""
    found: list[tuple[Who, Family]] = [(HOST_ROUTE, 4), (HOST_ROUTE, 6)]
    return found if underlay == "ipv4" else [*found, (ILA, 6)]


def one(
    lab: Lab, who: Who, inside: Family, announce: str = "none", capture: bool = False, to: str | None = None,
    **options: Any,
) -> TaskMove:
    """One move of a task to an NVE, by default the next; `options` as for `topologies.move.move`."""
    vm, others = lab.vm(who[0]), [lab.vm(name) for name in who[1]]
    to = to or lab.next_nve(vm)
    how = "ILA" if inside == 6 and vm.vn.sir else "host route"
    session = UdpSession([pair for other in others for pair in both_ways(vm, other, inside, RATE)], quiet=0.3)
    seen = Capture(lab.net.nve(to)) if capture else None
    with session:
        if seen is not None:
            seen.__enter__()
        time.sleep(_BEFORE)  # the load itself is what is waited for
        report = vm.move(to, announce=announce, settle=_SETTLED, **options)
        document = lab.await_closed(report.move)
        time.sleep(_AFTER)
        outcome = session.stop()
    carried = sums = None
    if seen is not None:
        ours = [one for one in seen.stop() if one.inner and one.inner.ports and _PORT in one.inner.ports]
        carried = dict(Counter(one.how for one in ours))
        sums = [words for one in ours for words in one.wrong]
    return TaskMove(lab.underlay, how, inside, report, document, outcome, lab.verify(), carried, sums)
