"""Moves of tasks that keep their addresses, under load: by host routes and by ILA. Nothing lost, nothing doubled."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from topologies import MoveReport
from topologies.traffic.session import Family, Outcome

from .capture import Capture
from .hot import Findings, made
from .lab import Lab

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
        found = Findings(self.wrong)
        found.move(self.report, self.document, self.traffic, octets=False)
        if self.wrong_sums:
            found.words.append(f"checksums on the underlay: {Counter(self.wrong_sums)}")
        if self.how == "ILA" and self.carried is not None and self.carried.get("plain", 0) < 1000:
            found.words.append(f"carried by {self.carried}: not by ILA")
        return [f"{self.name}: {words}" for words in found.words]


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
    seen = Capture(lab.net.nve(to)) if capture else None
    report, document, traffic = made(lab, vm, others, inside, to, seen, announce=announce, **options)
    carried = sums = None
    if seen is not None:
        ours = [one for one in seen.seen() if one.inner and one.inner.ports and _PORT in one.inner.ports]
        carried = dict(Counter(one.how for one in ours))
        sums = [words for one in ours for words in one.wrong]
    return TaskMove(lab.underlay, how, inside, report, document, traffic, lab.verify(), carried, sums)
