"""Evacuations for people: tables, a line for each change, and a live picture of what is under way."""

from __future__ import annotations

import time
from contextlib import ExitStack

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from . import awaited, words
from .context import Context, console, table
from .watch import follow, looks
from .words import Doc

__all__ = ["evacuation", "evacuations", "watch"]

_STYLES = {
    "done": "green",
    "moved": "green",
    "draining": "green",
    "moving": "cyan",
    "running": "cyan",
    "incomplete": "red",
    "failed": "red",
    "cancelling": "yellow",
    "cancelled": "yellow",
    "left": "yellow",
    "gone": "blue",
    "waiting": "dim",
}
_BAR = 40
#: So many rows of a table are shown while it is live; the end has them all.
_ROWS = 24


def _styled(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, ""))


def evacuations(items: list[Doc]) -> Table:
    """Evacuations, a line each."""
    return table(
        "",
        "EVACUATION",
        "NVE",
        "TO",
        "STATE",
        "VMS",
        "MOVED",
        "FAILED",
        "LEFT",
        "CREATED",
        "TOOK",
        rows=(
            (
                e["id"],
                e["nve"],
                e["to"] or "all others",
                _styled(e["state"]),
                e["total"],
                e["counts"]["moved"],
                e["counts"]["failed"],
                e["counts"]["left"],
                words.local(e["created"]),
                words.duration(_seconds(e)),
            )
            for e in items
        ),
        right=["EVACUATION", "VMS", "MOVED", "FAILED", "LEFT", "TOOK"],
    )


def _seconds(document: Doc) -> float | None:
    """From its beginning to its end, None if it has not ended."""
    if document["ended"] is None:
        return None
    steps = document["history"]
    took: float = steps[-1]["at"] - steps[0]["at"]
    return took


def evacuation(document: Doc, now: float | None = None) -> list[RenderableType]:
    """An evacuation and its VMs. ``now``: Unix time; then only those are listed of which there is something to see."""
    parts: list[RenderableType] = [_title(document, now)]
    if document["why"]:
        parts.append(Text(f"waiting: {document['why']}", style="yellow"))
    parts.append(_sums(document["counts"]))
    if now is not None:
        parts.append(_bar(document))
    rows = document["vms"]
    if now is not None:
        order = ["moving", "failed", "draining", "left", "waiting", "gone", "moved"]
        rows = [row for row in rows if row["state"] in ("moving", "draining", "failed", "left") or row["why"]]
        rows.sort(key=lambda row: order.index(row["state"]))
    shown = rows if now is None else rows[:_ROWS]
    if shown:
        parts.append(_rows(shown))
    if len(rows) > len(shown):
        parts.append(Text(f"and {len(rows) - len(shown)} more", style="dim"))
    return parts


def _title(document: Doc, now: float | None) -> Text:
    to = ", ".join(document["to"]) or "all other NVEs"
    seconds = _seconds(document)
    if seconds is None and now is not None:
        seconds = max(0.0, now - document["history"][0]["at"])
    return Text.assemble(
        (f"evacuation {document['id']}: ", "bold"),
        f"{document['nve']} -> {to} ({document['kind']}, {document['parallel']} at a time) ",
        _styled(document["state"]),
        "" if seconds is None else f" after {words.duration(seconds)}",
    )


def _sums(counts: Doc) -> Text:
    parts = [Text.assemble(f"{number} ", _styled(state)) for state, number in counts.items() if number]
    return Text(", ").join(parts) if parts else Text("no VMs")


def _bar(document: Doc) -> Table:
    """How many VMs are off the NVE; those that drain count, since they are served elsewhere."""
    counts, total = document["counts"], document["total"]
    off = counts["moved"] + counts["draining"] + counts["gone"]
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=max(1, total), completed=off if total else 1, width=_BAR), f"{off} of {total} off")
    return line


def _rows(rows: list[Doc]) -> Table:
    waits = ["WAITS FOR", "UNTIL"] if any(row["waiting_for"] for row in rows) else []
    return table(
        "",
        "VM",
        "STATE",
        "TO",
        "MOVE",
        "MOVE IS",
        "ATTEMPTS",
        *waits,
        "WHY",
        rows=(
            (
                row["vm"],
                _styled(row["state"]),
                row["to"],
                row["move"],
                None if row["move_state"] is None else words.styled(row["move_state"]),
                row["attempts"],
                *((awaited.shortly(row), row["until"] and words.clock(row["until"])) if waits else ()),
                row["why"],
            )
            for row in rows
        ),
        right=["MOVE", "ATTEMPTS"],
    )


# --- watching -------------------------------------------------------------------------------------------------
def watch(context: Context, document: Doc) -> None:
    """Show an evacuation until it has ended; exit code FAILED unless all VMs have left."""
    follow(context, document, "evacuation", "done", _live, _lines)


def _lines(context: Context, document: Doc) -> Doc:
    """A line for each change of a VM's state, then all of it; nothing with --json."""
    before: dict[str, tuple[str, int | None]] = {}
    asked: dict[str, str] = {}
    trouble = held_up = ""
    for document, why in looks(context, document, "evacuations"):  # noqa: B020 - the last one is the result
        if context.as_json:
            continue
        for row in document["vms"]:
            is_now = (row["state"], row["move"])
            if before.get(row["vm"], ("waiting", None)) != is_now:
                _told(document, row)
            before[row["vm"]] = is_now
            waits = awaited.hook(awaited.of_row(document, row))
            if waits and waits != asked.get(row["vm"]):
                click.echo(waits)
            asked[row["vm"]] = waits
        if document["why"] and document["why"] != held_up:
            click.echo(f"evacuation {document['id']} waits: {document['why']}")
        held_up = document["why"]
        if why and not trouble:
            click.echo(f"vmm: {why}", err=True)
        trouble = why
    if not context.as_json:
        for part in evacuation(document):
            console().print(part)
    return document


def _told(document: Doc, row: Doc) -> None:
    counts = document["counts"]
    off = counts["moved"] + counts["draining"] + counts["gone"]
    where = f" to {row['to']} by move {row['move']}" if row["move"] is not None else ""
    why = f" ({row['why']})" if row["why"] else ""
    at = time.strftime("%H:%M:%S")
    click.echo(f"{at} {row['vm']} {row['state']}{where}{why}; {off} of {document['total']} off {document['nve']}")


def _live(context: Context, document: Doc) -> Doc:
    with ExitStack() as stack:
        live = stack.enter_context(Live(console=console(), refresh_per_second=10, transient=False))
        for document, why in looks(context, document, "evacuations"):  # noqa: B020 - the last one is the result
            parts = evacuation(document, time.time() if document["open"] or awaited.ledgers(document) else None)
            if why:
                parts.append(Text(why, style="yellow"))
            live.update(Group(*parts))
    return document
