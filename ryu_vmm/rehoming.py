"""Registrations that name another port than before for a VM that is in no move.

A hypervisor gives a guest's tap another name when it starts it again, and whoever registers VMs says so by ``PUT``.
Who repeats a registration after a move does not undo the move: what reaches this module says something new (wishes.py).
It takes effect (make before break) or is refused; nothing is accepted and then ignored.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import replace

from .errors import Conflict, NotFound
from .events import VmSubmitted
from .model import Interface, Place
from .proposals import reachable
from .state import State
from .work import Work

__all__ = ["Wish", "able", "follow", "judge", "newcomers", "served"]

#: What may let a pending port take effect.
_STIRS = ("ports", "moves", "sessions", "interfaces")


class Wish(enum.Enum):
    """What comes of the port that a registration names for a known interface."""

    OLD = "old"  # nothing new: where it is, or is about to be
    NOW = "now"  # another port of its NVE serves it from now on
    LATER = "later"  # the port is not there yet: the old one serves until it is, or until the old one goes
    ELSEWHERE = "elsewhere"  # it was started on another NVE


def newcomers(state: State, event: VmSubmitted) -> set[str]:
    """The NVEs to which a registration adds a VM: by what is new, or by what was started elsewhere."""
    found = set()
    for given in event.interfaces:
        known = state.interfaces.get(given.id)
        if known is None or known.location.nve != given.location.nve:
            found.add(given.location.nve)
    return found


def judge(work: Work, known: Interface, place: Place) -> Wish:
    """What comes of a place that a registration names for an interface. Raises NotFound, Conflict."""
    state = work.state
    if place in (known.pending, known.location):
        return Wish.OLD
    if place.nve not in state.nves:
        raise NotFound(f"there is no NVE {place.nve}", nve=place.nve, field="nve")
    for name in state.vms[known.vm].interfaces:
        for move, _ in state.moves_of(name):
            more = "" if move.state.steered else f", or give it other ports (PATCH /v1/moves/{move.id})"
            message = f"move {move.id} of {known.vm} is {move.state}: name another port when it has ended{more}"
            raise Conflict(message, move=move.id, interface=known.id, field="port")
    here = known.location
    if place.nve != here.nve:
        if here.nve not in state.sessions:
            message = (
                f"NVE {here.nve} is not connected, so nobody knows whether {known.vm} still runs there; if not, "
                f"ask for a cold move to {place.nve} (POST /v1/moves)"
            )
            raise Conflict(message, nve=here.nve, interface=known.id, field="nve")
        if state.port_at(here) is not None:
            message = (
                f"{known.id} is served on {here.nve}, where its port {here.port} is up; "
                f"ask for a move to {place.nve} (POST /v1/moves)"
            )
            raise Conflict(message, nve=here.nve, interface=known.id, field="nve")
        reachable(state, [known], place.nve)
        return Wish.ELSEWHERE
    if here.nve not in state.sessions or (state.port_at(place) is None and state.port_at(here) is not None):
        return Wish.LATER
    return Wish.NOW


def served(work: Work, interface: Interface, place: Place) -> Interface:
    """The interface at another port of its NVE, from now on."""
    if work.state.port_at(place) is not None:
        work.state.put("gone", interface.id, None)
    before = interface.location.port
    work.report("interface.rebound", nve=place.nve, interface=interface.id, port=place.port, before=before)
    return replace(interface, location=place, epoch=interface.epoch + 1, since=work.now, pending=None)


def follow(work: Work, mark: int) -> int:
    """Let pending ports take effect that have come since ``mark``, or whose forerunners have gone.

    While a move is open it decides where the interface is. Returns the mark for the next time.
    """
    state = work.state
    stirred = state.pending_at and any(table in _STIRS for table, *_ in state.since(mark))
    wanted: dict[str, Place] = {}
    for place, key in state.pending_at.items() if stirred else ():
        if place.nve not in state.sessions or next(state.moves_of(key), None) is not None:
            continue
        expected = any(leg.dst == place for _, leg in state.moves_at(place))
        arrived = state.port_at(place) is not None or state.port_at(state.interfaces[key].location) is None
        if arrived and not expected and not state.is_tunnel(place):
            wanted[key] = place
    for key in sorted(able(state, wanted)):
        state.put("interfaces", key, served(work, state.interfaces[key], wanted[key]))
    return state.mark()


def able(state: State, wanted: Mapping[str, Place]) -> set[str]:
    """Those interfaces that can be served where they are wanted, all at once: where nobody is who does not go too."""
    going = set(wanted)
    while stuck := {key for key in going if state.by_place.get(wanted[key], key) not in going}:
        going -= stuck
    return going
