"""What a port may send: what only routers and DHCP servers may say, and what hides what it says."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from forged import LL1, LL2, advertisement, dhcp4, dhcp6, icmp4, icmpv6, in_fragments, ipv6_frame, solicitation
from world import World, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.model import Admit, Allowed, Interface, Network, Policy
from ryu_vmm.tables import Drop, Why, cookie, why_of
from ryu_vmm.wire import frames

Cases = dict[str, tuple[Drop, bytes]]
ALL = ip("ff02::1")
OWN6, OTHER6 = ip("2001:db8::1"), ip("2001:db8::2")
REDIRECT6 = icmpv6(1, LL1, OTHER6, 137, bytes(36))
RA = icmpv6(1, LL1, ALL, 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0))
FROM_ROUTERS = {
    "router advertisement": (Drop.ROUTER_ADVERTISEMENT, RA),
    "router advertisement in a fragment of its own": (
        Drop.ROUTER_ADVERTISEMENT,
        ipv6_frame(1, LL1, ALL, 44, b"\x3a\0\0\0\0\0\0\7" + RA[54:]),
    ),
    "router advertisement behind options": (
        Drop.ROUTER_ADVERTISEMENT,
        ipv6_frame(1, LL1, ALL, 60, b"\x3a\0\1\4\0\0\0\0" + RA[54:]),
    ),
    "ICMPv6 redirect": (Drop.ICMP_REDIRECT, REDIRECT6),
    "ICMP router advertisement": (Drop.ROUTER_ADVERTISEMENT, icmp4(1, 9)),
    "ICMP redirect": (Drop.ICMP_REDIRECT, icmp4(1, 5)),
}
FROM_SERVERS = {
    "DHCP offer": (Drop.DHCP_SERVER, dhcp4(1, 67, 68)),
    "DHCP offer from another port": (Drop.DHCP_SERVER, dhcp4(1, 6767, 68)),
    "DHCP relayed": (Drop.DHCP_SERVER, dhcp4(1, 67, 67)),
    "DHCPv6 advertisement": (Drop.DHCP_SERVER, dhcp6(1, LL1, 547, 546)),
    "DHCPv6 from another port": (Drop.DHCP_SERVER, dhcp6(1, LL1, 5470, 546)),
}
NEVER = {
    "advertisement in fragments": (Drop.FRAGMENTED_ND, in_fragments(advertisement(1, OWN6, OTHER6, mac(1)), 58)[0]),
    "router advertisement in fragments": (Drop.FRAGMENTED_ND, in_fragments(RA, 58)[0]),
    "a fragment that hides ICMPv6": (
        Drop.FRAGMENTED_ND,
        ipv6_frame(1, OWN6, ALL, 44, b"\x3c\0\0\1\0\0\0\7" + b"\x3a\0\1\4\0\0\0\0"),
    ),
    "headers that end nowhere": (Drop.BROKEN_HEADERS, ipv6_frame(1, OWN6, ALL, 60, b"\x3a\x09\1\4\0\0\0\0")),
    "a fragment whose headers end in another": (
        Drop.BROKEN_HEADERS,
        ipv6_frame(1, OWN6, ALL, 44, b"\x3c\0\0\1\0\0\0\7" + b"\x3a\4\1\4\0\0\0\0"),
    ),
    "an echo from nowhere": (Drop.SPOOFED_ADDRESS, icmpv6(1, bytes(16), OTHER6, 128, bytes(4))),
    "an advertisement from nowhere": (Drop.SPOOFED_ND, advertisement(1, bytes(16), OTHER6, mac(1))),
    "a solicitation in another's name": (Drop.SPOOFED_ND, solicitation(1, OTHER6, ip("2001:db8::9"), mac(1))),
    "a solicitation with another's MAC": (Drop.SPOOFED_ND, solicitation(1, OWN6, ip("2001:db8::9"), mac(2))),
    "an advertisement of another's": (Drop.SPOOFED_ND, advertisement(1, OWN6, OTHER6, mac(1))),
    "an advertisement of another's link-local": (Drop.SPOOFED_ND, advertisement(1, OWN6, LL2, mac(1))),
    "an advertisement of another code": (Drop.SPOOFED_ND, advertisement(1, OWN6, OTHER6, mac(1), code=1)),
    "another's mapped address": (Drop.SPOOFED_ADDRESS, icmpv6(1, ip("::ffff:10.0.0.2"), OTHER6, 128, bytes(4))),
    "the loopback address": (Drop.SPOOFED_ADDRESS, icmpv6(1, ip("::1"), OTHER6, 128, bytes(4))),
    "a multicast address": (Drop.SPOOFED_ADDRESS, icmpv6(1, ALL, OTHER6, 128, bytes(4))),
    "another's link-local address": (Drop.SPOOFED_ADDRESS, icmpv6(1, LL2, OTHER6, 128, bytes(4))),
}
HONEST = {
    "duplicate address detection": frames.build_ns(mac(1), bytes(16), OWN6),
    "of the link-local address": frames.build_ns(mac(1), bytes(16), LL1),
    "router solicitation from nowhere": icmpv6(1, bytes(16), ip("ff02::2"), 133, bytes(4)),
    "router solicitation": icmpv6(1, LL1, ip("ff02::2"), 133, bytes(4) + b"\1\1" + mac(1)),
    "listener report from nowhere": icmpv6(1, bytes(16), ip("ff02::16"), 143, bytes(4), options=True),
    "listener report": icmpv6(1, LL1, ip("ff02::16"), 143, bytes(4), options=True),
    "echo in fragments": in_fragments(icmpv6(1, OWN6, OTHER6, 128, bytes(44)), 58)[0],
    "its second fragment": in_fragments(icmpv6(1, OWN6, OTHER6, 128, bytes(44)), 58)[1],
    "advertisement": advertisement(1, LL1, OWN6, mac(1)),
    "advertisement of the link-local address": advertisement(1, LL1, LL1, mac(1)),
    "DHCP discovery": dhcp4(1, 68, 67, src=bytes(4)),
    "DHCP renewal": dhcp4(1, 68, 67),
    "DHCPv6 solicitation": dhcp6(1, LL1, 546, 547),
    "ARP probe": frames.build_arp_request(mac(1), bytes(4), ip("10.0.0.1")),
    "echo": icmp4(1, 8),
}


def three(policy: Policy | None = None, **settings: object) -> World:
    w = World(2, **settings)  # type: ignore[arg-type]
    w.network(policy=policy)
    for n, nve in ((1, "n1"), (2, "n1"), (3, "n2")):
        w.vm(n, nve)
    return w


def dropped(w: World, nve: str = "n1") -> dict[Drop, int]:
    """What an NVE has dropped so far, by cause."""
    found: dict[Drop, int] = {}
    for entry in w.boxes[nve].tables.select(cookie=cookie(Why.DROP), cookie_mask=0xFFFFFF << 40):
        about = why_of(entry.cookie)
        assert about is not None
        found[Drop(about[1])] = found.get(Drop(about[1]), 0) + entry.packets
    return {cause: count for cause, count in found.items() if count}


@pytest.mark.parametrize("name", [*FROM_ROUTERS, *FROM_SERVERS, *NEVER])
@pytest.mark.parametrize("meters", [True, False])
def test_what_no_port_may_send_reaches_nobody(name: str, meters: bool) -> None:
    w = three(meters=meters)
    cause, frame = {**FROM_ROUTERS, **FROM_SERVERS, **NEVER}[name]
    assert w.send("n1", "tap-vm1", frame) == []
    assert dropped(w) == {cause: 1}
    assert w.send("n2", "tap-vm3", frame) == []  # in another's name besides


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("admit", Admit)
def test_what_every_guest_sends_passes(name: str, admit: Admit) -> None:
    w = three(Policy(admit=admit))
    assert {port for _, port in w.send("n1", "tap-vm1", HONEST[name])} >= {"tap-vm2"}
    assert dropped(w) == {}


@pytest.mark.parametrize("admit", Admit)
@pytest.mark.parametrize("whose", ["interface", "network"])
@pytest.mark.parametrize(
    ("allowed", "cases", "others"),
    [(Allowed.ROUTER, FROM_ROUTERS, FROM_SERVERS), (Allowed.DHCP_SERVER, FROM_SERVERS, FROM_ROUTERS)],
)
def test_who_is_allowed_may(admit: Admit, whose: str, allowed: Allowed, cases: Cases, others: Cases) -> None:
    w = three(Policy(admit=admit))
    if whose == "network":
        w.handle(ev.NetworkSubmitted(Network("blue", 100, Policy(admit=admit, allow=(allowed,)))))
    else:
        allow(w, allowed)
    for name, (_, frame) in cases.items():
        assert ("n1", "tap-vm2") in w.send("n1", "tap-vm1", frame), name
    for name, (_, frame) in others.items():
        assert w.send("n1", "tap-vm1", frame) == [], name
    assert w.differences() == []
    assert bool(w.send("n2", "tap-vm3", dhcp4(3, 67, 68))) is (whose == "network" and allowed is Allowed.DHCP_SERVER)


def allow(w: World, *allowed: Allowed) -> None:
    """Register vm1 again, with what it may do."""
    i = w.nva.state.interfaces["vm1/eth0"]
    w.handle(ev.VmSubmitted("vm1", (dataclasses.replace(i, allow=allowed),)))


def test_who_forwards_sends_in_others_names_but_announces_its_own() -> None:
    w = three()
    passing = icmpv6(1, ip("2001:db8:9::9"), OTHER6, 128, bytes(4))
    passing4 = unicast(1, 2).replace(ip("10.0.0.1"), ip("192.0.2.1"))
    for frame in (passing, passing4):
        assert w.send("n1", "tap-vm1", frame) == []
    allow(w, Allowed.FORWARD)
    for frame in (passing, passing4):
        assert w.send("n1", "tap-vm1", frame) == [("n1", "tap-vm2")]
    for name in ("a solicitation in another's name", "an advertisement of another's", "an advertisement from nowhere"):
        assert w.send("n1", "tap-vm1", NEVER[name][1]) == [], name
    assert w.send("n1", "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.2"))) == []
    assert w.send("n1", "tap-vm1", RA) == []
    allow(w)
    assert w.send("n1", "tap-vm1", passing) == []
    assert w.differences() == []


def test_a_tag_inside_the_tunnel_reaches_nobody() -> None:
    w = three()
    tagged = unicast(1, 3)[:12] + b"\x81\0\0\5" + unicast(1, 3)[12:]
    peer = w.boxes["n1"].nve.ipv4
    assert [type(r).__name__ for r in w.boxes["n2"].tables.run(tagged, 1, 100, peer)] == ["Dropped"]
    assert [type(r).__name__ for r in w.boxes["n2"].tables.run(unicast(1, 3), 1, 100, peer)] == ["Out"]
    assert dropped(w, "n2") == {Drop.VLAN_TAGGED: 1}


def test_flows_for_each_port_are_few() -> None:
    """What is common to all ports is there once: 100,000 VMs have as many times this."""
    w = three()
    before = len(w.boxes["n1"].tables)
    w.vm(9, "n1")
    assert len(w.boxes["n1"].tables) - before <= 32
    assert isinstance(w.nva.state.interfaces["vm9/eth0"], Interface)
