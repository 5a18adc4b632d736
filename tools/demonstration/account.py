"""What came of it: the verdict, the tables, the JSON document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from topologies import MoveReport
from topologies.traffic.session import FlowResult, Outcome

_WITH_REDIRECT = ("redirecting", "steering", "draining")


@dataclass(frozen=True)
class Moved:
    """One move: as the hypervisors saw it, and as the NVA recorded it."""

    report: MoveReport
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """For people: vm1 nve1 -> nve2."""
        return f"{self.report.source} -> {self.report.destination}"

    @property
    def losses(self) -> int:
        """Packets that the ledger says were lost."""
        ledger = self.document["ledger"]
        lost = ledger["lost"]["packets"] + ledger["held"]["lost"] + ledger["dropped"]["packets"]
        return int(max(0, ledger["unaccounted"]) + lost)

    def lasted(self, state: str) -> float:
        """Seconds in a state."""
        return sum(step["seconds"] or 0.0 for step in self.document["history"] if step["state"] == state)


@dataclass
class Account:
    """Everything that was found. `clock` is what to subtract from Unix times to get the traffic's times."""

    moved: list[Moved]
    outcome: Outcome
    verified: list[dict[str, Any]]
    problems: list[str]
    clock: float

    def faults(self) -> list[str]:
        """What keeps the demonstration from passing, in words."""
        out, found = self.outcome, list(self.problems)
        if out.lost:
            full = f", {out.dropped:,} of them in a receiver's full buffer" if out.dropped else ""
            found.append(f"{out.lost:,} datagrams were lost{full}")
        if out.duplicated:
            found.append(f"{out.duplicated:,} datagrams arrived twice")
        if out.foreign:
            found.append(f"{out.foreign:,} datagrams arrived that were nobody's")
        for moved in self.moved:
            if moved.document["state"] != "settled":
                found.append(f"the move {moved.name} is {moved.document['state']}")
            if moved.losses:
                found.append(f"the ledger of {moved.name} misses {moved.losses:,} packets")
        for nve in self.verified:
            if not nve["in_sync"]:
                found.append(f"{nve['nve']} differs from the desired state in {len(nve['differences'])} flows")
            if nve["tunnel_to_tunnel"]:
                found.append(f"{nve['nve']} still sends from tunnel to tunnel")
        return found

    def verdict(self) -> str:
        """The closing line."""
        faults = self.faults()
        if faults:
            return f"FAILED: {'; '.join(faults)}."
        flows = len(self.outcome.flows)
        return (f"PASSED: {self.outcome.sent:,} datagrams in {flows} flows during {len(self.moved)} moves, none lost, "
                f"none doubled; all {len(self.verified)} switches in sync, no tunnel-to-tunnel flow left.")

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ok": not self.faults(),
            "verdict": self.verdict(),
            "sent": self.outcome.sent,
            "lost": self.outcome.lost,
            "duplicated": self.outcome.duplicated,
            "flows": [{"name": flow.name, **asdict(flow.count)} for flow in self.outcome.flows],
            "moves": [{"hypervisor": one.report.as_dict(), "nva": one.document} for one in self.moved],
            "nves": self.verified,
        }


def tables(account: Account, console: Console) -> RenderableType:
    """The ledger of the moves and the receivers' counts, side by side where there is room."""
    ledger, receivers = _ledger(account.moved), _receivers(account.outcome.flows)
    if console.measure(ledger).maximum + console.measure(receivers).maximum + 4 > console.width:
        return Group(ledger, "", receivers)
    both = Table.grid(padding=(0, 4, 0, 0))
    both.add_row(ledger, receivers)
    return both


def table(title: str, *columns: str) -> Table:
    """A table as all of them look: names to the left, figures to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
                 show_edge=False, padding=(0, 1, 0, 0))
    made.add_column(columns[0])
    for name in columns[1:]:
        made.add_column(name, justify="right")
    return made


def zero(count: int) -> Text:
    """A count that ought to be 0."""
    return Text(f"{count:,}", style="red" if count else "green")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms"


def _ledger(moves: Sequence[Moved]) -> Table:
    made = table("What the switches counted (ledger)", "", *(move.name for move in moves))

    def row(name: str, value: Callable[[Moved], str | Text]) -> None:
        made.add_row(name, *(value(move) for move in moves))

    def ledger(move: Moved) -> dict[str, Any]:
        found: dict[str, Any] = move.document["ledger"]
        return found

    row("redirected by source", lambda m: f"{ledger(m)['redirected']['packets']:,}")
    row("arrived at destination", lambda m: f"{ledger(m)['arrived']['packets']:,}")
    row("not accounted for", lambda m: zero(ledger(m)["unaccounted"]))
    row("lost at source", lambda m: zero(ledger(m)["lost"]["packets"]))
    row("lost while held in NVA", lambda m: zero(ledger(m)["held"]["lost"]))
    if any(ledger(move)["dropped"]["packets"] for move in moves):
        row("dropped by ports, queues full", lambda m: zero(ledger(m)["dropped"]["packets"]))
    row("VM paused", lambda m: _ms(m.report.downtime))
    row("last NVE confirmed", lambda m: _ms(max(ledger(m)["barriers"].values(), default=0.0)))
    row("redirect existed", lambda m: f"{sum(map(m.lasted, _WITH_REDIRECT)):.1f} s")
    return made


def _receivers(flows: Sequence[FlowResult]) -> Table:
    made = table("What the receivers counted", "flow", "sent", "arrived", "lost", "twice", "gap")
    for flow in flows:
        count = flow.count
        made.add_row(flow.name, f"{count.sent:,}", f"{count.received:,}", zero(count.lost), zero(count.duplicated),
                     _ms(count.stall))
    counts = [flow.count for flow in flows]
    made.add_section()
    made.add_row("all", f"{sum(c.sent for c in counts):,}", f"{sum(c.received for c in counts):,}",
                 zero(sum(c.lost for c in counts)), zero(sum(c.duplicated for c in counts)),
                 _ms(max(c.stall for c in counts)))
    return made
