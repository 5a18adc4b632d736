"""An overlay programmed by hand: the flows an NVA would make, written with ovs-ofctl, to test the test bed itself."""

from __future__ import annotations

import itertools
import json
from functools import partial
from ipaddress import ip_address

from topologies import netns
from topologies.net import OverlayNet
from topologies.nve import ILA_OFPORT, NVE, ROUTED_OFPORT
from topologies.rundir import wait_until
from topologies.specs import GATEWAY_MAC
from topologies.vm import VM

CLASSIFY, DELIVER = 0, 1
MULTICAST = "01:00:00:00:00:00/01:00:00:00:00:00"


def tunnel(here: NVE, there: NVE, port: str = "output:1") -> str:
    """The actions that send a packet from one NVE to another."""
    if here.ipv4 and there.ipv4:
        a, b = here.ipv4.partition("/")[0], there.ipv4.partition("/")[0]
        return f"set_field:{a}->tun_src,set_field:{b}->tun_dst,{port}"
    assert here.ipv6
    assert there.ipv6
    a, b = here.ipv6.partition("/")[0], there.ipv6.partition("/")[0]
    return f"set_field:{a}->tun_ipv6_src,set_field:{b}->tun_ipv6_dst,{port}"


class Hand:
    """Programs all NVEs of a net; each VN keeps to itself by its VNI."""

    def __init__(self, net: OverlayNet) -> None:
        self.net = net
        self._vni = {vn.name: vn.vni for vn in net.topo.vn_specs}
        for nve in net.nves:
            self.program(nve)
        self.warm_up()

    def vni(self, vm: VM) -> int:
        return int(self._vni[vm.spec.vn])

    def local(self, nve: NVE, vm: VM) -> list[str]:
        """What an NVE needs for a VM of its own."""
        port, vni = nve.ofport(vm.spec.port), self.vni(vm)
        return [
            f"table={CLASSIFY},in_port={port},actions=set_field:{vni}->tun_id,goto_table:{DELIVER}",
            f"table={DELIVER},priority=10,tun_id={vni},dl_dst={vm.spec.mac},actions=output:{port}",
        ]

    def remote(self, nve: NVE, vm: VM, there: NVE) -> str:
        """What an NVE needs to reach a VM elsewhere."""
        match = f"table={DELIVER},priority=10,tun_id={self.vni(vm)},dl_dst={vm.spec.mac}"
        return f"{match},actions={tunnel(nve, there)}"

    def program(self, nve: NVE) -> None:
        """Everything one NVE needs."""
        flows = [f"table={CLASSIFY},in_port=1,actions=goto_table:{DELIVER}"]
        for vm in self.net.vms:
            flows += self.local(nve, vm) if vm.nve is nve else [self.remote(nve, vm, vm.nve)]
        for name, vni in self._vni.items():
            members = [vm for vm in self.net.vms if vm.spec.vn == name]
            here = [f"output:{nve.ofport(vm.spec.port)}" for vm in members if vm.nve is nve]
            others = [tunnel(nve, other) for other in self.net.nves if other is not nve]
            match = f"table={DELIVER},tun_id={vni},dl_dst={MULTICAST}"
            flows.append(f"{match},priority=5,in_port=1,actions={','.join(here) or 'drop'}")
            flows.append(f"{match},priority=4,actions={','.join(here + others)}")
        nve.ofctl("add-flows", "-", stdin="\n".join(flows))

    def warm_up(self) -> None:
        """Wait until every underlay neighbor is resolved: Open vSwitch drops the packet that starts that."""
        for one, other in itertools.permutations(self.net.nves, 2):
            wait_until(partial(self._knows, one, other), 10, f"{one.name} to know {other.name}", 0.02)

    @staticmethod
    def _knows(one: NVE, other: NVE) -> bool:
        """Whether an NVE has the neighbor's MAC address. If not, a packet is sent there, so that it asks for it."""
        wanted = ip_address((other.ipv4 or other.ipv6 or "").partition("/")[0])
        first = (line.split()[0] for line in one.appctl("tnl/neigh/show").splitlines() if ":" in line)
        if str(wanted) in first:
            return True
        one.ofctl("packet-out", f"in_port=controller packet={'ff' * 12}88b5{'00' * 46} actions={tunnel(one, other)}")
        return False

    # --- a move ---------------------------------------------------------------------------------------

    def prepare(self, vm: VM, there: NVE) -> None:
        """The destination delivers to the VM's new port."""
        there.ofctl("add-flows", "-", stdin="\n".join(self.local(there, vm)))

    def redirect(self, vm: VM, there: NVE) -> None:
        """The source sends what still comes for the VM on to the destination."""
        here, match = vm.nve, f"table={DELIVER},tun_id={self.vni(vm)},dl_dst={vm.spec.mac}"
        here.ofctl("add-flows", "-", stdin="\n".join([
            f"{match},priority=20,in_port=1,actions={tunnel(here, there, 'in_port')}",
            f"{match},priority=10,actions={tunnel(here, there)}",
        ]))

    def steer(self, vm: VM, there: NVE) -> None:
        """Everybody else sends straight to the destination."""
        for nve in self.net.nves:
            if nve is not there:
                nve.ofctl("add-flow", self.remote(nve, vm, there))

    def settle(self, vm: VM, source: NVE) -> None:
        """The redirect goes."""
        source.ofctl("del-flows", f"table={DELIVER},tun_id={self.vni(vm)},dl_dst={vm.spec.mac},in_port=1")


class Routes:
    """Routes inside every network of layer 3, without an NVA: where tasks are now, and by what the NVEs have.

    The guests are told the gateway's MAC address; nobody answers them ARP or ND.
    """

    def __init__(self, net: OverlayNet) -> None:
        self.net = net
        self.tasks = [vm for vm in net.vms if vm.vn.kind == "l3"]
        for vm in self.tasks:
            assert vm.vn.gateway is not None
            netns.ip_batch(vm.namespace, *(
                f"neigh replace {address} lladdr {GATEWAY_MAC} dev eth0"
                for address in (vm.vn.gateway.ipv4, vm.vn.gateway.ipv6) if address
            ))
        for nve in net.nves:
            nve.ofctl("add-flows", "-", stdin="\n".join(self.flows(nve)))

    def flows(self, nve: NVE) -> list[str]:
        """Everything one NVE needs."""
        found = [f"table=0,in_port={port},actions=goto_table:1" for port in (1, ROUTED_OFPORT)]
        for vm in self.tasks:
            if vm.nve is nve:
                found.append(
                    f"table=0,in_port={nve.ofport(vm.spec.port)},dl_dst={GATEWAY_MAC},"
                    f"actions=set_field:{vm.vn.vni}->tun_id,goto_table:1"
                )
            for address in filter(None, (vm.spec.ip, vm.spec.ip6)):
                found += self._to(nve, vm, address)
        return found

    def _to(self, nve: NVE, vm: VM, address: str) -> list[str]:
        name = "ipv6,ipv6_dst" if ":" in address else "ip,nw_dst"
        match = f"table=1,tun_id={vm.vn.vni},{name}={address}"
        if vm.nve is nve:
            local = (f"set_field:{GATEWAY_MAC}->eth_src,set_field:{vm.spec.mac}->eth_dst,"
                     f"output:{nve.ofport(vm.spec.port)}")
            found = [f"{match},actions={local}"]
            if self._moves(vm, address):
                found.append(f"table=0,in_port={ILA_OFPORT},ipv6,ipv6_dst={locator(nve, address)},"
                             f"actions=set_field:{address}->ipv6_dst,{local}")
            return found
        if self._moves(vm, address):
            return [f"{match},actions=dec_ttl,set_field:{locator(vm.nve, address)}->ipv6_dst,"
                    f"set_field:02:76:69:00:00:{nve.dpid[-2:]}->eth_src,"
                    f"set_field:{self._next_hop(nve, vm.nve)}->eth_dst,output:{ILA_OFPORT}"]
        port = ROUTED_OFPORT if nve.routed and vm.nve.routed else 1
        return [f"{match},actions=dec_ttl,{tunnel(nve, vm.nve, f'output:{port}')}"]

    @staticmethod
    def _moves(vm: VM, address: str) -> bool:
        return vm.vn.sir is not None and address.startswith(vm.vn.sir.partition("::")[0] + "::")

    def _next_hop(self, here: NVE, there: NVE) -> str:
        """The MAC address of the other NVE, or of the underlay's router on the way there."""
        node, interface = (self.net.underlay, here.name) if here.router else (there, "br-ext")
        [link] = json.loads(netns.run(["ip", "-n", node.namespace, "-json", "link", "show", interface]))
        return str(link["address"])


def locator(nve: NVE, address: str) -> str:
    """An address by which a task is reached at an NVE: its locator with the task's identifier."""
    assert nve.locator is not None
    return nve.locator.partition("::")[0] + "::" + address.partition("::")[2]
