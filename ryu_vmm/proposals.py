"""What must hold before a move is opened, and the record that it begins with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from .errors import Conflict, InvalidInput, NotFound, TooManyMoves
from .events import MoveRequested
from .model import (
    MARK_BASE,
    MARKS,
    Asked,
    Change,
    Connections,
    Interface,
    Kind,
    Ledger,
    Leg,
    Move,
    MoveState,
    Place,
    Step,
    Vm,
)
from .paths import path
from .state import State
from .work import Work

#: An interface, and where it goes.
Going = tuple[Interface, Place]


def movable(work: Work, event: MoveRequested) -> list[Interface]:
    """The interfaces of the VM that a request names, if it can be moved there now.

    Raises NotFound, InvalidInput, Conflict.
    """
    state = work.state
    vm = state.vms.get(event.vm)
    if vm is None:
        raise NotFound(f"there is no VM {event.vm}", vm=event.vm)
    if event.to not in state.nves:
        raise NotFound(f"there is no NVE {event.to}", nve=event.to, field="to")
    interfaces = _on_one_nve(state, vm, event)
    source = interfaces[0].location.nve
    unknown = set(event.ports) - {i.name for i in interfaces}
    if unknown:
        where = "" if len(interfaces) == len(vm.interfaces) else f" on {source}"
        raise InvalidInput(f"{event.vm} has no interface {sorted(unknown)[0]}{where}", field="ports", vm=event.vm)
    for i in interfaces:
        active = state.active_move(i.id)
        if active is not None:
            number, there = active[0].id, active[0].destination
            more = f"; PATCH /v1/moves/{number} gives it other ports on {there}" if there == event.to else ""
            raise Conflict(f"move {number} is already open for {event.vm}{more}", move=number, vm=event.vm)
    if source == event.to:
        message = f"{event.vm} is on {source} already; PUT /v1/vms/{event.vm} names another port there"
        raise Conflict(message, vm=event.vm, nve=source)
    for nve in (event.to,) if event.kind is Kind.COLD else (event.to, source):
        # A VM that is off may leave a dead edge: nobody there needs to be told first.
        if work.session(nve) is None:
            raise Conflict(f"NVE {nve} is not connected and in sync", nve=nve)
    reachable(state, interfaces, event.to)
    return interfaces


def _on_one_nve(state: State, vm: Vm, event: MoveRequested) -> list[Interface]:
    """The interfaces of a VM that a request is about: each move has one source. Raises Conflict.

    The others stay where they are, or have a move of their own at the same time.
    """
    interfaces = [state.interfaces[i] for i in vm.interfaces]
    sources = sorted({i.location.nve for i in interfaces})
    if event.source is not None:
        if event.source not in sources:
            message = f"{vm.name} has no interface on {event.source}; it has on {', '.join(sources)}"
            raise Conflict(message, vm=vm.name, nves=sources, field="source")
        return [i for i in interfaces if i.location.nve == event.source]
    leaving = [nve for nve in sources if nve != event.to] or sources
    if len(leaving) > 1:
        message = f"the interfaces of {vm.name} are on {', '.join(sources)}"
        raise Conflict(message, vm=vm.name, nves=sources, field="source")  # which says whose are meant
    return [i for i in interfaces if i.location.nve == leaving[0]]


def reachable(state: State, interfaces: Sequence[Interface], to: str) -> None:
    """Raise Conflict if an NVE that holds state of the interfaces' networks could not send to another one."""
    others = {n for i in interfaces for n in (i.location.nve, *state.members(i.vni))} - {to}
    for nve in sorted(others):
        if path(state, nve, to) is None:
            raise Conflict(f"{nve} and {to} share no underlay address family", nves=[nve, to])


def legs(state: State, interfaces: Sequence[Interface], event: MoveRequested) -> list[Going]:
    """Where each interface goes. Raises InvalidInput, and Conflict for a port that is another's."""
    found: list[Going] = []
    for i in interfaces:
        place = Place(event.to, event.ports.get(i.name) or _usual_port(i, event.to))
        check_free(state, place, [p for _, p in found])
        found.append((i, place))
    return found


def check_free(state: State, place: Place, own: Sequence[Place], number: int | None = None) -> None:
    """Raise InvalidInput or Conflict unless a move may take an interface to a port.

    ``own``: where it takes the VM's other interfaces; ``number``: the move, if it is open already.
    """
    holder = state.by_place.get(place) or state.pending_at.get(place)
    taken = [m.id for m, leg in state.moves_at(place) if leg.dst == place and not m.state.steered and m.id != number]
    if state.is_tunnel(place):
        raise InvalidInput(f"port {place.port} on {place.nve} is its tunnel", field="ports")
    if holder is not None or taken or place in own:
        by = holder or (f"move {taken[0]}" if taken else "another interface of the VM")
        rival: dict[str, object] = {"interface": holder} if holder else {"move": taken[0]} if taken else {}
        message = f"port {place.port} on {place.nve} is taken by {by}"
        raise Conflict(message, nve=place.nve, port=place.port, **rival)


def _usual_port(interface: Interface, nve: str) -> str:
    """Where an interface is attached to an NVE unless told otherwise: as registered, else by the same name."""
    return next((p.port for p in interface.attachments if p.nve == nve), interface.location.port)


def free_marks(state: State, number: int, count: int) -> list[int]:
    """Marks that no open move's packets travel under, beginning with a move's number. Raises TooManyMoves."""
    ending = [state.moves[i] for i in state.returning]
    used = {leg.mark for m in (*state.open_moves(), *ending) for leg in m.legs}
    if len(used) + count > MARKS:
        raise TooManyMoves("too many moves are open at once", open=len(used))
    marks = (MARK_BASE + (number + n) % MARKS for n in range(MARKS))
    return list(itertools.islice((mark for mark in marks if mark not in used), count))


def asked_for(
    work: Work, event: MoveRequested, going: list[Going], changes: tuple[Change, ...], connections: Connections,
) -> Move:
    """The record of a move that somebody has asked for. Raises TooManyMoves."""
    return _record(work, event.vm, going, MoveState.PREPARING, "request", event, changes, connections)


def asked_with(event: MoveRequested) -> Asked:
    """What of a request is kept, for the one that comes again under its id."""
    return Asked(event.kind, tuple(sorted(event.ports.items())), event.address, event.connections, event.source)


def repeated(move: Move, event: MoveRequested) -> Move:
    """The move of a request id that comes again. Conflict: what is asked for is another one."""
    kept = move.asked_with is None or move.asked_with == asked_with(event)
    if not kept or (move.vm, move.destination) != (event.vm, event.to):
        raise Conflict(f"this request_id was used for another move, {move.id}", move=move.id, field="request_id")
    return move


def unasked(work: Work, going: list[Going], trigger: str, changes: tuple[Change, ...] = ()) -> Move:
    """The record of a move that nobody has asked for. Raises TooManyMoves."""
    return _record(work, going[0][0].vm, going, MoveState.STEERING, trigger, changes=changes)


def after(work: Work, failed: Move, trigger: str) -> Move:
    """The record of a move that does what one that was rolled back was asked for: its VM runs there after all.

    Raises Conflict: its VM, the port or an address is not what it was, or not free any more.
    """
    state = work.state
    going: list[Going] = []
    for leg in failed.legs:
        interface = state.interfaces.get(leg.interface)
        there = interface is not None and (interface.vni, interface.location) == (leg.vni, leg.src)
        if interface is None or not there or not _as_it_was(state, interface, failed):
            raise Conflict(f"{leg.interface} is no longer where move {failed.id} left it", move=failed.id)
        active = state.active_move(leg.interface)
        if active is not None:
            raise Conflict(f"move {active[0].id} is open for {failed.vm}", move=active[0].id, vm=failed.vm)
        check_free(state, leg.dst, [place for _, place in going])
        going.append((interface, leg.dst))
    for change in failed.changes:
        for holder, other in state.claims(state.interfaces[change.interface].vni, change.new):
            if holder != change.interface:
                message = f"an address of move {failed.id} belongs to {whose(holder, other)} by now"
                raise Conflict(message, interface=holder)
    move = unasked(work, going, trigger, failed.changes)
    return replace(
        move, kind=failed.kind, connections=failed.connections, requested_by=failed.requested_by, follows=failed.id
    )


def whose(interface: str, move: int | None) -> str:
    """Who has an address, in words; ``move``: the open one by which it had, or will have it (State.claims)."""
    return interface if move is None else f"{interface} by move {move}, which is open"


def _as_it_was(state: State, interface: Interface, move: Move) -> bool:
    """Whether an interface is that of a move still: one of that name may have been registered since, by others."""
    return interface.since <= move.created and state.vms[interface.vm].tenant == move.tenant


def _record(
    work: Work,
    vm: str,
    going: list[Going],
    first: MoveState,
    trigger: str,
    request: MoveRequested | None = None,
    changes: tuple[Change, ...] = (),
    connections: Connections = Connections.KEEP,
) -> Move:
    state, now = work.state, work.now
    number = max(state.moves, default=0) + 1
    free = free_marks(state, number, len(going))
    return Move(
        id=number,
        vm=vm,
        kind=request.kind if request else Kind.HOT,
        source=going[0][0].location.nve,
        destination=going[0][1].nve,
        legs=tuple(Leg(i.id, i.vni, i.location, place, mark) for (i, place), mark in zip(going, free, strict=True)),
        state=first,
        trigger=trigger,
        created=now,
        history=(Step(first.value, now, trigger),),
        request_id=request.request_id if request else None,
        requested_by=request.requested_by if request else None,
        asked_with=asked_with(request) if request and request.request_id is not None else None,
        ledger=Ledger(),
        tenant=state.vms[vm].tenant,
        connections=connections,
        changes=changes,
    )


def make_room(work: Work) -> None:
    """Forget the oldest ended moves where there are more than are kept."""
    state = work.state
    excess = len(state.moves) - work.settings.keep_moves
    if excess > 0:
        ended = [i for i in sorted(state.moves) if not state.moves[i].open and i not in state.waits]
        for old in ended[:excess]:
            state.put("moves", old, None)
