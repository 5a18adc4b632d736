"""Requests and restarts while the NVA is killed, and everything at random: small editions of `tools/faults`."""

from __future__ import annotations

from faulting import chaos, many, requests
from faulting.ground import Ground
from proof.lab import Lab


def test_no_acknowledged_request_is_lost_or_done_twice() -> None:
    with Lab(nves=3, vms=3) as lab:
        assert requests.run(lab, kills=1, seed=1).problems() == []


def test_the_nva_is_restarted_with_many_vms() -> None:
    found = many.run(vms=60, runs=1, say=lambda text: None)
    assert found.problems() == []
    assert found.vms == 60
    assert found.traffic.sent > 1000


def test_chaos() -> None:
    with Ground(movers=chaos.MOVERS, attached=True, **chaos.TIMES) as ground:
        found = chaos.run(ground, seed=44, seconds=13.0, say=lambda text: None, least=2)
    assert found.problems() == []
    assert sum(found.done.values()) >= 3
    assert found.moves.get("settled", 0) >= 2
