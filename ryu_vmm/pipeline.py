"""The tables of an NVE, and the flows in them, as a function of the directory and the open moves.

An NVE's flows are the union of *units*; each unit is computed from :class:`~ryu_vmm.state.State` alone, never from
history, so a change recomputes the units it touched and a restart recomputes all and gets the same:

* ``("base",)``: what every NVE has; * ``("vn", vni)``, ``("peer", vni, nve)``: a network's flooding, and its peers;
* ``("port", name)``: what may enter by a port (admission.py); * ``("if", id)``: where an interface is;
* ``("router", name)``, ``("left", key)``: routing, and addresses that tasks have left (routing.py);
* ``("probes",)``: the probes of all moves being prepared; * ``("move", id)``: marks and redirects (redirects.py).

No two units have a flow in common: what one no longer needs, nobody needs.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .flows import IN_PORT, Action, Flow, FlowKey, Match, Meter, Output, SetField, ToNva, match, set_field
from .limits import forgery_meter, question_meter
from .limits import gone_meter as gone_meter
from .model import MARK_BASE, METER_SLOTS, Distribution, Interface, Leg, Move, Place, Redirect, Session
from .state import State, Unit


class Table(NamedTuple):
    """A table: its number, its name, and the question it answers."""

    number: int
    name: str
    question: str


TABLES = (
    Table(0, "classify", "which VN is this packet of?"),
    Table(10, "admit", "may this port send with this MAC and these addresses?"),
    Table(15, "guard", "does it say what only routers or DHCP servers may say, or hide what it says?"),
    Table(20, "resolve", "is it a question about an address, for the NVA to answer?"),
    Table(30, "route", "where is the guest with this address, and may the packet go there?"),
    Table(40, "deliver", "(VN, destination) -> local port, tunnel, redirect, or hold"),
    Table(50, "flood", "broadcast and multicast inside the VN: local members, one copy per remote NVE"),
)
CLASSIFY, ADMIT, GUARD, RESOLVE, ROUTE, DELIVER, FLOOD = (table.number for table in TABLES)


class Why(enum.IntEnum):
    """What a flow is for: part of its cookie, so that a packet or a counter that comes back says what it is about."""

    BASE = 1
    DROP = 2  # object: a Drop
    NETWORK = 3  # object: VNI
    INTERFACE = 4  # object: VNI
    RESOLVE = 5  # to the NVA: ARP request or neighbor solicitation
    ANNOUNCE = 6  # to the NVA: RARP, or an announcement on a port of nobody
    LIFE = 7  # to the NVA: the VM has been heard at a port where it is expected
    MISS = 8  # to the NVA: a pulled location is wanted
    PROBE = 9  # to the NVA: a probe has crossed; object: move
    HOLD = 10  # to the NVA: wait for the destination's port; object: see about_leg
    STALE = 11  # to the NVA: a packet for a VM that has left; object: see about_leg
    REDIRECT = 12  # object: move
    MARK = 13  # redirected packets arriving; object: move
    GONE = 14  # the VM's port is gone and nobody said where to; object: VNI
    ROUTER = 15  # to the NVA: for the gateway itself; object: VNI of its network
    EXPIRED_TTL = 16  # to the NVA: its TTL does not allow another hop; object: name of the domain
    TOO_BIG = 17  # to the NVA: larger than the networks it is routed in allow; object: name of the domain
    UNREACHABLE = 18  # to the NVA: nobody has its destination here; object: VNI
    HOP = 19  # to the NVA: a neighbor advertisement of the underlay


class Drop(enum.IntEnum):
    """Why a packet is dropped: each cause has its own counter."""

    UNKNOWN_PORT = 1
    UNKNOWN_VNI = 2
    UNKNOWN_TUNNEL_SOURCE = 3
    VLAN_TAGGED = 4
    SPOOFED_MAC = 5
    SPOOFED_ADDRESS = 6
    SPOOFED_ND = 7
    UNKNOWN_DESTINATION = 8
    MISDELIVERED = 9
    NO_FLOOD = 10
    LINK_LOCAL_CONTROL = 11
    SPOOFED_ARP = 12  # and RARP
    ROUTER_ADVERTISEMENT = 13
    ICMP_REDIRECT = 14
    DHCP_SERVER = 15
    FRAGMENTED_ND = 16
    BROKEN_HEADERS = 17
    NOT_ROUTED = 18
    LEFT = 19  # for an address, or a locator, that a task has left
    UNKNOWN_LOCATOR = 20


_MAGIC = 0x766D
#: Every flow of ours matches this cookie under this mask; nothing else is ever touched.
COOKIE_OURS = _MAGIC << 48
COOKIE_MASK = 0xFFFF << 48
#: The mask that selects a Why and its object.
COOKIE_EXACT = (1 << 64) - 1
COOKIE_WHY_MASK = 0xFFFFFF << 40

#: Bytes of a frame that are enough for any announcement (VLAN tag, IPv6 and option included).
HEAD = 128

FROM_TUNNEL = 1
REDIRECTED = 2
_LOCAL = (0, FROM_TUNNEL)
_REMOTE = (FROM_TUNNEL, FROM_TUNNEL)
#: A VLAN tag of whatever number.
TAGGED = (0x1000, 0x1000)
_MULTICAST = (b"\x01\0\0\0\0\0", b"\x01\0\0\0\0\0")

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_RARP = 0x8035
ETH_IPV6 = 0x86DD
ETH_PROBE = 0x88B5


def cookie(why: Why, about: int = 0) -> int:
    """The cookie of a flow that is there for ``why`` and concerns ``about`` (0 .. 2**40 - 1)."""
    return COOKIE_OURS | why << 40 | about


def about_leg(move: Move, interface: str) -> int:
    """A move and which of its interfaces, as an object of a cookie: two may have one MAC, in different networks."""
    return next(n for n, leg in enumerate(move.legs) if leg.interface == interface) << 32 | move.id


def move_of(about: int) -> int:
    """The move that a cookie's object names."""
    return about & 0xFFFFFFFF


def why_of(value: int) -> tuple[Why, int] | None:
    """The inverse of :func:`cookie`; None for a flow that is not ours."""
    if value >> 48 != _MAGIC:
        return None
    try:
        return Why((value >> 40) & 0xFF), value & 0xFFFFFFFFFF
    except ValueError:
        return None


def drop(table: int, priority: int, on: Match, cause: Drop, actions: tuple[Action, ...] = ()) -> Flow:
    """A flow that drops and counts under ``cause``; ``actions``: see :func:`forgeries`."""
    return Flow(table, priority, on, actions, cookie=cookie(Why.DROP, cause))


def redirect_meter(leg: Leg, slot: int) -> int:
    """The number of a redirect's meter; see model.METER_SLOTS."""
    return 1 + (leg.mark - MARK_BASE) * METER_SLOTS + slot


def questions(state: State, nve: str, port: int) -> tuple[Action, ...]:
    """The action that limits what a port asks and announces, if there is a limit and the switch has meters."""
    return metered(state, nve, question_meter(port)) if state.limits.questions else ()


def forgeries(state: State, nve: str, port: int) -> tuple[Action, ...]:
    """The actions that hand what a port forges to the NVA, limited; none for a switch that cannot limit them."""
    counted = metered(state, nve, forgery_meter(port)) if state.limits.forgeries else ()
    return (*counted, ToNva(HEAD)) if counted else ()


def metered(state: State, nve: str, meter: int) -> tuple[Action, ...]:
    """The action that counts by a meter, if the switch has one of that number."""
    return (Meter(meter),) if meter <= state.sessions[nve].meters else ()


# --- the underlay -----------------------------------------------------------------------------------------------------
class Path(NamedTuple):
    """Underlay addresses from one NVE to another; ``family`` is 4 or 6."""

    family: int
    here: bytes
    there: bytes


def path(state: State, here: str, there: str) -> Path | None:
    """How two NVEs reach each other: IPv4 if both have it, else IPv6 if both have it, else None."""
    a, b = state.nves.get(here), state.nves.get(there)
    if a is None or b is None:
        return None
    if a.ipv4 and b.ipv4:
        return Path(4, a.ipv4, b.ipv4)
    if a.ipv6 and b.ipv6:
        return Path(6, a.ipv6, b.ipv6)
    return None


def tunnel_to(way: Path, vni: int | None, port: int) -> tuple[Action, ...]:
    """Actions that send a packet through the tunnel (``vni`` None: the packet carries its VNI already)."""
    family = f"tun_ipv{way.family}_"
    head: tuple[Action, ...] = () if vni is None else (set_field("tun_id", vni),)
    return (*head, SetField(family + "src", way.here), SetField(family + "dst", way.there), Output(port))


def exit_to(state: State, here: str, there: str, vni: int) -> int | None:
    """The number of the tunnel port by which a network's packets go from one NVE to another.

    Those of a layer 3 network need no Ethernet header, where both NVEs have a port for tunnels without.
    """
    session = state.sessions.get(here)
    if session is None:
        return None
    return session.routed if state.is_l3(vni) and is_routed(state, here, there) else session.tunnel


def is_routed(state: State, here: str, there: str) -> bool:
    """Whether an NVE sends what needs no Ethernet header to another one without: both have a port for that."""
    session, offer = state.sessions.get(here), state.offers.get(there)
    return session is not None and session.routed is not None and offer is not None and offer.routed


def entries(state: State, nve: str, vni: int) -> tuple[int, ...]:
    """The numbers of the tunnel ports by which a network's packets may come: whatever their senders have chosen."""
    session = state.sessions[nve]
    both = (session.tunnel, session.routed if state.is_l3(vni) else None)
    return tuple(port for port in both if port is not None)


def _from_peer(way: Path) -> dict[str, bytes]:
    return {f"tun_ipv{way.family}_src": way.there}


# --- where things are -------------------------------------------------------------------------------------------------
def target(state: State, interface: Interface) -> Place:
    """Where packets for an interface should go from a source NVE's point of view: newest destination wins."""
    active = state.active_move(interface.id)
    if active is not None and active[0].redirect.at_source:
        return active[1].dst
    return interface.location


def flood_ports(state: State, nve: str, vni: int) -> Iterator[int]:
    """Numbers of the local ports that get the network's broadcasts.

    While a VM is redirected its broadcasts wait at the destination with the rest, if it has its port there already; the
    destination joins before the source leaves, so a broadcast in that moment may come twice but is not lost.
    """
    for i in state.located(vni, nve):
        active = state.active_move(i)
        if active is not None and active[0].redirect.at_source and state.port_at(active[1].dst) is not None:
            continue
        port = state.port_at(state.interfaces[i].location)
        if port is not None:
            yield port.number
    for move, leg in state.moves_to(vni, nve):
        port = state.port_at(leg.dst)
        if port is not None and not move.state.steered and move.redirect is not Redirect.NONE:
            yield port.number


def flood_actions(state: State, nve: str, vni: int) -> tuple[Action, ...]:
    """Actions that flood a packet that entered locally: local ports, then one copy to each remote NVE."""
    ports = tuple(Output(number) for number in sorted(set(flood_ports(state, nve, vni))))
    session, own = state.sessions.get(nve), state.nves.get(nve)
    if session is None or session.tunnel is None or own is None or state.is_l3(vni):
        return () if state.is_l3(vni) else ports
    actions: tuple[Action, ...] = ports
    # IPv6 first: once a packet has an IPv4 tunnel destination, Open vSwitch looks at no other.
    if own.ipv6:
        actions += _copies(state, vni, 6, session.tunnel, nve, own.ipv6, bool(own.ipv4))
    if own.ipv4:
        actions += _copies(state, vni, 4, session.tunnel, nve, own.ipv4, False)
    return actions


def _copies(
    state: State, vni: int, family: int, tunnel: int, nve: str, here: bytes, others_only: bool
) -> tuple[Action, ...]:
    """A copy for each peer with an address of a family, or (``others_only``) with none of the other family.

    What all hosts' lists have in common is computed once: a thousand NVEs have a thousand peers each.
    """
    key = (vni, family, tunnel, others_only)
    if key not in state.floods:
        at: dict[str, int] = {}
        copies: list[Action] = []
        for peer in sorted(state.hosts(vni)):
            known = state.nves.get(peer)
            there = None if known is None or (others_only and known.ipv4) else known.ipv6 if family == 6 else known.ipv4
            if there:
                at[peer] = len(copies)
                copies += _copy(family, there, tunnel)
        state.floods[key] = (at, tuple(copies))
    at, every = state.floods[key]
    own = at.get(nve)
    rest = every if own is None else every[:own] + every[own + 2 :]
    # The own address stays set from copy to copy: a thousand peers must fit into one message.
    return (SetField(f"tun_ipv{family}_src", here), *rest) if rest else ()


@functools.lru_cache(maxsize=65536)
def _copy(family: int, there: bytes, tunnel: int) -> tuple[Action, ...]:
    return (SetField(f"tun_ipv{family}_dst", there), Output(tunnel))


# --- units ------------------------------------------------------------------------------------------------------------
def units_of(state: State, nve: str) -> Iterator[Unit]:
    """Every unit that an NVE has."""
    yield ("base",)
    yield ("probes",)
    for name in state.ports_of(nve):
        yield ("port", name)
    for vni in state.networks_of(nve):
        yield ("vn", vni)
        for peer in state.members(vni):
            yield ("peer", vni, peer)
        for i in state.in_network(vni):
            yield ("if", i)
    for domain in state.routed_vnis(nve):
        yield ("router", domain)
    for key, left in state.left.items():
        if nve == left.nve:
            yield ("left", key)
    for move in state.open_moves():
        yield ("move", move.id)
    for number in state.returning:
        yield ("move", number)


def flows_of(state: State, nve: str, units: Iterable[Unit]) -> dict[FlowKey, Flow]:
    """The flows of some units of a connected NVE, by key."""
    from . import admission, redirects, routing, skeleton  # they build on this module's words

    session = state.sessions[nve]
    flows: dict[FlowKey, Flow] = {}
    for unit in units:
        match unit:
            case ("base",):
                found = skeleton.flows(state, nve, session.tunnel)
            case ("vn", vni):
                found = _network(state, nve, vni)
            case ("peer", vni, peer):
                found = _peer(state, nve, vni, peer)
            case ("if", i):
                found = _interface(state, nve, i)
            case ("port", name):
                found = admission.flows(state, nve, name)
            case ("probes",):
                found = redirects.probes(state, nve, session.tunnel)
            case ("router", domain):
                found = routing.router(state, nve, domain)
            case ("left", key):
                found = routing.left(state, nve, key)
            case ("move", number):
                found = redirects.flows(state, nve, session.tunnel, number)
            case _:
                raise AssertionError(unit)
        for flow in found:
            flows[flow.key] = flow
    return flows


def desired(state: State, nve: str) -> dict[FlowKey, Flow]:
    """All flows that a connected NVE should have."""
    return flows_of(state, nve, units_of(state, nve))


def _network(state: State, nve: str, vni: int) -> Iterator[Flow]:
    if vni not in state.networks or nve not in state.members(vni):
        return
    for port in entries(state, nve, vni):
        yield drop(CLASSIFY, 20, match(in_port=port, tun_id=vni), Drop.UNKNOWN_TUNNEL_SOURCE)
    if state.is_l3(vni):
        yield from _routing().network(state, nve, vni)
        return
    mine = cookie(Why.NETWORK, vni)
    here = tuple(Output(number) for number in sorted(set(flood_ports(state, nve, vni))))
    yield Flow(FLOOD, 100, match(metadata=_REMOTE, tun_id=vni), here, cookie=mine)
    for move, leg in state.moves_to(vni, nve):
        if not move.state.steered and move.redirect is not Redirect.NONE:
            # The VM still runs at the source: what it says to all must not wait for itself here (RFC 7527).
            port_there, mac = state.port_at(leg.dst), state.interfaces[leg.interface].mac
            others = here if port_there is None else tuple(out for out in here if out.port != port_there.number)
            yield Flow(FLOOD, 110, match(metadata=_REMOTE, tun_id=vni, eth_src=mac), others, cookie=mine)
    everywhere = flood_actions(state, nve, vni)
    yield Flow(FLOOD, 100, match(metadata=_LOCAL, tun_id=vni), everywhere, cookie=mine)
    if state.networks[vni].policy.distribution is Distribution.PULL:
        yield _miss(vni, 10)


def _routing() -> Any:
    from . import routing  # it builds on this module's words

    return routing


def _peer(state: State, nve: str, vni: int, peer: str) -> Iterator[Flow]:
    members = state.members(vni)
    way = path(state, nve, peer) if peer != nve and peer in members and nve in members else None
    if way is None:
        return
    following = ROUTE if state.is_l3(vni) else DELIVER
    for port in entries(state, nve, vni):
        on = match(in_port=port, tun_id=vni, **_from_peer(way))
        mine = cookie(Why.NETWORK, vni)
        yield Flow(CLASSIFY, 80, on, goto=following, write_metadata=FROM_TUNNEL, cookie=mine)


def _interface(state: State, nve: str, key: str) -> Iterator[Flow]:
    interface = state.interfaces.get(key)
    if interface is None or nve not in state.members(interface.vni):
        return
    yield from _routing().interface(state, nve, interface)
    mine = cookie(Why.INTERFACE, interface.vni)
    to: dict[str, int | bytes] = {"tun_id": interface.vni, "eth_dst": interface.mac}
    active = state.active_move(key)
    if nve == interface.location.nve:
        port = state.port_at(interface.location)
        if port is not None:
            yield Flow(DELIVER, 100, match(**to), (Output(port.number),), cookie=mine)
            return
        move = _arriving(state, key, interface.location)
        if move is not None:
            yield _hold(to, move, key)
        else:
            yield _gone(state, nve, interface)
        return
    if active is not None and nve == active[1].dst.nve:
        move, leg = active
        port = state.port_at(leg.dst)
        if move.redirect is Redirect.NONE:
            # Nothing comes yet; but when it does, it may be before this NVE hears of it.
            to_here = {"metadata": _REMOTE, **to}
            if port is not None:
                yield Flow(DELIVER, 100, match(**to_here), (Output(port.number),), cookie=mine)
            else:
                yield _hold(to_here, move, key)
            yield from _remote(state, nve, interface)
        elif port is not None:
            yield Flow(DELIVER, 100, match(**to), (Output(port.number),), cookie=mine)
        else:
            yield _hold(to, move, key)
        return
    if any(leg.src.nve == nve and move.trigger == "announcement" for move, leg in state.moves_of(key)):
        yield _gone(state, nve, interface)  # keeps its counter until the ledger has been read
        if (nve, key) not in state.pulled and state.networks[interface.vni].policy.distribution is Distribution.PULL:
            # What is asked below that flow otherwise: where it is now.
            yield _miss(interface.vni, 95, eth_dst=interface.mac)
    yield from _remote(state, nve, interface)


def _remote(state: State, nve: str, interface: Interface) -> Iterator[Flow]:
    policy = state.networks[interface.vni].policy
    pull = policy.distribution is Distribution.PULL
    if pull and (nve, interface.id) not in state.pulled:
        return
    for flow in remote(state, nve, interface, interface.location.nve, 95):
        yield flow._replace(idle_timeout=policy.idle_timeout if pull else 0)


def remote(state: State, nve: str, interface: Interface, there: str, priority: int) -> Iterator[Flow]:
    """How what enters at an NVE gets to an interface elsewhere: by tunnel, and by ILA what can."""
    way, port = path(state, nve, there), exit_to(state, nve, there, interface.vni)
    mine = cookie(Why.INTERFACE, interface.vni)
    to: dict[str, Any] = {"metadata": _LOCAL, "tun_id": interface.vni, "eth_dst": interface.mac}
    if way is not None and port is not None:
        yield Flow(DELIVER, priority, match(**to), tunnel_to(way, None, port), cookie=mine)
    sir = state.networks[interface.vni].sir
    for address in interface.ipv6 if sir is not None else ():
        located = _routing().ila_way(state, nve, there, address) if address[:8] == sir else None
        if located is not None and sir is not None:
            inside = (sir + bytes(8), b"\xff" * 8 + bytes(8))
            on = match(**to, eth_type=ETH_IPV6, ipv6_src=inside, ipv6_dst=address)
            yield Flow(DELIVER, priority + 1, on, located, cookie=mine)


def _miss(vni: int, priority: int, **to: bytes) -> Flow:
    on = match(metadata=_LOCAL, tun_id=vni, **to)
    return Flow(DELIVER, priority, on, (ToNva(0xFFFF),), cookie=cookie(Why.MISS, vni))


def _arriving(state: State, key: str, place: Place) -> Move | None:
    """The newest open move that brought the interface to ``place``."""
    moves: list[tuple[Move, Leg]] = [(m, leg) for m, leg in state.moves_of(key) if leg.dst == place]
    return moves[-1][0] if moves else None


def _hold(to: Mapping[str, Any], move: Move, key: str) -> Flow:
    return Flow(DELIVER, 100, match(**to), (ToNva(0xFFFF),), cookie=cookie(Why.HOLD, about_leg(move, key)))


def _gone(state: State, nve: str, interface: Interface) -> Flow:
    on = match(tun_id=interface.vni, eth_dst=interface.mac)
    slot = state.gone.get(interface.id)
    counted = () if slot is None else metered(state, nve, gone_meter(slot))
    return Flow(DELIVER, 90, on, counted, cookie=cookie(Why.GONE, interface.vni))


def is_tunnel_to_tunnel(flow: Flow, session: Session) -> bool:
    """Whether a flow can send a packet that came from a tunnel, or by ILA, into one again.

    OpenFlow never sends a packet back out of its in_port unless the reserved port IN_PORT is named (OpenFlow 1.3.5
    section 4.5). From one of an NVE's tunnel ports to another is the other way.
    """
    outputs = [a.port for a in flow.actions if isinstance(a, Output)]
    ways = {session.tunnel, session.routed, session.ila} - {None}
    found = {name: value for name, value, _ in flow.match}
    from_one = int.from_bytes(found.get("in_port", b"")) in ways or int.from_bytes(found.get("metadata", b"")) & 1
    return IN_PORT in outputs or bool(len(ways) > 1 and from_one and ways & set(outputs))
