"""Addresses between the text of the borders and the bytes of the core.

Text comes from REST, files and people, so parsing is strict: every function raises
:class:`ryu_vmm.errors.InvalidInput` with the caller's ``field`` unless the text is one address that an
interface may own (or, for :func:`parse_dpid`, one datapath id). Bytes are in network order: 6 for MAC, 4 for
IPv4, 16 for IPv6.
"""

from __future__ import annotations

import ipaddress
import re

from .errors import InvalidInput

__all__ = [
    "format_dpid",
    "format_half",
    "format_ip",
    "format_mac",
    "format_prefix",
    "is_link_local",
    "is_mac",
    "link_local",
    "mac_of_link_local",
    "parse_dpid",
    "parse_half",
    "parse_ip",
    "parse_ipv4",
    "parse_ipv6",
    "parse_mac",
    "parse_prefix",
]

_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5}")
_DPID = re.compile(r"(?:0[xX])?([0-9A-Fa-f]{1,16})")


def parse_mac(text: str, field: str = "") -> bytes:
    """A unicast, non-zero MAC address in colon or hyphen notation.

    >>> parse_mac("02:00:00:00:00:0A").hex()
    '02000000000a'
    """
    if not isinstance(text, str) or not _MAC.fullmatch(text):
        raise _refused(text, field, "not a MAC address (six pairs of hexadecimal digits)")
    mac = bytes.fromhex(text.replace("-", ":").replace(":", ""))
    if mac[0] & 1:
        raise _refused(text, field, "a multicast MAC address, where a unicast one is needed")
    if not any(mac):
        raise _refused(text, field, "the all-zero MAC address, which belongs to nobody")
    return mac


def is_mac(text: str) -> bool:
    """Whether a text looks like a MAC address, and not like an IP address."""
    return _MAC.fullmatch(text) is not None


def format_mac(mac: bytes) -> str:
    """Lower-case colon notation. ValueError unless it is six bytes."""
    if len(mac) != 6:
        raise ValueError(f"a MAC address has 6 bytes, not {len(mac)}")
    return mac.hex(":")


def parse_ipv4(text: str, field: str = "") -> bytes:
    """A unicast IPv4 address in dotted decimals: not 0.0.0.0/8, loopback, multicast or reserved."""
    if not isinstance(text, str):
        raise _refused(text, field, "not an IPv4 address")
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as e:
        raise _refused(text, field, "not an IPv4 address") from e
    packed = address.packed
    if address.is_loopback or packed[0] == 0 or packed[0] >= 224:
        raise _refused(text, field, "not a unicast IPv4 address that an interface can own")
    return packed


def parse_ipv6(text: str, field: str = "") -> bytes:
    """A unicast IPv6 address: not ::, ::1, multicast, IPv4-mapped, and without a zone."""
    if not isinstance(text, str) or "%" in text:
        raise _refused(text, field, "not an IPv6 address (and a zone does not belong to it)")
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError as e:
        raise _refused(text, field, "not an IPv6 address") from e
    nobodys = address.is_multicast or address.is_unspecified or address.is_loopback
    if nobodys or address.ipv4_mapped is not None:
        raise _refused(text, field, "not a unicast IPv6 address that an interface can own")
    return address.packed


def parse_ip(text: str, field: str = "") -> bytes:
    """Either of the two; the length of the result tells which."""
    if isinstance(text, str) and ":" in text:
        return parse_ipv6(text, field)
    return parse_ipv4(text, field)


def format_ip(address: bytes) -> str:
    """Dotted decimals for 4 bytes, RFC 5952 notation for 16. ValueError for any other length."""
    if len(address) not in (4, 16):
        raise ValueError(f"an IP address has 4 or 16 bytes, not {len(address)}")
    return str(ipaddress.ip_address(address))


def parse_prefix(text: str, field: str = "") -> tuple[bytes, int]:
    """A prefix as address and length in bits.

    >>> parse_prefix("10.1.0.0/16")
    (b'\\n\\x01\\x00\\x00', 16)
    """
    try:
        found = ipaddress.ip_network(text)
    except ValueError as e:
        raise _refused(text, field, "not a prefix (address/length)") from e
    return found.network_address.packed, found.prefixlen


def format_prefix(prefix: bytes, length: int) -> str:
    """The inverse of :func:`parse_prefix`."""
    return f"{format_ip(prefix)}/{length}"


def parse_half(text: str, field: str = "") -> bytes:
    """The upper 64 bits of an IPv6 prefix of just that length.

    >>> parse_half("2001:db8:5::/64").hex()
    '20010db800050000'
    """
    prefix, length = parse_prefix(text, field)
    if (len(prefix), length) != (16, 64):
        raise _refused(text, field, "not an IPv6 prefix of 64 bits")
    return prefix[:8]


def format_half(half: bytes) -> str:
    """The inverse of :func:`parse_half`."""
    return format_prefix(half + bytes(8), 64)


def parse_dpid(text: str, field: str = "") -> int:
    """A datapath id in 1 to 16 hexadecimal digits, as ovs-vsctl prints it; zero is nobody's.

    >>> parse_dpid("000000000000000a")
    10
    """
    found = _DPID.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise _refused(text, field, "not a datapath id (1 to 16 hexadecimal digits)")
    dpid = int(found[1], 16)
    if dpid == 0:
        raise _refused(text, field, "datapath id 0, which is no switch's")
    return dpid


def format_dpid(dpid: int) -> str:
    """16 lower-case hexadecimal digits. ValueError outside 0 .. 2**64 - 1."""
    if not 0 <= dpid < 1 << 64:
        raise ValueError(f"datapath id {dpid} does not fit 64 bits")
    return f"{dpid:016x}"


def is_link_local(address: bytes) -> bool:
    """Whether an address is valid on its link only: 169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291 section 2.5.6)."""
    if len(address) == 4:
        return address[:2] == b"\xa9\xfe"
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def link_local(mac: bytes) -> bytes:
    """The link-local address that a MAC makes by modified EUI-64 (RFC 4291 appendix A).

    >>> format_ip(link_local(parse_mac("02:00:00:00:00:0a")))
    'fe80::ff:fe00:a'
    """
    return b"\xfe\x80\0\0\0\0\0\0" + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]


def mac_of_link_local(address: bytes) -> bytes | None:
    """The MAC that makes an address by :func:`link_local`; None: no MAC does."""
    mac = bytes([address[8] ^ 2]) + address[9:11] + address[13:] if len(address) == 16 else b""
    return mac if mac and link_local(mac) == address else None


def _refused(text: object, field: str, why: str) -> InvalidInput:
    shown = repr(text) if len(repr(text)) <= 60 else repr(text)[:57] + "..."
    return InvalidInput(f"{shown} is {why}", field=field)
