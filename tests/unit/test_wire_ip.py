"""Packets forwarded and taken apart as a router does it, put together again by a second reader."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_emulation_routing import ones
from test_wire_icmp import HERE, OWN, ROUTER, THERE, echo, families, options, packet, piece

from ryu_vmm.errors import DecodeError
from ryu_vmm.wire import icmp, ip


# --- reading ----------------------------------------------------------------------------------------------------------
def test_what_is_read_of_a_packet() -> None:
    found = ip.parse_ip(packet(HERE[4], THERE[4], b"abcdefgh", service=4, options=b"\1\1\1\0") + b"padding")
    assert found == (4, HERE[4], THERE[4], 64, 17, 38, 46, 0, False, True, 4)
    found = ip.parse_ip(packet(HERE[4], THERE[4], b"abcdefgh", 6, where=0x2005))
    assert found == (4, HERE[4], THERE[4], 64, 6, 34, 42, 40, True, False, 0)
    found = ip.parse_ip(packet(HERE[6], THERE[6], options(44, piece(17, 1, b"abcdefgh")), 0, 9, service=0x83))
    assert found == (6, HERE[6], THERE[6], 9, 17, 70, 78, 0, True, True, 0x83)
    assert ip.parse_ip(packet(HERE[6], THERE[6], piece(17, 16, b"ab"), 44))[4:9] == (17, 62, 64, 16, True)
    assert ip.parse_ip(packet(HERE[6], THERE[6], piece(17, 0, b"ab"), 44))[4:9] == (17, 62, 64, 0, False)
    assert ip.parse_ip(packet(HERE[6], THERE[6], b"", 59))[4:9] == (59, 54, 54, 0, False)
    assert ip.parse_ip(packet(HERE[6], THERE[6], b"abc", 60)).proto is None


V4, V6 = packet(HERE[4], THERE[4]), packet(HERE[6], THERE[6])


def changed(frame: bytes, at: int, value: int) -> bytes:
    """With one byte changed, and IPv4's header checksum right again."""
    frame = frame[:at] + bytes([value]) + frame[at + 1 :]
    if frame[12:14] == b"\x86\xdd":
        return frame
    head = frame[14:24] + b"\0\0" + frame[26 : 14 + max(20, (frame[14] & 15) * 4)]
    return frame[:24] + struct.pack("!H", ones(head)) + frame[26:]


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (b"", "ip-truncated"),
        (V4[:13], "ip-truncated"),
        (V4[:33], "ip-truncated"),
        (V4[:-1], "ip-truncated"),
        (V6[:53], "ip-truncated"),
        (V6[:-1], "ip-truncated"),
        (V4[:12] + b"\x08\x06" + V4[14:], "ip-format"),
        (V4[:12] + b"\x81\0\0\1" + V4[12:], "ip-format"),
        (changed(V4, 14, 0x65), "ip-format"),
        (changed(V4, 14, 0x44), "ip-format"),
        (changed(changed(V4, 14, 0x46), 17, 20), "ip-format"),
        (V6[:14] + b"\x40" + V6[15:], "ip-format"),
        (V4[:22] + b"\5" + V4[23:], "ip-checksum"),
        (packet(HERE[4], THERE[4], bytes(8), where=0x1FFF), "ip-format"),
    ],
)
def test_malformed_packets(frame: bytes, cause: str) -> None:
    for take in (
        ip.parse_ip,
        ip.routed,
        lambda given: ip.fragment(given, 1500),
        lambda given: icmp.time_exceeded(given, ROUTER, OWN),
        lambda given: icmp.echo_reply(given, ROUTER, OWN),
    ):
        with pytest.raises(DecodeError) as caught:
            take(frame)  # type: ignore[operator]
        assert caught.value.cause == cause


# --- routing ----------------------------------------------------------------------------------------------------------
@families
def test_routing_takes_one_from_the_ttl_and_nothing_else(family: int) -> None:
    for ttl in range(256):
        for more in (b"", b"\1\1\1\0", b"\x94\4\0\0"):
            if more and family == 6:
                continue
            frame = packet(HERE[family], THERE[family], b"x" * 30, ttl=ttl, options=more)
            expected = packet(HERE[family], THERE[family], b"x" * 30, ttl=ttl - 1, options=more) if ttl > 1 else None
            assert ip.routed(frame) == expected
            assert ip.routed(frame + b"pad") == (expected + b"pad" if expected else None)


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4), st.integers(2, 255), st.integers(0, 255))
def test_the_header_checksum_is_right_whatever_is_in_it(src: bytes, dst: bytes, ttl: int, service: int) -> None:
    after = ip.routed(packet(src, dst, ttl=ttl, service=service))
    assert after is not None
    assert not ones(after[14:34])


# --- fragments --------------------------------------------------------------------------------------------------------
def together(frames: tuple[bytes, ...], mtu: int) -> tuple[int, bytes, bool]:
    """Offset, data and whether more follows, of fragments put together again as a receiver would."""
    parts = {}
    follows = {}
    for frame in frames:
        assert len(frame) - 14 <= mtu
        size = (frame[14] & 15) * 4
        assert not ones(frame[14 : 14 + size])
        total, ident, where = struct.unpack_from("!HHH", frame, 16)
        assert (total, ident, where & 0xC000) == (len(frame) - 14, 77, 0)
        data = frame[14 + size :]
        parts[(where & 0x1FFF) * 8] = data
        follows[(where & 0x1FFF) * 8] = bool(where & 0x2000)
    offsets = sorted(parts)
    for before, after in itertools.pairwise(offsets):
        assert before + len(parts[before]) == after
        assert follows[before]
    return offsets[0], b"".join(parts[at] for at in offsets), follows[offsets[-1]]


@given(
    st.integers(68, 2000),
    st.integers(0, 6000),
    st.sampled_from([0, 3, 200, 0x2000, 0x2010]),
    st.sampled_from([b"", b"\1\1\1\1", b"\x94\4\0\0", b"\7\7\4\0\0\0\0\1\x88\4\0\1", b"\x94\4\0\0" * 10]),
)
def test_fragments_are_the_packet(mtu: int, size: int, where: int, given_options: bytes) -> None:
    data = bytes(n % 251 for n in range(size // 8 * 8 if where & 0x2000 else size))
    frame = packet(HERE[4], THERE[4], data, where=where, options=given_options, service=0x28)
    frames = ip.fragment(frame + b"padding", mtu)
    assert together(frames, mtu) == ((where & 0x1FFF) * 8, data, bool(where & 0x2000))
    if len(frame) - 14 <= mtu:
        assert frames == (frame,)
    for n, part in enumerate(frames):
        assert part[:14] == frame[:14]
        assert part[15] == 0x28
        assert part[22:24] == frame[22:24]
        assert part[26:34] == frame[26:34]
        found = part[34 : 14 + (part[14] & 15) * 4]
        copied = b"\x88\4\0\1" if given_options[:1] == b"\7" else b"" if given_options[:1] == b"\1" else given_options
        assert found == (copied if n else given_options)


def test_what_must_stay_whole_stays_whole() -> None:
    for whole in (packet(HERE[4], THERE[4], bytes(1481)), packet(HERE[6], THERE[6], bytes(1461))):
        assert ip.fragment(whole, 1500) == ()
        assert ip.fragment(whole, 1501) == (whole,)


@pytest.mark.parametrize("bad", [b"\7\x20\4\0", b"\7\1\4\0", b"\1\1\1\7"])
def test_fragmenting_options_of_wrong_lengths(bad: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        ip.fragment(packet(HERE[4], THERE[4], bytes(100), where=0, options=bad), 80)
    assert caught.value.cause == "ip-format"


def test_no_link_has_such_an_mtu() -> None:
    for mtu in (67, 65536):
        with pytest.raises(ValueError, match="MTU"):
            ip.fragment(packet(HERE[4], THERE[4]), mtu)


# --- noise ------------------------------------------------------------------------------------------------------------
SAMPLES = (
    V4, V6, echo(4), echo(6), packet(HERE[4], THERE[4], bytes(300), where=0, options=b"\x94\4\0\0"),
    packet(HERE[6], THERE[6], options(44, piece(60, 1, options(58, bytes(80)))), 0),
)  # fmt: skip


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(12, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 400),
    st.booleans(),
)
def test_noise_raises_nothing_but_decode_errors(
    frame: bytes, changes: list[tuple[int, int]], cut: int, repaired: bool
) -> None:
    for at, value in changes:
        at %= len(frame)
        frame = changed(frame, at, value) if repaired else frame[:at] + bytes([value]) + frame[at + 1 :]
    frame = frame[: len(frame) - cut] if cut < 40 else frame
    for take in (
        ip.routed,
        lambda given: ip.fragment(given, 68),
        lambda given: icmp.time_exceeded(given, ROUTER, OWN),
        lambda given: icmp.unreachable(given, ROUTER, OWN, icmp.Unreachable.HOST),
        lambda given: icmp.packet_too_big(given, ROUTER, OWN, 68),
        lambda given: icmp.echo_reply(given, ROUTER, OWN),
    ):
        try:
            said = take(frame)  # type: ignore[operator]
        except DecodeError as error:
            assert error.cause.split("-")[0] in ("ip", "icmp")  # noqa: PT017 -- some are taken
        else:
            assert said is None or len(said) <= len(frame) + 1300
