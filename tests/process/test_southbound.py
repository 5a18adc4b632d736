"""The switchboard in a real ryu-manager, spoken to by switches that are plain sockets."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ryu_vmm.events import PortInfo
from ryu_vmm.flows import Flow, FlowStats, Output, match
from ryu_vmm.wire import agent, base, frames, openflow

HERE = Path(__file__).parent
BOARD, BESIDE = str(HERE / "board_app.py"), str(HERE / "beside_app.py")
PORTS = [PortInfo(1, "tap-vm1", True), PortInfo(2, "vxlan", True), PortInfo(0xFFFFFFFE, "br-int", False)]
ARP = frames.build_arp_request(b"\2\0\0\0\0\2", bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1]))


class Client:
    """A switch: answers what the handshake asks, all else is the test's business."""

    def __init__(self, sock: socket.socket, dpid: int = 0x2A) -> None:
        self.sock, self.dpid, self.buffer = sock, dpid, b""
        sock.settimeout(20)

    def send(self, *messages: bytes) -> None:
        self.sock.sendall(b"".join(messages))

    def receive(self, *kinds: int) -> tuple[int, int, bytes]:
        """(type, xid, message) of the next message of one of these types, or of any."""
        while True:
            while len(self.buffer) < 8 or len(self.buffer) < openflow.decode_header(self.buffer).length:
                more = self.sock.recv(1 << 20)
                if not more:
                    raise EOFError
                self.buffer += more
            header = openflow.decode_header(self.buffer)
            message, self.buffer = self.buffer[: header.length], self.buffer[header.length :]
            if not kinds or header.type in kinds:
                return header.type, header.xid, message

    def shake_hands(self, meters: bytes | None = None) -> Client:
        """Until the controller's first barrier, whose reply has it take us in. ``meters``: features, if any."""
        self.send(openflow.encode_hello(1))
        while True:
            kind, xid, message = self.receive()
            if kind == base.FEATURES_REQUEST:
                self.send(agent.encode_features_reply(xid, self.dpid))
            elif kind == base.BARRIER_REQUEST:
                self.send(agent.encode_barrier_reply(xid))
                return self
            elif kind == base.MULTIPART_REQUEST:
                asked, _ = agent.decode_multipart_request(message)
                if asked == base.MP_PORT_DESC:
                    self.send(agent.encode_port_desc_reply(xid, PORTS))
                elif asked == base.MP_METER_FEATURES and meters is not None:
                    head = struct.pack("!HH4x", asked, 0)
                    self.send(base.message(base.MULTIPART_REPLY, xid, head + meters))
                else:
                    self.send(agent.encode_error(xid, 1, 2, message[:64]))

    def tell(self, do: str, **arguments: Any) -> None:
        """Have the application do something."""
        text = json.dumps({"do": do, **arguments}).encode()
        self.send(agent.encode_packet_in(1, bytes(12) + b"\x88\xb6" + text))

    def closed(self) -> bool:
        """Whether the controller ends the connection (waits for it)."""
        try:
            while True:
                self.receive()
        except (EOFError, ConnectionResetError):
            return True


class Board:
    """The application and its switches."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.clients: list[Client] = []

    def connect(self, dpid: int = 0x2A) -> Client:
        self.clients.append(Client(self.manager.connect(self.manager.ofp), dpid))
        return self.clients[-1]

    def switch(self, dpid: int = 0x2A) -> Client:
        client = self.connect(dpid).shake_hands()
        self.event(f"NveConnected(dpid={dpid}, ")
        return client

    def event(self, text: str) -> None:
        self.manager.wait_for(f"event {text}")

    def batches(self) -> list[int]:
        """Sizes of the packet-in batches so far."""
        return [int(size) for size in re.findall(r"batch \w+ (\d+)", self.manager.text)]

    def end(self, failures: int = 0) -> dict[str, int]:
        """End the application; what it has counted. There must be no more tracebacks than said."""
        assert self.manager.end() == 0
        assert self.manager.text.count("Traceback") == failures
        found: dict[str, int] = json.loads(re.findall(r"counters (\{.*\})", self.manager.text)[-1])
        return found


@pytest.fixture
def start(ryu_manager: Callable[..., Any]) -> Iterator[Callable[..., Board]]:
    """start(*more applications, **settings of the switchboard)."""
    boards: list[Board] = []

    def start(*apps: str, args: tuple[str, ...] = (), **settings: float) -> Board:
        environment = {**os.environ, "BOARD": json.dumps(settings)}
        boards.append(Board(ryu_manager(*args, BOARD, *apps, env=environment)))
        return boards[-1]

    yield start
    for board in boards:
        for client in board.clients:
            client.sock.close()


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
    board.event(f"NveConnected(dpid=42, ports={tuple(PORTS)!r}, meters={highest})")
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
    assert len({xid for _, xid, _ in mods}) == 1
    kind, barrier, _ = switch.receive()
    assert kind == base.BARRIER_REQUEST
    switch.send(agent.encode_error(mods[0][1], 5, 1, mods[1][2][:64]), agent.encode_barrier_reply(barrier))
    board.event("FlowRefused(dpid=42, generation=17, type=5, code=1)")
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
    board.event("FlowRefused(dpid=42, generation=2, type=5, code=0)")


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
    assert f"{FLOWS[-1]!r}))" in board.manager.text
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
    board = start(echo_interval=0.2, handshake_within=1.0)
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


# --- connections ----------------------------------------------------------------------------------------------
@contextmanager
def answering(client: Client) -> Iterator[None]:
    """Answers echo requests meanwhile."""
    stop = threading.Event()

    def serve() -> None:
        client.sock.settimeout(0.05)
        while not stop.is_set():
            try:
                _, xid, _ = client.receive(base.ECHO_REQUEST)
                client.send(openflow.encode_echo_reply(xid))
            except TimeoutError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        client.sock.settimeout(20)


def test_a_second_connection_of_a_living_switch_is_refused(start: Callable[..., Board]) -> None:
    board = start()
    first = board.switch()
    with answering(first):
        for _ in range(2):
            second = board.connect()
            with pytest.raises((EOFError, ConnectionResetError)):
                second.shake_hands()
    first.send(agent.encode_packet_in(1, ARP))
    assert first.receive(base.PACKET_OUT)
    assert board.manager.text.count("NveConnected") == 1
    assert board.manager.text.count("refused, since") == 1
    assert board.end()["refused"] == 2


def test_a_second_connection_replaces_a_dead_one(start: Callable[..., Board]) -> None:
    board = start()
    first = board.switch()
    began = time.monotonic()
    second = board.connect().shake_hands()
    assert 0.9 < time.monotonic() - began < 5
    assert first.closed()
    second.send(agent.encode_packet_in(1, ARP))
    assert second.receive(base.PACKET_OUT)
    events = re.findall(r"event (Nve\w+)", board.manager.text)
    assert events == ["NveConnected", "NveDisconnected", "NveConnected"]
    assert board.end() == {"replaced": 1}


def test_an_idle_switch_that_answers_stays_and_a_dead_one_goes(start: Callable[..., Board]) -> None:
    board = start(echo_interval=0.2, echo_misses=3)
    living, dead = board.switch(1), board.switch(2)
    with answering(living):
        board.event("NveDisconnected(dpid=2)")
        assert dead.closed()
        time.sleep(1.0)  # several times what the dead one had
    assert "NveDisconnected(dpid=1)" not in board.manager.text
    assert board.end() == {"closed.silent": 1}


def test_echo_requests_are_answered_once(start: Callable[..., Board]) -> None:
    board = start(BESIDE)
    switch = board.switch()
    switch.send(openflow.encode_echo_request(5, b"hello"), agent.encode_packet_in(1, ARP))
    _, xid, message = switch.receive(base.ECHO_REPLY)
    assert (xid, message[8:]) == (5, b"hello")
    kind, _, _ = switch.receive(base.ECHO_REPLY, base.PACKET_OUT)
    assert kind == base.PACKET_OUT


def test_a_switch_that_does_not_read_delays_no_other(start: Callable[..., Board]) -> None:
    board = start(send_cap=8_000_000)
    slow, swift = board.switch(1), board.switch(2)
    slow.tell("send", size=60_000, times=100)
    board.manager.wait_for("obeyed 1 send")
    slow.tell("program", n=100_000, generation=1)
    board.manager.wait_for("obeyed 1 program")
    for _ in range(100):
        began = time.monotonic()
        swift.send(agent.encode_packet_in(1, ARP))
        assert swift.receive(base.PACKET_OUT)
        assert time.monotonic() - began < 1
    assert "NveDisconnected" not in board.manager.text
    slow.tell("send", size=60_000, times=200)
    board.event("NveDisconnected(dpid=1)")
    swift.tell("send", size=100, dpid=1)
    swift.send(agent.encode_packet_in(1, ARP))
    assert swift.receive(base.PACKET_OUT)
    assert board.end() == {"closed.slow": 1, "unsent": 1}


def test_a_slow_switch_gets_all_in_the_end(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    switch.tell("send", size=60_000, times=200)
    switch.tell("program", n=20_000, generation=1)
    board.manager.wait_for("obeyed 42 program")
    for _ in range(200):
        assert len(switch.receive()[2]) == 24 + 16 + 60_000
    for n in range(20_000):
        assert agent.decode_flow_mod(switch.receive()[2]).flow.match[1][1] == n.to_bytes(4, "big")
    assert switch.receive()[0] == base.BARRIER_REQUEST
    assert board.end() == {}


# --- company --------------------------------------------------------------------------------------------------
def test_other_applications_get_their_events(start: Callable[..., Board]) -> None:
    board = start(BESIDE)
    switch = board.switch()
    board.manager.wait_for("beside: state main of 000000000000002a")
    _, theirs, _ = switch.receive(base.BARRIER_REQUEST)
    _, reading, _ = switch.receive(base.MULTIPART_REQUEST)
    switch.tell("program", n=1, generation=1)
    _, ours, _ = switch.receive(base.BARRIER_REQUEST)
    switch.tell("read", token="a")
    _, our_reading, _ = switch.receive(base.MULTIPART_REQUEST)
    new = PortInfo(5, "tap5", True)
    switch.send(
        agent.encode_barrier_reply(ours),
        agent.encode_flow_stats_reply(our_reading, FLOWS[:7]),
        agent.encode_barrier_reply(theirs),
        agent.encode_flow_stats_reply(reading, FLOWS[:4]),
        agent.encode_packet_in(1, ARP),
        agent.encode_port_status(base.PORT_ADD, new),
    )
    board.manager.wait_for("beside: barrier")
    board.manager.wait_for("beside: 4 flows")
    board.manager.wait_for(f"beside: packet-in of {len(ARP)} bytes")
    board.manager.wait_for("beside: port 5, of [1, 2, 5, 4294967294]")
    board.event("BarrierReplied(dpid=42, generation=1)")
    assert board.manager.text.count("beside: barrier") == 1  # ours is ours alone
    assert "beside: 7 flows" not in board.manager.text
    assert board.end() == {}


def test_over_tls(start: Callable[..., Board], tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    subject = ["-subj", "/CN=localhost", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    board = start(args=("--ctl-privkey", key, "--ctl-cert", certificate, "--ofp-ssl-listen-port", port))
    context = ssl.create_default_context(cafile=certificate)
    plain = board.manager.connect(int(port))
    switch = Client(context.wrap_socket(plain, server_hostname="localhost")).shake_hands()
    board.clients.append(switch)
    switch.send(*(agent.encode_packet_in(number, ARP) for number in range(1, 101)))
    for number in range(1, 101):
        out = agent.decode_packet_out(switch.receive(base.PACKET_OUT)[2])
        assert out.actions == (Output(number),)
    switch.tell("send", size=60_000, times=200)
    for _ in range(200):
        assert len(switch.receive()[2]) == 24 + 16 + 60_000
    assert board.end() == {}
