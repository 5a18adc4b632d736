"""Frames to fields and back: what the emulated switches and the oracle see in a packet."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.emulation import packets
from ryu_vmm.flows import FIELDS

macs = st.integers(0, 2**48 - 1)
words = st.integers(0, 2**16 - 1)
ttls = st.integers(0, 255)
v4 = st.integers(0, 2**32 - 1)
v6 = st.integers(0, 2**128 - 1)
ethernet = {"eth_dst": macs, "eth_src": macs}
arp = st.fixed_dictionaries(
    ethernet
    | {"eth_type": st.sampled_from([packets.ARP, packets.RARP]), "arp_op": st.integers(0, 255)}
    | {"arp_sha": macs, "arp_tha": macs, "arp_spa": v4, "arp_tpa": v4}
)
tag = {"vlan_vid": st.integers(0x1000, 0x1FFF)}
udp4 = st.fixed_dictionaries(
    ethernet
    | {"eth_type": st.just(packets.IPV4), "ip_proto": st.just(17)}
    | {"ip_ttl": ttls, "ipv4_src": v4, "ipv4_dst": v4, "udp_src": words, "udp_dst": words},
    optional=tag,
)
udp6 = st.fixed_dictionaries(
    ethernet
    | {"eth_type": st.just(packets.IPV6), "ip_proto": st.just(17)}
    | {"ip_ttl": ttls, "ipv6_src": v6, "ipv6_dst": v6, "udp_src": words, "udp_dst": words},
    optional=tag,
)
ndisc = {"eth_type": st.just(packets.IPV6), "ip_proto": st.just(58), "icmpv6_code": st.just(0), "ip_ttl": ttls}
ns = st.fixed_dictionaries(
    ethernet
    | ndisc
    | {"ipv6_src": v6, "ipv6_dst": v6, "icmpv6_type": st.just(135), "nd_target": v6, "nd_sll": macs}
    | {"nd_reserved": v4, "nd_options_type": st.just(1)}
)
na = st.fixed_dictionaries(
    ethernet
    | ndisc
    | {"ipv6_src": v6, "ipv6_dst": v6, "icmpv6_type": st.just(136), "nd_target": v6, "nd_tll": macs}
    | {"nd_reserved": v4, "nd_options_type": st.just(2)}
)
anything = st.one_of(arp, udp4, udp6, ns, na)
payloads = st.binary(max_size=9)


def checksums_of(frame: bytes) -> list[int]:
    """What the Internet checksum of everything that has one comes to: zeros, if all are right."""
    fields, l3, l4, end = packets._dissect(frame)
    found = []
    if fields.get("eth_type") == packets.IPV4:
        found.append(packets.checksum(frame[l3 : l3 + 20]))
        pseudo = frame[l3 + 12 : l3 + 20]
    elif fields.get("eth_type") == packets.IPV6:
        pseudo = frame[l3 + 8 : l3 + 40]
    if l4:
        found.append(packets.checksum(pseudo + struct.pack("!II", end - l4, fields["ip_proto"]) + frame[l4:end]))
    return found


@given(anything, payloads)
def test_a_built_frame_parses_to_its_fields_with_right_checksums(fields: dict[str, int], payload: bytes) -> None:
    frame = packets.build(fields, payload if "nd_target" not in fields else b"")
    assert packets.parse(frame) == fields
    assert set(checksums_of(frame)) <= {0}


@given(anything, payloads, st.data())
def test_a_rewritten_field_is_the_only_change_and_checksums_stay_right(
    fields: dict[str, int], payload: bytes, data: st.DataObject
) -> None:
    frame = packets.build(fields, payload if "nd_target" not in fields else b"")
    fixed = {"eth_type", "ip_proto", "vlan_vid", "icmpv6_type", "icmpv6_code", "nd_options_type"}
    name = data.draw(st.sampled_from(sorted(fields.keys() - fixed)))
    top = 255 if name == "arp_op" else (1 << 8 * FIELDS[name].width) - 1
    value = data.draw(st.integers(0, top))
    after = packets.rewrite(frame, name, value)
    if name.startswith("arp_") and fields["eth_type"] == packets.RARP:
        assert after == frame  # as Open vSwitch does
        return
    assert packets.parse(after) == fields | {name: value}
    assert set(checksums_of(after)) <= {0}
    assert packets.rewrite(after, name, fields[name]) == frame


@given(udp4, st.integers(0x1000, 0x1FFF))
def test_tags_are_put_on_changed_and_taken_off(fields: dict[str, int], vid: int) -> None:
    frame = packets.build(fields)
    tagged = packets.rewrite(frame, "vlan_vid", vid)
    assert packets.parse(tagged) == fields | {"vlan_vid": vid}
    bare = packets.rewrite(tagged, "vlan_vid", 0)
    assert packets.parse(bare) == {k: v for k, v in fields.items() if k != "vlan_vid"}


@given(st.binary(max_size=120))
def test_garbage_never_raises(frame: bytes) -> None:
    fields = packets.parse(frame)
    for name, value in fields.items():
        assert 0 <= value < 1 << 8 * FIELDS[name].width


@given(anything, st.data())
def test_a_truncated_frame_never_raises(fields: dict[str, int], data: st.DataObject) -> None:
    frame = packets.build(fields)
    parsed = packets.parse(frame[: data.draw(st.integers(0, len(frame)))])
    assert all(parsed[name] == fields[name] for name in parsed if name in ("eth_dst", "eth_src"))


def test_udp_without_a_checksum_keeps_none() -> None:
    frame = bytearray(packets.build({"ipv4_src": 1, "ipv4_dst": 2, "udp_src": 3, "udp_dst": 4}, b"x"))
    frame[40:42] = b"\0\0"
    assert packets.rewrite(bytes(frame), "ipv4_dst", 9)[40:42] == b"\0\0"


def test_later_fragments_have_no_ports() -> None:
    frame = bytearray(packets.build({"ipv4_src": 1, "ipv4_dst": 2, "udp_src": 3, "udp_dst": 4}, b"x"))
    frame[20:22] = b"\0\x05"
    found = packets.parse(bytes(frame))
    assert found.keys() - {"eth_dst", "eth_src", "eth_type"} == {
        *("ip_proto", "ip_frag", "ip_ttl", "ipv4_src", "ipv4_dst")
    }
    assert found["ip_frag"] == packets.FRAGMENT | packets.LATER


def test_extension_headers_are_stepped_over() -> None:
    plain = packets.build({"ipv6_src": 1, "ipv6_dst": 2, "udp_src": 3, "udp_dst": 4})
    hop_by_hop = bytes([17, 0]) + bytes(6)
    length = (8 + 8).to_bytes(2, "big")
    frame = plain[:18] + length + b"\0" + plain[21:54] + hop_by_hop + plain[54:]
    fields = packets.parse(frame)
    assert (fields["ip_proto"], fields["udp_src"], fields["udp_dst"]) == (17, 3, 4)


def test_an_option_of_no_length_hides_the_message() -> None:
    frame = packets.build({"icmpv6_type": 135, "nd_target": 5, "nd_sll": 6})
    at = frame.rindex(b"\x01\x01\0\0\0\0\0\x06")
    fields = packets.parse(frame[: at + 1] + b"\0" + frame[at + 2 :])
    assert fields["icmpv6_type"] == 135
    assert "nd_target" not in fields
    assert "nd_sll" not in fields


def test_a_field_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="arp_op"):
        packets.build({"eth_type": packets.IPV4, "arp_op": 1})
