"""A VM moves: what a hypervisor does to its network card, with the NVA's part programmed by hand."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from handmade import Hand

from topologies import NVE, VM, OverlayNet, TopologyError
from topologies.frames import RARP_TIMES, announcement, garp, rarp, unsolicited_na
from topologies.netns import entered
from topologies.rundir import wait_until
from topologies.traffic.session import Stream, TcpSession, UdpSession, both_ways

ETH_P_ALL = 3
SO_TIMESTAMPNS = 35
TIMESPEC = struct.Struct("@ll")


@pytest.fixture(params=["ipv4", "ipv6"])
def net(request: pytest.FixtureRequest) -> Iterator[OverlayNet]:
    with OverlayNet(nves=3, vms=3, underlay=request.param, controller=None) as built:
        yield built


@contextlib.contextmanager
def listening(nve: NVE, ifname: str) -> Iterator[Callable[[], list[tuple[float, bytes]]]]:
    """Collects the frames that come *from* a VM at an interface, with the times when they came (epoch)."""
    with entered(nve.namespace):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.bind((ifname, ETH_P_ALL))
    sock.setblocking(False)
    got: list[tuple[float, bytes]] = []

    def frames() -> list[tuple[float, bytes]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, [(_, _, stamp)], _, where = sock.recvmsg(2048, socket.CMSG_SPACE(TIMESPEC.size))
                seconds, nanoseconds = TIMESPEC.unpack(stamp)
                if where[2] != socket.PACKET_OUTGOING:
                    got.append((seconds + nanoseconds / 1e9, frame))
        return got

    with sock:
        yield frames


def planned(hand: Hand, vm: VM, there: NVE, announce: str = "both") -> dict[str, float]:
    """A hot move as an NVA directs it; returns what the hypervisors counted."""
    here, link = vm.nve, vm.attachment
    link.prepare(there)
    hand.prepare(vm, there)
    hand.redirect(vm, there)
    link.await_quiet(0.1, deadline=2.0)  # a busy machine holds up what is under way for some time
    paused = link.pause()
    left = link.leave()
    time.sleep(max(0.0, paused["at"] + 0.05 - time.monotonic()))
    resumed = link.resume(there, announcement(announce, vm.spec))
    hand.steer(vm, there)
    time.sleep(0.2)  # what is still under way takes the redirect
    hand.settle(vm, here)
    return {"left": left["left"], "queued": resumed["queued"], "down": resumed["at"] - paused["at"]}


def test_moves_under_traffic_lose_and_double_nothing(net: OverlayNet) -> None:
    hand = Hand(net)
    vm, two, three = net.vms
    streams = [Stream(two, vm), Stream(vm, three, "idle", family=6, interval=0.1)]
    with TcpSession(streams) as tcp, UdpSession(both_ways(vm, two) + both_ways(vm, three, family=6)) as udp:
        time.sleep(0.3)
        waited = 0.0
        for nve in ("nve2", "nve3", "nve1"):
            counted = planned(hand, vm, net.nve(nve))
            assert counted["left"] == 0
            assert counted["down"] >= 0.05
            waited += counted["queued"]
            assert vm.nve is net.nve(nve)
        outcome = udp.stop()
        results = tcp.stop()
    assert outcome.sent > 4 * 2000
    assert (outcome.lost, outcome.duplicated, outcome.foreign, outcome.dropped) == (0, 0, 0, 0), [
        (flow.name, flow.count) for flow in outcome.flows
    ]
    assert waited > 100  # the pauses were real: traffic waited in the destinations' queues
    assert [result.errors for result in results] == [[], []]
    assert all(result.records > 5 for result in results)


def test_an_unplanned_move_loses_only_the_time_in_between(net: OverlayNet) -> None:
    hand = Hand(net)
    vm, two, _ = net.vms
    with UdpSession(both_ways(vm, two)) as udp:
        time.sleep(0.3)
        report = vm.move("nve2", planned=False)
        there = net.nve("nve2")
        hand.prepare(vm, there)
        hand.steer(vm, there)
        programmed = time.monotonic()
        time.sleep(0.3)
        outcome = udp.stop()
    there_and_back = {flow.name: flow.count for flow in outcome.flows}
    gap = programmed - report.times["paused"]
    lost = there_and_back["vm2 to vm1, IPv4"].lost
    assert 0 < lost <= 2000 * (gap + 0.02 + outcome.sender_lateness)  # a sender that was late catches up in the gap
    assert report.downtime >= 0.05
    assert list(report.times) == ["paused", "port_gone", "port_ready", "resumed", "announced"]


def test_a_paused_vm_keeps_what_comes_and_what_it_sends_in_order() -> None:
    with OverlayNet(nves=2, vms=2, controller=None) as net:
        Hand(net)
        one, two = net.vms
        with UdpSession(both_ways(one, two, rate=1000)) as udp:
            time.sleep(0.3)
            one.attachment.pause()
            time.sleep(1.0)
            answer = one.attachment.resume(one.nve, [])
            assert answer["queued"] >= 400
            time.sleep(0.3)
            outcome = udp.stop()
        assert (outcome.lost, outcome.duplicated, outcome.reordered) == (0, 0, 0)
        assert all(flow.count.stall > 0.45 for flow in outcome.flows)


@pytest.mark.parametrize(("kind", "expected"), [
    ("garp-request", [lambda s: garp(s.mac, s.ip)]),
    ("garp-reply", [lambda s: garp(s.mac, s.ip, reply=True)]),
    ("na", [lambda s: unsolicited_na(s.mac, s.ip6)]),
    ("both", [lambda s: garp(s.mac, s.ip), lambda s: unsolicited_na(s.mac, s.ip6)]),
    ("rarp", [lambda s: rarp(s.mac)] * 5),
    ("none", []),
])
@pytest.mark.parametrize("attach", ["tap", "veth"])
def test_every_announcement_leaves_the_new_port(kind: str, expected: list[Callable[..., bytes]], attach: str) -> None:
    with OverlayNet(nves=2, vms=1, attach=attach, controller=None) as net:
        vm, there = net.vm("vm1"), net.nve("nve2")
        if attach == "veth":  # its end appears at the destination only now
            vm.move("nve2", planned=False, announce="none")
            with listening(there, vm.spec.port) as frames:
                vm.announce(kind) if kind != "none" else None
                got = _wait(frames, [make(vm.spec) for make in expected])
        else:
            with listening(there, vm.spec.port) as frames:
                vm.move("nve2", planned=False, announce=kind)
                got = _wait(frames, [make(vm.spec) for make in expected])
    if kind == "rarp":
        assert [at - got[0] for at in got] == pytest.approx(RARP_TIMES, abs=0.1)


def _wait(frames: Callable[[], list[tuple[float, bytes]]], wanted: list[bytes]) -> list[float]:
    """Wait until exactly the wanted frames came from the VM, in order; returns their times."""
    def announcements() -> list[tuple[float, bytes]]:
        # a guest also says by itself which multicast groups it listens to
        return [(at, frame) for at, frame in frames() if frame in wanted or frame[12:14] in (b"\x08\x06", b"\x80\x35")]

    wait_until(lambda: len(announcements()) >= len(wanted), 5, f"{len(wanted)} announcements")
    time.sleep(0.1 if not wanted else 0)
    assert [frame for _, frame in announcements()] == wanted
    return [at for at, _ in announcements()]


def test_a_container_moves_with_its_sockets() -> None:
    with OverlayNet(nves=2, vms=2, attach="veth", controller=None) as net:
        hand = Hand(net)
        one, two = net.vms
        with TcpSession([Stream(two, one, "idle", interval=0.1)]) as tcp:
            time.sleep(0.3)
            report = one.move("nve2", planned=False)
            there = net.nve("nve2")
            hand.prepare(one, there)
            hand.steer(one, there)
            gap = time.monotonic() - report.times["paused"]
            patience = 2 * gap + 1  # each retransmission waits twice as long as the one before it
            time.sleep(patience + 0.5)
            result = tcp.stop()[0]
        assert result.errors == []
        assert result.records > 5
        assert result.stall < patience


def test_a_cold_move_has_no_port_anywhere_for_a_while() -> None:
    with OverlayNet(nves=2, vms=1, controller=None) as net:
        vm = net.vm("vm1")
        report = vm.move("nve2", planned=False, kind="cold", pause=0.3)
        assert report.times["port_gone"] < report.times["port_ready"]
        assert report.downtime >= 0.3
        assert vm.spec.port not in net.nve("nve1").vsctl("list-ports", "br-int").split()
        assert net.nve("nve2").ofport(vm.spec.port) >= 10


def test_moves_that_make_no_sense(net: OverlayNet) -> None:
    vm = net.vm("vm1")
    for arguments, words in (
        ({"to": "nve1"}, "is at nve1 already"),
        ({"to": "nve9"}, "no NVE 'nve9'"),
        ({"to": "nve2", "announce": "shout"}, "'shout' is not one of"),
        ({"to": "nve2", "planned": True}, "needs the NVA's REST interface"),
    ):
        with pytest.raises(TopologyError, match=words):
            vm.move(**arguments)
    assert vm.nve is net.nve("nve1")
    assert vm.move("nve2", planned=False).destination == "nve2"
