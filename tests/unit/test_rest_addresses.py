"""Text of addresses, both ways, and everything that must be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.addresses import (
    format_dpid,
    format_ip,
    format_mac,
    parse_dpid,
    parse_ip,
    parse_ipv4,
    parse_ipv6,
    parse_mac,
)
from ryu_vmm.errors import InvalidInput


@given(st.binary(min_size=6, max_size=6).filter(lambda m: any(m) and not m[0] & 1))
def test_mac_round_trip(mac: bytes) -> None:
    assert parse_mac(format_mac(mac)) == mac
    assert parse_mac(format_mac(mac).upper().replace(":", "-")) == mac


@given(st.ip_addresses(v=6).filter(lambda a: not a.is_multicast and int(a) >> 32 not in (0, 0xFFFF)))
def test_ipv6_round_trip(address: object) -> None:
    assert format_ip(parse_ipv6(str(address))) == str(address)
    assert parse_ip(str(address)) == parse_ipv6(str(address))


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_ipv4_round_trip(address: object) -> None:
    assert format_ip(parse_ipv4(str(address))) == str(address)
    assert parse_ip(str(address)) == parse_ipv4(str(address))


@given(st.integers(1, 2**64 - 1))
def test_dpid_round_trip(dpid: int) -> None:
    assert parse_dpid(format_dpid(dpid)) == dpid
    assert parse_dpid(hex(dpid)) == dpid


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_mac, ""),
        (parse_mac, "02:00:00:00:00"),
        (parse_mac, "02:00:00:00:00:00:00"),
        (parse_mac, "2:0:0:0:0:1"),
        (parse_mac, "02:00-00:00-00:01"),
        (parse_mac, "02:00:00:00:00:0g"),
        (parse_mac, "02:00:00:00:00:01\n"),
        (parse_mac, "00:00:00:00:00:00"),
        (parse_mac, "01:00:5e:00:00:01"),
        (parse_mac, "ff:ff:ff:ff:ff:ff"),
        (parse_mac, 42),
        (parse_mac, None),
        (parse_ipv4, "10.0.0"),
        (parse_ipv4, "10.0.0.01"),
        (parse_ipv4, "10.0.0.1/24"),
        (parse_ipv4, " 10.0.0.1"),
        (parse_ipv4, "0.0.0.0"),
        (parse_ipv4, "0.1.2.3"),
        (parse_ipv4, "127.0.0.1"),
        (parse_ipv4, "224.0.0.1"),
        (parse_ipv4, "255.255.255.255"),
        (parse_ipv4, "2001:db8::1"),
        (parse_ipv4, 167772161),
        (parse_ipv6, "::"),
        (parse_ipv6, "::1"),
        (parse_ipv6, "ff02::1"),
        (parse_ipv6, "::ffff:10.0.0.1"),
        (parse_ipv6, "fe80::1%eth0"),
        (parse_ipv6, "2001:db8::1/64"),
        (parse_ipv6, "10.0.0.1"),
        (parse_ipv6, None),
        (parse_ip, ""),
        (parse_ip, "localhost"),
        (parse_ip, 1),
        (parse_dpid, "0"),
        (parse_dpid, ""),
        (parse_dpid, "0x"),
        (parse_dpid, "10000000000000000"),
        (parse_dpid, "-1"),
        (parse_dpid, "nve1"),
        (parse_dpid, 1),
    ],
)
def test_refused(parse, text: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(text, field="x.y")
    assert refused.value.field == "x.y"
    assert refused.value.message


def test_long_text_is_not_echoed_whole() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_mac("0" * 100_000)
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("wrong", [b"", b"\x00" * 5, b"\x00" * 7])
def test_format_wants_the_right_width(wrong: bytes) -> None:
    with pytest.raises(ValueError):
        format_mac(wrong)
    with pytest.raises(ValueError):
        format_ip(wrong)
    with pytest.raises(ValueError):
        format_dpid(2**64)
