"""Table route: every NVE is the router of its guests (section 4.2 of the draft).

Units ("router", name of a domain), ("left", key), and what an interface adds to its own unit. A packet to the gateway's
MAC is routed where it enters: its TTL is taken down once, the guest's MAC is put in, and table deliver does the rest as
for any other frame, redirects of open moves included. Packets of layer 3 networks that come by a tunnel may have lost
their Ethernet header on the way, so they are led to their guest by address once more.

An address that is in a subnet of the NVE where its guest is needs no route elsewhere: the subnet has one. Others, as
of tasks that have moved and kept their address, have a host route at every NVE of the domain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .addresses import is_link_local
from .flows import IN_PORT, Action, CheckLarger, DecTtl, Flow, Match, Output, SetField, ToNva, match, set_field
from .model import Answer, Gateway, Interface, Left, Nve, Redirect, Subnet
from .paths import entries, exit_to, path, target, tunnel_to
from .replies import SOLICITATION, to_nva
from .state import State
from .tables import (
    CLASSIFY,
    DELIVER,
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    FROM_TUNNEL,
    LOCAL,
    REMOTE,
    RESOLVE,
    ROUTE,
    Drop,
    Why,
    cookie,
    drop,
)

_DOMAIN = 0xFFFFFF00 | FROM_TUNNEL
_LINK_LOCAL = (b"\xfe\x80" + bytes(14), b"\xff\xc0" + bytes(14))
_HALF = b"\xff" * 8 + bytes(8)
_ETH = {4: ETH_IPV4, 16: ETH_IPV6}
_ETHERNET = 14  # bytes of a frame's header without a tag


def tag(state: State, vni: int) -> int:
    """What of a packet's metadata says which domain it is routed in; 0: it is not."""
    return 0 if state.gateway(vni) is None else state.domain(vni)[0] << 8


def ila_mac(nve: Nve) -> bytes:
    """The MAC by which an NVE sends to the underlay itself: locally administered, made from its datapath id."""
    return b"\x02\x69" + (nve.dpid & 0xFFFFFFFF).to_bytes(4, "big")


def is_sir(state: State, interface: Interface, address: bytes) -> bool:
    """Whether an address keeps its identifier and is reached by ILA."""
    sir = state.networks[interface.vni].sir
    return sir is not None and len(address) == 16 and address[:8] == sir


def _to(address: bytes) -> dict[str, Any]:
    """The fields of packets to an address."""
    eth_type = _ETH[len(address)]
    return {"eth_type": eth_type, "ipv4_dst" if eth_type == ETH_IPV4 else "ipv6_dst": address}


def _within(subnet: Subnet) -> dict[str, Any]:
    width = len(subnet.prefix)
    mask = ((1 << subnet.length) - 1 << 8 * width - subnet.length).to_bytes(width, "big")
    return {"eth_type": _ETH[width], f"ipv{4 if width == 4 else 6}_dst": (subnet.prefix, mask)}


# --- unit ("router", domain) ------------------------------------------------------------------------------------------
def router(state: State, nve: str, name: int) -> Iterator[Flow]:
    """What an NVE needs to route in a domain, whoever is there."""
    domain = state.domain(name)
    gateway = state.gateway(name)
    if gateway is None or domain[0] != name or nve not in state.members(name):
        return
    mine = cookie(Why.NETWORK, name)
    own: dict[str, Any] = {"metadata": (name << 8, _DOMAIN), "eth_dst": gateway.mac}
    asked = to_nva(state, nve)
    # Questions to the router itself, which neighbors ask again now and then without shouting (RFC 4861, 7.3)
    yield Flow(RESOLVE, 90, match(**own, eth_type=ETH_ARP, arp_op=1), asked, cookie=cookie(Why.RESOLVE))
    solicited = match(**own, **SOLICITATION)
    yield Flow(RESOLVE, 90, solicited, asked, cookie=cookie(Why.RESOLVE))
    advertised = match(**own, eth_type=ETH_IPV6, ip_proto=58, icmpv6_type=136)
    yield Flow(RESOLVE, 90, advertised, cookie=mine)
    mtu = min(state.networks[vni].policy.mtu for vni in domain)
    yield Flow(RESOLVE, 50, match(**own), (CheckLarger(mtu + _ETHERNET),), goto=ROUTE, cookie=mine)
    for vni in domain:
        here = state.gateway(vni)
        for address in () if here is None else (here.ipv4, here.ipv6):
            if address is not None:
                yield Flow(ROUTE, 410, match(**own, **_to(address)), asked, cookie=cookie(Why.ROUTER, vni))
    for side in ("ipv6_src", "ipv6_dst"):  # never leave their link (RFC 4291 section 2.5.6)
        yield drop(ROUTE, 405, match(**own, eth_type=ETH_IPV6, **{side: _LINK_LOCAL}), Drop.NOT_ROUTED)
    for eth_type in (ETH_IPV4, ETH_IPV6):
        ip = {**own, "eth_type": eth_type}
        for ttl in (0, 1):
            yield Flow(ROUTE, 400, match(**ip, ip_ttl=ttl), asked, cookie=cookie(Why.EXPIRED_TTL, name))
        yield Flow(ROUTE, 350, match(**ip, reg0=(1, 1)), asked, cookie=cookie(Why.TOO_BIG, name))
        yield Flow(ROUTE, 20, match(**ip), asked, cookie=cookie(Why.UNREACHABLE, name))
    yield drop(ROUTE, 10, match(**own), Drop.NOT_ROUTED)
    for vni in domain:
        for subnet in state.networks[vni].subnets if state.is_l3(vni) else ():
            yield from _subnet(state, nve, vni, own, gateway, subnet)


def _subnet(state: State, nve: str, vni: int, own: dict[str, Any], gateway: Gateway, subnet: Subnet) -> Iterator[Flow]:
    if subnet.nve == nve or subnet.nve not in state.members(vni):
        return
    way, port = path(state, nve, subnet.nve), exit_to(state, nve, subnet.nve, vni)
    if way is None or port is None:
        return
    actions = (DecTtl(), SetField("eth_src", gateway.mac), *tunnel_to(way, vni, port))
    on = match(**own, **_within(subnet))
    yield Flow(ROUTE, 100 + subnet.length, on, actions, cookie=cookie(Why.NETWORK, vni))


def network(state: State, nve: str, vni: int) -> Iterator[Flow]:
    """What a layer 3 network adds to its unit."""
    yield drop(ROUTE, 5, match(metadata=(state.domain(vni)[0] << 8, _DOMAIN), tun_id=vni), Drop.NOT_ROUTED)
    for eth_type in (ETH_IPV4, ETH_IPV6):
        on = match(metadata=REMOTE, tun_id=vni, eth_type=eth_type)
        yield Flow(ROUTE, 20, on, to_nva(state, nve), cookie=cookie(Why.UNREACHABLE, vni))


# --- unit ("if", id) --------------------------------------------------------------------------------------------------
def interface(state: State, nve: str, found: Interface) -> Iterator[Flow]:
    """How packets find an interface's MAC, and those of ILA its address."""
    gateway = state.gateway(found.vni)
    if gateway is None:
        return
    l3, here = state.is_l3(found.vni), _concerned(state, nve, found)
    still = state.still(found) if here else ()
    for address in dict.fromkeys((*found.ipv4, *found.ipv6, *expected(state, found), *still)):
        if address[:2] == b"\xfe\x80" and len(address) == 16:
            continue
        if here or not l3 or not state.at_home(found, address):
            yield _routed(state, found, gateway, address, 300)
        if here and l3:
            yield _arrived(state, found, gateway, address, 300)
        if here and is_sir(state, found, address):
            yield from _located(state, nve, found, address)
    for row in state.held_by(found.id):
        if len(row.address) == 6 or is_link_local(row.address):
            continue
        reached = replace(found, mac=row.mac)
        if here or not l3 or not state.at_home(found, row.address):
            yield _routed(state, reached, gateway, row.address, 300)
        if here and l3:
            yield _arrived(state, reached, gateway, row.address, 300)


def expected(state: State, found: Interface) -> tuple[bytes, ...]:
    """Addresses that it will have once the move that is open has steered."""
    active = state.active_move(found.id)
    return () if active is None else tuple(c.new for c in active[0].changes if c.interface == found.id)


def _concerned(state: State, nve: str, found: Interface) -> bool:
    """Whether packets to an interface may come to an NVE by a tunnel and be right there."""
    if nve == found.location.nve:
        return True
    return any(nve in (leg.src.nve, leg.dst.nve) for _, leg in state.moves_of(found.id))


def _routed(state: State, found: Interface, gateway: Gateway, address: bytes, priority: int) -> Flow:
    own = {"metadata": (state.domain(found.vni)[0] << 8, _DOMAIN), "eth_dst": gateway.mac}
    actions = (DecTtl(), set_field("tun_id", found.vni), *addressed(gateway, found))
    mine = cookie(Why.INTERFACE, found.vni)
    return Flow(ROUTE, priority, match(**own, **_to(address)), actions, goto=DELIVER, cookie=mine)


def _arrived(state: State, found: Interface, gateway: Gateway, address: bytes, priority: int) -> Flow:
    on = match(metadata=REMOTE, tun_id=found.vni, **_to(address))
    mine = cookie(Why.INTERFACE, found.vni)
    return Flow(ROUTE, priority, on, addressed(gateway, found), goto=DELIVER, cookie=mine)


def addressed(gateway: Gateway, found: Interface) -> tuple[Action, ...]:
    return SetField("eth_src", gateway.mac), SetField("eth_dst", found.mac)


# --- ILA --------------------------------------------------------------------------------------------------------------
def has_ila(state: State, nve: str) -> bool:
    """Whether an NVE has a locator, and its switch a port for that."""
    own, offer = state.nves.get(nve), state.offers.get(nve)
    return own is not None and own.locator is not None and offer is not None and offer.ila


def ila_way(state: State, here: str, there: str, address: bytes) -> tuple[Action, ...] | None:
    """Actions that send a packet to the locator of an address's NVE; None: that NVE, or the way to it, is not known."""
    session, own, other = state.sessions.get(here), state.nves.get(here), state.nves.get(there)
    offer, hop = state.offers.get(there), state.hop(here, there)
    if session is None or session.ila is None or own is None or other is None:
        return None
    if other.locator is None or offer is None or not offer.ila or hop is None:
        return None
    return (
        SetField("ipv6_dst", other.locator + address[8:]),
        SetField("eth_src", ila_mac(own)),
        SetField("eth_dst", hop.mac),
        Output(session.ila),
    )


def _under_locator(state: State, nve: str, vni: int, address: bytes) -> Match | None:
    """What arrives at an NVE for an identifier under the NVE's own locator, from the identifiers' own network."""
    session, own, sir = state.sessions[nve], state.nves[nve], state.networks[vni].sir
    if session.ila is None or own.locator is None or sir is None:
        return None
    inside = (sir + bytes(8), _HALF)
    return match(in_port=session.ila, eth_type=ETH_IPV6, ipv6_src=inside, ipv6_dst=own.locator + address[8:])


def _located(state: State, nve: str, found: Interface, address: bytes) -> Iterator[Flow]:
    """The locator is taken off again, and the packet goes on like one from a tunnel."""
    on = _under_locator(state, nve, found.vni, address)
    if on is not None:
        actions = (set_field("tun_id", found.vni), SetField("ipv6_dst", address))
        mine = cookie(Why.INTERFACE, found.vni)
        yield Flow(CLASSIFY, 88, on, actions, goto=ROUTE, write_metadata=FROM_TUNNEL, cookie=mine)


def remote(state: State, nve: str, interface: Interface, there: str, priority: int) -> Iterator[Flow]:
    """How what enters at an NVE gets to an interface elsewhere: by tunnel, and by ILA what can."""
    way, port = path(state, nve, there), exit_to(state, nve, there, interface.vni)
    mine = cookie(Why.INTERFACE, interface.vni)
    to: dict[str, Any] = {"metadata": LOCAL, "tun_id": interface.vni, "eth_dst": interface.mac}
    if way is not None and port is not None:
        yield Flow(DELIVER, priority, match(**to), tunnel_to(way, None, port), cookie=mine)
    sir = state.networks[interface.vni].sir
    for address in interface.ipv6 if sir is not None else ():
        located = ila_way(state, nve, there, address) if address[:8] == sir else None
        if located is not None and sir is not None:
            inside = (sir + bytes(8), b"\xff" * 8 + bytes(8))
            on = match(**to, eth_type=ETH_IPV6, ipv6_src=inside, ipv6_dst=address)
            yield Flow(DELIVER, priority + 1, on, located, cookie=mine)


# --- unit ("left", key) -----------------------------------------------------------------------------------------------
def left(state: State, nve: str, key: str) -> Iterator[Flow]:
    """What becomes of packets for an address that a task has left."""
    gone = state.left.get(key)
    found = None if gone is None else state.interfaces.get(gone.interface)
    gateway = None if gone is None else state.gateway(gone.vni)
    if gone is None or found is None or gateway is None or nve not in state.members(gone.vni):
        return
    goal = _reached_at(state, gone, found)
    if nve == gone.nve and gone.ila:
        yield from _left_ila(state, gone, goal)
    elif nve == gone.nve and (gone.answer is not Answer.FORWARD or goal != nve):  # else it is delivered: interface()
        yield from _left(state, gone, goal, gateway)


def _reached_at(state: State, gone: Left, found: Interface) -> str:
    """The NVE where packets for an address that was left are forwarded to.

    An NVE that is to have the task back keeps them as soon as it is ready for those that the task's present NVE will
    redirect to it: the two would send them to each other.
    """
    active = state.active_move(found.id)
    if active is not None and active[1].dst.nve == gone.nve and active[0].redirect is not Redirect.NONE:
        return gone.nve
    return target(state, found).nve


def _left(state: State, gone: Left, goal: str, gateway: Gateway) -> Iterator[Flow]:
    local = {"metadata": (state.domain(gone.vni)[0] << 8, _DOMAIN), "eth_dst": gateway.mac, **_to(gone.address)}
    remote = {"metadata": REMOTE, "tun_id": gone.vni, **_to(gone.address)}
    for on in (match(**local), match(**remote)):
        if gone.answer is Answer.DROP:
            yield drop(ROUTE, 310, on, Drop.LEFT)
        elif gone.answer is Answer.UNREACHABLE:
            yield Flow(ROUTE, 310, on, to_nva(state, gone.nve), cookie=cookie(Why.UNREACHABLE, gone.vni))
    way = path(state, gone.nve, goal)
    port = exit_to(state, gone.nve, goal, gone.vni)
    if gone.answer is not Answer.FORWARD or way is None or port is None:
        return
    mine = cookie(Why.NETWORK, gone.vni)
    out = tunnel_to(way, gone.vni, port)
    yield Flow(ROUTE, 310, match(**local), (DecTtl(), SetField("eth_src", gateway.mac), *out), cookie=mine)
    for entry in entries(state, gone.nve, gone.vni):
        back = out if entry != port else (*out[:-1], Output(IN_PORT))
        yield Flow(ROUTE, 311, match(in_port=entry, **remote), back, cookie=mine)


def _left_ila(state: State, gone: Left, goal: str) -> Iterator[Flow]:
    on = _under_locator(state, gone.nve, gone.vni, gone.address)
    if on is None:
        return
    restored = SetField("ipv6_dst", gone.address)
    if gone.answer is Answer.DROP:
        yield drop(CLASSIFY, 87, on, Drop.LEFT)
    elif gone.answer is Answer.UNREACHABLE:
        counted, handed = to_nva(state, gone.nve)[:-1], ToNva(0xFFFF)
        why = cookie(Why.UNREACHABLE, gone.vni)
        yield Flow(CLASSIFY, 87, on, (*counted, restored, handed), cookie=why)
    else:
        mine = cookie(Why.NETWORK, gone.vni)
        onward = ila_way(state, gone.nve, goal, gone.address)
        way = path(state, gone.nve, goal)
        port = exit_to(state, gone.nve, goal, gone.vni)
        if onward is not None:
            yield Flow(CLASSIFY, 87, on, (*onward[:-1], Output(IN_PORT)), cookie=mine)
        elif way is not None and port is not None:
            yield Flow(CLASSIFY, 87, on, (restored, *tunnel_to(way, gone.vni, port)), cookie=mine)
