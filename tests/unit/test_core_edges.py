"""What happens at the wrong moment: in mid-move, late, twice, or while the store fails."""

from __future__ import annotations

import dataclasses

import pytest
from world import Box, World, broadcast, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.errors import Conflict, InvalidInput
from ryu_vmm.model import Admit, Distribution, Interface, Move, MoveState, Nve, Place, Policy
from ryu_vmm.nva import Nva, Settings
from ryu_vmm.tables import Why, cookie
from ryu_vmm.wire import frames


def three(policy: Policy | None = None) -> World:
    """vm1 on n1, vm2 on n2, vm3 on n3, in one network."""
    w = World(3)
    w.network(policy=policy)
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    return w


def left(w: World, before: int) -> list[tuple[str, str, bytes]]:
    """What has left any port since ``before``: NVE, port, last byte."""
    return [(nve, port, frame[-1:]) for nve, port, frame in w.out[before:]]


# --- packets that wait for a port
def redirected(w: World) -> int:
    """vm1 on its way to n2, whose port for it is not there yet; two packets wait for it."""
    move = w.move("vm1", "n2")
    w.handle(ev.RedirectRequested(move.id))
    assert w.send("n3", "tap-vm3", unicast(3, 1, b"a")) == []
    assert w.send("n2", "tap-vm2", unicast(2, 1, b"b")) == []
    return move.id


def test_packets_that_wait_go_to_the_source_if_the_move_is_aborted() -> None:
    w = three()
    move, before = redirected(w), len(w.out)
    w.handle(ev.AbortRequested(move))
    assert left(w, before) == [("n1", "tap-vm1", b"a"), ("n1", "tap-vm1", b"b")]
    assert w.nva.state.moves[move].ledger.held_packets == 2 and w.nva.state.held == {}


def test_packets_wait_without_a_record_for_each() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.handle(ev.RedirectRequested(move.id))
    w.advance(1)
    event = ev.PacketSeen(2, 1, cookie(Why.HOLD, move.id), unicast(3, 1))
    assert w.nva.handle(event, w.now).records == []


@pytest.mark.parametrize("step", ["wait", "release"])
def test_packets_that_wait_survive_a_store_that_fails(step: str) -> None:
    w = three()
    move, before = redirected(w), len(w.out)
    event: ev.Event = ev.PortChanged(2, ev.PortInfo(w.boxes["n2"].number("tap-vm1"), "tap-vm1", True))
    if step == "wait":
        event = ev.PacketSeen(2, 1, cookie(Why.HOLD, move), unicast(3, 1, b"c"))
    w.nva.handle(event, w.now)
    w.nva.rollback()
    w.handle(event)
    w.plug("n2", "tap-vm1")
    assert [last for _, _, last in left(w, before)] == [b"a", b"b", b"c"][: 3 if step == "wait" else 2]


def test_a_packet_that_waits_for_a_vm_that_is_withdrawn_is_dropped() -> None:
    w = three()
    move = redirected(w)
    w.handle(ev.VmWithdrawn("vm1"))
    assert w.nva.state.held == {} and w.nva.counters["drop.hold-closed"] == 2
    w.handle(ev.PacketSeen(2, 1, cookie(Why.HOLD, move), unicast(3, 1)))  # was on its way
    assert w.nva.counters["drop.hold-closed"] == 3


def test_a_move_does_not_settle_while_packets_wait_for_its_port() -> None:
    w = three()
    move = redirected(w)
    w.handle(ev.ActivationReported(move))
    w.advance(10)
    assert w.nva.state.moves[move].state is MoveState.DRAINING
    before = len(w.out)
    w.plug("n2", "tap-vm1")
    assert left(w, before) == [("n2", "tap-vm1", b"a"), ("n2", "tap-vm1", b"b")]
    w.advance(3)
    assert w.nva.state.moves[move].state is MoveState.SETTLED


def test_packets_that_wait_are_released_by_a_port_that_came_while_its_nve_was_away() -> None:
    w = three()
    w.handle(ev.ActivationReported(redirected(w)))
    w.disconnect("n2")
    w.boxes["n2"].number("tap-vm1")
    before = len(w.out)
    w.connect("n2")
    assert left(w, before) == [("n2", "tap-vm1", b"a"), ("n2", "tap-vm1", b"b")]


def test_a_question_for_a_vm_that_has_come_to_the_asking_nve_meanwhile() -> None:
    w = three(Policy(distribution=Distribution.PULL))
    frame = unicast(3, 1)
    asked = ev.PacketSeen(3, w.boxes["n3"].ports["tap-vm3"], cookie(Why.MISS, 100), frame)
    move = w.move("vm1", "n3")
    w.plug("n3", "tap-vm1")
    w.handle(ev.ActivationReported(move.id))
    before = len(w.out)
    w.handle(asked)
    assert left(w, before) == [("n3", "tap-vm1", frame[-1:])]
    assert mac(1) == frame[:6]


# --- units and what they depend on
def test_the_probes_of_one_move_do_not_depend_on_another_ones() -> None:
    w = three()
    w.network("red", 200)
    w.vm(4, "n1", vni=200)
    w.cut = {("n1", "n2"), ("n3", "n2")}
    blue, red = w.move("vm1", "n2"), w.move("vm4", "n2")
    w.cut = {("n3", "n2")}
    w.advance(0.1)
    assert w.current(red).state is MoveState.PREPARED and w.current(blue).state is MoveState.PREPARING
    assert w.differences() == []
    w.cut = set()
    w.advance(0.1)
    assert w.current(blue).state is MoveState.PREPARED


@pytest.mark.parametrize("change", ["policy", "addresses"])
def test_what_may_enter_by_the_port_of_a_moves_destination_follows(change: str) -> None:
    w = three()
    w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    if change == "policy":
        w.network(policy=Policy(admit=Admit.MAC))
    else:
        known = w.nva.state.interfaces["vm1/eth0"]
        w.handle(ev.VmSubmitted("vm1", (dataclasses.replace(known, mac=mac(9), ipv4=(ip("10.0.0.9"),)),)))
    assert w.differences() == []


def test_an_error_while_computing_flows_leaves_the_state_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    w = three()
    was = dict(w.nva.state.interfaces)
    # Asked for the flows as they are, then, with the step undone, for the flows as they were.
    monkeypatch.setattr("ryu_vmm.nva.flows_of", lambda state, *_: 1 / 0 if (100, mac(1)) in state.by_mac else {})
    known = was["vm1/eth0"]
    with pytest.raises(ZeroDivisionError):
        w.handle(ev.VmSubmitted("vm1", (dataclasses.replace(known, mac=mac(9)),)))
    monkeypatch.undo()
    assert w.nva.state.interfaces == was and w.nva.state.by_mac[100, mac(1)] == "vm1/eth0"
    assert w.differences() == []


# --- correspondents come and go
def test_a_correspondent_that_is_lost_or_leaves_while_paths_are_proven_does_not_hold_up_the_move() -> None:
    for going in ("lost", "leaves"):
        w = three()
        w.cut = {("n3", "n2")}
        move = w.move("vm1", "n2")
        assert w.current(move).state is MoveState.PREPARING
        if going == "lost":
            w.disconnect("n3")
        else:
            w.handle(ev.VmWithdrawn("vm3"))
        w.advance(0.1)
        assert w.current(move).state is MoveState.PREPARED, going


def test_a_correspondent_that_joins_while_paths_are_proven_is_proven_too() -> None:
    w = World(4)
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    w.cut = {("n3", "n2")}
    move = w.move("vm1", "n2")
    w.vm(4, "n4")
    w.cut = set()
    w.advance(0.1)
    assert {"n4->n2", "n2->n4"} <= set(w.current(move).ledger.probes)


def test_a_correspondent_that_refused_its_new_flow_confirms_only_when_it_has_been_read_back() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    w.hold_barriers = {"n3"}
    w.handle(ev.ActivationReported(move.id))
    w.handle(ev.FlowRefused(3, w.nva.state.generation, 5, 1))
    w.release("n3")
    assert w.current(move).state is MoveState.STEERING and w.current(move).unconfirmed == ("n3",)
    w.advance(1.2)
    assert w.current(move).state is MoveState.DRAINING and w.current(move).unconfirmed == ()


def test_a_correspondent_that_is_withdrawn_is_waited_for_no_longer() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.disconnect("n3")
    w.handle(ev.ActivationReported(move.id))
    assert w.current(move).unconfirmed == ("n3",)
    w.handle(ev.VmWithdrawn("vm3"))
    w.handle(ev.NveWithdrawn("n3"))
    w.advance(3)
    assert w.current(move).state is MoveState.SETTLED


# --- switches come and go
def test_an_nve_that_is_withdrawn_loses_its_flows_and_may_come_back_on_the_same_connection() -> None:
    w = three()
    w.handle(ev.VmWithdrawn("vm3"))
    w.plug("n3", "tap-vm4")
    w.handle(ev.NveWithdrawn("n3"))
    assert w.installed("n3") == {}
    w.handle(ev.NveSubmitted(w.boxes["n3"].nve))
    w.vm(4, "n3", port=False)
    assert w.send("n3", "tap-vm4", unicast(4, 1)) == [("n1", "tap-vm1")]
    assert w.differences() == []


def test_a_switch_that_waits_to_be_registered_survives_a_store_that_fails() -> None:
    w = three()
    nve = Nve("n9", 9, ip("192.168.100.9"))
    w.boxes["n9"] = Box(nve, ports={"vxlan": 1})
    w.connect("n9")
    w.nva.handle(ev.NveSubmitted(nve), w.now)
    w.nva.rollback()
    w.handle(ev.NveSubmitted(nve))
    assert w.nva.state.sessions["n9"].synced


def test_a_port_that_has_gone_while_its_nve_was_away_has_gone() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    w.disconnect("n1")
    del w.boxes["n1"].ports["tap-vm1"]
    w.connect("n1")
    assert "vm1/eth0" in w.nva.state.gone
    w.handle(ev.ActivationReported(move.id))
    w.advance(3)
    assert w.nva.state.gone == {} and w.differences() == []


def test_a_port_that_takes_the_number_of_another_one_takes_its_place() -> None:
    w = three()
    w.vm(4, "n1")
    w.boxes["n1"].ports["tap-vm4"] = w.boxes["n1"].ports.pop("tap-vm1")
    w.plug("n1", "tap-vm4")
    assert ("n1", "tap-vm1") not in w.nva.state.ports
    assert w.send("n2", "tap-vm2", unicast(2, 4)) == [("n1", "tap-vm4")]
    assert w.send("n2", "tap-vm2", unicast(2, 1)) == []
    assert w.differences() == []


# --- memory
def test_ended_moves_are_forgotten_only_when_nothing_waits_for_them() -> None:
    w = three()
    w.nva = Nva(Settings(keep_moves=1))
    for box in w.boxes.values():
        w.handle(ev.NveSubmitted(box.nve))
        w.connect(box.nve.name)
    w.network()
    w.vm(1, "n1")
    w.vm(3, "n3")
    w.hold_barriers = {"n3"}
    for _ in range(3):
        w.handle(ev.AbortRequested(w.move("vm1", "n2").id))
    w.release("n3")
    w.handle(ev.AbortRequested(w.move("vm1", "n2").id))
    assert len(w.nva.state.moves) == 1 and w.nva.state.waits == {}


def test_an_nve_that_leaves_a_network_has_asked_for_nothing_there() -> None:
    w = three(Policy(distribution=Distribution.PULL))
    w.send("n3", "tap-vm3", unicast(3, 1))
    assert w.nva.state.pulled == {("n3", "vm1/eth0"): True}
    w.handle(ev.VmWithdrawn("vm3"))
    assert w.nva.state.pulled == {}


# --- accounts
def draining(w: World) -> Move:
    """vm1 has moved from n1 to n2; n3 has sent one packet to where it was."""
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    w.send("n3", "tap-vm3", unicast(3, 1))
    w.handle(ev.ActivationReported(move.id))
    w.advance(0.3)
    return w.current(move)


def test_what_was_counted_is_not_lost_when_a_later_move_takes_the_counter_over() -> None:
    w = three()
    there = draining(w)
    assert there.ledger.redirected_packets == 1
    back = w.move("vm1", "n1")
    w.handle(ev.RedirectRequested(back.id))
    w.boxes["n1"].tables.meters.clear()  # a meter goes with the flow that uses it
    w.handle(ev.ActivationReported(back.id))
    w.advance(3)
    assert w.current(there).state is w.current(back).state is MoveState.SETTLED
    assert (w.current(there).ledger.redirected_packets, w.current(there).ledger.unaccounted) == (1, 0)


def test_a_move_settles_though_a_later_one_was_aborted() -> None:
    w = three()
    first = draining(w)
    second = w.move("vm1", "n3")
    w.plug("n3", "tap-vm1")
    w.handle(ev.RedirectRequested(second.id))
    w.advance(0.5)
    w.handle(ev.AbortRequested(second.id))
    w.advance(3)
    assert w.current(first).state is MoveState.SETTLED


def test_a_move_settles_though_its_destination_is_away_and_its_ledger_says_what_it_does_not_know() -> None:
    w = three()
    move = draining(w)
    w.disconnect("n2")
    w.advance(w.nva.settings.drain_cap - 5)
    assert w.current(move).state is MoveState.DRAINING
    w.advance(6)
    ledger = w.current(move).ledger
    assert w.current(move).state is MoveState.SETTLED
    assert (ledger.exact, ledger.forgetful) == (False, ("n2",))


def test_what_a_destination_has_counted_is_read_when_it_is_back() -> None:
    """Its channel goes before anybody has asked: what it has counted is not unaccounted for."""
    w = three()
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    w.send("n3", "tap-vm3", unicast(3, 1))
    w.handle(ev.ActivationReported(move.id))
    w.disconnect("n2")
    w.advance(3)
    ledger = w.current(move).ledger
    assert (w.current(move).state, ledger.redirected_packets, ledger.arrived_packets) == (MoveState.DRAINING, 1, 0)
    w.connect("n2")
    w.advance(3)
    ledger = w.current(move).ledger
    assert (w.current(move).state, ledger.unaccounted, ledger.exact) == (MoveState.SETTLED, 0, True)


def test_a_move_is_not_quiet_while_its_source_cannot_be_asked() -> None:
    w = three()
    move = draining(w)
    w.disconnect("n1")
    w.advance(3)
    assert w.current(move).state is MoveState.DRAINING
    w.connect("n1")
    w.advance(3)
    assert w.current(move).state is MoveState.SETTLED


def test_counters_that_come_after_the_vm_was_withdrawn() -> None:
    w = three()
    move = draining(w)
    w.handle(ev.VmWithdrawn("vm1"))
    for kind in ("redirect@n1", "arrived@n2", "lost@n1"):
        w.handle(ev.FlowsRead(1, f"ledger:{move.id}:{kind}", ()))
        w.handle(ev.MetersRead(1, f"ledger:{move.id}:{kind}", {}))
    assert w.current(move).state is MoveState.ABORTED


def test_a_port_that_flaps_where_the_vm_has_shown_up_leaves_the_account_alone() -> None:
    w = three()
    w.vm(4, "n1", attachments=(Place("n3", "tap-vm4"),))
    w.unplug("n1", "tap-vm4")
    w.send("n2", "tap-vm2", unicast(2, 4))  # lost
    w.plug("n3", "tap-vm4")
    w.send("n3", "tap-vm4", frames.build_garp(mac(4), ip("10.0.0.4")))
    (move,) = w.nva.state.open_moves()
    slot = w.nva.state.gone["vm4/eth0"]
    w.advance(0.3)
    w.unplug("n3", "tap-vm4")
    w.plug("n3", "tap-vm4")
    assert w.nva.state.gone["vm4/eth0"] == slot
    w.advance(3)
    ledger = w.current(move).ledger
    assert (ledger.lost_packets, ledger.unread) == (1, ("n3/tap-vm4",))  # what the port dropped went with it
    assert w.nva.state.gone == {}


# --- ports and addresses that are somebody's
def test_nobody_is_registered_where_a_move_takes_somebody_else() -> None:
    w = three()
    move = w.move("vm1", "n2")
    with pytest.raises(Conflict, match=f"move {move.id}"):
        w.handle(ev.VmSubmitted("x", (intruder(Place("n2", "tap-vm1")),)))
    w.handle(ev.AbortRequested(move.id))
    w.handle(ev.VmSubmitted("x", (intruder(Place("n2", "tap-vm1")),)))


def intruder(place: Place) -> Interface:
    return Interface("x/eth0", "x", "eth0", 100, mac(50), (ip("10.0.0.50"),), (), place)


def test_the_tunnel_is_nobodys_port() -> None:
    w = three()
    with pytest.raises(InvalidInput, match="tunnel"):
        w.handle(ev.VmSubmitted("x", (intruder(Place("n2", "vxlan")),)))
    with pytest.raises(InvalidInput, match="tunnel"):
        w.handle(ev.MoveRequested("vm1", "n2", ports={"eth0": "vxlan"}))
    w.handle(ev.PortChanged(2, ev.PortInfo(1, "vxlan", True), gone=True))
    w.handle(ev.VmSubmitted("x", (intruder(Place("n2", "vxlan")),)))  # nothing says yet what it will be
    w.handle(ev.PortChanged(2, ev.PortInfo(1, "vxlan", True)))
    assert w.send("n2", "tap-vm2", unicast(2, 50)) == []
    assert sorted(w.send("n2", "tap-vm2", broadcast(2))) == [("n1", "tap-vm1"), ("n3", "tap-vm3")]
    assert w.differences() == []


def test_the_interfaces_of_a_vm_may_change_names_and_swap_addresses() -> None:
    w = three()
    first = w.nva.state.interfaces["vm1/eth0"]
    renamed = dataclasses.replace(first, id="vm1/lan0", name="lan0")
    w.handle(ev.VmSubmitted("vm1", (renamed,)))
    assert list(w.nva.state.in_network(100)) == ["vm2/eth0", "vm3/eth0", "vm1/lan0"]
    other = dataclasses.replace(
        renamed, id="vm1/b", name="b", mac=mac(9), ipv4=(ip("10.0.0.9"),), ipv6=(), location=Place("n1", "tap-b")
    )
    w.handle(ev.VmSubmitted("vm1", (renamed, other)))
    w.plug("n1", "tap-b")
    swapped = (dataclasses.replace(renamed, mac=mac(9)), dataclasses.replace(other, mac=mac(1)))
    w.handle(ev.VmSubmitted("vm1", swapped))
    assert w.send("n2", "tap-vm2", unicast(2, 9)) == [("n1", "tap-vm1")]
    assert w.send("n2", "tap-vm2", unicast(2, 1)) == [("n1", "tap-b")]
    with pytest.raises(InvalidInput, match="share an address"):
        w.handle(ev.VmSubmitted("vm1", (renamed, dataclasses.replace(other, mac=renamed.mac))))
    assert w.differences() == []


def test_a_place_named_twice_counts_once() -> None:
    w = World(2)
    w.network()
    place = Place("n2", "tap-vm1")
    w.plug("n2", "tap-vm1")
    w.vm(1, "n1", attachments=(place, place))
    w.unplug("n2", "tap-vm1")
    assert list(w.nva.state.members(100)) == ["n1"]
    w.handle(ev.VmWithdrawn("vm1"))
    assert list(w.nva.state.members(100)) == []


# --- what is heard where
def test_what_comes_in_before_a_ports_flows_says_something_only_if_it_is_the_vms_own() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    number, early = w.boxes["n2"].ports["tap-vm1"], cookie(Why.ANNOUNCE)
    for frame in (frames.build_garp(mac(77), ip("10.0.0.77")), frames.build_garp(mac(1), ip("10.0.0.77"))):
        w.handle(ev.PacketSeen(2, number, early, frame))
        assert w.current(move).state is MoveState.PREPARED
    w.handle(ev.PacketSeen(2, number, early, frames.build_garp(mac(1), ip("10.0.0.1"))))
    assert w.current(move).state is MoveState.DRAINING


def test_an_announcement_for_which_there_is_no_room_is_an_event_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryu_vmm.proposals.MARKS", 1)
    w = three()
    w.move("vm2", "n1")
    w.vm(4, "n1", attachments=(Place("n3", "tap-vm4"),))
    w.unplug("n1", "tap-vm4")
    w.plug("n3", "tap-vm4")
    w.send("n3", "tap-vm4", frames.build_garp(mac(4), ip("10.0.0.4")))
    assert w.nva.counters["announcement.refused"] == 1
    assert w.nva.state.interfaces["vm4/eth0"].location.nve == "n1"


def test_one_sampled_packet_is_enough_to_correct_its_sender() -> None:
    w = three()
    move = draining(w)
    w.advance(0.6)
    assert w.current(move).sampling
    sampled = ev.PacketSeen(1, 1, cookie(Why.REDIRECT, move.id), unicast(3, 1), ip("192.168.100.3"))
    for _ in range(5):
        w.handle(sampled)
    assert w.current(move).ledger.stale["n3"].corrected == 1


def test_an_nve_that_leaves_a_network_with_the_vm_that_might_have_shown_up_there_forgets_it() -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1", attachments=(Place("n3", "tap-vm1"),))
    w.vm(2, "n2")
    w.plug("n3", "tap-vm1")
    w.handle(ev.VmWithdrawn("vm1"))
    assert w.differences() == [] and list(w.nva.state.members(100)) == ["n2"]
