"""What the stateful test (test_core_stateful.py) found, each as the shortest story that showed it."""

from __future__ import annotations

from town import NVES, tap
from turmoil import Turmoil

from ryu_vmm import events as ev
from ryu_vmm.model import Distribution, MoveState, Policy


def redirecting(w: Turmoil, vm: int, to: str) -> int:
    """A move of a VM that has one guest, which its hypervisor has asked to redirect; its number."""
    move = w.move(f"vm{vm}", to)
    w.plug(to, tap(vm))
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.1)
    return move.id


def test_nothing_ticks_for_a_move_that_ended_before_its_nves_were_back() -> None:
    w = Turmoil()
    number = redirecting(w, 1, "n4")
    w.restart()
    w.handle(ev.AbortRequested(number))
    assert w.nva.state.moves[number].state is MoveState.ABORTED
    assert [kind for kind, key in w.nva.state.clock if key == number] == []
    w.calm()
    w.watch.at_rest()


def test_a_question_that_comes_before_its_nve_has_been_read_back_is_answered() -> None:
    """In a pull network, after a restart: packets are brought to whom they are for."""
    w = Turmoil(Policy(distribution=Distribution.PULL))
    w.late = {"n2"}
    w.restart()
    for name in NVES:
        w.connect(name)
    assert not w.nva.state.sessions["n2"].synced
    w.send("n2", tap(1), w.frame(1, 2))
    w.land("n2")
    assert [(nve, port) for nve, port, _ in w.out] == [("n3", tap(2))]
    w.calm()
    w.watch.at_rest()


def test_nothing_ticks_for_an_evacuation_that_has_ended() -> None:
    w = Turmoil()
    w.handle(ev.EvacuationRequested("n3", parallel=1))
    w.restart()
    w.handle(ev.EvacuationCancelled(1, abort=True))
    assert [key for key in w.nva.state.clock if key[0] == "evacuation"] == []


def test_packets_that_wait_are_brought_back_to_a_source_that_cannot_be_told() -> None:
    """The destination was ready, the source away, when the move was aborted: the source delivers by its tables."""
    w = Turmoil()
    move = w.move("vm1", "n3")  # where guest 2 is; the port for guest 1 is not there yet
    w.disconnect("n2")
    w.handle(ev.RedirectRequested(move.id))
    w.send("n3", tap(2), w.frame(2, 1))
    assert w.out == [] and w.nva.state.held
    w.handle(ev.AbortRequested(move.id))
    assert [(nve, port) for nve, port, _ in w.out] == [("n2", tap(1))]
    assert w.nva.state.moves[move.id].ledger.held_packets == 1
    assert w.nva.state.moves[move.id].ledger.held_lost == 0 and not w.nva.state.held
    w.calm()
    w.watch.at_rest()


def test_what_a_rolled_back_move_still_brings_follows_its_sources_address() -> None:
    w = Turmoil()
    number = redirecting(w, 1, "n4")
    w.hold_barriers = {"n2"}
    w.handle(ev.AbortRequested(number))
    assert number in w.nva.state.returning
    w.readdress("n2")
    w.watch.check()
    w.calm()
    w.watch.at_rest()


def test_guests_beside_the_former_port_reach_the_vm_however_long_their_edge_is_on_its_own() -> None:
    """The source of a move, out of the NVA's reach, goes on redirecting its own guests' packets."""
    w = Turmoil()
    number = redirecting(w, 1, "n4")  # guest 3 stays behind
    w.unplug("n2", tap(1))
    w.disconnect("n2")
    w.handle(ev.ActivationReported(number))
    w.skip(600)
    assert w.nva.state.moves[number].state is MoveState.SETTLED
    assert w.send("n2", tap(3), w.frame(3, 1)) == [("n4", tap(1))]
    w.restart()
    for name in ("n1", "n3", "n4"):
        w.connect(name)
    w.skip(600)
    assert w.send("n2", tap(3), w.frame(3, 1)) == [("n4", tap(1))]
    w.connect("n2")
    w.watch.check()
    assert not w.nva.state.returning
    assert w.send("n2", tap(3), w.frame(3, 1)) == [("n4", tap(1))]
    w.calm()
    w.watch.at_rest()
