"""How often each kind of event is told: whatever can repeat is told a few times at once, then now and then.

A switch that reconnects twice a second, a port that flaps, or a flow that is refused again and again would push all
else out of the event stream's memory, and fill the log. What is held back is not lost: when the time is over the last
of it is told, with how often it happened, so that whoever follows is left with what is true. While it goes on, pauses
double.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .eventlog import EventLog
from .texts import printable

__all__ = ["BOUNDS", "FURTHER", "LONGEST", "Bound", "Telling"]

LOG = logging.getLogger("ryu_vmm")
#: Seconds that a pause grows to at most, while something goes on and on.
LONGEST = 3600.0
#: Things that are remembered; beyond them all of one kind are counted as one.
THINGS = 4096


class Bound(NamedTuple):
    """How often something is told. ``by``: the fields that name what it is about; ``burst``: so many are told at once;
    ``among``: events that are about one thing's coming and going share a line, which keeps their order."""

    by: tuple[str, ...]
    burst: int = 3
    among: str = ""


#: For all other kinds: whatever names what they are about.
FURTHER = Bound(
    ("nve", "port", "vm", "interface", "move", "source", "destination", "address", "dpid", "name", "evacuation"), 10
)
_CHANNEL = Bound(("nve",), 15, "channel")
_PORT = Bound(("nve", "port"), 10, "port")
_PATH = Bound(("source", "destination", "way"), 10, "path")
_UNDERLAY = Bound(("nve",), 10, "underlay")
_FROZEN = Bound(("interface",), 6, "frozen")
_SEEN = Bound(("move", "nve"), 4, "seen")

#: What a kind of event is bounded by, if not by FURTHER; None: it happens once, or whoever reports it has seen to it
#: that it is seldom.
BOUNDS: dict[str, Bound | None] = {
    "move.state": Bound(("move",), 20),  # a source port that flaps sends a move to and fro
    "move.redirect": Bound(("move",), 20),
    "move.nve-lost": Bound(("move",)),
    "move.blind": _SEEN,
    "move.sighted": _SEEN,
    "move.overdue": Bound(("move",)),
    "move.resumed": None,
    "move.closed": None,
    "correspondent.stale": Bound(("move", "nve")),
    "evacuation.started": None,
    "evacuation.progress": None,  # as often as its VMs change their states
    "evacuation.cancelled": None,
    "evacuation.resumed": None,
    "evacuation.ended": None,
    "task.readdressed": None,
    "underlay.neighbor": Bound(("nve", "address")),
    "interface.announced": Bound(("interface",), 10),
    "interface.frozen": _FROZEN,
    "interface.thawed": _FROZEN,
    "announcement.refused": None,  # refusals.py counts
    "admission.dropped": None,  # the same
    "port.offender": None,  # once in silence_time
    "port.heard-again": None,
    "port.crowded": Bound(("nve",), 5),
    "tunnel.failed": _PATH,
    "tunnel.restored": _PATH,
    "tunnel.unknown": _PATH,
    "tunnel.missing": _UNDERLAY,
    "tunnel.found": _UNDERLAY,
    "port.up": _PORT,
    "port.gone": _PORT,
    "nva.failed": Bound(("what", "about"), 3),
    "packets.shed": None,  # runtime.py counts
    "name.published": Bound(("name",), 10),
    "name.failed": None,  # names.py counts
    "nve.connected": _CHANNEL,
    "nve.disconnected": _CHANNEL,
    "nve.synchronised": _CHANNEL,
    "nve.refused": Bound(("nve",)),
    "nve.without": Bound(("nve", "what"), among="nve.without"),
    "nve.with": Bound(("nve", "what"), among="nve.without"),
    "nve.unregistered": Bound(("dpid",), 1),
    "nve.doubtful": Bound(("nve",), 1),
    "nve.impostor": Bound(("dpid", "peer"), 6),  # the switchboard counts as well
    "nve.duplicate": Bound(("dpid", "peer"), 6),
}


@dataclass(slots=True)
class _Line:
    """What one thing has had told of it. ``until``: when the next pause begins; ``held``: how many were held back."""

    pause: float
    until: float
    told: int = 1
    held: int = 0
    kind: str = ""
    fields: dict[str, object] = field(default_factory=dict)


class Telling:
    """Tells what is to be told now, in the log and on the event stream, and keeps the last of what is not.

    Args:
        stream: the event stream's memory.
        pause: seconds for which repetitions are held back at first.
    """

    def __init__(self, stream: EventLog, pause: float) -> None:
        self._stream = stream
        self._pause = pause
        self._lines: dict[tuple[object, ...], _Line] = {}
        self._due: float | None = None
        self._full_until = 0.0  # nothing that is remembered can be forgotten before that

    def happened(self, kind: str, fields: dict[str, object], now: float) -> None:
        """Tell something, unless it is one too many; then it is kept until it is due. ``now`` is Unix time."""
        if self._fits(kind, fields, now):
            self._tell(kind, fields, now)

    def _tell(self, kind: str, fields: dict[str, object], now: float) -> None:
        if LOG.isEnabledFor(logging.INFO):
            text = " ".join([f"{name}={value}" for name, value in fields.items() if value is not None])
            LOG.info("%s %s", kind, printable(text))
        self._stream.append(now, kind, fields)

    def _fits(self, kind: str, fields: Mapping[str, object], now: float) -> bool:
        bound = BOUNDS.get(kind, FURTHER)
        if bound is None:
            return True
        key = (bound.among or kind, *(fields.get(name) for name in bound.by))
        if key not in self._lines and len(self._lines) >= THINGS:
            if now >= self._full_until:
                self._lines = {k: line for k, line in self._lines.items() if line.held or now < line.until}
                self._full_until = min((line.until for line in self._lines.values()), default=now)
            if len(self._lines) >= THINGS:
                key = (bound.among or kind,)
        line = self._lines.get(key)
        if line is None or (not line.held and now >= line.until):
            self._lines[key] = _Line(self._pause, now + self._pause)
            return True
        if line.told < bound.burst:
            line.told += 1
            return True
        line.held += int(str(fields.get("times", 1)))
        line.kind, line.fields = kind, dict(fields)
        self._due = line.until if self._due is None else min(self._due, line.until)
        return False

    def due(self) -> float | None:
        """When what was held back is to be told; None: nothing was."""
        return self._due

    def tell_held(self, now: float) -> None:
        """Tell what is due, with ``times`` among its fields."""
        if self._due is None or now < self._due:
            return
        for line in self._lines.values():
            if line.held and now >= line.until:
                self._tell(line.kind, {**line.fields, "times": line.held}, now)
                line.pause = min(2 * line.pause, LONGEST)
                line.until, line.held, line.told, line.fields = now + line.pause, 0, 1 << 30, {}
        self._due = min((line.until for line in self._lines.values() if line.held), default=None)
