"""The NVA is dead, and guests' kernels ask again: edges go on as last told, answers included."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from proof import layer3
from proof.lab import Lab

from topologies import VM
from topologies.netns import inside, run
from topologies.rundir import wait_until
from topologies.specs import GATEWAY_MAC

SECONDS = 20.0  # what a kernel may take for its questions, on a machine that does other things beside


@pytest.fixture(scope="module")
def routed() -> Iterator[Lab]:
    """Tasks and clients of layer 3 networks, and a layer 2 network with a gateway; all have been pinged from all."""
    with layer3.laboratory("ipv4", nves=2, routed="none") as made:
        yield made


@pytest.fixture(scope="module")
def bridged() -> Iterator[Lab]:
    """Two layer 2 networks with the same addresses; one guest has moved since it was last spoken to."""
    with Lab(nves=3, vms=6, vns=2, overlap=True, quiet_time=1.0) as made:
        mover = made.vm("vm1")
        report = mover.move(made.next_nve(mover))
        made.await_closed(report.move)
        yield made


@contextlib.contextmanager
def away(lab: Lab) -> Iterator[None]:
    """Without an NVA; afterwards there is one, and all is as it should be."""
    lab.nva.kill()
    try:
        yield
    finally:
        lab.nva.start()
        lab.await_synced()
    assert lab.verify() == []


def neighbors(vm: VM) -> list[dict[str, str]]:
    """A guest kernel's neighbor entries that are, or have been, of use."""
    found = json.loads(run(inside(vm.namespace, ["ip", "-json", "neigh"])))
    return [
        {"dst": entry["dst"], "dev": entry["dev"], "lladdr": entry["lladdr"], "state": entry["state"][0]}
        for entry in found
        if "lladdr" in entry
    ]


def gateways(vm: VM) -> list[dict[str, str]]:
    """Of those, the gateway's."""
    return [entry for entry in neighbors(vm) if entry["lladdr"] == GATEWAY_MAC]


def forget(vm: VM) -> None:
    """Empty a guest's neighbor tables."""
    for family in ("-4", "-6"):
        run(inside(vm.namespace, ["ip", family, "neigh", "flush", "all"]))


def addresses(vm: VM) -> list[str]:
    return [address for address in (vm.spec.ip, vm.spec.ip6) if address]


def reaches(vm: VM, address: str) -> bool:
    """Whether a ping comes back within the time a kernel needs for its questions."""
    return vm.pexec(["ping", "-c", "1", "-W", "3", address])[2] == 0


def test_guests_of_layer_3_find_their_gateway_again_and_again(routed: Lab) -> None:
    """Their kernels ask of all, and later of the gateway alone (RFC 4861 section 7.3)."""
    pairs = [("task1", "cli2"), ("cli2", "task1"), ("mob1", "cli1"), ("desk1", "task1")]
    with away(routed):
        for source, target in pairs:
            vm = routed.vm(source)
            forget(vm)
            for address in addresses(routed.vm(target)):
                assert reaches(vm, address), f"{source} to {address}"
            assert len(gateways(vm)) == 2, neighbors(vm)
            for entry in gateways(vm):
                command = ["ip", "neigh", "change", entry["dst"], "lladdr", GATEWAY_MAC, "dev", entry["dev"]]
                run(inside(vm.namespace, [*command, "nud", "probe"]))
            wait_until(
                lambda vm=vm: [e["state"] for e in gateways(vm)] == ["REACHABLE"] * 2,  # type: ignore[misc]
                SECONDS,
                f"{source} has been answered by its gateway",
            )


def test_guests_of_layer_2_find_each_other(bridged: Lab) -> None:
    """Each network's own, though addresses are the same; the one that has moved, too."""
    with away(bridged):
        for vm in bridged.net.vms:
            forget(vm)
        for vm in bridged.net.vms:
            beside = [other for other in bridged.net.vms if other.vn is vm.vn and other is not vm]
            assert len(beside) == 2
            for other in beside:
                for address in addresses(other):
                    assert reaches(vm, address), f"{vm.name} to {other.name}"
                macs = {e["lladdr"] for e in neighbors(vm) if e["dst"] in addresses(other)}
                assert macs == {other.spec.mac}, (vm.name, other.name)
