"""What switches say to the switchboard in a real ryu-manager, right and wrong."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

import pytest
from board_lab import ARP, PORTS, Board, start

from ryu_vmm.events import PortInfo
from ryu_vmm.flows import Flow, FlowStats, Output, PortCounts, match
from ryu_vmm.wire import agent, base, frames, openflow, ports

__all__ = ["start"]  # a fixture


@pytest.mark.parametrize(
    ("features", "highest"),
    [
        (None, 0),
        (struct.pack("!IIIxxxx", 300, 0b110, 0b1011), 300),
        (struct.pack("!IIIxxxx", 300, 0b110, 0b0001), 0),  # no statistics
    ],
)
def test_a_switch_is_told_with_its_ports_and_meters(
    start: Callable[..., Board], features: bytes | None, highest: int
) -> None:
    board = start()
    switch = board.connect().shake_hands(features)
    board.event(f"NveConnected(dpid=42, ports={tuple(PORTS)!r}, meters={highest}, names=None)")
    switch.sock.close()
    board.event("NveDisconnected(dpid=42)")
    assert board.end() == {}


def test_packets_of_a_read_are_one_batch_and_one_answer(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    switch.send(*(agent.encode_packet_in(port, ARP) for port in range(1, 101)))
    reply = frames.build_arp_reply(b"\2\0\0\0\0\1", bytes([10, 0, 0, 1]), b"\2\0\0\0\0\2", bytes([10, 0, 0, 2]))
    for port in range(1, 101):
        _, _, message = switch.receive(base.PACKET_OUT)
        assert agent.decode_packet_out(message) == (0xFFFFFFFD, (Output(port),), reply)
    assert sum(board.batches()) == 100
    assert max(board.batches()) > 50
    assert board.end() == {}


def test_order_of_packets_and_ports_is_kept(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    packet_in = agent.encode_packet_in(7, ARP)
    gone = agent.encode_port_status(base.PORT_DELETE, PortInfo(7, "tap7", False))
    new = agent.encode_port_status(base.PORT_ADD, PortInfo(7, "tap7", True))
    switch.send(packet_in, packet_in, gone, new, packet_in, agent.encode_barrier_reply(1))
    for _ in range(3):
        switch.receive(base.PACKET_OUT)
    lines = [line for line in board.manager.text.splitlines() if line.startswith(("batch", "event Port"))]
    assert lines == [
        "batch 000000000000002a 2 [7, 7]",
        "event PortChanged(dpid=42, port=PortInfo(number=7, name='tap7', up=False), gone=True)",
        "event PortChanged(dpid=42, port=PortInfo(number=7, name='tap7', up=True), gone=False)",
        "batch 000000000000002a 1 [7]",
    ]


def test_any_division_of_the_stream_is_the_same(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    stream = agent.encode_packet_in(1, ARP) + agent.encode_packet_in(2, ARP + bytes(30000))
    for byte in stream[:300]:
        switch.send(bytes([byte]))
    switch.send(stream[300:20000])
    switch.send(stream[20000:])
    for port in (1, 2):
        assert agent.decode_packet_out(switch.receive(base.PACKET_OUT)[2]).actions == (Output(port),)
    assert board.end() == {}


def test_programming_ends_in_a_barrier(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    switch.tell("program", n=3, generation=17)
    mods = [switch.receive(base.FLOW_MOD) for _ in range(3)]
    assert [agent.decode_flow_mod(message).flow.priority for _, _, message in mods] == [0, 1, 2]
    assert [xid - mods[0][1] for _, xid, _ in mods] == [0, 1, 2], "an error names the one that was refused"
    kind, barrier, _ = switch.receive()
    assert kind == base.BARRIER_REQUEST
    switch.send(agent.encode_error(mods[1][1], 5, 1), agent.encode_barrier_reply(barrier))
    cookie = agent.decode_flow_mod(mods[1][2]).flow.cookie
    board.event(f"FlowRefused(dpid=42, generation=17, type=5, code=1, cookie={cookie})")
    board.event("BarrierReplied(dpid=42, generation=17)")
    text = board.manager.text
    assert text.index("event FlowRefused") < text.index("event BarrierReplied")
    switch.send(agent.encode_error(mods[0][1], 5, 1), agent.encode_barrier_reply(barrier))  # too late: nobody's
    switch.tell("program", n=0, generation=18)
    switch.send(agent.encode_barrier_reply(switch.receive(base.BARRIER_REQUEST)[1]))
    board.event("BarrierReplied(dpid=42, generation=18)")
    assert board.manager.text.count("FlowRefused") == 1
    assert board.end() == {"error.5.1": 2}


def test_what_openflow_has_no_room_for_is_refused_and_the_rest_sent(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    switch.tell("program", n=5000, generation=2, impossible=True)
    found = [agent.decode_flow_mod(switch.receive(base.FLOW_MOD)[2]).flow for _ in range(5000)]
    assert found == [Flow(0, n, match(eth_type=0x0800, ipv4_dst=n), cookie=5000) for n in range(5000)]
    assert switch.receive()[0] == base.BARRIER_REQUEST
    board.event("FlowRefused(dpid=42, generation=2, type=1, code=6, cookie=0)")


FLOWS = [FlowStats(Flow(1, n, (), cookie=0xAB), n, n, 1.0) for n in range(2500)]


def test_flows_are_read_whole(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    switch.tell("read", token="verify:1")
    _, xid, message = switch.receive(base.MULTIPART_REQUEST)
    asked = agent.decode_flow_stats_request(message)
    assert (asked.table, asked.cookie, asked.cookie_mask, asked.match) == (0xFF, 0xAB, 0xFF, ())
    parts = agent.encode_flow_stats_reply(xid, FLOWS)
    switch.send(parts[:100_000])
    switch.send(parts[100_000:])
    board.event(f"FlowsRead(dpid=42, token='verify:1', flows=({FLOWS[0]!r}, ")
    board.manager.wait_for(f"{FLOWS[-1]!r}))")
    assert board.end() == {}


@pytest.mark.parametrize("failure", ["malformed", "error"])
def test_a_failed_reading_is_repeated_once(start: Callable[..., Board], failure: str) -> None:
    board = start()
    switch = board.switch()
    switch.tell("read", token="a")
    for attempt in range(2):
        _, xid, _ = switch.receive(base.MULTIPART_REQUEST)
        if attempt == 0 or failure == "error":
            bad = agent.encode_flow_stats_reply(xid, FLOWS[:1])
            bad = bad[:16] + b"\0\1" + bad[18:]
            switch.send(bad if failure == "malformed" else agent.encode_error(xid, 1, 2))
        else:
            switch.send(agent.encode_flow_stats_reply(xid, FLOWS[:1]))
    if failure == "malformed":
        board.event(f"FlowsRead(dpid=42, token='a', flows=({FLOWS[0]!r},))")
        assert board.end() == {"malformed.of-length": 1}
    else:
        assert switch.closed()
        board.event("NveDisconnected(dpid=42)")
        assert board.end() == {"error.1.2": 2, "closed.unreadable": 1}


def test_meters_are_read_and_count_nothing_when_that_fails(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    stats = struct.pack("!IH6xIQQII", 5, 56, 1, 70, 8000, 1, 0) + bytes(16)
    replies = {
        "good": struct.pack("!HH4x", base.MP_METER, 0) + stats,
        "malformed": struct.pack("!HH4x", base.MP_METER, 0) + stats[:-1],
    }
    for token, reply in replies.items():
        switch.tell("meters", token=token)
        switch.send(base.message(base.MULTIPART_REPLY, switch.receive(base.MULTIPART_REQUEST)[1], reply))
    switch.tell("meters", token="refused")
    switch.send(agent.encode_error(switch.receive(base.MULTIPART_REQUEST)[1], 1, 2))
    board.event("MetersRead(dpid=42, token='good', meters={5: (70, 8000)})")
    board.event("MetersRead(dpid=42, token='malformed', meters={})")
    board.event("MetersRead(dpid=42, token='refused', meters={})")
    assert board.end() == {"malformed.of-length": 1}


def test_ports_are_read_whole_and_nothing_is_known_of_them_when_that_fails(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    counts = PortCounts(1, 2, 3, 4, 5, 6, None, 8)
    switch.tell("ports", token="good", port=7)
    _, xid, message = switch.receive(base.MULTIPART_REQUEST)
    assert ports.decode_port_stats_request(message) == 7
    parts = [agent.encode_port_stats_reply(xid, {port: counts}) for port in (7, 8)]
    switch.send(parts[0][:10] + b"\0\1" + parts[0][12:] + parts[1])
    switch.tell("ports", token="malformed")
    _, xid, message = switch.receive(base.MULTIPART_REQUEST)
    assert ports.decode_port_stats_request(message) == base.ANY
    reply = agent.encode_port_stats_reply(xid, {7: counts})
    switch.send(reply[:2] + (len(reply) - 1).to_bytes(2, "big") + reply[4:-1])
    switch.tell("ports", token="refused", port=9)
    switch.send(agent.encode_error(switch.receive(base.MULTIPART_REQUEST)[1], 1, 11))
    board.event(f"PortsRead(dpid=42, token='good', ports={{7: {counts!r}, 8: {counts!r}}})")
    board.event("PortsRead(dpid=42, token='malformed', ports={})")
    board.event("PortsRead(dpid=42, token='refused', ports={})")
    assert board.end() == {"malformed.of-length": 1}


def test_a_switch_with_more_flows_than_can_be_is_closed(start: Callable[..., Board]) -> None:
    board = start(flow_cap=2000)
    switch = board.switch()
    switch.tell("read", token="a")
    switch.send(agent.encode_flow_stats_reply(switch.receive(base.MULTIPART_REQUEST)[1], FLOWS))
    assert switch.closed()
    board.event("NveDisconnected(dpid=42)")
    assert "FlowsRead" not in board.manager.text
    assert board.end() == {"closed.flows": 1}


def test_flows_that_left(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    deleted, idle = Flow(4, 1, match(eth_type=0x0800)), Flow(4, 2, match(tun_id=9), cookie=7, idle_timeout=30)
    switch.send(agent.encode_flow_removed(deleted, base.REMOVED_DELETE), agent.encode_flow_removed(idle))
    board.event(f"FlowExpired(dpid=42, flow={idle!r})")
    assert board.manager.text.count("FlowExpired") == 1


# --- bad input ------------------------------------------------------------------------------------------------
def test_nonsense_is_counted_and_skipped(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    good = agent.encode_packet_in(1, ARP)
    nonsense = [
        good[:2] + b"\0\x20" + good[4:32],  # packet-in cut short
        good[:25] + b"\7" + good[26:],  # match of another type
        agent.encode_port_status(0, PORTS[0])[:2] + b"\0\x10" + bytes(12),
        b"\4\xfa\0\x08\0\0\0\1",  # no such type: skipped
        b"\1\x0b\0\x08\0\0\0\1",  # no such version
        base.message(base.ERROR, 1, b"\0"),
        base.message(base.FLOW_REMOVED, 1, bytes(80)),
        base.message(base.MULTIPART_REPLY, 1, b"\0\1"),
        base.message(base.HELLO, 1, bytes(8)),
    ]
    switch.send(*nonsense, good)
    assert switch.receive(base.PACKET_OUT)
    assert board.end() == {
        "malformed.of-truncated": 3,
        "malformed.of-match": 2,
        "malformed.of-version": 1,
    }


def test_lost_framing_ends_the_connection(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    switch.send(agent.encode_packet_in(1, ARP), b"\4\x0a\0\7\0\0\0\0")
    assert switch.closed()
    board.event("NveDisconnected(dpid=42)")
    assert board.end() == {"malformed.of-framing": 1, "closed.framing": 1}


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x77\0\0\x08\0\0\0\1",
        openflow.encode_hello(1) + b"\4\x06\0\x0c\0\0\0\1abcd",
        b"\4\0\0\0\0\0\0\0",
    ],
)
def test_no_handshake_but_nonsense(start: Callable[..., Board], greeting: bytes) -> None:
    board = start(echo_interval=0.2, handshake_within=3.0)
    stranger = board.connect()
    stranger.send(greeting)
    assert stranger.closed()
    board.switch()
    assert "NveConnected(dpid=0" not in board.manager.text
    assert board.manager.text.count("Traceback") <= 1  # Ryu's own, of a features reply it cannot parse


def test_silence_instead_of_a_handshake(start: Callable[..., Board]) -> None:
    board = start(echo_interval=0.1, handshake_within=0.5)
    stranger = board.connect()
    assert stranger.closed()
    assert board.end() == {"closed.handshake": 1}


def test_a_failing_sink_does_not_end_the_connection(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    switch.tell("fail")
    board.manager.wait_for("told to fail")
    switch.send(agent.encode_packet_in(1, ARP))
    assert switch.receive(base.PACKET_OUT)
    assert board.end(failures=1) == {"sink-failed": 1}


def test_what_is_urgent_and_other_ports_go_ahead_of_a_flood(start: Callable[..., Board]) -> None:
    """One port's packets fill their queue; a barrier, an echo and another port's packet behind them need not wait."""
    board = start(port_backlog=1 << 15)
    switch = board.switch()
    switch.tell("program", n=1, generation=9)
    _, barrier, _ = switch.receive(base.BARRIER_REQUEST)
    flood = agent.encode_packet_in(1, ARP) * 40_000
    behind = [agent.encode_barrier_reply(barrier), openflow.encode_echo_request(77), agent.encode_packet_in(2, ARP)]
    switch.sock.settimeout(60)
    sender = threading.Thread(target=switch.send, args=(flood, *behind))
    sender.start()
    seen: list[int] = []
    answered = 0
    while len(seen) < 2:
        kind, xid, message = switch.receive(base.ECHO_REPLY, base.PACKET_OUT)
        if kind == base.ECHO_REPLY:
            assert xid == 77
            seen.append(kind)
        elif agent.decode_packet_out(message).actions == (Output(2),):
            seen.append(kind)
        else:
            answered += 1
    sender.join()
    board.event("BarrierReplied(dpid=42, generation=9)")
    shed = board.end()["shed"]
    assert 0 < answered < 40_000
    assert 0 < shed < 40_000
    assert answered + shed <= 40_000  # what still waits at the end is neither
