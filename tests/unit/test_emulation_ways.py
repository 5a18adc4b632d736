"""The ways between emulated switches: VXLAN, tunnels without Ethernet headers, and none at all."""

from __future__ import annotations

import pytest
from outside import ILA, ROUTED, TUNNEL, ip, locator, packet
from outside import mac as guest
from world import World

from ryu_vmm.effects import SendPacket
from ryu_vmm.emulation import packets
from ryu_vmm.emulation.fabric import Fabric, outer_mac
from ryu_vmm.emulation.switch import Switch
from ryu_vmm.emulation.tables import Out, Tables, ToNva
from ryu_vmm.flows import IN_PORT, CheckLarger, DecTtl, Flow, Match, Output, SetField, match, set_field
from ryu_vmm.flows import ToNva as ToNvaAction
from ryu_vmm.wire import frames

SIR = ip("2001:db8:5::5")
FRAMES = {
    "ipv4": packet(ip("10.1.1.1"), ip("10.1.2.2"), guest(1)),
    "ipv6": packet(ip("2001:db8::1"), ip("2001:db8::2"), guest(1)),
    "arp": frames.build_garp(guest(1), ip("10.0.0.1")),
    "probe": frames.build_probe(b"nonce", 100),
}
V6 = match(eth_type=packets.IPV6)


def tunnel(port: int, to: int, family: int, own: int, key: int = 0xABCDEF) -> tuple[object, ...]:
    ends = [ip(f"192.168.100.{n}") if family == 4 else ip(f"fd00:100::{n}") for n in (own, to)]
    names = (f"tun_ipv{family}_src", f"tun_ipv{family}_dst")
    fields = [SetField(name, end) for name, end in zip(names, ends, strict=True)]
    return (set_field("tun_id", key), *fields, Output(port))


def flow(on: Match, *actions: object, priority: int = 1, cookie: int = 0) -> Flow:
    return Flow(0, priority, on, tuple(actions), cookie=cookie)  # type: ignore[arg-type]


def overlay(locators: bool = True) -> tuple[Fabric, list[Switch], list[tuple[int, int, bytes]]]:
    """Switches 1 to 3 with all ports, and what leaves them, as (dpid, port, frame)."""
    switches = [
        Switch(
            n,
            ["vxlan", "gre", "ila", "tap"],
            addresses=(ip(f"192.168.100.{n}"), ip(f"fd00:100::{n}")),
            locator=locator(n) if locators else None,
        )
        for n in (1, 2, 3)
    ]
    fabric = Fabric(switches)
    seen: list[tuple[int, int, bytes]] = []
    fabric.on_frame = lambda switch, port, frame, now: seen.append((switch.dpid, port, frame))
    return fabric, switches, seen


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", FRAMES)
def test_an_ethernet_header_is_lost_on_the_way(name: str, family: int) -> None:
    """As Open vSwitch does it: the type comes out of the tunnel's own header, of anything that crosses."""
    _, (one, two, _), seen = overlay()
    one.tables.add(flow((), *tunnel(ROUTED, 2, family, 1)))
    source = {f"tun_ipv{family}_src": ip("192.168.100.1" if family == 4 else "fd00:100::1")}
    two.tables.add(flow(match(in_port=ROUTED, tun_id=0xABCDEF, eth_src=0, eth_dst=0, **source), Output(4)))
    one.inject(FRAMES[name], 4, 0.0)
    assert seen == [(2, 4, bytes(12) + FRAMES[name][12:])]


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in (TUNNEL, ROUTED) for b in (TUNNEL, ROUTED)])
def test_from_tunnel_to_tunnel_of_either_kind(first: int, second: int) -> None:
    _, (one, two, three), seen = overlay()
    one.tables.add(flow((), *tunnel(first, 2, 4, 1)))
    out = tunnel(IN_PORT if first == second else second, 3, 4, 2)
    two.tables.add(flow(match(in_port=first, eth_type=packets.IPV4), DecTtl(), *out))
    three.tables.add(flow(match(in_port=second), Output(4)))
    one.inject(FRAMES["ipv4"], 4, 0.0)
    ethernet = FRAMES["ipv4"][:12] if first == second == TUNNEL else bytes(12)
    expected = packets.rewrite(FRAMES["ipv4"], "ip_ttl", 63)
    assert seen == [(3, 4, ethernet + expected[12:])]


def test_kinds_of_tunnels_do_not_meet() -> None:
    fabric, (one, two, _), _ = overlay()
    two.remove_port("gre")
    two.routed = None
    one.tables.add(flow((), *tunnel(ROUTED, 2, 4, 1)))
    assert len(one.inject(FRAMES["ipv4"], 4, 0.0)) == 1
    assert fabric.lost == {"no such peer": 1}
    assert two.tables.run(FRAMES["ipv4"], TUNNEL, 7)


def test_keys_are_as_wide_as_their_headers() -> None:
    for port, key in ((TUNNEL, 0x223344), (ROUTED, 0x11223344)):
        _, (one, two, _), seen = overlay()
        one.tables.add(flow((), *tunnel(port, 2, 4, 1, key=0x11223344)))
        two.tables.add(flow(match(tun_id=key), Output(4)))
        one.inject(FRAMES["ipv4"], 4, 0.0)
        assert len(seen) == 1


def test_bytes_are_counted_as_open_vswitch_does() -> None:
    """Without the header that a packet came without; it is measured with it all the same."""
    frame = FRAMES["ipv4"]
    on = match(in_port=ROUTED)
    tables = Tables([flow(on, CheckLarger(len(frame) - 1), ToNvaAction(0xFFFF))], routed=ROUTED)
    (seen,) = tables.run(frame, ROUTED)
    assert isinstance(seen, ToNva)
    assert seen.context["reg0"] == 1
    assert seen.frame == bytes(12) + frame[12:]
    (entry,) = tables.select(on)
    assert (entry.packets, entry.bytes) == (1, len(frame) - 14)
    tables = Tables([flow((), Output(ROUTED))], routed=ROUTED)
    tables.run(frame, 4)
    (entry,) = tables.select()
    assert entry.bytes == len(frame)


def test_a_packet_of_ila_crosses_as_it_is() -> None:
    _, (one, two, _), seen = overlay()
    located = locator(2) + SIR[8:]
    to = (SetField("ipv6_dst", located), SetField("eth_dst", outer_mac(2)), Output(ILA))
    one.tables.add(flow(V6, DecTtl(), *to))
    on = match(in_port=ILA, eth_type=packets.IPV6, ipv6_dst=located)
    two.tables.add(flow(on, SetField("ipv6_dst", SIR), SetField("eth_dst", guest(2)), Output(4)))
    one.inject(packet(ip("2001:db8:5::1"), SIR, guest(1)), 4, 0.0)
    assert seen == [(2, 4, packet(ip("2001:db8:5::1"), SIR, guest(1), guest(2), ttl=63))]


def test_without_a_locator_nothing_is_handed_over() -> None:
    _, (one, two, _), seen = overlay(locators=False)
    one.tables.add(flow(V6, SetField("eth_dst", outer_mac(2)), Output(ILA)))
    two.tables.add(flow((), Output(4)))
    one.inject(FRAMES["ipv6"], 4, 0.0)
    assert seen == []


def test_a_host_answers_a_solicitation_that_was_sent_to_it() -> None:
    _, (one, two, _), seen = overlay()
    one.tables.add(flow(match(in_port=ILA), Output(4)))
    two.tables.add(flow(match(in_port=ILA), Output(4)))
    question = frames.build_ns(b"\x02\x69\0\0\0\1", ip("fe80::69"), ip("fd00:100::2"))
    one.tables.execute((), question)
    one.packet_out(_packet_out(question), 0.0)
    assert seen[0] == (2, 4, question)
    assert frames.parse_nd(seen[1][2]).lladdr == outer_mac(2)
    assert seen[1][:2] == (1, 4)


def _packet_out(frame: bytes):  # type: ignore[no-untyped-def]
    from ryu_vmm.wire.agent import PacketOut

    return PacketOut(0xFFFFFFFD, (Output(ILA),), frame)


# --- the same in the core's world -------------------------------------------------------------------------------------
def _led(w: World, name: str, *flows: Flow) -> None:
    """Flows above all that the NVA has put there."""
    for found in flows:
        w.boxes[name].tables.add(found._replace(priority=60000))


def test_a_world_has_all_ways() -> None:
    w = World(3, family=46, layer3=True)
    for name, box in w.boxes.items():
        w.plug(name, "tap")
        assert box.ports == {"vxlan": TUNNEL, "gre": ROUTED, "ila": ILA, "tap": 10}
    _led(w, "n1", flow(match(in_port=10, eth_type=packets.IPV4), *tunnel(ROUTED, 2, 6, 1)))
    _led(w, "n2", flow(match(in_port=ROUTED), Output(10)))
    assert w.send("n1", "tap", FRAMES["ipv4"]) == [("n2", "tap")]
    assert w.out[-1] == ("n2", "tap", bytes(12) + FRAMES["ipv4"][12:])
    located = (SetField("ipv6_dst", locator(3) + SIR[8:]), SetField("eth_dst", outer_mac(3)), Output(ILA))
    _led(w, "n1", flow(match(in_port=10, eth_type=packets.IPV6), *located))
    _led(w, "n3", flow(match(in_port=ILA), Output(10)))
    assert w.send("n1", "tap", FRAMES["ipv6"]) == [("n3", "tap")]
    w.cut.add(("n1", "n3"))
    assert w.send("n1", "tap", FRAMES["ipv6"]) == []


def test_a_world_of_layer_2_has_one_way() -> None:
    w = World(2, family=46)
    assert w.boxes["n1"].ports == {"vxlan": TUNNEL}
    w = World(2, family=4, layer3=True)
    assert w.boxes["n1"].ports == {"vxlan": TUNNEL, "gre": ROUTED}


def test_what_the_nva_asks_by_a_port_of_ila_is_answered() -> None:
    w = World(2, family=6, layer3=True)
    _led(w, "n1", flow(match(in_port=ILA), Output(10)))
    w.plug("n1", "tap")
    question = frames.build_ns(b"\x02\x69\0\0\0\1", ip("fe80::69"), ip("fd00:100::2"))
    w._carry_out(SendPacket(1, (Output(ILA),), question))
    (answer,) = [frame for _, _, frame in w.out]
    assert frames.parse_nd(answer).lladdr == outer_mac(2)


def test_an_out_by_the_port_without_headers_has_none() -> None:
    w = World(1, layer3=True)
    frame = FRAMES["ipv4"]
    found = w.boxes["n1"].tables.execute((Output(ROUTED),), frame)
    assert found == [Out(ROUTED, frame=bytes(12) + frame[12:])]
