"""Ethernet frames as match fields and back: what a switch sees in a packet, and how it rewrites one.

``parse`` follows Open vSwitch's flow extraction: a header that is cut short or makes no sense leaves its fields at
zero and never fails, and the version of an IP header is not looked at. ``build`` makes a well-formed frame with right
checksums from field values, for tests and load. ``rewrite`` is the set-field action. Field values are integers here,
as masks are applied to them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ..flows import FIELDS

ARP, RARP, IPV4, IPV6, VLAN, QINQ = 0x0806, 0x8035, 0x0800, 0x86DD, 0x8100, 0x88A8
UDP, TCP, ICMP, ICMPV6 = 17, 6, 1, 58
NS, NA = 135, 136
#: In ``vlan_vid``: a tag is present (OFPVID_PRESENT).
VID_PRESENT = 0x1000
#: In ``ip_frag``: a fragment; and not the first one (whose layer 4 is seen: OFPC_FRAG_NX_MATCH).
FRAGMENT, LATER = 1, 2
# IPv6 extension headers that are stepped over (fragment and AH have their own shape)
_EXTENSIONS = frozenset((0, 43, 60))
_ROUTING, _FRAGMENT, _AUTH = 43, 44, 51


def parse(frame: bytes) -> dict[str, int]:
    """The match fields of an Ethernet frame; a field that is absent here counts as zero."""
    return _dissect(frame)[0]


def _dissect(frame: bytes) -> tuple[dict[str, int], int, int, int]:
    """Fields, and where layer 3, layer 4 and the end of the packet without padding are (0: not there)."""
    fields: dict[str, int] = {}
    if len(frame) < 14:
        return fields, 0, 0, len(frame)
    fields["eth_dst"] = int.from_bytes(frame[:6], "big")
    fields["eth_src"] = int.from_bytes(frame[6:12], "big")
    kind = int.from_bytes(frame[12:14], "big")
    at = 14
    if kind in (VLAN, QINQ) and len(frame) >= 18:
        fields["vlan_vid"] = int.from_bytes(frame[14:16], "big") & 0xFFF | VID_PRESENT
        kind = int.from_bytes(frame[16:18], "big")
        at = 18
    fields["eth_type"] = kind
    l4 = 0
    end = len(frame)
    if kind in (ARP, RARP):
        _arp(frame, at, fields)
    elif kind == IPV4:
        l4, end = _ipv4(frame, at, fields)
    elif kind == IPV6:
        l4, end = _ipv6(frame, at, fields)
    if l4 and fields["ip_proto"] == UDP and end - l4 >= 8:
        fields["udp_src"], fields["udp_dst"] = struct.unpack_from("!HH", frame, l4)
    elif l4 and fields["ip_proto"] == ICMP and kind == IPV4 and end - l4 >= 8:
        fields["icmpv4_type"] = frame[l4]
    elif l4 and fields["ip_proto"] == ICMPV6 and kind == IPV6 and end - l4 >= 8:
        _icmpv6(frame, l4, end, fields)
    return fields, at, l4, end


def _arp(frame: bytes, at: int, fields: dict[str, int]) -> None:
    if len(frame) < at + 28 or frame[at : at + 6] != b"\x00\x01\x08\x00\x06\x04":
        return
    op = int.from_bytes(frame[at + 6 : at + 8], "big")
    fields["arp_op"] = op if op <= 0xFF else 0  # Open vSwitch keeps eight bits of it
    fields["arp_sha"] = int.from_bytes(frame[at + 8 : at + 14], "big")
    fields["arp_spa"] = int.from_bytes(frame[at + 14 : at + 18], "big")
    fields["arp_tha"] = int.from_bytes(frame[at + 18 : at + 24], "big")
    fields["arp_tpa"] = int.from_bytes(frame[at + 24 : at + 28], "big")


def _ipv4(frame: bytes, at: int, fields: dict[str, int]) -> tuple[int, int]:
    if len(frame) < at + 20:
        return 0, len(frame)
    header = (frame[at] & 15) * 4
    total = int.from_bytes(frame[at + 2 : at + 4], "big")
    if header < 20 or total < header or len(frame) < at + total:
        return 0, len(frame)
    fields["ip_ttl"], fields["ip_proto"] = frame[at + 8], frame[at + 9]
    fields["ipv4_src"] = int.from_bytes(frame[at + 12 : at + 16], "big")
    fields["ipv4_dst"] = int.from_bytes(frame[at + 16 : at + 20], "big")
    fragment = int.from_bytes(frame[at + 6 : at + 8], "big")
    if fragment & 0x3FFF:
        fields["ip_frag"] = FRAGMENT | (LATER if fragment & 0x1FFF else 0)
    return 0 if fragment & 0x1FFF else at + header, at + total


def _ipv6(frame: bytes, at: int, fields: dict[str, int]) -> tuple[int, int]:
    end = at + 40 + int.from_bytes(frame[at + 4 : at + 6], "big")
    if len(frame) < at + 40 or len(frame) < end:
        return 0, len(frame)
    fields["ipv6_src"] = int.from_bytes(frame[at + 8 : at + 24], "big")
    fields["ipv6_dst"] = int.from_bytes(frame[at + 24 : at + 40], "big")
    fields["ip_ttl"] = frame[at + 7]
    proto, l4, seen = frame[at + 6], at + 40, 0
    while proto in _EXTENSIONS or proto in (_FRAGMENT, _AUTH):
        if l4 + 8 > end:
            return 0, end  # a chain of headers that cannot be followed has no protocol
        step = 8
        if proto == _FRAGMENT:
            fragment = int.from_bytes(frame[l4 + 2 : l4 + 4], "big")
            if fragment & 0xFFF8:
                fields["ip_proto"], fields["ip_frag"] = _FRAGMENT, FRAGMENT | LATER
                return 0, end
            seen |= FRAGMENT if fragment else 0
        else:
            step = (frame[l4 + 1] + 2) * 4 if proto == _AUTH else (frame[l4 + 1] + 1) * 8
        if l4 + step > end:
            return 0, end
        proto, l4 = frame[l4], l4 + step
    fields["ip_proto"] = proto
    if seen:
        fields["ip_frag"] = seen
    return l4, end


def _icmpv6(frame: bytes, l4: int, end: int, fields: dict[str, int]) -> None:
    fields["icmpv6_type"], fields["icmpv6_code"] = frame[l4], frame[l4 + 1]
    if frame[l4] not in (NS, NA) or frame[l4 + 1] or end < l4 + 24:
        return
    found = {"nd_target": int.from_bytes(frame[l4 + 8 : l4 + 24], "big")}
    found["nd_reserved"] = int.from_bytes(frame[l4 + 4 : l4 + 8], "big")
    for at, kind, size in _options(frame, l4, end):
        if not size:
            return  # an option of no length: Open vSwitch takes no field from such a message
        name = {1: "nd_sll", 2: "nd_tll"}.get(kind)
        if name and size == 8:
            if name in found:
                return
            found[name] = int.from_bytes(frame[at + 2 : at + 8], "big")
            found.setdefault("nd_options_type", kind)
    fields.update(found)


def _options(frame: bytes, l4: int, end: int) -> list[tuple[int, int, int]]:
    """Neighbor discovery options: where, type, length in bytes (0: the rest is broken)."""
    options = []
    at = l4 + 24
    while at + 8 <= end:
        size = frame[at + 1] * 8
        if not size or at + size > end:
            options.append((at, frame[at], 0))
            break
        options.append((at, frame[at], size))
        at += size
    return options


def without_ethernet(frame: bytes) -> bytes:
    """What comes out of a tunnel without Ethernet's header: addresses of zeros; the type is in the tunnel's header."""
    return bytes(12) + frame[12:]


# --- rewriting ----------------------------------------------------------------------------------------------
_ARP_AT = {"arp_op": 6, "arp_sha": 8, "arp_spa": 14, "arp_tha": 18, "arp_tpa": 24}
#: From the start of ICMPv6; the type is that of the first option, whatever it is.
_ND_AT = {"nd_reserved": 4, "nd_target": 8, "nd_options_type": 24}
_IP_AT = {"ipv4_src": 12, "ipv4_dst": 16, "ipv6_src": 8, "ipv6_dst": 24}
_CHECKSUM_AT = {UDP: 6, TCP: 16, ICMPV6: 2}
_LEAST = {UDP: 8, TCP: 20, ICMPV6: 4}  # bytes of a header; of one that is cut short no checksum is touched


def rewrite(frame: bytes, field: str, value: int) -> bytes:
    """The frame with ``field`` set and all checksums kept right; unchanged where it has no such field.

    Fields that are not in the frame (``metadata``, ``tun_*``, ``in_port``) are the caller's business. In one thing this
    is better than Open vSwitch 3.1, which takes the data of IPv4's later fragments for headers when it sets an address,
    and changes two bytes of them where a checksum would be: no flow of ours sets addresses of IPv4.
    """
    fields, l3, l4, end = _dissect(frame)
    if field not in fields and not (field == "vlan_vid" and l3 == 14):
        return frame
    width = FIELDS[field].width
    new = value.to_bytes(width, "big")
    if field in ("eth_dst", "eth_src"):
        at = 0 if field == "eth_dst" else 6
        return frame[:at] + new + frame[at + 6 :]
    if field == "vlan_vid":
        return _retag(frame, value)
    if field in _ARP_AT:
        if fields["eth_type"] != ARP:  # Open vSwitch matches the fields of RARP, but leaves the packet alone
            return frame
        at = l3 + _ARP_AT[field]
        return frame[:at] + new + frame[at + width :]
    if field == "ip_ttl":
        return _set_ttl(frame, fields["eth_type"], l3, value)
    at, checksums = _place(frame, fields, field, l3, l4, end)
    if not at:
        return frame
    out = bytearray(frame)
    for where in checksums:
        _update(out, where, frame[at : at + width], new, at, udp=fields["ip_proto"] == UDP and where >= l4)
    out[at : at + width] = new
    return bytes(out)


def _set_ttl(frame: bytes, eth_type: int, l3: int, value: int) -> bytes:
    at = l3 + (8 if eth_type == IPV4 else 7)
    out = bytearray(frame)
    if eth_type == IPV4:
        _update(out, l3 + 10, frame[at : at + 1], bytes([value]), at, udp=False)
    out[at] = value
    return bytes(out)


def _retag(frame: bytes, vid: int) -> bytes:
    tagged = frame[12:14] in (b"\x81\x00", b"\x88\xa8")
    if not vid & VID_PRESENT:
        return frame[:12] + frame[16:] if tagged else frame
    if tagged:
        tci = int.from_bytes(frame[14:16], "big") & 0xF000 | vid & 0xFFF
        return frame[:14] + tci.to_bytes(2, "big") + frame[16:]
    return frame[:12] + struct.pack("!HH", VLAN, vid & 0xFFF) + frame[12:]


def _place(frame: bytes, fields: dict[str, int], field: str, l3: int, l4: int, end: int) -> tuple[int, list[int]]:
    """Where the field is (0: nowhere) and where the checksums are that cover it."""
    checksums: list[int] = []
    proto = fields.get("ip_proto", 0)
    if l4 and proto in _CHECKSUM_AT and l4 + _LEAST[proto] <= end:
        at = l4 + _CHECKSUM_AT[proto]
        if not (proto == UDP and frame[at : at + 2] == b"\0\0"):  # which means that there is none
            checksums.append(at)
    if field in _IP_AT:
        if field == "ipv6_dst" and _on_its_way(frame, l3, l4):
            checksums = []  # they are about where its route ends
        if field.startswith("ipv4"):
            checksums.append(l3 + 10)
        return l3 + _IP_AT[field], checksums
    if field in ("udp_src", "udp_dst"):
        return l4 + (0 if field == "udp_src" else 2), checksums
    if field in ("icmpv6_type", "icmpv6_code"):
        return l4 + (0 if field == "icmpv6_type" else 1), checksums
    if field in _ND_AT:
        return l4 + _ND_AT[field], checksums
    if field in ("nd_sll", "nd_tll"):
        wanted = 1 if field == "nd_sll" else 2
        return next((at + 2 for at, kind, _ in _options(frame, l4, end) if kind == wanted), 0), checksums
    return 0, []


def _on_its_way(frame: bytes, l3: int, l4: int) -> bool:
    """Whether a routing header of IPv6 leads a packet on from its destination."""
    proto, at = frame[l3 + 6], l3 + 40
    while at < l4:
        if proto == _ROUTING and frame[at + 3]:
            return True
        size = 8 if proto == _FRAGMENT else (frame[at + 1] + 2) * 4 if proto == _AUTH else (frame[at + 1] + 1) * 8
        proto, at = frame[at], at + size
    return False


def _update(out: bytearray, where: int, old: bytes, new: bytes, at: int, udp: bool) -> None:
    """RFC 1624: the checksum at ``where`` after ``old`` at offset ``at`` has become ``new``."""
    # 16-bit words are counted from an even offset of what is summed; layer 3 and 4 start on even offsets here
    if at % 2:
        old, new = b"\0" + old, b"\0" + new
    if len(old) % 2:
        old, new = old + b"\0", new + b"\0"
    total = ~int.from_bytes(out[where : where + 2], "big") & 0xFFFF
    total += sum(~w & 0xFFFF for (w,) in struct.iter_unpack("!H", old))
    total += sum(w for (w,) in struct.iter_unpack("!H", new))
    value = ~_fold(total) & 0xFFFF
    if udp and not value:
        value = 0xFFFF
    out[where : where + 2] = value.to_bytes(2, "big")


def _fold(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of ``data``."""
    if len(data) % 2:
        data += b"\0"
    return ~_fold(sum(w for (w,) in struct.iter_unpack("!H", data))) & 0xFFFF


# --- building -----------------------------------------------------------------------------------------------
def build(fields: Mapping[str, int | bytes], payload: bytes = b"") -> bytes:
    """A frame that parses to ``fields``: Ethernet, an optional tag, then ARP, RARP, IPv4, IPv6, UDP,
    ICMP (without its checksum), ICMPv6, ND.

    ``payload`` follows the last header. ``eth_type`` and ``ip_proto`` may be left out where others imply
    them; ``ip_ttl`` is 64 then, and 255 in ICMPv6, as neighbor discovery demands.

    Raises:
        ValueError: a field has no place in the frame that the others describe.
    """
    given = {k: v if isinstance(v, int) else int.from_bytes(v, "big") for k, v in fields.items()}
    used: set[str] = set()

    def take(name: str, default: int = 0) -> bytes:
        used.add(name)
        return given.get(name, default).to_bytes(FIELDS[name].width, "big")

    eth_type = given.get("eth_type", _implied_type(given))
    used.add("eth_type")
    head = take("eth_dst") + take("eth_src")
    if given.get("vlan_vid", 0) & VID_PRESENT:
        head += struct.pack("!HH", VLAN, given["vlan_vid"] & 0xFFF)
    used.add("vlan_vid")
    head += eth_type.to_bytes(2, "big")
    if eth_type in (ARP, RARP):
        head += b"\x00\x01\x08\x00\x06\x04" + take("arp_op", 1) + take("arp_sha") + take("arp_spa")
        body = take("arp_tha") + take("arp_tpa") + payload
    elif eth_type in (IPV4, IPV6):
        proto = given.get("ip_proto", _implied_proto(given))
        used.add("ip_proto")
        v4 = eth_type == IPV4
        src, dst = take("ipv4_src" if v4 else "ipv6_src"), take("ipv4_dst" if v4 else "ipv6_dst")
        data = payload
        if proto == UDP:
            data = take("udp_src") + take("udp_dst") + struct.pack("!HH", 8 + len(payload), 0) + payload
        elif proto == ICMPV6 and not v4:
            data = take("icmpv6_type", NS) + take("icmpv6_code") + b"\0\0" + _nd(given, take) + payload
        elif proto == ICMP and v4:
            data = take("icmpv4_type") + bytes(7) + payload
        if proto in (UDP, ICMPV6):
            pseudo = src + dst + struct.pack("!II", len(data), proto)
            at = _CHECKSUM_AT[proto]
            value = checksum(pseudo + data) or (0xFFFF if proto == UDP else 0)
            data = data[:at] + value.to_bytes(2, "big") + data[at + 2 :]
        if v4:
            ttl = take("ip_ttl", 64)[0]
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0x4000, ttl, proto, 0) + src + dst
            ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
        else:
            ttl = take("ip_ttl", 255 if proto == ICMPV6 else 64)[0]
            ip = struct.pack("!IHBB", 6 << 28, len(data), proto, ttl) + src + dst
        body = ip + data
    else:
        body = payload
    if misplaced := given.keys() - used:
        raise ValueError(f"no place for {', '.join(sorted(misplaced))} in a frame of type {eth_type:#06x}")
    return head + body


def _nd(given: dict[str, int], take) -> bytes:  # type: ignore[no-untyped-def]
    kind = given.get("icmpv6_type", NS)
    if kind not in (NS, NA):
        return b""
    body: bytes = take("nd_reserved", 0 if kind == NS else 0x20000000) + take("nd_target")
    take("nd_options_type")  # as the option has it
    if "nd_sll" in given:
        body += b"\x01\x01" + take("nd_sll")
    if "nd_tll" in given:
        body += b"\x02\x01" + take("nd_tll")
    return body


def _implied_type(given: dict[str, int]) -> int:
    for name in given:
        if name.startswith("arp_"):
            return ARP
        if name.startswith(("ipv4_", "icmpv4_")):
            return IPV4
        if name.startswith(("ipv6_", "icmpv6_", "nd_")):
            return IPV6
    return 0x88B5  # IEEE 802 local experimental


def _implied_proto(given: dict[str, int]) -> int:
    for name in given:
        if name.startswith("udp_"):
            return UDP
        if name.startswith(("icmpv6_", "nd_")):
            return ICMPV6
        if name.startswith("icmpv4_"):
            return ICMP
    return 59  # no next header
