"""The event stream's memory."""

from __future__ import annotations

import threading
from collections import deque


class EventLog:
    """The last entries of the event stream, numbered from 1.

    Args:
        size: how many entries are kept.
    """

    def __init__(self, size: int = 10_000) -> None:
        self._ring: deque[tuple[int, float, str, dict[str, object]]] = deque(maxlen=size)
        self._news = threading.Condition()
        self.last = 0

    @property
    def first(self) -> int:
        """The lowest number still kept (``last`` + 1 when there is none)."""
        return self._ring[0][0] if self._ring else self.last + 1

    def append(self, at: float, kind: str, fields: dict[str, object]) -> None:
        """Add an entry and wake who waits."""
        with self._news:
            self.last += 1
            self._ring.append((self.last, at, kind, fields))
            self._news.notify_all()

    def since(self, number: int, limit: int = 1000) -> list[tuple[int, float, str, dict[str, object]]]:
        """Entries after ``number``, oldest first, at most ``limit``."""
        skip = max(0, number - self.first + 1)
        return [self._ring[i] for i in range(skip, min(len(self._ring), skip + limit))]

    def wait(self, number: int, timeout: float) -> bool:
        """Wait until there is an entry after ``number``; False if none came within ``timeout`` seconds."""
        with self._news:
            return self._news.wait_for(lambda: self.last > number, timeout)
