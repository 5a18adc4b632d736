"""A switch that cannot make neighbor advertisements, around a real NVA: it says so once, and all goes on."""

from __future__ import annotations

from collections.abc import Callable

from nva_lab import Nva, nva, overlay

__all__ = ["nva"]  # a fixture

GUESTS = [overlay.Guest(1, 1), overlay.Guest(2, 2)]


def test_the_nva_is_told_which_flows_are_refused_and_leaves_them_out(nva: Callable[..., Nva]) -> None:
    lab = nva(resync_pause=0.1)
    lab.register(2, GUESTS)
    emulation = lab.emulation()
    able, unable = (overlay.switch(n, GUESTS, eager=True) for n in (1, 2))
    emulation.call("add", switches=[able, {**unable, "nd": False}])
    lab.event("nve.answers", nve="nve2", answers=["arp"])
    lab.synchronised(1, 2)
    assert [lab.get(f"/nves/nve{n}")["answers"] for n in (1, 2)] == [["arp", "nd"], ["arp"]]
    assert lab.get("/nves/nve2")["fault"] is None
    assert all(lab.post(f"/nves/nve{n}/verify")["in_sync"] for n in (1, 2))
    assert len(lab.events("nve.answers")) == 1
    asked = GUESTS[1].asks_for(GUESTS[0]).hex()
    before = emulation.call("count")["delivered"]
    lab.manager.end()
    emulation.call("inject", dpid=2, port=GUESTS[1].port, frame=asked)
    lab.wait(lambda: emulation.call("count")["delivered"] > before, "an answer without any NVA")
