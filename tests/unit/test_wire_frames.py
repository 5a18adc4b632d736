"""Frames against known bytes, against each other, and against garbage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.errors import DecodeError
from ryu_vmm.wire import frames
from ryu_vmm.wire.frames import Kind

M1, M2 = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
A1, A2 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
V1 = bytes.fromhex("20010db8000000000000000000000001")
V2 = bytes.fromhex("20010db8000000000000000000000002")
LL = bytes.fromhex("fe800000000000000000000000000001")
ZERO4, ZERO6, NOBODY = bytes(4), bytes(16), bytes(6)
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
SOLICITED = bytes.fromhex("ff0200000000000000000001ff000001")
BROADCAST = b"\xff" * 6

# What ryu.lib.packet 4.34 serialises for the same content: an implementation that is not ours.
KNOWN_ARP_REPLY = bytes.fromhex("020000000002020000000001080600010800060400020200000000010a0000010200000000020a000002")
KNOWN_GARP = bytes.fromhex("ffffffffffff020000000001080600010800060400010200000000010a0000010000000000000a000001")
KNOWN_NS = bytes.fromhex(
    "3333ff00000102000000000286dd6000000000203aff20010db8000000000000000000000002ff0200000000000000000001"
    "ff00000187001c270000000020010db80000000000000000000000010101020000000002"
)
KNOWN_DAD = bytes.fromhex(
    "3333ff00000102000000000286dd6000000000183aff00000000000000000000000000000000ff0200000000000000000001"
    "ff00000187004ced0000000020010db8000000000000000000000001"
)
KNOWN_NA = bytes.fromhex(
    "02000000000202000000000186dd6000000000203aff20010db800000000000000000000000120010db80000000000000000"
    "0000000288008a736000000020010db80000000000000000000000010201020000000001"
)
KNOWN_UNSOLICITED = bytes.fromhex(
    "33330000000102000000000186dd6000000000203afffe800000000000000000000000000001ff0200000000000000000000"
    "000000018800579b20000000fe8000000000000000000000000000010201020000000001"
)

FRAMES = {
    "arp-request": (frames.build_arp_request(M1, A1, A2), Kind.ARP_REQUEST),
    "arp-reply": (frames.build_arp_reply(M1, A1, M2, A2), Kind.ARP_REPLY),
    "arp-probe": (frames.build_arp_request(M1, ZERO4, A1), Kind.ARP_PROBE),
    "garp-request": (frames.build_garp(M1, A1), Kind.GARP),
    "garp-reply": (frames.build_garp(M1, A1, request=False), Kind.GARP),
    "rarp-request": (frames.build_rarp_request(M1), Kind.RARP_REQUEST),
    "rarp-reply": (frames.build_rarp_reply(M1, A1, M2, A2), Kind.RARP_REPLY),
    "ns": (frames.build_ns(M2, V2, V1), Kind.NS),
    "dad": (frames.build_ns(M2, ZERO6, V1), Kind.DAD),
    "na": (frames.build_na(V1, M1, V2, M2), Kind.NA),
    "unsolicited": (frames.build_unsolicited_na(M1, LL), Kind.NA_UNSOLICITED),
    "taken": (frames.build_na_for_dad(V1, M1), Kind.NA_UNSOLICITED),
    "probe": (frames.build_probe(b"nonce", 1450), Kind.PROBE),
    "ipv4": (M1 + M2 + b"\x08\0" + bytes(46), Kind.OTHER),
    "ipv6": (M1 + M2 + b"\x86\xdd" + b"\x60" + bytes(60), Kind.OTHER),
    "llc": (M1 + M2 + b"\0\x26\x42\x42\3" + bytes(35), Kind.OTHER),
    "empty": (M1 + M2 + b"\x88\xcc", Kind.OTHER),
}


@pytest.mark.parametrize(("frame", "kind"), FRAMES.values(), ids=FRAMES)
def test_classify(frame: bytes, kind: Kind) -> None:
    assert frames.classify(frame) is kind
    if kind is not Kind.PROBE:
        assert frames.classify(frame + bytes(60)) is kind  # Ethernet pads


def test_every_kind_is_shown() -> None:
    assert {kind for _, kind in FRAMES.values()} == set(Kind)


def test_built_frames_equal_known_bytes() -> None:
    assert frames.build_arp_reply(M1, A1, M2, A2) == KNOWN_ARP_REPLY
    assert frames.build_garp(M1, A1) == KNOWN_GARP
    assert frames.build_ns(M2, V2, V1) == KNOWN_NS
    assert frames.build_ns(M2, ZERO6, V1) == KNOWN_DAD
    assert frames.build_na(V1, M1, V2, M2) == KNOWN_NA
    assert frames.build_unsolicited_na(M1, LL) == KNOWN_UNSOLICITED


def test_parse_known_bytes() -> None:
    assert frames.parse_arp(KNOWN_ARP_REPLY + bytes(18)) == (2, M1, A1, M2, A2, M1, M2)
    assert frames.parse_arp(KNOWN_GARP) == (1, M1, A1, NOBODY, A1, M1, BROADCAST)
    dst = b"\x33\x33\xff\0\0\1"
    assert frames.parse_nd(KNOWN_NS) == (135, V1, V2, SOLICITED, M2, 0, M2, dst)
    assert frames.parse_nd(KNOWN_DAD) == (135, V1, ZERO6, SOLICITED, None, 0, M2, dst)
    assert frames.parse_nd(KNOWN_NA) == (136, V1, V1, V2, M1, 0x60, M1, M2)
    assert frames.parse_nd(KNOWN_UNSOLICITED) == (136, LL, LL, ALL_NODES, M1, 0x20, M1, b"\x33\x33\0\0\0\1")


def test_reverse_arp() -> None:
    assert frames.parse_rarp(frames.build_rarp_request(M1)) == (3, M1, ZERO4, M1, ZERO4, M1, BROADCAST)
    assert frames.parse_rarp(frames.build_rarp_reply(M1, A1, M2, A2)) == (4, M1, A1, M2, A2, M1, M2)


# --- what must be refused -------------------------------------------------------------------------------------
def cause(parse: Callable[[bytes], object], frame: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        parse(frame)
    return caught.value.cause


def altered(frame: bytes, at: int, value: bytes) -> bytes:
    return frame[:at] + value + frame[at + len(value) :]


def summed(frame: bytes) -> bytes:
    """The frame with a right ICMPv6 checksum, computed the plain way (RFC 1071), word by word."""
    length = int.from_bytes(frame[18:20], "big")
    data = frame[22:56] + b"\0\0" + frame[58 : 54 + length] + bytes(length & 1) + bytes([0, 58]) + frame[18:20]
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return altered(frame, 56, (total ^ 0xFFFF).to_bytes(2, "big"))


def test_refused_arp() -> None:
    good = frames.build_arp_request(M1, A1, A2)
    assert cause(frames.parse_arp, good[:41]) == "arp-truncated"
    assert cause(frames.parse_arp, altered(good, 14, b"\0\6")) == "arp-format"  # hardware type
    assert cause(frames.parse_arp, altered(good, 18, b"\x08")) == "arp-format"  # address length
    assert cause(frames.parse_arp, altered(good, 20, b"\0\0")) == "arp-format"  # operations
    assert cause(frames.parse_arp, altered(good, 20, b"\0\3")) == "arp-format"
    assert cause(frames.parse_arp, altered(good, 22, BROADCAST)) == "arp-sender"
    assert cause(frames.parse_arp, altered(good, 22, NOBODY)) == "arp-sender"
    assert cause(frames.parse_arp, altered(good, 6, BROADCAST)) == "arp-sender"
    assert cause(frames.parse_rarp, good) == "rarp-format"
    assert cause(frames.parse_rarp, b"") == "rarp-truncated"
    assert cause(frames.parse_nd, good + bytes(60)) == "nd-format"


@pytest.mark.parametrize("length", [0, 1, 12, 13])
def test_refused_without_an_ethernet_header(length: int) -> None:
    assert cause(frames.classify, bytes(length)) == "frame-truncated"


@pytest.mark.parametrize("tag", ["8100", "88a8", "9100"])
def test_refused_with_a_tag(tag: str) -> None:
    good = frames.build_arp_request(M1, A1, A2)
    tagged = good[:12] + bytes.fromhex(tag) + b"\0\5" + good[12:]
    assert cause(frames.classify, tagged) == "vlan-tagged"
    assert cause(frames.parse_arp, tagged) == "arp-format"


ND = {
    "nd-format": [
        altered(KNOWN_NS, 14, b"\x40"),  # version
        altered(KNOWN_NS, 20, b"\x3b"),  # next header
        altered(KNOWN_NS, 54, b"\x85"),  # router solicitation
        altered(KNOWN_NS, 55, b"\1"),  # code
    ],
    "nd-hop-limit": [altered(KNOWN_NS, 21, b"\xfe")],
    "nd-checksum": [
        altered(KNOWN_NS, 56, b"\1\1"),
        altered(KNOWN_NA, 70, b"\1"),
        altered(KNOWN_NA, 58, b"\0"),
    ],
    "nd-truncated": [
        KNOWN_NS[:77],
        KNOWN_NS[:-1],
        altered(KNOWN_NS, 18, b"\0\x17"),
        altered(KNOWN_NS, 18, b"\xff\xff"),
    ],
    "nd-option": [
        summed(altered(KNOWN_NS, 79, b"\0")),  # length zero
        summed(altered(KNOWN_NS, 79, b"\2")),  # longer than the message
        summed(altered(KNOWN_NS, 80, b"\3")),  # group address
        summed(altered(KNOWN_NS + bytes(1), 18, b"\0\x21")),  # odd end
        summed(altered(KNOWN_NS[:78], 18, b"\0\x28") + b"\1\2" + M1 + bytes(8)),  # not of Ethernet
    ],
    "nd-address": [
        summed(altered(KNOWN_NS, 62, ALL_NODES)),  # target is a group
        summed(altered(KNOWN_NS, 22, ZERO6)),  # no source, yet a link-layer address
        summed(altered(KNOWN_DAD, 38, ALL_NODES)),  # no source, not to the solicited-node group
        summed(altered(KNOWN_NS, 22, ALL_NODES)),  # source is a group
        summed(altered(KNOWN_NA, 38, ALL_NODES)),  # solicited, to a group
        summed(altered(KNOWN_NA, 22, ZERO6)),
        altered(KNOWN_NS, 6, BROADCAST),
    ],
}


@pytest.mark.parametrize(("expected", "frame"), [(name, frame) for name, all_ in ND.items() for frame in all_])
def test_refused_nd(expected: str, frame: bytes) -> None:
    assert cause(frames.parse_nd, frame) == expected


def test_nd_with_other_options_and_an_odd_number_of_bytes() -> None:
    nonce = b"\x0e\1" + b"nonce!"  # RFC 3971; precedes the one that is wanted
    frame = KNOWN_NS[:78] + nonce + KNOWN_NS[78:]
    assert frames.parse_nd(summed(altered(frame, 18, b"\0\x28"))).lladdr == M2
    bare = summed(altered(KNOWN_NS[:78], 18, b"\0\x18"))
    assert frames.parse_nd(bare).lladdr is None


# --- properties -----------------------------------------------------------------------------------------------
macs = st.binary(min_size=6, max_size=6).map(lambda mac: bytes([mac[0] & 0xFE | 2]) + mac[1:])
ipv4s = st.binary(min_size=4, max_size=4)
ipv6s = st.binary(min_size=15, max_size=15).map(lambda tail: b"\x20" + tail)


def outcome(parse: Callable[[bytes], object], frame: bytes) -> object:
    """What ``parse`` returns, or the cause of its refusal; any other exception fails the test."""
    try:
        return parse(frame)
    except DecodeError as error:
        return error.cause


PARSERS = (frames.classify, frames.parse_arp, frames.parse_rarp, frames.parse_nd, frames.parse_probe)


@given(macs, ipv4s, macs, ipv4s)
def test_arp_round_trip(sha: bytes, spa: bytes, tha: bytes, tpa: bytes) -> None:
    frame = frames.build_arp_reply(sha, spa, tha, tpa)
    assert frames.parse_arp(frame) == (2, sha, spa, tha, tpa, sha, tha)


@given(ipv6s, macs, ipv6s, macs, st.sampled_from([0, 0x20, 0x40, 0x60, 0xE0]))
def test_na_round_trip(target: bytes, mac: bytes, dst: bytes, eth_dst: bytes, flags: int) -> None:
    frame = frames.build_na(target, mac, dst, eth_dst, flags)
    assert frame == summed(frame)
    assert frames.parse_nd(frame) == (136, target, target, dst, mac, flags, mac, eth_dst)


@given(macs, ipv6s, ipv6s)
def test_ns_round_trip(mac: bytes, src: bytes, target: bytes) -> None:
    frame = frames.build_ns(mac, src, target)
    assert frame == summed(frame)
    assert frames.parse_nd(frame)[:5] == (135, target, src, SOLICITED[:13] + target[13:], mac)


@given(st.binary(min_size=1, max_size=40), st.integers(*frames.PROBE_MTU))
def test_probe_round_trip(nonce: bytes, mtu: int) -> None:
    frame = frames.build_probe(nonce, mtu)
    assert len(frame) == mtu + 14
    assert frame[:6] != frame[6:12]
    assert frame[0] & 3 == frame[6] & 3 == 2
    assert frames.parse_probe(frame) == nonce


@given(st.integers(0, 1463), st.integers(1, 255))
def test_probe_notices_any_change(at: int, change: int) -> None:
    good = frames.build_probe(b"nonce", 1450)
    bad = altered(good, at, bytes([good[at] ^ change]))
    found = outcome(frames.parse_probe, bad)
    assert found != b"nonce"
    assert isinstance(found, bytes) or str(found).startswith("probe-")


@pytest.mark.parametrize(("nonce", "mtu"), [(b"", 1450), (b"x" * 57, 64), (b"x", 63), (b"x", 9217)])
def test_impossible_probes(nonce: bytes, mtu: int) -> None:
    with pytest.raises(ValueError, match="probe"):
        frames.build_probe(nonce, mtu)


@given(st.sampled_from([frame for frame, _ in FRAMES.values()]), st.data())
def test_garbage_raises_nothing_but_decode_errors(frame: bytes, data: st.DataObject) -> None:
    frame = frame[: data.draw(st.integers(0, len(frame)))]
    for at, value in data.draw(st.lists(st.tuples(st.integers(12, 90), st.integers(0, 255)), max_size=4)):
        if at < len(frame):
            frame = altered(frame, at, bytes([value]))
    for parse in PARSERS:
        assert outcome(parse, frame) != ""


@pytest.mark.parametrize("frame", [frame for frame, kind in FRAMES.values() if kind is not Kind.OTHER])
def test_no_truncated_frame_is_taken_for_the_whole(frame: bytes) -> None:
    kind = frames.classify(frame)
    for length in range(len(frame)):
        assert outcome(frames.classify, frame[:length]) not in (kind, "")
