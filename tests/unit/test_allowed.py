"""What a port may do, said by REST, ``vmm`` and inventories, and kept; frozen interfaces and silenced ports shown."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import httpx
import pytest
from cli_lab import Nva, nva  # noqa: F401 - fixtures
from cli_lab import lab as cli  # noqa: F401
from live import LiveRuntime
from rest_lab import client, fields, lab, problem, vm  # noqa: F401 - fixtures

from ryu_vmm import inventory
from ryu_vmm.effects import Record
from ryu_vmm.model import Allowed, Frozen, Interface, Network, Place, Policy
from ryu_vmm.store import SqliteStore


def test_what_an_interface_may_do_is_shown_as_it_was_said(lab: httpx.Client, runtime: LiveRuntime) -> None:  # noqa: F811
    body = vm(4, allow=["router", "dhcp-server"])
    made = lab.post("/v1/vms", json=body)
    assert made.status_code == 201
    assert made.json()["interfaces"][0]["allow"] == ["dhcp-server", "router"]
    assert runtime.state.interfaces["vm4/eth0"].allow == (Allowed.DHCP_SERVER, Allowed.ROUTER)
    assert lab.post("/v1/vms", json=vm(4, allow=["dhcp-server", "router"])).status_code == 200  # the same
    problem(lab.post("/v1/vms", json=vm(4)), 409)
    assert lab.put("/v1/vms/vm4", json=vm(4)).json()["interfaces"][0]["allow"] == []


def test_what_a_network_allows(lab: httpx.Client, runtime: LiveRuntime) -> None:  # noqa: F811
    red = {"name": "red", "vni": 300, "policy": {"allow": ["forward"]}}
    assert lab.post("/v1/networks", json=red).json()["policy"]["allow"] == ["forward"]
    assert runtime.state.networks[300].policy.allow == (Allowed.FORWARD,)
    plain = lab.put("/v1/networks/red", json={"name": "red", "vni": 300})
    assert plain.json()["policy"]["allow"] == []


WRONG = [(["anything"], "allow[0]"), ("router", "allow"), (["router"] * 2, "allow"), (["router"] * 4, "allow")]


@pytest.mark.parametrize(("wrong", "field"), WRONG)
def test_what_nobody_may(lab: httpx.Client, wrong: object, field: str) -> None:  # noqa: F811
    assert fields(lab.post("/v1/vms", json=vm(4, allow=wrong))) == [f"interfaces[0].{field}"]


def test_a_frozen_interface_is_shown_and_thawed(lab: httpx.Client, runtime: LiveRuntime) -> None:  # noqa: F811
    runtime.state.put("frozen", "vm1/eth0", Frozen(100.0, 0.0, 5))
    shown = lab.get("/v1/vms/vm1").json()["interfaces"][0]["frozen"]
    assert shown == {"since": "1970-01-01T00:01:40.000Z", "until": None, "moves": 5}
    assert lab.post("/v1/vms/vm1/thaw").json()["interfaces"][0]["frozen"] is None
    assert not runtime.state.frozen
    problem(lab.post("/v1/vms/nobody/thaw"), 404)


def test_a_silenced_port_is_shown(lab: httpx.Client, runtime: LiveRuntime) -> None:  # noqa: F811
    runtime.state.put("silenced", Place("nve1", "tap-vm1"), 100.0)
    ports = {port["name"]: port["silenced"] for port in lab.get("/v1/nves/nve1").json()["ports"]}
    assert ports.pop("tap-vm1") == "1970-01-01T00:01:40.000Z"
    assert set(ports.values()) <= {None}


def test_vmm_says_it_too(cli: Nva) -> None:  # noqa: F811
    cli.run("network add red --vni 200 --allow router --allow dhcp-server")
    assert cli.json("network show red")["policy"]["allow"] == ["dhcp-server", "router"]
    cli.run("vm add gate --network red --mac 02:00:00:00:00:09 --nve nve1 --port tap-9 --allow forward")
    assert cli.json("vm show gate")["interfaces"][0]["allow"] == ["forward"]
    cli.runtime.state.put("frozen", "gate/eth0", Frozen(100.0, 0.0, 5))
    cli.run("vm thaw gate")
    assert not cli.runtime.state.frozen
    cli.run("vm thaw nobody", 4)


def test_an_inventory_says_it_and_says_it_again(runtime: LiveRuntime) -> None:
    text = json.dumps(
        {
            "nves": [{"name": "nve1", "dpid": "0000000000000001", "ipv4": "192.168.100.1"}],
            "networks": [{"name": "blue", "vni": 100, "policy": {"allow": ["router"]}}],
            "vms": [vm(1, allow=["forward"])],
        }
    )
    assert inventory.apply(runtime, inventory.parse(text))["created"] == 3
    assert inventory.apply(runtime, inventory.parse(text))["unchanged"] == 3
    assert inventory.apply(runtime, inventory.parse(text.replace('["forward"]', "[]")))["updated"] == 1


def test_it_is_kept_and_a_store_from_before_loads(tmp_path: Path) -> None:
    file = tmp_path / "vmm.sqlite"
    store = SqliteStore(file)
    network = Network("blue", 100, Policy(allow=(Allowed.ROUTER,)))
    interface = Interface(
        "a/eth0", "a", "eth0", 100, b"\2\0\0\0\0\1", (), (), Place("n1", "tap"), allow=(Allowed.FORWARD,)
    )
    store.commit([Record("networks", 100, network), Record("interfaces", "a/eth0", interface)])
    assert {value for _, _, value in store.load()} == {network, interface}
    store.close()
    with sqlite3.connect(file) as db:  # as an earlier version wrote it
        for key, doc in db.execute("SELECT key, doc FROM record").fetchall():
            (value,) = json.loads(doc)
            value.pop("allow", None)
            value.get("policy", {}).pop("allow", None)
            db.execute("UPDATE record SET doc = ? WHERE key = ?", (json.dumps([value]), key))
    db.close()
    store = SqliteStore(file)
    found = {table: value for table, _, value in store.load()}
    assert found["networks"].policy.allow == ()
    assert found["interfaces"].allow == ()
    store.close()
