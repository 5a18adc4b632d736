"""The tables of what was answered for addresses and who was heard, and their indexes: a part of State (state.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from .journal import Journal
from .model import Changed, Vanished

__all__ = ["AnswerTables"]


class AnswerTables(Journal):
    """Answers that have changed, and the last ones for addresses that nobody has any more.

    Tables: ``changed`` and ``vanished`` by answers.answer_key, ``telling``: how often guests were told so far, by what
    is told or who is (announcing.py), ``heard`` by interface id: that it was, since it was registered (hearing.py).
    No flow depends on any of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed: dict[str, Changed] = {}
        self.vanished: dict[str, Vanished] = {}
        self.telling: dict[tuple[str, ...], int] = {}
        self.heard: dict[str, bool] = {}
        # Keys by VNI, the oldest first
        self._changed_in: dict[int, dict[str, None]] = defaultdict(dict)
        self._vanished_in: dict[int, dict[str, None]] = defaultdict(dict)

    def changed_in(self, vni: int) -> Iterable[str]:
        """Keys of a network's changed answers, the oldest first."""
        return self._changed_in.get(vni, ())

    def vanished_in(self, vni: int) -> Iterable[str]:
        """Keys of a network's vanished addresses, the oldest first."""
        return self._vanished_in.get(vni, ())

    def _index_changed(self, key: str, old: Changed | None, new: Changed | None) -> None:
        _keep(self._changed_in, key, old, new)

    def _index_vanished(self, key: str, old: Vanished | None, new: Vanished | None) -> None:
        _keep(self._vanished_in, key, old, new)


def _keep(index: dict[int, dict[str, None]], key: str, old: Any, new: Any) -> None:
    vni = (new or old).vni
    if new is None or old is None or old.since != new.since:
        index[vni].pop(key, None)
        if new is not None:
            index[vni][key] = None
        elif not index[vni]:
            del index[vni]
