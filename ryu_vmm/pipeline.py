"""The tables of an NVE, and the flows in them, as a function of the directory and the open moves.

An NVE's flows are the union of *units*; each unit is computed from :class:`~ryu_vmm.state.State` alone, never from
history, so a change recomputes the units it touched and a restart recomputes all and gets the same:

* ``("base",)``: what every NVE has; * ``("expecting",)``: announcements at ports to come;
* ``("vn", vni)``, ``("peer", vni, nve)``: a network's flooding, and its peers;
* ``("port", name)``: what may enter by a port (admission.py); * ``("if", id)``: where an interface is;
* ``("answer", id)``: who answers for its addresses (replies.py);
* ``("router", name)``, ``("left", key)``: routing, and addresses that tasks have left (routing.py);
* ``("probes",)``: the probes of all moves being prepared; * ``("move", id)``: marks and redirects (redirects.py).

No two units have a flow in common: what one no longer needs, nobody needs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import admission, redirects, replies, routing, skeleton
from .finding import of_ended
from .flows import IN_PORT, Action, Flow, FlowKey, Match, Output, SetField, ToNva, match
from .limits import gone_meter
from .model import Distribution, Interface, Leg, Move, Place, Redirect, Session
from .paths import entries, from_peer, path
from .state import State, Unit
from .tables import (
    CLASSIFY,
    DELIVER,
    FLOOD,
    FLOOD_ACTIONS,
    FROM_TUNNEL,
    LOCAL,
    REMOTE,
    ROUTE,
    Drop,
    Why,
    about_leg,
    cookie,
    drop,
    metered,
)


# --- flooding ---------------------------------------------------------------------------------------------------------
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
    yield ("expecting",)
    yield ("probes",)
    for name in state.ports_of(nve):
        yield ("port", name)
    for vni in state.networks_of(nve):
        yield ("vn", vni)
        for peer in state.members(vni):
            yield ("peer", vni, peer)
        for i in state.in_network(vni):
            yield ("if", i)
            yield ("answer", i)
    for domain in state.routed_vnis(nve):
        yield ("router", domain)
    for key, left in state.left.items():
        if nve == left.nve:
            yield ("left", key)
    for number in {number for vni in state.networks_of(nve) for number in state.moves_in(vni)}:
        yield ("move", number)
    for number in state.returning:
        if nve in of_ended(state, number):
            yield ("move", number)


def flows_of(state: State, nve: str, units: Iterable[Unit]) -> dict[FlowKey, Flow]:
    """The flows of some units of a connected NVE, by key; those that its switch refuses it goes without."""
    withheld = state.withheld.get(nve)
    return wanted(state, nve, units if withheld is None else (unit for unit in units if unit not in withheld))


def wanted(state: State, nve: str, units: Iterable[Unit]) -> dict[FlowKey, Flow]:
    """The flows of some units of a connected NVE, by key, as they would be if its switch refused none."""
    session = state.sessions[nve]
    flows: dict[FlowKey, Flow] = {}
    for unit in units:
        match unit:
            case ("base",):
                found = skeleton.flows(state, nve, session.tunnel)
            case ("expecting",):
                found = skeleton.expecting(state, nve)
            case ("vn", vni):
                found = _network(state, nve, vni)
            case ("peer", vni, peer):
                found = _peer(state, nve, vni, peer)
            case ("if", i):
                found = _interface(state, nve, i)
            case ("answer", i):
                found = replies.interface(state, nve, i)
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
    yield from replies.gateway(state, nve, vni)
    if state.is_l3(vni):
        yield from routing.network(state, nve, vni)
        return
    mine = cookie(Why.NETWORK, vni)
    here = tuple(Output(number) for number in sorted(set(flood_ports(state, nve, vni))))
    yield from _flood(100, match(metadata=REMOTE, tun_id=vni), here, mine)
    for move, leg in state.moves_to(vni, nve):
        if not move.state.steered and move.redirect is not Redirect.NONE:
            # The VM still runs at the source: what it says to all must not wait for itself here (RFC 7527).
            port_there = state.port_at(leg.dst)
            others = here if port_there is None else tuple(out for out in here if out.port != port_there.number)
            for mac in state.macs(state.interfaces[leg.interface]):
                yield from _flood(110, match(metadata=REMOTE, tun_id=vni, eth_src=mac), others, mine)
    everywhere = flood_actions(state, nve, vni)
    yield from _flood(100, match(metadata=LOCAL, tun_id=vni), everywhere, mine)
    if state.networks[vni].policy.distribution is Distribution.PULL:
        yield _miss(vni, 10)


def _flood(priority: int, on: Match, to: tuple[Action, ...], mine: int) -> Iterator[Flow]:
    """Flood to all of a list: by one flow, or by one in each of several tables where it is too long for a message."""
    parts = [to[at : at + FLOOD_ACTIONS] for at in range(0, len(to), FLOOD_ACTIONS)] or [()]
    for table, part in enumerate(parts, FLOOD):
        following = table + 1 if table - FLOOD + 1 < len(parts) else None
        yield Flow(table, priority, on, part, following, cookie=mine)


def _peer(state: State, nve: str, vni: int, peer: str) -> Iterator[Flow]:
    members = state.members(vni)
    way = path(state, nve, peer) if peer != nve and peer in members and nve in members else None
    if way is None:
        return
    following = ROUTE if state.is_l3(vni) else DELIVER
    for port in entries(state, nve, vni):
        on = match(in_port=port, tun_id=vni, **from_peer(way))
        mine = cookie(Why.NETWORK, vni)
        yield Flow(CLASSIFY, 80, on, goto=following, write_metadata=FROM_TUNNEL, cookie=mine)


def _interface(state: State, nve: str, key: str) -> Iterator[Flow]:
    interface = state.interfaces.get(key)
    if interface is None or nve not in state.members(interface.vni):
        return
    yield from routing.interface(state, nve, interface)
    for face in state.faces(interface):
        yield from _delivery(state, nve, face)


def _delivery(state: State, nve: str, interface: Interface) -> Iterator[Flow]:
    """Where what is sent to an interface's MAC goes."""
    key, mine = interface.id, cookie(Why.INTERFACE, interface.vni)
    to: dict[str, int | bytes] = {"tun_id": interface.vni, "eth_dst": interface.mac}
    active = state.active_move(key)
    if nve == interface.location.nve:
        port = state.port_at(interface.location)
        if port is not None:
            yield Flow(DELIVER, 100, match(**to), (Output(port.number),), cookie=mine)
            return
        move = _arriving(state, key, interface.location)
        if move is not None and not move.off:
            yield _hold(to, move, key)
        else:
            yield _gone(state, nve, interface)
        return
    if active is not None and nve == active[1].dst.nve:
        move, leg = active
        port = state.port_at(leg.dst)
        if move.redirect is Redirect.NONE:
            # Nothing comes yet; but when it does, it may be before this NVE hears of it.
            to_here = {"metadata": REMOTE, **to}
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
    if any(leg.src.nve == nve and not move.requested for move, leg in state.moves_of(key)):
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
    for flow in routing.remote(state, nve, interface, interface.location.nve, 95):
        yield flow._replace(idle_timeout=policy.idle_timeout if pull else 0)


def _miss(vni: int, priority: int, **to: bytes) -> Flow:
    on = match(metadata=LOCAL, tun_id=vni, **to)
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
    section 4.5). From one of an NVE's tunnel ports to another is the other way. A flow whose match leaves out what came
    from a tunnel cannot, as long as nothing gets past table classify without being marked: what lets it, can.
    """
    outputs = [a.port for a in flow.actions if isinstance(a, Output)]
    ways = {session.tunnel, session.routed, session.ila} - {None}
    found = {name: value for name, value, _ in flow.match}
    by_tunnel = int.from_bytes(found.get("in_port", b"")) in ways
    if flow.table == CLASSIFY and flow.goto is not None and not flow.write_metadata & FROM_TUNNEL:
        return by_tunnel or "in_port" not in found
    if IN_PORT in outputs:
        return flow.table == CLASSIFY or not _leaves_out_tunnels(flow)
    from_one = by_tunnel or int.from_bytes(found.get("metadata", b"")) & FROM_TUNNEL
    return bool(len(ways) > 1 and from_one and ways & set(outputs))


def _leaves_out_tunnels(flow: Flow) -> bool:
    """Whether a flow matches only what is not marked as having come from a tunnel."""
    for name, value, mask in flow.match:
        if name == "metadata":
            looked_at = FROM_TUNNEL if mask is None else int.from_bytes(mask) & FROM_TUNNEL
            return bool(looked_at) and not int.from_bytes(value) & FROM_TUNNEL
    return False
