"""Interfaces that flap are frozen where they are (RFC 7432 section 15.1).

Two guests with one MAC, or a loop, make announcements come from two places in turn. After so many unrequested moves in
so much time, announcements move the interface no more, until the freeze time is over, somebody thaws it, or a move is
requested for its VM: whoever asks for a move knows where the VM is. What was counted before does not count again.
"""

from __future__ import annotations

from .model import Frozen, Interface, Place
from .work import Work


def thaw(work: Work, interface: str, by: str) -> None:
    """Let announcements move an interface again, and say so, if it was frozen. ``by``: time, request or move."""
    state = work.state
    if interface not in state.frozen:
        return
    state.put("frozen", interface, None)
    state.put("thawed", interface, work.now)
    state.put("clock", ("freeze", interface), None)
    work.report("interface.thawed", interface=interface, by=by)


def resume(work: Work) -> None:
    """After a restart: each stays frozen for the rest of its time."""
    for key, frozen in work.state.frozen.items():
        if frozen.until:
            work.state.put("clock", ("freeze", key), frozen.until)


class Flapping:
    """Counts unrequested moves and freezes."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def freezes(self, interface: Interface, place: Place) -> bool:
        """Whether an announcement at a place comes to nothing, because its interface flaps."""
        work, state, now = self._work, self._work.state, self._work.now
        if interface.id in state.frozen:
            work.count("announcement.flapping")
            return True
        since = max(now - work.settings.flap_window, state.thawed.get(interface.id, 0.0))
        moves = sum(m.trigger == "announcement" and m.created >= since for m in state.recent_moves(interface.id))
        if moves < work.settings.flap_moves:
            return False
        until = now + work.settings.freeze_time if work.settings.freeze_time else 0.0
        state.put("frozen", interface.id, Frozen(now, until, moves))
        if until:
            state.put("clock", ("freeze", interface.id), until)
        work.count("announcement.flapping")
        work.report(
            "interface.frozen",
            interface=interface.id,
            nve=interface.location.nve,
            port=interface.location.port,
            claimed_nve=place.nve,
            claimed_port=place.port,
            moves=moves,
            until=until or None,
        )
        return True
