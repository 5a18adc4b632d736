"""Which units of the pipeline look at a row: how they are found, for dependencies.py.

Each takes a state, the row's key and the row, and yields NVEs with units that they have. More than are concerned may be
found, and units that an NVE does not have; none may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .addresses import mac_of_link_local
from .model import Holder, Interface, Leg, Move, MoveState, Network, Place, Session

if TYPE_CHECKING:
    from .domains import Hop
    from .journal import Unit
    from .model import Left, Sought
    from .state import State

#: NVEs, and units that each of them has.
Found = Iterator[tuple[Iterable[str], tuple["Unit", ...]]]
#: What finds the units that read a row: of a state, the row's key, and the row.
Finder = Callable[["State", Any, Any], Found]

_ALL = (("all",),)


# --- an NVE's row, and what its switch has shown to have --------------------------------------------------------------
def itself(state: State, nve: str, _: object) -> Found:
    yield (nve,), _ALL


def its_floods(state: State, nve: str, _: object) -> Found:
    for vni in state.networks_of(nve):
        if not state.is_l3(vni) and nve in state.hosts(vni):
            yield state.members(vni), (("vn", vni),)


def its_peers(state: State, nve: str, _: object) -> Found:
    for vni in state.networks_of(nve):
        yield state.members(vni), (("peer", vni, nve),)


def its_guests(state: State, nve: str, _: object) -> Found:
    for vni in state.networks_of(nve):
        there = tuple(("if", i) for i in state.located(vni, nve))
        if there:
            yield state.members(vni), there


def its_subnets(state: State, nve: str, _: object) -> Found:
    for vni in state.networks_of(nve):
        if state.is_l3(vni):
            name = state.domain(vni)[0]
            yield state.members(name), (("router", name),)


def its_left(state: State, nve: str, _: object) -> Found:
    for key, left in state.left.items():  # few, and soon over
        yield (left.nve,), (("left", key),)


def its_moves(state: State, nve: str, _: object) -> Found:
    for vni in state.networks_of(nve):
        moves = tuple(("move", number) for number in state.moves_in(vni))
        if moves:
            yield state.members(vni), moves
    for number in state.returning:
        yield of_ended(state, number), (("move", number),)


def its_probes(state: State, nve: str, _: object) -> Found:
    for vni in {proven for _, proven in state.proving()}:
        if nve in state.members(vni):
            yield state.members(vni), (("probes",),)


# --- an underlay neighbor: the row of a Hop, an NVE's own -------------------------------------------------------------
def by_hop(state: State, key: str, hop: Hop) -> Found:
    for vni in state.networks_of(hop.nve):
        if state.networks[vni].sir is None:
            continue
        for peer in state.members(vni):
            if state.next_hop(hop.nve, peer) == hop.address:
                yield (hop.nve,), tuple(("if", i) for i in state.located(vni, peer))


def left_by_hop(state: State, key: str, hop: Hop) -> Found:
    yield (hop.nve,), tuple(("left", left.key) for left in state.left_at(hop.nve))


def moves_by_hop(state: State, key: str, hop: Hop) -> Found:
    for vni in state.networks_of(hop.nve):
        yield (hop.nve,), tuple(("move", number) for number in state.moves_in(vni))


# --- what a switch has refused ----------------------------------------------------------------------------------------
def refused(state: State, key: tuple[str, Unit], _: object) -> Found:
    yield (key[0],), (key[1],)


# --- a session --------------------------------------------------------------------------------------------------------
def at_its_tunnels(kind: Finder) -> Finder:
    """A port that leads to the underlay is no guest's, wherever that is asked."""

    def found(state: State, nve: str, session: Session) -> Found:
        for number in {session.tunnel, session.routed, session.ila} - {None}:
            name = state.by_number.get((nve, number)) if number is not None else None
            if name is not None:
                yield from kind(state, (nve, name), None)

    return found


# --- a network --------------------------------------------------------------------------------------------------------
def whole_domain(state: State, vni: int, network: Network) -> Found:
    for each in {vni, *state.domain(vni), *state.routed_like(network)}:
        for nve in state.members(each):
            yield (nve,), _ALL


def network(state: State, vni: int, _: object) -> Found:
    yield state.members(vni), (("vn", vni),)


def interfaces_in(state: State, vni: int, _: object) -> Found:
    yield state.members(vni), tuple(("if", i) for i in state.in_network(vni))


def answers_in(state: State, vni: int, _: object) -> Found:
    yield state.members(vni), tuple(("answer", i) for i in state.in_network(vni))


def ports_in(state: State, vni: int, _: object) -> Found:
    for i in state.in_network(vni):
        yield from ports_of(state, i, state.interfaces[i])


def ended_in(state: State, vni: int, _: object) -> Found:
    for number in state.returning:  # what is still redirected may come where nobody is a member
        if any(leg.vni == vni for leg in state.moves[number].legs):
            yield of_ended(state, number), (("move", number),)


# --- an interface -----------------------------------------------------------------------------------------------------
def places(state: State, interface: Interface) -> Iterator[Place]:
    """Where an interface is or may show up: where it is, its attachments, the ends of its open moves, and beyond."""
    yield interface.location
    yield from interface.attachments
    sought = state.sought.get(interface.id)
    if sought is not None:
        yield sought.place
    for _, leg in state.moves_of(interface.id):
        yield leg.src
        yield leg.dst


def interface(state: State, key: str, interface: Interface) -> Found:
    yield state.members(interface.vni), (("if", key),)


def answers_of(state: State, key: str, interface: Interface) -> Found:
    held = state.holder_of(interface.vni, interface.mac)
    others = {key} if held is None else {key, held.interface}
    for vni in state.domain(interface.vni):
        for address in (*interface.ipv4, *interface.ipv6):
            others |= set(_speakers(state, vni, address))
    yield state.members(interface.vni), tuple(("answer", i) for i in others)


def _speakers(state: State, vni: int, address: bytes) -> Iterator[str]:
    """Who else has an address, or answers for it while nobody has: a link-local one is made of a MAC."""
    owner, held, mac = state.by_ip.get((vni, address)), state.holder_of(vni, address), mac_of_link_local(address)
    made = None if mac is None else state.mac_owner(vni, mac)
    yield from (i for i in (owner, made) if i is not None)
    if held is not None:
        yield held.interface


def ports_of(state: State, key: str, interface: Interface) -> Found:
    for place in places(state, interface):
        yield (place.nve,), (("port", place.port),)


def floods_to(state: State, key: str, interface: Interface) -> Found:
    there = {leg.dst.nve for _, leg in state.moves_of(key)}
    yield {interface.location.nve, *there}, (("vn", interface.vni),)


def left_by(state: State, key: str, _: object) -> Found:
    for left in state.left_by(key):
        yield (left.nve,), (("left", left.key),)


def moves_of(state: State, key: str, interface: Interface) -> Found:
    moves = tuple(("move", move.id) for move, _ in state.moves_of(key))
    if moves:
        yield state.members(interface.vni), moves
    for number in state.returning:
        if any(leg.interface == key for leg in state.moves[number].legs):
            yield {interface.location.nve, *of_ended(state, number)}, (("move", number),)


def known(kind: Finder) -> Finder:
    """What is found of an interface, for a table whose key is its id."""

    def found(state: State, key: str, _: object) -> Found:
        interface = state.interfaces.get(key)
        if interface is not None:
            yield from kind(state, key, interface)

    return found


def counted(state: State, key: str, interface: Interface) -> Found:
    yield {interface.location.nve, *(leg.src.nve for _, leg in state.moves_of(key))}, (("if", key),)


def pulled(state: State, key: tuple[str, str], _: object) -> Found:
    yield (key[0],), (("if", key[1]),)


# --- who holds a shared address or MAC --------------------------------------------------------------------------------
def held(kind: Finder) -> Finder:
    def found(state: State, _: object, row: Holder) -> Found:
        interface = state.interfaces.get(row.interface)
        if interface is not None:
            yield from kind(state, row.interface, interface)

    return found


def answers_held(state: State, _: object, row: Holder) -> Found:
    others = {i for vni in state.domain(row.vni) for i in _speakers(state, vni, row.address)}
    yield state.members(row.vni), tuple(("answer", i) for i in {row.interface, *others})


# --- a move -----------------------------------------------------------------------------------------------------------
def everywhere(state: State, leg: Leg) -> set[str]:
    return {*state.members(leg.vni), leg.src.nve, leg.dst.nve}


def moves_interfaces(state: State, number: int, move: Move) -> Found:
    for leg in move.legs:
        yield everywhere(state, leg), (("if", leg.interface),)


def moves_moves(state: State, number: int, move: Move) -> Found:
    for leg in move.legs:
        others = (("move", other.id) for other, _ in state.moves_of(leg.interface))
        yield everywhere(state, leg), (("move", number), *others)


def moves_probes(state: State, number: int, move: Move) -> Found:
    for leg in move.legs if move.state is MoveState.PREPARING else ():
        yield everywhere(state, leg), (("probes",),)


def moves_left(state: State, number: int, move: Move) -> Found:
    for leg in move.legs:
        yield from left_by(state, leg.interface, None)


def moves_ports(state: State, number: int, move: Move) -> Found:
    for leg in move.legs:
        interface = state.interfaces.get(leg.interface)
        for place in (leg.src, leg.dst, *(() if interface is None else places(state, interface))):
            yield (place.nve,), (("port", place.port),)


def moves_floods(state: State, number: int, move: Move) -> Found:
    for leg in move.legs:
        interface = state.interfaces.get(leg.interface)
        at = set() if interface is None else {interface.location.nve}
        yield {leg.src.nve, leg.dst.nve} | at, (("vn", leg.vni),)


def of_ended(state: State, number: int) -> set[str]:
    """Where a move that has ended may still have flows, members of its networks or not."""
    found = set()
    for leg in state.moves[number].legs:
        interface = state.interfaces.get(leg.interface)
        found |= {leg.dst.nve} if interface is None else {leg.dst.nve, interface.location.nve}
    return found


def ended(state: State, number: int, _: object) -> Found:
    for leg in state.moves[number].legs:
        yield everywhere(state, leg), (("move", number),)
    yield of_ended(state, number), (("move", number),)


# --- a port -----------------------------------------------------------------------------------------------------------
def here(state: State, place: Place) -> Iterator[str]:
    """The interfaces that are at a port or move to it."""
    if place in state.by_place:
        yield state.by_place[place]
    for _, leg in state.moves_at(place):
        if leg.dst == place:
            yield leg.interface


def port(state: State, key: tuple[str, str], _: object) -> Found:
    yield (key[0],), (("port", key[1]),)


def port_or_home(state: State, key: tuple[str, str], _: object) -> Found:
    yield (key[0],), (("port", key[1]),)
    home = state.by_place.get(Place(*key))
    if home is not None:  # whether it is heard elsewhere
        yield from ports_of(state, home, state.interfaces[home])


def port_interfaces(state: State, key: tuple[str, str], _: object) -> Found:
    yield (key[0],), tuple(("if", i) for i in here(state, Place(*key)))


def port_floods(state: State, key: tuple[str, str], _: object) -> Found:
    for i in here(state, Place(*key)):
        interface = state.interfaces[i]  # whether broadcasts still go where it is
        yield {key[0], interface.location.nve}, (("vn", interface.vni),)


def sought_port(state: State, key: str, row: Sought) -> Found:
    yield (row.place.nve,), (("port", row.place.port),)


# --- an address that was left -----------------------------------------------------------------------------------------
def left(state: State, key: str, left: Left) -> Found:
    yield (left.nve,), (("left", key),)


def left_interface(state: State, key: str, left: Left) -> Found:
    interface = state.interfaces.get(left.interface)
    if interface is not None:  # where it may be delivered, if it is forwarded
        ends = {place.nve for _, leg in state.moves_of(interface.id) for place in (leg.src, leg.dst)}
        yield {interface.location.nve, *ends}, (("if", interface.id),)


def left_ports(state: State, key: str, left: Left) -> Found:
    interface = state.interfaces.get(left.interface)
    if interface is not None:  # wherever it may speak for that address
        yield from ports_of(state, interface.id, interface)


# --- what is counted: members and hosts by (VNI, NVE), and who is expected --------------------------------------------
def joined(kind: str) -> Finder:
    """All of an NVE that it has of a network's interfaces."""

    def found(state: State, key: tuple[int, str], _: object) -> Found:
        yield (key[1],), tuple((kind, i) for i in state.in_network(key[0]))

    return found


def joined_network(state: State, key: tuple[int, str], _: object) -> Found:
    yield (key[1],), (("vn", key[0]),)


def joined_peers(state: State, key: tuple[int, str], _: object) -> Found:
    vni, nve = key
    yield state.members(vni), (("peer", vni, nve),)
    yield (nve,), tuple(("peer", vni, peer) for peer in state.members(vni))


def joined_routers(state: State, key: tuple[int, str], _: object) -> Found:
    routers = tuple(("router", each) for each in state.domain(key[0]))  # a subnet's route leads to a member only
    yield {*state.members(key[0]), key[1]}, routers


def joined_left(state: State, key: tuple[int, str], _: object) -> Found:
    yield (key[1],), tuple(("left", left.key) for left in state.left_at(key[1]))


def joined_moves(state: State, key: tuple[int, str], _: object) -> Found:
    for number in state.moves_in(key[0]):  # each source redirects what any member sends
        yield {key[1], *(leg.src.nve for leg in state.moves[number].legs)}, (("move", number),)


def joined_probes(state: State, key: tuple[int, str], _: object) -> Found:
    if any(vni == key[0] for _, vni in state.proving()):
        yield {*state.members(key[0]), key[1]}, (("probes",),)


def hosted(state: State, key: tuple[int, str], _: object) -> Found:
    yield (key[1],) if state.is_l3(key[0]) else {*state.members(key[0]), key[1]}, (("vn", key[0]),)


def expecting(state: State, nve: str, _: object) -> Found:
    yield (nve,), (("expecting",),)


def every_expecting(state: State, key: object, _: object) -> Found:
    yield state.sessions, (("expecting",),)


def every_port(state: State, key: object, _: object) -> Found:
    for nve in state.sessions:
        yield (nve,), tuple(("port", name) for name in state.ports_of(nve))
