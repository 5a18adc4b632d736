"""One emulated switch's side of the protocol, and the underlay between several."""

from __future__ import annotations

import struct

from ryu_vmm.emulation import packets
from ryu_vmm.emulation.fabric import Fabric
from ryu_vmm.emulation.session import Session
from ryu_vmm.emulation.switch import Switch
from ryu_vmm.emulation.tables import Out
from ryu_vmm.flows import Flow, FlowChange, Meter, Output, PortCounts, SetField, match, set_field
from ryu_vmm.flows import ToNva as ToNvaAction
from ryu_vmm.wire import base as of
from ryu_vmm.wire import meters, ports
from ryu_vmm.wire import openflow as nva
from ryu_vmm.wire.agent import PacketOut

FRAME = packets.build({"eth_dst": 0x020000000002, "eth_src": 0x020000000001}, b"payload")
ARRIVING = Flow(0, 5, match(in_port=1), (Output(2),), cookie=3)


def connected(switch: Switch) -> Session:
    session = switch.connect()
    session.receive(nva.encode_hello(1) + of.message(of.FEATURES_REQUEST, 2), 0.0)
    assert [m[1] for m in taken(session)] == [of.HELLO, of.FEATURES_REPLY]
    return session


def taken(session: Session) -> list[bytes]:
    """The messages that wait to be sent."""
    data, messages = b"".join(session.out), []
    session.out.clear()
    while data:
        size = int.from_bytes(data[2:4], "big")
        messages.append(data[:size])
        data = data[size:]
    return messages


def added(*flows: Flow, xid: int = 9) -> bytes:
    return nva.encode_flow_mods([FlowChange("add", flow) for flow in flows], xid)


def read_flows(session: Session, now: float = 0.0) -> list[Flow]:
    session.receive(nva.encode_flow_stats_request(5), now)
    return [stats.flow for part in taken(session) for stats in nva.decode_flow_stats(part)[0]]


def test_bytes_may_come_in_any_pieces() -> None:
    whole, pieces = connected(Switch(1)), connected(Switch(1))
    data = added(ARRIVING) + nva.encode_echo_request(4, b"hello") + nva.encode_barrier(5)
    whole.receive(data, 0.0)
    for n in range(len(data)):
        pieces.receive(data[n : n + 1], 0.0)
    assert taken(whole) == taken(pieces) == [nva.encode_echo_reply(4, b"hello"), of.message(of.BARRIER_REPLY, 5)]
    assert pieces.switch.tables.flows == [ARRIVING]


def test_features_ports_and_config() -> None:
    session = Switch(0xABC, ["vxlan", "tap-1"]).connect()
    requests = of.message(of.FEATURES_REQUEST, 2) + nva.encode_port_desc_request(3) + nva.encode_set_config(4)
    session.receive(requests + of.message(of.GET_CONFIG_REQUEST, 5), 0.0)
    _, features, ports, config = taken(session)
    assert struct.unpack_from("!Q", features, 8) == (0xABC,)
    assert [(p.number, p.name, p.up) for p in nva.decode_port_desc(ports)] == [(1, "vxlan", True), (2, "tap-1", True)]
    assert config[-2:] == b"\xff\xff"


def test_flows_are_kept_reported_and_removed() -> None:
    session = connected(Switch(1))
    flows = [Flow(0, n, match(in_port=n), (Output(2),), cookie=n) for n in range(1, 2001)]
    session.receive(added(*flows), 0.0)
    session.receive(nva.encode_flow_stats_request(5), 2.5)
    parts = taken(session)
    assert len(parts) > 1
    found = [stats for part in parts for stats in nva.decode_flow_stats(part)[0]]
    assert [nva.decode_flow_stats(part)[1] for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [stats.flow for stats in found] == flows
    assert {stats.age for stats in found} == {2.5}
    session.receive(nva.encode_flow_mods([FlowChange("delete", flows[0])], 6), 0.0)
    assert read_flows(session) == flows[1:]


def test_eager_or_not_comes_to_the_same_for_good_flows() -> None:
    flows = [
        ARRIVING,
        Flow(0, 9, match(in_port=2, eth_dst=(1 << 40, 1 << 40)), (set_field("tun_id", 5), Output(1)), 4, 1, 0xFF, 7),
        Flow(4, 1, (), (ToNvaAction(0xFFFF),), cookie=4),
    ]
    replaced = ARRIVING._replace(actions=(Output(9),), cookie=8)
    for eager in (True, False):
        switch = Switch(1, ["vxlan", "tap-1"], eager=eager)
        session = connected(switch)
        session.receive(added(*flows), 0.0)
        switch.inject(FRAME, 1, 0.0)
        session.receive(added(replaced) + nva.encode_flow_mods([FlowChange("delete", flows[2])], 8), 1.0)
        session.receive(nva.encode_flow_stats_request(5), 3.0)
        (reply,) = taken(session)
        found = {stats.flow: (stats.packets, stats.age) for stats in nva.decode_flow_stats(reply)[0]}
        assert found == {replaced: (1, 2.0), flows[1]: (0, 3.0)}


def test_a_bad_flow_is_answered_at_once() -> None:
    session = connected(Switch(1))
    bad = ARRIVING._replace(match=match(ipv4_dst=1))
    session.receive(added(bad, xid=77) + added(ARRIVING) + nva.encode_barrier(5), 0.0)
    error, barrier = taken(session)
    assert nva.decode_error(error)[:2] == (4, 9)
    assert nva.decode_error(error).failed_xid == 77
    assert barrier[1] == of.BARRIER_REPLY
    assert read_flows(session) == [ARRIVING]


def test_packet_ins_come_from_the_tables_with_what_the_packet_carried() -> None:
    switch = Switch(1, ["vxlan", "tap-1"])
    session = connected(switch)
    ask = Flow(0, 1, match(in_port=2), (set_field("tun_id", 7), ToNvaAction(0xFFFF)), cookie=8)
    cross = Flow(0, 1, match(in_port=1), (ToNvaAction(20),), cookie=9)
    session.receive(added(ask, cross), 0.0)
    switch.inject(FRAME, 2, 0.0)
    switch.inject(FRAME, 1, 0.0, 5, b"\x0a\0\0\x02", b"\x0a\0\0\x01")
    local, tunnel = map(nva.decode_packet_in, taken(session))
    assert (local.in_port, local.cookie, local.tun_id, local.tun_src, local.frame) == (2, 8, 7, None, FRAME)
    assert (tunnel.in_port, tunnel.cookie, tunnel.tun_id, tunnel.tun_src) == (1, 9, 5, b"\x0a\0\0\x02")
    assert tunnel.frame == FRAME  # Open vSwitch does not mind max_len


def test_port_changes_are_told() -> None:
    switch = Switch(1, ["vxlan"])
    session = connected(switch)
    switch.set_port("tap-1")
    switch.set_port("tap-1", up=False)
    switch.remove_port("tap-1")
    told = [nva.decode_port_status(m) for m in taken(session)]
    assert [(reason, port.name, port.number, port.up) for reason, port in told] == [
        (of.PORT_ADD, "tap-1", 2, True),
        (of.PORT_MODIFY, "tap-1", 2, False),
        (of.PORT_DELETE, "tap-1", 2, False),
    ]


def test_expired_flows_are_reported_once() -> None:
    switch = Switch(1)
    session = connected(switch)
    idle = ARRIVING._replace(idle_timeout=5)
    session.receive(added(idle), 0.0)
    switch.inject(FRAME, 1, 1.0)
    switch.expire(5.9)
    assert taken(session) == []
    switch.expire(6.0)
    (removed,) = map(nva.decode_flow_removed, taken(session))
    assert (removed.flow.key, removed.flow.cookie, removed.reason, removed.packets) == (idle.key, 3, 0, 1)


def test_roles_with_two_controllers() -> None:
    switch = Switch(1, ["vxlan", "tap-1"])
    first, second = connected(switch), connected(switch)

    def role(session: Session, wanted: int, generation: int) -> bytes:
        session.receive(of.message(of.ROLE_REQUEST, 3, struct.pack("!I4xQ", wanted, generation)), 0.0)
        return taken(session)[-1]

    assert role(first, 2, 10)[1] == of.ROLE_REPLY
    assert role(second, 2, 11)[1] == of.ROLE_REPLY
    assert role(first, 2, 10)[1] == of.ERROR  # stale
    first.receive(added(ARRIVING), 0.0)
    assert [(e.type, e.code) for e in map(nva.decode_error, taken(first))] == [(1, 10)]
    second.receive(added(Flow(0, 1, (), (ToNvaAction(0xFFFF),))), 0.0)
    switch.inject(FRAME, 2, 0.0)
    switch.set_port("tap-1", up=False)
    assert [m[1] for m in taken(first)] == [of.PORT_STATUS]
    assert [m[1] for m in taken(second)] == [of.PACKET_IN, of.PORT_STATUS]


def test_set_async_is_obeyed() -> None:
    switch = Switch(1)
    session = connected(switch)
    session.receive(nva.encode_set_async(3, port_status=0) + added(ARRIVING._replace(idle_timeout=1)), 0.0)
    switch.set_port("tap-1")
    session.receive(nva.encode_flow_mods([FlowChange("delete", ARRIVING)], 6), 0.0)
    assert taken(session) == []


def test_nonsense_is_answered_with_errors() -> None:
    session = connected(Switch(1))
    session.receive(of.message(of.FLOW_MOD, 3, b"\0" * 10) + of.message(99, 4) + of.message(of.ROLE_REQUEST, 5), 0.0)
    assert [(e.type, e.failed_xid) for e in map(nva.decode_error, taken(session))] == [(1, 3), (1, 4), (1, 5)]
    session.receive(b"\x04\x00\x00\x03\0\0\0\0", 0.0)
    assert session.closing


def test_meters_count_and_are_reported() -> None:
    switch = Switch(1)
    session = connected(switch)
    counted = ARRIVING._replace(actions=(Meter(7), Output(2)))
    session.receive(added(counted, xid=3), 0.0)  # the meter is not there yet
    assert [nva.decode_error(m)[:2] for m in taken(session)] == [(12, 2)]
    session.receive(meters.encode_meter_add(7, 4) + added(counted) + meters.encode_meter_add(7, 5), 0.0)
    assert [nva.decode_error(m)[:2] for m in taken(session)] == [(12, 1)]
    for _ in range(3):
        switch.inject(FRAME, 1, 0.0)
    ask = meters.encode_meter_features_request, meters.encode_meter_config_request, meters.encode_meter_stats_request
    session.receive(b"".join(encode(6) for encode in ask), 2.5)
    features, config, stats = taken(session)
    assert meters.decode_meter_features(features) >= 1000
    assert meters.decode_meter_config(config) == ({7: 0}, False)
    assert meters.decode_meter_stats(stats) == ({7: (3, 3 * len(FRAME))}, False)
    assert read_flows(session) == [counted]
    session.receive(meters.encode_meter_add(7, 7, again=True) + meters.encode_meter_stats_request(8), 3.0)
    assert meters.decode_meter_stats(taken(session)[0]) == ({7: (0, 0)}, False)
    session.receive(meters.encode_meter_delete(7, 9), 4.0)
    assert read_flows(session) == []  # with it goes what uses it


def test_more_meters_than_one_message_holds() -> None:
    session = connected(Switch(1))
    session.receive(b"".join(meters.encode_meter_add(n, n) for n in range(1, 3001)), 0.0)
    session.receive(meters.encode_meter_stats_request(9), 1.0)
    parts = [meters.decode_meter_stats(m) for m in taken(session)]
    assert [more for _, more in parts] == [True] * (len(parts) - 1) + [False]
    assert sorted(n for found, _ in parts for n in found) == list(range(1, 3001))


def test_a_switch_without_meters_says_so() -> None:
    session = connected(Switch(1, meters=False))
    session.receive(meters.encode_meter_features_request(6) + meters.encode_meter_add(1, 7), 0.0)
    assert [nva.decode_error(m)[:2] for m in taken(session)] == [(1, 2), (1, 1)]


def test_ports_count_what_they_carry_and_what_they_have_no_room_for() -> None:
    switch = Switch(1, ports=["vxlan", "tap"])
    session = connected(switch)
    session.receive(added(ARRIVING, xid=3), 0.0)
    switch.tables.traffic.room[2] = 1
    outs: list[Out] = []
    switch.emit = lambda switch, sent, now: outs.extend(sent)
    for _ in range(3):
        switch.inject(FRAME, 1, 0.0)
    size = len(FRAME)
    came, left = PortCounts(rx_packets=3, rx_bytes=3 * size), PortCounts(tx_packets=1, tx_bytes=size, tx_dropped=2)
    session.receive(ports.encode_port_stats_request(4) + ports.encode_port_stats_request(5, 2), 1.0)
    assert [ports.decode_port_stats(m) for m in taken(session)] == [({1: came, 2: left}, False), ({2: left}, False)]
    assert len(outs) == 1
    switch.remove_port("tap", 2.0)
    taken(session)
    session.receive(ports.encode_port_stats_request(6, 2), 2.0)
    assert [nva.decode_error(m)[:2] for m in taken(session)] == [(1, 11)]


def test_what_the_codec_has_no_word_for_is_refused() -> None:
    session = connected(Switch(1))
    unknown = [
        ARRIVING._replace(match=(("oxm_8000_0d", b"\0\x16", None),)),  # tcp_src
        ARRIVING._replace(actions=(SetField("action_0011", b"\x81\0\0\0"),)),
        ARRIVING._replace(actions=(SetField("instruction_0005", b"\0\0\0\0"),)),
    ]
    for flow in unknown:
        session.receive(added(flow), 0.0)
    assert [nva.decode_error(m)[0] for m in taken(session)] == [4, 2, 3]


# --- faults -----------------------------------------------------------------------------------------------------------
def test_replies_wait_and_keep_their_order() -> None:
    switch = Switch(1)
    session = connected(switch)
    switch.faults.reply_delay = 2.0
    session.receive(nva.encode_barrier(5), 10.0)
    switch.faults.reply_delay = 0.0
    session.receive(nva.encode_barrier(6), 11.0)
    assert session.due(11.9) == 12.0
    assert taken(session) == []
    assert session.due(12.0) is None
    assert [of.decode_header(m).xid for m in taken(session)] == [5, 6]


def test_barriers_dropped_flow_mods_refused_connection_closed() -> None:
    switch = Switch(1)
    session = connected(switch)
    switch.faults.drop_barriers = 1
    switch.faults.refuse_flow_mods = 1
    switch.faults.error = (5, 1)
    other = ARRIVING._replace(priority=6)
    session.receive(nva.encode_barrier(5) + added(ARRIVING, xid=6) + added(other) + nva.encode_barrier(7), 0.0)
    error, barrier = taken(session)
    assert nva.decode_error(error)[:2] == (5, 1)
    assert of.decode_header(barrier).xid == 7
    assert switch.tables.flows == [other]
    switch.faults.close_after = 1
    session.receive(nva.encode_barrier(8) + nva.encode_barrier(9), 0.0)
    assert session.closing
    assert [of.decode_header(m).xid for m in taken(session)] == [8]


# --- underlay ---------------------------------------------------------------------------------------------------------
def overlay() -> tuple[Fabric, Switch, Switch]:
    switches = [Switch(n, ["vxlan", "tap-1"], addresses=(bytes([10, 0, 0, n]),)) for n in (1, 2)]
    return Fabric(switches), *switches


def tunnel(to: int, key: int = 7, own: int = 1) -> tuple[object, ...]:
    ends = set_field("tun_ipv4_src", bytes([10, 0, 0, own])), set_field("tun_ipv4_dst", bytes([10, 0, 0, to]))
    return (set_field("tun_id", key), *ends, Output(1))


def test_a_packet_out_crosses_and_comes_back_as_packet_in() -> None:
    _, one, two = overlay()
    here, there = connected(one), connected(two)
    on = match(in_port=1, tun_id=7, tun_ipv4_src=bytes([10, 0, 0, 1]))
    there.receive(added(Flow(0, 1, on, (ToNvaAction(0xFFFF),), cookie=4)), 0.0)
    here.receive(nva.encode_packet_out(0xFFFFFFFD, tunnel(2), FRAME), 0.0)  # type: ignore[arg-type]
    (arrived,) = map(nva.decode_packet_in, taken(there))
    assert (arrived.cookie, arrived.tun_id, arrived.tun_src, arrived.frame) == (4, 7, bytes([10, 0, 0, 1]), FRAME)


def test_frames_between_guests_and_what_the_underlay_loses() -> None:
    fabric, one, two = overlay()
    seen = []
    fabric.on_frame = lambda switch, port, frame, now: seen.append((switch.dpid, port, frame))
    one.tables.add(Flow(0, 1, match(in_port=2), tunnel(2)))  # type: ignore[arg-type]
    two.tables.add(Flow(0, 1, match(in_port=1, tun_id=7), (Output(2),)))
    one.faults.lose_first = True
    one.inject(FRAME, 2, 0.0)
    one.inject(FRAME, 2, 0.0)
    assert seen == [(2, 2, FRAME)]
    one.packet_out(nva_packet_out(tunnel(9)), 0.0)
    one.packet_out(nva_packet_out(tunnel(2, own=3)), 0.0)
    one.packet_out(nva_packet_out((Output(1),)), 0.0)
    assert fabric.lost == {"unresolved": 1, "no such peer": 1, "foreign source": 1, "no destination": 1}


def test_a_loop_between_switches_is_cut_off() -> None:
    fabric, one, two = overlay()
    fabric.storm = 50
    back = (set_field("tun_ipv4_src", bytes([10, 0, 0, 2])), set_field("tun_ipv4_dst", bytes([10, 0, 0, 1])))
    forth = tunnel(2)[1:3]
    one.tables.add(Flow(0, 1, (), (*forth, Output(1), Output(0xFFFFFFF8))))  # type: ignore[arg-type]
    two.tables.add(Flow(0, 1, (), (*back, Output(0xFFFFFFF8))))
    one.inject(FRAME, 2, 0.0)
    assert fabric.lost["storm"] > 0


def nva_packet_out(actions: object) -> PacketOut:
    return PacketOut(0xFFFFFFFD, actions, FRAME)  # type: ignore[arg-type]


def test_an_output_to_a_port_that_is_not_there_goes_nowhere() -> None:
    _, one, _ = overlay()
    one.tables.add(Flow(0, 1, (), (Output(40),)))
    assert one.inject(FRAME, 2, 0.0) == [Out(40, frame=FRAME)]
    assert one.counts["no such port"] == 1
