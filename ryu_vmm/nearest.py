"""What somebody may have meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like a word, whatever its case and its hyphens; None if none is like it."""
    plain = {_plain(name): name for name in known}
    found = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: a question, or nothing.

    >>> did_you_mean("wsapi-prot", ["wsapi_host", "wsapi_port"])
    '; did you mean wsapi_port?'
    """
    found = nearest(word, known)
    return "" if found is None else f"; did you mean {found}?"


def _plain(name: str) -> str:
    return name.lower().lstrip("-").replace("-", "_")
