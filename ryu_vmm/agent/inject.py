"""Packets that a task's own kernel is to believe it has received: sent on loopback inside the task's namespace.

What was in a UDP socket's queue, and the FIN of a peer that had already closed, cannot be put into a socket in any
other way: the kernel has to receive them. They are sent from the peer's address to the task's own, which is local, so
they never leave the namespace. The calling thread is in that namespace.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

__all__ = ["datagram", "segment", "unmapped"]

_IPV6_HDRINCL = 36
_FIN, _ACK = 0x01, 0x10


def unmapped(address: str) -> IPv4Address | IPv6Address:
    """An address of a socket, without zone, and IPv4 where it is IPv4-mapped."""
    found = ip_address(address.partition("%")[0])
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def _sum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo(source: bytes, target: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + target + struct.pack("!BBH", 0, protocol, length)
    return source + target + struct.pack("!IHBB", length, 0, 0, protocol)


def _send(source: IPv4Address | IPv6Address, target: IPv4Address | IPv6Address, protocol: int, body: bytes) -> None:
    if source.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
        packet = head + source.packed + target.packed + body  # the kernel fills in the header's checksum
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (str(target), 0))
    else:
        packet = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + source.packed + target.packed + body
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
            raw.sendto(packet, (str(target), 0))


def datagram(source: tuple[str, int], target: tuple[str, int], data: bytes) -> None:
    """A UDP datagram from a peer to the task. OSError if it is larger than loopback takes."""
    one, other = unmapped(source[0]), unmapped(target[0])
    length = 8 + len(data)
    head = struct.pack("!HHHH", source[1], target[1], length, 0)
    check = _sum(_pseudo(one.packed, other.packed, socket.IPPROTO_UDP, length) + head + data) or 0xFFFF
    _send(one, other, socket.IPPROTO_UDP, head[:6] + struct.pack("!H", check) + data)


def segment(
    source: tuple[str, int], target: tuple[str, int], seq: int, acknowledged: int, fin: bool, window: int = 1024
) -> None:
    """An empty TCP segment from a peer to the task: ACK, with or without FIN. No options."""
    one, other = unmapped(source[0]), unmapped(target[0])
    flags = _ACK | (_FIN if fin else 0)
    head = struct.pack("!HHIIBBHHH", source[1], target[1], seq & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF, 0x50, flags,
                       window, 0, 0)
    check = _sum(_pseudo(one.packed, other.packed, socket.IPPROTO_TCP, len(head)) + head)
    _send(one, other, socket.IPPROTO_TCP, head[:16] + struct.pack("!H", check) + head[18:])
