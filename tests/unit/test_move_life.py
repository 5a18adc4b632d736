"""The life of a move on emulated tables: where frames come out in every state."""

from __future__ import annotations

import pytest
from world import TUNNEL, World, arp, broadcast, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.errors import Conflict, MoveStateConflict
from ryu_vmm.model import Kind, MoveState, Place, Policy, Redirect, Session, Trust
from ryu_vmm.pipeline import is_tunnel_to_tunnel
from ryu_vmm.wire import frames


@pytest.fixture(params=[4, 6], ids=["underlay-ipv4", "underlay-ipv6"])
def world(request: pytest.FixtureRequest) -> World:
    w = World(3, family=request.param)
    w.network()
    for n, nve in enumerate(("n1", "n2", "n3"), 1):
        w.vm(n, nve)
    return w


def no_hairpin(w: World) -> bool:
    return not any(is_tunnel_to_tunnel(f, Session("", TUNNEL)) for n in w.boxes for f in w.installed(n).values())


def test_steady_state_delivers_and_floods_once_to_each(world: World) -> None:
    assert world.differences() == []
    assert world.send("n1", "tap-vm1", unicast(1, 2)) == [("n2", "tap-vm2")]
    assert sorted(world.send("n1", "tap-vm1", broadcast(1))) == [("n2", "tap-vm2"), ("n3", "tap-vm3")]
    assert no_hairpin(world)


def test_arp_is_answered_by_the_nva(world: World) -> None:
    assert world.send("n1", "tap-vm1", arp(1, 2)) == [("n1", "tap-vm1")]
    reply = frames.parse_arp(world.out[-1][2])
    assert (reply.op, reply.sha, reply.spa, reply.tha) == (2, mac(2), ip("10.0.0.2"), mac(1))


def test_unknown_arp_target_is_flooded_inside_the_network(world: World) -> None:
    assert sorted(world.send("n1", "tap-vm1", arp(1, 99))) == [("n2", "tap-vm2"), ("n3", "tap-vm3")]


def test_spoofed_source_goes_nowhere(world: World) -> None:
    frame = unicast(1, 2)
    assert world.send("n1", "tap-vm1", frame[:6] + mac(3) + frame[12:]) == []
    assert world.send("n1", "tap-vm1", mac(2) + mac(1) + unicast(3, 2)[12:]) == []


def test_planned_hot_move(world: World) -> None:
    move = world.move("vm1", "n2")
    assert world.current(move).state is MoveState.PREPARED
    assert set(world.current(move).ledger.probes) == {"n1->n2", "n2->n1", "n2->n3", "n3->n2"}
    world.plug("n2", "tap-vm1")
    for n in (2, 3):  # nothing has changed for anybody, the destination's own VMs included
        assert world.send(f"n{n}", f"tap-vm{n}", unicast(n, 1)) == [("n1", "tap-vm1")]
    assert sorted(world.send("n3", "tap-vm3", broadcast(3))) == [("n1", "tap-vm1"), ("n2", "tap-vm2")]
    assert no_hairpin(world)

    world.handle(ev.RedirectRequested(move.id))
    assert world.current(move).state is MoveState.REDIRECTING
    assert world.current(move).redirect is Redirect.SOURCE
    world.advance(0.05)
    assert world.current(move).redirect is Redirect.IN_FORCE
    for n in (2, 3):
        assert world.send(f"n{n}", f"tap-vm{n}", unicast(n, 1)) == [("n2", "tap-vm1")]
    assert sorted(world.send("n3", "tap-vm3", broadcast(3))) == [("n2", "tap-vm1"), ("n2", "tap-vm2")]
    assert world.send("n1", "tap-vm1", unicast(1, 3)) == [("n3", "tap-vm3")]  # it still runs at the source

    world.unplug("n1", "tap-vm1")
    world.hold_barriers = {"n3"}
    world.send("n2", "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.1")))
    assert world.current(move).state is MoveState.STEERING
    interface = world.nva.state.interfaces["vm1/eth0"]
    assert (interface.location, interface.epoch) == (Place("n2", "tap-vm1"), 2)
    world.release("n3")
    assert world.current(move).state is MoveState.DRAINING
    for n in (2, 3):
        assert world.send(f"n{n}", f"tap-vm{n}", unicast(n, 1)) == [("n2", "tap-vm1")]
    assert world.differences() == []

    world.advance(3)
    done = world.current(move)
    assert done.state is MoveState.SETTLED and done.ledger.closed
    assert (done.ledger.redirected_packets, done.ledger.unaccounted) == (1, 0)
    assert done.ledger.stale["n3"].packets == 1
    assert no_hairpin(world) and world.differences() == []
    for n in (2, 3):
        assert world.send(f"n{n}", f"tap-vm{n}", unicast(n, 1)) == [("n2", "tap-vm1")]


def test_stale_correspondent_is_redirected_sampled_and_corrected(world: World) -> None:
    move = world.move("vm1", "n2")
    world.plug("n2", "tap-vm1")
    world.handle(ev.RedirectRequested(move.id))
    before = world.installed("n3")
    world.send("n2", "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.1")))
    after = world.installed("n3")
    world.advance(0.6)
    for flow in before.values():  # n3 forgets what it acknowledged
        if after.get(flow.key) != flow:
            world.boxes["n3"].tables.add(flow)
    assert world.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]
    assert world.current(move).ledger.stale["n3"].corrected == 1
    assert world.installed("n3") == after
    assert ("correspondent.stale", {"move": move.id, "nve": "n3", "source": "n1"}) in world.reports


def test_unplanned_move_from_an_attachment(world: World) -> None:
    world.vm(4, "n1", attachments=(Place("n3", "tap-vm4"),))
    world.unplug("n1", "tap-vm4")
    assert world.send("n2", "tap-vm2", unicast(2, 4)) == []  # lost, and counted
    world.plug("n3", "tap-vm4")
    world.send("n3", "tap-vm4", frames.build_unsolicited_na(mac(4), ip("2001:db8::4")))
    move = next(world.nva.state.open_moves())
    assert (move.trigger, move.state, move.activated_by) == ("announcement", MoveState.DRAINING, "na-unsolicited")
    assert world.send("n2", "tap-vm2", unicast(2, 4)) == [("n3", "tap-vm4")]
    world.advance(3)
    assert world.current(move).state is MoveState.SETTLED
    assert world.current(move).ledger.lost_packets == 1
    assert world.differences() == [] and no_hairpin(world)


@pytest.mark.parametrize("announcement", ["garp", "garp-reply", "na", "rarp"])
def test_unplanned_move_where_the_network_trusts_any_port(announcement: str) -> None:
    world = World(3)
    world.network(policy=Policy(announcements=Trust.ANY))
    for n, nve in enumerate(("n1", "n2", "n3"), 1):
        world.vm(n, nve)
    world.unplug("n1", "tap-vm1")
    world.plug("n2", "vnet7")
    frame = {
        "garp": frames.build_garp(mac(1), ip("10.0.0.1")),
        "garp-reply": frames.build_garp(mac(1), ip("10.0.0.1"), request=False),
        "na": frames.build_unsolicited_na(mac(1), ip("2001:db8::1")),
        "rarp": frames.build_rarp_request(mac(1)),
    }[announcement]
    world.send("n2", "vnet7", frame)
    assert world.nva.state.interfaces["vm1/eth0"].location == Place("n2", "vnet7")
    assert world.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "vnet7")]
    world.advance(3)
    assert world.differences() == []


def test_a_stranger_is_not_believed(world: World) -> None:
    world.plug("n2", "evil")
    world.send("n2", "evil", frames.build_garp(mac(1), ip("10.0.0.1")))
    assert world.nva.state.interfaces["vm1/eth0"].location.nve == "n1"
    assert not list(world.nva.state.open_moves())


def test_late_announcement_of_an_epoch_that_is_over(world: World) -> None:
    place = Place("n2", "tap-vm4")
    world.vm(4, "n1", attachments=(place, Place("n3", "tap-vm4")))
    world.plug("n2", "tap-vm4")
    cookies = [f.cookie for f in world.installed("n2").values() if f.cookie >> 40 & 0xFF == 7]
    move = world.move("vm4", "n3")
    world.plug("n3", "tap-vm4")
    world.handle(ev.ActivationReported(move.id))
    frame = frames.build_garp(mac(4), ip("10.0.0.4"))
    world.handle(ev.PacketSeen(2, world.boxes["n2"].ports["tap-vm4"], cookies[0], frame))
    assert world.nva.state.interfaces["vm4/eth0"].location.nve == "n3"
    assert world.nva.counters["announcement.late"] == 1


def test_abort_in_each_early_state_leaves_the_source_serving(world: World) -> None:
    for state in (MoveState.PREPARING, MoveState.PREPARED, MoveState.REDIRECTING):
        if state is MoveState.PREPARING:
            world.hold_barriers = {"n2"}
        move = world.move("vm1", "n2")
        if state is MoveState.REDIRECTING:
            world.handle(ev.RedirectRequested(move.id))
        assert world.current(move).state is state
        world.handle(ev.AbortRequested(move.id))
        world.release("n2")
        assert world.current(move).state is MoveState.ABORTED
        assert world.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", "tap-vm1")]
        assert world.differences() == [] and no_hairpin(world)


def test_abort_is_refused_once_the_vm_runs_at_the_destination(world: World) -> None:
    move = world.move("vm1", "n2")
    world.handle(ev.ActivationReported(move.id))
    with pytest.raises(MoveStateConflict):
        world.handle(ev.AbortRequested(move.id))


def test_preparation_fails_when_a_path_does_not_carry(world: World) -> None:
    world.cut = {("n3", "n2")}
    move = world.move("vm1", "n2")
    world.advance(11)
    failed = world.current(move)
    assert failed.state is MoveState.FAILED and "n3 to n2" in str(failed.error)
    assert world.differences() == []


def test_a_lost_first_probe_is_repeated(world: World) -> None:
    world.cut = {("n3", "n2"), ("n2", "n3")}
    move = world.move("vm1", "n2")
    assert world.current(move).state is MoveState.PREPARING
    world.cut = set()
    world.advance(0.1)
    assert world.current(move).state is MoveState.PREPARED


def test_same_request_same_move_and_second_move_refused(world: World) -> None:
    first, created = world.handle(ev.MoveRequested("vm1", "n2", request_id="a"))  # type: ignore[misc]
    again, repeated = world.handle(ev.MoveRequested("vm1", "n2", request_id="a"))  # type: ignore[misc]
    assert (created, repeated, again.id) == (True, False, first.id)
    with pytest.raises(Conflict, match="already open"):
        world.handle(ev.MoveRequested("vm1", "n3", request_id="b"))


def test_there_and_back_before_settling(world: World) -> None:
    there = world.move("vm1", "n2")
    world.plug("n2", "tap-vm1")
    world.handle(ev.ActivationReported(there.id))
    assert world.current(there).state is MoveState.DRAINING
    back = world.move("vm1", "n1")
    world.handle(ev.RedirectRequested(back.id))
    assert world.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", "tap-vm1")]
    world.handle(ev.ActivationReported(back.id))
    assert world.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", "tap-vm1")]
    world.advance(5)
    assert world.current(there).state is world.current(back).state is MoveState.SETTLED
    assert world.differences() == [] and no_hairpin(world)


def test_on_to_a_third_edge_before_settling_points_straight_there(world: World) -> None:
    first = world.move("vm1", "n2")
    world.plug("n2", "tap-vm1")
    before = world.installed("n3")
    world.handle(ev.ActivationReported(first.id))
    second = world.move("vm1", "n3")
    world.plug("n3", "tap-vm1")
    world.handle(ev.ActivationReported(second.id))
    stale = next(f for k, f in before.items() if f.key in world.installed("n3") or f.table == 40)
    assert stale is not None
    frame = unicast(2, 1)
    results = world.boxes["n1"].tables.run(
        frame, in_port=TUNNEL, tun_id=100, tun_src=world.boxes["n2"].nve.ipv4 or world.boxes["n2"].nve.ipv6
    )
    assert [r.tun_dst for r in results if hasattr(r, "tun_dst")] == [
        world.boxes["n3"].nve.ipv4 or world.boxes["n3"].nve.ipv6
    ]
    world.advance(5)
    assert world.differences() == [] and no_hairpin(world)


def test_packets_wait_for_a_destination_port_that_is_late(world: World) -> None:
    move = world.move("vm1", "n2")
    world.handle(ev.RedirectRequested(move.id))
    world.unplug("n1", "tap-vm1")
    assert world.send("n3", "tap-vm3", unicast(3, 1, b"a" * 8)) == []
    assert world.send("n2", "tap-vm2", unicast(2, 1, b"b" * 8)) == []
    before = len(world.out)
    world.plug("n2", "tap-vm1")
    assert [(n, p, f[42:43]) for n, p, f in world.out[before:]] == [("n2", "tap-vm1", b"a"), ("n2", "tap-vm1", b"b")]
    assert world.current(move).ledger.held_packets == 2


def test_cold_move_installs_no_redirect_until_a_packet_shows_up(world: World) -> None:
    move = world.move("vm1", "n2", Kind.COLD)
    world.unplug("n1", "tap-vm1")
    world.plug("n2", "tap-vm1")
    before = world.installed("n3")
    world.handle(ev.ActivationReported(move.id))
    after = world.installed("n3")
    assert no_hairpin(world)
    for flow in before.values():
        if after.get(flow.key) != flow:
            world.boxes["n3"].tables.add(flow)
    assert world.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]
    assert not no_hairpin(world)
    world.advance(4)
    assert world.current(move).state is MoveState.SETTLED and no_hairpin(world)


def test_an_announcement_before_the_flows_of_its_port(world: World) -> None:
    """The NVA may hear of a port and, at once, of the VM behind it: before it could program anything."""
    world.vm(4, "n1", attachments=(Place("n3", "tap-vm4"),))
    world.unplug("n1", "tap-vm4")
    box = world.boxes["n3"]
    box.ports["tap-vm4"] = 77
    results = box.tables.run(frames.build_garp(mac(4), ip("10.0.0.4")), in_port=77)
    world.handle(ev.PortChanged(3, ev.PortInfo(77, "tap-vm4", True)))
    world._emit(box, results, 77)
    while world._events:
        world.handle(world._events.popleft())
    assert world.nva.state.interfaces["vm4/eth0"].location == Place("n3", "tap-vm4")
    assert world.send("n2", "tap-vm2", unicast(2, 4)) == [("n3", "tap-vm4")]
