"""Documents against their models, the OpenAPI document against the routes, figures against the state, and the docs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from live import LiveRuntime
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter
from rest_lab import client, lab
from test_rest_moves import start, state_of

from ryu_vmm import model, ovstext
from ryu_vmm.rest import documents, views
from ryu_vmm.rest.openapi import document as openapi
from ryu_vmm.rest.routes import ROUTES

__all__ = ["client", "lab"]

ROOT = Path(__file__).parents[2]


def moved(lab: httpx.Client, runtime: LiveRuntime) -> int:
    """The number of a move of vm1 that has settled."""
    number: int = start(lab)["id"]
    runtime.until(lambda: state_of(lab, number) == "prepared")
    runtime.plug("nve2", "tap-vm1")
    lab.post(f"/v1/moves/{number}/activate")
    runtime.until(lambda: state_of(lab, number) == "settled")
    return number


def test_every_reply_is_what_its_model_says(lab: httpx.Client, runtime: LiveRuntime) -> None:
    number = moved(lab, runtime)
    stale = model.Stale(5, 500, 1234.5, 1)
    full = replace(runtime.the(number).ledger, stale={"nve3": stale})
    runtime.state.put("moves", number, replace(runtime.the(number), ledger=full, error="x"))
    failure = model.Unpublished("192.0.2.1:53: REFUSED", 1234.5, 2, 1236.5)
    runtime.state.put("names", "web.example.org", model.Published((b"\x0a\0\0\1",), None, 1234.0, "acme"))
    runtime.state.put("unpublished", "web.example.org", failure)
    names = {"nves": "nve1", "networks": "blue", "vms": "vm1"}
    assert lab.post("/v1/evacuations", json={"nve": "nve2", "to": ["nve1"]}).json()["id"] == number
    checked = 0
    for route in ROUTES:
        if route.method != "GET" or route.path in ("/metrics", "/v1/openapi.json"):
            continue
        path = route.path.replace("{id}", str(number)).replace("{name}", names.get(route.tag, ""))
        response = lab.get(path + ("?follow=0" if route.tag == "events" else ""))
        assert response.status_code == 200, path
        TypeAdapter(route.replies[200]).validate_json(response.content, strict=False)
        checked += 1
    assert checked == 19
    [name] = lab.get("/v1/names").json()["items"]
    assert (name["wanted"], name["told"], name["published"]) == (["10.0.0.1"], None, False)
    assert name["failure"]["retry"] == "1970-01-01T00:20:36.500Z"
    assert lab.get(f"/v1/moves/{number}").json()["ledger"]["stale"][0]["nve"] == "nve3"
    documents.VerifyDocument.model_validate(lab.post("/v1/nves/nve1/verify").json())


def test_time_stamps() -> None:
    assert views.timestamp(1700000000.12345) == "2023-11-14T22:13:20.123Z"
    assert views.timestamp(1.9999) == "1970-01-01T00:00:01.999Z"


def test_anything_can_be_said_in_json() -> None:
    odd = {
        "mac": b"\x02\0\0\0\0\1",
        "ip": b"\x0a\0\0\1",
        "raw": b"\1\2\3",
        "state": model.MoveState.PREPARED,
        "place": model.Place("n", "p"),
        "set": {"b", "a"},
        "nested": [({1: object},)],
        4: None,
    }
    document = json.loads(json.dumps(views.plain(odd)))
    assert document["mac"] == "02:00:00:00:00:01"
    assert (document["ip"], document["raw"], document["state"]) == ("10.0.0.1", "010203", "prepared")
    assert (document["place"], document["set"], document["4"]) == ({"nve": "n", "port": "p"}, ["a", "b"], None)


# --- OpenAPI --------------------------------------------------------------------------------------------------
def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        here = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return here.union(*(references(value) for value in node.values()))
    return set().union(*(references(item) for item in node)) if isinstance(node, list) else set()


def test_the_document_describes_every_route(lab: httpx.Client) -> None:
    document = lab.get("/v1/openapi.json").json()
    assert document == json.loads(json.dumps(openapi()))
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))
            assert operation["responses"]


def test_every_reference_leads_somewhere() -> None:
    document = openapi()
    found = references(document)
    assert "#/components/schemas/MoveDocument" in found
    for reference in found:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_schemas_say_what_is_refused() -> None:
    schemas = openapi()["components"]["schemas"]
    network = schemas["NetworkInput"]
    assert network["additionalProperties"] is False
    assert network["properties"]["vni"]["minimum"] == 1
    assert network["properties"]["vni"]["exclusiveMaximum"] == 0xFFE000
    assert schemas["NveInput"]["properties"]["name"]["pattern"] == "^[A-Za-z0-9._-]{1,63}$"
    query = {p["name"]: p for p in openapi()["paths"]["/v1/moves"]["get"]["parameters"]}
    assert set(query) == {"limit", "after", "vm", "nve", "state"}
    assert query["limit"]["schema"]["maximum"] == 10_000


def test_the_reference_is_current() -> None:
    """docs/rest.md and docs/cli.md hold what the routes, the models and the commands make."""
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "render_reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    text = (ROOT / "docs" / "rest.md").read_text()
    assert all(f"| `{route.method}` | `{route.path}` |" in text for route in ROUTES)


# --- figures --------------------------------------------------------------------------------------------------
def figures(client: httpx.Client) -> dict[tuple[str, str], float]:
    """Samples of /metrics by name and labels."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_figures(lab: httpx.Client, runtime: LiveRuntime) -> None:
    assert figures(lab)["vmm_vms", ""] == 3
    moved(lab, runtime)
    lab.post(f"/v1/moves/{start(lab, vm='vm2', to='nve3')['id']}/abort")
    start(lab, vm="vm3", to="nve1")
    runtime.nva.counters["drop.malformed"] = 7
    runtime.nva.counters["odd"] = 1
    found = figures(lab)
    assert found["vmm_nves", "status=in_sync"] == 3
    assert found["vmm_moves_closed_total", "state=settled"] == 1
    assert found["vmm_moves_closed_total", "state=aborted"] == 1
    assert sum(v for (name, _), v in found.items() if name == "vmm_moves_open") == 1
    assert found["vmm_move_duration_seconds_count", "kind=hot"] == 2
    assert found["vmm_move_duration_seconds_bucket", "kind=hot,le=+Inf"] == 2
    assert found["vmm_move_duration_seconds_sum", "kind=hot"] > 0
    assert found["vmm_move_convergence_seconds_count", ""] >= 1
    assert found["vmm_drops_total", "cause=malformed"] == 7
    assert found["vmm_occurrences_total", "name=odd"] == 1
    assert found["vmm_packet_ins_total", "reason=probe"] > 0


def test_figures_count_every_move_once(lab: httpx.Client, runtime: LiveRuntime) -> None:
    for n in range(1, 4):
        number = start(lab)["id"]
        figures(lab)
        lab.post(f"/v1/moves/{number}/abort")
        for _ in range(2):
            assert figures(lab)["vmm_moves_closed_total", "state=aborted"] == n


def test_moves_that_ended_before_the_start_do_not_count(lab: httpx.Client, runtime: LiveRuntime) -> None:
    lab.post(f"/v1/moves/{start(lab)['id']}/abort")
    runtime.started = runtime.now()
    assert figures(lab)["vmm_moves_closed_total", "state=aborted"] == 0


def test_openmetrics_if_asked_for(lab: httpx.Client) -> None:
    response = lab.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


# --- flows as text --------------------------------------------------------------------------------------------
def test_every_flow_of_a_switch_can_be_written(lab: httpx.Client, runtime: LiveRuntime) -> None:
    moved(lab, runtime)
    written = set()
    for box in runtime.boxes.values():
        for flow in box.tables.flows:
            text = f"{flow.table},{flow.priority},{ovstext.match(flow.match)} {ovstext.actions(flow)}"
            assert re.fullmatch(r"[\w=:/.,>\- +\[\]]+", text), text
            written.add((box.nve.name, text.split(" ")[0]))
    assert len(written) == sum(len(list(box.tables.flows)) for box in runtime.boxes.values())
