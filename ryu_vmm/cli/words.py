"""Words and figures as people read them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from .context import table

Doc = dict[str, Any]
_STYLES = {
    "settled": "green",
    "aborted": "yellow",
    "failed": "red",
    "begun": "yellow",
    "ok": "green",
    "degraded": "yellow",
    "failing": "red",
    "done": "green",
    "refused": "yellow",
    "denied": "red",
}


def styled(word: str) -> Text:
    """A state or status in its colour."""
    return Text(word, style=_STYLES.get(word, "cyan"))


def local(time: str | None) -> str | None:
    """An RFC 3339 time stamp in local time."""
    if time is None:
        return None
    at = datetime.fromisoformat(time).astimezone()
    return at.isoformat(sep=" ", timespec="milliseconds")[:23]


def clock(time: str) -> str:
    """The time of day of an RFC 3339 time stamp, local, with milliseconds."""
    return datetime.fromisoformat(time).astimezone().strftime("%H:%M:%S.%f")[:-3]


def duration(seconds: float | None) -> str | None:
    """Seconds in a handy unit."""
    if seconds is None:
        return None
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.3f} s" if seconds < 100 else f"{seconds:.0f} s"


def facts(*pairs: tuple[str, object]) -> Table:
    """Names and values, a line each."""
    made = table("", "", "", rows=pairs)
    made.show_header = False
    return made
