"""How topologies number networks and guests of layer 3, and what registers them."""

from __future__ import annotations

import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from ryu_vmm.schema import NetworkInput, VmInput
from topologies import TopologyError, VMSpec, VNSpec
from topologies.layer3 import networks, tasks_of
from topologies.rest import vm_body
from topologies.specs import Gateway, default_vms, default_vns, routes, task

NVES = ["nve1", "nve2", "nve3"]


@pytest.mark.parametrize("ila", [False, True])
def test_default_tasks_belong_to_their_edges_subnets_and_have_identifiers_of_their_own(ila: bool) -> None:
    vns = default_vns(3, kind="l3", nves=NVES, ila=ila)
    specs = default_vms(30, vns, NVES)
    by_name = {vn.name: vn for vn in vns}
    for spec in specs:
        vn = by_name[spec.vn]
        home = [ip_network(prefix) for prefix, nve in vn.subnets if nve == spec.nve]
        assert spec.ip and spec.ip6
        assert any(ip_address(spec.ip) in prefix for prefix in home)
        inside = [ip_network(vn.sir)] if vn.sir else home
        assert any(ip_address(spec.ip6) in prefix for prefix in inside)
    identifiers = [ip_address(spec.ip6 or "").packed[8:] for spec in specs]
    assert not ila or len(set(identifiers)) == len(specs)
    assert len({spec.mac for spec in specs}) == len({spec.ip for spec in specs}) == len(specs)


@pytest.mark.parametrize("ila", [False, True])
def test_what_registers_a_ready_topology_is_what_rest_takes(ila: bool) -> None:
    vns = networks(NVES, ila, {"other": {"mtu": 1300}})
    for vn in vns.values():
        value = NetworkInput.model_validate(vn.body()).value()
        assert (value.kind, value.router, value.gateway is None) == (vn.kind, vn.router, False)
        assert len(value.subnets) == len(vn.subnets)
        assert (value.sir is not None) == (ila and vn.name == "mobile")
    for spec in tasks_of(vns, NVES, 2):
        body = vm_body(VMSpec(**{**vars(spec), "dns": "task.example.org", "leave": {"answer": "drop", "seconds": 9}}))
        assert VmInput.model_validate(body).leave is not None
        assert body["interfaces"][0]["dns"] == "task.example.org"
    assert VNSpec("vn1", 100).body() == {"name": "vn1", "vni": 100}  # a plain network says nothing of layer 3


def test_guests_have_routes_by_their_gateway() -> None:
    l3, l2 = default_vns(1, kind="l3", nves=NVES)[0], VNSpec("office", 7, gateway=Gateway("10.3.0.254", None))
    assert routes(l3, "10.1.1.1/32", "2001:db8::1/128") == [
        "addr replace 10.1.1.1/32 dev eth0", "route replace default via 169.254.1.1 dev eth0 onlink",
        "addr replace 2001:db8::1/128 dev eth0 nodad", "route replace ::/0 via fe80::1 dev eth0 onlink",
    ]  # fmt: skip
    assert routes(l3, "10.1.1.1/24", None)[0] == "addr replace 10.1.1.1/24 dev eth0 noprefixroute"
    assert routes(l2, "10.3.0.1/24", "2001:db8::1/64") == [
        "addr replace 10.3.0.1/24 dev eth0", "route replace default via 10.3.0.254 dev eth0 onlink",
        "addr replace 2001:db8::1/64 dev eth0 nodad",
    ]  # fmt: skip


@pytest.mark.parametrize(("make", "words"), [
    (lambda: VNSpec("a", 1, kind="l4"), "neither l2 nor l3"),  # type: ignore[arg-type]
    (lambda: VNSpec("a", 1, sir="2001:db8::/64"), "of networks of kind l3"),
    (lambda: default_vms(2, default_vns(1, kind="l3", nves=NVES), NVES, overlap=True), "no networks of layer 3"),
    (lambda: task("a", VNSpec("a", 1), "nve1", None, None, 0), "not within 1 to 65535"),
    (lambda: tasks_of(networks(NVES), NVES, 100), "not within 0 to 99"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(make: object, words: str) -> None:
    with pytest.raises(TopologyError, match=words):
        make()  # type: ignore[operator]
