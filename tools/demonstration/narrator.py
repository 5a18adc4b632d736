"""What is said on the way: one line for each step, with the time since the start."""

from __future__ import annotations

import sys
import textwrap
import time

from rich.console import Console, RenderableType
from rich.text import Text

_WIDTH = 110  # where nobody's window is the limit: both tables side by side
_LEAST = 30  # columns that words get in the narrowest of windows


class Narrator:
    """Speaks to standard output, or not at all (`quiet`)."""

    def __init__(self, quiet: bool = False) -> None:
        self.started = time.monotonic()
        console = Console(highlight=False, quiet=quiet)
        self.console = console if console.is_terminal else Console(highlight=False, quiet=quiet, width=_WIDTH)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def say(self, words: str, style: str = "") -> None:
        """A step, with the time."""
        self._print(Text(f"{self.seconds:6.1f} s  ", "dim"), words, style)

    def add(self, words: str, style: str = "") -> None:
        """More words about the last step."""
        self._print(Text(" " * 10), words, style)

    def detail(self, name: str, words: str, style: str = "cyan") -> None:
        """Something about the last step."""
        self._print(Text.assemble(" " * 10, (f"{name:<12}", style)), words, "")

    def show(self, what: RenderableType = "") -> None:
        """A table, a plain line, or an empty one."""
        self.console.print(what)

    def _print(self, head: Text, words: str, style: str) -> None:
        """In a window, words that need several lines stay to the right of the head; elsewhere a line is a line."""
        lines = [words]
        if self.console.is_terminal:
            room = max(_LEAST, self.console.width - len(head))
            lines = textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False) or [""]
        for line in lines:
            self.console.print(Text.assemble(head, (line, style)), soft_wrap=True)
            head = Text(" " * len(head))


def complain(words: str) -> None:
    """Say what is wrong, on standard error."""
    print(f"tools/demo: {words}", file=sys.stderr)
