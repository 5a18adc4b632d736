"""Unit ("port", name): what may enter the overlay by a port, and what of it the NVA wants to hear.

A port's role follows from the directory and the open moves; see :func:`role`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from . import guard, replies, routing
from .addresses import link_local
from .flows import Action, Flow, Match, ToNva, match, set_field
from .model import Admit, Allowed, Interface, Move, Place, Port
from .skeleton import announcements
from .state import State
from .tables import (
    ADMIT,
    CLASSIFY,
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ETH_RARP,
    GUARD,
    HEAD,
    RESOLVE,
    TAGGED,
    Drop,
    Why,
    cookie,
    drop,
    forgeries,
    questions,
)


class Role(enum.Enum):
    """What a port is to the NVA."""

    HOME = "home"  # the location of an interface
    EXPECTED = "expected"  # an open move's destination: the VM will be heard here
    ATTACHED = "attached"  # a place where the interface may show up: registered, or sought (sought.py)
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
    attached, sought = state.attached.get(place), state.sought_at.get(place)
    if attached:
        return Bound(Role.ATTACHED, state.interfaces[min(attached)])
    if sought:  # hypervisors give a port's name to one guest after another
        return Bound(Role.ATTACHED, state.interfaces[max(sought, key=lambda i: (state.sought[i].move, i))])
    return Bound(Role.STRANGER, None)


def flows(state: State, nve: str, name: str) -> Iterator[Flow]:
    """Classification and admission for one port of an NVE."""
    port = state.port_at(Place(nve, name))
    if port is None or state.is_tunnel(Place(nve, name)):
        return
    kind, interface = role(state, nve, name)
    silenced = Place(nve, name) in state.silenced
    sampled = forgeries(state, nve, port.slot)
    forged = () if silenced else sampled
    if interface is None:
        yield from _strangers(state, port, forged, silenced)
        return
    policy = state.networks[interface.vni].policy
    allowed = {*policy.allow, *interface.allow}
    may = sum(guard.MAY.get(each, 0) for each in allowed) | routing.tag(state, interface.vni)
    mine = cookie(Why.INTERFACE, interface.vni)
    on = match(in_port=port.number)
    yield Flow(CLASSIFY, 100, on, (set_field("tun_id", interface.vni),), ADMIT, write_metadata=may, cookie=mine)
    if silenced:
        yield drop(ADMIT, 222, match(in_port=port.number, vlan_vid=TAGGED), Drop.VLAN_TAGGED)
    heard = kind is Role.ATTACHED and (_homeless(state, interface) or watching(state, port) is not None)
    said = _Port(
        port.number,
        speaking(state, interface),
        questions(state, nve, port.slot),
        forged,
        () if silenced or Place(nve, name) in state.muted else sampled,
        kind is not Role.HOME,
        kind is Role.EXPECTED or heard,
    )
    if policy.admit is Admit.ADDRESSES:
        yield from said.admits(Allowed.FORWARD in allowed)
        yield from said.discovers()
    else:
        yield from said.admits_all()
    yield from said.refuses(95 if Allowed.FORWARD in allowed else 70)
    yield from replies.port(state, port.number, speaking(state, interface))


def _strangers(state: State, port: Port, forged: tuple[Action, ...], silenced: bool) -> Iterator[Flow]:
    """What nobody's port may do: announce, where a network believes any port. Else it is reported."""
    number = port.number
    yield drop(CLASSIFY, 80, match(in_port=number), Drop.UNKNOWN_PORT)
    if state.trusting and not silenced:
        heard = (*questions(state, port.nve, port.slot), ToNva(HEAD))
        yield from announcements(CLASSIFY, 90, heard, in_port=number)
    elif forged:
        yield from announcements(CLASSIFY, 90, forged, cookie(Why.DROP, Drop.UNKNOWN_PORT), in_port=number)


def speaking(state: State, interface: Interface) -> Interface:
    """An interface with all addresses that it may speak for: those to come, those that it is still reached by, and the
    shared ones, whether it holds them or not: else it could never take one over."""
    more = (*routing.expected(state, interface), *state.still(interface), *interface.shared)
    if not more:
        return interface
    return replace(
        interface,
        ipv4=(*interface.ipv4, *(a for a in more if len(a) == 4)),
        ipv6=(*interface.ipv6, *(a for a in more if len(a) == 16)),
    )


def _homeless(state: State, interface: Interface) -> bool:
    """Whether whatever an interface sends from a port that is attached to it shows that it is there."""
    return state.port_at(interface.location) is None and interface.id not in state.frozen


def watching(state: State, port: Port) -> Move | None:
    """The newest move whose source a port is, if what is heard there takes the VM back (watching.py)."""
    place = Place(port.nve, port.name)
    for move, leg in reversed(state.moves_at(place)):
        interface = state.interfaces.get(leg.interface)
        if leg.src == place and interface is not None:
            back = move.watched and interface.location == leg.dst and interface.id not in state.frozen
            return move if back else None
    return None


class _Port:
    """The flows of a port that is an interface's.

    ``asked``: the action that limits what it asks and announces; ``forged``: the actions of what it forges, and
    ``sampled``: of what else it is not admitted to send; ``hears``: what it announces and asks is a sign of life;
    ``hears_all``: whatever it sends is. What it says of shared addresses is handed over in any case: it may have taken
    one.
    """

    def __init__(
        self,
        number: int,
        interface: Interface,
        asked: tuple[Action, ...],
        forged: tuple[Action, ...],
        sampled: tuple[Action, ...],
        hears: bool,
        hears_all: bool,
    ) -> None:
        self._number, self._interface, self._asked = number, interface, asked
        self._forged, self._sampled = forged, sampled
        self._hears, self._hears_all = hears, hears_all
        self._life = cookie(Why.LIFE, heard_about(interface))
        self._mine = cookie(Why.INTERFACE, interface.vni)
        self._announces = self._life if hears else cookie(Why.ANNOUNCE, interface.vni)
        self._macs = (interface.mac, *interface.shared_macs)

    def _own(self, mac: bytes, **fields: Any) -> Match:
        return match(in_port=self._number, eth_src=mac, **fields)

    def allow(self, priority: int, **fields: Any) -> Iterator[Flow]:
        """What may pass to the common guard if it has one of the interface's MACs."""
        actions = (ToNva(HEAD),) if self._hears_all else ()
        tag = self._life if self._hears_all else self._mine
        for mac in self._macs:
            yield Flow(ADMIT, priority, self._own(mac, **fields), actions, GUARD, cookie=tag)

    def _says(self, table: int, priority: int, on: Match, heard: bool) -> Flow:
        """What may pass, at a limited rate, since it asks or announces."""
        actions = (*self._asked, ToNva(HEAD)) if heard else self._asked
        following = GUARD if table == ADMIT else RESOLVE
        return Flow(table, priority, on, actions, following, cookie=self._life if heard else self._mine)

    def _takes(self, table: int, priority: int, on: Match) -> Flow:
        """What may pass, and says that the interface has a shared address."""
        following = GUARD if table == ADMIT else RESOLVE
        return Flow(table, priority, on, (*self._asked, ToNva(HEAD)), following, cookie=self._announces)

    def _answers(self, mac: bytes, ip: bytes | int, **link: bytes) -> Match:
        """ARP replies, which requests that announce are not needed beside: those are questions, too."""
        return self._own(mac, eth_type=ETH_ARP, arp_op=2, arp_spa=ip, **link)

    def admits_all(self) -> Iterator[Flow]:
        """In a network that looks at the MAC alone."""
        yield from self.allow(100)
        for mac in self._macs:
            yield self._says(ADMIT, 110, self._own(mac, eth_type=ETH_ARP), self._hears)
            for ip in self._shared(4):
                yield self._takes(ADMIT, 120, self._answers(mac, ip))
            for kind in (135, 136):
                on = self._own(mac, eth_type=ETH_IPV6, ip_proto=58, icmpv6_type=kind)
                yield self._says(ADMIT, 110, on, self._hears)
            for ip in self._shared(16):
                on = self._own(mac, eth_type=ETH_IPV6, ip_proto=58, icmpv6_type=136, nd_target=ip)
                yield self._takes(ADMIT, 120, on)

    def admits(self, forward: bool) -> Iterator[Flow]:
        """What names the interface as its sender."""
        yield from self.allow(50)
        for mac in self._macs:
            for ip in (0, *self._interface.ipv4):
                on = self._own(mac, eth_type=ETH_ARP, arp_sha=mac, arp_spa=ip)
                yield self._says(ADMIT, 100, on, self._hears)
            for ip in self._shared(4):
                yield self._takes(ADMIT, 110, self._answers(mac, ip, arp_sha=mac))
        yield from self.allow(100, eth_type=ETH_IPV4, ip_proto=17, ipv4_src=0, udp_src=68, udp_dst=67)
        for ip in self._interface.ipv4:
            yield from self.allow(100, eth_type=ETH_IPV4, ipv4_src=ip)
        yield from self.allow(100, eth_type=ETH_IPV6, ip_proto=58, ipv6_src=0)
        for ip in self._addresses6():
            yield from self.allow(100, eth_type=ETH_IPV6, ipv6_src=ip)
        for eth_type in (ETH_IPV4, ETH_IPV6):
            if forward:
                yield from self.allow(60, eth_type=eth_type)
                continue
            for mac in self._macs:
                yield drop(ADMIT, 60, self._own(mac, eth_type=eth_type), Drop.SPOOFED_ADDRESS, self._sampled)

    def discovers(self) -> Iterator[Flow]:
        """Neighbor discovery names addresses in its payload, too (RFC 4861): those must be the port's own as well."""
        port = {"in_port": self._number, "eth_type": ETH_IPV6, "ip_proto": 58}
        heard = self._hears and not self._hears_all  # else its admission has handed it over
        for link in (*self._macs, bytes(6)):
            on = match(**port, icmpv6_type=135, icmpv6_code=0, nd_sll=link)
            yield self._says(GUARD, 140, on, heard)
            for ip in self._addresses6():
                on = match(**port, icmpv6_type=136, icmpv6_code=0, nd_target=ip, nd_tll=link)
                takes = ip in self._interface.shared and not self._hears_all
                yield self._takes(GUARD, 140, on) if takes else self._says(GUARD, 140, on, heard)
        for kind in (135, 136):
            yield drop(GUARD, 130, match(**port, icmpv6_type=kind), Drop.SPOOFED_ND, self._forged)

    def refuses(self, nd: int) -> Iterator[Flow]:
        """What names others as its sender.

        ``nd``: the priority of neighbor discovery, below what the interface may say and above what it may forward.
        """
        port = self._number
        # Reverse ARP is a question to the NVA and, from hypervisors, an announcement; it goes no further.
        for mac in self._macs:
            on = self._own(mac, eth_type=ETH_RARP, arp_sha=mac)
            yield Flow(ADMIT, 150, on, (*self._asked, ToNva(HEAD)), cookie=self._announces)
        for eth_type in (ETH_ARP, ETH_RARP):
            yield drop(ADMIT, 60, match(in_port=port, eth_type=eth_type), Drop.SPOOFED_ARP, self._forged)
        for kind in (135, 136):
            on = match(in_port=port, eth_type=ETH_IPV6, ip_proto=58, icmpv6_type=kind)
            yield drop(ADMIT, nd, on, Drop.SPOOFED_ND, self._forged)
        yield drop(ADMIT, 1, match(in_port=port), Drop.SPOOFED_MAC, self._sampled)

    def _addresses6(self) -> tuple[bytes, ...]:
        return (*self._interface.ipv6, *map(link_local, self._macs))

    def _shared(self, width: int) -> tuple[bytes, ...]:
        return tuple(ip for ip in self._interface.shared if len(ip) == width)


def heard_about(interface: Interface) -> int:
    """What a sign of life is about: the network, and the epoch in which it counts (16 bits of it).

    A packet that was on its way to the NVA while the VM moved on names an epoch that is over, and changes nothing.
    """
    return (interface.epoch & 0xFFFF) << 24 | interface.vni
