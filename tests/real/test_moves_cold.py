"""Cold moves, and networks whose locations are pulled, on real switches."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from faulting.ground import TRUSTING
from proof.lab import Lab

from ryu_vmm.tables import Why, cookie
from topologies import NVE, VM, VNSpec, netns
from topologies.rundir import wait_until
from topologies.traffic.session import UdpSession, both_ways

IDLE = 3  # seconds that a pulled entry lasts without traffic: counters are some half second old
QUIET = 3.0  # seconds of silence that end a move: what is done or looked at while it drains takes some time, too


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """vn1 is pushed: vm1, vm3, vm5. vn2 is pulled: vm2, vm4, vm6. One of each at every NVE."""
    vns = [VNSpec("vn1", 100), VNSpec("vn2", 200, {"distribution": "pull", "idle_timeout": IDLE})]
    with Lab(nves=3, vms=6, vns=vns, quiet_time=QUIET) as made:
        for vm in made.net.vms:  # guests that probe their neighbors cause entries, and questions, of their own
            netns.sysctl(vm.namespace, TRUSTING)
        yield made


def entries(nve: NVE, vm: VM) -> list[str]:
    """The flows by which an NVE sends its VMs' packets to a VM elsewhere."""
    wanted = rf"table=40,.*priority=95\b.*dl_dst={vm.spec.mac}"
    return [flow for flow in nve.flows() if re.search(wanted, flow)]


def unchanged(lab: Lab) -> int:
    """How many misses the NVA has heard of, once that stands still; else 0."""
    before: int = lab.nva.counters("packet_ins")["miss"]
    time.sleep(0.5)
    return before if lab.nva.counters("packet_ins")["miss"] == before else 0


def reaches(one: VM, other: VM) -> bool:
    """Whether a single ping comes back, IPv4 and IPv6."""
    return all(
        one.pexec(["ping", "-c", "1", "-W", "1", address])[2] == 0 for address in (other.spec.ip, other.spec.ip6)
    )


def redirecting(lab: Lab, number: str | int) -> list[str]:
    """The flows of any NVE that redirect, or would, for a move."""
    why = [f"{cookie(reason, int(number)):#x}" for reason in (Why.REDIRECT, Why.STALE)]
    return [flow for nve in lab.net.nves for flow in nve.flows() if any(w in flow for w in why) and "IN_PORT" in flow]


def test_pulled_entries_come_on_first_use_and_go_when_idle(lab: Lab) -> None:
    """Section 4.1's pull: an NVE asks, keeps the answer while it is used, and asks again."""
    mover, asker = lab.vm("vm2"), lab.vm("vm4")
    wait_until(lambda: not entries(asker.nve, mover), IDLE + 5, "the entry of the first pings to time out", 0.1)
    misses = lab.nva.counters("packet_ins").get("miss", 0)
    assert reaches(asker, mover)
    assert len(entries(asker.nve, mover)) == 1
    assert f"idle_timeout={IDLE}" in entries(asker.nve, mover)[0]
    asked = lab.nva.counters("packet_ins")["miss"]
    assert asked > misses
    third = lab.vm("vm6")
    wait_until(lambda: not entries(third.nve, mover), IDLE + 5, "no entry at an NVE that never asked", 0.1)
    # while it is used it stays, and the NVA hears no more of it
    with UdpSession(both_ways(asker, mover, 4, 200.0), quiet=0.3) as session:
        wait_until(lambda: entries(asker.nve, mover) and entries(mover.nve, asker), 5, "both entries", 0.05)
        used = wait_until(lambda: unchanged(lab), 5, "the misses of before the entries to be taken in")
        time.sleep(IDLE * 2)
        assert lab.nva.counters("packet_ins")["miss"] == used
        outcome = session.stop()
    assert outcome.lost == outcome.duplicated == 0
    wait_until(lambda: not entries(asker.nve, mover), IDLE + 5, "the entry to time out", 0.1)
    lab.await_synced()
    assert lab.verify() == []
    assert reaches(asker, mover)
    assert lab.nva.counters("packet_ins")["miss"] > used


@pytest.mark.parametrize("name", ["vm1", "vm2"], ids=["push", "pull"])
def test_a_cold_move_needs_no_redirect(lab: Lab, name: str) -> None:
    """Section 7: the VM is shut down here and started there; nothing is on its way to it, so nothing is redirected."""
    vm = lab.vm(name)
    others = [other for other in lab.net.vms if other.spec.vn == vm.spec.vn and other is not vm]
    source, destination = vm.nve, lab.next_nve(vm)
    report = vm.move(destination, kind="cold", pause=0.3, announce="garp-request")
    lab.await_state(report.move, "draining")
    assert redirecting(lab, report.move or 0) == []
    document = lab.await_closed(report.move)
    assert [step["state"] for step in document["history"]] == [
        "preparing", "prepared", "steering", "draining", "settled",
    ]  # fmt: skip
    assert (document["kind"], document["redirect"]) == ("cold", "none")
    assert document["ledger"]["redirected"]["packets"] == document["ledger"]["arrived"]["packets"] == 0
    assert all(reaches(vm, other) and reaches(other, vm) for other in others)
    assert lab.get(f"/vms/{name}")["interfaces"][0]["nve"] == destination != source.name
    lab.await_synced()
    assert lab.verify() == []


def test_a_cold_move_in_a_pulled_network_whose_entry_has_timed_out(lab: Lab) -> None:
    """An NVE that held no entry during the move asks afterwards and is told the new place."""
    vm = lab.vm("vm2")
    asker = next(lab.vm(name) for name in ("vm4", "vm6") if lab.vm(name).nve is not lab.net.nve(lab.next_nve(vm)))
    wait_until(lambda: not entries(asker.nve, vm), IDLE + 5, "the entry to time out", 0.1)
    report = vm.move(lab.next_nve(vm), kind="cold", pause=0.2, announce="na")
    assert lab.await_closed(report.move)["state"] == "settled"
    # the guest's own kernel may have asked meanwhile
    wait_until(lambda: not entries(asker.nve, vm), IDLE + 5, "no entry to be left", 0.1)
    misses = lab.nva.counters("packet_ins")["miss"]
    assert reaches(asker, vm)
    assert lab.nva.counters("packet_ins")["miss"] > misses
    (entry,) = entries(asker.nve, vm)
    assert (vm.nve.ipv4 or "").partition("/")[0] in entry
    lab.await_synced()
    assert lab.verify() == []


def test_a_packet_that_shows_up_at_a_cold_moves_source_is_brought(lab: Lab) -> None:
    """A correspondent that was not steered: its first packet is brought by the NVA, the rest is redirected."""
    vm, source = lab.vm("vm1"), lab.vm("vm1").nve
    sender = next(lab.vm(name) for name in ("vm3", "vm5") if lab.vm(name).nve is not source)
    destination = next(nve for nve in lab.net.nves if nve not in (source, sender.nve))
    (own,) = entries(sender.nve, vm)
    bent = re.sub(r"^cookie=\S+, |priority=95", lambda m: "cookie=0xbad," if m[0][0] == "c" else "priority=999", own)
    report = vm.move(destination, kind="cold", pause=0.2, announce="garp-request")
    lab.await_state(report.move, "draining")
    sender.nve.ofctl("add-flow", bent.replace(" actions=", ",actions="))
    try:
        with UdpSession(both_ways(sender, vm, 4, 500.0), quiet=0.4) as session:
            wait_until(lambda: redirecting(lab, report.move or 0), 5, "a redirect after all", 0.02)
            time.sleep(0.3)
            sender.nve.ofctl("del-flows", "cookie=0xbad/-1")
            document = lab.await_closed(report.move)
            outcome = session.stop()
    finally:
        sender.nve.ofctl("del-flows", "cookie=0xbad/-1")
    assert [(flow.name, flow.count.lost) for flow in outcome.flows if flow.count.lost] == []
    assert document["state"] == "settled"
    ledger = document["ledger"]
    assert ledger["redirected"]["packets"] > 50
    assert ledger["arrived"]["packets"] >= ledger["redirected"]["packets"]  # those that the NVA brought are marked, too
    assert source.name == document["source"]
    lab.await_synced()
    assert lab.verify() == []


def test_a_hot_move_in_a_pulled_network_loses_nothing(lab: Lab) -> None:
    vm = lab.vm("vm2")
    others = [lab.vm(name) for name in ("vm4", "vm6")]
    with UdpSession([p for o in others for p in both_ways(vm, o, 6, 1000.0)], quiet=0.4) as session:
        time.sleep(0.5)
        report = vm.move(lab.next_nve(vm), announce="garp-reply", quiet=0.1)
        document = lab.await_closed(report.move)
        time.sleep(0.2)
        outcome = session.stop()
    assert document["state"] == "settled"
    assert outcome.lost == outcome.duplicated == outcome.foreign == 0
    assert document["ledger"]["redirected"] == document["ledger"]["arrived"]
    assert document["ledger"]["redirected"]["packets"]
    lab.await_synced()
    assert lab.verify() == []
