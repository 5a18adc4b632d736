"""Switches that refuse flows, stores that are locked or full: refused whole, recorded, and well again afterwards."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from benchmarks.overlay import Guest, network_body, nve_body, switch
from proof.authority import Authority
from proof.lab import Lab

from ryu_vmm.emulation.client import Emulation
from topologies.errors import ApiError
from topologies.rundir import wait_until
from topologies.traffic.session import UdpSession, both_ways

TABLE_FULL = "OpenFlow error type 5 code 1"
WITHOUT = "it goes without the way to vm1/eth0 in network vn1 (table full)"


# --- switches that refuse --------------------------------------------------------------------------------------------
class Emulated:
    """Three emulated NVEs with a VM each under a real NVA; switches fail to order."""

    def __init__(self, nva: Authority, switches: Emulation) -> None:
        self.nva, self.switches = nva, switches
        self.guests = [Guest(n, n) for n in (1, 2, 3)]
        self.mover = self.guests[0]
        switches.add([switch(n, self.guests) for n in (1, 2, 3)])
        for n in (1, 2, 3):
            self.call("POST", "/nves", nve_body(n))
        self.call("POST", "/networks", network_body())
        for guest in self.guests:
            self.call("POST", "/vms", guest.body())
        self.synced()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return self.nva.rest.call(method, path, body)

    def synced(self) -> None:
        def done() -> bool:
            found = self.call("GET", "/nves")["items"]
            return all(n["in_sync"] and n["generation"]["programmed"] == n["generation"]["realised"] for n in found)

        wait_until(done, 20, "all NVEs to be in sync", 0.05)

    def reach(self, number: int, *states: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            found: dict[str, Any] = self.call("GET", f"/moves/{number}")
            return found if found["state"] in states else None

        document: dict[str, Any] = wait_until(reached, 20, f"move {number}: {states}", 0.02)
        return document

    def verified(self) -> None:
        self.synced()
        for n in (1, 2, 3):
            found = self.call("POST", f"/nves/nve{n}/verify")
            assert found["in_sync"], found
            assert found["tunnel_to_tunnel"] == []


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[Emulated]:
    with Authority(tmp_path, quiet_time=1.0) as nva, Emulation(nva.address) as switches:
        yield Emulated(nva, switches)


@pytest.mark.parametrize("refusing", [1, 2], ids=["source", "destination"])
def test_a_refused_flow_before_the_vm_has_moved_fails_the_move(emulated: Emulated, refusing: int) -> None:
    """With the switch's error in the record; the switch is read back and put right; the VM is where it was."""
    lab = emulated
    after = lab.nva.last_event()
    if refusing == 2:  # its first flow of the preparation
        lab.switches.call("faults", dpid=2, refuse_flow_mods=1)
        number = lab.call("POST", "/moves", {"vm": "vm1", "to": "nve2"})["id"]
    else:  # the redirect itself
        number = lab.call("POST", "/moves", {"vm": "vm1", "to": "nve2"})["id"]
        lab.reach(number, "prepared")
        lab.switches.call("port", dpid=2, name=lab.mover.port, state="up")
        lab.switches.call("faults", dpid=1, refuse_flow_mods=1)
        lab.call("POST", f"/moves/{number}/redirect")
    document = lab.reach(number, "failed")
    # and, if the hypervisor had been about to pause the VM by then, what puts it right if it runs at nve2 after all
    assert document["error"].partition(";")[0] == f"nve{refusing} refused a flow: {TABLE_FULL}"
    assert document["error"].startswith(document["history"][-1]["why"])
    refused = lab.nva.await_event("nve.refused", after, nve=f"nve{refusing}")
    assert (refused["fields"]["type"], refused["fields"]["code"]) == (5, 1)
    lab.nva.await_event("nve.synchronised", refused["id"], nve=f"nve{refusing}")
    assert lab.call("GET", "/vms/vm1")["interfaces"][0]["nve"] == "nve1"
    lab.verified()
    # and it goes well the next time
    lab.switches.call("port", dpid=2, name=lab.mover.port, state="up")
    number = lab.call("POST", "/moves", {"vm": "vm1", "to": "nve2"})["id"]
    lab.reach(number, "prepared")
    lab.call("POST", f"/moves/{number}/redirect")
    wait_until(lambda: lab.call("GET", f"/moves/{number}")["redirect_in_force"], 5, "the redirect")
    lab.switches.call("inject", dpid=2, port=lab.mover.port, frame=lab.mover.announcement().hex())
    assert lab.reach(number, "settled")["error"] is None
    lab.verified()


def test_a_refused_flow_after_the_vm_has_moved_is_recorded_and_mended(emulated: Emulated) -> None:
    """A correspondent refuses to be steered: the VM is served at its destination all the same, the record says both."""
    lab = emulated
    after = lab.nva.last_event()
    number = lab.call("POST", "/moves", {"vm": "vm1", "to": "nve2"})["id"]
    lab.reach(number, "prepared")
    lab.switches.call("port", dpid=2, name=lab.mover.port, state="up")
    lab.call("POST", f"/moves/{number}/redirect")
    wait_until(lambda: lab.call("GET", f"/moves/{number}")["redirect_in_force"], 5, "the redirect")
    lab.switches.call("faults", dpid=3, refuse_flow_mods=1)
    lab.switches.call("inject", dpid=2, port=lab.mover.port, frame=lab.mover.announcement().hex())
    document = lab.reach(number, "failed", "settled")
    assert document["state"] == "failed"
    assert document["error"] == f"nve3 refused a flow: {TABLE_FULL}; {WITHOUT}"
    assert [step["state"] for step in document["history"]][-3:] == ["steering", "draining", "failed"]
    assert lab.call("GET", "/vms/vm1")["interfaces"][0]["nve"] == "nve2"
    lab.nva.await_event("nve.synchronised", after, nve="nve3")
    lab.verified()


def test_a_switch_that_refuses_for_good_does_not_keep_the_nva_busy(emulated: Emulated) -> None:
    lab = emulated
    after = lab.nva.last_event()
    lab.switches.call("faults", dpid=2, refuse_flow_mods=1000)
    number = lab.call("POST", "/moves", {"vm": "vm1", "to": "nve2"})["id"]
    assert lab.reach(number, "failed")["error"] == f"nve2 refused a flow: {TABLE_FULL}; {WITHOUT}"
    lab.nva.await_event("nve.refused", after, nve="nve2")
    assert lab.call("GET", "/vms/vm1")["interfaces"][0]["nve"] == "nve1"
    lab.switches.call("faults", dpid=2, refuse_flow_mods=0)
    lab.verified()


# --- stores that fail ------------------------------------------------------------------------------------------------
@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Another program holds the database."""
    with closing(sqlite3.connect(store, isolation_level=None, timeout=10)) as other:
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Not a byte more fits onto the disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                if file.write(b"\0" * size) < size:
                    size //= 2
            except OSError:
                size //= 2
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "ryu_vmm-test", str(tmp_path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def requests(lab: Lab) -> list[tuple[str, str, Any]]:
    """Every kind of request that changes something."""
    eth0 = {"name": "eth0", "network": "vn1", "mac": "02:00:00:00:99:09", "nve": "nve1", "port": "p9"}
    vm9 = {"name": "vm9", "interfaces": [eth0]}
    vm10 = {"name": "vm10", "interfaces": [{**eth0, "mac": "02:00:00:00:99:10", "port": "p10"}]}
    return [
        ("POST", "/nves", {"name": "nve9", "dpid": "0000000000000009", "ipv4": "192.168.100.9"}),
        ("POST", "/networks", {"name": "vn9", "vni": 900}),
        ("POST", "/vms", [vm9, vm10]),
        ("PUT", "/vms/vm1", lab.body(lab.vm("vm1").spec, ipv4=["10.0.0.98"])),
        ("DELETE", "/vms/vm3", None),
        ("POST", "/moves", {"vm": "vm1", "to": "nve2", "request_id": "again"}),
    ]


def everything(lab: Lab) -> dict[str, Any]:
    """All that the NVA says it knows, and all flows of all switches."""
    known = {what: lab.get(f"/{what}") for what in ("networks", "vms", "moves", "directory")}
    known["nves"] = [{**nve, "generation": None} for nve in lab.get("/nves")["items"]]
    return {**known, "flows": {nve.name: nve.flows() for nve in lab.net.nves}}


def refuses_whole(lab: Lab, store: Path, failing: Any) -> None:
    """Every request is refused with 503 while the store fails, nothing is half done, and all works afterwards."""
    with UdpSession(both_ways(lab.vm("vm1"), lab.vm("vm2"), 4, 500.0), quiet=0.4) as session:
        before, records = everything(lab), contents(store)
        with failing:
            for method, path, body in requests(lab):
                refusal = lab.refused(method, path, body)
                assert (refusal.status, refusal.problem["code"]) == (503, "store-unavailable"), refusal
            assert lab.refused("GET", "/ready").status == 503
            assert everything(lab) == before
        assert contents(store) == records
        wait_until(lambda: ready(lab), 5, "the NVA to be ready again", 0.05)
        assert everything(lab) == before
        number = lab.post("/moves", {"vm": "vm1", "to": "nve2", "request_id": "again"})["id"]
        lab.await_state(number, "prepared")
        lab.post(f"/moves/{number}/abort")
        lab.await_closed(number)
        outcome = session.stop()
    assert outcome.lost == outcome.duplicated == 0  # what forwards goes on forwarding
    lab.post("/networks", {"name": "vn9", "vni": 900})
    assert lab.verify() == []


def contents(store: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        return sorted(db.execute("SELECT kind, key, doc FROM record"))


def ready(lab: Lab) -> bool:
    try:
        return bool(lab.get("/ready")["ready"])
    except ApiError:
        return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(nves=3, vms=3, attached={"vn1"}, folder=tmp_path_factory.mktemp("nva"), quiet_time=1.0) as made:
        yield made


def test_requests_are_refused_while_the_store_is_locked(lab: Lab) -> None:
    refuses_whole(lab, lab.nva.store, locked(lab.nva.store))


def test_an_announcement_waits_for_the_store(lab: Lab) -> None:
    """What switches report cannot be refused: it is taken in once the record can be written, and not before."""
    vm = lab.vm("vm1")
    destination = lab.next_nve(vm)
    before = {nve.name: nve.flows() for nve in lab.net.nves}
    after, moves = lab.nva.last_event(), lab.newest_move()
    with locked(lab.nva.store):
        vm.move(destination, announce="garp-request", planned=False)
        wait_until(lambda: "try again" in lab.nva.tail(5), 5, "the NVA to meet the lock", 0.05)
        assert lab.newest_move() == moves
        others = [nve.name for nve in lab.net.nves if nve.name not in (vm.nve.name, "nve1")]
        assert all(lab.net.nve(name).flows() == before[name] for name in others)
    number = lab.nva.await_event("move.state", after, vm="vm1", state="draining")["fields"]["move"]
    assert lab.await_closed(number)["state"] == "settled"
    assert lab.get("/vms/vm1")["interfaces"][0]["nve"] == destination
    assert lab.net.pingAll() == 0
    assert lab.verify() == []


def test_requests_are_refused_while_the_disk_is_full(small_disk: Path) -> None:
    with Lab(nves=3, vms=3, attached={"vn1"}, folder=small_disk, quiet_time=1.0) as made:
        refuses_whole(made, made.nva.store, full(small_disk))


def test_two_authorities_do_not_share_a_store(lab: Lab, tmp_path: Path) -> None:
    """The second one ends at once and says why."""
    second = Authority(tmp_path, store=lab.nva.store)
    with pytest.raises(Exception, match="in use by another NVA") as caught:
        second.start()
    assert str(os.getpid()) not in str(caught.value)
    assert lab.verify() == []
