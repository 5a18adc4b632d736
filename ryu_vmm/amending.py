"""A move's ports at its destination are named anew: a hypervisor may name its taps only when it makes them."""

from __future__ import annotations

from dataclasses import replace

from .errors import InvalidInput, MoveStateConflict, NotFound
from .events import MoveAmended
from .model import Leg, Move, MoveState, Place
from .proposals import check_free
from .work import Work

__all__ = ["amend"]


def amend(work: Work, event: MoveAmended) -> Move:
    """Give an open move that has not steered other ports; the same ones again change nothing.

    Flows follow in one step, new before old, and so do packets that wait in the NVA for the port.

    Raises NotFound, InvalidInput, Conflict (a port is another's), MoveStateConflict.
    """
    state = work.state
    move = state.moves.get(event.move)
    if move is None:
        raise NotFound(f"there is no move {event.move}", move=event.move)
    if move.state.closed or move.state.steered:
        why = "it has ended"
        if move.open:
            why = f"the VM is served there; PUT /v1/vms/{move.vm} names another port once the move has ended"
        raise MoveStateConflict(f"move {move.id} is {move.state}: {why}", move=move.id, state=move.state.value)
    names = {leg.interface: state.interfaces[leg.interface].name for leg in move.legs}
    unknown = sorted(set(event.ports) - set(names.values()))
    if unknown:
        raise InvalidInput(f"move {move.id} has no interface {unknown[0]}", field="ports", vm=move.vm)
    legs: list[Leg] = []
    for leg in move.legs:
        place = Place(leg.dst.nve, event.ports.get(names[leg.interface], leg.dst.port))
        check_free(state, place, [other.dst for other in legs], move.id)
        legs.append(leg._replace(dst=place))
    if tuple(legs) == move.legs:
        return move
    move = replace(move, legs=tuple(legs))
    state.put("moves", move.id, move)
    ports = {names[leg.interface]: leg.dst.port for leg in legs}
    work.report("move.amended", move=move.id, vm=move.vm, destination=move.destination, ports=ports)
    # What it waits for is waited for once more: the destination has more to hear.
    concerned = {move.source, move.destination}
    if move.state is MoveState.PREPARING:
        concerned |= state.correspondents(move)
    work.awaiting.append((move.id, frozenset(concerned)))
    return move
