"""Shared addresses at the borders: what REST takes and shows."""

from __future__ import annotations

import httpx
import pytest
from live import LiveRuntime
from rest_lab import client, fields, lab, problem, vm

from ryu_vmm import events as ev
from ryu_vmm.addresses import parse_ip, parse_mac
from ryu_vmm.rest.documents import VmDocument
from ryu_vmm.tables import Why, cookie
from ryu_vmm.wire import frames

__all__ = ["client", "lab"]

VIP, VMAC = "10.0.0.100", "00:00:5e:00:01:07"
SHARED = {"shared": [VIP, "2001:db8::100"], "shared_macs": [VMAC]}


def _share(lab: httpx.Client) -> None:
    for n in (1, 2):
        assert lab.put(f"/v1/vms/vm{n}", json=vm(n, f"nve{n}", **SHARED)).status_code == 200


def _take(runtime: LiveRuntime, n: int) -> None:
    frame = frames.build_garp(parse_mac(VMAC), parse_ip(VIP))
    state = runtime.state
    number = next(port.number for port in state.ports.values() if port.name == f"tap-vm{n}")
    runtime.event(ev.PacketSeen(n, number, cookie(Why.RESOLVE), frame))


def test_the_holder_is_shown(lab: httpx.Client, runtime: LiveRuntime) -> None:
    _share(lab)
    document = VmDocument.model_validate(lab.get("/v1/vms/vm1").json()).interfaces[0]
    assert [(s.address, s.holder) for s in document.shared] == [(VIP, None), ("2001:db8::100", None)]
    _take(runtime, 2)
    for n in (1, 2):
        document = VmDocument.model_validate(lab.get(f"/v1/vms/vm{n}").json()).interfaces[0]
        assert (document.shared[0].holder, document.shared[0].mac) == ("vm2/eth0", VMAC)
        assert (document.shared_macs[0].mac, document.shared_macs[0].holder) == (VMAC, "vm2/eth0")
    for query in (f"ip={VIP}", f"mac={VMAC}"):
        (entry,) = lab.get(f"/v1/directory?{query}").json()["items"]
        assert entry["vm"] == "vm2"
    assert lab.get("/v1/directory?ip=2001:db8::100").json()["items"] == []


def test_the_same_registration_again_changes_nothing(lab: httpx.Client) -> None:
    body = vm(7, "nve1", **SHARED)
    assert lab.post("/v1/vms", json=body).status_code == 201
    assert lab.post("/v1/vms", json=body).status_code == 200
    problem(lab.post("/v1/vms", json=vm(7, "nve1")), 409)


def test_the_refusal_of_a_second_owner_says_how(lab: httpx.Client) -> None:
    body = vm(2, "nve2")
    body["interfaces"][0]["ipv4"].append("10.0.0.1")
    assert "registered with each as shared" in problem(lab.put("/v1/vms/vm2", json=body), 409)["detail"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"shared": ["10.0.0.300"]}, "shared[0]"),
        ({"shared": [VIP, VIP]}, "shared"),
        ({"shared": VIP}, "shared"),
        ({"shared_macs": ["01:00:5e:00:00:01"]}, "shared_macs[0]"),
        ({"shared": ["10.0.0.1"]}, ""),
        ({"shared_macs": ["02:00:00:00:00:01"]}, ""),
    ],
)
def test_what_cannot_be_shared_is_refused(lab: httpx.Client, wrong: dict[str, object], field: str) -> None:
    (found,) = fields(lab.put("/v1/vms/vm1", json=vm(1, "nve1", **wrong)))
    assert found == f"interfaces[0].{field}".rstrip(".")
