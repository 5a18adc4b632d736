"""What a router says by ICMP (RFC 792, RFC 1191, RFC 1812 section 4.3) and ICMPv6 (RFC 4443).

Every function takes the whole Ethernet frame that is being answered, the router's MAC and its addresses, of which that
of the frame's family is used, and returns a whole Ethernet frame, addressed to where the other came from (all zeros,
if it came by a tunnel that has no Ethernet header). None: the RFCs forbid an answer, or the router has no address of
that family. Errors are never about errors, nor about what was sent to or from more than one host, nor to or from
addresses that no packet on a wire may have, nor about any fragment but the first of IPv4. How often errors may be sent
(RFC 1812, section 4.3.2.8; RFC 4443, section 2.4 f) is for the caller to limit, and a broadcast address of a subnet for
the caller to know.

Raises :class:`ryu_vmm.errors.DecodeError` as :mod:`.ip` does, and with cause ``icmp-truncated`` or ``icmp-checksum``
for echo requests.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable

from ..errors import DecodeError
from .ip import ICMP, ICMPV6, MTU, Ip, checksum, header, parse_ip, pseudo_header

_MESSAGE = struct.Struct("!BBHI")
_L3 = 14
#: Most of an ICMP and an ICMPv6 error, its IP header included (RFC 1812, section 4.3.2.3; RFC 4443, section 2.4 c).
LARGEST = {4: 576, 6: 1280}
_INTERNETWORK_CONTROL = 0xC0  # the precedence of errors (RFC 1812, section 4.3.2.5)
# Types of ICMP that are known to be no errors; of ICMPv6 these have the highest bit, and a redirect is like an error.
_NO_ERRORS = frozenset((0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43))
_V6_REDIRECT = 137
_ECHO = {4: (8, 0), 6: (128, 129)}  # request, reply
_NOBODY = (bytes(16), bytes(15) + b"\1")  # unspecified, loopback


class Unreachable(enum.Enum):
    """Why a destination cannot be reached: the code of ICMP (type 3) and of ICMPv6 (type 1)."""

    NETWORK = (0, 0)  #: no route to it
    HOST = (1, 3)  #: its network is here, the address is nobody's
    PORT = (3, 4)  #: nobody listens
    PROHIBITED = (13, 1)  #: communication with it is administratively prohibited


def unreachable(frame: bytes, mac: bytes, addresses: Iterable[bytes], why: Unreachable) -> bytes | None:
    """Destination unreachable (RFC 792; RFC 1812, section 5.2.7.1; RFC 4443, section 3.1)."""
    packet = parse_ip(frame)
    kind, code = (3, why.value[0]) if packet.version == 4 else (1, why.value[1])
    return _error(frame, packet, mac, addresses, kind, code)


def time_exceeded(frame: bytes, mac: bytes, addresses: Iterable[bytes]) -> bytes | None:
    """Time exceeded in transit (RFC 792; RFC 1812, section 5.2.7.3; RFC 4443, section 3.3)."""
    packet = parse_ip(frame)
    return _error(frame, packet, mac, addresses, 11 if packet.version == 4 else 3, 0)


def packet_too_big(frame: bytes, mac: bytes, addresses: Iterable[bytes], mtu: int) -> bytes | None:
    """Packet too big for a next hop of ``mtu`` bytes (RFC 1191, section 4; RFC 4443, section 3.2).

    IPv4: fragmentation needed and DF set; None without DF, where fragmentation is what is due. None, too, if it fits.
    The only error of ICMPv6 here that is sent about multicast.

    Raises:
        ValueError: ``mtu`` is outside :data:`.ip.MTU`.
    """
    packet = parse_ip(frame)
    if not MTU[0] <= mtu <= MTU[1]:
        raise ValueError(f"no link has an MTU of {mtu}")
    if not packet.whole or packet.end - _L3 <= mtu:
        return None
    kind, code = (3, 4) if packet.version == 4 else (2, 0)
    return _error(frame, packet, mac, addresses, kind, code, mtu, group=packet.version == 6)


def echo_reply(frame: bytes, mac: bytes, addresses: Iterable[bytes]) -> bytes | None:
    """The answer to an echo request for one of the router's own addresses; None for any other frame of IP.

    Requests in fragments, and requests from where no answer can go, have no answer.
    """
    packet = parse_ip(frame)
    asked, answer = _ECHO[packet.version]
    protocol = ICMP if packet.version == 4 else ICMPV6
    own = tuple(addresses)
    if packet.proto != protocol or packet.fragment or packet.dst not in own or not _single(packet.src, own):
        return None
    message = frame[packet.start : packet.end]
    if len(message) < 8:
        raise DecodeError("ICMP message is cut short", "icmp-truncated", length=len(message))
    if message[0] != asked or message[1] or (frame[0] | frame[6]) & 1:
        return None
    pseudo = _pseudo(packet.src, packet.dst, len(message))
    if int.from_bytes(pseudo + message + bytes(len(message) & 1), "big") % 0xFFFF:
        raise DecodeError("echo request with a wrong checksum", "icmp-checksum")
    # precedence and type of service are the request's (RFC 1812, section 4.3.2.5), congestion is not
    return _framed(frame, mac, packet.dst, packet.src, bytes([answer]) + message[1:], packet.service & 0xFC)


# --- one error --------------------------------------------------------------------------------------------------------
def _error(
    frame: bytes,
    packet: Ip,
    mac: bytes,
    addresses: Iterable[bytes],
    kind: int,
    code: int,
    value: int = 0,
    group: bool = False,
) -> bytes | None:
    own = tuple(addresses)
    source = next((address for address in own if len(address) == len(packet.src)), None)
    if source is None or _forbidden(frame, packet, own, group):
        return None
    room = LARGEST[packet.version] - 8 - (20 if packet.version == 4 else 40)
    message = _MESSAGE.pack(kind, code, 0, value) + frame[_L3 : min(packet.end, _L3 + room)]
    return _framed(frame, mac, source, packet.src, message, _INTERNETWORK_CONTROL if packet.version == 4 else 0)


def _framed(frame: bytes, mac: bytes, src: bytes, dst: bytes, message: bytes, service: int) -> bytes:
    bare = message[:2] + b"\0\0" + message[4:]
    total = checksum(_pseudo(src, dst, len(bare)) + bare)
    head = header(src, dst, ICMP if len(src) == 4 else ICMPV6, len(bare), service=service)
    return frame[6:12] + mac + frame[12:14] + head + bare[:2] + total.to_bytes(2, "big") + bare[4:]


def _pseudo(src: bytes, dst: bytes, length: int) -> bytes:
    """ICMPv6 has a pseudo-header, ICMP none."""
    return pseudo_header(src, dst, ICMPV6, length) if len(src) == 16 else b""


def _forbidden(frame: bytes, packet: Ip, own: tuple[bytes, ...], group: bool) -> bool:
    """Whether no error may be sent (RFC 1812, section 4.3.2.7; RFC 4443, section 2.4 e)."""
    if not _single(packet.src, own) or frame[6] & 1:
        return True
    many = frame[0] & 1 or not _single(packet.dst)
    if many and not (group and packet.dst[0] == 0xFF):
        return True
    if packet.version == 4:
        return bool(packet.offset) or (packet.proto == ICMP and _kind(frame, packet) not in _NO_ERRORS)
    if packet.proto is None:  # who knows what is in there
        return True
    if packet.proto != ICMPV6:
        return False
    kind = None if packet.offset else _kind(frame, packet)
    return kind is None or kind < 128 or kind == _V6_REDIRECT


def _kind(frame: bytes, packet: Ip) -> int | None:
    """The type of an ICMP message; None if it is cut short."""
    return frame[packet.start] if packet.start < packet.end else None


def _single(address: bytes, own: tuple[bytes, ...] = ()) -> bool:
    """Whether an address may be that of one host on a wire, and none of ``own``."""
    if address in own:
        return False
    if len(address) == 16:
        return address[0] != 0xFF and address not in _NOBODY
    return address[0] not in (0, 127) and address[0] < 224
