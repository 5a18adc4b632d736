"""Forged frames on real switches, from guests' ports and from the underlay: none is believed, all are counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from proof import forgery
from proof.lab import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with forgery.laboratory() as made:
        yield made


def test_nothing_forged_is_believed(lab: Lab) -> None:
    """Every kind there is, beside traffic, and a move that waits for its VM; then more than a port may send."""
    found = forgery.run(lab, flood=20_000)
    assert found.problems() == []
    assert sum(row.tried for row in found.rows) > 20_500
    assert min(row.counted for row in found.rows) > 0
