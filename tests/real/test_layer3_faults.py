"""Layer 3 through what goes wrong: tasks that only announce themselves, edges and NVAs that crash, containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulting.ground import TRUSTING
from proof import layer3
from proof.lab import Lab

from topologies import VM, netns
from topologies.rundir import wait_until


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Tasks are containers: their link loses its carrier as they move, and their neighbor entries go with it."""
    with layer3.laboratory("ipv6", attached={"tasks", "mobile"}, attach="veth", quiet_time=1.0) as made:
        yield made


def like(lab: Lab, vm: VM) -> list[VM]:
    """A task and the clients of its network."""
    return [vm, *(lab.vm(f"{'cli' if vm.vn.name == 'tasks' else 'far'}{n}") for n in (1, 2, 3))]


@pytest.mark.parametrize("announce", ["garp-request", "na", "rarp"])
@pytest.mark.parametrize("name", ["task1", "mob1"])
def test_a_task_that_announces_itself_elsewhere_is_believed(lab: Lab, name: str, announce: str) -> None:
    vm, before = lab.vm(name), lab.newest_move()
    report = vm.move(lab.next_nve(vm), planned=False, announce=announce)
    wait_until(lambda: lab.newest_move() > before, 10, "a move by announcement", 0.02)
    document = lab.await_closed(lab.newest_move())
    assert (document["state"], document["trigger"]) == ("settled", "announcement")
    assert vm.nve.name == report.destination
    lab.net.await_pings(like(lab, vm))
    assert lab.verify() == []


def test_a_container_moves_when_asked(lab: Lab) -> None:
    for name in ("task1", "mob1"):
        vm = lab.vm(name)
        report = vm.move(lab.next_nve(vm), announce="none", settle=20.0)
        lab.await_closed(report.move)
        lab.net.await_pings(like(lab, vm))


def test_an_edge_that_crashes_routes_again_as_before(lab: Lab) -> None:
    """Also by ILA: the flow of br-ext is its host's to make again."""
    nve = lab.net.nve("nve2")
    after = lab.nva.last_event()
    nve.crash()
    nve.restart()
    lab.nva.await_event("nve.synchronised", after, 20.0, nve="nve2")
    lab.await_synced()
    lab.net.await_pings()  # Open vSwitch still has to read its routes and to learn its neighbors
    assert lab.verify() == []


def test_edges_route_without_an_nva_and_it_finds_all_as_it_was(lab: Lab) -> None:
    """Guests trust what they know of the gateway meanwhile: who would answer them is the NVA."""
    for vm in lab.net.vms:
        netns.sysctl(vm.namespace, TRUSTING)
        for family in ("-4", "-6"):  # what was learned before may be about to be asked for again
            netns.run(["ip", family, "-n", vm.namespace, "neigh", "flush", "dev", "eth0"])
    lab.net.await_pings()
    before = {nve.name: nve.flows() for nve in lab.net.nves}
    after = lab.nva.last_event()
    lab.nva.kill()
    lab.net.await_pings()
    lab.nva.start()
    for nve in lab.net.nves:
        lab.nva.await_event("nve.synchronised", after, 20.0, nve=nve.name)
    lab.await_synced()
    assert {nve.name: nve.flows() for nve in lab.net.nves} == before
    vm = lab.vm("mob1")
    report = vm.move(lab.next_nve(vm), announce="none", settle=20.0)
    lab.await_closed(report.move)
    lab.net.await_pings()
    assert lab.verify() == []
