"""A switch that refuses a flow goes without what that is of, and with all else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from l3town import Layer3
from test_core_properties import ACTIONS, NVES, VMS, act
from wired import Wired
from world import World, broadcast, ip, unicast

from ryu_vmm import events as ev
from ryu_vmm.effects import Outcome, Program
from ryu_vmm.errors import Conflict
from ryu_vmm.flows import Flow
from ryu_vmm.model import Kind, MoveState, Place
from ryu_vmm.pipeline import units_of, wanted
from ryu_vmm.tables import CLASSIFY, DELIVER
from ryu_vmm.whose import error, unit_of

FULL = (5, 1)
Says = Callable[[World, str], None]


def of(flow: Flow, **wanted_fields: int) -> bool:
    fields = {name: int.from_bytes(value) for name, value, _ in flow.match}
    return all(fields.get(name) == value for name, value in wanted_fields.items())


def town() -> World:
    """vm1 at n1, vm2 at n2 in blue; vm3 at n3 in red."""
    w = World(3)
    w.network()
    w.network("red", 200)
    for n in (1, 2):
        w.vm(n, f"n{n}")
    w.vm(3, "n3", vni=200)
    return w


def refuse(w: World, nve: str, which: Callable[[Flow], bool], error: tuple[int, int] = FULL) -> None:
    w.boxes[nve].tables.refuses = lambda flow: error if which(flow) else None


@pytest.fixture(params=["which flow is said", "it is not said"])
def w(request: pytest.FixtureRequest) -> World:
    w = town()
    if request.param == "it is not said":
        w.vague.update(w.boxes)
    return w


def what(w: World, nve: str) -> set[str]:
    return {w.nva.state.refusals[nve, unit].what for unit in w.nva.state.refused_by(nve)}


def test_all_other_flows_are_there_at_once_and_the_fault_says_what_is_not(w: World) -> None:
    refuse(w, "n1", lambda flow: of(flow, tun_id=200))
    w.vm(4, "n1", vni=200)
    w.advance(200, step=0.25)
    state = w.nva.state
    assert state.sessions["n1"].synced and w.differences() == []
    assert {"the way to vm4/eth0 in network red", "broadcasts and gateway of network red"} <= what(w, "n1")
    assert all("red" in each for each in what(w, "n1")), "and all else it has"
    assert (state.faults["n1"].type, state.faults["n1"].code) == FULL
    for n in (5, 6, 7):
        w.advance(7 * n, step=0.25)  # whatever is being tried again meanwhile
        w.vm(n, "n1")
        assert w.send("n2", "tap-vm2", unicast(2, n)) == [("n1", f"tap-vm{n}")]
        assert w.send("n1", f"tap-vm{n}", unicast(n, 2)) == [("n2", "tap-vm2")]


def test_what_was_refused_is_tried_again_ever_more_seldom_and_in_force_when_there_is_room(w: World) -> None:
    tried: list[float] = []

    def counts(flow: Flow) -> bool:
        if of(flow, tun_id=200, eth_dst=0x020000000004) and flow.table == DELIVER:
            tried.append(w.now)
            return True
        return False

    refuse(w, "n1", counts)
    w.vm(4, "n1", vni=200)
    w.advance(600, step=0.25)
    gaps = [round(b - a) for a, b in itertools.pairwise(tried)]
    assert gaps[-1] >= 60 and len(tried) < 30, gaps
    refuse(w, "n1", lambda flow: False)
    w.advance(62, step=0.25)
    assert w.send("n3", "tap-vm3", unicast(3, 4)) == [("n1", "tap-vm4")]
    assert w.nva.state.refused_by("n1") == () and "n1" not in w.nva.state.faults
    assert [f["what"] for kind, f in w.reports if kind == "nve.with"] == ["the way to vm4/eth0 in network red"]
    assert not [key for key in w.nva.state.clock if key[0] in ("retry", "resync")]


def test_it_is_tried_again_when_its_flows_change(w: World) -> None:
    refuse(w, "n1", lambda flow: of(flow, tun_id=200, eth_dst=0x020000000004))
    interface = w.vm(4, "n1", vni=200)
    w.advance(100, step=0.25)
    assert what(w, "n1") == {"the way to vm4/eth0 in network red"}
    w.handle(ev.VmSubmitted("vm4", (replace(interface, mac=b"\2\0\0\0\0\x55"),)))
    w.advance(2.0)  # of one that does not say what it refuses, nothing has to be known before
    assert what(w, "n1") == set() and w.differences() == []
    assert w.boxes["n1"].tables.refuses(Flow(0, 0, ())) is None


def test_it_is_tried_when_the_edge_is_there_again_and_a_restart_knows_it_anew(w: World) -> None:
    refuse(w, "n1", lambda flow: of(flow, tun_id=200))
    w.vm(4, "n1", vni=200)
    w.advance(3)
    known = what(w, "n1")
    w.kill()
    w.start()
    w.advance(3)
    assert what(w, "n1") == known and w.nva.state.sessions["n1"].synced
    refuse(w, "n1", lambda flow: False)
    w.disconnect("n1")
    w.connect("n1")
    w.advance(1)
    assert what(w, "n1") == set() and w.differences() == []
    assert w.send("n3", "tap-vm3", unicast(3, 4)) == [("n1", "tap-vm4")]


def test_what_an_edge_still_has_of_a_unit_is_not_taken_away_as_that_is_tried_again(
    monkeypatch: Any,
) -> None:
    """Its flows were never removed, since the edge was out of sync as one of them was refused."""
    w = town()
    w.vague.add("n1")
    w.disconnect("n1")
    known = w.nva.state.interfaces["vm1/eth0"]
    w.handle(ev.VmSubmitted("vm1", (replace(known, ipv4=(*known.ipv4, ip("10.0.0.77"))),)))
    w.hold_barriers.add("n1")
    had = set(w.installed("n1"))
    refuse(w, "n1", lambda flow: flow.key not in had)
    handle = w.nva.handle

    def beside(event: ev.Event, now: float) -> Outcome:
        if isinstance(event, ev.FlowRefused) and event.generation in [row.trial for row in state.refusals.values()]:
            handle(ev.FlowRefused(event.dpid, event.generation - 1, 1, 1), now)  # nobody knows of what
        return handle(event, now)

    monkeypatch.setattr(w.nva, "handle", beside)
    state = w.nva.state
    w.connect("n1")
    while not any(row.withheld for row in state.refusals.values()):
        w.advance(0.1)
    assert not state.sessions["n1"].synced
    w.boxes["n1"].tables.refuses = lambda flow: None
    w.release("n1")
    w.advance(200, step=0.25)
    assert state.refusals == {} and w.differences() == []


def test_a_flow_that_may_not_change_is_found_as_one_that_may_not_come(w: World) -> None:
    """What is there under its key is not what it should be."""
    w.vm(4, "n1", vni=200)
    before = w.installed("n1")
    refuse(w, "n1", lambda flow: flow.key in before and before[flow.key] != flow)
    w.vm(5, "n1", vni=200)
    w.advance(4, step=0.25)
    assert w.nva.state.sessions["n1"].synced and w.differences() == []
    assert what(w, "n1") == {"broadcasts and gateway of network red"}
    w.boxes["n1"].tables.refuses = lambda flow: None
    w.advance(100, step=0.25)
    assert w.nva.state.refusals == {} and w.differences() == []


def test_what_a_step_changes_after_an_edge_was_programmed_whole_is_sent_as_well(monkeypatch: Any) -> None:
    w = town()
    w.disconnect("n1")
    monkeypatch.setattr(
        w.nva.packets, "synchronised", lambda nve: w.nva.state.put("silenced", Place("n1", "tap-vm1"), w.now + 60)
    )
    w.connect("n1")
    assert w.nva.state.silenced and w.differences() == []


def test_moves_go_on_but_for_those_that_need_it(w: World) -> None:
    refuse(w, "n1", lambda flow: of(flow, tun_id=200))
    w.vm(4, "n1", vni=200)
    w.advance(3)
    with pytest.raises(Conflict, match=r"NVE n1 goes without .* red: its switch refused a flow of it \(table full"):
        w.move("vm3", "n1")
    for there, back in (("n3", "n1"), ("n1", "n3")):
        move = w.move("vm1", there)
        w.advance(0.5)
        w.handle(ev.RedirectRequested(move.id))
        w.advance(0.2)
        w.plug(there, "tap-vm1")
        assert w.send("n2", "tap-vm2", unicast(2, 1)) == [(there, "tap-vm1")]
        w.handle(ev.ActivationReported(move.id))
        w.advance(8, step=0.25)
        assert w.current(move).state is MoveState.SETTLED and w.current(move).error is None
        w.unplug(back, "tap-vm1")


@pytest.mark.parametrize("kind", list(Kind))
def test_a_vm_that_its_edge_cannot_serve_may_leave(w: World, kind: Kind) -> None:
    refuse(w, "n1", lambda flow: of(flow, in_port=w.boxes["n1"].number("tap-vm9")))
    w.vm(9, "n1")
    w.advance(3)
    assert what(w, "n1") == {"port tap-vm9, that of vm9/eth0"}
    move = w.move("vm9", "n2", kind)
    w.advance(1)
    assert w.current(move).state is MoveState.PREPARED


def test_an_open_move_fails_that_needs_it_and_says_so_and_others_do_not() -> None:
    w = town()
    w.vm(4, "n1")
    w.hold_barriers = {"n2"}
    one, other = w.move("vm1", "n3"), w.move("vm4", "n3")
    w.advance(0.1)
    refuse(w, "n1", lambda flow: of(flow, eth_dst=0x020000000001) and flow.priority >= 110)
    w.release("n2")
    w.advance(1)
    for move in (one, other):
        w.handle(ev.RedirectRequested(move.id))
    w.advance(0.2)
    error = w.current(one).error or ""
    assert error.startswith(
        f"n1 refused a flow: OpenFlow error type 5 code 1; it goes without move {one.id} of vm1 (table full)"
    )
    assert w.current(one).state is MoveState.FAILED
    assert w.current(other).state is MoveState.REDIRECTING
    assert w.send("n2", "tap-vm2", unicast(2, 1)) == [("n1", "tap-vm1")]
    w.advance(5)
    assert w.differences() == [] and w.nva.state.refused_by("n1") == ()


def test_a_correspondent_that_refuses_to_be_steered_sends_no_more_to_the_source() -> None:
    w = town()
    w.vm(4, "n3")
    move = w.move("vm1", "n2")
    w.advance(0.5)
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.2)
    w.plug("n2", "tap-vm1")
    refuse(w, "n3", lambda flow: of(flow, eth_dst=0x020000000001))
    w.handle(ev.ActivationReported(move.id))
    w.advance(0.1)
    assert w.current(move).unconfirmed == () and w.current(move).state is MoveState.DRAINING
    assert w.send("n3", "tap-vm4", unicast(4, 1)) == [], "not by the flow from before, which nobody would ever remove"
    w.advance(5, step=0.25)
    ended = w.current(move)
    assert ended.state is MoveState.FAILED and "it goes without the way to vm1/eth0 in network blue" in ended.error
    refuse(w, "n3", lambda flow: False)
    w.advance(30, step=0.25)
    assert w.send("n3", "tap-vm4", unicast(4, 1)) == [("n2", "tap-vm1")]


def test_what_a_port_may_not_send_stays_out_when_the_flow_that_says_so_is_refused(w: World) -> None:
    number = w.boxes["n1"].number("tap-vm9")
    refuse(w, "n1", lambda flow: of(flow, in_port=number) and flow.table != CLASSIFY and not flow.goto)
    w.vm(9, "n1", vni=200)
    w.advance(2.0)
    assert w.send("n1", "tap-vm9", unicast(9, 3)) == [] and w.send("n1", "tap-vm9", unicast(3, 3)) == []
    assert not [flow for flow in w.installed("n1").values() if of(flow, in_port=number)]


def test_a_port_that_goes_to_another_tenant_never_keeps_the_flows_of_the_first() -> None:
    w = town()
    refuse(w, "n1", lambda flow: False)
    number = w.boxes["n1"].ports["tap-vm1"]
    refuse(w, "n1", lambda flow: of(flow, in_port=number))
    w.handle(ev.VmWithdrawn("vm1"))
    w.vm(8, "n1", vni=200, port=False)
    moved = replace(w.nva.state.interfaces["vm8/eth0"], location=Place("n1", "tap-vm1"))
    w.handle(ev.VmSubmitted("vm8", (moved,)))
    w.plug("n1", "tap-vm1")
    w.advance(1)
    assert w.send("n1", "tap-vm1", unicast(1, 2)) == [] and w.send("n1", "tap-vm1", broadcast(8)) == []


@pytest.mark.parametrize("room", [0, 2, 5])
def test_a_full_table_costs_what_finds_no_room_and_nothing_else(w: World, room: int) -> None:
    tables = w.boxes["n1"].tables
    full = sum(flow.table == DELIVER for flow in tables.flows) + room
    tables.room[DELIVER] = full
    for n in range(10, 20):
        w.vm(n, "n2")
    w.advance(3)
    assert w.nva.state.sessions["n1"].synced and w.differences() == []
    reached = [n for n in range(10, 20) if w.send("n1", "tap-vm1", unicast(1, n))]
    assert len(reached) == room and len(what(w, "n1")) == 10 - room
    assert w.send("n2", "tap-vm2", unicast(2, 1)) == [("n1", "tap-vm1")]
    for n in reached:
        w.handle(ev.VmWithdrawn(f"vm{n}"))
    w.advance(62, step=0.25)
    assert len(what(w, "n1")) == max(0, 10 - 2 * room)


def test_a_late_error_of_a_flow_that_nobody_wants_any_more_costs_nothing() -> None:
    w = town()
    held: list[Program] = []
    at = w._at_switch
    w._at_switch = lambda e: held.append(e) if isinstance(e, Program) and e.dpid == 1 else at(e)  # type: ignore[method-assign]
    w.vm(4, "n1")
    w._at_switch = at  # type: ignore[method-assign]
    changes = [(e.generation, change) for e in held for change in e.changes if change.op == "add"]
    for effect in held:
        at(effect)
    w._pump()
    w.handle(ev.VmWithdrawn("vm4"))
    for generation, change in changes:
        w.handle(ev.FlowRefused(1, generation, *FULL, change.flow.cookie, change))
    assert w.nva.state.sessions["n1"].synced and w.nva.state.refused_by("n1") == ()
    w.advance(3)
    assert w.differences() == [] and "n1" not in w.nva.state.faults


def test_a_programmed_edge_confirms_what_it_has_been_told_though_it_is_told_ever_more() -> None:
    """Barriers answer one after another while further programs are sent: each makes all before it realised."""
    w = town()
    w.vm(4, "n3")
    move = w.move("vm1", "n2")
    w.advance(0.5)
    w.disconnect("n3")
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.2)
    w.plug("n2", "tap-vm1")
    w.handle(ev.ActivationReported(move.id))
    w.advance(1)
    assert w.current(move).unconfirmed == ("n3",)
    w.hold_barriers = {"n3"}
    w.connect("n3")
    box = w.boxes["n3"]
    for n in range(10, 60):  # never a moment at which the newest is acknowledged
        w.vm(n, "n3")
        assert w.nva.state.generations["n3"][1] < w.nva.state.generations["n3"][0]
        w.handle(ev.BarrierReplied(box.nve.dpid, box.held_barriers.pop(0)))
        w.advance(0.1)
    assert w.current(move).unconfirmed == ()
    assert w.current(move).state is MoveState.SETTLED


def test_a_move_goes_on_by_the_barrier_of_its_own_program() -> None:
    w = town()
    w.hold_barriers = {"n2"}
    move = w.move("vm1", "n2")
    needed = w.nva.state.waits[move.id]["n2"]
    for n in range(10, 15):
        w.vm(n, "n2")
    w.handle(ev.BarrierReplied(2, needed))
    w.advance(0.5)
    assert w.current(move).state is MoveState.PREPARED
    assert w.nva.state.generations["n2"][0] > needed


# --- which unit it was ------------------------------------------------------------------------------------------------
def all_are_found(w: World) -> None:
    state = w.nva.state
    for nve, session in state.sessions.items():
        if session.synced:
            for unit in units_of(state, nve):
                for flow in wanted(state, nve, (unit,)).values():
                    assert unit_of(state, nve, flow) == unit, (nve, unit, flow)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, max_size=25))
def test_the_unit_of_a_flow_is_known_by_its_content(actions: list[tuple]) -> None:  # type: ignore[type-arg]
    w = World(3)
    w.network()
    for n in VMS:
        w.vm(n, NVES[n % 3], attachments=(Place(NVES[(n + 1) % 3], f"tap-vm{n}"),))
    for action in actions:
        act(w, action)
    all_are_found(w)


@pytest.mark.parametrize("family", [46, 6])
def test_the_unit_of_a_flow_of_layer_3_is_known_by_its_content(family: int) -> None:
    w = Layer3(3, family=family)
    for n in (1, 2, 3):
        w.task(n, f"n{n}")
    all_are_found(w)
    move, _ = w.handle(ev.MoveRequested("t1", "n2"))  # type: ignore[misc]
    w.advance(1)
    all_are_found(w)
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.1)
    all_are_found(w)
    w.plug("n2", "tap-t1")
    w.handle(ev.ActivationReported(move.id))
    all_are_found(w)
    w.advance(5)
    all_are_found(w)
    w.move("t1", "n1")
    all_are_found(w)
    w.handle(ev.VmWithdrawn("t3"))
    all_are_found(w)


def test_numbers_of_programs_go_on_over_a_restart() -> None:
    w = town()
    given_before = {generation for generation, _ in w.nva.state.generations.values()} | {w.nva.state.generation}
    for _ in range(2):
        w.kill()
        w.start()
        given_now = {generation for generation, _ in w.nva.state.generations.values()}
        assert min(given_now) > max(given_before)
        given_before |= given_now


@pytest.mark.parametrize("restarted", [False, True])
def test_an_error_is_blamed_on_the_moves_that_need_that_program_of_that_edge(restarted: bool) -> None:
    w = town()
    w.vm(4, "n3")  # a correspondent of vm1's network, too
    move = w.move("vm1", "n2")
    w.advance(1)
    needed = w.current(move).generation
    if restarted:
        w.kill()
        w.start()
        w.advance(1)
    for nve in w.boxes.values():
        if restarted or nve.nve.name == "n3":
            for generation in range(needed, needed + 3):
                if (nve.nve.name, generation) not in w.nva.state.needs.get(move.id, ()):
                    w.handle(ev.FlowRefused(nve.nve.dpid, generation, *FULL))
    w.advance(5)
    assert w.current(move).state is MoveState.PREPARED
    assert all(session.synced for session in w.nva.state.sessions.values())


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(["n1", "n2", "n3"]), st.integers(0, 6), st.booleans()), max_size=4),
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["n1", "n2", "n3"])), max_size=4),
    st.sampled_from([46, 6]),
)
def test_edges_of_layer_3_go_on_whatever_they_refuse_and_are_whole_when_they_no_longer_do(
    orders: list[tuple[str, int, bool]], moves: list[tuple[int, str]], family: int
) -> None:
    w = Layer3(3, family=family)
    w.network()
    w.vm(11, "n1")
    w.vm(12, "n2")
    for n in (1, 2, 3):
        w.task(n, f"n{n}")
    for at, which, says in orders:
        (w.vague.discard if says else w.vague.add)(at)
        refuse(w, at, lambda flow, k=which: not of(flow, tun_id=100) and crc32(repr(flow.key).encode()) % 7 == k)
    for n, to in moves:
        try:
            move = w.move(f"t{n}", to)
        except Conflict:
            continue
        w.advance(0.5)
        if w.current(move).state is MoveState.PREPARED:
            w.through(w.current(move), f"tap-t{n}")
        w.advance(12, step=0.5)
        assert w.differences() == []
        assert w.send("n1", "tap-vm11", unicast(11, 12)) == [("n2", "tap-vm12")], "another tenant's"
    for box in w.boxes.values():
        box.tables.refuses = lambda flow: None
    w.advance(130, step=0.5)
    assert w.nva.state.refusals == {} and w.nva.state.faults == {} and w.differences() == []
    assert all(session.synced for session in w.nva.state.sessions.values())


# --- over the wire ----------------------------------------------------------------------------------------------------
def test_a_meter_that_is_refused_costs_the_port_that_needs_it() -> None:
    w = Wired(2)
    meters = w.wires["n1"].meters
    meters.room = len(meters._made)
    w.register(3)
    w.plug("n1", 3)
    w.settle()
    state = w.nva.state
    assert {state.refusals["n1", unit].what for unit in state.refused_by("n1")} == {"port tap-vm3, that of vm3/eth0"}
    assert "no meter left" in {error(row.type, row.code) for row in state.refusals.values()}
    assert w.differences() == []
    meters.room += 10
    for _ in range(3):
        w.advance(2.0)
        w.settle()
    assert state.refused_by("n1") == () and w.differences() == [] and w.wires["n1"].unfit == []


def test_an_error_names_its_flow_by_its_transaction_id_alone() -> None:
    w = Wired(2)
    tables = w.wires["n1"].switch.tables
    tables.refuses = lambda flow: (1, 5) if flow.table == DELIVER and of(flow, eth_dst=0x020000000003) else None
    w.register(3)
    w.plug("n1", 3)
    w.settle()
    assert {event.change is not None and event.change.flow.table for event in w.refused} == {DELIVER}
    row = w.nva.state.refusals["n1", ("if", "vm3/eth0")]
    assert error(row.type, row.code) == "not permitted" and row.flow.startswith("table=40,")
    assert w.nva.state.sessions["n1"].synced and w.differences() == []
