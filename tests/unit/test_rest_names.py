"""Names by REST and ``vmm``: who may give them, who sees them, and what is told of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest
from auth_lab import Town, town
from cli_lab import Nva, nva
from cli_lab import lab as served
from live import LiveRuntime
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError
from rest_lab import client, fields, lab, problem, vm

from ryu_vmm import credentials
from ryu_vmm import events as ev
from ryu_vmm.credentials import CredentialsUnusable
from ryu_vmm.schema import InterfaceInput

__all__ = ["client", "lab", "nva", "served", "town"]

WEB = "web.acme.example.org"


def guest(name: str, network: str, dns: str | None, n: int = 9, **more: Any) -> dict[str, Any]:
    return {**vm(n, "nve1", network=network, port=f"acme-{n}", dns=dns, **more), "name": name}


def names(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["name"] for item in response.json()["items"]]


def confirm(runtime: LiveRuntime, name: str) -> None:
    runtime.event(ev.NamePublished(name, runtime.state.names[name].wanted))


def test_an_interface_and_its_name(lab: httpx.Client, runtime: LiveRuntime) -> None:
    assert lab.put("/v1/vms/vm1", json=vm(1, "nve1", dns="Web.Example.ORG.")).status_code == 200
    assert lab.get("/v1/vms/vm1").json()["interfaces"][0]["dns"] == "web.example.org"
    assert lab.get("/v1/vms/vm2").json()["interfaces"][0]["dns"] is None
    [found] = lab.get("/v1/names").json()["items"]
    since = found.pop("since")
    assert found == {
        "name": "web.example.org",
        "tenant": None,
        "interfaces": ["vm1/eth0"],
        "wanted": ["10.0.0.1", "2001:db8::1"],
        "told": None,
        "published": False,
        "failure": None,
    }
    runtime.event(ev.NameFailed("web.example.org", runtime.state.names["web.example.org"].wanted, "x: REFUSED", 2.0))
    [found] = lab.get("/v1/names").json()["items"]
    assert (found["failure"]["why"], found["failure"]["times"], found["since"]) == ("x: REFUSED", 1, since)
    confirm(runtime, "web.example.org")
    [found] = lab.get("/v1/names").json()["items"]
    assert (found["published"], found["told"], found["failure"]) == (True, ["10.0.0.1", "2001:db8::1"], None)
    kinds = [event["kind"] for event in lab.get("/v1/events?follow=0&kind=name.").json()["items"]]
    assert kinds == ["name.failed", "name.published"]
    assert lab.put("/v1/vms/vm1", json=vm(1, "nve1")).status_code == 200
    [found] = lab.get("/v1/names").json()["items"]
    assert (found["wanted"], found["interfaces"], found["published"]) == ([], [], False)
    confirm(runtime, "web.example.org")
    assert names(lab.get("/v1/names")) == []


def test_the_same_again_changes_nothing(lab: httpx.Client) -> None:
    body = vm(7, "nve1", dns="Seven.example.org")
    assert lab.post("/v1/vms", json=body).status_code == 201
    assert lab.post("/v1/vms", json=body).status_code == 200
    problem(lab.post("/v1/vms", json=vm(7, "nve1", dns="eight.example.org")), 409)


@pytest.mark.parametrize("dns", ["", ".", "a..b", "*.example.org", "10.0.0.1", "x" * 64 + ".org", 5, ["a"], "wéb.org"])
def test_what_is_no_name(lab: httpx.Client, dns: object) -> None:
    assert fields(lab.post("/v1/vms", json=vm(7, "nve1", dns=dns))) == ["interfaces[0].dns"]


def test_names_in_parts(lab: httpx.Client) -> None:
    for n in range(10, 15):
        assert lab.post("/v1/vms", json=vm(n, "nve1", dns=f"n{n}.example.org")).status_code == 201
    first = lab.get("/v1/names?limit=3")
    assert names(first) == ["n10.example.org", "n11.example.org", "n12.example.org"]
    rest = lab.get("/v1/names", params={"after": first.json()["next"]})
    assert names(rest) == ["n13.example.org", "n14.example.org"]
    assert rest.json()["next"] is None


def test_tenants_give_names_that_are_open_to_them(town: Town) -> None:
    acme, beta, ops = town.of("acme"), town.of("beta"), town.of("ops")
    assert acme.post("/v1/vms", json=guest("a-vm9", "a-net", WEB)).status_code == 201
    assert acme.post("/v1/vms", json=guest("a-vm8", "a-net", "www.example.org", 8)).status_code == 201
    for name in ("acme.example.org", "ns.example.org", "web.beta.example.org", "www.example.org.acme.example.net"):
        refused = acme.post("/v1/vms", json=guest("a-vm7", "a-net", name, 7))
        assert fields(refused) == ["interfaces[0].dns"]
        assert f"name {name} is not open to tenant acme" in refused.text
    assert fields(beta.put("/v1/vms/b-vm2", json={
        **vm(2, "nve2", network="b-net", port="beta-1", dns="b.example.org"), "name": "b-vm2",
    })) == ["interfaces[0].dns"]  # fmt: skip
    # What the operator has given stays, as long as the tenant leaves it as it is.
    given = {**vm(2, "nve2", network="b-net", port="beta-1", dns="b.example.org"), "name": "b-vm2"}
    assert ops.put("/v1/vms/b-vm2", json=given).status_code == 200
    given["interfaces"][0]["ipv4"] = ["10.0.0.77"]
    assert beta.put("/v1/vms/b-vm2", json=given).status_code == 200
    given["interfaces"][0]["dns"] = "c.example.org"
    assert beta.put("/v1/vms/b-vm2", json=given).status_code == 422


def test_who_sees_which_names(town: Town) -> None:
    ops = town.of("ops")
    assert town.of("acme").post("/v1/vms", json=guest("a-vm9", "a-net", WEB)).status_code == 201
    for name, n, network in (("b.example.org", 12, "b-net"), ("o.example.org", 13, "o-net")):
        assert ops.post("/v1/vms", json=guest(f"x{n}", network, name, n)).status_code == 201
    for name in (WEB, "b.example.org", "o.example.org"):
        confirm(town.runtime, name)
    everything = ["b.example.org", "o.example.org", WEB]
    assert names(ops.get("/v1/names")) == names(town.of("eyes").get("/v1/names")) == everything
    assert names(town.of("acme").get("/v1/names")) == [WEB]
    assert names(town.of("beta").get("/v1/names")) == ["b.example.org"]
    problem(town.of("host1").get("/v1/names"), 403)

    def heard(who: str) -> list[str]:
        items = town.of(who).get("/v1/events?follow=0&kind=name.").json()["items"]
        return [item["fields"]["name"] for item in items]

    assert heard("ops") == [WEB, "b.example.org", "o.example.org"]
    assert (heard("acme"), heard("beta"), heard("host1")) == ([WEB], ["b.example.org"], [])
    # A name that is going is still its tenant's.
    assert town.of("acme").delete("/v1/vms/a-vm9").status_code == 204
    assert names(town.of("acme").get("/v1/names")) == [WEB]


def test_the_name_of_somebody_else_is_refused_without_a_word_of_them(town: Town) -> None:
    assert town.of("ops").post("/v1/vms", json=guest("secret", "b-net", WEB, 12)).status_code == 201
    refused = town.of("acme").post("/v1/vms", json=guest("a-vm9", "a-net", WEB))
    assert problem(refused, 409)["detail"] == "this conflicts with what others have registered"
    assert "secret" not in refused.text and "beta" not in refused.text
    told = problem(town.of("ops").post("/v1/vms", json=guest("a-vm9", "a-net", WEB)), 409)
    assert "secret/eth0" in told["detail"]


def test_credentials_open_names_to_tenants_only() -> None:
    entry = {"name": "x", "role": "tenant", "tenant": "x", "dns": ["*.x.example.org"]}
    parsed = credentials.Entry.model_validate(entry)
    assert credentials.described(parsed)["dns"] == ["*.x.example.org"]
    for wrong in ({"dns": ["Upper.example.org"]}, {"dns": ["a b"]}, {"role": "reader", "tenant": None}):
        with pytest.raises((ValidationError, CredentialsUnusable)):
            credentials.Entry.model_validate({**entry, **wrong})


def test_figures(lab: httpx.Client, runtime: LiveRuntime) -> None:
    for n in (11, 12, 13):
        assert lab.post("/v1/vms", json=vm(n, "nve1", dns=f"n{n}.example.org")).status_code == 201
    confirm(runtime, "n11.example.org")
    for _ in range(2):
        wanted = runtime.state.names["n12.example.org"].wanted
        runtime.event(ev.NameFailed("n12.example.org", wanted, "timeout", 1.0))
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(lab.get("/metrics").text)
        for sample in family.samples
        if sample.name.startswith("vmm_name")
    }
    assert found == {
        ("vmm_names", "published"): 1,
        ("vmm_names", "waiting"): 1,
        ("vmm_names", "failing"): 1,
        ("vmm_name_updates_total", "published"): 1,
        ("vmm_name_updates_total", "failed"): 2,
    }


def test_vmm_names(served: Nva) -> None:
    line = "vm add web-9 --network blue --mac 02:00:00:00:00:09 --ip 10.0.0.9 --nve nve1 --port tap-9"
    served.run(f"{line} --dns Web.example.org")
    assert served.json("vm show web-9")["interfaces"][0]["dns"] == "web.example.org"
    shown = served.run("names").stdout
    for word in ("web.example.org", "10.0.0.9", "waiting", "web-9/eth0"):
        assert word in shown
    assert [item["name"] for item in served.json("names --waiting", code=1)["items"]] == ["web.example.org"]
    wanted = served.runtime.state.names["web.example.org"].wanted
    served.runtime.event(ev.NameFailed("web.example.org", wanted, "192.0.2.1:53: REFUSED", 1.0))
    assert "failing" in served.run("names").stdout
    confirm(served.runtime, "web.example.org")
    assert "published" in served.run("names").stdout
    assert served.json("names --waiting")["items"] == []


def test_an_inventory_gives_names(served: Nva) -> None:
    interface = InterfaceInput(
        name="eth0", network="blue", mac="02:00:00:00:00:01", nve="nve1", port="tap-1", dns="A.example.org."
    )
    assert interface.dns == "a.example.org"
    value = interface.value("a", 100)
    assert value.dns == "a.example.org" and replace(value, dns=None).dns is None
