"""The arithmetic behind tools/faults: which losses are the fault's own, and what counts as a problem."""

from __future__ import annotations

import sys
from array import array
from pathlib import Path
from types import SimpleNamespace as Made
from typing import Any

import pytest

for folder in (Path(__file__).parents[2], Path(__file__).parents[2] / "tools"):
    sys.path.insert(0, str(folder))

from benchmarks.report import markdown  # noqa: E402
from faulting import chaos, faults, report, sweep  # noqa: E402
from faulting.__main__ import main  # noqa: E402
from faulting.cells import Cell, aftermath  # noqa: E402
from faulting.losses import UNDER_WAY, Calendar, Losses, Outage, account, sent_at  # noqa: E402
from faulting.requests import Asked  # noqa: E402

from topologies.traffic.arrivals import Arrivals, count  # noqa: E402
from topologies.traffic.session import FlowResult, Outcome  # noqa: E402

MS = 1_000_000


def flow(name: str, lost: range, sent: int = 1000, target: str = "vm1") -> Any:
    """One datagram each millisecond from second 1 on, some of them lost."""
    numbers = [n for n in range(sent) if n not in lost]
    times = [1000 * MS + n * MS for n in numbers]
    arrivals = Arrivals(1, array("Q", numbers), array("Q", times), array("Q", [at + MS for at in times]))
    pair = Made(name=name, rate=1000.0, target=Made(name=target), source=Made(name="other"))
    return FlowResult(name, pair, count(arrivals, sent), arrivals)  # type: ignore[arg-type]


def outcome(*flows: Any) -> Outcome:
    return Outcome(list(flows), 0, 0, [], 0.0, {})


def test_when_a_lost_datagram_was_sent_follows_from_its_neighbors() -> None:
    assert sent_at(flow("a", range(100, 103)), 1.0, 2.0) == [
        (100, pytest.approx(1.1)), (101, pytest.approx(1.101)), (102, pytest.approx(1.102)),
    ]
    first, last = sent_at(flow("a", range(1)), 0.999, 2.0), sent_at(flow("a", range(999, 1000)), 1.0, 2.0)
    assert [number for number, _ in (*first, *last)] == [0, 999]
    assert 0.998 < first[0][1] < 1.001
    assert 1.998 < last[0][1] < 2.0


def test_a_flow_of_which_nothing_arrived_was_sent_in_all_that_time() -> None:
    found = sent_at(flow("a", range(10), sent=10), 1.0, 2.0)
    assert [number for number, _ in found] == list(range(10))
    assert all(1.0 < at < 2.0 for _, at in found)


@pytest.mark.parametrize(
    ("began", "ended", "flows", "own"),
    [
        (1.2, 1.3, {"a"}, 100),  # just the outage
        (1.2 + UNDER_WAY, 1.3, {"a"}, 100),  # what was under way when it began
        (1.2, 1.2495, {"a"}, 50),  # what was lost for longer
        (1.2, 1.3, {"b"}, 0),  # a flow that did not cross what was broken
        (1.4, 1.5, {"a"}, 0),  # another time
    ],
)
def test_a_fault_explains_its_own_losses_and_no_others(began: float, ended: float, flows: set[str], own: int) -> None:
    found = account(outcome(flow("a", range(200, 300))), [Outage("x", began, ended, frozenset(flows))], 0, "vm1")
    assert (found.lost, found.own, found.beyond) == (100, own, 100 - own)
    assert bool(found.where) is (own < 100)
    assert found.exposed == 1000 - sum("a" in flows and began - UNDER_WAY <= 1 + n / 1000 <= ended for n in range(1000))


def test_outages_that_overlap_are_one() -> None:
    outages = [Outage("x", began, ended, frozenset("a")) for began, ended in ((3.0, 4.0), (1.0, 2.0), (1.5, 1.7))]
    calendar = Calendar(outages, "a")
    times = (0.9, 1.0 - UNDER_WAY, 1.9, 2.0, 2.1, 3.5, 4.1)
    assert [calendar.covers(at) for at in times] == [False, True, True, True, False, True, False]
    assert not Calendar(outages, "b").covers(1.6)


def test_a_queue_that_was_thrown_away_explains_no_more_than_it_held_and_only_its_vm() -> None:
    both = outcome(flow("a", range(200, 210)), flow("b", range(200, 210), target="vm2"))
    found = account(both, [], 7, "vm1")
    assert (found.lost, found.thrown, found.beyond) == (20, 7, 13)


def test_traffic_must_flow_in_the_end() -> None:
    ground: Any = Made()
    assert aftermath(ground, outcome(flow("a", range(600))), []) == []
    stuck = aftermath(ground, outcome(flow("a", range(999, 1000))), [])
    assert len(stuck) == 1
    assert "does not flow" in stuck[0]


def cell(**other: Any) -> Cell:
    values: dict[str, Any] = {
        "name": "NVA killed", "state": "prepared", "end": "settled", "losses": Losses(5, 5, 0, 0), "sent": 100,
        "doubled": 0, "outages": [], "left": [], "wrong": [],
    }
    return Cell(**{**values, **other})


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"losses": Losses(5, 4, 0, 1)}, "1 lost beyond"),
        ({"doubled": 2}, "2 doubled"),
        ({"left": [7]}, "left open"),
        ({"wrong": ["nve1 is not in sync"]}, "not in sync"),
    ],
)
def test_every_bar_can_be_missed(other: dict[str, Any], says: str) -> None:
    assert cell().problems() == []
    problems = cell(**other).problems()
    assert len(problems) == 1
    assert says in problems[0]
    table = markdown([report.matrix([cell(), cell(**other)], "matrix", "t")], {})
    assert "1 of 2" in table
    short = markdown([report.overview([cell(), cell(**other)], "overview", "t", ["prepared", "draining"])], {})
    assert "1 of 2" in short
    assert "| 0 / 0 / 0 / 0 |" not in short


def test_a_run_that_caught_no_request_shows_nothing() -> None:
    assert Asked(3, 100, 90, 5, 20, 10).problems() == []
    assert len(Asked(3, 100, 90, 0, 20, 10).problems()) == 1
    assert len(Asked(3, 100, 90, 5, 20, 10, lost=["a"], doubled=["b"]).problems()) == 2


def test_a_seed_is_a_plan() -> None:
    assert chaos.plan(3, 60.0) == chaos.plan(3, 60.0) != chaos.plan(4, 60.0)
    steps = chaos.plan(3, 600.0)
    assert {kind for _, kind, _, _ in steps} == {"kill", "channel", "stall", "restart", "link", "flap"}
    assert all(hasattr(chaos.Breaker, f"_{kind}") for _, kind, _, _ in steps)
    assert [at for at, *_ in steps] == sorted(at for at, *_ in steps)


def test_kills_are_spread_over_a_whole_move() -> None:
    found = sweep.moments(30)
    assert found == sorted(found)
    assert (len(found), found[0]) == (30, 0.0)
    assert sum(at < sweep.DECIDED for at in found) == 24
    assert sweep.DECIDED < found[-1] < sweep.ENDED


def test_faults_have_names_of_their_own() -> None:
    keys = [fault.key for fault in faults.FAULTS]
    assert len(set(keys)) == len(keys) == 21
    assert [fault.role for fault in faults.named("underlay")] == list(faults.ROLES)


@pytest.mark.parametrize("arguments", [["--only", "tea"], ["--states", "asleep"]])
def test_what_does_not_exist_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
