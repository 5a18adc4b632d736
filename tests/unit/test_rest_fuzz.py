"""Whatever is sent: it is taken, or refused with a problem that leaves everything as it was. Never a 500."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import LiveRuntime
from rest_lab import NVES, problem, vm

from ryu_vmm import inventory
from ryu_vmm.errors import InvalidInput
from ryu_vmm.rest import make_app

BODIES: dict[str, Any] = {
    "/v1/nves": NVES[0],
    "/v1/networks": {"name": "red", "vni": 5, "policy": {"mtu": 1400, "distribution": "pull"}},
    "/v1/vms": vm(5, "nve2", attachments=[{"nve": "nve3", "port": "x"}]),
    "/v1/moves": {"vm": "vm1", "to": "nve2", "kind": "hot", "ports": {"eth0": "x"}, "request_id": "r"},
    "/v1/inventory": {"nves": [NVES[0]], "networks": [{"name": "red", "vni": 5}], "vms": [vm(5)]},
}
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "0", "nve1", "blue", "vm1", "02:00:00:00:00:01", "10.0.0.1", "::", "a" * 300, "\ud800", "\0"]),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [path]
    if isinstance(document, dict | list):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            found += places(document[key], (*path, key))
    return found


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, Any]:
    """A path and a body that was good before something in it was replaced, removed or added."""
    path = draw(st.sampled_from(sorted(BODIES)))
    body = copy.deepcopy(BODIES[path])
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(places(body)))
        if not where:
            return path, draw(JSON)
        holder = body
        for key in where[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[where[-1]] = draw(JSON)
            case "remove":
                del holder[where[-1]]
            case "add" if isinstance(holder, dict):
                holder[draw(TEXTS)] = draw(JSON)
            case "add":
                holder.append(draw(JSON))
    return path, body


def lab() -> tuple[LiveRuntime, httpx.Client]:
    runtime = LiveRuntime()
    whole = {"nves": NVES, "networks": [{"name": "blue", "vni": 100}], "vms": [vm(n, f"nve{n}") for n in (1, 2)]}
    inventory.apply(runtime, inventory.parse(json.dumps(whole)))
    for n in (1, 2, 3):
        runtime.connect(f"nve{n}", f"tap-vm{n}")
    return runtime, httpx.Client(transport=httpx.WSGITransport(app=make_app(runtime)), base_url="http://nva")


def snapshot(runtime: LiveRuntime) -> list[dict[Any, Any]]:
    state = runtime.state
    return [dict(t) for t in (state.nves, state.networks, state.vms, state.interfaces, state.moves)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests(), st.sampled_from(["POST", "PUT"]))
def test_any_body(sent: tuple[str, Any], method: str) -> None:
    path, body = sent
    runtime, client = lab()  # a new one each time: what one example registers must not decide about the next
    if method == "PUT" and path in ("/v1/nves", "/v1/networks", "/v1/vms"):
        path = f"{path}/{BODIES[path]['name']}"
    else:
        method = "POST"
    before = snapshot(runtime)
    content = json.dumps(body).encode()
    response = client.request(method, path, content=content, headers={"Content-Type": "application/json"})
    if response.status_code >= 400:
        assert response.status_code in (400, 404, 409, 422), response.text
        problem(response, response.status_code)
        assert snapshot(runtime) == before
    else:
        assert response.status_code in (200, 201, 202)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["limit", "after", "network", "nve", "vm", "mac", "ip", "state", "x"]), TEXTS))
def test_any_query(query: dict[str, str]) -> None:
    _, client = lab()
    asked = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
    for path in ("/v1/vms", "/v1/moves", "/v1/directory", "/v1/nves"):
        response = client.get(path, params=asked)
        assert response.status_code in (200, 404, 422), response.text


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(max_size=200), JSON.map(json.dumps), requests().map(lambda sent: json.dumps(sent[1]))),
    st.booleans(),
)
def test_any_inventory(text: str, yaml_syntax: bool) -> None:
    refusal = None
    try:
        found = inventory.parse(text, "fuzz", yaml_syntax=yaml_syntax)
    except InvalidInput as e:
        refusal = e
    if refusal is not None:
        assert refusal.message.startswith("fuzz")
        assert refusal.details["errors"]
    else:
        assert inventory.parse(json.dumps(found.model_dump(mode="json")), yaml_syntax=False) == found
