"""What routers do to packets, on emulated tables: TTLs, packets that are too large, translated addresses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.emulation import packets
from ryu_vmm.emulation.rules import Refused
from ryu_vmm.emulation.tables import Dropped, Out, Tables, ToNva
from ryu_vmm.flows import CheckLarger, DecTtl, Flow, Match, Output, SetField, match, set_field
from ryu_vmm.flows import ToNva as ToNvaAction

V4 = match(eth_type=packets.IPV4)
V6 = match(eth_type=packets.IPV6)
NEW6 = bytes.fromhex("fd00000100000001") + bytes(7) + b"\5"


def udp(ttl: int = 64, size: int = 30, family: int = 4) -> bytes:
    fields = {"eth_dst": 2, "eth_src": 1, f"ipv{family}_src": 1, f"ipv{family}_dst": 2, "udp_src": 3, "udp_dst": 4}
    return packets.build(fields | {"ip_ttl": ttl}, bytes(range(size % 256)))


def flow(on: Match, *actions: object, table: int = 0, cookie: int = 0, goto: int | None = None) -> Flow:
    return Flow(table, 5, on, tuple(actions), goto, cookie=cookie)  # type: ignore[arg-type]


def transport(kind: str, family: int, payload: bytes) -> bytes:
    """A frame of TCP, UDP, ICMP or ICMPv6 whose checksum a second way of counting has made."""
    v6 = family == 6
    proto = {"tcp": 6, "udp": 17, "icmp": 58 if v6 else 1}[kind]
    src, dst = (bytes(15) + b"\1", bytes(15) + b"\2") if v6 else (b"\x0a\0\0\1", b"\x0a\0\0\2")
    head, at = {
        "tcp": (struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x18, 100, 0, 0), 16),
        "udp": (struct.pack("!HHHH", 1, 2, 8 + len(payload), 0), 6),
        "icmp": (struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 7, 1), 2),
    }[kind]
    data = bytearray(head + payload)
    covered = (b"" if proto == 1 else src + dst + struct.pack("!II", len(data), proto)) + data
    data[at : at + 2] = struct.pack("!H", ones(covered) or (0xFFFF if kind == "udp" else 0))
    if v6:
        ip = struct.pack("!IHBB", 6 << 28, len(data), proto, 64) + src + dst
    else:
        ip = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(data), 0, 64, proto, 0) + src + dst
        ip = ip[:10] + struct.pack("!H", ones(ip)) + ip[12:]
    return bytes.fromhex("020000000002020000000001") + (b"\x86\xdd" if v6 else b"\x08\0") + ip + data


def ones(data: bytes) -> int:
    """RFC 1071 by the remainder modulo 2**16 - 1, not by adding words."""
    number = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    return 0xFFFF - (number % 0xFFFF or (0xFFFF if number else 0))


def wrong_checksums(frame: bytes) -> list[str]:
    """Those of a frame with IP, and with UDP, TCP or ICMP in it, that do not add up."""
    v6 = frame[12:14] == b"\x86\xdd"
    l3 = frame[14:54] if v6 else frame[14:34]
    data = frame[14 + len(l3) :]
    proto = l3[6] if v6 else l3[9]
    pseudo = (l3[8:] if v6 else l3[12:]) + struct.pack("!II", len(data), proto)
    found = [] if v6 or not ones(l3) else ["ip"]
    return found + (["data"] if ones((b"" if proto == 1 else pseudo) + data) else [])


@pytest.mark.parametrize("family", [4, 6])
def test_a_ttl_goes_down_by_one_and_the_checksum_with_it(family: int) -> None:
    on = V4 if family == 4 else V6
    tables = Tables([flow(on, DecTtl(), Output(2))])
    for ttl in range(2, 256):
        assert tables.run(udp(ttl, family=family), 1) == [Out(2, frame=udp(ttl - 1, family=family))]


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_packet_at_the_end_of_its_life_goes_nowhere(ttl: int) -> None:
    """Neither the actions behind nor the tables behind see it; what was sent before is sent."""
    flows = [flow(V4, Output(3), DecTtl(), Output(2), goto=1, cookie=9), flow((), Output(4), table=1)]
    assert Tables(flows).run(udp(ttl), 1) == [Out(3, frame=udp(ttl))]
    assert Tables([flow(V4, DecTtl(), Output(2), goto=1, cookie=9), flows[1]]).run(udp(ttl), 1) == [Dropped(9)]


def test_a_ttl_can_be_matched_and_set() -> None:
    flows = [
        flow(match(eth_type=packets.IPV4, ip_ttl=1), ToNvaAction(0xFFFF), cookie=1),
        flow(match(eth_type=packets.IPV4, ip_ttl=64), set_field("ip_ttl", 7), goto=1),
        flow(match(eth_type=packets.IPV4, ip_ttl=7), Output(2), table=1),
    ]
    assert Tables(flows).run(udp(1), 1) == [ToNva(1)]
    assert Tables(flows).run(udp(64), 1) == [Out(2, frame=udp(7))]
    assert Tables(flows).run(udp(63), 1) == [Dropped(None)]


def test_a_packet_is_measured_with_its_ethernet_header() -> None:
    frame = udp(size=100)
    for length, port in ((len(frame) - 1, 3), (len(frame), 2), (len(frame) + 1, 2)):
        flows = [
            flow(V4, CheckLarger(length), goto=1),
            flow(match(reg0=(1, 1)), Output(3), table=1),
            flow(match(reg0=(0, 1)), Output(2), table=1),
        ]
        assert Tables(flows).run(frame, 1) == [Out(port, frame=frame)], length


def test_measuring_leaves_the_other_bits_of_the_register() -> None:
    large, small = CheckLarger(10), CheckLarger(1000)
    flows = [
        flow((), set_field("reg0", 0xF1), small, goto=1),
        flow(match(reg0=0xF0), large, ToNvaAction(0xFFFF), table=1),
    ]
    (seen,) = Tables(flows).run(udp(), 1)
    assert isinstance(seen, ToNva)
    assert seen.context["reg0"] == 0xF1


def test_a_register_is_nothing_that_a_packet_brings_along() -> None:
    flows = [flow(match(reg0=0), Output(2))]
    assert Tables(flows).run(udp(), 1) == [Out(2, frame=udp())]


@pytest.mark.parametrize(
    "bad",
    [
        flow((), DecTtl()),
        flow(match(eth_type=packets.ARP), DecTtl()),
        flow((), set_field("ip_ttl", 1)),
        flow(match(ip_ttl=1)),
        flow(match(eth_type=packets.IPV4, ip_ttl=(1, 3))),
    ],
)
def test_what_a_switch_refuses(bad: Flow) -> None:
    with pytest.raises(Refused):
        Tables([bad])


@given(st.sampled_from(["tcp", "udp", "icmp"]), st.sampled_from([4, 6]), st.binary(max_size=70), st.data())
def test_checksums_follow_translated_addresses(kind: str, family: int, payload: bytes, data: st.DataObject) -> None:
    """As the receiver's kernel would count them, whatever the payload's length."""
    frame = transport(kind, family, payload)
    assert wrong_checksums(frame) == []
    name = data.draw(st.sampled_from([f"ipv{family}_src", f"ipv{family}_dst"]))
    address = data.draw(st.binary(min_size=4 if family == 4 else 16, max_size=4 if family == 4 else 16))
    tables = Tables([flow(V4 if family == 4 else V6, SetField(name, address), DecTtl(), Output(2))])
    (out,) = tables.run(frame, 1)
    assert isinstance(out, Out)
    assert packets.parse(out.frame)[name] == int.from_bytes(address, "big")
    assert wrong_checksums(out.frame) == []


def test_a_later_fragment_is_translated_without_touching_its_data() -> None:
    data = bytes(range(64))
    fragment = bytes([17, 0]) + struct.pack("!HI", 8, 7) + data
    head = struct.pack("!IHBB", 6 << 28, len(fragment), 44, 64) + bytes(15) + b"\1" + bytes(15) + b"\2"
    frame = bytes(12) + b"\x86\xdd" + head + fragment
    (out,) = Tables([flow(V6, SetField("ipv6_dst", NEW6), Output(2))]).run(frame, 1)
    assert out == Out(2, frame=frame[:38] + NEW6 + frame[54:])


@pytest.mark.parametrize("left", [0, 1])
def test_a_packet_on_its_way_has_the_checksum_of_where_its_way_ends(left: int) -> None:
    """RFC 8200, section 8.1: the final destination's address is in the pseudo-header."""
    frame = transport("udp", 6, b"data")
    route = bytes([60, 2, 0, left, 0, 0, 0, 0]) + NEW6 + bytes([17, 0, 1, 4, 0, 0, 0, 0])
    size = struct.pack("!H", len(frame) - 54 + len(route))
    frame = frame[:18] + size + bytes([43]) + frame[21:54] + route + frame[54:]
    (out,) = Tables([flow(V6, SetField("ipv6_dst", NEW6), Output(2))]).run(frame, 1)
    assert isinstance(out, Out)
    changed = [n for n in range(54, len(frame)) if frame[n] != out.frame[n]]
    assert (changed == []) == bool(left)


def test_a_header_cut_short_keeps_its_checksum() -> None:
    frame = transport("tcp", 6, b"")
    short = frame[:18] + struct.pack("!H", 19) + frame[20:-1]
    (out,) = Tables([flow(V6, SetField("ipv6_dst", NEW6), Output(2))]).run(short, 1)
    assert out == Out(2, frame=short[:38] + NEW6 + short[54:])
