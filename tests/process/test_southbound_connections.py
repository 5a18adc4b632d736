"""Connections to the switchboard in a real ryu-manager: second ones, dead ones, slow ones, and company."""

from __future__ import annotations

import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from board_lab import ARP, BESIDE, Board, Client, start

from ryu_vmm.events import PortInfo
from ryu_vmm.flows import Flow, FlowStats, Output
from ryu_vmm.wire import agent, base, openflow
from topologies.ports import free_port
from topologies.rundir import wait_until

__all__ = ["start"]  # a fixture


FLOWS = [FlowStats(Flow(1, n, ()), n, n, 1.0) for n in range(7)]


# --- connections ----------------------------------------------------------------------------------------------
@contextmanager
def answering(client: Client) -> Iterator[list[int]]:
    """Answers echo requests meanwhile; yields the numbers of those it has answered so far."""
    stop, answered = threading.Event(), list[int]()

    def serve() -> None:
        client.sock.settimeout(0.05)
        while not stop.is_set():
            try:
                _, xid, _ = client.receive(base.ECHO_REQUEST)
                client.send(openflow.encode_echo_reply(xid))
                answered.append(xid)
            except TimeoutError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield answered
    finally:
        stop.set()
        thread.join()
        client.sock.settimeout(60)


def test_a_second_connection_of_a_living_switch_is_refused(start: Callable[..., Board]) -> None:
    board = start(takeover_within=5.0)
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
    assert 0.9 < time.monotonic() - began < 10
    assert first.closed()
    second.send(agent.encode_packet_in(1, ARP))
    assert second.receive(base.PACKET_OUT)
    events = re.findall(r"event (Nve\w+)", board.manager.text)
    assert events == ["NveConnected", "NveDisconnected", "NveConnected"]
    assert board.end() == {"replaced": 1}


def test_an_idle_switch_that_answers_stays_and_a_dead_one_goes(start: Callable[..., Board]) -> None:
    board = start(echo_interval=0.1, echo_misses=20)
    living = board.switch(1)
    with answering(living) as answered:
        dead = board.switch(2)
        board.event("NveDisconnected(dpid=2)")
        assert dead.closed()
        # Asked whenever it has been silent for an interval: this takes longer than the dead one had.
        wait_until(lambda: len(answered) > 15, 60, "an idle switch asked again and again")
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
    board = start(send_cap=8_000_000, echo_interval=60, stuck_after=60)  # it is to die of what waits for it
    swift = board.switch(2)
    board.switch(1)
    swift.tell("send", dpid=1, size=60_000, times=100)
    board.manager.wait_for("obeyed 2 send")
    swift.tell("program", dpid=1, n=100_000, generation=1)
    board.manager.wait_for("obeyed 2 program")
    for _ in range(100):
        began = time.monotonic()
        swift.send(agent.encode_packet_in(1, ARP))
        assert swift.receive(base.PACKET_OUT)
        assert time.monotonic() - began < 5
    assert "NveDisconnected" not in board.manager.text
    swift.tell("send", dpid=1, size=60_000, times=200)
    board.event("NveDisconnected(dpid=1)")
    swift.tell("send", size=100, dpid=1)
    swift.send(agent.encode_packet_in(1, ARP))
    assert swift.receive(base.PACKET_OUT)
    assert board.end() == {"closed.slow": 1, "unsent": 1}


def test_a_slow_switch_gets_all_in_the_end(start: Callable[..., Board]) -> None:
    board = start(echo_interval=60, stuck_after=60)
    switch, other = board.switch(), board.switch(1)
    # By another one: what a switch itself says waits while so much waits to be sent to it.
    other.tell("send", dpid=42, size=60_000, times=200)
    other.tell("program", dpid=42, n=20_000, generation=1)
    board.manager.wait_for("obeyed 1 program")
    for _ in range(200):
        assert len(switch.receive()[2]) == 24 + 16 + 60_000
    for n in range(20_000):
        assert agent.decode_flow_mod(switch.receive()[2]).flow.match[1][1] == n.to_bytes(4, "big")
    assert switch.receive()[0] == base.BARRIER_REQUEST
    assert board.end() == {}


def test_of_those_that_never_come_to_an_end_the_oldest_makes_room(start: Callable[..., Board]) -> None:
    board = start(handshakes=3)
    crowd = [board.connect(n) for n in range(1, 4)]
    board.switch(9)  # the fourth, and at once in its place
    assert crowd[0].closed()
    for client in crowd[1:]:
        client.shake_hands()
    assert board.end() == {"closed.crowded": 1}


def test_one_that_leaves_a_barrier_unanswered_is_let_go(start: Callable[..., Board]) -> None:
    board = start(echo_interval=0.1, echo_misses=1000, answer_within=2.0)
    lazy, busy = board.switch(1), board.switch(2)
    lazy.tell("program", n=1, generation=7)
    busy.tell("program", n=1, generation=7)
    busy.send(agent.encode_barrier_reply(busy.receive(base.BARRIER_REQUEST)[1]))
    board.event("NveDisconnected(dpid=1)")
    assert "it has not answered: the barrier of generation 7" in board.manager.text
    time.sleep(1.0)  # nothing is expected of the other one
    assert "NveDisconnected(dpid=2)" not in board.manager.text
    assert board.end() == {"closed.unanswered": 1}


@pytest.mark.parametrize("what", ["meters", "ports"])
def test_one_that_leaves_a_reading_of_counters_unanswered_is_let_go(start: Callable[..., Board], what: str) -> None:
    board = start(echo_interval=0.1, echo_misses=1000, answer_within=1.0)
    board.switch(1).tell(what, token="ledger:1:redirect@n1")
    board.event("NveDisconnected(dpid=1)")
    assert "it has not answered: what its meters and ports have counted" in board.manager.text
    assert board.end() == {"closed.unanswered": 1}


def test_an_error_to_a_barrier_is_a_refusal(start: Callable[..., Board]) -> None:
    board = start()
    switch = board.switch()
    switch.tell("program", n=1, generation=7)
    _, xid, message = switch.receive(base.BARRIER_REQUEST)
    switch.send(agent.encode_error(xid, 1, 1, message))
    board.event("FlowRefused(dpid=42, generation=7, type=1, code=1, cookie=None)")
    assert board.end()["error.1.1"] == 1


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
        agent.encode_flow_stats_reply(our_reading, FLOWS),
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
    port = str(free_port())
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
