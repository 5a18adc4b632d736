"""Open vSwitch with a full table: what finds no room is left out and named, all else goes on, and moves do."""

from __future__ import annotations

from typing import Any

from proof.hot import made
from proof.lab import Lab

from topologies.rundir import wait_until

FULL = ("--", "--id=@t", "create", "Flow_Table", "overflow_policy=refuse")


def named(lab: Lab, nve: str) -> set[str]:
    fault = lab.get(f"/nves/{nve}")["fault"]
    return set() if fault is None else {each["what"] for each in fault["without"]}


def guest(n: int, nve: str, network: str) -> dict[str, Any]:
    interface = {"name": "eth0", "network": network, "mac": f"02:00:00:00:01:{n:02x}", "ipv4": [f"10.0.200.{n}"]}
    return {"name": f"late{n}", "interfaces": [{**interface, "nve": nve, "port": f"tap-late{n}"}]}


def test_a_table_that_is_full_costs_what_finds_no_room_and_no_more() -> None:
    with Lab(nves=2, vms=2, quiet_time=1.0) as lab:
        vm, peer = lab.vm("vm1"), lab.vm("vm2")
        there = lab.next_nve(vm)
        here = next(nve for nve in lab.net.nves if nve.name != there)
        after = lab.nva.last_event()
        network = lab.get("/vms/vm1")["interfaces"][0]["network"]
        held = len(here.ofctl("dump-flows", "table=20").strip().splitlines()) - 1  # who answers, by address
        here.vsctl(*FULL, f"flow_limit={held}", "--", "set", "bridge", "br-int", "flow_tables:20=@t")
        lab.post("/vms", guest(1, there, network))
        wait_until(lambda: named(lab, here.name), 10, "the fault")
        assert named(lab, here.name) == {f"answers for the addresses of late1/eth0 in network {network}"}
        found = lab.get(f"/nves/{here.name}")
        assert found["in_sync"] and found["fault"]["error"] == "table full"
        assert lab.get("/health")["status"] == "degraded" and lab.verify() == []
        _, document, traffic = made(lab, vm, [peer], 4, there)
        assert (document["state"], document["error"], traffic.lost, traffic.duplicated) == ("settled", None, 0, 0)
        here.vsctl("clear", "bridge", "br-int", "flow_tables")
        wait_until(lambda: not named(lab, here.name), 70, "room to be found", 0.5)
        lab.nva.await_event("nve.with", after, nve=here.name)
        assert lab.get(f"/nves/{here.name}")["fault"] is None and lab.verify() == []
