"""Questions about addresses that NVEs hand to the NVA (sections 4.1 and 4.2 of the draft; RFC 8014 section 4.3)."""

from __future__ import annotations

from .addresses import is_link_local, link_local
from .admission import speaking
from .events import PacketSeen
from .flows import Output, set_field
from .hearing import Hearing
from .model import Admit, Gateway, Interface, Network, Place, Unknown
from .paths import target
from .pipeline import flood_actions
from .resolution import answering, holder, is_gateway
from .sharing import Sharing, unheld
from .wire import frames
from .wire.frames import Kind
from .work import Work

_NO_IPV4 = bytes(4)


class Resolver:
    """Answers ARP and RARP requests and neighbor solicitations from the directory."""

    def __init__(self, work: Work, hearing: Hearing, sharing: Sharing) -> None:
        self._work = work
        self._hearing = hearing
        self._sharing = sharing

    def answer(self, nve: str, in_port: int, frame: bytes) -> bytes | None:
        """The answer to an ARP request or neighbor solicitation that entered by a port.

        None: the directory does not know, or it is no question (an announcement, or a guest asking for its own).

        Raises:
            DecodeError: the frame is malformed.
        """
        asker = self._interface_at(nve, in_port)
        if asker is None:
            return None
        if frame[12:14] == frames.ETH_ARP:
            op, sha, spa, _, tpa, _, _ = frames.parse_arp(frame)
            known = self._mac(asker, tpa, spa)
            return None if op != 1 or known is None else frames.build_arp_reply(known, tpa, sha, spa)
        nd = frames.parse_nd(frame)
        known = self._mac(asker, nd.target, nd.src)
        if known is None:
            return None
        if not any(nd.src):
            return frames.build_na_for_dad(nd.target, known)
        router = frames.NA_ROUTER if is_gateway(self._work.state, asker.vni, nd.target) else 0
        flags = router | frames.NA_SOLICITED | frames.NA_OVERRIDE
        return frames.build_na(nd.target, known, nd.src, nd.lladdr or nd.eth_src, flags)

    def _mac(self, asker: Interface, address: bytes, as_address: bytes) -> bytes | None:
        """The MAC at which a guest reaches an address, None if nobody has it, or the guest itself does.

        An address that it is to have, or still speaks for, is its own as well: it may ask whether that is taken. So is
        a shared one for who may hold it and announces it or is about to; who asks ``as_address`` wants to know.
        """
        state = self._work.state
        shared = (*asker.shared, *map(link_local, asker.shared_macs))
        if address in shared and any(as_address) and as_address != address:
            return answering(state, asker.vni, address) if holder(state, asker.vni, address) != asker.id else None
        own = speaking(state, asker)
        if address in (*own.ipv4, *own.ipv6, link_local(asker.mac), *shared):
            return None
        return answering(state, asker.vni, address)

    def asked(self, nve: str, event: PacketSeen) -> None:
        """A question was handed over: it is answered, or goes to whom the network's policy says.

        Raises:
            DecodeError: the frame is malformed.
        """
        answered = self.answer(nve, event.in_port, event.frame)
        if answered is not None:
            self._work.send(nve, (Output(event.in_port),), answered)
            return
        asker = self._interface_at(nve, event.in_port)
        if asker is None:
            self._work.count("drop.unknown-port")
            return
        network = self._work.state.networks[asker.vni]
        kind = frames.classify(event.frame)
        self._sharing.heard(asker, event.frame, kind)
        for_all = kind in (Kind.GARP, Kind.DAD, Kind.ARP_PROBE) or _cannot_be_known(network, event.frame)
        if not for_all and self._asked_of_sharers(asker, event.frame):
            return
        if not for_all and network.policy.unknown is Unknown.DROP:
            self._work.count("drop.unknown-target")
            return
        self._work.count("resolve.flooded")
        self._flood(nve, asker.vni, event.in_port, event.frame)

    def asked_by_mac(self, nve: str, event: PacketSeen, interface: Interface) -> None:
        """Section 4.1: a RARP request is answered with the IPv4 address found by MAC; an announcement is not.

        Raises:
            DecodeError: the frame is malformed.
        """
        asked = frames.parse_rarp(event.frame).tha
        if asked in (interface.mac, *interface.shared_macs) and not self._hearing.asks(interface):
            return
        owner = self._work.state.by_mac.get((interface.vni, asked))
        if owner is None or not self._work.state.interfaces[owner].ipv4:
            self._work.count("drop.rarp-unknown")
            return
        ip = self._work.state.interfaces[owner].ipv4[0]
        server = (self._work.state.gateway(interface.vni) or Gateway()).mac  # a guest takes nothing from its own MAC
        reply = frames.build_rarp_reply(server, _NO_IPV4, asked, ip)
        self._work.send(nve, (Output(event.in_port),), reply)

    def _asked_of_sharers(self, asker: Interface, frame: bytes) -> bool:
        """Whether a question is for a shared address that nobody holds: it goes to those who may, to nobody else."""
        state = self._work.state
        sharers = unheld(state, asker.vni, _target(frame))
        for interface in sharers:
            port = state.port_at(target(state, interface))
            if interface.id != asker.id and port is not None and port.nve in state.sessions:
                self._work.send(port.nve, (Output(port.number),), frame)
        return bool(sharers)

    def _flood(self, nve: str, vni: int, in_port: int, frame: bytes) -> None:
        """Send a frame to everybody in a network, as if the edge had flooded it itself."""
        actions = flood_actions(self._work.state, nve, vni)
        if actions:
            self._work.send(nve, (set_field("tun_id", vni), *actions), frame, in_port)

    def _interface_at(self, nve: str, in_port: int) -> Interface | None:
        state = self._work.state
        key = state.by_place.get(Place(nve, state.by_number.get((nve, in_port), "")))
        return None if key is None else state.interfaces[key]


def _cannot_be_known(network: Network, frame: bytes) -> bool:
    """Whether a question is for a link-local address that guests may give themselves: where only MACs are looked at."""
    if network.policy.admit is not Admit.MAC:
        return False
    return is_link_local(_target(frame))


def _target(frame: bytes) -> bytes:
    """The address that a question is for."""
    is_arp = frame[12:14] == frames.ETH_ARP
    return frames.parse_arp(frame).tpa if is_arp else frames.parse_nd(frame).target
