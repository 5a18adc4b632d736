"""What reads captures in tools/prove: every encapsulation taken apart, every damaged byte noticed."""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

for folder in (Path(__file__).parents[2], Path(__file__).parents[2] / "tools"):
    sys.path.insert(0, str(folder))

from proof import raw  # noqa: E402
from proof.capture import ETHERNET, IPV4, IPV6, TCP, UDP, carried  # noqa: E402

from topologies.frames import checksum  # noqa: E402

A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
FOUR = raw.ip("10.1.1.1"), raw.ip("10.1.2.2")
SIX = raw.ip("2001:db8:1::1"), raw.ip("2001:db8:2::2")
OUT4, OUT6 = (raw.ip("192.168.100.1"), raw.ip("192.168.100.2")), (raw.ip("fd00:100::1"), raw.ip("fd00:100::2"))


def datagram(size: int, six: bool) -> tuple[int, bytes]:
    """(Ethernet type, IP packet) of a UDP datagram with a checksum."""
    payload = bytes(n & 0xFF for n in range(size))
    if six:
        return IPV6, raw.udp6(B, A, *SIX, payload)[ETHERNET : ETHERNET + 48 + size]
    return IPV4, packet4(UDP, struct.pack("!HHHH", 5009, 5009, 8 + size, 0) + payload, 6, FOUR)


def packet4(protocol: int, body: bytes, at: int | None, ends: tuple[bytes, bytes]) -> bytes:
    """An IPv4 packet; `at`: where the upper layer has its checksum over pseudo header and body."""
    if at is not None:
        pseudo = b"".join(ends) + struct.pack("!HH", protocol, len(body))
        body = body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 7, 0x4000, 63, protocol, 0, *ends)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def wrapped(how: str, six_outside: bool, size: int, six: bool) -> bytes:
    kind, inner = datagram(size, six)
    if how == "plain":
        return A + B + struct.pack("!H", kind) + inner
    if how == "gre":
        protocol, body, at = 47, struct.pack("!HHI", 0x2000, kind, 0xABCDEF) + inner, None
    elif how == "gre with checksum":
        protocol, body, at = 47, struct.pack("!HHHHI", 0xA000, kind, 0, 0, 0xABCDEF) + inner, None
        body = body[:4] + struct.pack("!H", checksum(body)) + body[6:]
    else:
        inside = struct.pack("!II", 0x08000000, 0xABCDEF << 8) + bytes(12) + struct.pack("!H", kind) + inner
        protocol, at = UDP, 6
        body = struct.pack("!HHHH", 40000, 4789, 8 + len(inside), 0) + inside
    if six_outside:
        return raw.ipv6(A, B, *OUT6, protocol, body, at) if at else no_checksum6(protocol, body)
    return A + B + b"\x08\0" + packet4(protocol, body, at, OUT4)


def no_checksum6(protocol: int, body: bytes) -> bytes:
    return A + B + b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, len(body), protocol, 64) + b"".join(OUT6) + body


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("six_outside", [False, True])
@pytest.mark.parametrize(("how", "overhead4", "overhead6"), [
    ("vxlan", 50, 70), ("gre", 28, 48), ("gre with checksum", 32, 52), ("plain", 0, 0),
])  # fmt: skip
def test_every_encapsulation_is_taken_apart(
    how: str, overhead4: int, overhead6: int, six_outside: bool, six: bool
) -> None:
    frame = wrapped(how, six_outside, 512, six)
    found = carried(frame)
    assert found is not None
    assert found.inner is not None
    assert (found.how, found.vni, found.wrong) == (how.split()[0], None if how == "plain" else 0xABCDEF, ())
    assert found.length == ETHERNET + found.inner.length + (overhead6 if six_outside else overhead4)
    assert found.inner.length == 512 + 8 + (40 if six else 20)
    assert found.inner.ports == (5009, 5009)
    assert found.inner.payload == bytes(n & 0xFF for n in range(512))
    assert (found.inner.family, found.inner.hops) == ((6, 255) if six else (4, 63))
    assert raw.ip(found.inner.dst) == (SIX if six else FOUR)[1]


@given(
    how=st.sampled_from(["vxlan", "gre", "plain"]), six_outside=st.booleans(), six=st.booleans(),
    place=st.floats(0, 0.9999), bit=st.integers(0, 7),
)
def test_no_damage_to_addresses_or_contents_goes_unnoticed(
    how: str, six_outside: bool, six: bool, place: float, bit: int
) -> None:
    """One bit of the inner packet's addresses, upper header or payload is changed."""
    frame = bytearray(wrapped(how, six_outside, 64, six))
    covered = 64 + 8 + (32 if six else 8)
    at = len(frame) - covered + int(place * covered)
    frame[at] ^= 1 << bit
    found = carried(bytes(frame))
    checksum_field = len(frame) - 64 - 2  # all zero there would mean: none
    zero = frame[checksum_field : checksum_field + 2] == b"\0\0"
    length_field = len(frame) - 64 - 4
    assert found is None or found.wrong or (zero and not six) or at in (length_field, length_field + 1)


def test_a_missing_checksum_is_wrong_over_ipv6_only() -> None:
    four = raw.udp4(A, B, *FOUR, b"x" * 30)
    assert four[40:42] == b"\0\0"
    found = carried(four)
    assert found is not None
    assert found.wrong == ()
    six = bytearray(raw.udp6(A, B, *SIX, b"x" * 30))
    six[60:62] = b"\0\0"
    found = carried(bytes(six))
    assert found is not None
    assert found.wrong == ("UDP: none",)


def test_fragments_and_what_is_no_ip_are_told_apart() -> None:
    fragment = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 7, 0x2000, 63, UDP, 0, *FOUR)
    fragment = fragment[:10] + struct.pack("!H", checksum(fragment)) + fragment[12:] + b"whatever"
    found = carried(A + B + b"\x08\0" + fragment)
    assert found is not None
    assert found.outer.fragment
    assert (found.outer.ports, found.wrong) == (None, ())
    assert carried(raw.arp(1, A, FOUR[0], bytes(6), FOUR[1])) is None
    assert carried(A + B + b"\x08\0" + fragment[:18]) is None
    probe = no_checksum6(47, struct.pack("!HHI", 0x2000, 0x88B5, 5) + b"probe")
    found = carried(probe)
    assert found is not None
    assert (found.how, found.vni, found.inner) == ("gre", 5, None)


def test_tcp_and_icmp_are_verified_too() -> None:
    segment = struct.pack("!HHIIHHHH", 80, 5000, 1, 2, 0x5010, 1000, 0, 0) + b"data"
    good = A + B + b"\x08\0" + packet4(TCP, segment, 16, FOUR)
    assert carried(good).wrong == ()  # type: ignore[union-attr]
    assert carried(good[:-1] + b"!").wrong == ("TCP",)  # type: ignore[union-attr]
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + b"ping"
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    good = A + B + b"\x08\0" + packet4(1, echo, None, FOUR)
    assert carried(good).wrong == ()  # type: ignore[union-attr]
    assert carried(good[:-1] + b"!").wrong == ("ICMP",)  # type: ignore[union-attr]
    asked = raw.solicitation(A, SIX[0], SIX[1])
    assert carried(asked).wrong == ()  # type: ignore[union-attr]
    assert socket.inet_ntop(socket.AF_INET6, SIX[0]) == carried(asked).outer.src  # type: ignore[union-attr]
    assert carried(asked[:-1] + b"!").wrong == ("ICMPv6",)  # type: ignore[union-attr]
