"""Moves over REST, from the request to the ledger, and what explains where packets go."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from live import LiveRuntime
from rest_lab import client, lab, problem, vm
from world import mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.model import MoveState
from ryu_vmm.wire import frames

__all__ = ["client", "lab"]


def start(lab: httpx.Client, **more: Any) -> dict[str, Any]:
    response = lab.post("/v1/moves", json={"vm": "vm1", "to": "nve2", **more})
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/v1/moves/{document['id']}"
    return document


def state_of(lab: httpx.Client, number: int) -> str:
    state: str = lab.get(f"/v1/moves/{number}").json()["state"]
    return state


def test_a_planned_move_from_request_to_ledger(lab: httpx.Client, runtime: LiveRuntime) -> None:
    move = start(lab, requested_by="test", ports={"eth0": "tap-new"})
    number = move["id"]
    assert (move["kind"], move["trigger"], move["requested_by"]) == ("hot", "request", "test")
    assert move["legs"][0]["destination"] == {"nve": "nve2", "port": "tap-new"}
    runtime.until(lambda: state_of(lab, number) == "prepared")
    runtime.plug("nve2", "tap-new")
    assert lab.get("/v1/vms/vm1").json()["move"] == number

    redirecting = lab.post(f"/v1/moves/{number}/redirect")
    assert (redirecting.status_code, redirecting.headers["location"]) == (202, f"/v1/moves/{number}")
    runtime.until(lambda: lab.get(f"/v1/moves/{number}").json()["redirect_in_force"])
    runtime.send("nve3", "tap-vm3", unicast(3, 1))

    assert lab.post(f"/v1/moves/{number}/activate").status_code == 202
    interface = lab.get("/v1/vms/vm1").json()["interfaces"][0]
    assert (interface["nve"], interface["port"], interface["epoch"]) == ("nve2", "tap-new", 2)
    problem(lab.post(f"/v1/moves/{number}/abort"), 409, "move-state")
    runtime.until(lambda: state_of(lab, number) == "settled")

    document = lab.get(f"/v1/moves/{number}").json()
    assert not document["open"]
    assert document["generation"]["desired"] == document["generation"]["realised"] > 0
    states = [step["state"] for step in document["history"]]
    assert states == ["preparing", "prepared", "redirecting", "steering", "draining", "settled"]
    times = [step["at"] for step in document["history"]]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", s["time"]) for s in document["history"])
    spans = [step["seconds"] for step in document["history"]]
    assert spans[-1] is None
    assert sum(spans[:-1]) == pytest.approx(times[-1] - times[0], abs=1e-4)
    ledger = document["ledger"]
    assert ledger["closed"]
    assert ledger["exact"]
    assert (ledger["redirected"]["packets"], ledger["arrived"]["packets"], ledger["unaccounted"]) == (1, 1, 0)
    assert set(ledger["barriers"]) == {"nve1", "nve2", "nve3"}
    assert "nve3->nve2" in ledger["probes"]
    assert lab.get("/v1/vms/vm1").json()["move"] is None
    for n in (1, 2, 3):
        verified = lab.post(f"/v1/nves/nve{n}/verify").json()
        assert verified["in_sync"], verified
        assert verified["tunnel_to_tunnel"] == []


def test_realised_lags_until_the_barrier_replies(lab: httpx.Client, runtime: LiveRuntime) -> None:
    number = start(lab)["id"]
    runtime.until(lambda: state_of(lab, number) == "prepared")
    runtime.plug("nve2", "tap-vm1")
    runtime.hold.add("nve3")
    lab.post(f"/v1/moves/{number}/activate")
    generation = lab.get(f"/v1/moves/{number}").json()["generation"]
    assert generation["realised"] < generation["desired"]
    assert generation["nves"]["nve3"]["realised"] < generation["nves"]["nve3"]["programmed"]
    assert state_of(lab, number) == "steering"
    programmed = runtime.state.generations["nve3"][0]
    runtime.event(ev.BarrierReplied(3, programmed))
    generation = lab.get(f"/v1/moves/{number}").json()["generation"]
    assert generation["realised"] == generation["desired"]


def test_the_same_request_is_the_same_move(lab: httpx.Client) -> None:
    first = start(lab, request_id="r-1")
    assert start(lab, request_id="r-1")["id"] == first["id"]
    body = {"vm": "vm1", "to": "nve2"}
    for key in ("r-1", '"r-1"'):
        again = lab.post("/v1/moves", json=body, headers={"Idempotency-Key": key})
        assert (again.status_code, again.headers["location"]) == (202, f"/v1/moves/{first['id']}")
    assert len(lab.get("/v1/moves").json()["items"]) == 1
    other = {"vm": "vm2", "to": "nve3", "request_id": "r-1"}
    problem(lab.post("/v1/moves", json=other), 409, "conflict")
    both = lab.post("/v1/moves", json={**body, "request_id": "r-2"}, headers={"Idempotency-Key": "r-1"})
    assert problem(both, 422)["errors"][0]["field"] == "request_id"
    bad = lab.post("/v1/moves", json=body, headers={"Idempotency-Key": "a b"})
    assert problem(bad, 422)["errors"][0]["field"] == "request_id"
    assert len(lab.get("/v1/moves").json()["items"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"vm": "vm9", "to": "nve2"}, 404, None),
        ({"vm": "vm1", "to": "nve9"}, 404, "to"),
        ({"vm": "vm1", "to": "nve1"}, 409, None),
        ({"vm": "vm1"}, 422, "to"),
        ({"vm": "vm1", "to": "nve2", "kind": "tepid"}, 422, "kind"),
        ({"vm": "vm1", "to": "nve2", "ports": {"eth9": "tap"}}, 422, "ports"),
        ({"vm": "vm1", "to": "nve2", "ports": {"eth0": "a port"}}, 422, "ports.eth0"),
        ({"vm": "vm1", "to": "nve2", "ports": ["eth0"]}, 422, "ports"),
        ({"vm": "vm1", "to": "nve2", "request_id": ""}, 422, "request_id"),
        ({"vm": "vm1", "to": "nve2", "request_id": "x" * 129}, 422, "request_id"),
        ({"vm": "vm1", "to": "nve2", "requested_by": "\n"}, 422, "requested_by"),
        ({"vm": "vm1", "to": "nve2", "when": "now"}, 422, "when"),
    ],
)
def test_moves_that_are_refused(lab: httpx.Client, body: dict[str, Any], status: int, field: str | None) -> None:
    document = problem(lab.post("/v1/moves", json=body), status)
    if field is not None:
        assert [wrong["field"] for wrong in document["errors"]] == [field]
    assert lab.get("/v1/moves").json()["items"] == []


def test_hooks_that_do_not_fit(lab: httpx.Client, runtime: LiveRuntime) -> None:
    for hook in ("redirect", "activate", "abort"):
        for number in ("1", "0", "x", "9" * 40, "-1"):
            problem(lab.post(f"/v1/moves/{number}/{hook}"), 404, "not-found")
    runtime.mute.update(("nve2",))
    number = start(lab)["id"]
    problem(lab.post(f"/v1/moves/{number}/redirect", json={"now": True}), 400, "body-not-wanted")
    problem(lab.post(f"/v1/moves/{number}/abort", json={"because": "x"}), 422)
    aborted = lab.post(f"/v1/moves/{number}/abort", json={"why": "changed my mind"})
    assert aborted.json()["state"] == "aborted"
    assert aborted.json()["history"][-1]["why"] == "changed my mind"
    problem(lab.post(f"/v1/moves/{number}/redirect"), 409, "move-state")
    problem(lab.post("/v1/moves/1/dance"), 404, "no-such-path")
    second = start(lab)["id"]
    assert lab.post(f"/v1/moves/{second}/abort", json={}).json()["history"][-1]["why"] == "abort requested"


def test_listing_moves(lab: httpx.Client, runtime: LiveRuntime) -> None:
    for _ in range(4):
        number = start(lab)["id"]
        lab.post(f"/v1/moves/{number}/abort")
    last = start(lab)["id"]

    def found(query: str) -> list[int]:
        return [item["id"] for item in lab.get(f"/v1/moves?{query}").json()["items"]]

    assert found("") == [5, 4, 3, 2, 1]
    assert found("state=open") == [last] == [5]
    assert found("state=closed&limit=2") == [4, 3]
    assert found("state=aborted&after=3") == [2, 1]
    assert found("vm=vm2") == []
    assert found("nve=nve2&limit=1") == [5]
    assert found("nve=nve3") == []
    assert lab.get("/v1/moves?limit=5").json()["next"] is None
    assert lab.get("/v1/moves?limit=4").json()["next"] == "2"
    problem(lab.get("/v1/moves?state=lost"), 422)
    problem(lab.get("/v1/moves?after=x"), 422)


# --- explain and verify ---------------------------------------------------------------------------------------
def flows(lab: httpx.Client) -> dict[tuple[str, str], dict[str, Any]]:
    """The flow that carries packets to vm1 now, by NVE and by where they come from."""
    document = lab.get("/v1/vms/vm1/explain").json()
    assert document["unread"] == []
    return {(f["nve"], side): f for f in document["interfaces"][0]["flows"] for side in f["carries"]}


def test_explain_in_every_state_of_a_move(lab: httpx.Client, runtime: LiveRuntime) -> None:
    before = flows(lab)
    assert before["nve1", "local"]["to"] == before["nve1", "tunnel"]["to"] == "port tap-vm1"
    assert before["nve2", "local"]["to"] == "tunnel to nve1 (192.168.100.1)"
    assert ("nve2", "tunnel") not in before
    runtime.send("nve3", "tap-vm3", unicast(3, 1))
    assert (before["nve3", "local"]["packets"], flows(lab)["nve3", "local"]["packets"]) == (0, 1)

    number = start(lab)["id"]
    runtime.until(lambda: state_of(lab, number) == "prepared")
    runtime.plug("nve2", "tap-vm1")
    lab.post(f"/v1/moves/{number}/redirect")
    runtime.until(lambda: lab.get(f"/v1/moves/{number}").json()["redirect_in_force"])
    document = lab.get("/v1/vms/vm1/explain").json()
    assert document["move"] == number
    redirects = [f for f in document["interfaces"][0]["flows"] if f["purpose"] == "redirect"]
    assert {f["to"] for f in redirects} == {
        "redirected to nve2 (192.168.100.2)",
        "tunnel to nve2 (192.168.100.2)",
    }
    assert {f["move"] for f in redirects} == {number}
    lab.post(f"/v1/moves/{number}/activate")
    runtime.until(lambda: state_of(lab, number) == "settled")
    after = flows(lab)
    assert after["nve2", "tunnel"]["to"] == "port tap-vm1"
    assert after["nve3", "local"]["to"] == "tunnel to nve2 (192.168.100.2)"
    assert "nve1" not in {nve for nve, _ in after}  # no member of the network is left there


def test_explain_writes_flows_as_open_vswitch_does(lab: httpx.Client) -> None:
    flow = flows(lab)["nve2", "local"]
    assert flow["match"] == "metadata=0x0/0x1,dl_dst=02:00:00:00:00:01,tun_id=0x64"
    assert flow["actions"] == "set_field:192.168.100.2->tun_src,set_field:192.168.100.1->tun_dst,output:1"
    assert (flow["table"], flow["priority"]) == (40, 95)


def test_explain_names_what_it_could_not_read(lab: httpx.Client, runtime: LiveRuntime, monkeypatch: Any) -> None:
    monkeypatch.setattr("ryu_vmm.rest.locating.EXPLAIN_TIMEOUT", 0.05)
    runtime.disconnect("nve2")
    runtime.mute.add("nve3")
    document = lab.get("/v1/vms/vm1/explain").json()
    assert [u["nve"] for u in document["unread"]] == ["nve2", "nve3"]
    assert {f["nve"] for f in document["interfaces"][0]["flows"]} == {"nve1"}
    problem(lab.get("/v1/vms/vm9/explain"), 404)


def test_verify(lab: httpx.Client, runtime: LiveRuntime, monkeypatch: Any) -> None:
    tables = runtime.boxes["nve1"].tables
    victim = next(flow for flow in tables.flows if flow.table == 40 and flow.priority == 100)
    from ryu_vmm.flows import FlowChange

    tables.change(FlowChange("delete", victim), runtime.now())
    document = lab.post("/v1/nves/nve1/verify").json()
    assert not document["in_sync"]
    assert len(document["differences"]) == 1
    assert document["nve"] == "nve1"
    problem(lab.post("/v1/nves/nve9/verify"), 404)
    runtime.disconnect("nve2")
    problem(lab.post("/v1/nves/nve2/verify"), 409)
    monkeypatch.setattr("ryu_vmm.rest.registering.VERIFY_TIMEOUT", 0.05)
    runtime.mute.add("nve3")
    response = lab.post("/v1/nves/nve3/verify")
    assert response.status_code in (500, 504)
    assert "in time" in response.json()["detail"]


def test_an_announcement_is_seen_as_a_move(lab: httpx.Client, runtime: LiveRuntime) -> None:
    body = vm(4, "nve1", attachments=[{"nve": "nve2", "port": "tap-vm4"}])
    lab.post("/v1/vms", json=body)
    runtime.plug("nve1", "tap-vm4")
    runtime.unplug("nve1", "tap-vm4")
    runtime.plug("nve2", "tap-vm4")
    runtime.send("nve2", "tap-vm4", frames.build_garp(mac(4), bytes((10, 0, 0, 4))))
    move = lab.get("/v1/moves").json()["items"][0]
    assert (move["trigger"], move["vm"], move["destination"]) == ("announcement", "vm4", "nve2")
    runtime.until(lambda: runtime.the(move["id"]).state is MoveState.SETTLED)


def test_a_registration_names_another_port(lab: httpx.Client, runtime: LiveRuntime) -> None:
    """At once where it is there, pending where it is not, refused where a move is what is needed."""
    body = {**lab.get("/v1/vms/vm1").json()["interfaces"][0], "port": "vnet7"}
    names = ("name", "network", "mac", "ipv4", "ipv6", "nve", "port")
    wanted = {"name": "vm1", "interfaces": [{name: body[name] for name in names}]}
    before = lab.get("/v1/vms/vm1").json()["interfaces"][0]["port"]
    problem(lab.post("/v1/vms", json=wanted), 409, "conflict")
    pending = lab.put("/v1/vms/vm1", json=wanted).json()["interfaces"][0]
    assert (pending["port"], pending["pending"]) == (before, "vnet7")
    assert lab.post("/v1/vms", json=wanted).status_code == 200
    runtime.plug("nve1", "vnet7")
    served = lab.get("/v1/vms/vm1").json()["interfaces"][0]
    assert (served["port"], served["pending"], served["epoch"]) == ("vnet7", None, 2)
    wanted["interfaces"][0]["nve"] = "nve2"
    refused = problem(lab.put("/v1/vms/vm1", json=wanted), 409, "conflict")
    assert "POST /v1/moves" in refused["detail"]


def test_an_open_move_is_given_another_port(lab: httpx.Client, runtime: LiveRuntime) -> None:
    number = start(lab)["id"]
    again = problem(lab.post("/v1/moves", json={"vm": "vm1", "to": "nve2"}), 409, "conflict")
    assert f"PATCH /v1/moves/{number}" in again["detail"]
    amended = lab.patch(f"/v1/moves/{number}", json={"ports": {"eth0": "vnet7"}})
    assert amended.status_code == 200
    assert amended.json()["legs"][0]["destination"] == {"nve": "nve2", "port": "vnet7"}
    for wrong in ({}, {"ports": {}}, {"ports": {"eth0": ""}}, {"port": "vnet7"}):
        assert lab.patch(f"/v1/moves/{number}", json=wrong).status_code in (400, 422)
    problem(lab.patch("/v1/moves/99", json={"ports": {"eth0": "vnet7"}}), 404, "not-found")
    runtime.until(lambda: state_of(lab, number) == "prepared")
    assert lab.post(f"/v1/moves/{number}/activate").status_code == 202
    problem(lab.patch(f"/v1/moves/{number}", json={"ports": {"eth0": "vnet8"}}), 409, "move-state")
