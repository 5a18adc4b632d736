"""An NVA with three NVEs and three VMs to make requests to, and how its refusals are checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from live import LiveRuntime

from ryu_vmm.rest import make_app
from ryu_vmm.rest.documents import ProblemDocument

NVES = [
    {"name": f"nve{n}", "dpid": f"{n:016x}", "ipv4": f"192.168.100.{n}", "ipv6": f"fd00:100::{n}"} for n in (1, 2, 3)
]


def vm(n: int, nve: str = "nve1", **more: Any) -> dict[str, Any]:
    interface = {
        "name": "eth0",
        "network": "blue",
        "mac": f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}",
        "ipv4": [f"10.0.{n >> 8}.{n & 255}"],
        "ipv6": [f"2001:db8::{n:x}"],
        "nve": nve,
        "port": f"tap-vm{n}",
    }
    return {"name": f"vm{n}", "interfaces": [{**interface, **more}]}


@pytest.fixture
def client(runtime: LiveRuntime) -> Iterator[httpx.Client]:
    """A client of an NVA that knows nothing yet."""
    transport = httpx.WSGITransport(app=make_app(runtime))
    with httpx.Client(transport=transport, base_url="http://nva") as made:
        yield made


@pytest.fixture
def lab(client: httpx.Client, runtime: LiveRuntime) -> httpx.Client:
    """Three connected NVEs and three VMs in network blue."""
    for nve in NVES:
        assert client.post("/v1/nves", json=nve).status_code == 201
    assert client.post("/v1/networks", json={"name": "blue", "vni": 100}).status_code == 201
    for n in (1, 2, 3):
        runtime.connect(f"nve{n}", f"tap-vm{n}")
        assert client.post("/v1/vms", json=vm(n, f"nve{n}")).status_code == 201
    return client


def problem(response: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem document of a refusal, checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    ProblemDocument.model_validate(document)
    assert document["status"] == status
    assert document["type"] == f"urn:ryu-vmm:problem:{document['code']}"
    assert document["instance"] == httpx.URL(response.request.url).path
    if code is not None:
        assert document["code"] == code
    return document


def fields(response: httpx.Response) -> list[str]:
    return [wrong["field"] for wrong in problem(response, 422)["errors"]]
