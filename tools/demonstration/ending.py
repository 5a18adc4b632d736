"""Ending in good order: the first Ctrl-C or SIGTERM unwinds, later ones do not disturb the tidying up."""

from __future__ import annotations

import signal
import sys
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the program to end. Not an Exception: nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Ending:
    """Takes signals. `number` is the first one that came, or None."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._closing = False
        for number in _SIGNALS:
            signal.signal(number, self._arrived)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        first = self.number is None
        if first:
            self.number = number
        if self._closing or not first:
            print("tools/demo: already ending; everything is being removed", file=sys.stderr)
            return
        self._closing = True
        raise Interrupted(number)

    def closing(self) -> None:
        """From here on things are taken down, and no signal stops that."""
        self._closing = True

    def forget(self) -> None:
        """The last signal was a wish that has been granted, not an interruption."""
        self.number = None

    def prompt(self, active: bool) -> None:
        """At a prompt (`active`) Ctrl-C belongs to the command line editor, as everywhere."""
        signal.signal(signal.SIGINT, signal.default_int_handler if active else self._arrived)
