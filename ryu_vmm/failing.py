"""What raised what it should not: logged, counted, told, and what can be made good by asking a switch again is.

A fact that could not be taken in is undone whole. If it said what is so at a switch, the NVA's books differ from then
on: that switch's connection is closed, and when it comes back all that it has is read again. So it is where a switch
could not be told what to do. What a name server has answered, or was not told, is asked for again. A packet says
nothing that its sender will not repeat.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import events as ev
from .effects import Effect, Program, Publish, ReadFlows

__all__ = ["SHOWN", "Failures", "Trouble"]

LOG = logging.getLogger("ryu_vmm")
#: Seconds for which health says that something failed.
SHOWN = 600.0
#: Seconds after which a switch may be asked to connect anew, or a name be published, once more; and the most of them.
AGAIN, AGAIN_MOST = 1.0, 60.0
#: Facts that say what is so at a switch. Readings of counters are asked for again by themselves.
_OF_SWITCHES = (
    ev.NveConnected, ev.NveDisconnected, ev.PortChanged, ev.BarrierReplied, ev.FlowsRead, ev.FlowRefused,
    ev.FlowExpired,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trouble:
    """What failed last: ``what`` in words, with its error; ``at``: by the monotonic clock."""

    what: str
    at: float


class Failures:
    """Keeps what failed.

    Args:
        count: counts something, by name.
    """

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self.last: Trouble | None = None
        # By dpid or name: not again before that, and the pause after that
        self._asked: dict[int | str, tuple[float, float]] = {}
        self._later: dict[int | str, float] = {}

    def note(self, what: str, error: BaseException, name: str = "event.failed") -> None:
        """Something raised: log it with its traceback, and count it."""
        undone = ", and was undone" if name == "event.failed" else ""
        LOG.error("%s failed%s: %r", what, undone, error, exc_info=error)
        self._count(name)
        self.last = Trouble(f"{what}: {error!r}"[:200], time.monotonic())

    @property
    def recent(self) -> str | None:
        """What failed last, if that is not long ago."""
        last = self.last
        return None if last is None or time.monotonic() - last.at > SHOWN else last.what

    def to_ask(self, event: ev.Event) -> int | str | None:
        """Who has to say again what is so, as this fact is lost: a switch, by its datapath id, or the name server, by
        the name. None: nobody, or they were asked only just now, and are again later."""
        match event:
            case ev.FlowsRead(token=token) if token != "sync":
                return None  # whoever asked asks again
            case ev.NamePublished(name=name) | ev.NameFailed(name=name):
                return self._once(name)
            case _ if isinstance(event, _OF_SWITCHES):
                return self._once(event.dpid)
        return None

    def unsaid(self, effect: Effect) -> int | str | None:
        """The same for what could not be told: a program, or the question what a switch has, and so what is so there
        is not known; or a name."""
        match effect:
            case Program(dpid=dpid) | ReadFlows(dpid=dpid, token="sync"):
                return self._once(dpid)
            case Publish(name=name):
                return self._once(name)
        return None

    def _once(self, whom: int | str) -> int | str | None:
        now = time.monotonic()
        due, pause = self._asked.get(whom, (0.0, AGAIN))
        if now < due:
            self._later[whom] = due
            return None
        if now - due > AGAIN_MOST:
            pause = AGAIN
        self._asked[whom] = (now + pause, min(AGAIN_MOST, pause * 2))
        return whom

    def due(self) -> list[int | str]:
        """Those who could not be asked at once, and are to be now."""
        now = time.monotonic()
        found = [whom for whom, at in self._later.items() if at <= now]
        for whom in found:
            del self._later[whom]
        return found
