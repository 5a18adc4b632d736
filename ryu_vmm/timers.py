"""What is due at some time, and who is told. One timer that raises holds up none of the others.

It is undone alone, told, and comes again after a pause that doubles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .effects import Failed
from .work import Work

__all__ = ["AGAIN", "AGAIN_MOST", "Timer", "Timers"]

#: A kind of timer and what it is about: a key of the table ``clock``.
Timer = tuple[str, Any]
#: Seconds until a timer that raised comes again, and the most that they double to.
AGAIN, AGAIN_MOST = 1.0, 60.0


class Timers:
    """Tells handlers that their time has come.

    Args:
        work: the step in hand.
        handlers: by kind of timer.
    """

    def __init__(self, work: Work, handlers: Mapping[str, Callable[[Any], object]]) -> None:
        self._work = work
        self._handlers = handlers
        self._raised: dict[Timer, int] = {}  # how often in a row

    def due(self) -> list[Timer]:
        """What is due at the time of the step in hand, the earliest first."""
        late = [item for item in self._work.state.clock.items() if item[1] <= self._work.now]
        return [timer for timer, _ in sorted(late, key=lambda item: item[1])]

    def run(self, only: Timer | None = None) -> None:
        """Tell everybody whose time has come; ``only``: that one, and what it raises is raised."""
        work, state = self._work, self._work.state
        for timer in self.due() if only is None else [only]:
            # What was found due may have gone, or been put off, by what another's time has brought about.
            if state.clock.get(timer, work.now + 1) > work.now:
                continue
            mark = work.mark()
            try:
                state.put("clock", timer, None)
                self._handlers[timer[0]](timer[1])
            except Exception as error:
                if only is not None:
                    raise
                work.undo_to(mark)
                self.put_off(timer, error)
            else:
                self._raised.pop(timer, None)

    def put_off(self, timer: Timer, error: Exception) -> None:
        """A timer has raised: it is told, and comes again later."""
        work, (kind, about) = self._work, timer
        times = self._raised[timer] = self._raised.get(timer, 0) + 1
        for gone in self._raised.keys() - work.state.clock.keys() - {timer}:
            del self._raised[gone]
        pause = min(AGAIN_MOST, AGAIN * 2 ** min(16, times - 1))
        work.state.put("clock", timer, work.now + pause)
        work.count("timer.failed")
        work.do(Failed(f"timer {kind} of {about}" if about != "" else f"timer {kind}", error))
        work.report("nva.failed", what=f"timer {kind}", about=str(about), error=repr(error)[:200])
