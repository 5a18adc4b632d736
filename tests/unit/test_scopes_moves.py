"""What an agent's token is good for in a move: its two ends see where the other one is, and nobody else sees it."""

from __future__ import annotations

import pytest
from auth_lab import Town, town
from rest_lab import problem

__all__ = ["town"]


def opened(town: Town) -> int:
    """A move of a-vm1 from nve1 to nve2, asked for by the host it is on."""
    answer = town.of("host1").post("/v1/moves", json={"vm": "a-vm1", "to": "nve2"})
    assert answer.status_code == 202, answer.text
    return int(answer.json()["id"])


def test_the_ends_of_a_move_see_where_the_other_is(town: Town) -> None:
    number = opened(town)
    found = town.of("host1").get(f"/v1/moves/{number}").json()
    assert found["underlay"] == {
        "nve1": {"ipv4": "192.168.100.1", "ipv6": "fd00:100::1"},
        "nve2": {"ipv4": "192.168.100.2", "ipv6": "fd00:100::2"},
    }
    problem(town.of("host1").get("/v1/nves/nve2"), 404)  # of the NVE itself it sees no more than before
    assert [nve["name"] for nve in town.of("host1").get("/v1/nves").json()["items"]] == ["nve1"]


def test_nobody_else_sees_it(town: Town) -> None:
    number = opened(town)
    third = town.of("host3")
    assert third.get("/v1/moves").json()["items"] == []
    problem(third.get(f"/v1/moves/{number}"), 404)
    for hook in ("redirect", "activate", "abort"):
        problem(third.post(f"/v1/moves/{number}/{hook}"), 404)
    assert town.of("acme").get(f"/v1/moves/{number}").json()["underlay"] == {}  # whose VM it is, not whose underlay
    problem(town.of("beta").get(f"/v1/moves/{number}"), 404)


@pytest.mark.parametrize("to", ["nve1", "nve3"])
def test_a_token_fetches_no_vm_from_elsewhere(town: Town, to: str) -> None:
    answer = town.of("host3").post("/v1/moves", json={"vm": "a-vm1", "to": to})
    assert answer.status_code in (404, 409)
    assert town.of("ops").get("/v1/moves").json()["items"] == []
