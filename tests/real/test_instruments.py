"""The instruments see what goes wrong: loss, doubles, strangers, broken streams. So their zeros mean something."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from handmade import DELIVER, Hand

from topologies import OverlayNet, TopologyError, VMSpec
from topologies.traffic.session import Pair, Stream, TcpSession, UdpSession, both_ways


@pytest.fixture(scope="module")
def net() -> Iterator[OverlayNet]:
    with OverlayNet(nves=2, vms=4, vns=2, overlap=True, controller=None) as built:
        yield built


@pytest.fixture
def hand(net: OverlayNet) -> Iterator[Hand]:
    """The net as it should be, all neighbors known; what a test misprograms is put right again."""
    hand = Hand(net)
    net.await_pings()
    yield hand
    for nve in net.nves:
        nve.ofctl("del-flows")


def outcome_of(pairs: list[Pair], seconds: float = 0.5) -> tuple[int, int, int, int]:
    """(sent, lost, doubled, foreign) after some time of traffic."""
    with UdpSession(pairs, quiet=0.3) as session:
        time.sleep(seconds)
        outcome = session.stop()
    assert outcome.sent >= sum(pair.rate for pair in pairs) * seconds * 0.5  # a busy machine may be late
    assert outcome.dropped == 0
    return outcome.sent, outcome.lost, outcome.duplicated, outcome.foreign


def test_nothing_wrong(net: OverlayNet, hand: Hand) -> None:
    one, two = net.vm("vm1"), net.vm("vm3")
    for family in (4, 6):
        assert outcome_of(both_ways(one, two, family, rate=500))[1:] == (0, 0, 0)


def test_loss_is_seen(net: OverlayNet, hand: Hand) -> None:
    one, two = net.vm("vm1"), net.vm("vm3")
    one.nve.ofctl("add-flow", f"table={DELIVER},priority=99,tun_id={hand.vni(one)},dl_dst={two.spec.mac},actions=drop")
    sent, lost, doubled, foreign = outcome_of([Pair(one, two, rate=500)])
    assert (lost, doubled, foreign) == (sent, 0, 0)


def test_doubles_are_seen(net: OverlayNet, hand: Hand) -> None:
    one, two = net.vm("vm1"), net.vm("vm3")
    port = two.nve.ofport(two.spec.port)
    two.nve.ofctl("add-flow", f"table={DELIVER},priority=99,tun_id={hand.vni(two)},dl_dst={two.spec.mac},"
                              f"actions=output:{port},output:{port}")
    sent, lost, doubled, foreign = outcome_of([Pair(one, two, rate=500)])
    assert (lost, doubled, foreign) == (0, sent, 0)


def test_strangers_are_seen(net: OverlayNet, hand: Hand) -> None:
    """Another network's datagrams, addressed to the very same MAC and IP addresses, are told apart by their tag."""
    one, two, stranger = net.vm("vm1"), net.vm("vm3"), net.vm("vm2")
    assert (one.spec.mac, one.spec.ip) == (stranger.spec.mac, stranger.spec.ip)
    port = two.nve.ofport(two.spec.port)
    two.nve.ofctl("add-flow", f"table={DELIVER},priority=99,tun_id={hand.vni(stranger)},dl_dst={two.spec.mac},"
                              f"actions=output:{port}")
    with UdpSession([Pair(one, two, rate=500), Pair(stranger, net.vm("vm4"), rate=500)], quiet=0.3) as session:
        time.sleep(0.5)
        outcome = session.stop()
    own, strange = outcome.flows
    assert (own.count.lost, own.count.duplicated) == (0, 0)
    assert strange.count.lost == strange.count.sent == outcome.foreign
    assert outcome.samples


def test_the_rate_is_kept_without_bursts(net: OverlayNet, hand: Hand) -> None:
    pair = Pair(net.vm("vm1"), net.vm("vm3"), rate=2000)
    with UdpSession([pair], quiet=0.3) as session:
        time.sleep(1.0)
        flow = session.stop().flows[0]
    sent = flow.arrivals.sent_ns
    seconds = (sent[-1] - sent[0]) / 1e9
    assert (len(sent) - 1) / seconds / 2000 <= 1.1  # a busy machine may wake it late, never early
    tightest = min(sent[i + 8] - sent[i] for i in range(len(sent) - 8))
    assert tightest >= 0.0005e9  # nine in a row take three turns, half a period apart


def test_a_stream_that_stalls_or_dies_is_seen(net: OverlayNet, hand: Hand) -> None:
    one, two = net.vm("vm1"), net.vm("vm3")
    with TcpSession([Stream(one, two), Stream(one, two, "idle", interval=0.05)]) as session:
        time.sleep(0.3)
        one.attachment.pause()
        time.sleep(0.6)
        one.attachment.resume(one.nve, [])
        time.sleep(0.5)
        results = session.stop()
    for result in results:
        assert result.errors == []
        assert result.stall > 0.55
    with TcpSession([Stream(one, two)]) as session:
        time.sleep(0.2)
        one.cmd(f"ss -K dst {two.spec.ip} dport = 5002")
        time.sleep(0.3)
        result = session.stop()[0]
    assert result.errors


def test_a_session_without_a_way_says_why(net: OverlayNet) -> None:
    with pytest.raises(TopologyError, match="at least one direction"):
        UdpSession([])
    with OverlayNet(nves=1, vms=[
        VMSpec("a", "vn1", "nve1", "02:00:00:00:00:01", "10.0.0.1"),
        VMSpec("b", "vn1", "nve1", "02:00:00:00:00:02", "10.0.0.2"),
    ], controller=None) as small:
        with pytest.raises(TopologyError, match="has no such address"):
            UdpSession([Pair(small.vm("a"), small.vm("b"), family=6)]).start()
        with pytest.raises(TopologyError, match="tcpstream ended"):  # no flows: no connection
            TcpSession([Stream(small.vm("a"), small.vm("b"))]).start()
