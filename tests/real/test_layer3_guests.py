"""Tasks on real switches: one neighbor, the gateway, at every NVE the same; who reaches whom; what is answered."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import pytest
from proof import layer3, raw
from proof.capture import Capture
from proof.errors import TIME_EXCEEDED, TOO_BIG, UNREACHABLE, Sender, told
from proof.lab import Lab
from proof.raw import Card

from topologies import VM, netns
from topologies.netns import inside, run
from topologies.specs import GATEWAY_MAC

MTU = 1300  # of network `other`, whose guests have cards of 1450


@pytest.fixture(scope="module", params=["ipv4", "ipv6"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Over IPv6 the underlay is a router, and addresses of `mobile` go by ILA. All guests have been pinged from all."""
    with layer3.laboratory(request.param, routing=request.param == "ipv6", policies={"other": {"mtu": MTU}}) as made:
        yield made


def neighbors(vm: VM) -> dict[str, str]:
    """The neighbor entries of a guest's kernel: address and MAC, "" where it is not resolved."""
    found = json.loads(run(inside(vm.namespace, ["ip", "-json", "neigh"])))
    return {entry["dst"]: entry.get("lladdr", "") for entry in found}


def gateway(vm: VM) -> tuple[str, str]:
    assert vm.vn.gateway is not None
    assert vm.vn.gateway.ipv4
    assert vm.vn.gateway.ipv6
    return vm.vn.gateway.ipv4, vm.vn.gateway.ipv6


def pair(vm: VM, family: int) -> str:
    address = vm.spec.ip if family == 4 else vm.spec.ip6
    assert address
    return address


def hops_between(lab: Lab, source: VM, target: VM, family: int) -> int:
    """Routers on the way: the NVE where a packet enters; by ILA the underlay's are routers to it like any other."""
    ila = family == 6 and source.vn.sir is not None and target.vn.sir is not None and source.nve is not target.nve
    return 2 if ila and source.nve.router else 1


def test_guests_hold_one_neighbor_entry_in_each_family(lab: Lab) -> None:
    for vm in lab.net.vms:
        if vm.vn.kind == "l3":
            assert neighbors(vm) == dict.fromkeys(gateway(vm), GATEWAY_MAC), vm.name


@pytest.mark.parametrize("name", ["cli1", "cli2", "cli3", "far1", "far3", "desk1", "desk2"])
def test_the_gateway_is_the_same_at_every_nve(lab: Lab, name: str) -> None:
    vm = lab.vm(name)
    four, six = gateway(vm)
    own = raw.mac(vm.spec.mac)
    with Card(vm) as card:
        card.send(raw.arp(1, own, raw.ip(pair(vm, 4)), bytes(6), raw.ip(four)))
        frame = card.await_frame(lambda frame: raw.kind_of(frame) == raw.ARP and raw.ArpFields(frame).operation == 2)
        assert frame is not None
        answer = raw.ArpFields(frame)
        assert (answer.sha, answer.spa, answer.tha) == (raw.mac(GATEWAY_MAC), raw.ip(four), own)
        card.send(raw.solicitation(own, raw.ip(pair(vm, 6)), raw.ip(six)))
        frame = card.await_frame(lambda frame: raw.advertised(frame) is not None)
        assert frame is not None
        target, link, flags = raw.advertised(frame) or (b"", b"", 0)
        assert (target, link) == (raw.ip(six), raw.mac(GATEWAY_MAC))
        assert flags & 0x40, "not solicited"


@pytest.mark.parametrize("name", ["cli1", "cli3", "far2", "desk1"])
def test_the_gateway_answers_pings(lab: Lab, name: str) -> None:
    vm = lab.vm(name)
    for address in gateway(vm):
        scope = "%eth0" if address.startswith("fe80") else ""
        _, _, code = vm.pexec(["ping", "-c", "1", "-W", "2", address + scope])
        assert code == 0, address


def test_a_guest_that_holds_others_to_be_on_its_link_reaches_them_too(lab: Lab) -> None:
    """The gateway answers its questions for them, wherever they are; for its own address nobody answers."""
    vm = lab.vm("cli1")
    routes = ["route {} 10.1.0.0/16 dev eth0", "route {} 2001:db8:1::/48 dev eth0"]
    netns.ip_batch(vm.namespace, *(route.format("add") for route in routes))
    try:
        for other in (lab.vm("task1"), lab.vm("cli2"), lab.vm("cli3")):
            assert lab.net.ping([vm, other]) == 0.0
            assert {neighbors(vm)[pair(other, family)] for family in (4, 6)} == {GATEWAY_MAC}
        own = raw.mac(vm.spec.mac)
        with Card(vm) as card:  # as a probe of RFC 5227 asks whether the address is in use
            card.send(raw.arp(1, own, bytes(4), bytes(6), raw.ip(pair(vm, 4))))
            card.send(raw.arp(1, own, raw.ip(pair(vm, 4)), bytes(6), raw.ip(gateway(vm)[0])))
            frame = card.await_frame(lambda frame: raw.kind_of(frame) == raw.ARP)
        assert frame is not None
        assert raw.ArpFields(frame).spa == raw.ip(gateway(vm)[0])  # the first answer is to the second question
    finally:
        netns.ip_batch(vm.namespace, *(route.format("del") for route in routes), "neigh flush dev eth0")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("one", "other"),
    [("task1", "cli1"), ("cli1", "cli2"), ("cli1", "cli3"), ("desk1", "cli2"), ("cli3", "desk1"), ("far1", "far2"),
     ("far1", "cli3")],
)
def test_a_packet_is_routed_once(lab: Lab, one: str, other: str, family: int) -> None:
    """Its TTL is one less, whatever the way: same NVE, other NVE, other network, no or another encapsulation."""
    source, target = lab.vm(one), lab.vm(other)
    port = 33000
    with Card(target) as card, Sender(source, pair(target, family), hops=9, port=port) as sender:
        sender.send(40)
        kind = raw.IPV4 if family == 4 else raw.IPV6
        at = 14 + (20 if family == 4 else 40)
        frame = card.await_frame(
            lambda frame: raw.kind_of(frame) == kind and frame[at + 2 : at + 4] == port.to_bytes(2, "big")
        )
    assert frame is not None
    assert frame[22 if family == 4 else 21] == 9 - hops_between(lab, source, target, family)
    assert (frame[:6], frame[6:12]) == (raw.mac(target.spec.mac), raw.mac(GATEWAY_MAC))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("one", "other"), [("cli1", "cli2"), ("cli2", "far3"), ("desk1", "cli3"), ("far1", "far2")])
def test_a_packet_at_its_last_hop_is_reported_by_the_gateway(lab: Lab, one: str, other: str, family: int) -> None:
    source, target = lab.vm(one), lab.vm(other)
    answer = told(source, pair(target, family), hops=1)
    assert answer is not None
    assert (family, answer.type) in TIME_EXCEEDED
    assert answer.router == gateway(source)[family == 6]
    hops = 1 + hops_between(lab, source, target, family)
    far = told(source, pair(target, family), hops)  # arrives, where nobody listens at that port
    assert far is not None
    assert (family, far.type, far.router) == (*UNREACHABLE[family == 6], pair(target, family))


@pytest.mark.parametrize("address", ["10.1.2.77", "10.1.1.77", "10.99.0.1", "2001:db8:1:2::77", "2001:db8:99::1"])
def test_what_nobody_has_is_unreachable(lab: Lab, address: str) -> None:
    vm = lab.vm("cli1")
    answer = told(vm, address)
    assert answer is not None
    assert (answer.family, answer.type) in UNREACHABLE
    assert answer.router == gateway(vm)[":" in address]


def test_errors_are_limited(lab: Lab) -> None:
    """1,000 a second for an edge (question_rate), with as many at once: a scan is not answered packet by packet."""
    vm, sent = lab.vm("cli3"), 6000
    with Card(vm) as card, Sender(vm, "10.1.1.77") as sender:
        started = time.monotonic()
        for _ in range(sent):
            with contextlib.suppress(OSError):  # an error of before
                sender.send()
        answers = sum(raw.kind_of(frame) == raw.IPV4 and frame[23] == 1 for frame in card.during(1.0))
        seconds = time.monotonic() - started
    assert 0 < answers <= 1000 * (seconds + 1.5)
    assert answers < sent


def test_nothing_crosses_between_routers(lab: Lab) -> None:
    """`other` has the addresses of `tasks`, and other guests: 10.1.1.100 is cli1 to one and nobody to the other."""
    alien, client = lab.vm("alien1"), lab.vm("cli1")
    with Card(client) as card:
        for address in ("10.1.1.100", "2001:db8:1:1::64", "10.2.1.100", "10.3.0.1", "2001:db8:3::1"):
            answer = told(alien, address)
            assert answer is not None
            assert (answer.family, answer.type) in UNREACHABLE
        assert [frame for frame in card.during(0.3) if raw.mac(alien.spec.mac) in frame[:12]] == []
    assert told(client, pair(lab.vm("alien2"), 4)) is not None


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_that_is_too_big_tells_the_sender_how_big_it_may_be(lab: Lab, family: int) -> None:
    source, target = lab.vm("alien1"), lab.vm("alien2")
    to = pair(target, family)
    flush = ["ip", *(["-6"] if family == 6 else []), "route", "flush", "cache"]
    run(inside(source.namespace, flush))
    with Sender(source, to) as sender:
        sender.send(1350)
        answer = sender.told()
        assert answer is not None
        assert (family, answer.type) == TOO_BIG[family == 6]
        assert (answer.router, answer.mtu) == (gateway(source)[family == 6], MTU)
        with pytest.raises(OSError, match="Message too long"):
            sender.send(1350)  # the kernel has learned it
        learned = run(inside(source.namespace, ["ip", "route", "get", to]))
        assert f"mtu {MTU}" in learned
        sender.send(MTU - (28 if family == 4 else 48))
        arrived = sender.told()  # nobody listens there
        assert arrived is not None
        assert arrived.router == to


def test_what_may_be_fragmented_is_fragmented(lab: Lab) -> None:
    source, target = lab.vm("alien2"), lab.vm("alien1")
    run(inside(source.namespace, ["ip", "route", "flush", "cache"]))
    answer = told(source, pair(target, 4), size=1400, fragment=True)
    assert answer is not None  # it arrived whole: its port has nobody listening
    assert answer.router == pair(target, 4)


def test_tunnels_carry_no_ethernet_where_both_ends_can(lab: Lab) -> None:
    """nve3 has no such port: what is routed to and from it is carried by VXLAN."""
    with Capture(lab.net.nve("nve1")) as seen:
        for family in (4, 6):
            for one, other in (("cli1", "cli2"), ("cli1", "cli3"), ("far1", "far2")):
                assert told(lab.vm(one), pair(lab.vm(other), family)) is not None
        packets = [one for one in seen.stop() if one.inner and one.inner.ports]
    found = {(one.inner.dst, one.how) for one in packets if one.sent and one.inner}
    ila = lab.underlay != "ipv4"
    carriers = {"cli2": "gre", "cli3": "vxlan"}
    wanted = {(pair(lab.vm(name), family), how) for family in (4, 6) for name, how in carriers.items()}
    wanted.add((pair(lab.vm("far2"), 4), "gre"))
    wanted.add(("fd00:1:0:2::2:64", "plain") if ila else (pair(lab.vm("far2"), 6), "gre"))
    assert found >= wanted
    assert [one for one in packets if one.wrong] == []
    if ila:
        [moved] = [one for one in packets if one.sent and one.how == "plain" and one.inner and one.inner.protocol == 17]
        assert moved.outer.src == pair(lab.vm("far1"), 6)


def test_neither_broadcast_nor_multicast_is_carried(lab: Lab) -> None:
    source = lab.vm("cli1")
    own = raw.mac(source.spec.mac)
    with Card(lab.vm("cli2")) as far, Card(lab.vm("task1")) as near, Card(source) as card:
        card.send(raw.udp4(raw.BROADCAST, own, raw.ip(pair(source, 4)), raw.ip("255.255.255.255"), b"all" * 20))
        group = raw.ip("ff02::1")
        card.send(raw.udp6(b"\x33\x33\0\0\0\1", own, raw.ip(pair(source, 6)), group, b"all" * 20))
        card.send(raw.ethernet(raw.BROADCAST, own, 0x1234, b"all" * 20))
        time.sleep(0.2)
        assert [frame for other in (far, near) for frame in other.during(0.1) if b"allall" in frame] == []


def test_the_switches_hold_what_they_should(lab: Lab) -> None:
    assert lab.verify() == []
