"""Host names and servers, as people write them."""

from __future__ import annotations

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.dnsupdate import Server, parse_server, zone_of
from ryu_vmm.errors import InvalidInput
from ryu_vmm.hostnames import parse_hostname

LONGEST = ".".join(["a" * 63] * 3 + ["b" * 61])


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ("web.example.org", "web.example.org"),
        ("Web.EXAMPLE.org.", "web.example.org"),
        ("a", "a"),
        ("1.2.3.4.in-addr.arpa", "1.2.3.4.in-addr.arpa"),
        ("_task.x--y.example", "_task.x--y.example"),
        (LONGEST, LONGEST),
    ],
)
def test_names(given_: str, name: str) -> None:
    assert parse_hostname(given_) == name


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ("", "not a host name"),
        (".", "not a host name"),
        ("web..org", "not a host name"),
        ("-web.org", "not a host name"),
        ("web-.org", "not a host name"),
        ("*.example.org", "not a host name"),
        ("web example", "not a host name"),
        ("wéb.example", "in ASCII"),
        ("\u212a.example", "in ASCII"),  # the Kelvin sign, whose lower case is a k
        ("web.example.org\n", "not a host name"),
        ("a" * 64 + ".org", "not a host name"),
        (LONGEST + "c", "254 bytes"),
        ("10.0.0.1", "like an IPv4 address"),
        ("web..", "not a host name"),
    ],
)
def test_what_is_no_name(given_: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        parse_hostname(given_, "dns")
    assert caught.value.field == "dns"
    assert len(caught.value.message) < 300


@given(st.text(max_size=300))
def test_every_name_that_is_taken_is_one_for_the_domain_name_system(text: str) -> None:
    try:
        name = parse_hostname(text)
    except InvalidInput:
        return
    assert dns.name.from_text(name).to_text(omit_final_dot=True) == name == parse_hostname(name)


def test_the_longest_zone_that_fits() -> None:
    zones = ("org", "example.org", "ample.org")
    assert zone_of("web.example.org", zones) == "example.org"
    assert zone_of("example.org", zones) == "example.org"
    assert zone_of("sample.org", zones) == "org"
    assert zone_of("web.example.com", zones) is None
    assert zone_of("web.example.org", ()) is None


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", Server("192.0.2.1", 53)),
        (" 192.0.2.1:5353", Server("192.0.2.1", 5353)),
        ("2001:db8::1", Server("2001:db8::1", 53)),
        ("[2001:db8::1]", Server("2001:db8::1", 53)),
        ("[2001:db8:0::1]:5353", Server("2001:db8::1", 5353)),
    ],
)
def test_servers(text: str, server: Server) -> None:
    assert parse_server(text) == server
    assert parse_server(str(server)) == server


@pytest.mark.parametrize(
    "text",
    ["", "ns.example.org", "192.0.2.1:", "192.0.2.1:0x35", "192.0.2.1:65536", "192.0.2.1:0", "[2001:db8::1", "[::1]5"],
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_server(text)
