"""Last wishes: what was submitted is compared with what its sender said before, not with what there is now.

Moves take VMs elsewhere and change addresses, others submit something newer, things are removed. Whoever says the same
again (an orchestrator that repeats its requests, a file that is read at every start) asks for none of that to be
undone: a wish that is the last one again is no change, and of one that differs only what differs is asked for. The last
wish of each sender is kept, requests' and the file's, whatever becomes of it; where one of them has said nothing yet,
what the other one said counts. A removal by request ends the wish of requests, so that they may ask again; the file's
stays, so that what was removed stays removed as long as the file says what it said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import fields, is_dataclass, replace
from operator import attrgetter
from typing import Any

from .events import NetworkSubmitted, NveSubmitted, VmSubmitted
from .model import Gateway, Interface, MoveState, Network, Nve, Place, Vm, Wish
from .state import State

__all__ = ["Submitted", "forget", "keep", "meant", "named_nves", "names_anew", "only", "registered", "said", "shared"]

Submitted = NveSubmitted | NetworkSubmitted | VmSubmitted

#: What a registration says of an interface.
_SAID = attrgetter(*(f.name for f in fields(Interface) if f.name not in ("epoch", "since", "pending")))


# --- what was said ----------------------------------------------------------------------------------------------------
def said(event: Submitted) -> Wish:
    """What a submission says, as it is kept."""
    match event:
        case NveSubmitted(nve):
            return Wish(nve=nve)
        case NetworkSubmitted(network):
            return Wish(network=network)
        case VmSubmitted():
            interfaces = tuple(_document(interface) for interface in event.interfaces)
            vm = Vm(event.name, tuple(i.id for i in interfaces), event.tenant, event.leave)
            return Wish(vm=vm, interfaces=interfaces)


def _document(interface: Interface) -> Interface:
    """What a registration says of an interface."""
    attachments = tuple(dict.fromkeys(interface.attachments))
    if (interface.epoch, interface.since, interface.pending, interface.attachments) == (1, 0.0, None, attachments):
        return interface
    return replace(interface, epoch=1, since=0.0, attachments=attachments, pending=None)


def _key(event: Submitted, standing: bool) -> str:
    match event:
        case NveSubmitted(nve):
            return key_of("nves", nve.name, standing)
        case NetworkSubmitted(network):
            return key_of("networks", network.name, standing)
        case VmSubmitted(name):
            return key_of("vms", name, standing)


def key_of(kind: str, name: str, standing: bool) -> str:
    """The key of a wish in the table; ``standing``: the file's."""
    return f"{'file' if standing else 'request'}/{kind}/{name}"


def keep(state: State, event: Submitted) -> None:
    """A submission has been taken: it is its sender's last wish."""
    key, given = _key(event, event.standing), said(event)
    if not _same(state.wishes.get(key), given):
        state.put("wishes", key, shared(state, given))


def shared(state: State, wish: Wish) -> Wish:
    """Return the same of the directory's own objects where they say no more: of 100,000 VMs nothing is there twice."""
    nve = None if wish.nve is None else state.nves.get(wish.nve.name)
    network = None if wish.network is None else state.networks.get(wish.network.vni)
    vm = None if wish.vm is None else state.vms.get(wish.vm.name)
    rows = [state.interfaces.get(i.id) for i in wish.interfaces]
    return Wish(
        nve if nve == wish.nve else wish.nve,
        network if network == wish.network else wish.network,
        vm if vm == wish.vm else wish.vm,
        tuple(
            row if row is not None and (row.epoch, row.pending) == (1, None) and _SAID(row) == _SAID(i) else i
            for i, row in zip(wish.interfaces, rows, strict=True)
        ),
    )


def _same(kept: Wish | None, given: Wish) -> bool:
    """Whether a wish says what was kept; a row of the directory's says since when, too."""
    if kept is None or (kept.nve, kept.network, kept.vm) != (given.nve, given.network, given.vm):
        return False
    return [_SAID(i) for i in kept.interfaces] == [_SAID(i) for i in given.interfaces]


def forget(state: State, kind: str, name: str) -> None:
    """Something was removed by request."""
    state.put("wishes", key_of(kind, name, False), None)


def only(state: State, entries: Iterable[tuple[str, str]]) -> None:
    """The file has these entries (kind and name) and no others: what it no longer says it may say anew one day."""
    there = {key_of(kind, name, True) for kind, name in entries}
    for key in [key for key in state.wishes if key.startswith("file/") and key not in there]:
        state.put("wishes", key, None)


def _last(state: State, event: Submitted) -> Wish | None:
    """What the sender of a submission said of the same before, else what the other one did."""
    own = state.wishes.get(_key(event, event.standing))
    return own if own is not None else state.wishes.get(_key(event, not event.standing))


def named_nves(state: State, vm: str) -> set[str]:
    """The NVEs that were named for a VM last: they may be gone by now, and be named again."""
    found = (state.wishes.get(key_of("vms", vm, standing)) for standing in (False, True))
    return {p.nve for wish in found if wish for i in wish.interfaces for p in (i.location, *i.attachments)}


def names_anew(state: State, known: Interface, place: Place) -> bool:
    """Whether a request that names a place for an interface says something new."""
    wish = state.wishes.get(key_of("vms", known.vm, False)) or state.wishes.get(key_of("vms", known.vm, True))
    before = next((i.location for i in (wish.interfaces if wish else ()) if i.id == known.id), None)
    if before is None and place.nve != known.location.nve:
        return False  # an older version has not kept it
    return place not in (before, known.pending or known.location)


def registered(state: State, event: Submitted) -> Nve | Network | Vm | None:
    """What there is by the name that a submission is about."""
    match event:
        case NveSubmitted(nve):
            return state.nves.get(nve.name)
        case NetworkSubmitted(network):
            return state.network_named(network.name)
        case VmSubmitted(name):
            return state.vms.get(name)


# --- what is meant ----------------------------------------------------------------------------------------------------
def meant(state: State, event: Submitted) -> Submitted | None:
    """What a submission asks for, as things are now; None: nothing."""
    before, given, there = _last(state, event), said(event), registered(state, event)
    if there is None:
        removed = event.standing and _same(state.wishes.get(_key(event, True)), given)
        return None if removed else event
    if _same(before, given):
        return None
    match event, there:
        case VmSubmitted(), Vm():
            return _vm(state, event, before, there)
        case NveSubmitted(nve), _:
            wanted = nve if before is None else merged(before.nve, nve, there)
            return None if wanted == there else replace(event, nve=wanted)
        case NetworkSubmitted(network), _:
            wanted = network if before is None else merged(before.network, network, there)
            return None if wanted == there else replace(event, network=wanted)
    raise AssertionError(event)


def _vm(state: State, event: VmSubmitted, before: Wish | None, there: Vm) -> VmSubmitted | None:
    present = {i: state.interfaces[i] for i in there.interfaces}
    # Where it is or is about to be served is what a place is compared with.
    now = {i: replace(_document(each), location=each.pending or each.location) for i, each in present.items()}
    earlier = {} if before is None else {i.id: _document(i) for i in before.interfaces}
    wanted: list[Interface] = []
    for given in said(event).interfaces:
        was, found = earlier.get(given.id), now.get(given.id)
        if found is None:
            if was != given:
                wanted.append(given)  # else somebody has removed it since
            continue
        if was is None:  # an older version has not kept it: another NVE is taken for what was said before
            was = _as_it_was(state, found, given)
            was = was if given.location.nve == found.location.nve else replace(was, location=given.location)
        each: Interface = merged(was, given, found)
        here = present[given.id].location
        if event.standing and (each.location.nve != here.nve or next(state.moves_of(given.id), None) is not None):
            each = replace(each, location=found.location)  # a file is not asked where guests run
        wanted.append(each)
    names = {i.id for i in event.interfaces}
    wanted += [now[i] for i in there.interfaces if i not in names and before is not None and i not in earlier]
    tenant, leave = event.tenant, event.leave
    if before is not None and before.vm is not None:
        leave = merged(before.vm.leave, leave, there.leave)
        derived = state.common_tenant({i.vni for i in present.values()})
        if tenant == before.vm.tenant and there.tenant != derived:
            tenant = there.tenant
    same = len(wanted) == len(now) and {i.id: i for i in wanted} == now
    same = same and leave == there.leave and tenant in (None, there.tenant)
    return None if same else replace(event, interfaces=tuple(wanted), tenant=tenant, leave=leave)


def _as_it_was(state: State, found: Interface, given: Interface) -> Interface:
    """An interface as there is one, or as it was before moves changed its addresses, if that is what is given."""
    was = found
    for move in state.recent_moves(found.id):
        if any(step.state == MoveState.STEERING.value for step in move.history):
            old = {change.new: change.old for change in move.changes if change.interface == found.id}
            four, six = (tuple(old.get(each, each) for each in pool) for pool in (was.ipv4, was.ipv6))
            was = replace(was, ipv4=four, ipv6=six)
        if was != found and (was.ipv4, was.ipv6) == (given.ipv4, given.ipv6):
            return was
    return found


def merged(before: Any, given: Any, now: Any) -> Any:
    """What there is to be, where something else than ``before`` is given and there is what has become of that."""
    if given == before:
        return now
    if now == before or type(before) is not type(given) or type(now) is not type(given):
        return given
    if is_dataclass(given) and not isinstance(given, type):
        parts = {f.name: merged(*(getattr(each, f.name) for each in (before, given, now))) for f in fields(given)}
        return replace(given, **parts)
    if isinstance(given, Gateway):
        return Gateway(*(merged(*each) for each in zip(before, given, now, strict=True)))
    if type(given) is tuple:
        return _elements(before, given, now)
    return given


def _elements(before: Collection[Any], given: Collection[Any], now: Collection[Any]) -> tuple[Any, ...]:
    """Of a list, what is new is added and what is missing removed, or what a move has made of that."""
    pairs = zip(before, now, strict=True) if len(before) == len(now) else ()
    became = {was: each for was, each in pairs if was not in now and each not in before}
    gone = {became.get(each, each) for each in before if each not in given}
    kept = [each for each in now if each not in gone]
    return (*kept, *(each for each in given if each not in before and each not in kept))
