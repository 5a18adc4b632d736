"""Moves as tables for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from . import awaited
from .context import table
from .words import Doc, clock, duration, local, styled

__all__ = ["move", "moves"]


def moves(items: Iterable[Doc]) -> Table:
    """Moves, a line each."""
    return table(
        "",
        "MOVE",
        "VM",
        "KIND",
        "FROM",
        "TO",
        "STATE",
        "CREATED",
        "TOOK",
        "REDIRECTED",
        "UNACCOUNTED",
        rows=(
            (
                m["id"],
                m["vm"],
                m["kind"],
                m["source"],
                m["destination"],
                styled(m["state"]),
                local(m["created"]),
                duration(sum(s["seconds"] for s in m["history"][:-1])) if not m["open"] else None,
                m["ledger"]["redirected"]["packets"],
                m["ledger"]["unaccounted"],
            )
            for m in items
        ),
        right=["MOVE", "TOOK", "REDIRECTED", "UNACCOUNTED"],
    )


def move(document: Doc, now: float | None = None) -> list[Table | Text]:
    """A move: its history, barriers and ledger. ``now``: Unix time, to show how long the present state lasts."""
    title = Text.assemble(
        (f"move {document['id']}: ", "bold"),
        f"{document['vm']} {document['source']} -> {document['destination']} ",
        f"({document['kind']}, by {document['trigger']}) ",
        styled(document["state"]),
    )
    parts: list[Table | Text] = [title]
    if document["error"]:
        parts.append(Text(document["error"], style="red"))
    parts += [Text(f"{c['interface']}: {c['old']} becomes {c['new']}") for c in document["addresses"]]
    if document["addresses"] or document["connections"] != "keep":
        parts.append(Text(f"connections: {document['connections']}"))
    waits = awaited.words(document)
    if waits:
        parts.append(Text(waits, style="yellow"))
    parts.append(_history(document, now))
    parts += _progress(document)
    probes: dict[str, float] = document["ledger"]["probes"]
    if probes:
        slowest = max(probes, key=lambda path: probes[path])
        parts.append(Text(f"{len(probes)} paths proven, {slowest} last, after {duration(probes[slowest])}"))
    parts.append(_ledger(document["ledger"]))
    parts += [
        Text(f"longer queue, on {port['nve']}: {port['remedy']}", style="yellow")
        for port in document["ledger"]["ports"]
        if port["remedy"]
    ]
    return parts


def _history(document: Doc, now: float | None) -> Table:
    rows = []
    for step in document["history"]:
        seconds = step["seconds"]
        if seconds is None and document["open"] and now is not None:
            seconds = max(0.0, now - step["at"])
        rows.append((styled(step["state"]), clock(step["time"]), duration(seconds), step["why"]))
    return table("", "STATE", "SINCE", "FOR", "WHY", rows=rows, right=["FOR"])


def _progress(document: Doc) -> list[Table]:
    """What each NVE has acknowledged."""
    barriers: dict[str, float] = document["ledger"]["barriers"]
    generations: dict[str, Doc] = document["generation"]["nves"]
    names = sorted({*barriers, *generations, *document["unconfirmed"]})
    if not names:
        return []
    rows = []
    for name in names:
        generation = generations.get(name)
        acknowledged = generation is None or generation["realised"] >= generation["programmed"]
        role = {document["source"]: "source", document["destination"]: "destination"}
        rows.append(
            (
                name,
                role.get(name, "correspondent"),
                Text("no", style="yellow")
                if name in document["unconfirmed"] or not acknowledged
                else Text("yes", style="green"),
                duration(barriers.get(name)),
            )
        )
    return [table("", "NVE", "ROLE", "ACKNOWLEDGED", "BARRIER AFTER", rows=rows, right=["BARRIER AFTER"])]


def _ledger(ledger: Doc) -> Table:
    rows: list[tuple[object, ...]] = [
        ("redirected at the source", ledger["redirected"]["packets"], ledger["redirected"]["bytes"]),
        ("arrived at the destination", ledger["arrived"]["packets"], ledger["arrived"]["bytes"]),
        ("not accounted for", _mark(ledger["unaccounted"]), None),
        ("lost at the source", _mark(ledger["lost"]["packets"]), ledger["lost"]["bytes"]),
        ("held in the NVA", ledger["held"]["packets"], None),
        ("lost while held", _mark(ledger["held"]["lost"]), None),
        ("dropped by ports, their queues full", _mark(ledger["dropped"]["packets"]), None),
        ("late", ledger["late_packets"], None),
    ]
    rows += [(f"dropped by {p['port']} on {p['nve']}", p["dropped"], None) for p in ledger["ports"] if p["dropped"]]
    rows += [(f"stale from {s['nve']}, corrected {s['corrected']}x", s["packets"], s["bytes"]) for s in ledger["stale"]]
    title = "LEDGER" if ledger["closed"] else "LEDGER (counting)"
    if ledger["redirected"]["packets"] and not ledger["exact"]:
        lost = [*ledger["forgetful"], *ledger["unread"]]
        unread = f": {', '.join(lost)} lost counters or could not be read"
        title += ", estimated" + (unread if lost else "")  # otherwise the source has no meters
    return table("", title, "PACKETS", "BYTES", rows=rows, right=["PACKETS", "BYTES"])


def _mark(packets: int) -> Text:
    return Text(str(packets), style="red" if packets else "green")
