"""Watching a move: a live table on a terminal, a line for each state elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import click
from rich.console import Group
from rich.live import Live

from . import awaited, moved, words
from .client import FAILED, Unreachable
from .context import Context, console, print_json
from .words import Doc

__all__ = ["follow", "is_live", "looks", "watch"]

#: Seconds between two looks.
INTERVAL = 0.1
#: How long the ledgers of moves that have ended are waited for, in seconds: an NVE that is away may never answer.
CLOSING = 30.0
#: How long an NVA that does not answer (because it is being restarted, say) is waited for, in seconds.
PATIENCE = 15.0

Show = Callable[[Context, Doc], Doc]


def watch(context: Context, document: Doc) -> None:
    """Show a move until it has ended; exit code FAILED unless it settled."""
    follow(context, document, "move", "settled", _live, _lines)


def follow(context: Context, document: Doc, what: str, well: str, live: Show, lines: Show) -> None:
    """Show something until it has ended, on a terminal or in lines; exit code FAILED unless it is ``well`` then."""
    try:
        document = live(context, document) if is_live(context) else lines(context, document)
    except KeyboardInterrupt:
        click.echo(f"vmm: no longer watching; {what} {document['id']} goes on", err=True)
        raise click.exceptions.Exit(130) from None
    if context.as_json:
        print_json(document)
    if document["state"] != well:
        raise click.exceptions.Exit(FAILED)


def is_live(context: Context) -> bool:
    """Whether there is a terminal to show progress on."""
    return not context.as_json and console().is_terminal


def looks(context: Context, document: Doc, what: str = "moves") -> Iterator[tuple[Doc, str]]:
    """A move (or evacuation) as it is, again and again, until it has ended and its ledgers are closed; and what is the
    matter, if anything. Who does not answer keeps a ledger open for CLOSING seconds at most, and is named then."""
    yield document, ""
    silent_since: float | None = None
    ended: float | None = None
    while document["open"] or awaited.ledgers(document):
        if not document["open"]:
            ended = ended or time.monotonic()
            if time.monotonic() - ended > CLOSING:
                yield document, awaited.left_open(document)
                return
        time.sleep(INTERVAL)
        try:
            document = context.client.get(f"/v1/{what}/{document['id']}")
        except Unreachable as e:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > PATIENCE:
                raise
            yield document, f"{e}; waiting"
        else:
            silent_since = None
            yield document, ""


def _lines(context: Context, document: Doc) -> Doc:
    """A line for each state as it is entered, then the whole account; nothing with --json."""
    told, trouble, waits = 0, "", ""
    for document, why in looks(context, document):  # noqa: B020 - the last one is the result
        if context.as_json:
            continue
        for step in document["history"][told:]:
            reason = f" ({step['why']})" if step["why"] else ""
            click.echo(f"{words.clock(step['time'])} move {document['id']} {step['state']}{reason}")
        told = len(document["history"])
        now_waits = awaited.hook(document)
        if now_waits and now_waits != waits:
            click.echo(now_waits)
        waits = now_waits
        if why and not trouble:
            click.echo(f"vmm: {why}", err=True)
        trouble = why
    if not context.as_json:
        for part in moved.move(document)[1:]:
            console().print(part)
    return document


def _live(context: Context, document: Doc) -> Doc:
    with ExitStack() as stack:
        live = stack.enter_context(Live(console=console(), refresh_per_second=10, transient=False))
        for document, why in looks(context, document):  # noqa: B020 - the last one is the result
            parts: list[Any] = list(moved.move(document, time.time()))
            if why:
                parts.append(words.styled(why))
            live.update(Group(*parts))
    return document
