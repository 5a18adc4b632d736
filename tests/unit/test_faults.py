"""What faults do to a move: docs/faults.md, case by case, on emulated switches."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from world import World, arp, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.effects import SendPacket
from ryu_vmm.errors import Conflict, MoveStateConflict
from ryu_vmm.model import Distribution, Kind, Move, MoveState, Place, Policy, Redirect, Session
from ryu_vmm.nva import Settings
from ryu_vmm.pipeline import is_tunnel_to_tunnel
from ryu_vmm.wire import frames

TAP = "tap-vm1"
S = MoveState


def three(**settings: float) -> World:
    """vm1 on n1, vm2 on n2, vm3 on n3."""
    w = World(3, settings=Settings(**settings))  # type: ignore[arg-type]
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    return w


def gratuitous() -> bytes:
    return frames.build_garp(mac(1), ip("10.0.0.1"))


def redirects(w: World) -> list[str]:
    """NVEs that send from tunnel to tunnel."""
    return [n for n, box in w.boxes.items() if any(is_tunnel_to_tunnel(f, Session("", 1)) for f in box.tables.flows)]


def reach(w: World, at: str) -> None:
    """Every other VM reaches vm1 at an NVE, and is reached from there."""
    for n in (2, 3):
        assert w.send(f"n{n}", f"tap-vm{n}", unicast(n, 1)) == [(at, TAP)]
        assert w.send(at, TAP, unicast(1, n)) == [(f"n{n}", f"tap-vm{n}")]


def bring(w: World, state: str) -> Move:
    """A move of vm1 from n1 to n2, brought to a state and left there."""
    move = w.move("vm1", "n2")
    assert w.current(move).state is S.PREPARED
    if state == "prepared":
        return move
    w.plug("n2", TAP)
    if state == "redirecting":
        w.hold_barriers = {"n1"}
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.1)
    if state in ("redirecting", "in-force"):
        assert w.current(move).redirect is (Redirect.IN_FORCE if state == "in-force" else Redirect.SOURCE)
        return move
    if state == "steering":
        w.hold_barriers = {"n3"}
    w.handle(ev.ActivationReported(move.id))
    assert w.current(move).state is (S.STEERING if state == "steering" else S.DRAINING)
    return move


def finish(w: World, move: Move) -> None:
    """Go on with a move as a hypervisor would, to its end."""
    w.hold_barriers = set()
    current = w.current(move)
    if current.state is S.PREPARED:
        w.plug("n2", TAP)
        w.handle(ev.RedirectRequested(move.id))
        w.advance(0.1)
        current = w.current(move)
    if current.state is S.REDIRECTING:
        assert current.redirect is Redirect.IN_FORCE
        w.handle(ev.ActivationReported(move.id))
    w.advance(5)
    assert w.current(move).state is S.SETTLED and w.current(move).ledger.closed
    assert w.differences() == [] and redirects(w) == []
    assert w.nva.state.interfaces["vm1/eth0"].location == Place("n2", TAP)
    reach(w, "n2")


# --- the NVA is killed and started again -----------------------------------------------------------------------------
STATES = ("prepared", "redirecting", "in-force", "steering", "draining")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("order", list(itertools.permutations(("n1", "n2", "n3"))), ids="".join)
def test_a_restarted_nva_goes_on_with_a_move(state: str, order: tuple[str, ...]) -> None:
    w = three()
    move = bring(w, state)
    before = w.current(move)
    w.kill()
    served = "n1" if state == "prepared" else "n2"
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [(served, TAP)]  # fail static, redirect included
    w.hold_barriers = set()
    w.start(order[0])
    for name in order[1:]:
        assert w.send("n3", "tap-vm3", unicast(3, 1)) == [(served, TAP)]
        w.connect(name)
    after = w.current(move)
    assert after.id == before.id and after.history[: len(before.history)] == before.history
    w.advance(0.1)
    finish(w, move)


def test_a_move_that_was_being_prepared_is_prepared_after_a_restart() -> None:
    w = three()
    w.hold_barriers = {"n2"}
    move = w.move("vm1", "n2")
    w.kill()
    w.hold_barriers = set()
    w.start("n1", "n2")
    assert w.current(move).state is S.PREPARING  # n3 may be on its way back
    w.connect("n3")
    assert w.current(move).state is S.PREPARED and len(w.current(move).ledger.probes) == 4
    finish(w, move)


def test_a_restarted_nva_does_not_wait_for_ever_for_a_correspondent() -> None:
    w = three()
    w.hold_barriers = {"n2"}
    move = w.move("vm1", "n2")
    w.kill()
    w.hold_barriers = set()
    w.start("n1", "n2")
    w.advance(10.5)
    assert w.current(move).state is S.PREPARED
    w.connect("n3")
    finish(w, move)


def test_a_restart_does_not_cut_off_what_a_rolled_back_redirect_still_sends() -> None:
    w = three()
    move = bring(w, "in-force")
    w.late = {"n1"}  # the source is yet to hear that it is to serve again
    w.handle(ev.AbortRequested(move.id, "cancelled"))
    w.kill()
    w.late = set()
    w.start("n2")
    # brought back by the destination's tunnel: the source delivers it, as far from its NVA as it is
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", TAP)]
    w.connect("n1")
    w.connect("n3")
    assert redirects(w) == [] and w.differences() == [] and w.current(move).ledger.closed
    reach(w, "n1")


def test_a_vm_that_left_while_the_nva_was_down_is_redirected() -> None:
    w = three()
    move = bring(w, "prepared")
    w.kill()
    del w.boxes["n1"].ports[TAP]
    w.start("n2", "n3", "n1")
    assert w.current(move).state is S.REDIRECTING and redirects(w) == ["n1"]


def test_no_request_is_done_twice_over_a_restart() -> None:
    w = three()
    request = ev.MoveRequested("vm1", "n2", Kind.HOT, request_id="r1")
    move, made = w.handle(request)  # type: ignore[misc]
    w.kill()
    w.start()
    again, made_again = w.handle(request)  # type: ignore[misc]
    assert made and not made_again and again.id == move.id and len(w.nva.state.moves) == 1


def test_pulled_entries_survive_a_restart_of_the_nva() -> None:
    w = World(3)
    w.network(policy=Policy(distribution=Distribution.PULL))
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", TAP)]
    assert ("n3", "vm1/eth0") in w.nva.state.pulled
    w.kill()
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", TAP)]
    w.start()
    assert set(w.nva.state.pulled) == {("n3", "vm1/eth0")} and w.differences() == []


# --- an NVE goes and comes back --------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("nve", ["n1", "n2", "n3"])
@pytest.mark.parametrize("empty", [False, True], ids=["tables kept", "tables lost"])
def test_an_nve_goes_and_comes_back(state: str, nve: str, empty: bool) -> None:
    w = three()
    move = bring(w, state)
    w.hold_barriers = set()
    if empty:
        w.lose_tables(nve)
    else:
        w.disconnect(nve)
    assert w.current(move).open
    w.advance(1)
    w.connect(nve)
    for name in w.boxes:
        w.release(name)
    w.advance(0.2)
    if state == "prepared" and empty and nve in ("n1", "n2"):
        assert [step.state for step in w.current(move).history] == ["preparing", "prepared"] * 2  # proven again
    finish(w, move)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("nve", ["n1", "n2", "n3"])
@pytest.mark.parametrize("empty", [False, True], ids=["tables kept", "tables lost"])
def test_a_ledger_is_not_exact_where_a_switch_has_lost_its_counters(state: str, nve: str, empty: bool) -> None:
    w = three()
    move = bring(w, state)
    w.hold_barriers = set()
    counting = w.current(move).state.steered or w.current(move).redirect is not Redirect.NONE
    if empty:
        w.lose_tables(nve)
    w.disconnect(nve)
    w.connect(nve)
    for name in w.boxes:
        w.release(name)
    w.advance(0.2)
    finish(w, move)
    lost = empty and counting and nve in ("n1", "n2")
    ledger = w.current(move).ledger
    assert (ledger.forgetful, ledger.exact) == ((nve,) if lost else (), not lost)


@pytest.mark.parametrize("nve", ["n1", "n2"])
def test_an_end_with_another_underlay_address_is_proven_again(nve: str) -> None:
    w = three()
    move = bring(w, "prepared")
    box = w.boxes[nve]
    assert box.nve.ipv4 is not None
    box.former.add(box.nve.ipv4)
    box.nve = replace(box.nve, ipv4=ip("192.168.100.77"))
    w.handle(ev.NveSubmitted(box.nve))
    assert [step.state for step in w.current(move).history] == ["preparing", "prepared"] * 2
    finish(w, move)


def test_nothing_is_redirected_to_a_destination_that_goes_after_it_was_ready() -> None:
    """The source would send on what the VM, still running there, is to receive; and nobody could say 'in force'."""
    w = three(ready_guard=0.05)
    move = bring(w, "prepared")
    w.plug("n2", TAP)
    w.handle(ev.RedirectRequested(move.id))
    assert w.current(move).redirect is Redirect.DESTINATION
    w.disconnect("n2")
    w.advance(1)
    assert w.current(move).redirect is Redirect.DESTINATION and redirects(w) == []
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", TAP)]
    w.connect("n2")
    w.advance(0.2)
    assert w.current(move).redirect is Redirect.IN_FORCE
    finish(w, move)


@pytest.mark.parametrize(("state", "ends"), [("prepared", S.FAILED), ("redirecting", S.FAILED), ("in-force", S.FAILED)])
def test_an_end_that_stays_away_costs_a_move_no_more_than_its_deadline(state: str, ends: MoveState) -> None:
    w = three(prepared_deadline=30)
    move = bring(w, state)
    w.hold_barriers = set()
    w.disconnect("n2")
    w.advance(61)
    assert w.current(move).state is ends and "n2 not connected" in str(w.current(move).error)
    w.release("n1")
    assert redirects(w) == []
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", TAP)]
    w.connect("n2")
    w.advance(1)
    assert w.differences() == [] and w.current(move).ledger.closed
    reach(w, "n1")


def test_a_redirect_stays_while_a_correspondent_may_still_send_to_the_source() -> None:
    w = three(drain_cap=10)
    move = bring(w, "in-force")
    w.disconnect("n3")
    w.handle(ev.ActivationReported(move.id))
    w.advance(100)
    assert w.current(move).state is S.DRAINING and w.current(move).unconfirmed == ("n3",)
    assert [f["unconfirmed"] for k, f in w.reports if k == "move.overdue"] == ["n3"]
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", TAP)] and redirects(w) == ["n1"]
    # it holds up nobody: not even the same VM
    onward = w.move("vm1", "n1")
    assert w.current(onward).state is S.PREPARED
    w.handle(ev.AbortRequested(onward.id, "only asking"))
    w.connect("n3")
    w.advance(3)
    assert w.current(move).state is S.SETTLED and redirects(w) == [] and w.differences() == []


def test_a_redirect_for_a_lost_correspondent_ends_when_that_nve_is_withdrawn() -> None:
    w = three(drain_cap=10)
    w.handle(ev.VmWithdrawn("vm3"))
    w.vm(4, "n1")
    w.vm(3, "n3")
    move = bring(w, "in-force")
    w.disconnect("n3")
    w.handle(ev.ActivationReported(move.id))
    w.advance(20)
    assert w.current(move).state is S.DRAINING
    with pytest.raises(Conflict, match="vm3"):
        w.handle(ev.NveWithdrawn("n3"))
    w.handle(ev.VmWithdrawn("vm3"))
    w.handle(ev.NveWithdrawn("n3"))
    w.advance(12)
    assert w.current(move).state is S.SETTLED and redirects(w) == []


def test_a_dead_source_does_not_keep_a_steered_move_open() -> None:
    w = three(drain_cap=10)
    move = bring(w, "in-force")
    w.disconnect("n1")
    w.handle(ev.ActivationReported(move.id))
    w.advance(20)
    assert w.current(move).state is S.SETTLED and w.current(move).unconfirmed == ("n1",)
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", TAP)]
    w.connect("n1")
    assert redirects(w) == [] and w.differences() == [] and w.current(move).ledger.closed


def test_a_vm_that_is_off_moves_away_from_a_dead_edge_which_can_then_be_withdrawn() -> None:
    w = three(drain_cap=10)
    w.disconnect("n1")
    with pytest.raises(Conflict, match="n1 is not connected"):
        w.move("vm1", "n2")
    move = w.move("vm1", "n2", Kind.COLD)
    assert w.current(move).state is S.PREPARED
    w.plug("n2", TAP)
    w.send("n2", TAP, gratuitous())
    reach(w, "n2")
    assert w.current(move).state is S.STEERING and w.current(move).unconfirmed == ("n1",)
    w.handle(ev.NveWithdrawn("n1"))
    assert w.current(move).state is S.SETTLED and w.current(move).ledger.closed
    assert w.nva.state.waits == {} and w.deadlines == {} and list(w.nva.state.members(100)) == ["n2", "n3"]


@pytest.mark.parametrize("also", ["nothing", "departed", "restart", "abort"])
def test_the_source_is_pointed_at_a_destination_only_after_its_guard_time(also: str) -> None:
    w = three(ready_guard=0.5)
    move = w.move("vm1", "n2")
    w.plug("n2", TAP)
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.4)
    assert w.current(move).redirect is Redirect.DESTINATION and redirects(w) == []
    if also == "departed":  # waiting would only lose packets, and the guard of one end is not that of the other
        w.unplug("n1", TAP)
        assert w.current(move).redirect is Redirect.SOURCE and redirects(w) == ["n1"]
    elif also == "restart":
        w.kill()
        w.start()
        assert w.current(move).redirect is Redirect.DESTINATION
    elif also == "abort":
        w.handle(ev.AbortRequested(move.id, "changed my mind"))
    w.advance(0.6)
    if also == "abort":
        assert redirects(w) == [] and w.differences() == [] and set(w.deadlines) == {("sought", "vm1/eth0")}
    else:
        finish(w, move)


# --- changed minds ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["preparing", "prepared", "redirecting", "in-force"])
def test_abort_leaves_the_vm_where_it_is(state: str) -> None:
    w = three()
    if state == "preparing":
        w.hold_barriers = {"n2"}
        move = w.move("vm1", "n2")
    else:
        move = bring(w, state)
    w.handle(ev.AbortRequested(move.id, "changed my mind"))
    w.handle(ev.AbortRequested(move.id, "once more"))  # a retry changes nothing
    for name in w.boxes:
        w.release(name)
    w.advance(1)
    assert w.current(move).state is S.ABORTED and redirects(w) == [] and w.differences() == []
    reach(w, "n1")


@pytest.mark.parametrize("state", ["steering", "draining"])
def test_abort_is_refused_once_the_vm_runs_at_its_destination(state: str) -> None:
    w = three()
    move = bring(w, state)
    with pytest.raises(MoveStateConflict, match="already runs at the destination"):
        w.handle(ev.AbortRequested(move.id, "too late"))
    for name in w.boxes:
        w.release(name)
    finish(w, move)


@pytest.mark.parametrize("gone", [False, True], ids=["port still there", "port gone"])
@pytest.mark.parametrize("sign", ["announcement", "data"])
def test_a_vm_that_dies_at_its_destination_resumes_at_the_source(gone: bool, sign: str) -> None:
    w = three()
    move = bring(w, "draining")
    if gone:
        w.unplug("n2", TAP)
    w.send("n1", TAP, gratuitous() if sign == "announcement" else unicast(1, 3))
    back = w.nva.state.interfaces["vm1/eth0"].location == Place("n1", TAP)
    # data alone could be a last packet from before; with the port at the destination gone it is no longer in doubt
    assert back is (gone or sign == "announcement")
    if back:
        assert w.nva.state.interfaces["vm1/eth0"].epoch == 3
        w.advance(5)
        assert redirects(w) == [] and w.differences() == [] and not list(w.nva.state.open_moves())
        reach(w, "n1")
        assert w.current(move).state is S.SETTLED


def test_a_late_announcement_from_the_source_changes_nothing() -> None:
    """Handed over before the VM was steered, taken in after: its epoch is over (the draft's section 5)."""
    w = three()
    bring(w, "in-force")
    w.late = {"n1"}  # the source's port still has the flows of the old epoch
    w.nva.handle(ev.TimePassed(), w.now)
    w.handle(ev.ActivationReported(1))
    w.send("n1", TAP, gratuitous())
    assert w.nva.state.interfaces["vm1/eth0"].location == Place("n2", TAP)
    w.land("n1")
    w.advance(3)
    assert w.differences() == [] and not list(w.nva.state.open_moves())


def test_the_same_vm_is_not_moved_twice_at_once() -> None:
    w = three()
    first = w.move("vm1", "n2")
    with pytest.raises(Conflict, match=f"move {first.id} is already open for vm1"):
        w.move("vm1", "n3")
    assert w.current(first).state is S.PREPARED


@pytest.mark.parametrize("state", ["preparing", *STATES])
def test_a_vm_deleted_in_mid_move_leaves_nothing_behind(state: str) -> None:
    w = three()
    if state == "preparing":
        w.hold_barriers = {"n2"}
        w.move("vm1", "n2")
    else:
        bring(w, state)
    w.handle(ev.VmWithdrawn("vm1"))
    for name in w.boxes:
        w.release(name)
    w.advance(2)
    assert redirects(w) == [] and w.differences() == [] and not list(w.nva.state.open_moves())
    assert w.nva.state.waits == {} and w.nva.state.held == {} and w.nva.state.probes == {}
    assert w.send("n3", "tap-vm3", arp(3, 2)) == [("n3", "tap-vm3")]


@pytest.mark.parametrize("state", ["preparing", *STATES])
@pytest.mark.parametrize("nve", ["n1", "n2"])
def test_an_nve_that_a_move_needs_is_not_withdrawn(state: str, nve: str) -> None:
    w = three()
    if state == "preparing":
        w.hold_barriers = {"n2"}
        move = w.move("vm1", "n2")
    else:
        move = bring(w, state)
    with pytest.raises(Conflict):
        w.handle(ev.NveWithdrawn("n2"))
    if nve == "n1" and state in ("steering", "draining"):
        w.handle(ev.NveWithdrawn("n1"))  # nothing but the redirect is left of it there
        assert w.current(move).state is S.SETTLED
    else:
        with pytest.raises(Conflict):
            w.handle(ev.NveWithdrawn(nve))
    for name in w.boxes:
        w.release(name)
    assert w.differences() == []


def test_an_older_redirect_finds_the_next_destination_open() -> None:
    """n4 knows nothing of vm1's move to n2 and sends to n1. When vm1 moves on to n3, n1 sends on to n3 at once.

    That must not depend on n3's hearing of it in that moment: it has been ready since the move was prepared.
    """
    w = World(4)
    w.network()
    for n in (1, 2, 3, 4):
        w.vm(n, f"n{n}")
    first = bring(w, "in-force")
    w.disconnect("n4")
    w.handle(ev.ActivationReported(first.id))
    assert w.send("n4", "tap-vm4", unicast(4, 1)) == [("n2", TAP)]
    second = w.move("vm1", "n3")
    w.plug("n3", TAP)
    w.hold_barriers = {"n3"}
    w.handle(ev.RedirectRequested(second.id))
    w.late = {"n3"}
    w.release("n3")
    assert w.current(second).redirect is not Redirect.DESTINATION
    assert w.send("n4", "tap-vm4", unicast(4, 1)) == [("n3", TAP)]
    w.land("n3")
    assert w.send("n4", "tap-vm4", unicast(4, 1)) == [("n3", TAP)]
    w.handle(ev.ActivationReported(second.id))
    w.connect("n4")
    w.advance(8)
    assert w.differences() == [] and redirects(w) == [] and list(w.nva.state.open_moves()) == []


def test_a_vm_that_comes_back_is_no_longer_redirected_from_where_it_comes_to() -> None:
    """n4 knows nothing of vm1's move from n1 to n2. When vm1 goes back, n1 queues before n2 begins to redirect.

    What n1 sent on in that moment would meet the redirect at n2, which sends nothing back to where it came from.
    """
    w = World(4)
    w.network()
    for n in (1, 2, 3, 4):
        w.vm(n, f"n{n}")
    first = bring(w, "in-force")
    w.disconnect("n4")
    w.handle(ev.ActivationReported(first.id))
    w.unplug("n1", TAP)
    assert w.send("n4", "tap-vm4", unicast(4, 1)) == [("n2", TAP)]
    second = w.move("vm1", "n1")
    w.plug("n1", TAP)
    assert w.send("n4", "tap-vm4", unicast(4, 1)) == [("n2", TAP)]
    w.hold_barriers = {"n1"}
    w.handle(ev.RedirectRequested(second.id))
    assert w.current(second).redirect is Redirect.DESTINATION
    assert w.send("n4", "tap-vm4", unicast(4, 1)) == [("n1", TAP)]
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", TAP)]
    w.release("n1")
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == w.send("n4", "tap-vm4", unicast(4, 1)) == [("n1", TAP)]
    w.advance(0.1)
    w.handle(ev.ActivationReported(second.id))
    w.connect("n4")
    w.advance(8)
    assert w.differences() == [] and redirects(w) == [] and list(w.nva.state.open_moves()) == []


def test_an_nve_with_empty_tables_resolves_peers_that_cannot_be_told_to_answer() -> None:
    """Their control channels are away, but they forward: a guest's first packet to them should not have to wait."""
    w = three()
    w.disconnect("n1")
    w.lose_tables("n3")
    w.disconnect("n3")
    w.late = {"n3"}
    w.connect("n3")
    w.land("n3", 1)  # its flows are read
    sent = [effect for effect in w.boxes["n3"].inbox if isinstance(effect, SendPacket)]
    assert len(sent) == 2  # to n1 as well as to n2
    w.land("n3")
    w.connect("n1")
    assert w.differences() == []
