"""A choice of what `tools/faults` does: something breaks at some state of a move, with traffic running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulting import cells, faults, minds, twists
from faulting.faults import SHORT, Fault
from faulting.ground import Ground
from faulting.losses import Outage
from faulting.staged import Staged

from topologies import NVE

FAULTS = {fault.key: fault for fault in (*faults.FAULTS, *minds.AT_EVERY_STATE)}
STORIES = {story.key: story for story in twists.TWISTS}


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """A move drains for longer than it takes, also on a busy machine, until a fault has begun."""
    with Ground(quiet_time=3.0) as made:
        yield made


@pytest.fixture(scope="module")
def short() -> Iterator[Ground]:
    """Deadlines pass quickly."""
    with Ground(**SHORT) as made:
        yield made


def proven(cell: cells.Cell, fault: Fault | None = None) -> None:
    """Nothing is wrong, and the fault did what it was meant to do."""
    assert cell.problems() == []
    assert cell.sent > 1000
    if fault is not None and fault.drops:
        assert cell.losses.own > 0


@pytest.mark.parametrize("state", ["preparing", "prepared", "redirecting", "steering", "draining"])
def test_the_nva_is_killed(ground: Ground, state: str) -> None:
    proven(cells.run(ground, FAULTS["NVA-killed"], state))


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("channel-dropped-destination", "prepared"),
        ("NVE-restarted-empty-destination", "steering"),
        ("underlay-cut-destination", "redirecting"),
        ("abort", "redirecting"),
        ("port-flaps", "prepared"),
        ("VM-dies-resumes-at-the-source", "draining"),
    ],
)
def test_something_breaks(ground: Ground, name: str, state: str) -> None:
    proven(cells.run(ground, FAULTS[name], state), FAULTS[name])


@pytest.mark.parametrize("name", ["A-to-B-to-C-before-B-settled", "NVA-dead-while-the-VM-switches-over"])
def test_moves_are_overtaken(ground: Ground, name: str) -> None:
    proven(twists.run(ground, STORIES[name]))


def test_what_is_wrong_is_seen(ground: Ground) -> None:
    """The instruments themselves: a cut that nobody owns up to, and flows that are gone behind the NVA's back."""
    hit: list[NVE] = []

    def strike(ground: Ground, staged: Staged, nve: NVE | None) -> list[Outage]:
        assert nve is not None
        hit.append(nve)
        FAULTS["underlay-cut-correspondent"].strike(ground, staged, nve)
        nve.ofctl("del-flows", "table=50")
        return []

    cell = cells.run(ground, Fault("sabotage", "correspondent", strike), "prepared")
    assert cell.losses.own == cell.losses.thrown == 0
    assert cell.losses.beyond > 100
    assert len(cell.wrong) == 1
    assert f"{hit[0].name} is not in sync" in cell.wrong[0]
    assert len(cell.problems()) == 2
    hit[0].cut("close")
    ground.await_nve(hit[0].name, False)
    hit[0].restore()
    ground.await_nve(hit[0].name, True)
    ground.await_all_synced()
    assert ground.verify() == []  # read back and put right


def test_a_correspondent_is_away_beyond_every_deadline(short: Ground) -> None:
    """It goes on sending to the source: the redirect stays, the move stays open, and both end when it is back."""
    proven(twists.run(short, STORIES["correspondent-away-beyond-every-deadline"]))
