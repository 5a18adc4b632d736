"""Planned hot moves on real switches, under load; the same scenarios as `tools/prove` measures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from proof import planned
from proof.lab import Lab

from topologies.traffic.session import Family

QUIET = 1.0  # the least that the NVA allows, for short tests


@pytest.fixture(scope="module", params=["ipv4", "ipv6"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(underlay=request.param, quiet_time=QUIET) as made:
        yield made


@pytest.mark.parametrize(
    ("number", "inside", "announce"),
    [(n, inside, announce) for n, (inside, announce) in enumerate(planned.itinerary(10, (4, 6)), 1)],
)
def test_nothing_is_lost_or_doubled_and_the_ledger_agrees(
    lab: Lab, number: int, inside: Family, announce: str
) -> None:
    """2,000 datagrams/s in each of four directions; ten moves over each underlay, round four NVEs.

    A correspondent is at the destination, at the source, at both, or at neither.
    """
    source, destination = planned.leg(number)
    # the guest runs on for as long as a busy machine may hold up what is under way to it at its source
    move = planned.one(lab, inside, announce, quiet=0.1)
    assert move.problems() == []
    assert (move.report.source, move.report.destination) == (source, destination)
    assert move.document["trigger"] == "request"
    assert {stale["nve"] for stale in move.ledger["stale"]} == {one.nve for one in move.redirected}
    # the path of every correspondent NVE was proven, both ways, before anything changed
    others = {lab.vm(name).nve.name for name in planned.CORRESPONDENTS} | {source}
    wanted = {f"{a}->{b}" for other in others - {destination} for a, b in ((other, destination), (destination, other))}
    assert move.ledger["probes"].keys() == wanted
