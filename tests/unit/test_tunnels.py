"""Tunnels are proven all the time: which path does not work is told, by whatever way, and only that."""

from __future__ import annotations

import dataclasses

import pytest
from l3town import Layer3
from world import TUNNEL, World, ip, unicast

from ryu_vmm import events as ev
from ryu_vmm.emulation.tables import Out, Tables
from ryu_vmm.errors import Conflict
from ryu_vmm.limits import PROBES
from ryu_vmm.model import PROBE_VNI, Policy
from ryu_vmm.nva import Settings
from ryu_vmm.redirects import By, Crossing
from ryu_vmm.tables import Why, cookie
from ryu_vmm.wire import frames

Reports = list[tuple[str, dict[str, object]]]


def three(**more: object) -> World:
    """A guest on each of three NVEs, in one network."""
    w = World(3, **more)  # type: ignore[arg-type]
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    w.advance(2)
    return w


def told(w: World, kind: str = "tunnel.") -> Reports:
    return [(name, fields) for name, fields in w.reports if name.startswith(kind)]


def broken(w: World) -> set[str]:
    return {f"{here}->{there}{by}" for here, there, by in w.nva.state.broken}


def cut(w: World, *pairs: tuple[str, str]) -> None:
    w.cut |= set(pairs)


@pytest.mark.parametrize("family", [4, 6, 46])
def test_what_works_is_not_mentioned_and_each_path_is_proven_every_second(family: int) -> None:
    w = three(family=family)
    before = w.nva.counters["tunnel.answered"]
    w.advance(10)
    assert told(w) == [] and broken(w) == set()
    assert 54 <= w.nva.counters["tunnel.answered"] - before <= 66
    assert w.nva.counters.get("tunnel.unanswered", 0) == 0


def test_a_path_that_fails_is_told_in_its_direction_and_when_it_works_again() -> None:
    w = three()
    cut(w, ("n1", "n2"))
    began = w.now
    w.advance(4)
    assert broken(w) == {"n1->n2"}
    ((kind, fields),) = told(w)
    assert (kind, fields["source"], fields["destination"], fields["way"]) == ("tunnel.failed", "n1", "n2", "by VXLAN")
    assert (fields["mtu"], fields["probes"], fields["small_cross"]) == (1450, 3, False)
    assert began <= float(str(fields["since"])) <= began + 1.1
    w.advance(10)
    assert len(told(w)) == 1
    w.cut.clear()
    w.advance(3)
    assert broken(w) == set()
    assert [kind for kind, _ in told(w)] == ["tunnel.failed", "tunnel.restored"]


def test_a_withdrawal_that_is_refused_forgets_nothing_of_a_path() -> None:
    w = three()
    cut(w, ("n1", "n2"))
    for _ in range(20):
        with pytest.raises(Conflict):
            w.handle(ev.NveWithdrawn("n1"))
        w.advance(0.25)
    assert broken(w) == {"n1->n2"}


def test_a_path_is_not_given_up_for_two_lost_probes() -> None:
    w = three()
    cut(w, ("n1", "n2"))
    while not w.nva.counters.get("tunnel.unanswered"):
        w.advance(0.05)  # then the second has just been sent
    w.cut.clear()
    w.advance(5)
    assert told(w) == [] and w.nva.counters["tunnel.unanswered"] == 2


def test_a_path_that_drops_large_packets_is_told_apart_from_one_that_drops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    w = three()
    run = Tables.run

    def narrow(tables: Tables, packet: object, in_port: int, tun_id: int | None = None, *rest: object, **more: object):  # type: ignore[no-untyped-def]
        if tun_id is not None and isinstance(packet, bytes) and len(packet) > 1000:
            return []
        return run(tables, packet, in_port, tun_id, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Tables, "run", narrow)
    w.advance(8)
    assert len(broken(w)) == 6
    assert all(path.small for path in w.nva.state.broken.values())
    assert all(fields["small_cross"] for _, fields in told(w, "tunnel.failed"))


def test_an_end_that_is_away_makes_a_path_unknown_and_not_failed() -> None:
    w = three()
    w.disconnect("n2")
    w.advance(10)
    assert told(w) == []
    w.connect("n2")
    cut(w, ("n1", "n2"), ("n2", "n1"))
    w.advance(5)
    assert broken(w) == {"n1->n2", "n2->n1"}
    w.disconnect("n2")
    assert broken(w) == set()
    assert [kind for kind, _ in told(w)[2:]] == ["tunnel.unknown"] * 2
    w.connect("n2")
    w.advance(5)
    assert broken(w) == {"n1->n2", "n2->n1"}


def test_a_new_path_is_proven_at_once() -> None:
    w = World(2, settings=Settings(tunnel_interval=1000.0))
    w.network()
    w.vm(1, "n1")
    w.advance(2)
    cut(w, ("n1", "n2"))
    w.vm(2, "n2")
    w.advance(2.5)
    assert broken(w) == {"n1->n2"}


@pytest.mark.parametrize("what", ["reconnect", "address", "port"])
def test_a_path_is_proven_at_once_after_a_change(what: str) -> None:
    w = World(2, settings=Settings(tunnel_interval=1000.0))
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n2")
    w.advance(3)
    cut(w, ("n1", "n2"))
    w.advance(10)
    assert broken(w) == set()  # nothing has changed, and its turn has not come
    match what:
        case "reconnect":
            w.disconnect("n1")
            w.connect("n1")
        case "address":
            readdress(w, "n1")
        case "port":
            w.handle(ev.PortChanged(1, ev.PortInfo(w.boxes["n1"].ports["vxlan"], "vxlan", True)))
    w.advance(2.5)
    assert broken(w) == {"n1->n2"}


def readdress(w: World, name: str) -> None:
    box = w.boxes[name]
    old = box.nve.ipv4 or b""
    box.former |= {old}
    box.nve = dataclasses.replace(box.nve, ipv4=old[:3] + bytes([old[3] ^ 0x80]))
    w.handle(ev.NveSubmitted(box.nve))


def test_networks_that_are_not_shared_need_no_tunnel() -> None:
    w = World(3)
    w.network("blue", 100)
    w.network("red", 200)
    w.vm(1, "n1")
    w.vm(2, "n2")
    w.vm(3, "n3", vni=200)
    cut(w, ("n1", "n2"), ("n1", "n3"), ("n3", "n1"))
    w.advance(5)
    assert broken(w) == {"n1->n2"}
    w.handle(ev.VmWithdrawn("vm2"))
    w.advance(5)
    assert broken(w) == set()
    assert told(w)[-1][0] == "tunnel.unknown"


def test_probes_have_the_largest_mtu_of_the_networks_that_are_shared() -> None:
    w = World(2)
    w.network("blue", 100, Policy(mtu=1300))
    w.network("red", 200, Policy(mtu=1400))
    for n in (1, 2):
        w.vm(n, f"n{n}")
        w.vm(n + 2, f"n{n}", vni=200)
    cut(w, ("n1", "n2"))
    w.advance(5)
    assert [path.mtu for path in w.nva.state.broken.values()] == [1400]


def test_ways_without_ethernet_and_by_ila_are_proven_where_they_are_in_use() -> None:
    w = Layer3()
    for n in (1, 2, 3):
        w.task(n, f"n{n}")
    w.advance(5)
    assert told(w) == [] and w.nva.counters.get("tunnel.unanswered", 0) == 0
    cut(w, ("n1", "n2"))
    w.advance(5)
    assert broken(w) == {f"n1->n2{by}" for by in By}


# --- who is believed --------------------------------------------------------------------------------------------------
def outstanding(w: World) -> tuple[Crossing, bytes]:
    """A path that waits for an answer, and the nonce of its last probe."""
    nonce, pair = next(iter(w.nva.tunnels._nonces.items()))
    return pair, nonce


def answer(w: World, nve: str, nonce: bytes, source: bytes | None) -> None:
    dpid = w.boxes[nve].nve.dpid
    w.handle(ev.PacketSeen(dpid, 1, cookie(Why.PROBE), frames.build_probe(nonce, 1450), source, PROBE_VNI))


def test_a_probe_counts_only_where_it_was_to_arrive_from_whom_it_was_to_come_and_once() -> None:
    w = three()
    cut(w, ("n1", "n2"))
    w.advance(1.5)
    pair, nonce = outstanding(w)
    assert pair == Crossing("n1", "n2")
    address = {name: box.nve.ipv4 for name, box in w.boxes.items()}
    answered = w.nva.counters["tunnel.answered"]
    answer(w, "n3", nonce, address["n1"])  # elsewhere
    answer(w, "n2", nonce, address["n3"])  # from somebody else
    answer(w, "n2", nonce, None)
    assert w.nva.counters["tunnel.misled"] == 3 and w.nva.counters["tunnel.answered"] == answered
    answer(w, "n2", nonce, address["n1"])
    assert w.nva.counters["tunnel.answered"] == answered + 1
    answer(w, "n2", nonce, address["n1"])
    assert w.nva.counters["tunnel.answered"] == answered + 1 and w.nva.counters["probe.unknown"] == 1


def test_a_flood_of_probes_from_the_underlay_is_limited_by_the_switch() -> None:
    w = three()
    before = w.nva.counters["packet_in.probe"]
    frame = frames.build_probe(b"x" * 16, 1450)
    came = Out(TUNNEL, PROBE_VNI, ip("192.168.100.77"), w.boxes["n1"].nve.ipv4, frame)
    for _ in range(3 * PROBES):
        w.storm = 0
        w._come_in(w.boxes["n1"], TUNNEL, came, frame, ())
    w._pump()
    assert w.nva.counters["packet_in.probe"] - before <= PROBES


def test_switches_without_meters_hand_no_probes_over_and_are_not_said_to_fail() -> None:
    w = three(meters=False)
    w.advance(5)
    assert told(w) == [] and w.nva.counters.get("tunnel.probes", 0) == 0


def test_nothing_is_concluded_while_the_nva_is_late() -> None:
    w = three()
    cut(w, ("n1", "n2"))
    for _ in range(10):
        w.now += 3.0  # it was busy with something else, and answers wait as well
        w.handle(ev.TimePassed())
    assert told(w) == []
    w.advance(4)
    assert broken(w) == {"n1->n2"}


# --- how much it costs ------------------------------------------------------------------------------------------------
def test_probes_are_no_more_than_the_rate_however_many_paths_there_are() -> None:
    w = World(30)
    w.network()
    for n in range(1, 31):
        w.vm(n, f"n{n}")
    w.advance(30)  # 870 paths
    before = w.nva.counters["tunnel.probes"]
    w.advance(10)
    assert 900 <= w.nva.counters["tunnel.probes"] - before <= 1000
    assert w.nva.counters["tunnel.answered"] >= 870
    cut(w, ("n7", "n9"))
    w.advance(15)
    assert broken(w) == {"n7->n9"}


def test_a_rate_of_none_sends_none() -> None:
    w = three(settings=Settings(tunnel_rate=0))
    cut(w, ("n1", "n2"))
    w.advance(10)
    assert w.nva.counters.get("tunnel.probes", 0) == 0 and broken(w) == set()
    assert ("tunnels", "") not in w.nva.state.clock


# --- ports to the underlay --------------------------------------------------------------------------------------------
def test_an_edge_without_a_tunnel_port_says_so() -> None:
    w = three()
    w.unplug("n2", "vxlan")
    assert w.nva.state.lacking["n2"].ports == ("vxlan*",)
    ((kind, fields),) = told(w, "tunnel.m")
    assert (kind, fields["nve"], fields["ports"]) == ("tunnel.missing", "n2", ["vxlan*"])
    w.advance(5)
    assert broken(w) == set()  # that it has no port says it all
    w.boxes["n2"].ports["vxlan"] = 1
    w.handle(ev.PortChanged(2, ev.PortInfo(1, "vxlan", True)))
    assert w.nva.state.lacking == {} and told(w)[-1][0] == "tunnel.found"
    w.unplug("n2", "vxlan")
    w.disconnect("n2")
    assert w.nva.state.lacking == {}  # who is away shows nothing


def test_a_ways_other_ports_that_are_registered_and_not_there_are_named() -> None:
    w = World(2, family=6, layer3=True)
    w.unplug("n2", "gre")
    w.unplug("n2", "ila")
    assert w.nva.state.lacking["n2"].ports == ("gre", "ila")


def test_what_is_known_of_tunnels_touches_no_flow() -> None:
    w = three()
    cut(w, ("n1", "n2"))
    w.advance(5)
    assert w.differences() == []
    assert w.send("n2", "tap-vm2", unicast(2, 1)) == [("n1", "tap-vm1")]


def test_paths_that_do_not_work_leave_half_the_rate_to_the_others() -> None:
    w = World(5, settings=Settings(tunnel_rate=6))
    w.network()
    for n in range(1, 6):
        w.vm(n, f"n{n}")
    w.advance(10)
    for n in range(2, 6):
        cut(w, ("n1", f"n{n}"), (f"n{n}", "n1"))
    w.advance(60)
    assert len(broken(w)) == 8  # which, every two seconds with two probes each, would take more than there is
    cut(w, ("n3", "n4"))
    w.advance(30)
    assert len(broken(w)) == 9
    w.cut.clear()
    w.advance(30)
    assert broken(w) == set()


def test_a_step_looks_at_so_many_paths_however_many_are_in_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    w = World(20, meters=False)  # nobody hands probes over: none of 380 paths is to be proven
    w.network()
    for n in range(1, 21):
        w.vm(n, f"n{n}")
    monkeypatch.setattr("ryu_vmm.tunnels.LOOKS", 30)
    asked: list[Crossing] = []
    wanted = w.nva.tunnels._is_wanted
    monkeypatch.setattr(w.nva.tunnels, "_is_wanted", lambda pair: asked.append(pair) or wanted(pair))
    most = 0
    for _ in range(100):
        asked.clear()
        w.advance(0.1)
        most = max(most, len(asked))
    assert 0 < most <= 60  # a step or two
    assert w.nva.counters.get("tunnel.probes", 0) == 0
