"""An NVE is evacuated under traffic on real switches; the same scenario as `tools/prove` measures with more VMs."""

from __future__ import annotations

from typing import Any

import pytest
from proof import evacuation
from proof.lab import Lab

from topologies.hypervisors import Hypervisors

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


class Lost:
    """The control channel of an NVE goes once a third of the VMs are off, and returns once all others are.

    It goes while moves to it are prepared and none is on its way: a guest that runs there already could be announced
    to nobody, and one that is asked to pause would wait for the deadline.
    """

    def __init__(self, lab: Lab, nve: str) -> None:
        self._nve = lab.net.nve(nve)
        self.times: list[str] = []

    def __call__(self, document: dict[str, Any], carriers: Hypervisors) -> None:
        counts, name = document["counts"], self._nve.name
        if not self.times and 3 * (counts["moved"] + counts["draining"]) >= document["total"]:
            carriers.held.add(name)
            begun = carriers.begun_to(name)
            states = {row["move"]: row["move_state"] for row in document["vms"] if row["to"] == name}
            there = all(states.get(number) in ("draining", "settled") for number in begun)
            if there and any(state == "prepared" for number, state in states.items() if number not in begun):
                self._nve.cut()
                self.times.append("lost")
                carriers.held.discard(name)
        elif self.times == ["lost"] and not counts["moving"] and not counts["waiting"]:
            self._nve.restore()
            self.times.append("back")


def test_a_destination_that_is_lost_is_left_out_and_nothing_is_lost_with_it() -> None:
    """Its guests and its tables stay; VMs go elsewhere, and redirects wait for what it still sends to the source."""
    with evacuation.lab("ipv4", VMS, redirect_deadline=4.0, reconnect_grace=3.0) as lab:
        lost = Lost(lab, "nve3")
        found = evacuation.run(lab, evacuation.prepare(lab), 4, also=lost)
    assert found.lost() == []
    assert lost.times == ["lost", "back"]
    assert found.report.document["state"] == "done"
    assert found.left == 0
    assert found.spread["nve2"] > VMS // 2
    assert sum(found.spread.values()) == VMS
