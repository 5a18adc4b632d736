"""What was found, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.report import Part, number

from .cells import Cell
from .requests import Asked

_COLUMNS = [
    "runs", "datagrams sent", "of these not in an outage", "lost", "of these the fault's own",
    "thrown away with a port", "lost beyond", "doubled", "open moves left", "flow differences left", "ended",
    "without any problem",
]


def _row(cells: Sequence[Cell]) -> list[str]:
    ends = sorted({end for cell in cells for end in cell.end.split(", ")})
    return [
        number(len(cells)), number(sum(cell.sent for cell in cells)),
        number(sum(cell.losses.exposed for cell in cells)), number(sum(cell.losses.lost for cell in cells)),
        number(sum(cell.losses.own for cell in cells)), number(sum(cell.losses.thrown for cell in cells)),
        number(sum(cell.losses.beyond for cell in cells)), number(sum(cell.doubled for cell in cells)),
        number(sum(len(cell.left) for cell in cells)), number(sum(len(cell.wrong) for cell in cells)),
        ", ".join(ends), f"{sum(not cell.problems() for cell in cells)} of {len(cells)}",
    ]


def _data(cell: Cell) -> dict[str, Any]:
    return {
        "fault": cell.name, "state": cell.state, "end": cell.end, "sent": cell.sent, "doubled": cell.doubled,
        "losses": vars(cell.losses), "left": cell.left, "wrong": cell.wrong, "problems": cell.problems(),
        "outages": [{"why": outage.why, "seconds": outage.seconds} for outage in cell.outages],
        "ledger": cell.document.get("ledger"),
        "history": [(step["state"], step["why"]) for step in cell.document.get("history", [])],
    }


def overview(cells: Sequence[Cell], name: str, title: str, states: Sequence[str]) -> Part:
    """Fault x state, what must be nothing in each: one row for each fault."""
    faults = dict.fromkeys(cell.name for cell in cells)
    rows = []
    for fault in faults:
        mine = [cell for cell in cells if cell.name == fault]
        row = [fault, number(len(mine))]
        for state in states:
            found = [cell for cell in mine if cell.state == state]
            bad = (sum(cell.losses.beyond for cell in found), sum(cell.doubled for cell in found),
                   sum(len(cell.left) for cell in found), sum(len(cell.wrong) for cell in found))
            row.append(" / ".join(map(number, bad)) if found else "")
        rows.append([*row, number(sum(cell.losses.own + cell.losses.thrown for cell in mine)),
                     f"{sum(not cell.problems() for cell in mine)} of {len(mine)}"])
    columns = ["fault", "runs", *states, "lost to the fault itself", "without any problem"]
    notes = ["In each cell: datagrams lost beyond what the fault itself drops / datagrams doubled / open moves left / "
             "flow differences left."]
    return Part(name, title, columns, rows, notes)


def matrix(cells: Sequence[Cell], name: str, title: str, crashed: Sequence[str] = ()) -> Part:
    """Fault x state, one row for each, and one for all."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.name, cell.state), []).append(cell)
    rows = [[fault, state, *_row(found)] for (fault, state), found in groups.items()]
    rows.append(["all", "all", *_row(cells)])
    longest = max((outage.seconds for cell in cells for outage in cell.outages), default=0.0)
    notes = [
        "12 flows of 150 numbered datagrams/s, counted at the receivers: between the VM that moves and one at the "
        "source, one at a correspondent NVE (IPv4 and IPv6, both ways) and one at another NVE, and between those two.",
        "The fault's own: datagrams of flows that cross the broken NVE, sent between the break and the moment when its "
        f"switch holds its flows again (or its link is up) and 0.3 s more; the longest such time was {longest:.2f} s. "
        "Thrown away with a port: they waited in the destination's port when the move was rolled back. Lost beyond: "
        "everything else.",
    ]
    if crashed:
        notes.append(f"Not counted, since they came to no end: {', '.join(crashed)}.")
    data = {"runs": [_data(cell) for cell in cells], "crashed": list(crashed)}
    return Part(name, title, ["fault", "state", *_COLUMNS], rows, notes, data)


def requests(asked: Asked) -> Part:
    """What clients were told over kills of the NVA."""
    row = [number(value) for value in (
        asked.kills, asked.asked, asked.acknowledged, asked.repeated, asked.vms, asked.moves, len(asked.lost),
        len(asked.doubled), len(asked.untrue), len(asked.wrong),
    )]
    columns = [
        "kills", "requests made", "acknowledged", "of these only when repeated", "VMs", "moves",
        "acknowledged and lost", "done twice", "otherwise untrue", "flow differences left",
    ]
    notes = ["Four clients register, change, move and remove VMs and abort moves while the NVA is killed (SIGKILL) and "
             "started again; a request without an answer is made again as it was."]
    return Part("requests", "Requests over SIGKILL", columns, [row], notes, {**vars(asked)})
