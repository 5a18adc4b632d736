"""What waits for the NVA: in order for each port, fair between ports and NVEs, and never too much."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from ryu_vmm.fairness import OVERHEAD, Backlog

Put = tuple[int, list[tuple[int, int]]]


def message(lane: int, number: int, size: int = 8) -> bytes:
    return bytes([lane]) + number.to_bytes(4, "big") + bytes(size)


def backlog(lane_cap: int = 1 << 14, nve_cap: int = 1 << 16, cap: int = 1 << 18) -> Backlog:
    return Backlog(lambda found: found[:1], lambda lane: lane_cap, nve_cap, cap)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 4), st.lists(st.integers(0, 5), max_size=30), st.integers(0, 900)),
        st.tuples(st.just("take"), st.integers(1, 20)),
        st.tuples(st.just("drain"), st.integers(1, 4), st.integers(0, 5)),
        st.tuples(st.just("drop"), st.integers(1, 4)),
    ),
    max_size=60,
)


@given(STEPS, st.sampled_from([(1 << 12, 1 << 13, 1 << 14), (1 << 14, 1 << 16, 1 << 18), (500, 900, 1500)]))
def test_order_is_kept_bounds_hold_and_nothing_is_lost_untold(steps: list[tuple], caps: tuple[int, int, int]) -> None:
    lane_cap, nve_cap, cap = caps
    queue = backlog(*caps)
    waits: dict[tuple[int, int], list[bytes]] = defaultdict(list)  # what ought to be there
    number = 0
    for step in steps:
        match step:
            case ("put", nve, lanes, size):
                given_now = []
                for lane in lanes:
                    number += 1
                    given_now.append(message(lane, number, size))
                shed = queue.put(nve, given_now)
                assert sum(shed.values()) <= len(given_now)
                told = Counter({lane[0]: count for lane, count in shed.items()})
                offered = Counter(lanes)
                assert not told - offered
                # All of one size: once there is no room for one of a lane there is none for those after it.
                for lane in set(lanes):
                    mine = [one for one in given_now if one[0] == lane]
                    waits[nve, lane] += mine[: offered[lane] - told[lane]]
            case ("take", most):
                if not queue:
                    continue
                nve = queue.next
                taken = queue.take(most)
                assert 1 <= len(taken) <= most
                for one in taken:
                    assert waits[nve, one[0]].pop(0) == one
            case ("drain", nve, lane):
                assert queue.drain(nve, bytes([lane])) == waits.pop((nve, lane), [])
            case ("drop", nve):
                gone = [key for key in waits if key[0] == nve]
                assert queue.drop(nve) == sum(len(waits.pop(key)) for key in gone)
        sizes = {key: sum(len(one) + OVERHEAD for one in found) for key, found in waits.items()}
        assert queue.size == sum(sizes.values()) <= cap
        assert all(size <= lane_cap for size in sizes.values())
        for nve in range(1, 5):
            assert sum(size for key, size in sizes.items() if key[0] == nve) <= nve_cap
            assert queue.waiting(nve) == sum(len(found) for key, found in waits.items() if key[0] == nve)
        assert bool(queue) == any(waits.values())


@given(
    st.dictionaries(
        st.integers(1, 6), st.dictionaries(st.integers(0, 6), st.integers(1, 40), min_size=1), min_size=1
    ),
    st.integers(1, 8),
)
def test_whoever_has_something_to_say_is_heard_in_its_turn(counts: dict[int, dict[int, int]], most: int) -> None:
    """While they have something waiting, NVEs get as many turns and lanes as many packets as each other."""
    queue = backlog(1 << 20, 1 << 22, 1 << 24)
    for nve, lanes in counts.items():
        mine = [message(lane, n) for lane, count in lanes.items() for n in range(count)]  # one lane after the other
        assert queue.put(nve, mine) == {}
    turns: Counter[int] = Counter()
    heard: Counter[tuple[int, int]] = Counter()
    while queue:
        nve = queue.next
        for one in queue.take(most):
            heard[nve, one[0]] += 1
        turns[nve] += 1
        waiting = [other for other in counts if queue.waiting(other)]
        for other in waiting:
            assert turns[nve] <= turns[other] + 1
        still = {lane for lane, count in counts[nve].items() if heard[nve, lane] < count}
        for lane in still:
            for rival in counts[nve]:
                assert heard[nve, rival] <= heard[nve, lane] + 1
    assert heard == {(nve, lane): count for nve, lanes in counts.items() for lane, count in lanes.items()}


def test_one_that_floods_leaves_room_for_the_next() -> None:
    queue = backlog(lane_cap=1 << 20, nve_cap=1 << 16, cap=1 << 17)
    flood = [message(1, n) for n in range(5000)]
    shed = queue.put(7, flood)
    assert shed[b"\1"] > 4000
    assert queue.size <= (1 << 16) // 2  # of its NVE's, and of all
    for lane in range(2, 12):
        assert queue.put(7, [message(lane, 0)]) == {}
    assert queue.put(8, [message(1, n) for n in range(50)]) == {}
    # and it is not in anybody's way
    assert queue.next == 7
    assert {one[0] for one in queue.take(11)} == set(range(1, 12))
    assert queue.next == 8


def test_many_that_flood_leave_room_too() -> None:
    queue = backlog(lane_cap=1 << 20, nve_cap=1 << 16, cap=1 << 17)
    for nve in range(20):
        for lane in range(20):
            queue.put(nve, [message(lane, n) for n in range(100)])
    assert queue.size < 1 << 17
    assert queue.put(99, [message(0, 0)]) == {}
