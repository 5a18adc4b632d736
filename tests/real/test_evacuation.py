"""An NVE is evacuated under traffic on real switches; the same scenario as `tools/prove` measures with more VMs."""

from __future__ import annotations

import pytest
from proof import evacuation

VMS = 12


@pytest.mark.parametrize(("underlay", "parallel", "kills"), [("ipv4", 4, 0), ("ipv6", 3, 2)])
def test_every_vm_leaves_and_nothing_is_lost(underlay: str, parallel: int, kills: int) -> None:
    """Every VM receives, sends, and talks to another that moves as well; once the NVA is killed twice meanwhile."""
    with evacuation.lab(underlay, VMS, quiet_time=1.0) as lab:
        found = evacuation.run(lab, evacuation.prepare(lab), parallel, kills)
    assert found.problems() == []
    assert found.report.document["total"] == VMS
    assert found.spread == {"nve2": VMS // 2, "nve3": VMS // 2}
    assert found.report.most_at_once > 1
    assert len(found.report.moves) == VMS
    assert len(found.away) == kills
