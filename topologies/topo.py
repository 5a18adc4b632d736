"""The overlay as a Mininet `Topo`: names, addresses and who is linked with whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mininet.topo import Topo

from topologies.errors import TopologyError
from topologies.links import TapLink, VethLink
from topologies.nve import NVE
from topologies.specs import Attachment, VMSpec, VNSpec, default_vms, default_vns
from topologies.underlay import Underlay, UnderlayLink
from topologies.vm import VM

UNDERLAYS = ("ipv4", "ipv6", "both")


def truth(value: object) -> bool:
    """A switch given on a command line or in Python: 1, yes, true, on."""
    return str(value).lower() in ("1", "yes", "true", "on")


class OverlayTopo(Topo):  # type: ignore[misc]
    """N NVEs on one underlay and M VMs in one or more VNs.

    nves: how many (nve1, nve2, ...). vms: how many in all, dealt out to VNs and NVEs in turn (see
    `specs.default_vms`), or a list of VMSpec. vns: how many, or a list of VNSpec. underlay: ipv4, ipv6 or
    both. overlap: all VNs use the same addresses. attach: tap (VMs) or veth (containers). datapath: system or
    netdev (default: what the machine has). rest: where the NVA's REST interface is, for `mn`; `none` for do
    not register.
    """

    def build(
        self, nves: int = 3, vms: int | Sequence[VMSpec] = 3, vns: int | Sequence[VNSpec] = 1,
        underlay: str = "ipv4", overlap: object = False, attach: Attachment = "tap", datapath: str | None = None,
        rest: str | None = None, **_params: Any,
    ) -> None:
        if underlay not in UNDERLAYS:
            raise TopologyError(f"underlay {underlay!r} is not one of {', '.join(UNDERLAYS)}")
        if not 1 <= nves <= 250:
            raise TopologyError(f"nves: {nves} is not within 1 to 250")
        self.underlay = underlay
        self.rest = rest
        self.vn_specs = default_vns(vns) if isinstance(vns, int) else list(vns)
        names = [f"nve{i}" for i in range(1, nves + 1)]
        self.vm_specs = (
            default_vms(vms, self.vn_specs, names, truth(overlap), attach) if isinstance(vms, int) else list(vms)
        )
        self._check(names)
        self.addSwitch("und", cls=Underlay)
        for i, name in enumerate(names, 1):
            self.addSwitch(
                name, cls=NVE, dpid=f"{i:016x}", datapath=datapath,
                ipv4=f"192.168.100.{i}/24" if underlay in ("ipv4", "both") else None,
                ipv6=f"fd00:100::{i:x}/64" if underlay in ("ipv6", "both") else None,
            )
            self.addLink(name, "und", cls=UnderlayLink)
        for spec in self.vm_specs:
            self.addHost(spec.name, cls=VM, spec=spec)
            self.addLink(spec.name, spec.nve, cls=TapLink if spec.attach == "tap" else VethLink)

    def _check(self, nves: Sequence[str]) -> None:
        vns = {spec.name for spec in self.vn_specs}
        seen = set()
        for spec in self.vm_specs:
            if spec.nve not in nves:
                raise TopologyError(f"{spec.name}: no NVE {spec.nve!r}; there are {', '.join(nves)}")
            if spec.vn not in vns:
                raise TopologyError(f"{spec.name}: no VN {spec.vn!r}; there are {', '.join(sorted(vns))}")
            if spec.name in seen:
                raise TopologyError(f"two VMs are called {spec.name}")
            seen.add(spec.name)
