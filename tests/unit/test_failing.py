"""What raises what it should not: it is undone, told and made good, and holds up nothing else."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from test_runtime import Fragile, prepared, run, store, timers, until
from world import World, ip, mac

from ryu_vmm import events as ev
from ryu_vmm import failing
from ryu_vmm.effects import Disconnect, Effect, Failed, Program, Publish, ReadFlows
from ryu_vmm.failing import Failures
from ryu_vmm.model import Interface, MoveState, Network, Nve, Place
from ryu_vmm.nva import Settings
from ryu_vmm.runtime import Runtime
from ryu_vmm.timers import AGAIN, AGAIN_MOST

__all__ = ["run", "store"]


def raising(*_: Any) -> Any:
    raise KeyError("a fault of ours")


def told(world: World, kind: str) -> list[dict[str, object]]:
    return [fields for what, fields in world.reports if what == kind]


# --- timers -----------------------------------------------------------------------------------------------------------
def two_moves() -> World:
    """Moves of vm1 and vm2 that nobody redirects, and whose deadlines come at the same time."""
    w = World(3, settings=Settings(prepared_deadline=5.0))
    w.network()
    for n in (1, 2):
        w.vm(n, "n1")
        w.move(f"vm{n}", "n2")
    assert all(move.state is MoveState.PREPARED for move in w.nva.state.open_moves())
    return w


def test_a_timer_that_raises_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    w = two_moves()
    expired = w.nva.moves.expired
    monkeypatch.setattr(w.nva.moves, "expired", lambda n, detail="": raising() if n == 1 else expired(n, detail))
    w.advance(6)
    assert [w.nva.state.moves[n].state for n in (1, 2)] == [MoveState.PREPARED, MoveState.FAILED]
    assert w.nva.counters["timer.failed"] == 1
    assert [fields["about"] for fields in told(w, "nva.failed")] == ["1"]
    w.advance(300, step=0.25)
    assert 5 <= w.nva.counters["timer.failed"] <= 12, "ever later"
    pauses = w.nva.state.clock["deadline", 1] - w.now
    assert pauses <= AGAIN_MOST
    monkeypatch.undo()
    w.advance(AGAIN_MOST + 1, step=0.25)
    assert w.nva.state.moves[1].state is MoveState.FAILED, "it comes again"
    assert w.differences() == []


def test_what_a_timer_did_before_it_raised_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    w = two_moves()
    expired = w.nva.moves.expired

    def half(number: int, detail: str = "") -> None:
        expired(number, detail)
        if number == 1:
            raising()

    monkeypatch.setattr(w.nva.moves, "expired", half)
    w.advance(6)
    assert [w.nva.state.moves[n].state for n in (1, 2)] == [MoveState.PREPARED, MoveState.FAILED]
    assert [f["move"] for f in told(w, "move.state") if f["state"] == MoveState.FAILED] == [2]
    assert w.differences() == []


def test_what_a_timer_brings_about_may_raise_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later in the step, where all of them are settled together."""
    w = two_moves()
    release = w.nva.packets.release

    def settling() -> None:
        if w.nva.state.moves[1].state is MoveState.FAILED:
            raising()
        release()

    monkeypatch.setattr(w.nva.packets, "release", settling)
    w.advance(10)
    assert [w.nva.state.moves[n].state for n in (1, 2)] == [MoveState.PREPARED, MoveState.FAILED]
    monkeypatch.undo()
    w.advance(AGAIN * 8)
    assert w.nva.state.moves[1].state is MoveState.FAILED
    assert w.differences() == []


@pytest.mark.parametrize("kind", ["resync", "refusals", "mute", "silence", "freeze", "left", "sought", "hops", "tell"])
def test_every_kind_of_timer_may(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    w = two_moves()
    monkeypatch.setitem(w.nva._timers._handlers, kind, raising)  # type: ignore[index]
    w.nva.state.put("clock", (kind, "n1"), w.now + 1)
    w.advance(6)
    assert all(move.state is MoveState.FAILED for move in w.nva.state.moves.values())
    assert w.nva.counters["timer.failed"] >= 2


# --- facts ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def asked(run: Runtime) -> list[Effect]:
    done: list[Effect] = []
    run.execute = done.append
    return done


@pytest.mark.parametrize(
    "fact",
    [
        ev.PortChanged(1, ev.PortInfo(9, "tap9", True)),
        ev.BarrierReplied(1, 1),
        ev.FlowsRead(1, "sync", ()),
        ev.NveDisconnected(1),
        ev.NveConnected(1, ()),
        ev.FlowRefused(1, 1, 5, 1),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_a_fact_that_is_lost_is_told_and_its_switch_read_again(
    run: Runtime, asked: list[Effect], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fact: Any
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setitem(run.nva._handlers, type(fact), raising)
    run.event(fact)
    assert run.counters["event.failed"] == 1
    assert caplog.records[-1].exc_info is not None, "with its traceback"
    assert type(fact).__name__ in str(run.health()["failed"])
    last = run.log.since(0, 10_000)[-1]
    assert last[2] == "nva.failed"
    assert (last[3]["nve"], last[3]["what"]) == ("n1", type(fact).__name__)
    assert Disconnect(1) in asked
    asked.clear()
    monkeypatch.undo()
    run.event(ev.NveDisconnected(1))
    run.event(ev.NveConnected(1, (ev.PortInfo(1, "vxlan", True), ev.PortInfo(9, "tap9", True))))
    assert run.state.port_at(Place("n1", "tap9")) is not None, "what was lost is known by now"


@pytest.mark.parametrize("kind", [Program, ReadFlows])
def test_a_switch_that_could_not_be_told_is_read_again(
    run: Runtime, asked: list[Effect], monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    run.execute = lambda effect: raising() if isinstance(effect, kind) else asked.append(effect)
    run.event(ev.NveDisconnected(1))
    run.event(ev.NveConnected(1, (ev.PortInfo(1, "vxlan", True),)))
    if kind is Program:
        run.event(ev.FlowsRead(1, "sync", ()))
    assert run.counters["effect.failed"] >= 1
    assert [effect.why for effect in asked if isinstance(effect, Disconnect)] == ["lost"]


def test_a_name_that_could_not_be_handed_over_is_later(store: Fragile, monkeypatch: pytest.MonkeyPatch) -> None:
    r = Runtime(store, publish=raising)
    r._try(Publish("web.example.org", ()))
    assert r.failures.to_ask(ev.NameFailed("web.example.org", (), "", None)) is None, "it was only just"
    now = failing.time.monotonic()
    monkeypatch.setattr(failing.time, "monotonic", lambda: now + 2)
    assert r.failures.due() == ["web.example.org"]
    r.stop()


def test_what_cannot_be_told_at_the_start_keeps_nobody_away(store: Fragile) -> None:
    r = Runtime(store)
    r.handle(ev.NveSubmitted(Nve("n1", 1, ip("192.168.100.1"))))
    r.handle(ev.NetworkSubmitted(Network("blue", 100)))
    where = Place("n1", "tap1")
    named = Interface("vm1/eth0", "vm1", "eth0", 100, mac(1), (ip("10.0.0.1"),), (), where, dns="web.example.org")
    r.handle(ev.VmSubmitted("vm1", (named,)))
    again = Runtime(store, publish=raising)  # no name server has confirmed it
    assert again.counters["effect.failed"] == 2, "once more, and then later"
    again.stop()


def test_an_answer_of_a_name_server_that_is_lost_is_asked_for_again(
    store: Fragile, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[tuple[str, tuple[bytes, ...]]] = []
    r = Runtime(store, publish=lambda name, addresses: published.append((name, addresses)))
    r.handle(ev.NveSubmitted(Nve("n1", 1, ip("192.168.100.1"))))
    r.handle(ev.NetworkSubmitted(Network("blue", 100)))
    where = Place("n1", "tap1")
    named = Interface("vm1/eth0", "vm1", "eth0", 100, mac(1), (ip("10.0.0.1"),), (), where, dns="web.example.org")
    r.handle(ev.VmSubmitted("vm1", (named,)))
    assert published == [("web.example.org", (ip("10.0.0.1"),))]
    monkeypatch.setitem(r.nva._handlers, ev.NamePublished, raising)
    r.event(ev.NamePublished(*published[0]))
    assert len(published) == 2, "it is, at once"
    r.event(ev.NamePublished(*published[0]))
    assert len(published) == 2, "and then later"
    monkeypatch.undo()
    r.event(ev.NamePublished(*published[0]))
    assert r.state.names["web.example.org"].told == (ip("10.0.0.1"),)
    r.stop()


def test_a_packet_that_raises_costs_its_switch_nothing(
    run: Runtime, asked: list[Effect], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(run.nva._handlers, ev.PacketSeen, raising)
    run.event(ev.PacketSeen(1, 5, 0, b"x"))
    assert run.counters["event.failed"] == 1
    assert asked == []
    run.event(ev.PortChanged(1, ev.PortInfo(7, "other", True)))
    assert ("n1", "other") in run.state.ports


def test_a_switch_whose_facts_always_raise_is_asked_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(failing.time, "monotonic", lambda: now[0])
    failures, asked = Failures(lambda _: None), 0
    for _ in range(3000):
        now[0] += 0.1
        asked += failures.to_ask(ev.NveConnected(1, ())) is not None
        asked += len(failures.due())
    assert 8 <= asked <= 20, "over five minutes"
    assert failures.to_ask(ev.NveConnected(2, ())) == 2
    now[0] += 1000
    assert failures.due() == [1], "what was lost last is asked for, too"
    assert failures.to_ask(ev.NveConnected(1, ())) == 1


def test_what_failed_is_no_trouble_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(failing.time, "monotonic", lambda: now[0])
    counted: list[str] = []
    failures = Failures(counted.append)
    failures.note("a thing", ValueError("x"))
    assert failures.recent == "a thing: ValueError('x')"
    assert counted == ["event.failed"]
    now[0] += failing.SHOWN + 1
    assert failures.recent is None


def test_a_timer_of_a_running_nva_is_logged(
    run: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, store: Fragile
) -> None:
    move = prepared(run)
    monkeypatch.setattr(run.nva.moves, "expired", raising)
    run.state.clock[("deadline", move)] = run.now()
    thread = timers(run)
    until(lambda: run.counters.get("event.failed", 0))
    assert run.counters["timer.failed"] >= 1
    assert any(record.exc_info for record in caplog.records)
    assert any(entry[2] == "nva.failed" for entry in run.log.since(0, 10_000))
    run.stop()
    thread.join()


def test_the_error_goes_to_the_log_and_not_into_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    w = two_moves()
    monkeypatch.setattr(w.nva.moves, "expired", raising)
    w.now += 6
    outcome = w.nva.handle(ev.TimePassed(), w.now)
    assert sum(isinstance(effect, Failed) for effect in outcome.effects) == 2
