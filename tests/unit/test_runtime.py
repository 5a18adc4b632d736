"""The core with its surroundings: order and progress while the store, a switch or a handler fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from world import ip, mac

from ryu_vmm import events as ev
from ryu_vmm import runtime as runtime_module
from ryu_vmm.admission import heard_about
from ryu_vmm.effects import Program, ReadFlows
from ryu_vmm.errors import Conflict, NoAnswer, NotFound, StoreUnavailable
from ryu_vmm.eventlog import EventLog
from ryu_vmm.flows import Flow, FlowStats
from ryu_vmm.model import Interface, MoveState, Network, Nve, Place, Redirect
from ryu_vmm.nva import Settings
from ryu_vmm.runtime import Runtime
from ryu_vmm.store import MemoryStore
from ryu_vmm.tables import Drop, Why, cookie
from ryu_vmm.wire import frames


class Fragile(MemoryStore):
    """A store that may be full. ``asked``, ``synced``: how often it was to commit records, and to reach the disk."""

    full = False
    asked = 0
    synced = 0
    durable = False

    def commit(self, records, durable=True):  # type: ignore[no-untyped-def]
        records = list(records)
        if records:
            self.asked += 1
        if self.full and records:
            raise StoreUnavailable("the disk is full")
        super().commit(records, durable)
        if records:
            self.durable = durable

    def sync(self) -> None:
        if self.full:
            raise StoreUnavailable("the disk is full")
        self.synced += 1


@pytest.fixture
def store() -> Fragile:
    return Fragile()


@pytest.fixture
def run(store: Fragile) -> Iterator[Runtime]:
    """vm1 on n1, prepared to go to n2; no time passes unless told."""
    r = Runtime(store, Settings(redirect_guard=0.0))
    for n in (1, 2):
        r.handle(ev.NveSubmitted(Nve(f"n{n}", n, ip(f"192.168.100.{n}"))))
    r.handle(ev.NetworkSubmitted(Network("blue", 100)))
    r.handle(ev.VmSubmitted("vm1", (Interface("vm1/eth0", "vm1", "eth0", 100, mac(1), (), (), Place("n1", "tap1")),)))
    for n in (1, 2):
        ports = (ev.PortInfo(1, "vxlan", True), ev.PortInfo(5, "tap1", True))
        r.event(ev.NveConnected(n, ports[: 3 - n]))
        r.event(ev.FlowsRead(n, "sync", ()))
        r.event(ev.BarrierReplied(n, r.state.generation))
    yield r
    r.stop()


def prepared(r: Runtime) -> int:
    """A move that is being prepared: no probe comes back."""
    move, _ = r.handle(ev.MoveRequested("vm1", "n2"))
    for n in (1, 2):
        r.event(ev.BarrierReplied(n, r.state.generation))
    return int(move.id)


def timers(r: Runtime) -> threading.Thread:
    thread = threading.Thread(target=r.run_timers)
    thread.start()
    return thread


def until(what, seconds: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.005)


def test_facts_keep_their_order_while_the_store_fails(run: Runtime, store: Fragile) -> None:
    prepared(run)
    store.full = True
    run.event(ev.PortChanged(1, ev.PortInfo(5, "tap1", True), gone=True))  # begins a redirect: a record
    run.event(ev.PortChanged(1, ev.PortInfo(6, "tap1", True)))  # no record of its own
    assert run.health()["retries"] == 2
    store.full = False
    time.sleep(runtime_module.RETRY_AFTER)
    run.event(ev.TimePassed())
    assert run.health()["retries"] == 0
    port = run.state.port_at(Place("n1", "tap1"))
    assert port is not None and port.number == 6


def test_what_a_hypervisor_relies_on_is_on_the_disk_before_it_is_told(run: Runtime, store: Fragile) -> None:
    move = prepared(run)
    run.event(ev.PortChanged(1, ev.PortInfo(5, "tap1", True), gone=True))
    assert run.state.moves[move].redirect is Redirect.SOURCE and not store.durable  # a fact, which may wait
    for n in (1, 2):
        run.event(ev.BarrierReplied(n, run.state.generation))
    run.event(ev.TimePassed())
    assert run.state.moves[move].redirect is Redirect.IN_FORCE and store.durable


def test_a_full_store_is_neither_asked_all_the_time_nor_piled_up_against(run: Runtime, store: Fragile) -> None:
    move = prepared(run)
    store.full = True
    run.event(ev.PortChanged(1, ev.PortInfo(5, "tap1", True), gone=True))
    run.state.clock[("deadline", move)] = run.now()  # due, and to be recorded
    store.asked, began = 0, time.monotonic()
    thread = timers(run)
    until(lambda: store.asked >= 5)
    asked = store.asked
    assert asked <= (time.monotonic() - began) / runtime_module.RETRY_AFTER + 2
    assert run.health()["retries"] == 1
    store.full = False
    until(lambda: run.state.moves[move].state is MoveState.REDIRECTING and not run.health()["retries"])
    run.stop()
    thread.join()


def test_packets_do_not_pile_up_without_end(run: Runtime, store: Fragile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "PACKETS_WAITING", 3)
    prepared(run)
    store.full = True
    run.event(ev.PortChanged(1, ev.PortInfo(5, "tap1", True), gone=True))
    for _ in range(5):
        run.event(ev.PacketSeen(1, 5, 0, b""))
    run.event(ev.NveDisconnected(2))
    assert run.health()["retries"] == 4 and run.counters["drop.store-unavailable"] == 3


def test_an_error_in_a_handler_stops_neither_facts_nor_time(run: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    move = prepared(run)
    with monkeypatch.context() as broken:
        broken.setattr(run.nva.moves, "guard_over", lambda _: 1 / 0)
        run.nva.state.clock[("guard", move)] = run.now()
        began = time.monotonic()
        thread = timers(run)
        until(lambda: run.counters.get("event.failed", 0))
        assert thread.is_alive()
        run.event(ev.PortChanged(1, ev.PortInfo(7, "other", True)))
        assert ("n1", "other") in run.state.ports
        time.sleep(0.2)
        failed = run.counters["event.failed"]
        assert 1 <= failed <= 1 + (time.monotonic() - began)  # once a second, not again and again
    until(lambda: ("guard", move) not in run.state.clock)
    run.stop()
    thread.join()


def test_an_effect_that_fails_does_not_take_the_others_with_it(run: Runtime) -> None:
    done: list[int] = []

    def execute(effect: object) -> None:
        if isinstance(effect, Program):
            done.append(effect.dpid)
            raise ValueError("not to be encoded")

    run.execute = execute
    run.handle(ev.MoveRequested("vm1", "n2"))
    assert sorted(done) == [1, 2] and run.counters["effect.failed"] == 2


def test_an_error_in_the_store_undoes_the_step(run: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_store", None)
    with pytest.raises(AttributeError):
        run.handle(ev.MoveRequested("vm1", "n2"))
    assert run.state.moves == {}
    monkeypatch.undo()


def test_questions_that_fail_leave_nothing_behind(run: Runtime) -> None:
    asked: list[object] = []
    run.execute = lambda effect: asked.append(effect) if isinstance(effect, ReadFlows) else None
    with pytest.raises(NotFound):
        run.verify("n77")
    with pytest.raises(Conflict):
        run.flows("n77")
    for ask in (run.verify, run.flows):
        with pytest.raises(NoAnswer):
            ask("n1", timeout=0.0)
    assert len(asked) == 2 and run._answers == {}
    run.event(ev.NveDisconnected(1))
    assert run.nva.switches._asked_at == {}


def test_a_move_goes_on_once_the_store_works_again(run: Runtime, store: Fragile) -> None:
    move = prepared(run)
    run.event(ev.PortChanged(2, ev.PortInfo(5, "tap1", True)))
    store.full = True
    with pytest.raises(StoreUnavailable):
        run.handle(ev.ActivationReported(move))
    assert run.state.moves[move].state is not MoveState.STEERING
    store.full = False
    run.handle(ev.ActivationReported(move))
    assert run.state.moves[move].state is MoveState.STEERING


@pytest.mark.parametrize(
    ("after", "limit", "wanted"),
    [(0, 10, [3, 4, 5]), (3, 10, [4, 5]), (4, 10, [5]), (5, 10, []), (9, 10, []), (-4, 2, [3, 4]), (2, 1, [3])],
)
def test_the_event_log_counts_on(after: int, limit: int, wanted: list[int]) -> None:
    log = EventLog(size=3)
    for n in range(1, 6):
        log.append(float(n), "x", {})
    assert [entry[0] for entry in log.since(after, limit)] == wanted
    assert (log.first, log.last) == (3, 5)
    assert EventLog().since(0) == [] and EventLog().first == 1


def test_a_promise_that_needs_no_record_waits_for_the_facts_that_it_is_made_of(run: Runtime, store: Fragile) -> None:
    """The VM has been heard at its destination, of which the disk may not know, when its hypervisor says so too."""
    number = prepared(run)
    run.event(ev.PortChanged(2, ev.PortInfo(5, "tap1", True)))
    run.event(ev.PortChanged(1, ev.PortInfo(4, "tap1", True), gone=True))
    life = cookie(Why.LIFE, heard_about(run.state.interfaces["vm1/eth0"]))
    run.event(ev.PacketSeen(2, 5, life, frames.build_rarp_request(mac(1))))
    assert run.state.moves[number].state is MoveState.STEERING
    assert store.synced == 0
    store.full = True
    with pytest.raises(StoreUnavailable):
        run.handle(ev.ActivationReported(number))
    store.full = False
    assert run.handle(ev.ActivationReported(number)).state is MoveState.STEERING
    assert store.synced == 1
    run.handle(ev.ActivationReported(number))
    assert store.synced == 1  # all that there was is there


def test_what_an_nve_has_dropped_goes_with_it(run: Runtime) -> None:
    run.handle(ev.NveSubmitted(Nve("n9", 9, ip("192.168.100.9"))))
    run.event(ev.NveConnected(9, ()))
    flow = Flow(0, 0, (), cookie=cookie(Why.DROP, Drop.UNKNOWN_PORT))
    told = ev.FlowsRead(9, "drops:n9", (FlowStats(flow, 5, 500, 1.0),))
    run.event(told)
    assert run.drops["n9"] == {"unknown-port": 5} and run.counters["drop.unknown-port"] == 5
    run.handle(ev.NveWithdrawn("n9"))
    run.poll_drops()
    run._answered("drops:n9", told.flows)  # an answer that comes late
    assert "n9" not in run.drops and "drop.unknown-port" not in run.counters
