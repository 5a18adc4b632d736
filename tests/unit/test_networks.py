"""Networks on emulated tables: push and pull, isolation, resolution, RARP, registration in any order, refusals."""

from __future__ import annotations

import dataclasses

import pytest
from world import TUNNEL, World, arp, broadcast, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.emulation.tables import Out
from ryu_vmm.errors import Conflict, InvalidInput, NotFound
from ryu_vmm.model import (
    Distribution,
    Interface,
    Kind,
    MoveState,
    Network,
    Nve,
    Place,
    Policy,
    Trust,
    Unknown,
)
from ryu_vmm.nva import Settings
from ryu_vmm.wire import frames

PULL = Policy(distribution=Distribution.PULL, idle_timeout=5)


def three(policy: Policy | None = None, settings: Settings | None = None) -> World:
    w = World(3, settings=settings)
    w.network(policy=policy)
    for n, nve in enumerate(("n1", "n2", "n3"), 1):
        w.vm(n, nve)
    return w


def expire(w: World, nve: str) -> int:
    """Let an NVE's idle flows time out; how many."""
    gone = w.boxes[nve].tables.expire(w.now)
    for entry, _ in gone:
        w.handle(ev.FlowExpired(w.boxes[nve].nve.dpid, entry.flow))
    return len(gone)


# --- pull
def test_pull_asks_once_and_forgets_when_idle() -> None:
    w = three(PULL)
    remote = [f for f in w.installed("n3").values() if f.table == 40 and f.priority == 95]
    assert remote == []
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", "tap-vm1")]  # brought by the NVA
    assert w.nva.counters["packet_in.miss"] == 1
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", "tap-vm1")]  # by the flow
    assert w.nva.counters["packet_in.miss"] == 1
    assert w.differences() == []
    w.now += 6
    assert expire(w, "n3") == 1
    assert w.nva.state.pulled == {} and w.differences() == []
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", "tap-vm1")]
    assert w.nva.counters["packet_in.miss"] == 2


@pytest.mark.parametrize("policy", [None, PULL], ids=["push", "pull"])
def test_cold_move(policy: Policy | None) -> None:
    w = three(policy)
    w.send("n3", "tap-vm3", unicast(3, 1))
    move = w.move("vm1", "n2", Kind.COLD)
    w.unplug("n1", "tap-vm1")
    assert w.current(move).state is MoveState.PREPARED
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == []  # the VM is off
    w.plug("n2", "tap-vm1")
    w.send("n2", "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.1")))
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]
    assert w.send("n2", "tap-vm2", unicast(2, 1)) == [("n2", "tap-vm1")]
    w.advance(4)
    assert w.current(move).state is MoveState.SETTLED and w.differences() == []


def test_pull_entry_that_timed_out_is_asked_for_again_after_a_move() -> None:
    w = three(PULL)
    w.send("n3", "tap-vm3", unicast(3, 1))
    w.now += 6
    expire(w, "n3")
    move = w.move("vm1", "n2", Kind.COLD)
    w.unplug("n1", "tap-vm1")
    w.plug("n2", "tap-vm1")
    w.handle(ev.ActivationReported(move.id))
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]


def asked(w: World, speaker: int, nve: str) -> int:
    """How many questions it costs the NVA that a VM speaks from an NVE with those whom it has been talking to."""
    before = w.nva.counters.get("packet_in.miss", 0)
    assert w.send(nve, f"tap-vm{speaker}", unicast(speaker, 3)) == [("n3", "tap-vm3")]
    assert w.send(nve, f"tap-vm{speaker}", unicast(speaker, 4)) == [("n1", "tap-vm4")]
    return w.nva.counters.get("packet_in.miss", 0) - before


@pytest.mark.parametrize("kind", [Kind.HOT, Kind.COLD, None], ids=["hot", "cold", "nobody asked"])
@pytest.mark.parametrize("stage", ["prepared", "redirected", "steered"])
@pytest.mark.parametrize("lost", ["nothing", "destination emptied", "destination emptied, NVA dead", "timed out"])
def test_the_destination_in_a_pulled_network_knows_whom_the_vm_talks_to(
    kind: Kind | None, stage: str, lost: str
) -> None:
    """All that waited in a VM during its pause comes at once: that must not be a question for each frame."""
    w = World(3)
    w.network(policy=Policy(distribution=Distribution.PULL, idle_timeout=5, announcements=Trust.ANY))
    w.vm(1, "n1")
    w.vm(3, "n3")
    w.vm(4, "n1")  # at home with it: never asked for
    assert w.send("n1", "tap-vm1", unicast(1, 3)) == [("n3", "tap-vm3")]

    def strike() -> None:
        if lost == "timed out":
            w.now += 6
            expire(w, "n2")
        if "dead" in lost:
            w.kill()
        if "emptied" in lost:
            w.lose_tables("n2")
        if "dead" in lost:
            w.start("n1", "n3")
        if "emptied" in lost:
            w.connect("n2")
        w.advance(0.5)
        assert w.send("n1", "tap-vm4", unicast(4, 3)) == [("n3", "tap-vm3")]  # so n1 has not forgotten

    if kind is not None:
        move = w.move("vm1", "n2", kind)
        w.advance(0.5)
        if stage == "prepared":
            strike()
        if kind is Kind.HOT:
            w.handle(ev.RedirectRequested(move.id))
            w.advance(0.1)
        if stage == "redirected" and kind is Kind.HOT:
            strike()
    w.plug("n2", "tap-vm1")
    w.unplug("n1", "tap-vm1")
    w.send("n2", "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.1")))
    if stage == "steered" and lost != "timed out":  # what is not used for so long is asked for again
        strike()
    assert asked(w, 1, "n2") == 0
    w.advance(20)
    assert w.differences() == []


# --- isolation
def test_two_networks_with_the_same_addresses_never_meet() -> None:
    w = World(3)
    w.network("blue", 100)
    w.network("red", 200)
    for n, nve in enumerate(("n1", "n2", "n3"), 1):
        w.vm(n, nve, 100, name=f"b{n}")
        w.vm(n, nve, 200, name=f"r{n}")

    def check() -> None:
        for vni_name, prefix in (("blue", "b"), ("red", "r")):
            for n in (1, 2, 3):
                place = w.nva.state.interfaces[f"{prefix}{n}/eth0"].location
                if place.port not in w.boxes[place.nve].ports:
                    continue
                for frame in (unicast(n, n % 3 + 1), broadcast(n), arp(n, n % 3 + 1), arp(n, 77)):
                    out = w.send(place.nve, place.port, frame)
                    assert all(port.startswith(f"tap-{prefix}") for _, port in out), (vni_name, frame, out)

    check()
    move = w.move("b1", "n2")
    check()
    w.plug("n2", "tap-b1")
    w.handle(ev.RedirectRequested(move.id))
    check()
    w.unplug("n1", "tap-b1")
    check()
    w.send("n2", "tap-b1", frames.build_garp(mac(1), ip("10.0.0.1")))
    check()
    w.advance(3)
    check()
    assert w.differences() == []


@pytest.mark.parametrize(
    ("vni", "source"), [(100, "192.168.100.77"), (101, "192.168.100.2"), (0xFFF001, "192.168.100.2")]
)
def test_tunnel_packets_of_unknown_origin_or_network_go_nowhere(vni: int, source: str) -> None:
    w = three()
    for frame in (unicast(2, 1), broadcast(2)):
        results = w.boxes["n1"].tables.run(frame, in_port=TUNNEL, tun_id=vni, tun_src=ip(source))
        assert not any(isinstance(result, Out) for result in results)


def test_an_nve_holds_state_only_for_its_networks() -> None:
    w = World(3)
    w.network("blue", 100)
    w.network("red", 200)
    w.vm(1, "n1", 100)
    w.vm(2, "n2", 200)
    for name, foreign in (("n1", 200), ("n2", 100), ("n3", 100), ("n3", 200)):
        vni = foreign.to_bytes(8, "big")
        assert not any(("tun_id", vni, None) in f.match for f in w.installed(name).values()), name


# --- resolution
def test_neighbor_solicitation_is_answered() -> None:
    w = three()
    solicitation = frames.build_ns(mac(1), ip("2001:db8::1"), ip("2001:db8::3"))
    assert w.send("n1", "tap-vm1", solicitation) == [("n1", "tap-vm1")]
    answer = frames.parse_nd(w.out[-1][2])
    assert (answer.type, answer.target, answer.lladdr) == (136, ip("2001:db8::3"), mac(3))


def test_duplicate_address_detection_finds_the_owner() -> None:
    w = three()
    assert w.send("n1", "tap-vm1", frames.build_ns(mac(1), bytes(16), ip("2001:db8::3"))) == [("n1", "tap-vm1")]
    own = frames.build_ns(mac(1), bytes(16), ip("2001:db8::1"))
    assert sorted(w.send("n1", "tap-vm1", own)) == [("n2", "tap-vm2"), ("n3", "tap-vm3")]


def test_unknown_targets_are_not_flooded_where_the_policy_says_so() -> None:
    w = three(Policy(unknown=Unknown.DROP))
    assert w.send("n1", "tap-vm1", arp(1, 99)) == []
    assert w.nva.counters["drop.unknown-target"] == 1


def test_rarp_is_answered_with_the_ipv4_address_of_the_mac() -> None:
    w = three()
    assert w.send("n1", "tap-vm1", frames.build_rarp_request(mac(1))) == [("n1", "tap-vm1")]
    assert frames.parse_rarp(w.out[-1][2]).tpa == ip("10.0.0.1")


def test_rarp_alone_makes_the_nva_announce_the_addresses() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    before = len(w.out)
    w.send("n2", "tap-vm1", frames.build_rarp_request(mac(1)))
    told = [(n, p, frames.classify(f)) for n, p, f in w.out[before:]]
    for place in (("n2", "tap-vm2"), ("n3", "tap-vm3")):
        assert (*place, frames.Kind.GARP) in told and (*place, frames.Kind.NA_UNSOLICITED) in told
    assert w.current(move).state is MoveState.DRAINING


def test_a_changed_mac_is_announced() -> None:
    w = three()
    changed = dataclasses.replace(w.nva.state.interfaces["vm1/eth0"], mac=mac(99))
    before = len(w.out)
    w.handle(ev.VmSubmitted("vm1", (changed,)))
    told = [f for n, p, f in w.out[before:] if (n, p) == ("n3", "tap-vm3")]
    assert [frames.parse_arp(f).sha for f in told if f[12:14] == b"\x08\x06"] == [mac(99)]
    assert w.differences() == []


@pytest.mark.parametrize("size", [0, 5, 13, 20, 41])
def test_truncated_questions_are_counted_and_dropped(size: int) -> None:
    w = three()
    cookie = next(f.cookie for f in w.installed("n1").values() if f.table == 20 and f.actions)
    w.handle(ev.PacketSeen(1, w.boxes["n1"].ports["tap-vm1"], cookie, arp(1, 2)[:size]))
    assert any(name.startswith("drop.") for name in w.nva.counters)
    assert w.differences() == []


# --- registration
def test_a_port_is_bound_in_either_order() -> None:
    w = World(2)
    w.network()
    w.vm(2, "n2")
    w.plug("n1", "tap-vm1")
    assert w.send("n1", "tap-vm1", unicast(1, 2)) == []
    w.vm(1, "n1", port=False)
    assert w.send("n1", "tap-vm1", unicast(1, 2)) == [("n2", "tap-vm2")]


def test_a_switch_that_connects_before_it_is_registered() -> None:
    w = World(1)
    w.network()
    w.vm(1, "n1")
    box = w.boxes["n1"]
    other = Nve("n9", 9, ip("192.168.100.9"))
    w.boxes["n9"] = type(box)(other, ports={"vxlan": TUNNEL})
    w.connect("n9")
    assert "n9" not in w.nva.state.sessions
    w.handle(ev.NveSubmitted(other))
    w.vm(2, "n9")
    assert w.send("n9", "tap-vm2", unicast(2, 1)) == [("n1", "tap-vm1")]


def test_conflicts_are_refused_whole() -> None:
    w = three()
    state = w.nva.state
    taken = state.interfaces["vm1/eth0"]

    def submit(**changes: object) -> None:
        fields = {"id": "x/eth0", "vm": "x", "mac": mac(50), "ipv4": (), "ipv6": (), "location": Place("n2", "tap-x")}
        new = dataclasses.replace(taken, **{**fields, **changes})  # type: ignore[arg-type]
        w.handle(ev.VmSubmitted("x", (new,)))

    for error, changes in (
        (Conflict, {"mac": mac(1)}),
        (Conflict, {"ipv4": (ip("10.0.0.2"),)}),
        (Conflict, {"ipv6": (ip("2001:db8::3"),)}),
        (Conflict, {"location": Place("n1", "tap-vm1")}),
        (NotFound, {"location": Place("n77", "p")}),
        (NotFound, {"vni": 4242}),
    ):
        with pytest.raises(error):
            submit(**changes)
        assert "x" not in state.vms and "x/eth0" not in state.interfaces
    with pytest.raises(InvalidInput):
        w.handle(ev.NveSubmitted(Nve("bare", 77)))
    with pytest.raises(InvalidInput):
        w.handle(ev.NetworkSubmitted(Network("huge", 0xFFF000)))
    with pytest.raises(Conflict):
        w.handle(ev.NetworkSubmitted(Network("blue", 101)))
    for withdrawal in (ev.NveWithdrawn("n1"), ev.NetworkWithdrawn("blue")):
        with pytest.raises(Conflict):
            w.handle(withdrawal)
    assert w.differences() == []


def test_several_requests_are_one_or_none() -> None:
    w = World(1)
    good = ev.NetworkSubmitted(Network("a", 1))
    bad = ev.NetworkSubmitted(Network("b", 1))
    with pytest.raises(Conflict) as caught:
        w.nva.handle_all([good, bad], w.now)
    assert caught.value.details["index"] == 1
    assert w.nva.state.networks == {}


def test_submitting_a_vm_again_does_not_move_it() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.handle(ev.ActivationReported(move.id))
    original = Interface(
        "vm1/eth0", "vm1", "eth0", 100, mac(1), (ip("10.0.0.1"),), (ip("2001:db8::1"),), Place("n1", "tap-vm1")
    )
    w.handle(ev.VmSubmitted("vm1", (original,)))
    assert w.nva.state.interfaces["vm1/eth0"].location.nve == "n2"


# --- refusals and freezes
def test_a_refused_flow_fails_the_move_marks_the_nve_and_resynchronises() -> None:
    w = three()
    w.hold_barriers = {"n2"}
    move = w.move("vm1", "n2")
    w.handle(ev.FlowRefused(2, w.nva.state.generation, 5, 1))
    failed = w.current(move)
    assert failed.state is MoveState.FAILED
    assert failed.error == "n2 refused a flow: OpenFlow error type 5 code 1"
    assert not w.nva.state.sessions["n2"].synced and w.nva.state.faults["n2"].type == 5
    w.release("n2")
    w.advance(1.1)
    assert w.nva.state.sessions["n2"].synced and "n2" not in w.nva.state.faults
    assert w.differences() == []


def test_an_nve_that_keeps_refusing_is_asked_ever_more_rarely() -> None:
    w = three()
    for times in (1, 2, 3):
        w.handle(ev.FlowRefused(2, 1, 5, 1))
        assert w.nva.state.faults["n2"].times == times
        assert w.nva.state.clock[("resync", "n2")] - w.now == pytest.approx(2 ** (times - 1))
        w.hold_barriers = {"n2"}
        w.advance(2 ** (times - 1) + 0.1)


def test_an_interface_that_flaps_is_frozen() -> None:
    w = World(3, settings=Settings(flap_moves=2))
    w.network()
    spots = tuple(Place(nve, "tap-vm1") for nve in ("n2", "n3"))
    w.vm(1, "n1", attachments=spots)
    at = "n1"
    for to, believed in (("n2", True), ("n3", True), ("n2", False)):
        w.unplug(at, "tap-vm1")
        w.plug(to, "tap-vm1")
        w.send(to, "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.1")))
        assert (w.nva.state.interfaces["vm1/eth0"].location.nve == to) is believed
        at = to
    assert [kind for kind, _ in w.reports if kind == "interface.frozen"] == ["interface.frozen"]


def test_a_destination_that_is_not_there_fails_the_move_in_time() -> None:
    w = three()
    w.hold_barriers = {"n2"}
    move = w.move("vm1", "n2")
    w.disconnect("n2")
    assert w.current(move).state is MoveState.PREPARING  # it may be back in a moment
    w.advance(11)
    assert w.current(move).state is MoveState.FAILED and "n2 not connected" in str(w.current(move).error)


def test_a_lost_correspondent_does_not_hold_up_a_move_but_keeps_the_redirect() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    w.disconnect("n3")
    w.handle(ev.ActivationReported(move.id))
    assert w.current(move).unconfirmed == ("n3",)
    w.advance(8)
    assert w.current(move).state is MoveState.DRAINING
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]  # it still sends to the source
    w.connect("n3")
    w.advance(3)
    assert w.current(move).state is MoveState.SETTLED and w.differences() == []


def test_a_port_is_the_attachment_of_one_interface_only() -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1", attachments=(Place("n3", "tap-x"),))
    with pytest.raises(Conflict, match="tap-x on n3 is an attachment of vm1/eth0"):
        w.vm(2, "n2", attachments=(Place("n3", "tap-x"),))
    w.vm(1, "n1", attachments=(Place("n3", "tap-x"), Place("n2", "tap-x")))  # its own is no conflict
    assert "vm2" not in w.nva.state.vms
