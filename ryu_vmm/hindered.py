"""What of an NVE's flows a move needs, so that it cannot go on where a switch has refused that."""

from __future__ import annotations

from .errors import Conflict
from .model import Move, MoveState, Place
from .state import State, Unit
from .whose import error

__all__ = ["concerns", "may_begin", "needs"]

#: What a VM no longer needs where it leaves: it may go although, or because, it is not served there.
_LEFT_BEHIND = ("port", "if", "vn", "peer", "router")


def may_begin(state: State, move: Move) -> None:
    """Raise Conflict if a move that is asked for needs what an NVE goes without."""
    for nve in sorted({move.source, move.destination, *state.correspondents(move)}):
        for unit in state.refused_by(nve):
            row = state.refusals[nve, unit]
            if row.times and needs(state, move, nve, unit):
                message = f"NVE {nve} goes without {row.what}: its switch refused a flow of it"
                text = f"{message} ({error(row.type, row.code)}), and is asked again from time to time"
                raise Conflict(text, nve=nve, vm=move.vm)


def needs(state: State, move: Move, nve: str, unit: Unit) -> bool:
    """Whether a move cannot do without a unit that its NVE went without already when it was asked for."""
    return concerns(state, move, nve, unit) and not (nve == move.source and unit[0] in _LEFT_BEHIND)


def concerns(state: State, move: Move, nve: str, unit: Unit) -> bool:
    """Whether a unit of an NVE is part of a move: at its ends, and at others to prove its paths and to be steered."""
    vnis = {leg.vni for leg in move.legs}
    interfaces = {leg.interface for leg in move.legs}
    at_end = nve in (move.source, move.destination)
    match unit:
        case ("move", number):
            return bool(number == move.id)
        case ("probes",):
            return move.state is MoveState.PREPARING and (at_end or nve in state.correspondents(move))
        case ("if", i):
            return i in interfaces and (at_end or move.state.steered)
        case ("left", key):
            left = state.left.get(key)
            return left is not None and left.interface in interfaces and move.state.steered
        case ("port", name):
            return any(Place(nve, name) in (leg.src, leg.dst) for leg in move.legs)
        case ("vn", vni):
            return vni in vnis and at_end
        case ("peer", vni, peer):
            return vni in vnis and (at_end or peer == move.destination)
        case ("router", name):
            return at_end and any(name in state.domain(vni) for vni in vnis)
    return False
