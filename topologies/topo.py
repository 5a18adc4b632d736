"""The overlay as a Mininet `Topo`: names, addresses and who is linked with whom."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from mininet.topo import Topo

from topologies.errors import TopologyError
from topologies.links import TapLink, VethLink
from topologies.nve import NVE
from topologies.specs import Attachment, Kind, VMSpec, VNSpec, default_vms, default_vns
from topologies.tap import MOST_QUEUE, QUEUE
from topologies.underlay import Underlay, UnderlayLink
from topologies.vm import VM

UNDERLAYS = ("ipv4", "ipv6", "both")


def truth(value: object) -> bool:
    """A switch given on a command line or in Python: 1, yes, true, on."""
    return str(value).lower() in ("1", "yes", "true", "on")


def _addresses(number: int, underlay: str, routing: bool) -> dict[str, Any]:
    """An NVE's underlay addresses, and its router's: one subnet for all without a router, else one for each."""
    ipv4 = f"192.168.{100 + number if routing else 100}.{1 if routing else number}/24"
    ipv6 = f"fd00:100:{number:x}::1/64" if routing else f"fd00:100::{number:x}/64"
    has4, has6 = underlay in ("ipv4", "both"), underlay in ("ipv6", "both")
    routers = ((has4, f"192.168.{100 + number}.254"), (has6, f"fd00:100:{number:x}::fe"))
    return {
        "ipv4": ipv4 if has4 else None, "ipv6": ipv6 if has6 else None,
        "router": tuple(router for has, router in routers if has and routing),
    }


class OverlayTopo(Topo):  # type: ignore[misc]
    """N NVEs on one underlay and M VMs in one or more VNs.

    nves: how many (nve1, nve2, ...). vms: how many in all, dealt out to VNs and NVEs in turn (see
    `specs.default_vms`), or a list of VMSpec. vns: how many, or a list of VNSpec. underlay: ipv4, ipv6 or
    both. overlap: all VNs use the same addresses. attach: tap (VMs) or veth (containers). datapath: system or
    netdev (default: what the machine has). rest: where the NVA's REST interface is, for `mn`; `none` for do
    not register.

    kind: "l3" makes `vns` networks of layer 3 and the VMs their tasks (see `specs.default_vns`). routed: "gre" gives
    the NVEs a port for tunnels without Ethernet headers; a list of names, only these NVEs. ila: they have locators
    fd00:1:0:1::/64 and so on, and networks of layer 3 SIR prefixes; needs IPv6 in the underlay. routing: the underlay
    is a router, and every NVE in a subnet of its own. queue: frames that a VM's tap at a hypervisor holds while the VM
    is paused; the kernel's own is 1,000.
    """

    def build(
        self, nves: int = 3, vms: int | Sequence[VMSpec] = 3, vns: int | Sequence[VNSpec] = 1,
        underlay: str = "ipv4", overlap: object = False, attach: Attachment = "tap", datapath: str | None = None,
        rest: str | None = None, kind: Kind = "l2", routed: str | Sequence[str] | None = None, ila: object = False,
        routing: object = False, queue: int = QUEUE, **unknown: Any,
    ) -> None:
        if unknown:
            known = list(inspect.signature(OverlayTopo.build).parameters)[1:-1]
            raise TopologyError(f"no parameter {', '.join(unknown)}; there are {', '.join(known)}")
        given: dict[str, object] = {"nves": nves, "vms": vms, "vns": vns, "queue": queue}
        for name, value in given.items():
            if isinstance(value, str | float):
                raise TopologyError(f"{name}: {value!r} is not a number")
        if underlay not in UNDERLAYS:
            raise TopologyError(f"underlay {underlay!r} is not one of {', '.join(UNDERLAYS)}")
        if not 1 <= nves <= 250:
            raise TopologyError(f"nves: {nves} is not within 1 to 250")
        if not 1 <= queue <= MOST_QUEUE:
            raise TopologyError(f"queue: {queue} is not within 1 to {MOST_QUEUE}")
        self.underlay = underlay
        self.rest = rest
        self.queue = queue
        names = [f"nve{i}" for i in range(1, nves + 1)]
        self.vn_specs = default_vns(vns, kind=kind, nves=names, ila=truth(ila)) if isinstance(vns, int) else list(vns)
        self.vm_specs = (
            default_vms(vms, self.vn_specs, names, truth(overlap), attach) if isinstance(vms, int) else list(vms)
        )
        self._check(names)
        self.addSwitch("und", cls=Underlay, routing=truth(routing))
        for i, name in enumerate(names, 1):
            has_gre = routed is not None and (isinstance(routed, str) or name in routed)
            self.addSwitch(
                name, cls=NVE, dpid=f"{i:016x}", datapath=datapath,
                routed=(routed if isinstance(routed, str) else "gre") if has_gre else None,
                locator=f"fd00:1:0:{i:x}::/64" if truth(ila) else None,
                **_addresses(i, underlay, truth(routing)),
            )
            self.addLink(name, "und", cls=UnderlayLink)
        for spec in self.vm_specs:
            self.addHost(spec.name, cls=VM, spec=spec, vn=self.vn(spec.vn))
            self.addLink(spec.name, spec.nve, cls=TapLink if spec.attach == "tap" else VethLink)

    def vn(self, name: str) -> VNSpec:
        """A network by name. Raises TopologyError where there is none."""
        for spec in self.vn_specs:
            if spec.name == name:
                return spec
        raise TopologyError(f"no VN {name!r}; there are {', '.join(sorted(spec.name for spec in self.vn_specs))}")

    def _check(self, nves: Sequence[str]) -> None:
        for vn in self.vn_specs:
            if unknown := {nve for _, nve in vn.subnets} - set(nves):
                raise TopologyError(f"{vn.name}: subnets of no NVE {', '.join(sorted(unknown))}")
        seen = set()
        for spec in self.vm_specs:
            if spec.nve not in nves:
                raise TopologyError(f"{spec.name}: no NVE {spec.nve!r}; there are {', '.join(nves)}")
            self.vn(spec.vn)
            if spec.name in seen:
                raise TopologyError(f"two VMs are called {spec.name}")
            seen.add(spec.name)
