"""Guests' ARP, RARP and neighbor discovery, and our own path probes, as bytes sliced and built.

Formats: ARP RFC 826 (announcements and probes RFC 5227), RARP RFC 903, neighbor discovery RFC 4861, whose
rules of validity (section 7.1) are applied before anything is believed. Everything here takes and returns
network-order bytes and runs once per packet handed over, so there is no text and no object beyond the tuple
returned.

Parsers raise :class:`ryu_vmm.errors.DecodeError` with the cause it is counted under, and nothing else.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from ..errors import DecodeError
from ..model import PROBE_IDENTIFIER, PROBE_PROTOCOL

BROADCAST = b"\xff" * 6
_NO_MAC = bytes(6)
_NO_IPV4 = bytes(4)
_NO_IPV6 = bytes(16)
_ALL_NODES = b"\xff\x02" + bytes(13) + b"\1"
_ALL_NODES_MAC = b"\x33\x33\0\0\0\1"
_SOLICITED = b"\xff\x02" + bytes(9) + b"\1\xff"

ETH_ARP, ETH_RARP, ETH_IPV6, ETH_PROBE = b"\x08\x06", b"\x80\x35", b"\x86\xdd", b"\x88\xb5"
_TAGS = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")

ARP_REQUEST, ARP_REPLY, RARP_REQUEST, RARP_REPLY = 1, 2, 3, 4
NS, NA = 135, 136
#: Flags of a neighbor advertisement: from a router, solicited, override.
NA_ROUTER, NA_SOLICITED, NA_OVERRIDE = 0x80, 0x40, 0x20

# eth_dst eth_src (eth_type htype ptype hlen plen) op sha spa tha tpa
_ARP = struct.Struct("!6s6s8sH6s4s6s4s")
_ARP_FIXED = ETH_ARP + b"\0\1\x08\0\6\4"
_RARP_FIXED = ETH_RARP + b"\0\1\x08\0\6\4"
# eth_dst eth_src eth_type (version class flow) length next hop src dst | type code checksum flags target
_ND = struct.Struct("!6s6s2sIHBB16s16sBBHB3x16s")


class Kind(enum.IntEnum):
    """What a frame is, as far as the NVA cares."""

    OTHER = 0
    ARP_REQUEST = 1
    ARP_REPLY = 2
    ARP_PROBE = 3  # a request from no address: is it taken? (RFC 5227)
    GARP = 4  # announcement: sender and target address are the same, request or reply
    RARP_REQUEST = 5  # what is my address? Hypervisors send it as an announcement
    RARP_REPLY = 6
    NS = 7
    DAD = 8  # a solicitation from no address: is it taken? (RFC 4862)
    NA = 9
    NA_UNSOLICITED = 10  # announcement
    PROBE = 11  # ours


def classify(frame: bytes) -> Kind:
    """What a frame is.

    Raises:
        DecodeError: it is tagged (``vlan-tagged``), cut short, or not what its type says it is.
    """
    kind = frame[12:14]
    if kind == ETH_ARP:
        op, _, spa, _, tpa, _, _ = parse_arp(frame)
        if spa == tpa and spa != _NO_IPV4:
            return Kind.GARP
        if op == ARP_REPLY:
            return Kind.ARP_REPLY
        return Kind.ARP_PROBE if spa == _NO_IPV4 else Kind.ARP_REQUEST
    if kind == ETH_IPV6:
        if len(frame) < 55 or frame[20] != 58 or frame[54] not in (NS, NA):
            return Kind.OTHER
        nd = parse_nd(frame)
        if nd.type == NS:
            return Kind.DAD if nd.src == _NO_IPV6 else Kind.NS
        return Kind.NA if nd.flags & NA_SOLICITED else Kind.NA_UNSOLICITED
    if kind == ETH_RARP:
        return Kind.RARP_REQUEST if parse_rarp(frame).op == RARP_REQUEST else Kind.RARP_REPLY
    if kind == ETH_PROBE:
        parse_probe(frame)
        return Kind.PROBE
    if len(kind) < 2:
        raise DecodeError("frame is cut short", "frame-truncated", length=len(frame))
    if kind in _TAGS:
        raise DecodeError("frame carries a VLAN tag", "vlan-tagged")
    return Kind.OTHER


# --- ARP and RARP -------------------------------------------------------------------------------------------
class Arp(NamedTuple):
    """An ARP or RARP packet: operation, sender's and target's addresses, Ethernet's addresses."""

    op: int
    sha: bytes
    spa: bytes
    tha: bytes
    tpa: bytes
    eth_src: bytes
    eth_dst: bytes


def parse_arp(frame: bytes) -> Arp:
    """An ARP request or reply, Ethernet and IPv4; padding behind it is ignored.

    Raises:
        DecodeError: cause ``arp-truncated``, ``arp-format`` or ``arp-sender`` (no unicast sender).
    """
    return _arp(frame, _ARP_FIXED, ARP_REQUEST, "arp")


def parse_rarp(frame: bytes) -> Arp:
    """A RARP request or reply. Raises DecodeError as :func:`parse_arp`, causes starting with ``rarp-``."""
    return _arp(frame, _RARP_FIXED, RARP_REQUEST, "rarp")


def _arp(frame: bytes, fixed: bytes, least: int, name: str) -> Arp:
    try:
        eth_dst, eth_src, found, op, sha, spa, tha, tpa = _ARP.unpack_from(frame)
    except struct.error:
        raise DecodeError(f"{name} is cut short", f"{name}-truncated", length=len(frame)) from None
    if found != fixed or not least <= op <= least + 1:
        raise DecodeError(f"{name} of another format", f"{name}-format", op=op)
    if sha[0] & 1 or eth_src[0] & 1 or sha == _NO_MAC:
        raise DecodeError(f"{name} without a unicast sender", f"{name}-sender", sha=sha.hex())
    return Arp(op, sha, spa, tha, tpa, eth_src, eth_dst)


_REPLY = _ARP_FIXED + b"\0\2"
_REQUEST = _ARP_FIXED + b"\0\1"


def build_arp_reply(sha: bytes, spa: bytes, tha: bytes, tpa: bytes) -> bytes:
    """Tell ``tha``/``tpa`` that ``spa`` is at ``sha``; 42 bytes."""
    return tha + sha + _REPLY + sha + spa + tha + tpa


def build_arp_request(sha: bytes, spa: bytes, tpa: bytes, eth_dst: bytes = BROADCAST) -> bytes:
    """Ask who has ``tpa``."""
    return eth_dst + sha + _REQUEST + sha + spa + _NO_MAC + tpa


def build_garp(mac: bytes, ip: bytes, request: bool = True) -> bytes:
    """Announce to all that ``ip`` is at ``mac``, in the request form (RFC 5227) or the reply form."""
    if request:
        return BROADCAST + mac + _REQUEST + mac + ip + _NO_MAC + ip
    return BROADCAST + mac + _REPLY + mac + ip + mac + ip


def build_rarp_request(mac: bytes) -> bytes:
    """What hypervisors announce with: who am I, from and to everybody."""
    return BROADCAST + mac + _RARP_FIXED + b"\0\3" + mac + _NO_IPV4 + mac + _NO_IPV4


def build_rarp_reply(server_mac: bytes, server_ip: bytes, mac: bytes, ip: bytes) -> bytes:
    """Tell ``mac`` that its address is ``ip`` (RFC 903)."""
    return mac + server_mac + _RARP_FIXED + b"\0\4" + server_mac + server_ip + mac + ip


# --- neighbor discovery -------------------------------------------------------------------------------------
class Nd(NamedTuple):
    """A neighbor solicitation or advertisement.

    ``lladdr``: the sender's (NS) or the target's (NA) link-layer address if the message carries it.
    ``flags``: NA_*.
    """

    type: int
    target: bytes
    src: bytes
    dst: bytes
    lladdr: bytes | None
    flags: int
    eth_src: bytes
    eth_dst: bytes


def parse_nd(frame: bytes) -> Nd:
    """A neighbor solicitation or advertisement that passes RFC 4861, sections 7.1.1 and 7.1.2.

    Raises:
        DecodeError: cause ``nd-truncated``, ``nd-format``, ``nd-hop-limit``, ``nd-checksum``, ``nd-option``
            or
            ``nd-address``.
    """
    try:
        eth_dst, eth_src, eth_type, first, length, following, hops, src, dst, kind, code, _, flags, target = (
            _ND.unpack_from(frame)
        )
    except struct.error:
        raise DecodeError("neighbor discovery is cut short", "nd-truncated", length=len(frame)) from None
    if eth_type != ETH_IPV6 or first >> 28 != 6 or following != 58 or code or not NS <= kind <= NA:
        raise DecodeError("not neighbor discovery", "nd-format", type=kind, code=code)
    if hops != 255:
        raise DecodeError("neighbor discovery from beyond a router", "nd-hop-limit", hops=hops)
    end = 54 + length
    if length < 24 or end > len(frame):
        raise DecodeError("neighbor discovery is cut short", "nd-truncated", length=length)
    # 2**16 is 1 modulo 2**16 - 1: this is the ones' complement sum over addresses, message and pseudo-header.
    total = int.from_bytes(frame[22:end], "big")
    if ((total << 8 if length & 1 else total) + length + 58) % 0xFFFF:
        raise DecodeError("neighbor discovery with a wrong checksum", "nd-checksum")
    lladdr = _link_layer_address(frame, end, 1 if kind == NS else 2)
    wrong = target[0] == 0xFF or src[0] == 0xFF or eth_src[0] & 1
    if kind == NS:
        wrong = wrong or (src == _NO_IPV6 and (lladdr is not None or dst[:13] != _SOLICITED))
    else:
        wrong = wrong or (dst[0] == 0xFF and bool(flags & NA_SOLICITED)) or src == _NO_IPV6
    if wrong:
        raise DecodeError("neighbor discovery between impossible addresses", "nd-address")
    return Nd(kind, target, src, dst, lladdr, flags if kind == NA else 0, eth_src, eth_dst)


def _link_layer_address(frame: bytes, end: int, wanted: int) -> bytes | None:
    """The first option of the wanted type; all options are checked for their lengths."""
    position = 78
    found: bytes | None = None
    while position < end:
        if end - position < 8 or not (size := frame[position + 1] * 8) or position + size > end:
            raise DecodeError("neighbor discovery option of a wrong length", "nd-option")
        if frame[position] == wanted:
            if size != 8 or frame[position + 2] & 1:
                raise DecodeError("link-layer address option is not of Ethernet", "nd-option")
            found = found or frame[position + 2 : position + 8]
        position += size
    return found


# What the checksums of all advertisements below have in common: length, next header, type, option's head
_NA_SUM = 32 + 58 + (NA << 8) + 0x0201
_NA_HEAD = ETH_IPV6 + b"\x60\0\0\0\0\x20\x3a\xff"


def build_na(target: bytes, mac: bytes, dst: bytes, eth_dst: bytes, flags: int = NA_SOLICITED | NA_OVERRIDE) -> bytes:
    """Tell ``dst`` at ``eth_dst`` that ``target`` is at ``mac``, in the target's name; 86 bytes."""
    total = 2 * int.from_bytes(target, "big") + int.from_bytes(dst, "big") + int.from_bytes(mac, "big")
    checksum = -(total + _NA_SUM + (flags << 8)) % 0xFFFF
    return b"%b%b%b%b%b\x88\0%b%c\0\0\0%b\2\1%b" % (
        eth_dst,
        mac,
        _NA_HEAD,
        target,
        dst,
        checksum.to_bytes(2, "big"),
        flags,
        target,
        mac,
    )


def build_unsolicited_na(mac: bytes, ip: bytes, router: bool = False) -> bytes:
    """Announce to all nodes that ``ip`` is at ``mac`` now (RFC 4861, section 7.2.6); ``router``: it is a router's."""
    return build_na(ip, mac, _ALL_NODES, _ALL_NODES_MAC, NA_OVERRIDE | (NA_ROUTER if router else 0))


def build_na_for_dad(target: bytes, mac: bytes) -> bytes:
    """Answer duplicate address detection: ``target`` is taken (RFC 4861, section 7.2.4: to all nodes)."""
    return build_na(target, mac, _ALL_NODES, _ALL_NODES_MAC, NA_OVERRIDE)


def build_ns(mac: bytes, src: bytes, target: bytes) -> bytes:
    """Ask who has ``target``; from the unspecified address it is duplicate address detection."""
    dst = _SOLICITED + target[13:]
    option = b"" if src == _NO_IPV6 else b"\1\1" + mac
    tail = bytes(4) + target + option
    length = 4 + len(tail)
    checksum = -(int.from_bytes(src + dst + tail, "big") + (NS << 8) + length + 58) % 0xFFFF
    head = b"\x60\0\0\0" + struct.pack("!HBB", length, 58, 255) + src + dst
    icmp = struct.pack("!BBH", NS, 0, checksum) + tail
    return b"\x33\x33" + dst[12:] + mac + ETH_IPV6 + head + icmp


# --- what is reported of frames that are not believed -----------------------------------------------------------
class Claimed(NamedTuple):
    """What a frame says of who has which address, as far as that can be made out. Nothing of it is checked."""

    kind: str  # arp, rarp, ns, na, other
    mac: bytes | None  # Ethernet source
    claimed_mac: bytes | None
    claimed_ip: bytes | None


def claimed(frame: bytes) -> Claimed:
    """What a frame claims, for a report. Never raises.

    >>> claimed(build_rarp_request(b"\\2\\0\\0\\0\\0\\1")).kind
    'rarp'
    """
    mac = frame[6:12] if len(frame) >= 12 else None
    kind, at = frame[12:14], 14
    if kind in _TAGS:
        kind, at = frame[16:18], 18
    if kind in (ETH_ARP, ETH_RARP):
        name = "arp" if kind == ETH_ARP else "rarp"
        if len(frame) < at + 28:
            return Claimed(name, mac, None, None)
        return Claimed(name, mac, frame[at + 8 : at + 14], frame[at + 14 : at + 18])
    if kind == ETH_IPV6 and len(frame) >= at + 64 and frame[at + 6] == 58 and NS <= frame[at + 40] <= NA:
        solicits = frame[at + 40] == NS
        option = frame[at + 64 : at + 72]
        link = option[2:] if option[:2] == (b"\1\1" if solicits else b"\2\1") and len(option) == 8 else None
        address = frame[at + 8 : at + 24] if solicits else frame[at + 48 : at + 64]
        return Claimed("ns" if solicits else "na", mac, link, address)
    return Claimed("other", mac, None, None)


# --- path probes --------------------------------------------------------------------------------------------
# Locally administered addresses (IEEE 802c) and the first local experimental EtherType (IEEE 802).
_PROBE_HEAD = b"\x02\x76\x6d\0\0\2" + b"\x02\x76\x6d\0\0\1" + ETH_PROBE
_PROBE_MAGIC = b"vmm\1"
_PROBE = struct.Struct("!14s4sHH")
_FILLER = bytes(range(256)) * 40
_IPV6_PROBE = 54
#: Smallest and largest ``mtu`` of a probe, in bytes.
PROBE_MTU = (64, 9216)


def build_probe(nonce: bytes, mtu: int) -> bytes:
    """A frame that proves a path: exactly ``mtu`` + 14 bytes, of which the receiver can check each.

    Raises:
        ValueError: ``mtu`` outside PROBE_MTU, or a ``nonce`` that does not fit into it.
    """
    room = mtu + 14 - _PROBE.size - len(nonce)
    if not PROBE_MTU[0] <= mtu <= PROBE_MTU[1] or room < 0 or not nonce:
        raise ValueError(f"a probe of {mtu} bytes cannot carry {len(nonce)} bytes of nonce")
    return _PROBE.pack(_PROBE_HEAD, _PROBE_MAGIC, mtu + 14, len(nonce)) + nonce + _FILLER[:room]


def build_located_probe(nonce: bytes, mtu: int, macs: tuple[bytes, bytes], locators: tuple[bytes, bytes]) -> bytes:
    """The same as an IPv6 packet of ``mtu`` bytes between two locators; both pairs are (receiver's, sender's)."""
    payload = build_probe(nonce, mtu - 40)[14:]
    there, here = (locator + PROBE_IDENTIFIER for locator in locators)
    head = struct.pack("!IHBB", 6 << 28, len(payload), PROBE_PROTOCOL, 64) + here + there
    return macs[0] + macs[1] + ETH_IPV6 + head + payload


def parse_probe(frame: bytes) -> bytes:
    """The nonce of a probe that has arrived whole; a tunnel without Ethernet headers has taken its MACs off.

    Those of ILA are IPv6 packets.

    Raises:
        DecodeError: cause ``probe-truncated`` or ``probe-format`` (not ours, or changed on the way).
    """
    if frame[12:14] == ETH_IPV6 and frame[20:21] == bytes([PROBE_PROTOCOL]):
        frame = _PROBE_HEAD + frame[_IPV6_PROBE:]
    try:
        head, magic, length, size = _PROBE.unpack_from(frame)
    except struct.error:
        raise DecodeError("probe is cut short", "probe-truncated", length=len(frame)) from None
    if head not in (_PROBE_HEAD, bytes(12) + _PROBE_HEAD[12:]) or magic != _PROBE_MAGIC:
        raise DecodeError("not a probe of ours", "probe-format")
    if length != len(frame):
        raise DecodeError("probe is cut short", "probe-truncated", length=len(frame))
    start = _PROBE.size + size
    if not size or start > length or frame[start:] != _FILLER[: length - start]:
        raise DecodeError("probe has been changed on the way", "probe-format")
    return frame[_PROBE.size : start]
