"""Ending on SIGTERM at a point of one's own choosing: a datagram sent or taken is always also counted."""

from __future__ import annotations

import os
import signal
from types import FrameType


class Stopping:
    """Set by SIGTERM. `requested` can be looked at, and the descriptor polled: it becomes readable."""

    def __init__(self) -> None:
        self.requested = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            os.write(self._write, b"!")

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._read
