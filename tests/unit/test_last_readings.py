"""What a ledger says has been read: to the end, by everybody who has counted, and of nothing more than that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from test_late_answers import draining
from world import Box, World, unicast

from ryu_vmm import events as ev
from ryu_vmm.effects import Effect, ReadFlows, ReadMeters, ReadPorts
from ryu_vmm.model import Move, MoveState
from ryu_vmm.tables import Why, why_of

READINGS = ("redirect@n1", "arrived@n2", "port@n2/tap-vm1")


def answers(w: World, change: Callable[[ev.Event], ev.Event | None]) -> Callable[[], None]:
    """Answers to readings for a ledger are changed on their way (None: lost) until what is returned is called."""
    carry_out = w._reply

    def reply(box: Box, event: ev.Event) -> None:
        counted = isinstance(event, ev.MetersRead | ev.FlowsRead | ev.PortsRead) and event.token.startswith("ledger:")
        changed = change(event) if counted else event
        if changed is not None:
            carry_out(box, changed)

    w._reply = reply  # type: ignore[method-assign]

    def as_before() -> None:
        w._reply = carry_out  # type: ignore[method-assign]

    return as_before


def failed(event: ev.Event) -> ev.Event:
    match event:
        case ev.MetersRead():
            return replace(event, meters={}, failed=True)
        case ev.FlowsRead():
            return replace(event, flows=())
        case ev.PortsRead():
            return replace(event, ports={})
    raise AssertionError(event)


def partly(event: ev.Event) -> ev.Event:
    """An answer that lacks what counts for the move, and has something else."""
    match event:
        case ev.MetersRead():
            return replace(event, meters={262_000: (3, 3)})
        case ev.FlowsRead():
            return replace(event, flows=())
    return event


def settled(w: World, move: Move, within: float = 80.0) -> Move:
    w.advance(within, step=0.25)
    ended = w.current(move)
    assert not ended.open and ended.ledger.closed, ended.state
    return ended


@pytest.mark.parametrize("spoil", [failed, partly, lambda event: None], ids=["failed", "partly", "lost"])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("which", ["redirect", "arrived", ""])
def test_counters_that_an_answer_lacks_count_neither_zero_nor_twice(
    spoil: Callable[[ev.Event], ev.Event | None], times: int, which: str
) -> None:
    w, move = draining()
    left = [times] * 4

    def change(event: ev.Event) -> ev.Event | None:
        token: str = event.token  # type: ignore[union-attr]
        if which not in token or ":last:" in token or not left[0]:
            return event
        left[0] -= 1
        return spoil(event)

    answers(w, change)
    w.advance(0.5)
    ledger = settled(w, move).ledger
    assert (ledger.redirected_packets, ledger.arrived_packets, ledger.unaccounted) == (10, 10, 0)


@pytest.mark.parametrize("spoil", [failed, lambda event: None], ids=["failed", "lost"])
def test_a_ledger_whose_meters_could_never_be_read_is_closed_by_the_cap_and_not_exact(
    spoil: Callable[[ev.Event], ev.Event | None],
) -> None:
    w, move = draining()
    answers(w, lambda event: spoil(event) if isinstance(event, ev.MetersRead) else event)
    ledger = settled(w, move).ledger
    assert (ledger.exact, ledger.forgetful, ledger.redirected_packets) == (False, ("n1",), 10)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("spoil", [failed, lambda event: None], ids=["failed", "lost"])
def test_a_ledger_whose_last_reading_has_no_answer_is_not_exact(
    reading: str, spoil: Callable[[ev.Event], ev.Event | None]
) -> None:
    w, move = draining()
    asked: list[str] = []

    def change(event: ev.Event) -> ev.Event | None:
        token: str = event.token  # type: ignore[union-attr]
        if token.endswith(f":last:{reading}"):
            asked.append(token)
            return spoil(event)
        return event

    answers(w, change)
    ended = settled(w, move, 12.0)
    assert asked
    ledger = ended.ledger
    assert not ledger.exact and (ledger.forgetful or ledger.unread)
    assert (ended.state, ledger.redirected_packets) == (MoveState.SETTLED, 10)


def test_what_comes_after_the_reading_that_was_quiet_is_counted_and_the_ledger_not_exact() -> None:
    w, move = draining()
    at = w._at_switch
    more = [7]

    def first(effect: Effect) -> None:
        if isinstance(effect, ReadMeters | ReadFlows | ReadPorts) and ":last:" in effect.token and more:
            box = w.boxes["n1"]
            for _ in range(more.pop()):
                late = box.tables.run(unicast(3, 1), 1, 100, w.boxes["n3"].nve.ipv4, box.nve.ipv4, now=w.now)
                w._emit(box, late, 1)  # type: ignore[arg-type]
        at(effect)

    w._at_switch = first  # type: ignore[method-assign]
    ledger = settled(w, move, 10.0).ledger
    assert (ledger.redirected_packets, ledger.arrived_packets, ledger.exact) == (17, 17, False)


@pytest.mark.parametrize("nve", ["n1", "n2"])
def test_an_edge_that_goes_with_a_last_reading_makes_it_not_exact_and_the_ledger_closes(nve: str) -> None:
    w, move = draining()
    answers(w, lambda event: None if ":last:" in event.token else event)  # type: ignore[union-attr]
    while w.current(move).open:
        w.advance(0.25)
    assert not w.current(move).ledger.closed
    w.disconnect(nve)
    w.advance(1.0)
    w.connect(nve)
    ledger = settled(w, move, 8.0).ledger
    assert not ledger.exact and nve in ledger.forgetful


def test_a_source_that_is_withdrawn_takes_along_what_it_has_counted_last() -> None:
    w, move = draining()
    w.disconnect("n1")
    w.handle(ev.NveWithdrawn("n1"))
    ledger = settled(w, move, 10.0).ledger
    assert (ledger.exact, ledger.forgetful) == (False, ("n1",))


def test_a_restart_before_the_last_readings_were_heard_is_not_exact() -> None:
    w, move = draining()
    answers(w, lambda event: None if ":last:" in event.token else event)  # type: ignore[union-attr]
    while w.current(move).open:
        w.advance(0.25)
    w.kill()
    w.start()
    ledger = settled(w, move, 8.0).ledger
    assert not ledger.exact and "n1" in ledger.forgetful and ledger.redirected_packets == 10


def test_what_an_earlier_life_has_read_stays_counted() -> None:
    w, move = draining()
    w.kill()
    w.start("n1", "n3")  # the destination stays away
    w.advance(80, step=0.25)
    assert not w.current(move).open
    ledger = w.current(move).ledger
    assert (ledger.redirected_packets, ledger.arrived_packets) == (10, 10)
    assert (ledger.exact, ledger.forgetful) == (False, ("n2",))
    w.connect("n2")
    assert settled(w, move, 1.0).ledger.arrived_packets == 10


def test_every_counter_is_read_ahead_of_what_ends_it() -> None:
    w, move = draining()
    order: list[tuple[str, str]] = []
    at = w._at_switch

    def note(effect: Effect) -> None:
        if getattr(effect, "token", "").startswith(f"ledger:{move.id}:last:"):
            order.append(("read", effect.token))  # type: ignore[union-attr]
        for change in getattr(effect, "changes", ()):
            why = why_of(change.flow.cookie)
            if change.op == "delete" and why is not None and why[0] in (Why.REDIRECT, Why.MARK):
                order.append(("end", why[0].name))
        at(effect)

    w._at_switch = note  # type: ignore[method-assign]
    assert settled(w, move, 10.0).ledger.exact
    kinds = [kind for kind, _ in order]
    assert kinds == sorted(kinds, reverse=True) and {"read", "end"} == set(kinds)


def test_a_counter_of_arrivals_that_a_switch_refreshes_late_is_no_sign_of_more() -> None:
    """Open vSwitch refreshes flow counters about twice a second, and later where it has much to do."""
    def late(event: ev.Event) -> ev.Event:
        if isinstance(event, ev.FlowsRead) and ":last:" not in event.token:
            stats = tuple(each._replace(packets=each.packets - 2, bytes=each.bytes - 2) for each in event.flows)
            return replace(event, flows=stats)
        return event

    w = World(3)
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    move = w.move("vm1", "n2")
    answers(w, late)
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    for _ in range(10):
        w.send("n3", "tap-vm3", unicast(3, 1))
    w.handle(ev.ActivationReported(move.id))
    ledger = settled(w, move, 10.0).ledger
    assert (ledger.redirected_packets, ledger.arrived_packets, ledger.exact) == (10, 10, True)
