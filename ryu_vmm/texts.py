"""What is text, and what of it can be shown."""

from __future__ import annotations

__all__ = ["no_text", "printable"]


def no_text(given: str) -> str | None:
    """Why a text is none that could be kept or sent; None: it can.

    >>> no_text("\\ud800")
    'has half of a surrogate pair, which is no character'
    """
    if "\0" in given:
        return "has a NUL character"
    if given.isascii():
        return None
    try:
        given.encode()
    except UnicodeEncodeError:
        return "has half of a surrogate pair, which is no character"
    return None


def printable(text: str) -> str:
    """A text for a log or a record: what is no character, and what controls a terminal or begins a line, as an escape.

    >>> printable("a\\nb\\udcff")
    'a\\\\nb\\\\udcff'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
