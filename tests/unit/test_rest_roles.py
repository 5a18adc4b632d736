"""Every route against every role: what the route table says is in force, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from auth_lab import PEOPLE, Town, town
from rest_lab import problem

from ryu_vmm.rest.roles import Role
from ryu_vmm.rest.routes import ROUTES, Route

__all__ = ["town"]

#: Who may call what, written down a second time: a slip in the table is not its own witness.
EXPECTED = {
    "GET /v1/nves": "admin hypervisor reader",
    "POST /v1/nves": "admin",
    "GET /v1/nves/{name}": "admin hypervisor reader",
    "PUT /v1/nves/{name}": "admin",
    "DELETE /v1/nves/{name}": "admin",
    "POST /v1/nves/{name}/verify": "admin hypervisor",
    "GET /v1/networks": "admin tenant hypervisor reader",
    "POST /v1/networks": "admin",
    "GET /v1/networks/{name}": "admin tenant hypervisor reader",
    "PUT /v1/networks/{name}": "admin",
    "DELETE /v1/networks/{name}": "admin",
    "GET /v1/vms": "admin tenant hypervisor reader",
    "POST /v1/vms": "admin tenant",
    "GET /v1/vms/{name}": "admin tenant hypervisor reader",
    "PUT /v1/vms/{name}": "admin tenant",
    "DELETE /v1/vms/{name}": "admin tenant",
    "GET /v1/vms/{name}/explain": "admin hypervisor reader",
    "POST /v1/vms/{name}/thaw": "admin",
    "GET /v1/moves": "admin tenant hypervisor reader",
    "POST /v1/moves": "admin tenant hypervisor",
    "PATCH /v1/moves/{id}": "admin tenant hypervisor",
    "GET /v1/moves/{id}": "admin tenant hypervisor reader",
    "POST /v1/moves/{id}/redirect": "admin hypervisor",
    "POST /v1/moves/{id}/activate": "admin hypervisor",
    "POST /v1/moves/{id}/abort": "admin tenant hypervisor",
    "GET /v1/evacuations": "admin reader",
    "POST /v1/evacuations": "admin",
    "GET /v1/evacuations/{id}": "admin reader",
    "POST /v1/evacuations/{id}/cancel": "admin",
    "POST /v1/evacuations/{id}/resume": "admin",
    "GET /v1/directory": "admin tenant hypervisor reader",
    "GET /v1/names": "admin tenant reader",
    "POST /v1/inventory": "admin",
    "GET /v1/events": "admin tenant hypervisor reader",
    "GET /v1/audit": "admin",
    "GET /v1/health": "anybody",
    "GET /v1/ready": "anybody",
    "GET /": "admin tenant hypervisor reader",
    "GET /v1": "admin tenant hypervisor reader",
    "GET /v1/openapi.json": "admin tenant hypervisor reader",
    "GET /metrics": "admin reader",
}


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def ask(client: httpx.Client, route: Route) -> httpx.Response:
    """A request that is understood, about things that are not there."""
    path = re.sub(r"\{\w+\}", "1", route.path) + ("?follow=0" if route.path == "/v1/events" else "")
    body: dict[str, Any] | None = {} if route.body is not None else None
    return client.request(route.method, path, json=body)


def test_the_table_is_what_was_decided() -> None:
    found = {
        named(route): "anybody" if route.roles is None else " ".join(role for role in Role if role in route.roles)
        for route in ROUTES
    }
    assert found == EXPECTED


@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_roles(town: Town, route: Route) -> None:
    for name, facts in PEOPLE.items():
        response = ask(town.of(name), route)
        if route.roles is None or facts["role"] in route.roles:
            assert response.status_code not in (401, 403, 429, 500), (name, response.text)
        else:
            document = problem(response, 403, "forbidden")
            assert facts["role"] in document["detail"]


@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_without_credentials(town: Town, route: Route) -> None:
    response = ask(town.client(), route)
    if route.roles is None:
        assert response.status_code == 200
        return
    problem(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == 'Bearer realm="ryu_vmm"'
    head = town.client().head(re.sub(r"\{\w+\}", "1", route.path))
    assert (head.status_code, head.content) == (401, b"") if route.method == "GET" else True


def test_what_is_not_there_is_nobodys_business(town: Town) -> None:
    for path in ("/v1/nothing", "/v1/vms/", "/v2", "/v1/vms/a/b"):
        problem(town.client().get(path), 401)
        problem(town.of("eyes").get(path), 404, "no-such-path")
    problem(town.client().patch("/v1/vms/a-vm1"), 401)
    problem(town.of("eyes").patch("/v1/vms/a-vm1"), 405)


def test_a_refused_request_is_not_read(town: Town) -> None:
    nonsense = {"Content-Type": "application/json"}
    problem(town.client().post("/v1/vms", content=b"{", headers=nonsense), 401)
    problem(town.of("eyes").post("/v1/vms", content=b"{", headers=nonsense), 403)
    problem(town.of("ops").post("/v1/vms", content=b"{", headers=nonsense), 400)
