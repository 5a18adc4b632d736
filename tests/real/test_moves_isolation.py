"""Two networks with the same addresses, MAC addresses included, on real switches: neither ever sees the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from proof import isolation, streams
from proof.lab import Lab

#: Seconds without a frame after which a guest pauses: a busy machine holds up what is under way to it for some time.
PATIENT = 0.1


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(nves=3, vms=6, vns=2, overlap=True, attached={"vn1", "vn2"}, quiet_time=1.0) as made:
        yield made


def test_a_leak_is_seen(lab: Lab) -> None:
    """What the tests below rest on: with one flow that lets packets across, detector and receivers both tell."""
    seen, foreign = isolation.leak(lab)
    assert foreign
    assert {"single", "group", "question"} <= seen.foreign_kinds.keys()
    assert {text.partition(":")[0] for text in seen.foreign} == {"vm2"}
    assert lab.verify() == []


def test_planned_moves_of_both_at_once(lab: Lab) -> None:
    """VMs with the same MAC and addresses move at the same time to different NVEs: nothing crosses, nothing is lost."""
    found = isolation.run(lab, [(True, "garp-request"), (True, "na"), (True, "rarp")], quiet=PATIENT)
    assert found.problems() == []
    assert [flow.name for flow in found.traffic.flows if flow.count.lost or flow.count.duplicated] == []
    assert found.lost == 0  # of broadcasts and multicasts
    assert found.doubled <= found.broadcasts // 50  # the destination joins a network before the source leaves it


def test_unplanned_moves_of_both_at_once(lab: Lab) -> None:
    found = isolation.run(lab, [(False, "garp-reply"), (False, "rarp")])
    assert found.problems() == []
    assert found.traffic.duplicated == 0


def test_connections_survive_ten_moves_in_a_row(lab: Lab) -> None:
    """Checksummed TCP streams and idle connections of a VM whose twin in the other network stands still."""
    survived = streams.run(lab, "vm1", ("vm3", "vm5"), quiet=PATIENT)
    assert survived.problems() == []
    assert len(survived.moves) == streams.MOVES
    assert survived.stall < 1.0
