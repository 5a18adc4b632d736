"""Layer 3 networks: every NVE is the router of its guests, by tunnel, without Ethernet, and by ILA."""

from __future__ import annotations

from dataclasses import replace

import pytest
from l3town import SIR, VNI, Layer3, well_formed
from outside import GATEWAY, ILA, ROUTED, TUNNEL, locator, packet
from world import World, ip, mac

from ryu_vmm import events as ev
from ryu_vmm.emulation.tables import Dropped
from ryu_vmm.errors import Conflict, InvalidInput
from ryu_vmm.model import Gateway, Interface, Network, Place, Policy
from ryu_vmm.tables import Drop, Why, cookie
from ryu_vmm.wire import frames
from ryu_vmm.wire.ip import parse_ip


@pytest.fixture
def world() -> Layer3:
    return Layer3()


def _arp(who: Interface, target: bytes) -> bytes:
    return frames.build_arp_request(who.mac, who.ipv4[0], target)


@pytest.mark.parametrize("nve", ["n1", "n2", "n3"])
def test_every_nve_answers_for_the_gateway(world: Layer3, nve: str) -> None:
    task = world.task(1, nve)
    world.send(nve, "tap-t1", _arp(task, GATEWAY.ipv4 or b""))
    assert world.out[-1][:2] == (nve, "tap-t1")
    assert frames.parse_arp(world.last()).sha == GATEWAY.mac
    world.send(nve, "tap-t1", frames.build_ns(task.mac, task.ipv6[0], GATEWAY.ipv6 or b""))
    answer = frames.parse_nd(world.last())
    assert (answer.target, answer.lladdr) == (GATEWAY.ipv6, GATEWAY.mac)


def test_the_gateway_is_asked_again_without_shouting(world: Layer3) -> None:
    task = world.task(1, "n1")
    request = GATEWAY.mac + _arp(task, GATEWAY.ipv4 or b"")[6:]
    world.send("n1", "tap-t1", request)
    assert frames.parse_arp(world.last()).spa == GATEWAY.ipv4
    solicitation = frames.build_ns(task.mac, task.ipv6[0], GATEWAY.ipv6 or b"")
    world.send("n1", "tap-t1", GATEWAY.mac + solicitation[6:])
    assert frames.parse_nd(world.last()).lladdr == GATEWAY.mac


def test_the_gateway_answers_for_everybody_else_but_nobody_for_oneself(world: Layer3) -> None:
    one, two = world.task(1, "n1"), world.task(2, "n2")
    for asked in (two.ipv4[0], ip("10.1.1.77")):
        world.send("n1", "tap-t1", _arp(one, asked))
        assert frames.parse_arp(world.last()).sha == GATEWAY.mac
    world.send("n1", "tap-t1", frames.build_ns(one.mac, one.ipv6[0], two.ipv6[0]))
    assert frames.parse_nd(world.last()).lladdr == GATEWAY.mac
    before = len(world.out)
    world.send("n1", "tap-t1", _arp(one, one.ipv4[0]))
    world.send("n1", "tap-t1", frames.build_ns(one.mac, bytes(16), one.ipv6[0]))
    world.send("n1", "tap-t1", _arp(one, ip("192.0.2.1")))
    assert len(world.out) == before


def _pairs(one: Interface, two: Interface) -> list[bytes]:
    return [two.ipv4[0], two.ipv6[0], two.ipv6[1]]


@pytest.mark.parametrize("there", ["n1", "n2"])
@pytest.mark.parametrize("kind", [0, 1, 2], ids=["ipv4", "ipv6", "ila"])
def test_a_packet_is_routed_once(world: Layer3, there: str, kind: int) -> None:
    one, two = world.task(1, "n1"), world.task(2, there)
    dst = _pairs(one, two)[kind]
    assert world.hops(one, dst) == [(there, "tap-t2")]
    frame = world.last()
    found = parse_ip(frame)
    assert (frame[:6], frame[6:12]) == (two.mac, GATEWAY.mac)
    assert (found.dst, found.ttl) == (dst, 63)
    assert well_formed(frame)


def test_each_kind_takes_its_way(world: Layer3) -> None:
    one, two = world.task(1, "n1"), world.task(2, "n2")
    for dst, way in zip(_pairs(one, two), (ROUTED, ROUTED, ILA), strict=True):
        place = Place("n1", "tap-t1")
        box = world.boxes[place.nve]
        results = box.tables.run(world.sent(one, dst), in_port=box.ports[place.port], now=world.now)
        assert [out.port for out in results] == [way]  # type: ignore[union-attr]
        if way == ILA:
            wire = parse_ip(results[0].frame)  # type: ignore[union-attr]
            assert wire.dst == locator(2) + two.ipv6[1][8:]
            assert wire.src == one.ipv6[1]
            assert well_formed(results[0].frame)  # type: ignore[union-attr]


def test_without_a_port_for_it_packets_keep_their_ethernet_header() -> None:
    world = Layer3()
    world.handle(ev.NveSubmitted(replace(world.boxes["n2"].nve, routed_port=None)))
    one, two = world.task(1, "n1"), world.task(2, "n2")
    results = world.boxes["n1"].tables.run(world.sent(one, two.ipv4[0]), in_port=world.boxes["n1"].ports["tap-t1"])
    assert [out.port for out in results] == [TUNNEL]  # type: ignore[union-attr]
    assert world.hops(one, two.ipv4[0]) == [("n2", "tap-t2")]
    assert world.hops(two, one.ipv4[0]) == [("n1", "tap-t1")]


def test_a_port_that_goes_is_no_longer_used(world: Layer3) -> None:
    one, two = world.task(1, "n1"), world.task(2, "n2")
    for port in ("gre", "ila"):
        number = world.boxes["n2"].ports[port]
        world.handle(ev.PortChanged(2, ev.PortInfo(number, port, True), gone=True))
    for dst in _pairs(one, two):
        results = world.boxes["n1"].tables.run(world.sent(one, dst), in_port=world.boxes["n1"].ports["tap-t1"])
        assert [out.port for out in results] == [TUNNEL]  # type: ignore[union-attr]
        assert world.hops(one, dst) == [("n2", "tap-t2")]
    assert not world.differences()


def test_the_underlays_router_leads_to_locators() -> None:
    world = Layer3(router=True)
    one, two = world.task(1, "n1"), world.task(2, "n2")
    assert world.hops(one, two.ipv6[1]) == [("n2", "tap-t2")]
    assert {hop.address for hop in world.nva.state.hops.values()} == {ip("fd00:100::ff")}


def test_a_next_hop_that_nobody_has_is_not_assumed() -> None:
    world = Layer3()
    for name in ("n1", "n2", "n3"):
        world.handle(ev.NveSubmitted(replace(world.boxes[name].nve, next_hop=ip("fd00:100::dead"))))
    one, two = world.task(1, "n1"), world.task(2, "n2")
    assert not world.nva.state.hops
    assert world.hops(one, two.ipv6[1]) == [("n2", "tap-t2")]
    results = world.boxes["n1"].tables.run(world.sent(one, two.ipv6[1]), in_port=world.boxes["n1"].ports["tap-t1"])
    assert [out.port for out in results] == [ROUTED]  # type: ignore[union-attr]


def test_a_next_hop_that_falls_silent_is_given_up_and_found_again(world: Layer3) -> None:
    world.task(1, "n1")
    world.task(2, "n2")
    assert any(hop.nve == "n1" for hop in world.nva.state.hops.values())
    world.cut |= {("n1", "n2"), ("n2", "n1")}
    world.advance(80, step=1.0)
    assert not any(h.nve == "n1" and h.address == ip("fd00:100::2") for h in world.nva.state.hops.values())
    world.cut.clear()
    world.advance(10, step=1.0)
    assert any(h.nve == "n1" and h.address == ip("fd00:100::2") for h in world.nva.state.hops.values())
    assert not world.differences()


def test_advertisements_that_nobody_asked_for_are_not_believed(world: Layer3) -> None:
    from ryu_vmm.routing import ila_mac

    world.task(1, "n1")
    world.task(2, "n2")
    hops = dict(world.nva.state.hops)
    liar = frames.build_na(ip("fd00:100::77"), mac(66), ip("fe80::1"), ila_mac(world.boxes["n1"].nve))
    world.boxes["n1"].tables.run(liar, in_port=ILA)
    world.handle(ev.PacketSeen(1, ILA, 19 << 40 | 0x766D << 48, liar))
    assert world.nva.state.hops == hops


# --- what cannot be routed --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [0, 1, 2], ids=["ipv4", "ipv6", "ila"])
def test_a_ttl_of_one_ends_here(world: Layer3, kind: int) -> None:
    one, two = world.task(1, "n1"), world.task(2, "n2")
    assert world.hops(one, _pairs(one, two)[kind], ttl=1) == [("n1", "tap-t1")]
    found = parse_ip(world.last())
    assert found.src == (GATEWAY.ipv4 if kind == 0 else GATEWAY.ipv6)
    assert world.last()[found.start] == (11 if kind == 0 else 3)
    assert well_formed(world.last())


@pytest.mark.parametrize("dst", ["10.1.1.99", "10.1.2.99", "192.0.2.1", "2001:db8:1:2::99", "2001:db8:9::1"])
def test_a_destination_that_nobody_has_is_told(world: Layer3, dst: str) -> None:
    one = world.task(1, "n1")
    world.task(2, "n2")
    assert world.hops(one, ip(dst)) == [("n1", "tap-t1")]
    found = parse_ip(world.last())
    assert found.dst in (*one.ipv4, *one.ipv6)
    assert world.last()[found.start] == (3 if found.version == 4 else 1)


def test_a_packet_that_is_too_big_is_told(world: Layer3) -> None:
    one, two = world.task(1, "n1"), world.task(2, "n2")
    assert world.hops(one, two.ipv6[0], size=1402) == [("n2", "tap-t2")]  # 1450 bytes
    assert world.hops(one, two.ipv6[0], size=1403) == [("n1", "tap-t1")]
    found = parse_ip(world.last())
    assert world.last()[found.start] == 2
    assert int.from_bytes(world.last()[found.start + 4 : found.start + 8], "big") == 1450


def test_an_ipv4_packet_without_df_is_fragmented(world: Layer3) -> None:
    one, two = world.task(1, "n1"), world.task(2, "n2")
    firm = world.sent(one, two.ipv4[0], size=1600)
    checksum = (int.from_bytes(firm[24:26], "big") + 0x4000).to_bytes(2, "big")
    whole = firm[:20] + b"\0\0" + firm[22:24] + checksum + firm[26:]
    assert not parse_ip(whole).whole
    assert world.send("n1", "tap-t1", whole) == [("n2", "tap-t2")] * 2
    assert [parse_ip(frame).offset for _, _, frame in world.out[-2:]] == [0, 1424]


def test_the_gateway_answers_echo_requests(world: Layer3) -> None:
    import struct

    one = world.task(1, "n1")
    echo = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"x" * 8
    total = sum(struct.unpack("!8H", echo))
    echo = echo[:2] + struct.pack("!H", 0xFFFF - (total % 0xFFFF)) + echo[4:]
    frame = packet(one.ipv4[0], GATEWAY.ipv4 or b"", one.mac)
    head = frame[14:34]
    head = head[:2] + (20 + len(echo)).to_bytes(2, "big") + head[4:9] + b"\x01" + b"\0\0" + head[12:]
    whole = sum(struct.unpack("!10H", head))
    head = head[:10] + struct.pack("!H", 0xFFFF - (whole % 0xFFFF)) + head[12:]
    assert world.send("n1", "tap-t1", frame[:14] + head + echo) == [("n1", "tap-t1")]
    assert world.last()[34] == 0


def test_link_local_and_shouted_packets_go_nowhere(world: Layer3) -> None:
    one = world.task(1, "n1")
    world.task(2, "n2")
    world.task(3, "n1")
    from ryu_vmm.addresses import link_local

    near = packet(link_local(one.mac), link_local(mac(3)), one.mac)
    assert world.send("n1", "tap-t1", near) == []
    assert world.send("n1", "tap-t1", packet(one.ipv4[0], ip("10.1.1.255"), one.mac, b"\xff" * 6)) == []
    assert world.send("n1", "tap-t1", packet(one.ipv4[0], ip("10.1.1.3"), one.mac, mac(3))) == []


def test_locators_are_not_believed_from_strangers(world: Layer3) -> None:
    one = world.task(1, "n1")
    for src in ("2001:db8:66::1", "fd00:100::2"):
        forged = packet(ip(src), locator(1) + one.ipv6[1][8:], mac(99), mac(98))
        [dropped] = world.boxes["n1"].tables.run(forged, in_port=ILA)
        assert dropped == Dropped(cookie(Why.DROP, Drop.UNKNOWN_LOCATOR))


# --- routers ----------------------------------------------------------------------------------------------------------
def _l2(world: World, name: str, vni: int, router: str | None, third: int, tenant: str | None = None) -> None:
    gateway = Gateway(ipv4=ip(f"10.0.{third}.254"), ipv6=ip("fe80::1"))
    world.handle(ev.NetworkSubmitted(Network(name, vni, Policy(), tenant, gateway=gateway, router=router)))


def _guest(world: World, n: int, nve: str, vni: int, third: int) -> Interface:
    found = Interface(
        f"g{n}/eth0", f"g{n}", "eth0", vni, mac(n), (ip(f"10.0.{third}.{n}"),), (ip(f"2001:db8:{third}::{n}"),),
        Place(nve, f"tap-g{n}"),
    )
    world.handle(ev.VmSubmitted(found.vm, (found,)))
    world.plug(nve, f"tap-g{n}")
    return found


def test_layer_2_networks_of_one_router_are_routed_between() -> None:
    world = Layer3()
    _l2(world, "office", 100, "r", 5)
    _l2(world, "shop", 200, "r", 6)
    _l2(world, "other", 250, "s", 7)
    a, b = _guest(world, 21, "n1", 100, 5), _guest(world, 22, "n2", 200, 6)
    c = _guest(world, 23, "n2", 250, 7)
    for dst in (b.ipv4[0], b.ipv6[0]):
        src = a.ipv4[0] if len(dst) == 4 else a.ipv6[0]
        assert world.send("n1", "tap-g21", packet(src, dst, a.mac)) == [("n2", "tap-g22")]
        assert parse_ip(world.last()).ttl == 63
    assert world.send("n2", "tap-g22", packet(b.ipv4[0], a.ipv4[0], b.mac)) == [("n1", "tap-g21")]
    assert world.send("n1", "tap-g21", packet(a.ipv4[0], c.ipv4[0], a.mac)) == [("n1", "tap-g21")]  # unreachable
    # bridged as ever inside, and a broadcast reaches nobody who is not in the network
    d = _guest(world, 24, "n3", 100, 5)
    assert world.send("n1", "tap-g21", packet(a.ipv4[0], d.ipv4[0], a.mac, d.mac)) == [("n3", "tap-g24")]
    assert parse_ip(world.last()).ttl == 64
    shout = packet(a.ipv4[0], ip("10.0.5.255"), a.mac, b"\xff" * 6)
    assert world.send("n1", "tap-g21", shout) == [("n3", "tap-g24")]
    assert not world.differences()


def test_a_network_joins_and_leaves_a_router() -> None:
    world = Layer3()
    _l2(world, "office", 100, "r", 5)
    _l2(world, "shop", 200, None, 6)
    a, b = _guest(world, 21, "n1", 100, 5), _guest(world, 22, "n2", 200, 6)
    ask = packet(a.ipv4[0], b.ipv4[0], a.mac)
    for router, out in ((None, ("n1", "tap-g21")), ("r", ("n2", "tap-g22")), (None, ("n1", "tap-g21"))):
        _l2(world, "shop", 200, router, 6)
        assert world.send("n1", "tap-g21", ask) == [out]
        assert not world.differences()
        assert set(world.nva.state.members(200)) == ({"n1", "n2"} if router else {"n2"})


def test_routers_of_different_tenants_are_different_ones() -> None:
    world = Layer3()
    _l2(world, "office", 100, "r", 5, "blue")
    _l2(world, "shop", 200, "r", 6, "red")
    assert world.nva.state.domain(100) == (100,)
    a, b = _guest(world, 21, "n1", 100, 5), _guest(world, 22, "n2", 200, 6)
    assert world.send("n1", "tap-g21", packet(a.ipv4[0], b.ipv4[0], a.mac)) == [("n1", "tap-g21")]


def test_what_cannot_be_routed_together_is_refused() -> None:
    world = Layer3()
    _l2(world, "office", 100, "r", 5)
    _l2(world, "shop", 200, "r", 6)
    _guest(world, 21, "n1", 100, 5)
    with pytest.raises(Conflict, match="belongs to g21/eth0"):
        world.handle(ev.VmSubmitted("g9", (replace(_spare(), vni=200, ipv4=(ip("10.0.5.21"),)),)))
    other = Network("third", 201, gateway=Gateway(mac(9), ip("10.0.9.254")), router="r")
    with pytest.raises(Conflict, match="another gateway MAC"):
        world.handle(ev.NetworkSubmitted(other))
    with pytest.raises(InvalidInput, match="gateway of network"):
        world.handle(ev.VmSubmitted("g9", (replace(_spare(), ipv4=(ip("10.0.5.254"),)),)))
    twin = replace(world.tasks, name="twin", vni=301)
    with pytest.raises(Conflict, match="SIR prefix"):
        world.handle(ev.NetworkSubmitted(replace(twin, subnets=())))
    task = world.task(1, "n1")
    with pytest.raises(Conflict, match="kind cannot change"):
        world.handle(ev.NetworkSubmitted(Network("tasks", VNI)))
    second = replace(twin, sir=ip("2001:db8:6::")[:8], subnets=())
    world.handle(ev.NetworkSubmitted(second))
    same = replace(_spare(), vni=301, ipv6=(ip("2001:db8:6::")[:8] + task.ipv6[1][8:],))
    with pytest.raises(Conflict, match="identifier"):
        world.handle(ev.VmSubmitted("g9", (same,)))
    with pytest.raises(Conflict, match="locator"):
        world.handle(ev.NveSubmitted(replace(world.boxes["n2"].nve, locator=locator(1))))
    with pytest.raises(Conflict, match="SIR prefix"):
        world.handle(ev.NveSubmitted(replace(world.boxes["n2"].nve, locator=SIR)))


def _spare() -> Interface:
    return Interface("g9/eth0", "g9", "eth0", 100, mac(9), (), (), Place("n1", "tap-g9"))


def test_a_restart_computes_the_same_flows(world: Layer3) -> None:
    one, two = world.task(1, "n1"), world.task(2, "n2")
    before = {name: world.installed(name) for name in world.boxes}
    world.kill()
    world.start()
    assert {name: world.installed(name) for name in world.boxes} == before
    for dst in _pairs(one, two):
        assert world.hops(one, dst) == [("n2", "tap-t2")]
