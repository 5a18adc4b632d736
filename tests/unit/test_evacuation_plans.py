"""Where the VMs of an evacuation go, and what holds at every moment of one, whatever happens."""

from __future__ import annotations

import contextlib
from collections import Counter

from evacuating import carry, evacuate, moves, restart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World, mac

from ryu_vmm import events as ev
from ryu_vmm.errors import VmmError
from ryu_vmm.model import EvacuationState, EvacueeState, MoveState, Place
from ryu_vmm.nva import Settings
from ryu_vmm.wire import frames

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
STATES = EvacueeState


# --- where they go ------------------------------------------------------------------------------------------------
@st.composite
def houses(draw: st.DrawFn) -> tuple[list[int], int, list[tuple[int, ...]], list[tuple[int, int]]]:
    """VMs that n2.. have, how many n1 has, where each of these has attachments, and (NVE, VM whose port is taken)."""
    others = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    count = draw(st.integers(0, 9))
    anywhere = st.lists(st.integers(2, len(others) + 1), max_size=2, unique=True).map(tuple)
    attached = draw(st.lists(st.one_of(st.just(()), anywhere), min_size=count, max_size=count))
    taken = draw(st.lists(st.tuples(st.integers(2, len(others) + 1), st.integers(1, max(1, count))), max_size=4))
    return others, count, attached, taken


def built(plan: tuple[list[int], int, list[tuple[int, ...]], list[tuple[int, int]]]) -> World:
    others, count, attached, taken = plan
    w = World(len(others) + 1)
    w.network()
    for n, elsewhere in enumerate(attached, 1):
        w.vm(n, "n1", attachments=tuple(Place(f"n{k}", f"for-vm{n}") for k in elsewhere))
    number = 100
    for k, there in enumerate(others, 2):
        for _ in range(there):
            number += 1
            w.vm(number, f"n{k}")
    for k, n in dict.fromkeys(taken):
        number += 1
        port = f"for-vm{n}" if n <= count and k in attached[n - 1] else f"tap-vm{n}"
        interface = w.vm(number, f"n{k}", port=False)
        w.handle(ev.VmWithdrawn(interface.vm))
        holder = f"holder{number}"
        mine = type(interface)(f"{holder}/eth0", holder, "eth0", 100, mac(number), (), (), Place(f"n{k}", port))
        with contextlib.suppress(VmmError):  # an attachment of somebody else
            w.handle(ev.VmSubmitted(holder, (mine,)))
    return w


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(houses())
def test_they_are_spread_evenly_without_conflicts_and_always_the_same_way(
    plan: tuple[list[int], int, list[tuple[int, ...]], list[tuple[int, int]]],
) -> None:
    others, count, attached, _ = plan
    w, again = built(plan), built(plan)
    before = {f"n{k}": w.nva.state.guest_count(f"n{k}") for k in range(2, len(others) + 2)}
    for world in (w, again):
        evacuate(world, parallel=max(1, count))
    went = {row.vm: (row.state, row.to, row.why) for row in w.nva.state.evacuees_in(1)}
    assert went == {row.vm: (row.state, row.to, row.why) for row in again.nva.state.evacuees_in(1)}
    assert len(went) == count
    ends = [leg.dst for move in moves(w) for leg in move.legs]
    assert len(set(ends)) == len(ends)
    assert not any(end in w.nva.state.by_place for end in ends)
    loads = Counter(before)
    for n, vm in sorted((int(vm[2:]), vm) for vm in went):
        state, to, why = went[vm]
        port = f"for-vm{n}" if attached[n - 1] else f"tap-vm{n}"
        allowed = [f"n{k}" for k in attached[n - 1]] or list(before)
        free = [name for name in allowed if Place(name, port) not in w.nva.state.by_place]
        if free:
            assert state is STATES.MOVING
            assert loads[str(to)] == min(loads[name] for name in free)
            loads[str(to)] += 1
        else:
            assert (state, to) == (STATES.FAILED, None)
            assert why


# --- what holds at every moment ---------------------------------------------------------------------------------------
number = st.integers(1, 5)
nve = st.sampled_from(["n1", "n2", "n3"])
ACTIONS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.05, 0.3, 3.0, 12.0])),
    st.tuples(st.just("carry"), number),
    st.tuples(st.just("carry"), number),
    st.tuples(st.just("abort"), number),
    st.tuples(st.just("move"), number, nve),
    st.tuples(st.just("show up"), number, nve),
    st.tuples(st.just("remove"), number),
    st.tuples(st.just("register"), number, nve),
    st.tuples(st.just("disconnect"), nve),
    st.tuples(st.just("connect"), nve),
    st.tuples(st.just("begin"), st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.just("cancel"), st.booleans()),
    st.tuples(st.just("resume")),
    st.tuples(st.just("restart")),
)


def act(w: World, action: tuple) -> None:  # type: ignore[type-arg]
    match action:
        case ("wait", seconds):
            w.advance(seconds)
        case ("carry", n):
            ready = [move for move in moves(w, MoveState.PREPARED) if move.vm == f"vm{n}"]
            for move in ready if all(box.connected for box in w.boxes.values()) else ():
                if move.legs[0].src.port in w.boxes[move.source].ports:
                    carry(w, move)
        case ("abort", n):
            for move in moves(w):
                if move.vm == f"vm{n}":
                    w.handle(ev.AbortRequested(move.id))
        case ("move", n, to):
            w.move(f"vm{n}", to)
        case ("show up", n, at):
            for name, box in w.boxes.items():
                if f"tap-vm{n}" in box.ports and name != at:
                    w.unplug(name, f"tap-vm{n}")
            w.plug(at, f"tap-vm{n}")
            w.send(at, f"tap-vm{n}", frames.build_garp(mac(n), bytes([10, 0, 0, n])))
        case ("remove", n):
            w.handle(ev.VmWithdrawn(f"vm{n}"))
        case ("register", n, at):
            if f"vm{n}" not in w.nva.state.vms:
                w.vm(n, at, attachments=tuple(Place(name, f"tap-vm{n}") for name in w.boxes))
        case ("disconnect", name):
            w.disconnect(name)
        case ("connect", name):
            w.connect(name)
        case ("begin", parallel, attempts):
            evacuate(w, parallel=parallel, attempts=attempts)
        case ("cancel", abort):
            w.handle(ev.EvacuationCancelled(max(w.nva.state.evacuations, default=0), abort=abort))
        case ("resume",):
            w.handle(ev.EvacuationResumed(max(w.nva.state.evacuations, default=0)))
        case ("restart",):
            restart(w)


def check(w: World) -> None:
    state = w.nva.state
    for table in ("evacuations", "evacuees"):
        stored = {key: value for (name, key), value in w.store.rows.items() if name == table}
        assert stored == getattr(state, table)
    open_ones = [one for one in state.evacuations.values() if one.state.open]
    assert len({one.nve for one in open_ones}) == len(open_ones)
    assert state.evacuating == {one.nve: one.id for one in open_ones if one.state is EvacuationState.RUNNING}
    for one in open_ones:
        rows = state.evacuees_in(one.id)
        counts = state.evacuee_counts(one.id)
        assert counts[STATES.MOVING] <= one.parallel
        assert any(counts[pending] for pending in (STATES.WAITING, STATES.MOVING, STATES.DRAINING))
        if one.state is EvacuationState.RUNNING:
            assert set(state.guests(one.nve)) <= {row.vm for row in rows}
        else:
            assert not counts[STATES.WAITING]
        for row in rows:
            here = state.is_guest(row.vm, one.nve)
            own = state.moves.get(row.move or 0)
            if row.state in (STATES.WAITING, STATES.FAILED, STATES.LEFT):
                assert here, row
            elif row.state in (STATES.DRAINING, STATES.MOVED, STATES.GONE):
                assert not here, row
            else:
                assert own is not None
                assert own.open
                assert here is not own.state.steered
        mine = [move for move in state.open_moves() if move.requested_by == f"evacuation {one.id}"]
        held = [move for move in mine if not move.state.steered or move.state is MoveState.STEERING]
        assert len(held) <= one.parallel


@settings(max_examples=50, deadline=None, suppress_health_check=SLOW)
@given(st.lists(ACTIONS, max_size=20))
def test_whatever_happens_the_record_is_true_and_all_get_off_in_the_end(actions: list[tuple]) -> None:  # type: ignore[type-arg]
    w = World(3, settings=Settings(prepare_deadline=2.0, prepared_deadline=8.0, steer_deadline=1.0))
    w.network()
    for n in range(1, 5):
        w.vm(n, "n1", attachments=tuple(Place(name, f"tap-vm{n}") for name in w.boxes))
    evacuate(w, parallel=2)
    check(w)
    for action in actions:
        with contextlib.suppress(VmmError):
            act(w, action)
        check(w)
    for name, box in w.boxes.items():
        if not box.connected:
            w.connect(name)
    w.advance(100)
    with contextlib.suppress(VmmError):
        w.handle(ev.EvacuationCancelled(max(w.nva.state.evacuations), abort=True))
    w.advance(100)
    number = evacuate(w, parallel=3).id
    for _ in range(60):
        if not w.nva.state.evacuations[number].state.open:
            break
        w.advance(1)
        for move in moves(w, MoveState.PREPARED):
            leg = move.legs[0]
            if leg.src.port not in w.boxes[leg.src.nve].ports:
                w.plug(*leg.src)
            if w.current(move).state is MoveState.PREPARED:
                carry(w, move)
        check(w)
    assert w.nva.state.evacuations[number].state is EvacuationState.DONE
    assert not list(w.nva.state.guests("n1"))
    w.advance(100)
    assert moves(w) == []
    assert w.differences() == []
