"""IPv4 and IPv6 packets in Ethernet frames, as a router reads and forwards them: bytes sliced and built.

What a router validates (RFC 1812, section 5.2.2; RFC 8200, section 3) is validated before anything is believed. All
functions take whole Ethernet frames, whose padding behind the packet is ignored, and raise
:class:`ryu_vmm.errors.DecodeError` for what is malformed, with cause

* ``ip-truncated``: the frame ends before the packet does, or in its headers;
* ``ip-format``: not IP, or headers that contradict themselves;
* ``ip-checksum``: the IPv4 header has changed on its way;

and nothing else.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..errors import DecodeError

ETH_IPV4, ETH_IPV6 = b"\x08\x00", b"\x86\xdd"
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
#: Least MTU that every IPv4 link has (RFC 791), in bytes; what may be given as an MTU lies between these.
MTU = (68, 0xFFFF)

_V4 = struct.Struct("!BBHHHBBH4s4s")
_V6 = struct.Struct("!IHBB16s16s")
_L3 = 14
_DF, _MF, _OFFSET = 0x4000, 0x2000, 0x1FFF
_ROUTING, _FRAGMENT, _AUTH = 43, 44, 51
_EXTENSIONS = frozenset((0, _ROUTING, 60, _AUTH))


class Ip(NamedTuple):
    """An IP packet in a frame.

    ``ttl``: or hop limit. ``proto``: of what is at ``start``, behind IPv4's options and IPv6's extension headers; None:
    IPv6's chain of headers ends nowhere. ``start``, ``end``: of the payload, in the frame. ``offset``: of a fragment's
    data in the whole, in bytes; ``fragment``: it is one, the first included. ``whole``: it must not be fragmented.
    ``service``: type of service or traffic class.
    """

    version: int
    src: bytes
    dst: bytes
    ttl: int
    proto: int | None
    start: int
    end: int
    offset: int
    fragment: bool
    whole: bool
    service: int


def parse_ip(frame: bytes) -> Ip:
    """The packet in an untagged Ethernet frame. Raises DecodeError."""
    kind = frame[12:14]
    if kind == ETH_IPV4:
        return _parse_v4(frame)
    if kind == ETH_IPV6:
        return _parse_v6(frame)
    if len(kind) < 2:
        raise DecodeError("frame is cut short", "ip-truncated", length=len(frame))
    raise DecodeError("not an IP packet", "ip-format", type=kind.hex())


def _parse_v4(frame: bytes) -> Ip:
    try:
        first, service, total, _, fragment, ttl, proto, _, src, dst = _V4.unpack_from(frame, _L3)
    except struct.error:
        raise DecodeError("IPv4 header is cut short", "ip-truncated", length=len(frame)) from None
    start, end = _L3 + (first & 15) * 4, _L3 + total
    if first >> 4 != 4 or start < _L3 + 20 or end < start:
        raise DecodeError("IPv4 header makes no sense", "ip-format", first=first, length=total)
    if end > len(frame):
        raise DecodeError("IPv4 packet is cut short", "ip-truncated", length=total)
    if int.from_bytes(frame[_L3:start], "big") % 0xFFFF:
        raise DecodeError("IPv4 header with a wrong checksum", "ip-checksum")
    offset = (fragment & _OFFSET) * 8
    if offset + end - start > 0xFFFF:
        raise DecodeError("fragment lies beyond the largest packet", "ip-format", offset=offset)
    return Ip(4, src, dst, ttl, proto, start, end, offset, bool(fragment & 0x3FFF), bool(fragment & _DF), service)


def _parse_v6(frame: bytes) -> Ip:
    try:
        first, length, proto, ttl, src, dst = _V6.unpack_from(frame, _L3)
    except struct.error:
        raise DecodeError("IPv6 header is cut short", "ip-truncated", length=len(frame)) from None
    end = _L3 + 40 + length
    if first >> 28 != 6:
        raise DecodeError("IPv6 header makes no sense", "ip-format", first=first >> 28)
    if end > len(frame):
        raise DecodeError("IPv6 packet is cut short", "ip-truncated", length=length)
    found, start, offset, fragment = _chain(frame, proto, end)
    return Ip(6, src, dst, ttl, found, start, end, offset, fragment, True, first >> 20 & 0xFF)


def _chain(frame: bytes, proto: int, end: int) -> tuple[int | None, int, int, bool]:
    """Behind IPv6's extension headers: protocol (None: there is no telling), where, fragment's offset, a fragment."""
    at, fragment = _L3 + 40, False
    while proto in _EXTENSIONS or proto == _FRAGMENT:
        if at + 8 > end:
            return None, at, 0, fragment
        following, size = frame[at], 8
        if proto == _FRAGMENT:
            where = int.from_bytes(frame[at + 2 : at + 4], "big")
            fragment = fragment or bool(where & 0xFFF9)
            if where & 0xFFF8:
                extended = following in _EXTENSIONS or following == _FRAGMENT
                return None if extended else following, at + 8, where & 0xFFF8, True
        else:
            size = (frame[at + 1] + 2) * 4 if proto == _AUTH else (frame[at + 1] + 1) * 8
        if at + size > end:
            return None, at, 0, fragment
        proto, at = following, at + size
    return proto, at, 0, fragment


# --- checksums and headers --------------------------------------------------------------------------------------------
def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of bytes that are not all zero."""
    # 2**16 is 1 modulo 2**16 - 1: a remainder is a ones' complement sum.
    number = int.from_bytes(data, "big")
    return -(number << 8 if len(data) & 1 else number) % 0xFFFF


def pseudo_header(src: bytes, dst: bytes, proto: int, length: int) -> bytes:
    """What UDP, TCP and ICMPv6 sum up besides themselves (RFC 9293, section 3.1; RFC 8200, section 8.1)."""
    return src + dst + struct.pack("!II", length, proto)


def header(src: bytes, dst: bytes, proto: int, length: int, ttl: int = 64, service: int = 0) -> bytes:
    """An IPv4 or IPv6 header, by the addresses' length, before ``length`` bytes that are not to be fragmented."""
    if len(src) == 16:
        return _V6.pack(6 << 28 | service << 20, length, proto, ttl, src, dst)
    # an identification says nothing where nobody may fragment (RFC 6864, section 4.1)
    bare = _V4.pack(0x45, service, 20 + length, 0, _DF, ttl, proto, 0, src, dst)
    return bare[:10] + checksum(bare).to_bytes(2, "big") + bare[12:]


# --- forwarding -------------------------------------------------------------------------------------------------------
def routed(frame: bytes) -> bytes | None:
    """The frame with TTL or hop limit decremented and a right header checksum; None: its life ends here.

    Ethernet's addresses are the caller's business. Raises DecodeError.
    """
    packet = parse_ip(frame)
    if packet.ttl <= 1:
        return None
    if packet.version == 6:
        return frame[:21] + bytes([packet.ttl - 1]) + frame[22:]
    options = frame[_L3 + 20 : _L3 + (frame[_L3] & 15) * 4]
    return frame[:_L3] + _with_checksum(frame[14:22] + bytes([packet.ttl - 1]) + frame[23:34], options) + frame[34:]


def _with_checksum(head: bytes, options: bytes) -> bytes:
    """The first 20 bytes of an IPv4 header with its checksum set."""
    bare = head[:10] + b"\0\0" + head[12:]
    return bare[:10] + checksum(bare + options).to_bytes(2, "big") + bare[12:]


def fragment(frame: bytes, mtu: int) -> tuple[bytes, ...]:
    """The frames in which a packet crosses a link of ``mtu`` bytes (RFC 791, section 3.2; RFC 1812, section 5.2.6).

    One that fits is the only one, without Ethernet's padding. None at all: it must not be fragmented, which is true of
    all of IPv6; its sender is to be told (:func:`ryu_vmm.wire.icmp.packet_too_big`).

    Raises:
        DecodeError: it is malformed, its options (``ip-format``) included.
        ValueError: ``mtu`` is outside MTU.
    """
    packet = parse_ip(frame)
    if not MTU[0] <= mtu <= MTU[1]:
        raise ValueError(f"no link has an MTU of {mtu}")
    if packet.end - _L3 <= mtu:
        return (frame[: packet.end],)
    if packet.whole:
        return ()
    ethernet, data = frame[:_L3], frame[packet.start : packet.end]
    options = frame[_L3 + 20 : packet.start]
    last = not frame[20] & 0x20
    frames = []
    at = 0
    while at < len(data):
        room = mtu - 20 - len(options)
        rest = len(data) - at
        size = rest if rest <= room else room & ~7
        more = 0 if last and at + size == len(data) else _MF
        where = (packet.offset + at) >> 3 | more
        length = (20 + len(options) + size).to_bytes(2, "big")
        first = bytes([0x45 + len(options) // 4])
        head = first + frame[15:16] + length + frame[18:20] + where.to_bytes(2, "big") + frame[22:34]
        frames.append(ethernet + _with_checksum(head, options) + options + data[at : at + size])
        if not at:
            options = _copied(options)
        at += size
    return tuple(frames)


def _copied(options: bytes) -> bytes:
    """Of IPv4's options those that belong into every fragment, padded."""
    kept = b""
    at = 0
    while at < len(options) and (kind := options[at]):
        if kind == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            raise DecodeError("IPv4 option of a wrong length", "ip-format", option=kind)
        if kind & 0x80:
            kept += options[at : at + size]
        at += size
    return kept + bytes(-len(kept) % 4)
