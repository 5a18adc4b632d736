"""What an earlier life of the NVA has put into a switch and this one cannot know: found as its flows are read back."""

from __future__ import annotations

from .flows import Flow, Meter
from .limits import gone_slot
from .model import Distribution
from .state import State
from .tables import DELIVER, Why, why_of

__all__ = ["adopt"]


def adopt(state: State, nve: str, flow: Flow, interface: str | None) -> None:
    """Take in what a flow of a switch says. ``interface``: the one that it is about.

    An entry that the NVE has asked for and is in use stays. What a port that has gone has lost goes on being counted by
    the meter that counts it.
    """
    if interface is None or flow.table != DELIVER:
        return
    found = state.interfaces[interface]
    if flow.idle_timeout:
        policy = state.networks[found.vni].policy
        if policy.distribution is Distribution.PULL and found.location.nve != nve:
            state.put("pulled", (nve, interface), True)
    why = why_of(flow.cookie)
    if why is not None and why[0] is Why.GONE and interface not in state.gone:
        slot = next((gone_slot(action.id) for action in flow.actions if isinstance(action, Meter)), None)
        if slot is not None and not state.has_slot(slot) and _has_gone(state, nve, interface):
            state.put("gone", interface, slot)


def _has_gone(state: State, nve: str, interface: str) -> bool:
    """Whether an interface is, or was before it moved by itself, at a port of an NVE that is not there."""
    places = [state.interfaces[interface].location]
    places += [leg.src for move, leg in state.moves_of(interface) if not move.requested]
    return any(place.nve == nve and state.port_at(place) is None for place in places)
