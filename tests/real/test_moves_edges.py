"""Moves that do not go as planned, on real switches and under traffic: aborts, unproven paths, stale correspondents."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from proof.lab import Lab

from ryu_vmm.tables import Why, cookie
from topologies import NVE, VM
from topologies.rundir import wait_until
from topologies.traffic.session import Outcome, Pair, UdpSession, both_ways

RATE = 1000.0
PROBES = "table=0,priority=60000,cookie=0xbad,in_port=1,tun_id=0xffefff,actions=drop"
FOREIGN = "cookie=0xbad/-1"
QUIET = 3.0  # seconds of silence that end a move: what is done while it drains takes some time, too


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(nves=4, vms=3, quiet_time=QUIET, prepare_deadline=3.0, sample_pause=0.2) as made:
        yield made


def pairs(lab: Lab, vm: VM) -> list[Pair]:
    """Both ways between the VM and the two others, one over IPv4 and one over IPv6."""
    others = [other for other in lab.net.vms if other is not vm]
    return [pair for family, other in zip((4, 6), others, strict=True) for pair in both_ways(vm, other, family, RATE)]


def ask(lab: Lab, vm: VM, destination: str, **more: object) -> str:
    """Request a move; its number."""
    return str(lab.post("/moves", {"vm": vm.name, "to": destination, "kind": "hot", **more})["id"])


@contextmanager
def prepared_port(lab: Lab, vm: VM, destination: str) -> Iterator[NVE]:
    """The VM's port at the destination, as a hypervisor makes it; in the end it goes, as after an abort."""
    nve = lab.net.nve(destination)
    vm.attachment.prepare(nve)
    try:
        yield nve
    finally:
        vm.attachment.unprepare(nve)


def untouched(lab: Lab, number: str, source: str, outcome: Outcome, vm: VM) -> None:
    """The VM is served at its source as if nothing had been asked."""
    document = lab.await_closed(number)
    assert document["redirect_in_force"] is False
    interface = lab.get(f"/vms/{vm.name}")["interfaces"][0]
    assert (interface["nve"], interface["epoch"]) == (source, 1)
    assert outcome.duplicated == outcome.foreign == outcome.dropped == 0
    assert lab.verify() == []


# --- before the VM runs at its destination, everything can be undone -------------------------------------------------
def test_abort_while_preparing_loses_nothing(lab: Lab) -> None:
    """The paths cannot be proven, since the destination drops the probes; meanwhile the move is called off."""
    vm = lab.vm("vm1")
    source, destination = vm.nve.name, lab.next_nve(vm)
    lab.net.nve(destination).ofctl("add-flow", PROBES)
    try:
        with UdpSession(pairs(lab, vm), quiet=0.4) as session, prepared_port(lab, vm, destination):
            number = ask(lab, vm, destination)
            time.sleep(0.5)  # traffic while probes go unanswered
            assert lab.move(number)["state"] == "preparing"
            refusal = lab.refused("POST", f"/moves/{number}/redirect")
            assert refusal.status == 409
            assert lab.post(f"/moves/{number}/abort", {"why": "changed my mind"})["state"] == "aborted"
            time.sleep(0.3)
            outcome = session.stop()
    finally:
        lab.net.nve(destination).ofctl("del-flows", FOREIGN)
    assert outcome.lost == 0
    untouched(lab, number, source, outcome, vm)
    assert lab.move(number)["history"][-1]["why"] == "changed my mind"


def test_a_path_that_cannot_be_proven_fails_the_move(lab: Lab) -> None:
    vm = lab.vm("vm1")
    source, destination = vm.nve.name, "nve3"
    lab.net.nve(destination).ofctl("add-flow", PROBES)
    try:
        with UdpSession(pairs(lab, vm), quiet=0.4) as session:
            number = ask(lab, vm, destination)
            document = lab.await_closed(number)
            outcome = session.stop()
    finally:
        lab.net.nve(destination).ofctl("del-flows", FOREIGN)
    assert document["state"] == "failed"
    assert "no probe crossed from nve1 to nve3" in document["error"]
    assert "nve3 to nve1" not in document["error"]  # that way they did
    assert outcome.lost == 0
    untouched(lab, number, source, outcome, vm)


def test_abort_when_prepared_loses_nothing(lab: Lab) -> None:
    vm = lab.vm("vm1")
    source, destination = vm.nve.name, lab.next_nve(vm)
    with UdpSession(pairs(lab, vm), quiet=0.4) as session, prepared_port(lab, vm, destination):
        number = ask(lab, vm, destination)
        lab.await_state(number, "prepared")
        time.sleep(0.3)
        assert lab.post(f"/moves/{number}/abort")["state"] == "aborted"
        time.sleep(0.3)
        outcome = session.stop()
    assert outcome.lost == 0
    untouched(lab, number, source, outcome, vm)


def redirected(source: NVE, number: str) -> int:
    """Packets that an NVE has redirected for a move, by its flows' counters."""
    text = source.ofctl("dump-flows", f"cookie={cookie(Why.REDIRECT, int(number)):#x}/-1")
    return sum(int(packets) for packets in re.findall(r"n_packets=(\d+)", text))


def test_abort_after_the_redirect_loses_only_what_waits_at_the_destination(lab: Lab) -> None:
    """The hypervisor has said that it is about to pause, then gives up: the VM never stopped.

    What was redirected waits in the destination's port, and goes with it. Not one packet more is missing.
    """
    vm = lab.vm("vm1")
    source, destination = vm.nve.name, lab.next_nve(vm)
    with UdpSession(pairs(lab, vm), quiet=0.4) as session, prepared_port(lab, vm, destination) as nve:
        number = ask(lab, vm, destination)
        lab.await_state(number, "prepared")
        lab.post(f"/moves/{number}/redirect")
        wait_until(lambda: lab.move(number)["redirect_in_force"], 5, "the redirect in force")
        wait_until(lambda: redirected(vm.nve, number) > 0, 5, "packets to be redirected", 0.02)
        assert lab.post(f"/moves/{number}/abort")["state"] == "aborted"
        lab.await_closed(number)
        time.sleep(0.3)
        outcome = session.stop()
        waiting = vm.lab.vnic.ask("empty", vm=vm.name, nve=nve.name)["left"]
    incoming = sum(flow.count.lost for flow in outcome.flows if flow.pair.target is vm)
    assert sum(flow.count.lost for flow in outcome.flows if flow.pair.source is vm) == 0
    assert 0 < incoming <= waiting <= incoming + 20  # neighbor probes wait there too
    untouched(lab, number, source, outcome, vm)


def test_abort_is_refused_once_the_vm_runs_at_its_destination(lab: Lab) -> None:
    vm = lab.vm("vm1")
    report = vm.move(lab.next_nve(vm), announce="garp-request")
    lab.await_state(report.move, "steering", "draining")
    refusal = lab.refused("POST", f"/moves/{report.move}/abort")
    assert refusal.status == 409
    assert "already runs at the destination" in str(refusal)
    assert lab.await_closed(report.move)["state"] == "settled"
    assert lab.verify() == []


def test_the_same_announcement_again_changes_nothing(lab: Lab) -> None:
    vm = lab.vm("vm1")
    before = lab.newest_move()
    epoch = lab.get("/vms/vm1")["interfaces"][0]["epoch"]
    for kind in ("garp-request", "garp-reply", "na", "rarp"):
        vm.announce(kind)
    with UdpSession(pairs(lab, vm), quiet=0.4) as session:
        time.sleep(1.0)  # RARP is repeated for 0.8 s
        outcome = session.stop()
    assert outcome.lost == outcome.duplicated == 0
    assert lab.newest_move() == before
    assert lab.get("/vms/vm1")["interfaces"][0]["epoch"] == epoch
    assert lab.verify() == []


def test_the_same_request_again_is_the_same_move(lab: Lab) -> None:
    vm = lab.vm("vm1")
    destination = lab.next_nve(vm)
    number = ask(lab, vm, destination, request_id="once")
    assert ask(lab, vm, destination, request_id="once") == number
    assert lab.refused("POST", "/moves", {"vm": vm.name, "to": destination}).status == 409
    lab.post(f"/moves/{number}/abort")
    assert lab.await_closed(number)["state"] == "aborted"
    assert ask(lab, vm, destination, request_id="once") == number  # also later


# --- a correspondent that goes on sending to the source --------------------------------------------------------------
def delivering(nve: NVE, vm: VM) -> tuple[str, str]:
    """The (match, actions) of the flow by which an NVE sends to a VM elsewhere, as ovs-ofctl reads them."""
    for line in nve.flows():
        found = re.search(rf"(table=40, priority=95,\S*dl_dst={vm.spec.mac}\S*) actions=(\S+)", line)
        if found:
            return found[1].replace(" ", ""), found[2]
    raise AssertionError(f"{nve.name} does not send to {vm.name}")


def test_a_stale_correspondent_is_found_and_corrected(lab: Lab) -> None:
    """While the move drains, the flow of a correspondent NVE is bent back to the source.

    Its packets still arrive, by way of the redirect; they give it away; its flow is put right.
    """
    vm = lab.vm("vm1")
    if vm.nve.name != "nve4":  # with nobody else at the source or at the destination
        lab.await_closed(vm.move("nve4").move)
    bent = lab.net.nve("nve3")
    match, old = delivering(bent, vm)
    after = lab.nva.last_event()
    with UdpSession(pairs(lab, vm), quiet=0.4) as session:
        time.sleep(0.3)
        report = vm.move("nve1", announce="na", quiet=0.1)
        lab.await_state(report.move, "draining")
        began = time.time()  # from here on the NVA may find out and be done before we have looked at anything
        modify(bent, match, old)
        stale = lab.nva.await_event("correspondent.stale", after, move=int(report.move or 0), nve="nve3")
        wait_until(lambda: delivering(bent, vm)[1] != old, 5, "the flow to be put right")
        corrected = time.time()
        assert delivering(bent, vm)[1] == old.replace("192.168.100.4", "192.168.100.1")
        document = lab.await_closed(report.move)
        outcome = session.stop()
    assert stale["fields"]["nve"] == "nve3"
    assert stale["fields"]["source"] == "nve4"
    assert [(flow.name, flow.count.lost) for flow in outcome.flows if flow.count.lost] == []
    ledger = document["ledger"]
    assert document["state"] == "settled"
    assert ledger["redirected"] == ledger["arrived"]
    found = {one["nve"]: one for one in ledger["stale"]}
    assert found["nve3"]["corrected"] >= 1
    assert found["nve2"]["corrected"] == 0
    # what the bent flow sent for as long as it stood, the ledger shows as late and as nve3's
    assert ledger["late_packets"] >= 1
    assert began < found["nve3"]["until"] < corrected + 1.0
    assert lab.verify() == []


def modify(nve: NVE, match: str, actions: str) -> None:
    """Change a flow's actions behind the NVA's back; its cookie stays."""
    nve.ofctl("mod-flows", "--strict", f"{match},actions={actions}")
