"""What is said on the way: one line for each step, with the time since the start."""

from __future__ import annotations

import sys
import time

from rich.console import Console, RenderableType
from rich.text import Text

_WIDTH = 110  # where nobody's window is the limit: both tables side by side


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
        self.console.print(Text.assemble((f"{self.seconds:6.1f} s  ", "dim"), (words, style)), soft_wrap=True)

    def detail(self, name: str, words: str, style: str = "cyan") -> None:
        """Something about the last step."""
        self.console.print(Text.assemble(" " * 10, (f"{name:<12}", style), words), soft_wrap=True)

    def show(self, what: RenderableType = "") -> None:
        """A table, a plain line, or an empty one."""
        self.console.print(what)


def complain(words: str) -> None:
    """Say what is wrong, on standard error."""
    print(f"tools/demo: {words}", file=sys.stderr)
