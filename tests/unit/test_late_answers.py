"""Counters, deadlines and refusals that are heard late, or not at all, say no more than when they were said."""

from __future__ import annotations

import pytest
from world import World, unicast

from ryu_vmm import events as ev
from ryu_vmm.effects import Program, ReadFlows
from ryu_vmm.model import Move, MoveState


def draining() -> tuple[World, Move]:
    """vm1 has moved from n1 to n2; n3 has sent ten packets to where it was."""
    w = World(3)
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    for _ in range(10):
        w.send("n3", "tap-vm3", unicast(3, 1))
    w.handle(ev.ActivationReported(move.id))
    w.advance(0.3)
    assert w.current(move).ledger.redirected_packets == 10
    return w, move


@pytest.mark.parametrize("failed", [True, False])
def test_what_was_counted_is_not_counted_again_after_a_reading_without_counts(failed: bool) -> None:
    w, move = draining()
    w.handle(ev.MetersRead(1, f"ledger:{move.id}:redirect@n1", {}, failed))
    w.advance(3)
    ledger = w.current(move).ledger
    assert (ledger.redirected_packets, ledger.arrived_packets, ledger.exact) == (10, 10, True)


@pytest.mark.parametrize(("nve", "exact"), [(1, False), (2, False), (3, True)])
def test_a_ledger_is_not_exact_where_somebody_has_removed_what_counts(nve: int, exact: bool) -> None:
    w, move = draining()
    w.handle(ev.FlowsRead(nve, f"drops:n{nve}", (), lacks=True))
    w.advance(5)
    ledger = w.current(move).ledger
    assert w.current(move).state is MoveState.SETTLED
    assert (ledger.exact, ledger.forgetful) == (exact, () if exact else (f"n{nve}",))


def test_a_redirect_is_not_quiet_by_readings_that_failed() -> None:
    w, move = draining()
    name = f"ledger:{move.id}:redirect@n1"
    carry_out = w._reply
    w._reply = lambda box, event: carry_out(  # type: ignore[method-assign]
        box, ev.MetersRead(1, name, {}, True) if isinstance(event, ev.MetersRead) else event
    )
    w.advance(5)
    assert w.current(move).state is MoveState.DRAINING


def test_answers_that_waited_are_as_old_as_their_questions() -> None:
    """The NVA is held up with readings in its sockets: they say nothing of the time since they were asked for."""
    w, move = draining()
    waiting: list[ev.Event] = []
    carry_out = w._reply

    def reply(box: object, event: ev.Event) -> None:
        if isinstance(event, ev.MetersRead | ev.FlowsRead):
            waiting.append(event)
        else:
            carry_out(box, event)  # type: ignore[arg-type]

    w._reply = reply  # type: ignore[method-assign]
    w.advance(0.3)
    box = w.boxes["n1"]
    late = box.tables.run(unicast(3, 1), 1, 100, w.boxes["n3"].nve.ipv4, box.nve.ipv4, now=w.now)
    w._emit(box, late, 1)  # type: ignore[arg-type]
    w._pump()
    w.now += 5.0
    w._reply = carry_out  # type: ignore[method-assign]
    for event in waiting:
        w.handle(event)
    assert w.current(move).state is MoveState.DRAINING
    w.advance(3)
    ledger = w.current(move).ledger
    assert (w.current(move).state, ledger.redirected_packets, ledger.arrived_packets) == (MoveState.SETTLED, 11, 11)


def test_a_deadline_that_was_put_off_in_the_same_moment_does_not_pass() -> None:
    """Two deadlines are found due at once; the first brings the move on, which gives the second another time."""
    w = World(3)
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    w.cut = {("n3", "n2"), ("n2", "n3")}
    move = w.move("vm1", "n2")
    w.advance(9.0)
    w.disconnect("n3")  # there is nothing more to be proven
    w.now = w.nva.state.clock["deadline", move.id] + 0.05
    w.handle(ev.TimePassed())
    assert w.current(move).state is MoveState.PREPARED


def test_a_refusal_is_no_fault_of_a_move_that_the_nve_does_not_concern() -> None:
    """After a restart generations are given anew: another NVE's program may have the number that a move once needed."""
    w = World(4)
    w.network()
    w.network("red", 200)
    w.vm(1, "n1")
    w.vm(2, "n2")
    move = w.move("vm1", "n2")
    w.advance(1.0)
    w.vm(9, "n4", vni=200)
    w.handle(ev.FlowRefused(4, w.current(move).generation or 0, 5, 1))
    assert w.current(move).state is MoveState.PREPARED


def test_an_answer_that_was_overtaken_is_asked_for_again_and_in_the_end_not_overtaken() -> None:
    w = World(2)
    w.network()
    w.vm(1, "n1")
    w.late.add("n1")
    w.nva._step(w.now, lambda: w.nva._work.read_back("n1"))
    asked = w.nva.state.generations["n1"][0]
    for n in range(2, 5):  # each time a change overtakes the answer
        assert w.nva.state.sessions["n1"].synced
        w.vm(n, "n1")
        outcome = w.nva.handle(ev.FlowsRead(1, "sync", (), asked), w.now)
        (again,) = [effect for effect in outcome.effects if isinstance(effect, ReadFlows)]
        assert not [effect for effect in outcome.effects if isinstance(effect, Program)]
        asked = again.generation
    assert not w.nva.state.sessions["n1"].synced  # nothing is sent until it is answered
    w.late.clear()
    w.land("n1")
    w._carry_out(again)
    w._pump()
    assert w.nva.state.sessions["n1"].synced and not w.differences()
