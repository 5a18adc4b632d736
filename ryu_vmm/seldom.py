"""What would be reported again and again is reported now and then, with how often it happened."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Seldom:
    """Counts occurrences by key: the first is due at once, further ones together when the time is over.

    Args:
        every: seconds between two reports of the same key.
        keys: keys that are remembered; beyond them the one that was reported longest ago is forgotten, whatever was
            counted since.
    """

    def __init__(self, every: float = 60.0, keys: int = 4096) -> None:
        self.every = every
        self.keys = keys
        self._known: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def due(self, key: Hashable, now: float, times: int = 1) -> int:
        """It happened so many times more: how many are to be reported now, 0: none yet. ``now`` in seconds."""
        reported, unsaid = self._known.get(key, (now - self.every, 0))
        if now - reported < self.every:
            self._known[key] = (reported, unsaid + times)
            return 0
        self._known[key] = (now, 0)
        self._known.move_to_end(key)
        if len(self._known) > self.keys:
            self._known.popitem(last=False)
        return unsaid + times
