"""Kernels of guests follow an address to another holder: taken over, moved with a virtual MAC, of a VM made anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from proof import raw
from proof.lab import Lab
from proof.raw import Card, ip, mac

from ryu_vmm.wire import frames
from topologies import VM, netns
from topologies.rundir import wait_until

VIP, VIP6, VMAC = "10.0.0.100", "2001:db8::100", "00:00:5e:00:01:07"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """vm1 and vm2 share an address of each family and a virtual MAC; vm3 uses them."""
    with Lab(nves=3, vms=3, quiet_time=1.0) as made:
        for name in ("vm1", "vm2"):
            vm = made.vm(name)
            body = made.body(vm.spec, nve=vm.nve.name, shared=[VIP, VIP6], shared_macs=[VMAC])
            made.nva.rest.call("PUT", f"/vms/{name}", body)
        made.await_synced()
        yield made


def reaches(vm: VM, address: str) -> bool:
    return vm.pexec(["ping", "-n", "-c", "1", "-W", "1", address])[2] == 0


def take(vm: VM, announced: str) -> None:
    """The guest has the shared addresses from now on, and says so once."""
    netns.ip_batch(vm.namespace, f"addr add {VIP}/32 dev eth0", f"addr add {VIP6}/128 dev eth0 nodad")
    with Card(vm) as card:
        card.send(raw.arp(1, mac(announced), ip(VIP), bytes(6), ip(VIP)))
        card.send(frames.build_unsolicited_na(mac(announced), ip(VIP6)))


def give_up(vm: VM) -> None:
    netns.ip_batch(vm.namespace, f"addr del {VIP}/32 dev eth0", f"addr del {VIP6}/128 dev eth0")


def holders(lab: Lab) -> set[str]:
    return {row["holder"] for row in lab.get("/vms/vm1")["interfaces"][0]["shared"]}


def test_a_service_address_fails_over(lab: Lab) -> None:
    one, two, client = (lab.vm(name) for name in ("vm1", "vm2", "vm3"))
    for master in (one, two, one):
        take(master, master.spec.mac)
        wait_until(lambda name=master.name: holders(lab) == {f"{name}/eth0"}, 5.0, "the address is held")
        for address in (VIP, VIP6):  # the client's kernel held the former holder's MAC to be right
            wait_until(lambda address=address: reaches(client, address), 3.0, f"{address} is reached")
        give_up(master)
    assert lab.verify() == []


def test_a_virtual_mac_moves_along_with_its_holder(lab: Lab) -> None:
    """As keepalived's use_vmac: the address is at a device with the virtual MAC. Nothing sent there is lost."""
    vm, client = lab.vm("vm1"), lab.vm("vm3")
    netns.ip_batch(
        vm.namespace,
        f"link add vrrp0 link eth0 address {VMAC} type macvlan mode private",
        "link set vrrp0 up",
        f"addr add {VIP}/32 dev vrrp0",
    )
    netns.sysctl(vm.namespace, {"net/ipv4/conf/all/arp_ignore": 1})
    try:
        with Card(vm) as card:
            card.send(raw.arp(1, mac(VMAC), ip(VIP), bytes(6), ip(VIP)))
        wait_until(lambda: reaches(client, VIP), 5.0, "the address is reached")
        assert VMAC in netns.run(["ip", "-n", client.namespace, "neigh", "show", VIP])
        pings = client.popen(["ping", "-n", "-c", "60", "-i", "0.05", "-W", "2", VIP])
        number = vm.move("nve2").move
        lab.await_closed(number)
        said = pings.communicate(timeout=20)[0]
        assert "60 received" in (said.decode() if isinstance(said, bytes) else said)
        assert lab.get("/vms/vm1")["interfaces"][0]["shared_macs"][0]["holder"] == "vm1/eth0"
        assert lab.verify() == []
    finally:
        netns.ip_batch(vm.namespace, "link del vrrp0")


def test_a_vm_made_anew_is_reached_by_who_knew_the_old_one(lab: Lab) -> None:
    vm, client, link = lab.vm("vm2"), lab.vm("vm3"), "02:00:00:00:77:02"
    for address in (vm.spec.ip, vm.spec.ip6):
        wait_until(lambda address=address: reaches(client, address), 5.0, f"{address} is reached")
    lab.nva.rest.call("DELETE", "/vms/vm2")
    netns.ip_batch(vm.namespace, f"link set eth0 address {link}", "neigh flush dev eth0")
    lab.post("/vms", lab.body(vm.spec, mac=link, nve=vm.nve.name))
    for address in (vm.spec.ip, vm.spec.ip6):  # a kernel that is not told goes on with the old MAC for seconds
        wait_until(lambda address=address: reaches(client, address), 5.0, f"{address} is reached again")
        known = netns.run(["ip", "-n", client.namespace, "neigh", "show", str(address)])
        assert link in known
    assert lab.verify() == []
