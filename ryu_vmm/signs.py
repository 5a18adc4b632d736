"""What a frame from a port where a VM is expected says about where the VM runs, as one table.

A port's kernel, or that of a bridge or pod between port and guest, speaks with the guest's MAC by itself: multicast
listener reports, duplicate address detection, router solicitations. Such a frame proves nothing while the port where
the VM ran is still up. What only the guest or its hypervisor can say counts at once; but a hypervisor may say it too
early, so where nobody has said 'about to pause' the source is watched (watching.py).
"""

from __future__ import annotations

import enum

from .claims import ANNOUNCEMENTS
from .model import Interface
from .wire import frames
from .wire.frames import Kind

__all__ = ["TABLE", "Sign", "Verdict", "sign_of"]


class Sign(enum.StrEnum):
    """What a frame is, as proof that its sender runs where it came from."""

    ANNOUNCED = "announced"  # gratuitous ARP, unsolicited NA, RARP: said once, by guest or hypervisor
    SPOKEN = "spoken"  # sent to somebody from an address that only the guest has, or asking or answering from it
    ITSELF = "itself"  # what kernels and bridges say by themselves


class Verdict(enum.StrEnum):
    """What follows from a sign."""

    COUNTS = "counts"  # the VM runs there
    WATCHED = "watched"  # the same; but the source is listened to, and a VM that is heard there is taken back
    NOTHING = "nothing"


#: (sign, redirect asked for, source's port up) -> what follows.
TABLE: dict[tuple[Sign, bool, bool], Verdict] = {
    (Sign.ANNOUNCED, False, False): Verdict.COUNTS,
    (Sign.ANNOUNCED, False, True): Verdict.WATCHED,
    (Sign.ANNOUNCED, True, False): Verdict.COUNTS,
    (Sign.ANNOUNCED, True, True): Verdict.COUNTS,
    (Sign.SPOKEN, False, False): Verdict.COUNTS,
    (Sign.SPOKEN, False, True): Verdict.WATCHED,
    (Sign.SPOKEN, True, False): Verdict.COUNTS,
    (Sign.SPOKEN, True, True): Verdict.COUNTS,
    (Sign.ITSELF, False, False): Verdict.COUNTS,
    (Sign.ITSELF, False, True): Verdict.NOTHING,
    (Sign.ITSELF, True, False): Verdict.COUNTS,
    (Sign.ITSELF, True, True): Verdict.NOTHING,  # a paused VM says nothing at its source either
}

_ETH_IPV4 = b"\x08\0"


def sign_of(interface: Interface, frame: bytes, kind: Kind) -> Sign:
    """What a frame, which its port admits and which is of this kind, proves of an interface.

    Raises:
        DecodeError: it is malformed.
    """
    if kind is Kind.RARP_REQUEST:
        return Sign.ANNOUNCED
    source = _source(frame, kind)
    if source is None or not any(source):
        return Sign.ITSELF
    # A link-local address follows from the MAC, so whoever has that may have it (RFC 4291 appendix A, RFC 3927).
    if source not in interface.ipv4 + interface.ipv6 and (_link_local(source) or source[0] == 0xFF):
        return Sign.ITSELF
    if kind in ANNOUNCEMENTS:
        return Sign.ANNOUNCED
    return Sign.SPOKEN if kind is not Kind.OTHER or not frame[0] & 1 else Sign.ITSELF


def _source(frame: bytes, kind: Kind) -> bytes | None:
    """The address in whose name a frame was sent; None if it names none."""
    if kind in (Kind.ARP_REQUEST, Kind.ARP_REPLY, Kind.ARP_PROBE, Kind.GARP):
        return frames.parse_arp(frame).spa
    if kind in (Kind.NA, Kind.NA_UNSOLICITED):
        return frames.parse_nd(frame).target
    if frame[12:14] == _ETH_IPV4 and len(frame) >= 30:
        return frame[26:30]
    if frame[12:14] == frames.ETH_IPV6 and len(frame) >= 38:
        return frame[22:38]
    return None


def _link_local(address: bytes) -> bool:
    if len(address) == 4:
        return address[:2] == b"\xa9\xfe"
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80
