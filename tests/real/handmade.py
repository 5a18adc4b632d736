"""An overlay programmed by hand: the flows an NVA would make, written with ovs-ofctl, to test the test bed itself."""

from __future__ import annotations

from topologies.net import OverlayNet
from topologies.nve import NVE
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
        """Resolve every underlay neighbour: Open vSwitch drops the packet that starts that."""
        for one in self.net.nves:
            for other in self.net.nves:
                if one is not other:
                    one.ofctl("packet-out", f"in_port=controller packet={'ff' * 12}88b5{'00' * 46} "
                                            f"actions={tunnel(one, other)}")

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
