"""Registering and looking up over REST, on a real runtime with emulated switches."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from live import LiveRuntime
from rest_lab import NVES, client, fields, lab, problem, vm

__all__ = ["client", "lab"]


# --- registering ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "body", "change"),
    [
        ("/v1/nves", NVES[0], {"ipv4": "192.168.100.77"}),
        ("/v1/networks", {"name": "green", "vni": 7}, {"policy": {"mtu": 1400}}),
        ("/v1/vms", vm(9), vm(9, ipv4=[])),
    ],
)
def test_life_of_a_registered_object(lab: httpx.Client, path: str, body: dict[str, Any], change: Any) -> None:
    item = f"{path}/{body['name']}"
    if path == "/v1/nves":
        lab.delete("/v1/vms/vm1")
    lab.delete(item)
    problem(lab.get(item), 404, "not-found")

    created = lab.post(path, json=body)
    assert (created.status_code, created.headers["location"]) == (201, item)
    assert lab.post(path, json=body).status_code == 200
    assert lab.get(item).json()["name"] == body["name"]
    names = [document["name"] for document in lab.get(path).json()["items"]]
    assert body["name"] in names
    assert names == sorted(names)

    problem(lab.post(path, json={**body, **change}), 409, "conflict")
    replaced = lab.put(item, json={**body, **change})
    assert replaced.status_code == 200
    assert lab.get(item).json() == replaced.json()
    assert lab.post(path, json={**body, **change}).status_code == 200

    gone = lab.delete(item)
    assert (gone.status_code, gone.content) == (204, b"")
    problem(lab.delete(item), 404)
    assert lab.put(item, json={k: v for k, v in body.items() if k != "name"}).status_code == 201


def test_put_wants_the_name_of_its_path(lab: httpx.Client) -> None:
    assert fields(lab.put("/v1/networks/red", json={"name": "green", "vni": 7})) == ["name"]
    wrong = lab.put("/v1/networks/r%20d", json={"vni": 7}).json()
    assert [e["field"] for e in wrong["errors"]] == ["name"]


def test_documents_tell_what_the_switch_reported(lab: httpx.Client) -> None:
    nve = lab.get("/v1/nves/nve1").json()
    assert nve["connected"]
    assert nve["in_sync"]
    assert nve["networks"] == ["blue"]
    assert [port["name"] for port in nve["ports"]] == ["vxlan", "tap-vm1"]
    assert "ports" not in lab.get("/v1/nves").json()["items"][0]
    assert lab.get("/v1/networks/blue").json()["members"] == ["nve1", "nve2", "nve3"]
    interface = lab.get("/v1/vms/vm1").json()["interfaces"][0]
    assert (interface["nve"], interface["port"], interface["bound"], interface["epoch"]) == (
        "nve1",
        "tap-vm1",
        True,
        1,
    )


def test_an_nve_that_refuses_is_marked(lab: httpx.Client, runtime: LiveRuntime) -> None:
    from ryu_vmm import events as ev

    assert lab.get("/v1/nves/nve1").json()["fault"] is None
    assert lab.get("/v1/health").json()["status"] == "ok"
    generation = runtime.state.generations["nve1"][0]
    runtime.event(ev.FlowRefused(1, generation, 5, 1))
    fault = lab.get("/v1/nves/nve1").json()["fault"]
    assert (fault["type"], fault["code"], fault["times"]) == (5, 1, 1)
    health = lab.get("/v1/health").json()
    assert (health["status"], health["nves"]["refusing"]) == ("degraded", 1)


def test_a_port_is_bound_before_or_after_it_appears(lab: httpx.Client, runtime: LiveRuntime) -> None:
    lab.post("/v1/vms", json=vm(7))
    assert not lab.get("/v1/vms/vm7").json()["interfaces"][0]["bound"]
    runtime.plug("nve1", "tap-vm7")
    assert lab.get("/v1/vms/vm7").json()["interfaces"][0]["bound"]


def test_what_is_in_use_cannot_be_removed(lab: httpx.Client) -> None:
    assert problem(lab.delete("/v1/nves/nve1"), 409)["details"]["vms"] == ["vm1"]
    problem(lab.delete("/v1/networks/blue"), 409)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"name": "x" * 64}, ["name"]),
        ({"name": "a b"}, ["name"]),
        ({"name": ""}, ["name"]),
        ({"name": None}, ["name"]),
        ({"dpid": 1}, ["dpid"]),
        ({"dpid": "0"}, ["dpid"]),
        ({"ipv4": None, "ipv6": None}, [""]),
        ({"ipv4": "224.0.0.1"}, ["ipv4"]),
        ({"ipv6": "ff02::1"}, ["ipv6"]),
        ({"ipv6": 5, "color": "red"}, ["ipv6", "color"]),
        ({"tunnel_port": "a-name-of-16-ch."}, ["tunnel_port"]),
        ({"tunnel_port": "a b"}, ["tunnel_port"]),
    ],
)
def test_bad_nves(client: httpx.Client, body: dict[str, Any], wrong: list[str]) -> None:
    response = client.post("/v1/nves", json={**NVES[0], **body})
    assert [e["field"] for e in problem(response, 422).get("errors", [{"field": ""}])] == wrong
    assert client.get("/v1/nves").json()["items"] == []


@pytest.mark.parametrize("vni", [0, -1, 0xFFE000, 1 << 24, 1.0, "100", True, None, [1]])
def test_bad_vnis(client: httpx.Client, vni: object) -> None:
    assert fields(client.post("/v1/networks", json={"name": "n", "vni": vni})) == ["vni"]


@pytest.mark.parametrize("vni", [1, 0xFFDFFF])
def test_good_vnis(client: httpx.Client, vni: int) -> None:
    assert client.post("/v1/networks", json={"name": "n", "vni": vni}).status_code == 201


@pytest.mark.parametrize(
    "policy",
    [
        {"mtu": 575},
        {"mtu": 9001},
        {"mtu": 1450.5},
        {"idle_timeout": 0},
        {"idle_timeout": 65536},
        {"distribution": "shout"},
        {"announcements": ""},
        {"unknown": None},
        {"admit": 1},
        {"speed": 1},
    ],
)
def test_bad_policies(client: httpx.Client, policy: dict[str, Any]) -> None:
    response = client.post("/v1/networks", json={"name": "n", "vni": 1, "policy": policy})
    assert fields(response) == [f"policy.{next(iter(policy))}"]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"mac": "01:00:00:00:00:01"}, "mac"),
        ({"mac": "00:00:00:00:00:00"}, "mac"),
        ({"ipv4": "10.0.0.1"}, "ipv4"),
        ({"ipv4": ["10.0.0.1", "10.0.0.1"]}, "ipv4"),
        ({"ipv4": ["10.0.0.1", "255.255.255.255"]}, "ipv4[1]"),
        ({"ipv6": ["::1"]}, "ipv6[0]"),
        ({"network": "nowhere"}, "network"),
        ({"nve": "nve9"}, "nve"),
        ({"port": "tap/vm"}, "port"),
        ({"attachments": [{"nve": "nve9", "port": "x"}]}, "attachments[0].nve"),
        ({"attachments": [{"nve": "nve2"}]}, "attachments[0].port"),
        ({"vlan": 1}, "vlan"),
    ],
)
def test_bad_interfaces(lab: httpx.Client, change: dict[str, Any], wrong: str) -> None:
    assert fields(lab.post("/v1/vms", json=vm(9, **change))) == [f"interfaces[0].{wrong}"]
    problem(lab.get("/v1/vms/vm9"), 404)


@pytest.mark.parametrize("interfaces", [[], None, {}, "eth0", [vm(9)["interfaces"][0]] * 2])
def test_bad_lists_of_interfaces(lab: httpx.Client, interfaces: object) -> None:
    problem(lab.post("/v1/vms", json={"name": "vm9", "interfaces": interfaces}), 422)


def test_addresses_belong_to_one_interface_of_a_network(lab: httpx.Client) -> None:
    lab.post("/v1/networks", json={"name": "red", "vni": 101})
    twin = vm(1, network="red", port="tap-twin")
    twin["name"] = "twin"
    assert lab.post("/v1/vms", json=twin).status_code == 201
    twin["name"] = "third"
    twin["interfaces"][0]["port"] = "tap-third"
    document = problem(lab.post("/v1/vms", json=twin), 409)
    assert document["details"]["interface"] == "twin/eth0"
    assert document["errors"][0]["field"] == "interfaces[0].mac"


# --- several at once ------------------------------------------------------------------------------------------
def test_vms_in_bulk(lab: httpx.Client) -> None:
    response = lab.post("/v1/vms", json=[vm(1), vm(4), vm(5, "nve2")])
    assert response.status_code == 201
    assert [item["result"] for item in response.json()["items"]] == ["unchanged", "created", "created"]
    assert lab.post("/v1/vms", json=[vm(4), vm(5, "nve2")]).status_code == 200
    problem(lab.post("/v1/vms", json=[vm(4), vm(5)]), 409)  # that is another NVE, of which nobody knows anything


@pytest.mark.parametrize(
    ("bodies", "status", "where"),
    [
        ([vm(4), vm(5, mac="x")], 422, "[1].interfaces[0].mac"),
        ([vm(4), vm(5, nve="nve9")], 422, "[1].interfaces[0].nve"),
        ([vm(4), vm(4)], 422, "[1].name"),
        ([vm(4), vm(5, ipv4=["10.0.0.4"])], 422, "[1].interfaces[0].ipv4[0]"),
    ],
)
def test_bulk_is_all_or_nothing(lab: httpx.Client, bodies: list[Any], status: int, where: str) -> None:
    document = problem(lab.post("/v1/vms", json=bodies), status)
    assert where in [wrong["field"] for wrong in document["errors"]]
    assert [item["name"] for item in lab.get("/v1/vms").json()["items"]] == ["vm1", "vm2", "vm3"]


def test_a_conflict_in_bulk_names_the_item(lab: httpx.Client) -> None:
    bodies = [vm(1), vm(4), vm(5, ipv4=["10.0.0.2"])]
    assert problem(lab.post("/v1/vms", json=bodies), 409)["details"]["index"] == 2
    assert problem(lab.post("/v1/vms", json=[vm(4), vm(1, ipv4=[])]), 409)["details"]["index"] == 1
    assert len(lab.get("/v1/vms").json()["items"]) == 3


def test_inventory(client: httpx.Client) -> None:
    whole = {"nves": NVES, "networks": [{"name": "blue", "vni": 100}], "vms": [vm(n) for n in (1, 2)]}
    assert client.post("/v1/inventory", json=whole).json() == {"created": 6, "updated": 0, "unchanged": 0}
    whole["vms"][0]["interfaces"][0]["ipv4"] = []  # type: ignore[index]
    assert client.post("/v1/inventory", json=whole).json() == {"created": 0, "updated": 1, "unchanged": 5}
    wrong = {"networks": [{"name": "green", "vni": 7}], "vms": [vm(3, network="grey")]}
    assert fields(client.post("/v1/inventory", json=wrong)) == ["vms[0].interfaces[0].network"]
    clash = {"networks": [{"name": "green", "vni": 7}], "vms": [vm(3, network="green", port="tap-vm1")]}
    assert problem(client.post("/v1/inventory", json=clash), 409)["details"]["item"] == "vms[0]"
    problem(client.get("/v1/networks/green"), 404)


# --- lists ----------------------------------------------------------------------------------------------------
def walk(client: httpx.Client, url: str) -> list[Any]:
    """All items of a list, page by page as its Link headers say."""
    items: list[Any] = []
    while True:
        response = client.get(url)
        assert response.status_code == 200, response.text
        document = response.json()
        items += document["items"]
        if document["next"] is None:
            assert "next" not in response.links
            return items
        url = str(response.url.join(response.links["next"]["url"]))
        assert httpx.URL(url).params["after"] == document["next"]


@pytest.mark.parametrize("limit", [1, 3, 7, 50])
def test_lists_come_in_pages(lab: httpx.Client, limit: int) -> None:
    lab.post("/v1/vms", json=[vm(n, f"nve{n % 3 + 1}") for n in range(10, 25)])
    everything = [item["name"] for item in walk(lab, f"/v1/vms?limit={limit}")]
    assert everything == sorted(f"vm{n}" for n in [1, 2, 3, *range(10, 25)])
    assert [e["vm"] for e in walk(lab, f"/v1/directory?limit={limit}")] == everything
    on_one = [item["name"] for item in walk(lab, f"/v1/vms?limit={limit}&nve=nve1&network=blue")]
    assert on_one == [v["name"] for v in walk(lab, "/v1/vms?nve=nve1")]
    assert on_one == sorted(["vm1", *(f"vm{n}" for n in range(10, 25) if n % 3 == 0)])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("after=a%20b", "after"),
        ("colour=red", "colour"),
        ("nve=a/b", "nve"),
    ],
)
def test_bad_queries(lab: httpx.Client, query: str, field: str) -> None:
    assert fields(lab.get(f"/v1/vms?{query}")) == [field]


def test_100000_vms_do_not_stall_the_loop(runtime: LiveRuntime, client: httpx.Client) -> None:
    from ryu_vmm import model

    client.post("/v1/nves", json=NVES[0])
    client.post("/v1/networks", json={"name": "blue", "vni": 100})
    for n in range(1, 100_001):
        mac = b"\x02\0" + n.to_bytes(4, "big")
        place = model.Place("nve1", f"tap{n}")
        interface = model.Interface(f"vm{n}/eth0", f"vm{n}", "eth0", 100, mac, (), (), place)
        runtime.state.put("interfaces", interface.id, interface)
        runtime.state.put("vms", f"vm{n}", model.Vm(f"vm{n}", (interface.id,)))
    runtime.state.begin()
    limits = {
        "/v1/vms?limit=100": 0.1,
        "/v1/directory?limit=100": 0.1,
        "/v1/vms?limit=100&nve=nve1&after=vm5": 0.25,  # looks at all that are there
    }
    for url, most in limits.items():
        best = 1.0
        for _ in range(3):
            start = time.thread_time()
            assert len(client.get(url).json()["items"]) == 100
            best = min(best, time.thread_time() - start)
        assert best < most, f"{url} took {best:.3f} s"


# --- the directory --------------------------------------------------------------------------------------------
def test_directory(lab: httpx.Client) -> None:
    lab.post("/v1/networks", json={"name": "red", "vni": 101})
    twin = vm(1, "nve2", network="red", port="tap-twin")
    twin["name"] = "twin"
    lab.post("/v1/vms", json=twin)

    def found(query: str) -> list[tuple[str, str]]:
        return [(e["network"], e["vm"]) for e in lab.get(f"/v1/directory?{query}").json()["items"]]

    assert found("network=blue&mac=02:00:00:00:00:01") == [("blue", "vm1")]
    assert found("network=red&ip=10.0.0.1") == [("red", "twin")]
    assert found("network=red&ip=2001:db8:0::1") == [("red", "twin")]
    assert found("mac=02-00-00-00-00-01") == [("red", "twin"), ("blue", "vm1")]
    assert found("vm=vm2") == [("blue", "vm2")]
    assert found("vm=vm2&network=red") == []
    assert found("vm=vm2&ip=10.0.0.3") == []
    assert found("network=blue&mac=02:00:00:00:00:01&ip=10.0.0.2") == []
    assert found("network=blue&ip=10.9.9.9") == []
    assert found("network=blue") == [("blue", f"vm{n}") for n in (1, 2, 3)]
    entry = lab.get("/v1/directory?vm=vm2").json()["items"][0]
    assert (entry["nve"], entry["nve_ipv4"], entry["nve_ipv6"], entry["port"], entry["epoch"]) == (
        "nve2",
        "192.168.100.2",
        "fd00:100::2",
        "tap-vm2",
        1,
    )
    problem(lab.get("/v1/directory?network=grey"), 404)
    problem(lab.get("/v1/directory?vm=vm9"), 404)
    assert fields(lab.get("/v1/directory?mac=ff:ff:ff:ff:ff:ff&ip=banana")) == ["mac", "ip"]
