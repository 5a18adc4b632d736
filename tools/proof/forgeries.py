"""Forged frames, by name: what a guest's port may not send, and what the underlay may not.

Built by hand, without the NVA's help. A guest "I" speaks of a "victim" in the same network.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ryu_vmm.model import MARK_BASE, PROBE_VNI
from ryu_vmm.tables import Drop
from topologies import VM
from topologies.frames import checksum

from .raw import ALL_NODES, ARP, BROADCAST, IPV4, IPV6, RARP, arp, ethernet, ip, ipv6, mac, udp4, udp6

#: What every forged datagram carries, so that it is known wherever it turns up.
MARK = b"forged by hand"
_VXLAN = 4789


@dataclass(frozen=True)
class Who:
    """A guest's addresses."""

    mac: bytes
    ip4: bytes
    ip6: bytes

    @classmethod
    def of(cls, vm: VM) -> Who:
        """A VM's; it has both an IPv4 and an IPv6 address."""
        assert vm.spec.ip is not None
        assert vm.spec.ip6 is not None
        return cls(mac(vm.spec.mac), ip(vm.spec.ip), ip(vm.spec.ip6))

    @property
    def local(self) -> bytes:
        """The link-local address that its MAC makes."""
        own = self.mac
        return ip("fe80::")[:8] + bytes([own[0] ^ 2]) + own[1:3] + b"\xff\xfe" + own[3:]


@dataclass(frozen=True)
class Forgery:
    """A frame, the cause under which it is dropped, and whether the NVA hears of it."""

    frame: bytes
    cause: Drop
    heard: bool = True


def advertisement(sender: bytes, src: bytes, target: bytes, link: bytes, flags: int = 0x20) -> bytes:
    """A neighbor advertisement to all nodes."""
    body = struct.pack("!BBHI", 136, 0, 0, flags << 24) + target + b"\2\1" + link
    return ipv6(b"\x33\x33\0\0\0\1", sender, src, ALL_NODES, 58, body)


def solicitation(sender: bytes, src: bytes, target: bytes, link: bytes) -> bytes:
    """A neighbor solicitation."""
    group = ip("ff02::1:ff00:0")[:13] + target[13:]
    body = struct.pack("!BBHI", 135, 0, 0, 0) + target + b"\1\1" + link
    return ipv6(b"\x33\x33" + group[12:], sender, src, group, 58, body)


def icmpv6(sender: bytes, src: bytes, kind: int, rest: bytes) -> bytes:
    """Some other ICMPv6 message to all nodes."""
    return ipv6(b"\x33\x33\0\0\0\1", sender, src, ALL_NODES, 58, struct.pack("!BBH", kind, 0, 0) + rest)


def behind(frame: bytes, header: int, extension: bytes) -> bytes:
    """An IPv6 packet with an extension header put before its upper layer."""
    length = struct.pack("!H", len(frame) - 54 + len(extension))
    return frame[:18] + length + bytes([header]) + frame[21:54] + extension + frame[54:]


def first_fragment(frame: bytes) -> bytes:
    """The first 32 bytes of an ICMPv6 message, in a fragment."""
    return behind(frame[:18] + struct.pack("!H", 32) + frame[20 : 54 + 32], 44, struct.pack("!BBHI", 58, 0, 1, 7))


def icmp(sender: bytes, src: bytes, kind: int) -> bytes:
    """An ICMP message to all."""
    body = struct.pack("!BBHI", kind, 0, 0, 0) + MARK
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 1, 0, src, b"\xff" * 4)
    return ethernet(BROADCAST, sender, IPV4, head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body)


def udp(sender: bytes, src: bytes, ports: tuple[int, int]) -> bytes:
    """A UDP datagram to all, over IPv4 or IPv6 as its source is."""
    if len(src) == 4:
        frame = udp4(BROADCAST, sender, src, b"\xff" * 4, MARK)
        return frame[:34] + struct.pack("!HH", *ports) + frame[38:]
    body = struct.pack("!HHHH", *ports, 8 + len(MARK), 0) + MARK
    return ipv6(b"\x33\x33\0\0\0\1", sender, src, ALL_NODES, 17, body, at=6)


def tagged(frame: bytes) -> bytes:
    """In VLAN 5."""
    return frame[:12] + b"\x81\0\0\5" + frame[12:]


def claims(me: Who, victim: Who) -> dict[str, Forgery]:
    """Announcements and questions that say of somebody's address what is not so."""
    i, it = me, victim

    def gratuitous(operation: int, sender: bytes, source: bytes) -> bytes:
        frame = arp(operation, sender, it.ip4, sender if operation == 2 else bytes(6), it.ip4)
        return frame[:6] + source + frame[12:]

    arps = {
        "GARP request of the victim": gratuitous(1, it.mac, it.mac),
        "GARP reply of the victim": gratuitous(2, it.mac, it.mac),
        "GARP request, its address at my MAC": gratuitous(1, i.mac, i.mac),
        "GARP reply, its address at my MAC": gratuitous(2, i.mac, i.mac),
        "GARP, Ethernet says me and ARP the victim": gratuitous(1, it.mac, i.mac),
        "GARP, Ethernet says the victim and ARP me": gratuitous(1, i.mac, it.mac),
        "GARP of an address of nobody": arp(1, i.mac, i.ip4[:3] + b"\xc8", bytes(6), i.ip4[:3] + b"\xc8"),
        "ARP reply, its address at my MAC": arp(2, i.mac, it.ip4, b"\2\0\0\0\0\x77", i.ip4),
        "ARP request in its name": arp(1, i.mac, it.ip4, bytes(6), i.ip4[:3] + b"\xc9"),
        "RARP of the victim": arp(3, it.mac, bytes(4), it.mac, bytes(4), kind=RARP),
        "RARP of the victim from my MAC":
            BROADCAST + i.mac + arp(3, it.mac, bytes(4), it.mac, bytes(4), kind=RARP)[12:],
        "ARP cut short": arp(1, i.mac, it.ip4, bytes(6), it.ip4)[:40],
    }
    nds = {
        "NA of the victim": advertisement(it.mac, it.ip6, it.ip6, it.mac),
        "NA, its address at my MAC": advertisement(i.mac, i.ip6, it.ip6, i.mac),
        "NA, its address at my MAC, solicited": advertisement(i.mac, i.local, it.ip6, i.mac, 0x60),
        "NA, its address at my MAC, no override": advertisement(i.mac, i.local, it.ip6, i.mac, 0),
        "NA, my address at its MAC": advertisement(i.mac, i.ip6, i.ip6, it.mac),
        "NA of its link-local address": advertisement(i.mac, i.local, it.local, i.mac),
        "NA in its link-local name": advertisement(i.mac, it.local, i.ip6, i.mac),
        "NA of a mapped address": advertisement(i.mac, i.local, bytes(10) + b"\xff\xff" + it.ip4, i.mac),
        "NA with a hop limit of 64": b"\x40".join(
            (advertisement(i.mac, i.local, it.ip6, i.mac)[:21], advertisement(i.mac, i.local, it.ip6, i.mac)[22:])
        ),
        "NA behind an extension header":
            behind(advertisement(i.mac, i.local, it.ip6, i.mac), 60, b"\x3a\0\1\4\0\0\0\0"),
        "NS in its name": solicitation(i.mac, it.ip6, ip("2001:db8::77"), i.mac),
        "NS with its MAC": solicitation(i.mac, i.local, ip("2001:db8::77"), it.mac),
    }
    own = arp(1, i.mac, i.ip4, bytes(6), i.ip4)
    tags = {"GARP of my own, tagged": tagged(own), "NA of the victim, tagged": tagged(nds["NA of the victim"])}
    return {
        **{name: Forgery(frame, Drop.SPOOFED_ARP) for name, frame in arps.items()},
        **{name: Forgery(frame, Drop.SPOOFED_ND) for name, frame in nds.items()},
        **{name: Forgery(frame, Drop.VLAN_TAGGED) for name, frame in tags.items()},
    }


def others(me: Who, victim: Who) -> dict[str, Forgery]:
    """What is dropped and counted, of which the NVA hears nothing."""
    i, it = me, victim
    ra = icmpv6(i.mac, i.local, 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0))
    found = {
        "data from another's MAC": (Drop.SPOOFED_MAC, udp4(BROADCAST, it.mac, it.ip4, b"\xff" * 4, MARK)),
        "data from another's IPv4 address": (Drop.SPOOFED_ADDRESS, udp4(BROADCAST, i.mac, it.ip4, b"\xff" * 4, MARK)),
        "data from another's IPv6 address": (Drop.SPOOFED_ADDRESS, udp6(it.mac, i.mac, it.ip6, it.ip6, MARK)),
        "data from another's link-local address": (Drop.SPOOFED_ADDRESS, udp6(it.mac, i.mac, it.local, it.ip6, MARK)),
        "data from a mapped address":
            (Drop.SPOOFED_ADDRESS, udp6(it.mac, i.mac, bytes(10) + b"\xff\xff" + it.ip4, it.ip6, MARK)),
        "data from the unspecified address": (Drop.SPOOFED_ADDRESS, icmpv6(i.mac, bytes(16), 128, bytes(4) + MARK)),
        "data in a VLAN": (Drop.VLAN_TAGGED, tagged(udp4(it.mac, i.mac, i.ip4, it.ip4, MARK))),
        "router advertisement": (Drop.ROUTER_ADVERTISEMENT, ra),
        "router advertisement behind an extension header":
            (Drop.ROUTER_ADVERTISEMENT, behind(ra, 60, b"\x3a\0\1\4\0\0\0\0")),
        "ICMP router advertisement": (Drop.ROUTER_ADVERTISEMENT, icmp(i.mac, i.ip4, 9)),
        "ICMPv6 redirect": (Drop.ICMP_REDIRECT, icmpv6(i.mac, i.local, 137, bytes(36))),
        "ICMP redirect": (Drop.ICMP_REDIRECT, icmp(i.mac, i.ip4, 5)),
        "DHCP offer": (Drop.DHCP_SERVER, udp(i.mac, i.ip4, (67, 68))),
        "DHCP offer from some other port": (Drop.DHCP_SERVER, udp(i.mac, i.ip4, (6767, 68))),
        "DHCPv6 reply": (Drop.DHCP_SERVER, udp(i.mac, i.local, (547, 546))),
        "NA in fragments":
            (Drop.FRAGMENTED_ND, first_fragment(advertisement(i.mac, i.local, it.ip6, i.mac) + bytes(8))),
        "router advertisement in fragments": (Drop.FRAGMENTED_ND, first_fragment(ra + bytes(24))),
        "a fragment that hides ICMPv6": (
            Drop.FRAGMENTED_ND,
            ethernet(b"\x33\x33\0\0\0\1", i.mac, IPV6, struct.pack("!IHBB", 6 << 28, 16, 44, 255) + i.local + ALL_NODES
                     + struct.pack("!BBHI", 60, 0, 1, 7) + b"\x3a\0\1\4\0\0\0\0"),
        ),
        "extension headers that end nowhere": (
            Drop.BROKEN_HEADERS,
            ethernet(b"\x33\x33\0\0\0\1", i.mac, IPV6, struct.pack("!IHBB", 6 << 28, 8, 60, 255) + i.local + ALL_NODES
                     + b"\x3a\x09\1\4\0\0\0\0"),
        ),
    }
    return {name: Forgery(frame, cause, heard=False) for name, (cause, frame) in found.items()}


# --- from the underlay --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Tunnelled:
    """A VXLAN packet: underlay source, VNI, inner frame, and the cause of its drop (None: Open vSwitch's own)."""

    source: bytes
    vni: int
    inner: bytes
    cause: Drop | None
    flags: int = 0x08000000
    reserved: int = 0

    def packet(self, edge_mac: bytes, edge: bytes) -> bytes:
        """The frame on the underlay, to an NVE's MAC and address."""
        vxlan = struct.pack("!II", self.flags, self.vni << 8 | self.reserved) + self.inner
        body = struct.pack("!HHHH", 49152, _VXLAN, 8 + len(vxlan), 0) + vxlan
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0, self.source, edge)
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        return ethernet(edge_mac, b"\2\0\0\0\0\xee", IPV4, head + body)


def tunnelled(member: bytes, outsider: bytes, nobody: bytes, vni: int, other: int, to: Who) -> dict[str, Tunnelled]:
    """Packets to an edge that is in network ``vni`` with ``member``, and is not in ``other``; ``outsider`` is an NVE
    of neither."""
    data = udp4(to.mac, b"\2\0\0\0\0\x66", bytes(to.ip4[:3]) + b"\x66", to.ip4, MARK)
    garp = arp(1, to.mac, to.ip4, bytes(6), to.ip4)
    probe = b"\x02\x76\x6d\0\0\2\x02\x76\x6d\0\0\1\x88\xb5" + MARK + bytes(46)
    source, number = Drop.UNKNOWN_TUNNEL_SOURCE, Drop.UNKNOWN_VNI
    return {
        "from no NVE": Tunnelled(nobody, vni, data, source),
        "from no NVE, an announcement": Tunnelled(nobody, vni, garp, source),
        "from an NVE that is not of that network": Tunnelled(outsider, vni, data, source),
        "from the edge's own address": Tunnelled(b"", vni, data, source),
        "a network that the edge is not in": Tunnelled(member, other, data, number),
        "a VNI of nobody": Tunnelled(member, 12345, data, number),
        "one bit of the VNI wrong": Tunnelled(member, vni ^ 1 << 20, data, number),
        "VNI 0": Tunnelled(member, 0, data, number),
        "the first reserved VNI": Tunnelled(member, 0xFFE000, data, number),
        "the last VNI": Tunnelled(member, 0xFFFFFF, data, number),
        "a redirect's mark, without a move": Tunnelled(member, MARK_BASE + 0x77, data, number),
        "the probes' VNI, data": Tunnelled(member, PROBE_VNI, data, number),
        "the probes' VNI, a probe of nobody": Tunnelled(nobody, PROBE_VNI, probe, None),
        "a tag inside the tunnel": Tunnelled(member, vni, tagged(data), Drop.VLAN_TAGGED),
        "to a MAC of nobody": Tunnelled(member, vni, b"\2\0\0\0\0\x99" + data[6:], Drop.MISDELIVERED),
        "without VXLAN's I flag": Tunnelled(member, vni, data, None, flags=0),
        "with reserved flags": Tunnelled(member, vni, data, None, flags=0x0C000000),
        "with reserved bits behind the VNI": Tunnelled(member, vni, data, None, reserved=0x55),
    }


__all__ = ["ARP", "MARK", "Forgery", "Tunnelled", "Who", "claims", "others", "tunnelled"]
