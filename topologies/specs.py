"""What a topology is made of, as plain data: VNs and VMs, and the default way to number them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any, Literal

from topologies.errors import TopologyError

Attachment = Literal["tap", "veth"]
MTU = 1450  # of the guests: what fits into the underlay's 1500 bytes after VXLAN over IPv4


@dataclass(frozen=True)
class VNSpec:
    """A tenant's network: its name, VNI (1 to 16777215) and policy as the NVA's REST interface takes it."""

    name: str
    vni: int
    policy: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VMSpec:
    """A VM with one interface: where it starts and what it is called.

    Addresses carry their prefix length ("10.0.0.1/24"; /24 and /64 where it is missing); either may be None.
    `attach` is "tap" (a VM, through the vnic process) or "veth" (a container). At most 11 characters of name.
    """

    name: str
    vn: str
    nve: str
    mac: str
    ipv4: str | None = None
    ipv6: str | None = None
    attach: Attachment = "tap"
    mtu: int = MTU

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 11:
            raise TopologyError(f"VM name {self.name!r}: 1 to 11 characters, so that its port's name fits")
        for attribute, prefix in (("ipv4", 24), ("ipv6", 64)):
            address = getattr(self, attribute)
            if address:
                try:
                    interface = ip_interface(address if "/" in address else f"{address}/{prefix}")
                except ValueError as exc:
                    raise TopologyError(f"{self.name}: {attribute}: {exc}") from exc
                object.__setattr__(self, attribute, str(interface))

    @property
    def port(self) -> str:
        """The name of the VM's port at every NVE."""
        return ("tap-" if self.attach == "tap" else "vif-") + self.name

    @property
    def ip(self) -> str | None:
        """The IPv4 address without its prefix length."""
        return self.ipv4.partition("/")[0] if self.ipv4 else None

    @property
    def ip6(self) -> str | None:
        """The IPv6 address without its prefix length."""
        return self.ipv6.partition("/")[0] if self.ipv6 else None


def default_vns(count: int, policy: dict[str, Any] | None = None) -> list[VNSpec]:
    """`count` networks vn1, vn2, ... with VNIs 100, 200, ..."""
    return [VNSpec(f"vn{i}", 100 * i, dict(policy or {})) for i in range(1, count + 1)]


def crowd(count: int, nves: int = 3) -> list[VMSpec]:
    """`count` VMs vm1, vm2, ... all on nve1 and in vn1, and a VM peer2, peer3, ... on each other NVE.

    The i-th VM is 10.0.0.i, 2001:db8::i and 02:00:00:00:00:i, the peer on the k-th NVE 10.0.0.(200+k) and so on.
    """
    if count > 200 or nves > 54:
        raise TopologyError("a crowd has at most 200 VMs, and 53 peers")
    places = [(f"vm{i}", "nve1", i) for i in range(1, count + 1)]
    places += [(f"peer{k}", f"nve{k}", 200 + k) for k in range(2, nves + 1)]
    return [
        VMSpec(name, "vn1", nve, f"02:00:00:00:00:{i:02x}", f"10.0.0.{i}/24", f"2001:db8::{i:x}/64")
        for name, nve, i in places
    ]


def default_vms(
    count: int, vns: Sequence[VNSpec], nves: Sequence[str], overlap: bool = False, attach: Attachment = "tap"
) -> list[VMSpec]:
    """`count` VMs vm1, vm2, ...: dealt out to the VNs in turn, and inside each VN to the NVEs in turn.

    The i-th VM of the k-th VN is 10.0.(k-1).i, 2001:db8:0:(k-1)::i and 02:00:00:00:(k-1):i. With `overlap`
    every VN counts as the first: two VNs use the same addresses, MAC addresses included.
    """
    specs = []
    for number in range(count):
        k, i = number % len(vns), number // len(vns)
        net = 0 if overlap else k
        if i + 1 > 254 or net > 255:
            raise TopologyError("the default numbering ends at 254 VMs in each of 256 networks")
        specs.append(VMSpec(
            f"vm{number + 1}", vns[k].name, nves[i % len(nves)], f"02:00:00:00:{net:02x}:{i + 1:02x}",
            f"10.0.{net}.{i + 1}/24", f"2001:db8:0:{net:x}::{i + 1:x}/64", attach,
        ))
    return specs
