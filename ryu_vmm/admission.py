"""Unit ("port", name): what may enter the overlay by a port, and what of it the NVA wants to hear.

A port's role follows from the directory and the open moves; see :func:`role`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from .flows import Flow, ToNva, match, set_field
from .model import Admit, Interface, Place
from .pipeline import (
    ADMIT,
    CLASSIFY,
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ETH_RARP,
    HEAD,
    RESOLVE,
    Drop,
    Why,
    announcements,
    cookie,
    drop,
)
from .state import State


class Role(enum.Enum):
    """What a port is to the NVA."""

    HOME = "home"  # the location of an interface
    EXPECTED = "expected"  # an open move's destination: the VM will be heard here
    ATTACHED = "attached"  # registered as a place where the interface may show up
    STRANGER = "stranger"  # nobody's; heard only where some network believes any port


class Bound(NamedTuple):
    """A port's role and the interface it concerns (None for a stranger)."""

    role: Role
    interface: Interface | None


def role(state: State, nve: str, name: str) -> Bound:
    """The role of a port: location first, then an open move, then an attachment.

    The source of an open move stays attached: a VM that dies at its destination may resume there.
    """
    place = Place(nve, name)
    home = state.by_place.get(place)
    if home is not None:
        return Bound(Role.HOME, state.interfaces[home])
    for move, leg in state.moves_at(place):
        if leg.dst == place and not move.state.steered:
            return Bound(Role.EXPECTED, state.interfaces[leg.interface])
    for _, leg in reversed(state.moves_at(place)):
        if leg.src == place and leg.interface in state.interfaces:
            return Bound(Role.ATTACHED, state.interfaces[leg.interface])
    attached = state.attached.get(place)
    if attached:
        return Bound(Role.ATTACHED, state.interfaces[min(attached)])
    return Bound(Role.STRANGER, None)


def flows(state: State, nve: str, name: str, tunnel: int | None) -> Iterator[Flow]:
    """Classification and admission for one port of an NVE."""
    port = state.port_at(Place(nve, name))
    if port is None or port.number == tunnel:
        return
    kind, interface = role(state, nve, name)
    on = match(in_port=port.number)
    if interface is None:
        if state.trusting:
            yield from announcements(CLASSIFY, 90, in_port=port.number)
        return
    vni = interface.vni
    mine = cookie(Why.INTERFACE, vni)
    yield Flow(CLASSIFY, 100, on, (set_field("tun_id", vni),), goto=ADMIT, cookie=mine)
    life = kind is not Role.HOME
    actions = (ToNva(HEAD),) if life else ()
    tag = cookie(Why.LIFE, heard_about(interface)) if life else mine
    checked = state.networks[vni].policy.admit is Admit.ADDRESSES
    p, mac = port.number, interface.mac

    def allow(priority: int, **fields: object) -> Flow:
        fit = match(in_port=p, eth_src=mac, **fields)
        return Flow(ADMIT, priority, fit, actions, goto=RESOLVE, cookie=tag)

    # Reverse ARP is a question to the NVA and, from hypervisors, an announcement; it goes no further.
    heard = tag if life else cookie(Why.ANNOUNCE, vni)
    yield Flow(ADMIT, 150, match(in_port=p, eth_src=mac, eth_type=ETH_RARP), (ToNva(HEAD),), cookie=heard)
    yield drop(ADMIT, 10, on, Drop.SPOOFED_MAC)
    yield allow(50)
    if not checked:
        return
    yield allow(100, eth_type=ETH_ARP, arp_sha=mac, arp_spa=0)
    yield allow(100, eth_type=ETH_IPV4, ip_proto=17, ipv4_src=0, udp_src=68, udp_dst=67)
    for ip in interface.ipv4:
        yield allow(100, eth_type=ETH_ARP, arp_sha=mac, arp_spa=ip)
        yield allow(100, eth_type=ETH_IPV4, ipv4_src=ip)
    own = (*interface.ipv6, link_local(mac))
    yield allow(100, eth_type=ETH_IPV6, ipv6_src=0)
    for ip in own:
        yield allow(100, eth_type=ETH_IPV6, ipv6_src=ip)
    # Neighbor discovery names addresses in its payload too (RFC 4861): those must be the port's own as well.
    nd: dict[str, int] = {"eth_type": ETH_IPV6, "ip_proto": 58, "icmpv6_code": 0}
    for link in (mac, bytes(6)):
        yield allow(120, **nd, icmpv6_type=135, nd_sll=link)
        for ip in own:
            yield allow(120, **nd, icmpv6_type=136, nd_target=ip, nd_tll=link)
    for kind_of_nd in (135, 136):
        yield drop(ADMIT, 110, match(in_port=p, eth_src=mac, icmpv6_type=kind_of_nd, **nd), Drop.SPOOFED_ND)
    for eth_type in (ETH_ARP, ETH_IPV4, ETH_IPV6):
        yield drop(ADMIT, 60, match(in_port=p, eth_src=mac, eth_type=eth_type), Drop.SPOOFED_ADDRESS)


def heard_about(interface: Interface) -> int:
    """What a sign of life is about: the network, and the epoch in which it counts (16 bits of it).

    A packet that was on its way to the NVA while the VM moved on names an epoch that is over, and changes nothing.
    """
    return (interface.epoch & 0xFFFF) << 24 | interface.vni


def link_local(mac: bytes) -> bytes:
    """The link-local address that a MAC makes by modified EUI-64 (RFC 4291 appendix A)."""
    return b"\xfe\x80\0\0\0\0\0\0" + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
