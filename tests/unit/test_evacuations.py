"""The life of an evacuation: places, failures, changed minds, restarts, and what others do meanwhile."""

from __future__ import annotations

import pytest
from evacuating import carry, carry_all, evacuate, homes, house, moves, now, restart, rows, states
from world import World, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.errors import Conflict, InvalidInput, NotFound
from ryu_vmm.evacuations import KEEP
from ryu_vmm.model import EvacuationState, EvacueeState, Interface, Kind, MoveState, Network, Place
from ryu_vmm.nva import Settings
from ryu_vmm.wire import frames


def kinds(w: World) -> list[str]:
    return [kind for kind, _ in w.reports if kind.startswith("evacuation.")]


# --- the plain case ---------------------------------------------------------------------------------------------------
def test_every_vm_leaves_and_the_rest_is_spread_evenly() -> None:
    w = house(10)
    evacuate(w, parallel=3)
    carry_all(w)
    assert now(w).state is EvacuationState.DONE
    assert now(w).ended == pytest.approx(w.now, abs=0.2)
    assert homes(w) == {"n2": 5, "n3": 5}
    assert states(w) == {"moved": 10}
    assert w.differences() == []
    assert moves(w) == []
    assert kinds(w)[0] == "evacuation.started"
    assert kinds(w).count("evacuation.ended") == 1
    assert {move.requested_by for move in w.nva.state.moves.values()} == {"evacuation 1"}


def test_no_more_moves_are_open_than_there_are_places_and_draining_ones_hold_none() -> None:
    w = house(6)
    evacuate(w, parallel=2)
    assert states(w) == {"moving": 2, "waiting": 4}
    w.advance(0.5)
    first, second = moves(w, MoveState.PREPARED)
    w.handle(ev.RedirectRequested(first.id))
    w.advance(0.1)
    assert states(w) == {"moving": 2, "waiting": 4}
    leg = first.legs[0]
    w.unplug(*leg.src)
    w.plug(*leg.dst)
    w.hold_barriers.add("n3")
    w.send(*leg.dst, frames.build_garp(mac(1), b"\x0a\0\0\x01"))
    assert w.current(first).state is MoveState.STEERING
    assert states(w) == {"moving": 2, "waiting": 4}  # steering still holds its place
    w.release("n3")
    assert w.current(first).state is MoveState.DRAINING
    assert states(w) == {"draining": 1, "moving": 2, "waiting": 3}
    assert rows(w)["vm3"] is EvacueeState.MOVING
    assert w.current(second).state is MoveState.PREPARED


def test_an_nve_without_vms_is_evacuated_at_once() -> None:
    w = house(0)
    assert evacuate(w).state is EvacuationState.DONE
    assert kinds(w) == ["evacuation.started", "evacuation.ended"]


def test_it_does_not_end_while_a_redirect_is_still_there() -> None:
    w = house(1)
    evacuate(w)
    w.advance(0.5)
    carry(w, moves(w)[0])
    w.advance(0.5)
    assert states(w) == {"draining": 1}
    assert now(w).state is EvacuationState.RUNNING
    w.advance(5)
    assert now(w).state is EvacuationState.DONE


def test_cold_evacuations_open_cold_moves() -> None:
    w = house(2)
    evacuate(w, kind=Kind.COLD)
    assert {move.kind for move in moves(w)} == {Kind.COLD}


# --- requests ---------------------------------------------------------------------------------------------------------
def test_the_same_request_is_answered_with_the_same_evacuation() -> None:
    w = house(3)
    first, created = w.handle(ev.EvacuationRequested("n1", request_id="r-1"))  # type: ignore[misc]
    again, anew = w.handle(ev.EvacuationRequested("n1", request_id="r-1"))  # type: ignore[misc]
    assert (created, anew, again.id) == (True, False, first.id)
    restart(w)
    again, anew = w.handle(ev.EvacuationRequested("n1", request_id="r-1"))  # type: ignore[misc]
    assert (anew, again.id) == (False, first.id)


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (ev.EvacuationRequested("n9"), NotFound, "there is no NVE n9"),
        (ev.EvacuationRequested("n1", ("n9",)), NotFound, "there is no NVE n9"),
        (ev.EvacuationRequested("n1", ("n2", "n1")), InvalidInput, "n1 cannot take the VMs that leave it"),
        (ev.EvacuationRequested("n1", parallel=0), InvalidInput, "at least one move"),
        (ev.EvacuationRequested("n1", attempts=0), InvalidInput, "at least one attempt"),
        (ev.EvacuationCancelled(7), NotFound, "there is no evacuation 7"),
        (ev.EvacuationResumed(7), NotFound, "there is no evacuation 7"),
    ],
)
def test_what_makes_no_sense_is_refused(request_: ev.Request, error: type[Exception], words: str) -> None:
    w = house(1)
    with pytest.raises(error, match=words):
        w.handle(request_)
    assert w.nva.state.evacuations == {}


def test_an_nve_that_is_being_evacuated_takes_no_vms() -> None:
    w = house(2)
    w.vm(3, "n2")
    evacuate(w, to=("n3",))
    with pytest.raises(Conflict, match=r"n1 is being evacuated and takes no VMs \(evacuation 1\)"):
        w.move("vm3", "n1")
    with pytest.raises(Conflict, match="takes no VMs"):
        w.vm(4, "n1")
    with pytest.raises(Conflict, match="is being evacuated"):
        evacuate(w, to=("n2",))
    with pytest.raises(Conflict, match="takes no VMs"):
        evacuate(w, "n2", to=("n1",))
    w.vm(1, "n1", port=False)  # registered again as it is: nothing new
    carry_all(w)
    assert w.move("vm3", "n1").open  # it has ended


def test_a_move_that_was_asked_for_before_is_still_answered() -> None:
    w = house(1)
    w.vm(2, "n2")
    request = ev.MoveRequested("vm2", "n1", request_id="before")
    first, _ = w.handle(request)  # type: ignore[misc]
    evacuate(w)
    assert w.handle(request)[0].id == first.id  # type: ignore[index]


def test_only_so_many_are_kept_on_record() -> None:
    w = house(1)
    w.advance(0.1)
    for _ in range(KEEP + 5):
        number = evacuate(w).id
        w.handle(ev.EvacuationCancelled(number, abort=True))
    assert len(w.nva.state.evacuations) == KEEP
    assert {row.evacuation for row in w.nva.state.evacuees.values()} == set(w.nva.state.evacuations)
    assert min(w.nva.state.evacuations) == 6


# --- failures ---------------------------------------------------------------------------------------------------------
def test_a_move_that_fails_is_tried_again_elsewhere_and_then_named() -> None:
    w = house(1)
    evacuate(w, attempts=2)
    w.advance(0.5)
    first = moves(w)[0]
    w.handle(ev.AbortRequested(first.id, "host is full"))
    second = moves(w)[0]
    assert (first.destination, second.destination) == ("n2", "n3")
    w.handle(ev.AbortRequested(second.id, "host is full"))
    assert moves(w) == []
    assert now(w).state is EvacuationState.INCOMPLETE
    row = w.nva.state.evacuees_in(1)[0]
    assert (row.state, row.attempts) == (EvacueeState.FAILED, 2)
    assert row.why == f"move {second.id} to n3 aborted: host is full"


def test_one_that_fails_does_not_hold_up_the_others() -> None:
    w = house(4)
    evacuate(w, parallel=1, attempts=1)
    w.advance(0.5)
    w.handle(ev.AbortRequested(moves(w)[0].id, "no"))
    carry_all(w)
    assert states(w) == {"failed": 1, "moved": 3}
    assert now(w).state is EvacuationState.INCOMPLETE
    assert homes(w)["n1"] == 1


def test_a_refused_port_sends_a_vm_elsewhere_or_nowhere() -> None:
    w = house(2)
    w.vm(3, "n2", port=False)
    w.handle(ev.VmSubmitted("vm4", (w.nva.state.interfaces["vm3/eth0"].__class__(
        "vm4/eth0", "vm4", "eth0", 100, mac(4), (), (), Place("n2", "tap-vm1")
    ),)))  # fmt: skip
    evacuate(w, to=("n2", "n3"))
    assert w.nva.state.evacuee(1, "vm1").to == "n3"  # type: ignore[union-attr]
    carry_all(w)
    w.handle(ev.EvacuationRequested("n3", ("n2",)))
    row = w.nva.state.evacuee(2, "vm1")
    assert row is not None
    assert row.state is EvacueeState.FAILED
    assert row.why == "n2: port tap-vm1 on n2 is taken by vm4/eth0"


def test_an_nve_that_is_not_there_is_left_out_and_its_vms_go_elsewhere() -> None:
    w = house(4)
    evacuate(w, parallel=2)
    assert {move.destination for move in moves(w)} == {"n2", "n3"}
    w.disconnect("n3")
    w.advance(5)
    assert {move.destination for move in moves(w)} == {"n2", "n3"}  # it may come back, and the VM be half way there
    w.advance(6)
    assert {move.destination for move in moves(w)} == {"n2"}
    assert states(w) == {"moving": 2, "waiting": 2}
    carry_all(w)
    assert homes(w) == {"n2": 4}


def test_an_nve_that_comes_back_in_time_changes_no_plan() -> None:
    w = house(2)
    evacuate(w)
    w.advance(1)
    w.disconnect("n3")
    w.advance(5)
    w.connect("n3")
    w.advance(20)
    assert {(move.destination, move.state) for move in moves(w)} == {("n2", "prepared"), ("n3", "prepared")}
    carry_all(w)
    assert homes(w) == {"n2": 1, "n3": 1}


def test_while_no_nve_can_take_any_it_waits() -> None:
    w = house(2)
    w.disconnect("n2")
    w.disconnect("n3")
    evacuate(w)
    assert (now(w).state, now(w).why) == (EvacuationState.RUNNING, "not connected and in sync: n2, n3")
    assert states(w) == {"waiting": 2}
    w.connect("n3")
    assert now(w).why == ""
    carry_all(w)
    assert homes(w) == {"n3": 2}


def test_while_the_source_is_not_there_it_waits() -> None:
    w = house(2)
    w.disconnect("n1")
    evacuate(w)
    assert now(w).why == "NVE n1 is not connected and in sync"
    w.connect("n1")
    carry_all(w)
    assert now(w).state is EvacuationState.DONE


def test_a_vm_goes_where_it_has_an_attachment() -> None:
    w = World(4)
    w.network()
    for n, elsewhere in ((1, "n4"), (2, "n4"), (3, "n2")):
        w.vm(n, "n1", attachments=(Place(elsewhere, f"special{n}"),))
    w.vm(4, "n1", attachments=(Place("n1", "tap-vm4"),))
    evacuate(w, to=("n3", "n4"))
    assert [w.nva.state.evacuee(1, f"vm{n}").to for n in (1, 2, 4)] == ["n4", "n4", "n3"]  # type: ignore[union-attr]
    assert {move.legs[0].dst.port for move in moves(w)} == {"special1", "special2", "tap-vm4"}
    row = w.nva.state.evacuee(1, "vm3")
    assert row is not None
    assert (row.state, row.why) == (
        EvacueeState.FAILED, "vm3/eth0 has no attachment on n3; vm3/eth0 has no attachment on n4",
    )  # fmt: skip


def test_who_can_only_go_to_an_absent_nve_waits_and_lets_others_pass() -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1", attachments=(Place("n3", "there"),))
    w.vm(2, "n1")
    w.disconnect("n3")
    evacuate(w, parallel=1)
    assert rows(w) == {"vm1": EvacueeState.WAITING, "vm2": EvacueeState.MOVING}
    assert w.nva.state.evacuee(1, "vm1").why.startswith("not connected and in sync: n3")  # type: ignore[union-attr]
    w.connect("n3")
    carry_all(w)
    assert homes(w) == {"n2": 1, "n3": 1}


# --- what others do ---------------------------------------------------------------------------------------------------
def test_a_vm_that_somebody_else_moves_is_waited_for() -> None:
    w = house(2)
    w.advance(0.1)
    other = w.move("vm1", "n2")
    w.advance(0.5)
    evacuate(w, to=("n3",), parallel=1)
    assert rows(w) == {"vm1": EvacueeState.WAITING, "vm2": EvacueeState.MOVING}
    carry(w, other)
    assert rows(w)["vm1"] is EvacueeState.DRAINING  # whoever asked for it: n1 is needed until it has settled
    carry_all(w)
    assert rows(w) == {"vm1": EvacueeState.GONE, "vm2": EvacueeState.MOVED}
    assert w.nva.state.evacuee(1, "vm1").why == "is on n2, not by this evacuation"  # type: ignore[union-attr]
    assert now(w).state is EvacuationState.DONE


def test_a_vm_whose_other_move_came_to_nothing_has_its_turn() -> None:
    w = house(1)
    w.advance(0.1)
    other = w.move("vm1", "n2")
    evacuate(w, to=("n3",))
    assert w.nva.state.evacuee(1, "vm1").why == f"move {other.id} to n2 is open, not of this evacuation"  # type: ignore[union-attr]
    w.handle(ev.AbortRequested(other.id))
    assert moves(w)[0].destination == "n3"
    assert rows(w) == {"vm1": EvacueeState.MOVING}


def test_a_vm_that_is_removed_is_gone() -> None:
    w = house(3)
    evacuate(w, parallel=1)
    w.handle(ev.VmWithdrawn("vm1"))  # its move is open
    w.handle(ev.VmWithdrawn("vm3"))  # it waits
    assert rows(w) == {"vm1": EvacueeState.GONE, "vm2": EvacueeState.MOVING, "vm3": EvacueeState.GONE}
    carry_all(w)
    assert now(w).state is EvacuationState.DONE


def test_what_has_moved_has_moved_whatever_becomes_of_it() -> None:
    w = house(3)
    evacuate(w, parallel=1)
    w.advance(0.5)
    carry(w, moves(w)[0])
    w.advance(5)
    carry(w, moves(w, MoveState.PREPARED)[0])
    w.advance(5)
    assert rows(w)["vm1"] is rows(w)["vm2"] is EvacueeState.MOVED
    w.handle(ev.VmWithdrawn("vm1"))
    there = w.nva.state.interfaces["vm2/eth0"].location.nve
    onward = w.move("vm2", "n3" if there == "n2" else "n2")
    w.advance(0.5)
    carry(w, onward)
    assert rows(w)["vm1"] is rows(w)["vm2"] is EvacueeState.MOVED


def test_a_vm_that_shows_up_elsewhere_is_gone() -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1", attachments=(Place("n2", "tap-vm1"), Place("n3", "tap-vm1")))
    evacuate(w, to=("n2",))
    w.advance(0.5)
    w.unplug("n1", "tap-vm1")
    w.plug("n3", "tap-vm1")
    w.send("n3", "tap-vm1", frames.build_garp(mac(1), b"\x0a\0\0\x01"))
    assert rows(w)["vm1"] is EvacueeState.DRAINING
    w.advance(5)
    assert rows(w)["vm1"] is EvacueeState.GONE
    assert now(w).state is EvacuationState.DONE


def test_a_vm_that_comes_meanwhile_joins() -> None:
    w = house(1)
    w.vm(2, "n2")
    w.advance(0.1)
    coming = w.move("vm2", "n1")
    w.advance(0.5)
    evacuate(w, to=("n3",))
    assert set(rows(w)) == {"vm1"}
    carry(w, coming)
    assert rows(w)["vm2"] is EvacueeState.MOVING
    carry_all(w)
    assert homes(w) == {"n3": 2}


def test_a_vm_that_comes_back_is_sent_off_again_but_not_for_ever() -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1", attachments=(Place("n1", "tap-vm1"), Place("n2", "tap-vm1")))
    w.vm(2, "n1")
    evacuate(w, to=("n2",), attempts=2)
    for turn in (1, 2):
        w.advance(1)
        mine = next(move for move in moves(w, MoveState.PREPARED) if move.vm == "vm1")
        carry(w, mine)
        assert rows(w)["vm1"] is EvacueeState.DRAINING
        w.unplug("n2", "tap-vm1")
        w.plug("n1", "tap-vm1")
        w.send("n1", "tap-vm1", frames.build_garp(mac(1), b"\x0a\0\0\x01"))
        assert rows(w)["vm1"] is (EvacueeState.MOVING if turn == 1 else EvacueeState.FAILED)
    assert w.nva.state.evacuee(1, "vm1").why == "has come back"  # type: ignore[union-attr]


def test_it_waits_where_too_many_moves_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryu_vmm.proposals.MARKS", 2)
    w = house(4)
    evacuate(w, parallel=4)
    assert states(w) == {"moving": 2, "waiting": 2}
    assert now(w).why == "too many moves are open at once"
    carry_all(w)
    assert states(w) == {"moved": 4}


def test_two_nves_at_once_do_not_send_vms_to_each_other() -> None:
    w = house(2)
    w.vm(3, "n2")
    evacuate(w)
    w.advance(0.5)
    assert w.nva.state.evacuee(1, "vm1").to == "n3"  # type: ignore[union-attr]
    evacuate(w, "n2")
    assert w.nva.state.evacuee(2, "vm3").to == "n3"  # type: ignore[union-attr]


def test_progress_is_the_operators_whoever_owns_the_vm() -> None:
    w = World(3)
    w.handle(ev.NetworkSubmitted(Network("blue", 100, tenant="acme")))
    w.vm(1, "n1")
    assert w.nva.state.vms["vm1"].tenant == "acme"
    evacuate(w)
    told = {kind: fields for kind, fields in w.reports if "evacuation" in kind or kind == "move.state"}
    assert told["move.state"]["tenant"] == "acme"
    assert told["evacuation.progress"]["vm"] == "vm1"
    assert "tenant" not in told["evacuation.progress"]


def test_interfaces_of_a_vm_leave_together() -> None:
    w = World(3)
    w.network()
    w.network("red", 200)
    interfaces = tuple(
        Interface(f"vm1/eth{n}", "vm1", f"eth{n}", vni, mac(n), (), (), Place("n1", f"tap{n}"))
        for n, vni in ((0, 100), (1, 200))
    )
    w.handle(ev.VmSubmitted("vm1", interfaces))
    for n in (0, 1):
        w.plug("n1", f"tap{n}")
    evacuate(w)
    w.advance(1)
    (move,) = moves(w)
    assert len(move.legs) == 2
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.1)
    for leg in move.legs:
        w.unplug(*leg.src)
        w.plug(*leg.dst)
    w.handle(ev.ActivationReported(move.id))
    w.advance(10)
    assert states(w) == {"moved": 1}
    assert now(w).state is EvacuationState.DONE


def test_vms_that_are_off_leave_an_nve_that_is_dead() -> None:
    w = house(2)
    w.advance(0.1)
    w.disconnect("n1")
    evacuate(w, kind=Kind.COLD)
    w.advance(1)
    for move in moves(w):
        w.plug(*move.legs[0].dst)
        w.handle(ev.ActivationReported(move.id))
    assert homes(w)["n1"] == 0
    w.connect("n1")
    w.advance(10)
    assert now(w).state is EvacuationState.DONE


# --- changed minds ----------------------------------------------------------------------------------------------------
def test_cancelled_moves_that_are_open_go_on() -> None:
    w = house(3)
    evacuate(w, parallel=1)
    w.handle(ev.EvacuationCancelled(1, "maintenance is off"))
    assert now(w).state is EvacuationState.CANCELLING
    assert states(w) == {"left": 2, "moving": 1}
    w.vm(4, "n1")  # it takes VMs again, and they are no business of this evacuation
    carry_all(w)
    assert now(w).state is EvacuationState.CANCELLED
    assert states(w) == {"left": 2, "moved": 1}
    assert w.nva.state.evacuee(1, "vm2").why == "maintenance is off"  # type: ignore[union-attr]
    w.handle(ev.EvacuationCancelled(1))  # again: no harm
    assert now(w).history[-1].why == "maintenance is off"


def test_cancelled_moves_that_are_open_are_not_planned_anew() -> None:
    w = house(2)
    evacuate(w, to=("n2",))
    w.advance(0.5)
    w.handle(ev.EvacuationCancelled(1))
    w.disconnect("n2")
    w.advance(30)
    assert [move.state for move in moves(w)] == [MoveState.PREPARED] * 2
    w.connect("n2")
    carry_all(w)
    assert states(w) == {"moved": 2}


def test_cancelled_moves_are_aborted_if_asked_for_unless_they_are_steered() -> None:
    w = house(4)
    evacuate(w, parallel=2)
    w.advance(0.5)
    carry(w, moves(w)[0])
    w.advance(0.5)
    assert states(w) == {"draining": 1, "moving": 2, "waiting": 1}
    w.handle(ev.EvacuationCancelled(1, abort=True))
    assert states(w) == {"draining": 1, "left": 3}
    w.advance(5)
    assert now(w).state is EvacuationState.CANCELLED
    assert states(w) == {"left": 3, "moved": 1}


def test_resumed_it_tries_what_was_left_failed_and_came() -> None:
    w = house(4)
    evacuate(w, parallel=1, attempts=1, to=("n2",))
    w.advance(0.5)
    w.handle(ev.AbortRequested(moves(w)[0].id, "no"))
    w.advance(0.5)
    w.handle(ev.EvacuationCancelled(1, abort=True))
    assert states(w) == {"failed": 1, "left": 3}
    w.vm(5, "n1")
    w.handle(ev.VmWithdrawn("vm4"))
    w.handle(ev.EvacuationResumed(1, ("n3",), 2))
    assert (now(w).to, now(w).parallel, now(w).ended) == (("n3",), 2, None)
    assert states(w) == {"gone": 1, "moving": 2, "waiting": 2}
    carry_all(w)
    assert now(w).state is EvacuationState.DONE
    assert homes(w) == {"n3": 4}
    with pytest.raises(Conflict, match="evacuation 1 has ended: done"):
        w.handle(ev.EvacuationCancelled(1))


def test_resumed_while_it_runs_it_tries_again_what_failed() -> None:
    w = house(2)
    evacuate(w, attempts=1)
    w.advance(0.5)
    w.handle(ev.AbortRequested(moves(w)[0].id, "no"))
    assert states(w) == {"failed": 1, "moving": 1}
    w.handle(ev.EvacuationResumed(1))
    assert states(w) == {"moving": 2}


def test_only_one_evacuation_of_an_nve_is_open() -> None:
    w = house(2)
    first = evacuate(w)
    w.handle(ev.EvacuationCancelled(first.id, abort=True))
    second = evacuate(w)
    with pytest.raises(Conflict, match=f"n1 is being evacuated .evacuation {second.id}."):
        w.handle(ev.EvacuationResumed(first.id))


def test_a_commit_that_fails_leaves_nothing_behind() -> None:
    w = house(3)
    w.nva.handle(ev.EvacuationRequested("n1"), w.now)
    w.nva.rollback()
    assert w.nva.state.evacuations == {} == w.nva.state.evacuees
    assert moves(w) == []
    assert w.nva.state.evacuating == {}
    w.advance(1)
    evacuate(w)
    carry_all(w)
    assert homes(w)["n1"] == 0


# --- restarts ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("at", range(98))
def test_it_goes_on_after_a_restart_at_any_point(at: int) -> None:
    """The n-th event is the last that the NVA has seen before it is started again."""
    w = house(3, settings=Settings(prepare_deadline=2.0, steer_deadline=1.0))
    evacuate(w, parallel=2, attempts=3)
    left = at

    class Over(Exception):
        pass

    ordinary = w._step

    def step(event: ev.Event) -> object:
        nonlocal left
        if not left:
            raise Over
        left -= not isinstance(event, ev.TimePassed)
        return ordinary(event)

    w._step = step  # type: ignore[method-assign]
    try:
        carry_all(w)
    except Over:
        w._running = False
    w._step = ordinary  # type: ignore[method-assign]
    before = rows(w)
    restart(w)
    assert set(rows(w)) == set(before)
    # A hypervisor in the middle of a move goes on with it.
    for move in moves(w, MoveState.REDIRECTING):
        leg = move.legs[0]
        if leg.dst.port not in w.boxes[leg.dst.nve].ports:
            if leg.src.port in w.boxes[leg.src.nve].ports:
                w.unplug(*leg.src)
            w.plug(*leg.dst)
        n = w.nva.state.interfaces[leg.interface].mac[-1]
        w.send(*leg.dst, frames.build_garp(mac(n), bytes([10, 0, 0, n])))
    carry_all(w, seconds=100)
    assert now(w).state is EvacuationState.DONE
    assert homes(w)["n1"] == 0
    w.advance(100)
    assert moves(w) == []
    assert w.differences() == []


# --- VMs that are off -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", list(Kind))
def test_a_vm_that_is_off_moves_at_once(kind: Kind) -> None:
    w = house(2)
    w.unplug("n1", "tap-vm2")
    evacuate(w, kind=kind, attempts=1)
    (own,) = [move for move in moves(w) if move.vm == "vm2"]
    assert (own.kind, own.state.steered, own.off) == (Kind.COLD, True, True)
    w.advance(5)
    row = w.nva.state.evacuee(1, "vm2")
    assert row is not None and (row.state, row.why) == (EvacueeState.MOVED, "was off: moved cold, and at once")
    assert rows(w)["vm1"] is EvacueeState.MOVING
    carry_all(w)
    assert now(w).state is EvacuationState.DONE and w.differences() == []


@pytest.mark.parametrize("restarted", [False, True])
def test_a_vm_that_is_off_is_served_where_it_is_started(restarted: bool) -> None:
    """What is sent to it meanwhile waits for nobody, and holds nobody up."""
    w = house(1)
    w.vm(9, "n3")
    w.unplug("n1", "tap-vm1")
    evacuate(w, to=("n2",))
    for _ in range(20):
        assert w.send("n3", "tap-vm9", unicast(9, 1)) == []
        w.advance(0.2)
    assert not w.nva.state.held
    assert now(w).state is EvacuationState.DONE
    if restarted:
        restart(w)
    w.plug("n2", "tap-vm1")
    assert w.send("n3", "tap-vm9", unicast(9, 1)) == [("n2", "tap-vm1")]
    assert w.differences() == []


def test_a_vm_with_one_port_left_is_not_off() -> None:
    w = house(1)
    other = Interface("vm1/eth1", "vm1", "eth1", 100, mac(9), (), (), Place("n1", "tap-vm9"))
    w.handle(ev.VmSubmitted("vm1", (w.nva.state.interfaces["vm1/eth0"], other)))
    evacuate(w)
    assert [move.kind for move in moves(w)] == [Kind.HOT]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_vm_that_goes_off_while_its_move_waits_moves_too(restarted: bool) -> None:
    w = house(1)
    w.vm(9, "n3")
    evacuate(w)
    w.advance(0.5)
    w.unplug("n1", "tap-vm1")
    w.send("n3", "tap-vm9", unicast(9, 1))  # it may be on its way
    assert w.nva.state.held
    if restarted:
        restart(w)
        w.advance(w.nva.settings.reconnect_grace)
    w.advance(2.5)
    (own,) = moves(w)
    assert own.off and own.kind is Kind.COLD and not w.nva.state.held
    w.advance(5)
    assert now(w).state is EvacuationState.DONE and w.differences() == []


def test_a_vm_that_goes_off_while_the_nva_is_down_moves_too() -> None:
    w = house(1)
    evacuate(w, attempts=1)
    w.advance(0.5)
    w.kill()
    del w.boxes["n1"].ports["tap-vm1"]
    w.start()
    w.advance(2.5)
    (own,) = moves(w)
    assert own.off and own.kind is Kind.COLD
    w.advance(5)
    assert now(w).state is EvacuationState.DONE and w.differences() == []


@pytest.mark.parametrize("how", ["its port is at the destination", "it comes back"])
def test_a_vm_that_only_leaves_is_waited_for(how: str) -> None:
    w = house(1)
    evacuate(w)
    w.advance(0.5)
    (own,) = moves(w)
    if how == "its port is at the destination":
        w.plug(*own.legs[0].dst)
    w.unplug("n1", "tap-vm1")
    w.advance(1)
    if how == "it comes back":
        w.plug("n1", "tap-vm1")
    w.advance(5)
    assert not w.current(own).state.steered
    carry_all(w)
    assert now(w).state is EvacuationState.DONE
