"""Time that must not pass while what would have met a deadline waits to be taken in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Seconds by which a deadline may be late; longer, and something has held the process up.
LATE = 0.1
#: Seconds for which time is held back at the most.
MOST = 1.0
#: Seconds between two looks, and looks in a row that find nothing: what has been read may be passed from hand to hand.
LOOK_AGAIN, LOOKS = 0.001, 2


class CatchUp:
    """Lets what was said while the process was held up be taken in before any deadline passes.

    A flood must not hold time back for ever: once it has done so for MOST seconds, nothing does until a look has found
    nothing.

    Args:
        stopping: set when there is no more to do.

    Attributes:
        waits: whether anything that switches or clients have said is there and waits to be taken in.
    """

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self.waits: Callable[[], bool] = lambda: False
        self._flooded = False

    def run(self, late: float) -> None:
        """Return when deadlines that are ``late`` by so many seconds may pass; others run meanwhile."""
        if late < LATE:
            return
        end, quiet = time.monotonic() + MOST, 0
        while quiet < LOOKS:
            quiet = 0 if self.waits() else quiet + 1
            if not quiet and (self._flooded or time.monotonic() > end):
                self._flooded = True
                return
            if self._stopping.wait(LOOK_AGAIN):
                return
        self._flooded = False
