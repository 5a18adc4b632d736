"""Evacuations over REST."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from live import LiveRuntime
from rest_lab import client, fields, lab, problem, vm

from ryu_vmm import events as ev
from ryu_vmm.model import MoveState
from ryu_vmm.rest.documents import EvacuationDocument

__all__ = ["client", "lab"]


@pytest.fixture
def house(lab: httpx.Client, runtime: LiveRuntime) -> httpx.Client:
    """Six VMs on nve1: vm1 and vm11 to vm15; vm2 on nve2, vm3 on nve3."""
    for n in range(11, 16):
        runtime.plug("nve1", f"tap-vm{n}")
        assert lab.post("/v1/vms", json=vm(n)).status_code == 201
    return lab


def begin(lab: httpx.Client, **more: Any) -> dict[str, Any]:
    response = lab.post("/v1/evacuations", json={"nve": "nve1", **more})
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/v1/evacuations/{document['id']}"
    EvacuationDocument.model_validate_json(response.content)
    return document


def carry(runtime: LiveRuntime, number: int) -> None:
    """Carry out what the evacuation opens, as hypervisors do, until it has ended."""

    def over() -> bool:
        for move in list(runtime.state.open_moves()):
            if move.state is MoveState.PREPARED:
                leg = move.legs[0]
                runtime.handle(ev.RedirectRequested(move.id))
                runtime.unplug(*leg.src)
                runtime.plug(*leg.dst)
                runtime.handle(ev.ActivationReported(move.id))
        return not runtime.state.evacuations[number].state.open

    runtime.until(over, 20)


def test_from_request_to_end(house: httpx.Client, runtime: LiveRuntime) -> None:
    document = begin(house, parallel=2, requested_by="maintenance")
    assert {key: document[key] for key in ("state", "open", "to", "kind", "parallel", "attempts", "ended")} == {
        "state": "running", "open": True, "to": [], "kind": "hot", "parallel": 2, "attempts": 3, "ended": None,
    }  # fmt: skip
    assert (document["total"], document["counts"]["moving"], document["counts"]["waiting"]) == (6, 2, 4)
    first = document["vms"][0]
    assert first.pop("move_state") in ("preparing", "prepared")
    assert (first.pop("waiting_for"), first.pop("waiting_on")) == ("redirect", ["nve1"])
    assert first.pop("until") > document["created"]
    assert first == {"vm": "vm1", "state": "moving", "to": "nve2", "move": 1, "attempts": 1, "why": ""}
    assert house.get("/v1/nves/nve1").json()["evacuation"] == 1
    figures = house.get("/metrics").text
    assert "vmm_evacuations_open 1.0" in figures
    assert 'vmm_evacuees{state="waiting"} 4.0' in figures
    runtime.until(lambda: len(house.get("/v1/moves?state=prepared").json()["items"]) == 2)
    carry(runtime, document["id"])
    document = house.get("/v1/evacuations/1").json()
    assert (document["state"], document["open"]) == ("done", False)
    assert document["counts"]["moved"] == document["total"] == 6
    assert document["ended"] > document["created"]
    assert [step["state"] for step in document["history"]] == ["running", "done"]
    assert house.get("/v1/vms?nve=nve1").json()["items"] == []
    assert house.get("/v1/nves/nve1").json()["evacuation"] is None
    assert 'vmm_evacuees{state="waiting"} 0.0' in house.get("/metrics").text
    told = house.get("/v1/events?follow=0&kind=evacuation.").json()["items"]
    assert (told[0]["kind"], told[-1]["kind"]) == ("evacuation.started", "evacuation.ended")
    assert told[-1]["fields"]["counts"] == {"moved": 6}
    states = [e["fields"]["state"] for e in told if e["fields"].get("vm") == "vm11"]
    assert states == ["moving", "draining", "moved"]


def test_the_list(house: httpx.Client) -> None:
    begin(house)
    house.post("/v1/evacuations/1/cancel", json={"abort": True, "why": "no"})
    begin(house)
    page = house.get("/v1/evacuations?limit=1")
    assert [item["id"] for item in page.json()["items"]] == [2]
    assert "vms" not in page.json()["items"][0]
    following = page.json()["next"]
    assert [item["id"] for item in house.get(f"/v1/evacuations?after={following}").json()["items"]] == [1]
    for query, found in (("state=open", [2]), ("state=closed", [1]), ("state=cancelled", [1]), ("nve=nve2", [])):
        assert [item["id"] for item in house.get(f"/v1/evacuations?{query}").json()["items"]] == found, query
    assert fields(house.get("/v1/evacuations?after=x")) == ["after"]


@pytest.mark.parametrize("by", ["body", "header"])
def test_the_same_request_twice(house: httpx.Client, by: str) -> None:
    body = {"nve": "nve1", **({"request_id": "r"} if by == "body" else {})}
    headers = {"Idempotency-Key": '"r"'} if by == "header" else {}
    first = house.post("/v1/evacuations", json=body, headers=headers)
    again = house.post("/v1/evacuations", json=body, headers=headers)
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"] == 1
    other = house.post("/v1/evacuations", json={**body, "nve": "nve2"}, headers=headers)
    assert "was used for another evacuation" in problem(other, 409, "conflict")["detail"]


def test_cancelled_and_resumed(house: httpx.Client, runtime: LiveRuntime) -> None:
    begin(house, parallel=1)
    cancelled = house.post("/v1/evacuations/1/cancel", json={"why": "not today", "abort": True})
    assert cancelled.status_code == 202
    assert cancelled.json()["state"] == "cancelled"
    assert cancelled.json()["vms"][1]["why"] == "not today"
    assert house.post("/v1/evacuations/1/cancel").status_code == 202
    resumed = house.post("/v1/evacuations/1/resume", json={"to": ["nve3"], "parallel": 8})
    assert (resumed.json()["state"], resumed.json()["to"], resumed.json()["parallel"]) == ("running", ["nve3"], 8)
    carry(runtime, 1)
    assert house.get("/v1/evacuations/1").json()["state"] == "done"
    assert len(house.get("/v1/vms?nve=nve3").json()["items"]) == 7
    problem(house.post("/v1/evacuations/1/cancel"), 409, "conflict")


def test_what_is_refused(house: httpx.Client) -> None:
    def posted(**body: Any) -> httpx.Response:
        return house.post("/v1/evacuations", json={"nve": "nve1", **body})

    problem(posted(nve="nve9"), 404, "not-found")
    problem(posted(to=["nve9"]), 404, "not-found")
    assert fields(posted(to=["nve1"])) == ["to[0]"]
    assert fields(posted(to=["nve2", "nve2"])) == ["to"]
    assert fields(posted(parallel=0)) == ["parallel"]
    assert fields(posted(parallel=257)) == ["parallel"]
    assert fields(posted(parallel="4")) == ["parallel"]
    assert fields(posted(attempts=0)) == ["attempts"]
    assert fields(posted(kind="warm")) == ["kind"]
    assert fields(posted(surprise=1)) == ["surprise"]
    for path in ("", "/cancel", "/resume"):
        for number in ("7", "x", "9" * 30):
            method = "POST" if path else "GET"
            problem(house.request(method, f"/v1/evacuations/{number}{path}"), 404, "not-found")
    begin(house)
    problem(posted(), 409, "conflict")
    refused = house.post("/v1/moves", json={"vm": "vm2", "to": "nve1"})
    assert problem(refused, 409, "conflict")["details"] == {"nve": "nve1", "evacuation": 1}
    problem(house.post("/v1/vms", json=vm(20)), 409, "conflict")
    assert fields(house.post("/v1/evacuations/1/cancel", json={"abort": 1})) == ["abort"]
    assert fields(house.post("/v1/evacuations/1/resume", json={"to": ["nve1"]})) == ["to[0]"]
