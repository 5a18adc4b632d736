"""The frames with which a VM announces itself at its new place.

ARP: RFC 826, announcements as in RFC 5227 section 3; neighbor advertisement: RFC 4861 section 7.2.6; RARP:
RFC 903, sent by hypervisors that know the MAC address only. Kept apart from the NVA's own codecs on purpose:
the test bed must not inherit their mistakes.
"""

from __future__ import annotations

import socket
import struct

from topologies.errors import TopologyError
from topologies.specs import VMSpec

KINDS = ("garp-request", "garp-reply", "na", "rarp", "both", "none")
RARP_TIMES = (0.0, 0.05, 0.2, 0.45, 0.8)  # QEMU's five rounds: steps of 50, 150, 250 and 350 ms
_BROADCAST = b"\xff" * 6
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_MIN_FRAME = 60


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _arp(ethertype: int, opcode: int, mac: bytes, target_mac: bytes, sender: bytes, target: bytes) -> bytes:
    frame = _BROADCAST + mac + struct.pack("!HHHBBH", ethertype, 1, 0x0800, 6, 4, opcode)
    return (frame + mac + sender + target_mac + target).ljust(_MIN_FRAME, b"\0")


def garp(mac: str, ip: str, reply: bool = False) -> bytes:
    """A gratuitous ARP, in request form (target MAC zero) or reply form (target MAC the sender's)."""
    own, address = _mac(mac), socket.inet_aton(ip)
    return _arp(0x0806, 2 if reply else 1, own, own if reply else bytes(6), address, address)


def rarp(mac: str) -> bytes:
    """QEMU's announcement: a reverse ARP request for one's own MAC address."""
    own = _mac(mac)
    return _arp(0x8035, 3, own, own, bytes(4), bytes(4))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data if len(data) % 2 == 0 else data + b"\0"))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def unsolicited_na(mac: str, ip: str) -> bytes:
    """An unsolicited neighbor advertisement to all nodes, with the override flag and the target's link
    address.
    """
    own, source = _mac(mac), socket.inet_pton(socket.AF_INET6, ip)
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + source + b"\x02\x01" + own
    pseudo = source + _ALL_NODES + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + source + _ALL_NODES
    return b"\x33\x33\0\0\0\1" + own + b"\x86\xdd" + header + body


def announcement(kind: str, spec: VMSpec) -> list[tuple[float, str]]:
    """The frames of one kind of announcement for a VM: (delay in seconds, frame in hex).

    Raises TopologyError for an unknown kind, and where the VM lacks the address that the kind announces.
    """
    if kind not in KINDS:
        raise TopologyError(f"announcement {kind!r} is not one of {', '.join(KINDS)}")
    if kind == "rarp":
        return [(delay, rarp(spec.mac).hex()) for delay in RARP_TIMES]
    frames = []
    if kind in ("garp-request", "garp-reply", "both") and spec.ip:
        frames.append((0.0, garp(spec.mac, spec.ip, reply=kind == "garp-reply").hex()))
    if kind in ("na", "both") and spec.ip6:
        frames.append((0.0, unsolicited_na(spec.mac, spec.ip6).hex()))
    if not frames and kind != "none":
        raise TopologyError(f"{spec.name} has no address that {kind!r} could announce")
    return frames
