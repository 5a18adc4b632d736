"""Histories of layer 3 in which everything changes: upheaval.py says what, and what holds all the same."""

from __future__ import annotations

import pytest
from reading import forgotten
from upheaval import Upheaval, lived


@pytest.mark.parametrize("seed", range(6))
def test_whatever_changes_flows_follow_and_in_the_end_everybody_reaches_everybody(seed: int) -> None:
    world = lived(seed, 45)
    assert not forgotten(world.w.nva.state)


def test_a_history_is_determined_by_its_number() -> None:
    one, other = (Upheaval(7), Upheaval(7))
    for world in (one, other):
        for _ in range(20):
            world.act()
    assert one.acts == other.acts
    assert one.w.nva.state.interfaces == other.w.nva.state.interfaces
