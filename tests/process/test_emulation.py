"""Emulated switches as a process, against real controllers on loopback."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ryu_vmm.emulation import packets
from ryu_vmm.emulation.client import Emulation, EmulationError
from ryu_vmm.flows import Flow, FlowChange, Output, ToNva, match
from ryu_vmm.wire import base as of
from ryu_vmm.wire import openflow as nva

SIMPLE_SWITCH = "ryu.app.simple_switch_13"
DEADLINE = 60.0  # seconds


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"no {what} in {DEADLINE} s"
        time.sleep(0.01)


def ask(n: int) -> str:
    """ARP request number ``n``, hexadecimal."""
    mac = 0x020000000000 + n
    request = {"eth_dst": 2**48 - 1, "eth_src": mac, "arp_op": 1, "arp_sha": mac, "arp_spa": n, "arp_tpa": n + 1}
    return packets.build(request).hex()


def switches(count: int, **more: object) -> list[dict[str, object]]:
    return [
        {"dpid": n, "ports": ["vxlan", "tap-1", "tap-2"], "addresses": [f"192.168.0.{n}"], **more}
        for n in range(1, count + 1)
    ]


@pytest.fixture
def ryu(ryu_manager: Callable[..., Any]) -> Any:
    manager = ryu_manager(SIMPLE_SWITCH)
    manager.connect(manager.ofp).close()
    return manager


@pytest.fixture
def emulation(ryu: Any) -> Iterator[Emulation]:
    with Emulation(("127.0.0.1", ryu.ofp)) as found:
        yield found
    assert found._process.returncode == 0


def test_a_real_controller_learns_and_forwards(emulation: Emulation) -> None:
    emulation.add(switches(1, eager=True))
    wait_until(lambda: emulation.call("flows", dpid=1)["flows"] == 1, "the table-miss flow")
    there = packets.build({"eth_dst": 2, "eth_src": 1}, b"there").hex()
    back = packets.build({"eth_dst": 1, "eth_src": 2}, b"back").hex()
    assert emulation.call("inject", dpid=1, port="tap-1", frame=there)["results"] == [{"nva": 0}]
    # unknown destination: flooded to the tunnel port, where it names no peer, and to the other port
    wait_until(lambda: emulation.call("count")["delivered"] == 1, "the flooded frame")
    assert emulation.call("count")["lost"] == {"no destination": 1}
    emulation.call("inject", dpid=1, port="tap-2", frame=back)
    wait_until(lambda: emulation.call("flows", dpid=1)["flows"] == 2, "the learned flow")
    assert emulation.call("inject", dpid=1, port="tap-2", frame=back)["results"] == [{"out": 2, "frame": back}]


def test_load_is_answered_completely_and_measured(emulation: Emulation) -> None:
    emulation.add(switches(4))
    emulation.call("quiet", idle=0.2)
    frames = {str(d): [("tap-1", ask(10 * d + n)) for n in range(5)] for d in range(1, 5)}
    result = emulation.call("load", frames=frames, window=8, seconds=0.5, warm_up=0.2)
    assert result["lost"] == 0
    assert result["answered"] == sum(result["per_switch"]) > 0
    assert min(result["per_switch"]) > 0
    assert 0.5 <= result["seconds"] < DEADLINE
    assert 0 < result["latencies"]["p50"] <= result["latencies"]["p99"] <= result["latencies"]["max"]
    # each answer says which question it belongs to: the switch floods what it was asked to
    for dpid, number, came_out in result["answers"]:
        assert {out["frame"] for out in came_out} == {frames[str(dpid)][number][1]}
    # the switches are served as before
    emulation.call("inject", dpid=2, port="tap-1", frame=ask(99))
    wait_until(lambda: "13" in emulation.call("count")["received"], "a packet-out after the load")


def test_a_lost_connection_comes_back(emulation: Emulation) -> None:
    emulation.add(switches(2))
    emulation.call("cut", dpid=1)
    emulation.call("ready", timeout=DEADLINE)
    assert emulation.call("count")["connections_lost"] == 1


def test_two_hundred_switches_connect(emulation: Emulation) -> None:
    many = [{"dpid": n, "addresses": [f"192.168.1.{n}"]} for n in range(1, 201)]
    assert emulation.add(many) < DEADLINE
    assert emulation.call("count")["connections_lost"] == 0


def test_errors_are_told_and_the_process_goes_on(emulation: Emulation) -> None:
    emulation.add(switches(1))
    for command, arguments in (
        ("fly", {}),
        ("flows", {"dpid": 9}),
        ("faults", {"dpid": 1, "nonsense": 1}),
        ("inject", {"dpid": 1, "port": "none", "frame": ""}),
        ("load", {"frames": {"7": []}, "window": 1, "seconds": 1}),
        ("add", {"switches": switches(1)}),
    ):
        with pytest.raises(EmulationError):
            emulation.call(command, **arguments)
    wait_until(lambda: emulation.call("flows", dpid=1) == {"flows": 1}, "the table-miss flow")


# --- against a controller played by the test --------------------------------------------------------------------------
class Peer:
    """The test's end of one switch's connection."""

    def __init__(self, listener: socket.socket) -> None:
        self.sock, _ = listener.accept()
        self.sock.settimeout(DEADLINE)
        self.buffer = b""
        self.send(nva.encode_hello(1), of.message(of.FEATURES_REQUEST, 2))
        self.dpid = int.from_bytes(self.receive(of.FEATURES_REPLY)[8:16], "big")

    def send(self, *messages: bytes) -> None:
        self.sock.sendall(b"".join(messages))

    def receive(self, kind: int) -> bytes:
        """The next message of that type."""
        while True:
            while len(self.buffer) < 8 or len(self.buffer) < int.from_bytes(self.buffer[2:4], "big"):
                data = self.sock.recv(65536)
                assert data, "the switch closed the connection"
                self.buffer += data
            size = int.from_bytes(self.buffer[2:4], "big")
            message, self.buffer = self.buffer[:size], self.buffer[size:]
            if message[1] == kind:
                return message


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(DEADLINE)
        yield sock


def test_convergence_is_seen_at_the_last_barrier(listener: socket.socket) -> None:
    with Emulation(listener.getsockname()[:2]) as emulation:
        emulation.call("add", switches=switches(2))
        peers = [Peer(listener), Peer(listener)]
        asked = FlowChange("add", Flow(0, 1, match(in_port=2), (ToNva(0xFFFF),)))
        for peer in peers:
            peer.send(nva.encode_flow_mods([asked], 3), nva.encode_barrier(4))
            peer.receive(of.BARRIER_REPLY)
        emulation.tell("move", dpid=2, port="tap-1", frame=ask(1), watch=[1, 2], timeout=DEADLINE)
        one, two = sorted(peers, key=lambda peer: peer.dpid)
        two.receive(of.PACKET_IN)  # the trigger
        for peer in peers:  # a barrier without a flow mod before it does not count
            peer.send(nva.encode_barrier(5))
            peer.receive(of.BARRIER_REPLY)
        steer = FlowChange("add", Flow(0, 2, match(in_port=3), (Output(1),)))
        for delay, peer in ((0.0, one), (0.3, two)):
            time.sleep(delay)  # this is what is measured
            peer.send(nva.encode_flow_mods([steer], 6), nva.encode_barrier(7))
            peer.receive(of.BARRIER_REPLY)
        seen = emulation.answer("move")
        assert seen["missing"] == []
        assert seen["seconds"]["2"] - seen["seconds"]["1"] >= 0.3
        assert 0 < seen["seconds"]["1"] < seen["seconds"]["2"] < DEADLINE


def test_idle_flows_leave_by_themselves(listener: socket.socket) -> None:
    with Emulation(listener.getsockname()[:2]) as emulation:
        emulation.call("add", switches=switches(1))
        peer = Peer(listener)
        idle = Flow(0, 1, match(in_port=2), (Output(3),), cookie=6, idle_timeout=1)
        peer.send(nva.encode_flow_mods([FlowChange("add", idle)], 3))
        removed = nva.decode_flow_removed(peer.receive(of.FLOW_REMOVED))
        assert (removed.flow.key, removed.flow.cookie, removed.reason) == (idle.key, 6, of.REMOVED_IDLE)
        assert removed.age >= 1.0
        assert emulation.call("flows", dpid=1) == {"flows": 0}


def test_faults_over_the_wire(listener: socket.socket) -> None:
    with Emulation(listener.getsockname()[:2]) as emulation:
        emulation.call("add", switches=switches(1, eager=True))
        peer = Peer(listener)
        emulation.call("faults", dpid=1, refuse_flow_mods=1, error=[5, 1], reply_delay=0.2)
        start = time.monotonic()
        peer.send(nva.encode_flow_mods([FlowChange("add", Flow(0, 1, ()))], 3))
        assert nva.decode_error(peer.receive(of.ERROR))[:2] == (5, 1)
        assert time.monotonic() - start >= 0.2
        emulation.call("faults", dpid=1, reply_delay=0.0, close_after=0)
        peer.send(nva.encode_barrier(3))
        again = Peer(listener)  # closed, and back
        again.send(nva.encode_barrier(4))
        again.receive(of.BARRIER_REPLY)
        assert peer.sock.recv(100) == b""


def test_it_ends_with_its_input() -> None:
    with Emulation(("127.0.0.1", 9)) as emulation:
        pid = emulation.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(EmulationError):
        emulation.call("count")
