"""Layer 3 by REST: networks with gateways, NVEs with locators, addresses that change; and what is wrong with bodies."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from live import LiveRuntime
from rest_lab import client, fields, problem

NVES = [
    {
        "name": f"nve{n}",
        "dpid": f"{n:x}",
        "ipv4": f"192.168.100.{n}",
        "ipv6": f"fd00:100::{n}",
        "routed_port": "gre",
        "locator": f"fd00:1:0:{n}::/64",
        "ila_port": "ila",
    }
    for n in (1, 2)
]
TASKS: dict[str, Any] = {
    "name": "tasks",
    "vni": 300,
    "kind": "l3",
    "gateway": {"ipv4": "169.254.1.1", "ipv6": "fe80::1"},
    "subnets": [
        {"prefix": "10.1.1.0/24", "nve": "nve1"},
        {"prefix": "10.1.2.0/24", "nve": "nve2"},
        {"prefix": "2001:db8:1:1::/64", "nve": "nve1"},
    ],
    "sir": "2001:db8:5::/64",
    "router": "r1",
    "policy": {"leave": {"answer": "forward", "seconds": 30}},
}
WEB: dict[str, Any] = {
    "name": "web",
    "interfaces": [
        {
            "name": "eth0",
            "network": "tasks",
            "mac": "02:00:00:00:00:01",
            "ipv4": ["10.1.1.5"],
            "ipv6": ["2001:db8:5::5"],
            "nve": "nve1",
            "port": "tap-1",
        }
    ],
    "leave": {"answer": "drop", "seconds": 10},
}
__all__ = ["client"]


@pytest.fixture
def lab(client: httpx.Client, runtime: LiveRuntime) -> httpx.Client:
    for nve in NVES:
        assert client.post("/v1/nves", json=nve).status_code == 201
        runtime.connect(nve["name"], "tap-1")
    assert client.post("/v1/networks", json=TASKS).status_code == 201
    assert client.post("/v1/vms", json=WEB).status_code == 201
    return client


def test_what_is_registered_is_shown(lab: httpx.Client) -> None:
    network = lab.get("/v1/networks/tasks").json()
    assert network["gateway"] == {"ipv4": "169.254.1.1", "ipv6": "fe80::1", "mac": "02:76:6d:00:00:01"}
    assert {key: network[key] for key in ("kind", "subnets", "sir", "router")} == {
        key: TASKS[key] for key in ("kind", "subnets", "sir", "router")
    }
    assert network["policy"]["leave"] == {"answer": "forward", "seconds": 30}
    nve = lab.get("/v1/nves/nve1").json()
    assert {key: nve[key] for key in ("routed_port", "locator", "ila_port", "next_hop", "routed", "ila")} == {
        "routed_port": "gre", "locator": "fd00:1:0:1::/64", "ila_port": "ila", "next_hop": None, "routed": 2, "ila": 3,
    }
    assert lab.get("/v1/vms/web").json()["leave"] == {"answer": "drop", "seconds": 10}
    assert lab.put("/v1/networks/tasks", json=TASKS).status_code == 200


def test_a_move_says_which_addresses_change(lab: httpx.Client, runtime: LiveRuntime) -> None:
    move = lab.post("/v1/moves", json={"vm": "web", "to": "nve2", "address": "change"}).json()
    assert move["addresses"] == [{"interface": "web/eth0", "old": "10.1.1.5", "new": "10.1.2.5"}]
    assert move["connections"] == "drop"
    lab.post(f"/v1/moves/{move['id']}/activate")
    web = lab.get("/v1/vms/web").json()["interfaces"][0]
    assert (web["nve"], web["ipv4"], web["ipv6"]) == ("nve2", ["10.1.2.5"], ["2001:db8:5::5"])
    [left] = web["left"]
    assert {key: left[key] for key in ("nve", "address", "locator", "answer")} == {
        "nve": "nve1", "address": "10.1.1.5", "locator": False, "answer": "drop",
    }
    entries = lab.get("/v1/events?follow=0&kind=task.").text
    assert "task.readdressed" in entries


def test_explain_shows_the_route_and_the_locator(lab: httpx.Client) -> None:
    flows = lab.get("/v1/vms/web/explain").json()["interfaces"][0]["flows"]
    found = {(flow["nve"], flow["table"], flow["to"]) for flow in flows}
    assert ("nve1", 30, "table deliver") in found
    assert ("nve1", 0, "table route") in found
    assert ("nve1", 40, "port tap-1") in found


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"gateway": None}, ""),
        ({"gateway": {}}, "gateway"),
        ({"gateway": {"ipv4": "224.0.0.1"}}, "gateway.ipv4"),
        ({"subnets": [{"prefix": "10.1.1.1/24", "nve": "nve1"}]}, "subnets[0].prefix"),
        ({"subnets": [{"prefix": "224.0.0.0/8", "nve": "nve1"}]}, "subnets[0].prefix"),
        ({"subnets": [{"prefix": "10.1.1.0/24", "nve": "nve1"}] * 2}, ""),
        ({"sir": "2001:db8::/48"}, "sir"),
        ({"sir": "10.0.0.0/8"}, "sir"),
        ({"kind": "l2"}, ""),
        ({"kind": "l4"}, "kind"),
        ({"policy": {"distribution": "pull"}}, ""),
        ({"policy": {"leave": {"answer": "shout"}}}, "policy.leave.answer"),
        ({"policy": {"leave": {"seconds": 0}}}, "policy.leave.seconds"),
    ],
)
def test_a_network_that_cannot_be_is_refused(lab: httpx.Client, change: dict[str, Any], field: str) -> None:
    answer = lab.post("/v1/networks", json={**TASKS, "name": "other", "vni": 301, **change})
    problem(answer, 422)
    assert fields(answer) == [field]


def test_subnets_overlap_only_across_routers(lab: httpx.Client) -> None:
    twin = {**TASKS, "name": "twin", "vni": 301, "sir": None}
    problem(lab.post("/v1/networks", json=twin), 409)
    assert lab.post("/v1/networks", json={**twin, "router": "r2"}).status_code == 201
    nobody = {**twin, "name": "third", "vni": 302, "router": None, "subnets": [{"prefix": "10.1.0.0/24", "nve": "no"}]}
    problem(lab.post("/v1/networks", json=nobody), 404)


@pytest.mark.parametrize(
    "change",
    [
        {"ila_port": None},
        {"locator": None},
        {"routed_port": "ila"},
        {"locator": None, "ila_port": None, "next_hop": "fd00:100::99"},
    ],
)
def test_an_nve_that_cannot_be_is_refused(lab: httpx.Client, change: dict[str, Any]) -> None:
    change = {"name": "nve3", "dpid": "3", "ipv6": "fd00:100::3", **change}


    problem(lab.post("/v1/nves", json={**NVES[0], "ipv4": None, **change}), 422)


@pytest.mark.parametrize("change", [{"address": "swap"}, {"connections": "cut"}])
def test_a_move_that_cannot_be_is_refused(lab: httpx.Client, change: dict[str, str]) -> None:
    problem(lab.post("/v1/moves", json={"vm": "web", "to": "nve2", **change}), 422)


def test_connections_do_not_outlive_their_address(lab: httpx.Client) -> None:
    body = {"vm": "web", "to": "nve2", "address": "change", "connections": "migrate"}
    problem(lab.post("/v1/moves", json=body), 422)
    assert lab.put("/v1/vms/web", json={**WEB, "leave": {"answer": "forward"}}).status_code == 200
    assert lab.post("/v1/moves", json=body).json()["connections"] == "migrate"
