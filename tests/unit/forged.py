"""Frames as guests make them up, by hand: vm<n> has MAC 02::n, 10.0.0.n and 2001:db8::n."""

from __future__ import annotations

import struct

from world import ip, mac

from ryu_vmm.addresses import link_local
from ryu_vmm.emulation.packets import checksum

LL1, LL2 = link_local(mac(1)), link_local(mac(2))


def _to(dst: bytes) -> bytes:
    """The MAC that an IPv6 destination has, where it is a group or vm<n>'s."""
    return b"\x33\x33" + dst[12:] if dst[0] == 0xFF else mac(dst[15])


def ipv6_frame(n: int, src: bytes, dst: bytes, following: int, body: bytes, hops: int = 255) -> bytes:
    """An IPv6 packet from vm<n>'s MAC."""
    head = struct.pack("!IHBB", 6 << 28, len(body), following, hops) + src + dst
    return _to(dst) + mac(n) + b"\x86\xdd" + head + body


def icmpv6(n: int, src: bytes, dst: bytes, kind: int, rest: bytes, options: bool = False, code: int = 0) -> bytes:
    """ICMPv6 with its checksum right; ``rest`` begins behind the checksum. ``options``: behind a router alert."""
    body = struct.pack("!BBH", kind, code, 0) + rest
    value = checksum(src + dst + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", value) + body[4:]
    if options:
        return ipv6_frame(n, src, dst, 0, b"\x3a\0\5\2\0\0\1\0" + body)
    return ipv6_frame(n, src, dst, 58, body)


def advertisement(n: int, src: bytes, target: bytes, link: bytes | None, flags: int = 0x20, code: int = 0) -> bytes:
    """A neighbor advertisement to all nodes."""
    rest = bytes([flags, 0, 0, 0]) + target + (b"" if link is None else b"\2\1" + link)
    return icmpv6(n, src, ip("ff02::1"), 136, rest, code=code)


def solicitation(n: int, src: bytes, target: bytes, link: bytes | None) -> bytes:
    """A neighbor solicitation."""
    rest = bytes(4) + target + (b"" if link is None else b"\1\1" + link)
    return icmpv6(n, src, ip("ff02::1:ff00:0")[:13] + target[13:], 135, rest)


def in_fragments(frame: bytes, protocol: int, first: int = 32) -> tuple[bytes, bytes]:
    """An IPv6 packet without extension headers in two fragments, the first with so many bytes (a multiple of 8)."""
    n, src, dst, body = frame[11], frame[22:38], frame[38:54], frame[54:]
    pieces = ((0, 1, body[:first]), (first, 0, body[first:]))
    one, two = (struct.pack("!BBHI", protocol, 0, offset | more, 7) + piece for offset, more, piece in pieces)
    return ipv6_frame(n, src, dst, 44, one), ipv6_frame(n, src, dst, 44, two)


def ipv4_frame(n: int, src: bytes, dst: bytes, protocol: int, body: bytes) -> bytes:
    """An IPv4 packet from vm<n>'s MAC, to all where the destination is all."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, src, dst)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return (b"\xff" * 6 if dst == b"\xff" * 4 else mac(dst[3])) + mac(n) + b"\x08\0" + head + body


def icmp4(n: int, kind: int) -> bytes:
    """ICMP from vm<n> to vm2."""
    body = struct.pack("!BBHI", kind, 0, 0, 0)
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    return ipv4_frame(n, ip(f"10.0.0.{n}"), ip("10.0.0.2"), 1, body)


def dhcp4(n: int, sport: int, dport: int, src: bytes | None = None) -> bytes:
    """DHCP from vm<n> to all."""
    own = ip(f"10.0.0.{n}") if src is None else src
    return ipv4_frame(n, own, b"\xff" * 4, 17, struct.pack("!HHHH", sport, dport, 8 + 240, 0) + bytes(240))


def dhcp6(n: int, src: bytes, sport: int, dport: int) -> bytes:
    """DHCPv6 from vm<n> to all servers and relays (or, as a server's, to all nodes)."""
    dst = ip("ff02::1:2" if dport == 547 else "ff02::1")
    body = struct.pack("!HHHH", sport, dport, 12, 0) + bytes(4)
    value = checksum(src + dst + struct.pack("!II", len(body), 17) + body) or 0xFFFF
    return ipv6_frame(n, src, dst, 17, body[:6] + struct.pack("!H", value) + body[8:])
