"""Units ("move", id) and ("probes",): what open moves add to an NVE's tables.

Probes prove the paths before anything changes. The redirect sends packets that still reach the source on to where the
VM is now, marked with a VNI of the move's own, so that both ends count exactly those packets. It is the only flow
that may send from tunnel to tunnel (the draft allows that for packets in flight and nothing else), it never sends a
packet back to the NVE it came from, and a marked packet that has nowhere to go is not marked a second time by the
same NVE pair: redirects point straight at the newest location and do not chain.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from typing import NamedTuple

from .flows import IN_PORT, Action, Flow, Match, Output, ToNva, match, set_field
from .model import METER_SLOTS, PROBE_IDENTIFIER, PROBE_PROTOCOL, PROBE_VNI, Interface, Kind, Leg, Move, Redirect
from .paths import entries, exit_to, from_peer, is_routed, path, target, tunnel_to
from .routing import addressed, has_ila, remote
from .state import State
from .tables import (
    CLASSIFY,
    DELIVER,
    ETH_IPV6,
    ETH_PROBE,
    FROM_TUNNEL,
    LOCAL,
    REDIRECTED,
    REMOTE,
    ROUTE,
    Why,
    about_leg,
    cookie,
    metered,
    redirect_meter,
)

#: What a packet still says of the IPv4 tunnel it came by: Open vSwitch looks at that before any IPv6 fields.
_NO_IPV4: tuple[Action, ...] = (set_field("tun_ipv4_src", 0), set_field("tun_ipv4_dst", 0))


def flows(state: State, nve: str, tunnel: int | None, number: int) -> Iterator[Flow]:
    """What an open move needs on an NVE."""
    move = state.moves.get(number)
    if move is None or tunnel is None:
        return
    if number in state.returning:
        yield from _returning(state, nve, move)
    if not move.open:
        return
    for leg in move.legs:
        if nve not in state.members(leg.vni):
            continue
        yield from _arrivals(state, nve, move, leg)
        if nve == leg.src.nve and _newest_from(state, nve, leg) == number:
            for face in state.faces(state.interfaces[leg.interface]):
                yield from _redirect(state, nve, move, leg, face)


class By(enum.StrEnum):
    """What a path is taken by."""

    VXLAN = ""
    ROUTED = " without Ethernet"
    ILA = " by ILA"


class Crossing(NamedTuple):
    """A path to be proven: from one NVE to another."""

    here: str
    there: str
    by: By = By.VXLAN

    def __str__(self) -> str:
        return f"{self.here}->{self.there}{self.by}"


def crossings(state: State, move: Move) -> list[Crossing]:
    """The paths that must be proven: from every correspondent to the destination and back, by all that is in use.

    Back as well, because the VM's own packets take that way, and the underlay's first packet to an unresolved
    neighbor is lost in either direction.
    """
    networks = {leg.vni for leg in move.legs}
    found: list[Crossing] = []
    for other in sorted(state.correspondents(move) - {move.destination}):
        found += ways(state, other, move.destination, networks)
        found += ways(state, move.destination, other, networks)
    return found


def ways(state: State, here: str, there: str, networks: Collection[int]) -> list[Crossing]:
    """All that packets of some networks may take from one NVE to another; none where they have no address in common."""
    if path(state, here, there) is None:
        return []
    found = [Crossing(here, there)]  # a redirect's way out, if no other
    if any(state.is_l3(vni) for vni in networks) and is_routed(state, here, there):
        found.append(Crossing(here, there, By.ROUTED))
    if any(state.networks[vni].sir is not None for vni in networks) and has_ila(state, here) and has_ila(state, there):
        found.append(Crossing(here, there, By.ILA))
    return found


def probes(state: State, nve: str, tunnel: int | None) -> Iterator[Flow]:
    """What takes the probes in that are on their way to an NVE, for whichever move: the nonce inside tells."""
    senders: set[str] = set()
    for destination, vni in state.proving():
        if nve == destination:
            senders.update(state.members(vni))
        elif nve in state.members(vni):
            senders.add(destination)
    if tunnel is None or not senders:
        return
    session, own = state.sessions[nve], state.nves[nve]
    if session.ila is not None and own.locator is not None:
        on = match(
            in_port=session.ila, eth_type=ETH_IPV6, ip_proto=PROBE_PROTOCOL, ipv6_dst=own.locator + PROBE_IDENTIFIER
        )
        yield Flow(CLASSIFY, 90, on, (ToNva(64),), cookie=cookie(Why.PROBE))
    for sender in senders - {nve}:
        way = path(state, nve, sender)
        for port in (tunnel, session.routed) if way is not None else ():
            if port is not None and way is not None:
                on = match(in_port=port, tun_id=PROBE_VNI, eth_type=ETH_PROBE, **from_peer(way))
                yield Flow(CLASSIFY, 90, on, (ToNva(64),), cookie=cookie(Why.PROBE))


def _returning(state: State, nve: str, move: Move) -> Iterator[Flow]:
    """Of a move that has ended, while its source may not know: what it still redirects, its own guests' packets too.

    Where the VM is they are delivered. Elsewhere, as after a rollback, they are handed to the NVA, to be brought there.
    """
    for leg in move.legs:
        interface = state.interfaces.get(leg.interface)
        if interface is None or nve == leg.src.nve:
            continue
        for on in _marked(state, nve, leg):
            if nve == interface.location.nve:
                yield _arrival(state, move, leg, on)
            elif nve == leg.dst.nve:
                held = cookie(Why.HOLD, about_leg(move, leg.interface))
                gateway = state.gateway(leg.vni) if state.is_l3(leg.vni) else None
                # It may have lost its Ethernet header on the way; the NVA knows it by its MAC.
                known = () if gateway is None else addressed(gateway, interface)
                yield Flow(CLASSIFY, 85, on, (*known, ToNva(0xFFFF)), cookie=held)


def _arrivals(state: State, nve: str, move: Move, leg: Leg) -> Iterator[Flow]:
    """Where redirected packets come in: at the move's destination, wherever the VM is by now, and where it goes next.

    From the start of that next move: where a source hears of a redirect first, its packets must not find the door
    closed, and older sources are pointed at the new destination in the same moment as the newest one.
    """
    goals = {leg.dst.nve, target(state, state.interfaces[leg.interface]).nve}
    active = state.active_move(leg.interface)
    if active is not None:
        goals.add(active[1].dst.nve)
    if nve in goals - {leg.src.nve}:
        for on in _marked(state, nve, leg):
            yield _arrival(state, move, leg, on)


def _marked(state: State, nve: str, leg: Leg) -> Iterator[Match]:
    """The packets that a move's source redirects, as they come in."""
    way = path(state, nve, leg.src.nve)
    if way is not None:
        for port in entries(state, nve, leg.vni):
            yield match(in_port=port, tun_id=leg.mark, **from_peer(way))


def _arrival(state: State, move: Move, leg: Leg, on: Match) -> Flow:
    return Flow(
        CLASSIFY,
        85,
        on,
        (set_field("tun_id", leg.vni),),
        goto=ROUTE if state.is_l3(leg.vni) else DELIVER,
        write_metadata=FROM_TUNNEL | REDIRECTED,
        cookie=cookie(Why.MARK, move.id),
    )


def _newest_from(state: State, nve: str, leg: Leg) -> int:
    return max(m.id for m, other in state.moves_of(leg.interface) if other.src.nve == nve)


def _redirect(state: State, nve: str, move: Move, leg: Leg, interface: Interface) -> Iterator[Flow]:
    if not (move.state.steered or move.redirect.at_source):
        return
    goal = target(state, interface)
    way, exit_port = path(state, nve, goal.nve), exit_to(state, nve, goal.nve, leg.vni)
    if goal.nve == nve or way is None or exit_port is None:
        return
    active = state.active_move(leg.interface)
    if active is not None and active[1].dst.nve == nve and active[0].redirect is not Redirect.NONE:
        # The VM is coming back, and its port here queues already. What this NVE sent on now would be on its way there
        # when that place begins to redirect, and is never sent back to where it came from.
        return
    to: dict[str, int | bytes] = {"tun_id": leg.vni, "eth_dst": interface.mac}
    if move.state.steered and move.redirect is Redirect.NONE and move.kind is Kind.COLD:
        # A cold move needs no redirect; should a packet show up all the same, it is brought and the redirect set up.
        stale = cookie(Why.STALE, about_leg(move, leg.interface))
        yield Flow(DELIVER, 115, match(metadata=REMOTE, **to), (ToNva(0xFFFF),), cookie=stale)
        return
    marked = tunnel_to(way, leg.mark, exit_port)
    sampled: tuple[Action, ...] = (ToNva(64),) if move.sampling else ()
    slots = {peer: slot for slot, peer in enumerate(move.peers, 1)}
    mine = cookie(Why.REDIRECT, move.id)
    for peer in state.members(leg.vni):
        if peer in (nve, goal.nve):
            continue  # never back to where it came from
        theirs = path(state, nve, peer)
        if theirs is not None:
            counted = metered(state, nve, redirect_meter(leg, slots.get(peer, METER_SLOTS - 1)))
            mixed = _NO_IPV4 if (theirs.family, way.family) == (4, 6) else ()
            for on, last in _by_port(state, nve, leg, exit_port):
                actions = (*counted, *mixed, *sampled, *marked[:-1], Output(last))
                arrived = match(metadata=REMOTE, **on, **to, **from_peer(theirs))
                yield Flow(DELIVER, 120, arrived, actions, cookie=mine)
    ila = state.sessions[nve].ila
    if ila is not None and state.networks[leg.vni].sir is not None:
        # Who sent it, no outer address says; the NVA sees it by the sender's own.
        counted = metered(state, nve, redirect_meter(leg, METER_SLOTS - 1))
        on_ila = match(metadata=REMOTE, in_port=ila, **to)
        yield Flow(DELIVER, 121, on_ila, (*counted, *sampled, *marked), cookie=mine)
    if move.redirect is Redirect.NONE:
        return
    # The source's own VMs are redirected too until it is steered like any correspondent. The flow then stays below
    # the one that replaces it, so that its counter can be read when the move closes.
    counted = metered(state, nve, redirect_meter(leg, 0))
    yield Flow(DELIVER, 120, match(metadata=LOCAL, **to), (*counted, *marked), cookie=mine)
    if move.state.steered:
        yield from remote(state, nve, interface, goal.nve, 130)


def _by_port(state: State, nve: str, leg: Leg, exit_port: int) -> Iterator[tuple[dict[str, int], int]]:
    """The ports by which a packet may come, and what leads from there to the exit: IN_PORT, if that is the same."""
    ports = entries(state, nve, leg.vni)
    if len(ports) == 1:
        yield {}, IN_PORT if ports[0] == exit_port else exit_port
        return
    for port in ports:
        yield {"in_port": port}, IN_PORT if port == exit_port else exit_port
