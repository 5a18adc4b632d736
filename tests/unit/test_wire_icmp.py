"""What a router says: every field checked by a second reader, every silence by the RFC that asks for it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_emulation_routing import ones
from world import ip

from ryu_vmm.errors import DecodeError
from ryu_vmm.wire import icmp
from ryu_vmm.wire.icmp import Unreachable

GUEST, ROUTER = bytes.fromhex("02000000000a"), bytes.fromhex("02766d000001")
OWN = (ip("169.254.1.1"), ip("fe80::1"))
HERE = {4: ip("10.1.1.5"), 6: ip("2001:db8:1:1::5")}
THERE = {4: ip("10.1.2.7"), 6: ip("2001:db8:1:2::7")}
families = pytest.mark.parametrize("family", [4, 6])


def packet(
    src: bytes,
    dst: bytes,
    data: bytes = bytes(8),
    proto: int = 17,
    ttl: int = 64,
    where: int = 0x4000,
    service: int = 0,
    options: bytes = b"",
    eth: bytes = ROUTER + GUEST,
) -> bytes:
    """A frame with an IP packet; ``where``: IPv4's flags and offset."""
    if len(src) == 16:
        return (
            eth + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28 | service << 20, len(data), proto, ttl) + src + dst + data
        )
    length = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 + length // 4, service, length + len(data), 77, where, ttl, proto, 0)
    head += src + dst + options
    return eth + b"\x08\0" + head[:10] + struct.pack("!H", ones(head)) + head[12:] + data


def echo(family: int, data: bytes = b"ping", kind: int | None = None, dst: bytes = b"", **more: int) -> bytes:
    """An echo request from a guest to the router."""
    kind = kind if kind is not None else 8 if family == 4 else 128
    src, dst = HERE[family], dst or OWN[family == 6]
    bare = struct.pack("!BBHHH", kind, 0, 0, 7, 1) + data
    proto = 1 if family == 4 else 58
    covered = bare if family == 4 else src + dst + struct.pack("!II", len(bare), proto) + bare
    bare = bare[:2] + struct.pack("!H", ones(covered)) + bare[4:]
    return packet(src, dst, bare, proto, **more)


class Said(NamedTuple):
    """An ICMP message, read by nothing of ours."""

    src: bytes
    dst: bytes
    type: int
    code: int
    rest: int
    quote: bytes
    service: int
    size: int


def read(frame: bytes | None) -> Said:
    """The message in a frame from the router to the guest; everything that has to be right is."""
    assert frame is not None
    assert frame[:12] == GUEST + ROUTER
    body = frame[14:]
    if frame[12:14] == b"\x86\xdd":
        assert (body[0] >> 4, body[6], body[7]) == (6, 58, 64)
        src, dst, message = body[8:24], body[24:40], body[40:]
        assert struct.unpack_from("!H", body, 4) == (len(message),)
        covered = src + dst + struct.pack("!II", len(message), 58) + message
        service = struct.unpack_from("!H", body)[0] >> 4 & 0xFF
    else:
        assert frame[12:14] == b"\x08\0"
        assert (body[0], body[8], body[9]) == (0x45, 64, 1)
        assert struct.unpack_from("!HHH", body, 2) == (len(body), 0, 0x4000)
        assert not ones(body[:20])
        src, dst, message, service = body[12:16], body[16:20], body[20:], body[1]
        covered = message
    assert not ones(covered)
    kind, code, _, rest = struct.unpack_from("!BBHI", message)
    return Said(src, dst, kind, code, rest, message[8:], service, len(body))


Error = Callable[[bytes], bytes | None]
ERRORS: dict[str, tuple[Error, tuple[int, int], tuple[int, int]]] = {
    "time exceeded": (lambda f: icmp.time_exceeded(f, ROUTER, OWN), (11, 0), (3, 0)),
    "network": (lambda f: icmp.unreachable(f, ROUTER, OWN, Unreachable.NETWORK), (3, 0), (1, 0)),
    "host": (lambda f: icmp.unreachable(f, ROUTER, OWN, Unreachable.HOST), (3, 1), (1, 3)),
    "port": (lambda f: icmp.unreachable(f, ROUTER, OWN, Unreachable.PORT), (3, 3), (1, 4)),
    "prohibited": (lambda f: icmp.unreachable(f, ROUTER, OWN, Unreachable.PROHIBITED), (3, 13), (1, 1)),
    "too big": (lambda f: icmp.packet_too_big(f, ROUTER, OWN, 80), (3, 4), (2, 0)),
}
errors = pytest.mark.parametrize("name", ERRORS)


# --- what is said -----------------------------------------------------------------------------------------------------
@errors
@families
def test_an_error_goes_back_to_the_sender_with_what_it_is_about(name: str, family: int) -> None:
    error, v4, v6 = ERRORS[name]
    offending = packet(HERE[family], THERE[family], bytes(range(100)), service=0x48)
    said = read(error(offending + b"padding"))
    assert (said.src, said.dst) == (OWN[family == 6], HERE[family])
    assert (said.type, said.code) == (v4 if family == 4 else v6)
    assert said.rest == (80 if name == "too big" else 0)
    assert said.quote == offending[14:]
    assert said.service == (0xC0 if family == 4 else 0)


@errors
@families
def test_an_error_quotes_as_much_as_may_be(name: str, family: int) -> None:
    error, _, _ = ERRORS[name]
    largest = 576 if family == 4 else 1280
    for size in (*range(largest - 100, largest - 20), 9000, 60000):
        offending = packet(HERE[family], THERE[family], bytes(n % 251 for n in range(size)))
        said = read(error(offending))
        head = 28 if family == 4 else 48
        assert said.quote == offending[14 : 14 + largest - head]
        assert said.size == min(largest, head + len(offending) - 14)


@given(st.sampled_from(list(ERRORS)), st.sampled_from([4, 6]), st.binary(min_size=80, max_size=300), st.data())
def test_checksums_are_right_whatever_is_quoted(name: str, family: int, data: bytes, chosen: st.DataObject) -> None:
    width = 4 if family == 4 else 16
    tail = chosen.draw(st.binary(min_size=width - 1, max_size=width - 1))
    src = (b"\x0b" if family == 4 else b"\x20") + tail
    said = read(ERRORS[name][0](packet(src, THERE[family], data)))
    assert said.dst == src


def test_a_router_without_an_address_of_the_family_is_silent() -> None:
    for family, only in ((4, OWN[1:]), (6, OWN[:1])):
        offending = packet(HERE[family], THERE[family])
        assert icmp.time_exceeded(offending, ROUTER, only) is None
        assert icmp.time_exceeded(offending, ROUTER, ()) is None


def test_without_an_ethernet_header_there_is_nobody_to_send_it_to() -> None:
    """What came by a tunnel without Ethernet has addresses of zeros; its answer is the caller's to route."""
    said = icmp.time_exceeded(packet(HERE[4], THERE[4], eth=bytes(12)), ROUTER, OWN)
    assert said is not None
    assert said[:12] == bytes(6) + ROUTER


# --- what is not said -------------------------------------------------------------------------------------------------
LONG = bytes(100)
NOT_SINGLE = {
    4: ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"],
    6: ["::", "::1", "ff02::1", "ff0e::5"],
}


@errors
@families
def test_no_error_to_what_is_not_one_host(name: str, family: int) -> None:
    error, _, _ = ERRORS[name]
    for source in NOT_SINGLE[family]:
        assert error(packet(ip(source), THERE[family], LONG)) is None, source
    assert error(packet(OWN[family == 6], THERE[family], LONG)) is None  # that would be to ourselves
    assert error(packet(HERE[family], THERE[family], LONG, eth=ROUTER + b"\x03" + GUEST[1:])) is None


@errors
@families
def test_no_error_about_what_was_for_many(name: str, family: int) -> None:
    error, _, _ = ERRORS[name]
    for destination in NOT_SINGLE[family]:
        said = error(packet(HERE[family], ip(destination), LONG))
        # RFC 4443, section 2.4 e.3: path MTU discovery works for multicast, too
        assert (said is None) == (name != "too big" or not destination.startswith("ff")), destination
    for group in (b"\xff" * 6, b"\x33\x33\0\0\0\1"):
        assert error(packet(HERE[family], THERE[family], LONG, eth=group + GUEST)) is None
    if family == 6 and name == "too big":
        assert error(packet(HERE[6], ip("ff0e::5"), LONG, eth=b"\x33\x33\0\0\0\5" + GUEST)) is not None


@errors
def test_no_error_about_errors(name: str) -> None:
    error, _, _ = ERRORS[name]
    queries = {0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43}
    for kind in range(256):
        about = error(echo(4, LONG, kind, THERE[4]))
        assert (about is not None) == (kind in queries), kind
        about = error(echo(6, LONG, kind, THERE[6]))
        assert (about is not None) == (kind >= 128 and kind != 137), kind
    assert error(packet(HERE[4], THERE[4], b"", 1)) is None
    assert error(packet(HERE[6], THERE[6], b"", 58)) is None


def options(following: int, data: bytes) -> bytes:
    return bytes([following, 0, 1, 4, 0, 0, 0, 0]) + data


def piece(following: int, offset: int, data: bytes) -> bytes:
    return bytes([following, 0]) + struct.pack("!HI", offset, 7) + data


@errors
def test_no_error_about_errors_behind_extension_headers(name: str) -> None:
    error, _, _ = ERRORS[name]
    bad, good = bytes([1, 0]) + LONG, bytes([128, 0]) + LONG
    wraps: list[tuple[int, Callable[[bytes], bytes]]] = [
        (0, lambda data: options(58, data)),
        (60, lambda data: options(60, options(58, data))),
        (44, lambda data: piece(58, 1, data)),
        (51, lambda data: bytes([58, 1]) + bytes(10) + data),
        (43, lambda data: bytes([58, 2]) + bytes(22) + data),
        (0, lambda data: options(44, piece(58, 0, data))),
    ]
    for proto, wrap in wraps:
        assert error(packet(HERE[6], THERE[6], wrap(bad), proto)) is None
        assert error(packet(HERE[6], THERE[6], wrap(good), proto)) is not None
    for proto, data in (
        (44, piece(58, 8, good)),  # the type is in another fragment
        (44, piece(60, 8, good)),
        (0, b""),
        (60, bytes([58, 200]) + LONG),
    ):
        assert error(packet(HERE[6], THERE[6], data, proto)) is None
    assert error(packet(HERE[6], THERE[6], piece(17, 8, LONG), 44)) is not None


@errors
def test_of_a_fragmented_packet_only_the_first_is_answered(name: str) -> None:
    error, _, _ = ERRORS[name]
    assert error(packet(HERE[4], THERE[4], LONG, where=0x6000)) is not None
    assert error(packet(HERE[4], THERE[4], LONG, where=0x4001)) is None


# --- packet too big ---------------------------------------------------------------------------------------------------
@families
def test_too_big_is_said_only_of_what_is(family: int) -> None:
    for size in (1000, 1001, 1002):
        offending = packet(HERE[family], THERE[family], bytes(size))
        length = len(offending) - 14
        assert icmp.packet_too_big(offending + bytes(9), ROUTER, OWN, length) is None
        assert read(icmp.packet_too_big(offending, ROUTER, OWN, length - 1)).rest == length - 1


def test_what_may_be_fragmented_is_not_refused() -> None:
    assert icmp.packet_too_big(packet(HERE[4], THERE[4], bytes(1600), where=0), ROUTER, OWN, 1500) is None


@pytest.mark.parametrize("mtu", [-1, 0, 67, 65536])
def test_no_link_has_such_an_mtu(mtu: int) -> None:
    with pytest.raises(ValueError, match="MTU"):
        icmp.packet_too_big(packet(HERE[6], THERE[6], bytes(1600)), ROUTER, OWN, mtu)


# --- echo -------------------------------------------------------------------------------------------------------------
@families
def test_echo_requests_are_answered(family: int) -> None:
    for data in (b"", b"x", bytes(range(200)), bytes(1400)):
        said = read(icmp.echo_reply(echo(family, data, service=0x4B) + b"padding", ROUTER, OWN))
        assert said == (
            *(OWN[family == 6], HERE[family], 0 if family == 4 else 129, 0, 7 << 16 | 1, data, 0x48),
            (28 if family == 4 else 48) + len(data),
        )


@families
def test_other_requests_are_not(family: int) -> None:
    def answer(frame: bytes) -> bytes | None:
        return icmp.echo_reply(frame, ROUTER, OWN)

    assert answer(echo(family, dst=THERE[family])) is None  # for somebody else
    for kind in set(range(256)) - {8 if family == 4 else 128}:
        assert answer(echo(family, kind=kind)) is None
    assert answer(packet(HERE[family], OWN[family == 6], bytes(20))) is None  # UDP
    request = echo(family)
    assert answer(b"\xff" * 6 + request[6:]) is None
    assert answer(request[:6] + b"\x03" + request[7:]) is None
    if family == 4:
        assert answer(echo(4, where=0x2000)) is None
    else:
        assert answer(packet(HERE[6], OWN[1], piece(58, 1, echo(6)[54:]), 44)) is None


@families
def test_requests_from_nowhere_are_not_answered(family: int) -> None:
    for source in NOT_SINGLE[family]:
        assert (
            icmp.echo_reply(packet(ip(source), OWN[family == 6], bytes(8), 1 if family == 4 else 58), ROUTER, OWN)
            is None
        )


@families
def test_broken_echo_requests_are_malformed(family: int) -> None:
    request = echo(family)
    with pytest.raises(DecodeError) as caught:
        icmp.echo_reply(request[:-1] + b"?", ROUTER, OWN)
    assert caught.value.cause == "icmp-checksum"
    proto = 1 if family == 4 else 58
    with pytest.raises(DecodeError) as caught:
        icmp.echo_reply(packet(HERE[family], OWN[family == 6], bytes(7), proto), ROUTER, OWN)
    assert caught.value.cause == "icmp-truncated"
