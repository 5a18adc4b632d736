"""What a topology is made of, as plain data: VNs and VMs, and the default way to number them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any, Literal

from topologies.errors import TopologyError

Attachment = Literal["tap", "veth"]
Kind = Literal["l2", "l3"]
GATEWAY_MAC = "02:76:6d:00:00:01"
MTU = 1450  # of the guests: what fits into the underlay's 1500 bytes after VXLAN over IPv4


@dataclass(frozen=True)
class Gateway:
    """The default router of a network's guests: at every NVE the same addresses and the same MAC."""

    ipv4: str | None = "169.254.1.1"
    ipv6: str | None = "fe80::1"
    mac: str = GATEWAY_MAC

    def body(self) -> dict[str, Any]:
        """As the NVA's REST interface takes it."""
        return {"ipv4": self.ipv4, "ipv6": self.ipv6, "mac": self.mac}


@dataclass(frozen=True)
class VNSpec:
    """A tenant's network: its name, VNI (1 to 16777215) and policy as the NVA's REST interface takes it.

    kind: "l2", an Ethernet segment, or "l3", an IP network in which the NVE is every guest's router. gateway: that
    router (an l2 network has none unless it is given). subnets: (prefix, name of the NVE that it belongs to). sir: the
    /64 whose addresses move by identifier-locator addressing. router: networks of the same router are routed between.
    """

    name: str
    vni: int
    policy: dict[str, Any] = field(default_factory=dict)
    kind: Kind = "l2"
    gateway: Gateway | None = None
    subnets: tuple[tuple[str, str], ...] = ()
    sir: str | None = None
    router: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("l2", "l3"):
            raise TopologyError(f"{self.name}: kind {self.kind!r} is neither l2 nor l3")
        if self.kind == "l2" and (self.subnets or self.sir):
            raise TopologyError(f"{self.name}: subnets of NVEs and a SIR prefix are of networks of kind l3")
        if self.kind == "l3" and self.gateway is None:
            object.__setattr__(self, "gateway", Gateway())

    def reaches(self, other: VNSpec) -> bool:
        """Whether guests of the two networks are meant to reach each other."""
        return self.name == other.name or (self.router is not None and self.router == other.router)

    def body(self) -> dict[str, Any]:
        """What registers it with the NVA; what an l2 network without a router does not have is left out."""
        found: dict[str, Any] = {"name": self.name, "vni": self.vni}
        if self.policy:
            found["policy"] = self.policy
        if self.kind != "l2":
            found["kind"] = self.kind
        if self.gateway is not None:
            found["gateway"] = self.gateway.body()
        if self.subnets:
            found["subnets"] = [{"prefix": prefix, "nve": nve} for prefix, nve in self.subnets]
        found.update({key: value for key, value in (("sir", self.sir), ("router", self.router)) if value is not None})
        return found


@dataclass(frozen=True)
class VMSpec:
    """A VM with one interface: where it starts and what it is called.

    Addresses carry their prefix length ("10.0.0.1/24"; /24 and /64 where it is missing); either may be None.
    `attach` is "tap" (a VM, through the vnic process) or "veth" (a container). At most 11 characters of name. `dns`:
    the name under which its addresses are published. `leave`: what NVEs answer for an address that it has left, as
    {"answer": "unreachable", "seconds": 60}; None: what its network's policy says.
    """

    name: str
    vn: str
    nve: str
    mac: str
    ipv4: str | None = None
    ipv6: str | None = None
    attach: Attachment = "tap"
    mtu: int = MTU
    dns: str | None = None
    leave: dict[str, Any] | None = None

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


def routes(vn: VNSpec, ipv4: str | None, ipv6: str | None) -> list[str]:
    """`ip` commands that give a guest's eth0 its addresses, and its default routes where the network has a gateway.

    In an l3 network nothing but the gateway is on the link, however long an address's prefix is.
    """
    lines = []
    alone = " noprefixroute" if vn.kind == "l3" else ""
    gateway = vn.gateway or Gateway(None, None)
    if ipv4:
        lines.append(f"addr replace {ipv4} dev eth0{alone if not ipv4.endswith('/32') else ''}")
        if gateway.ipv4:
            lines.append(f"route replace default via {gateway.ipv4} dev eth0 onlink")
    if ipv6:
        lines.append(f"addr replace {ipv6} dev eth0 nodad{alone if not ipv6.endswith('/128') else ''}")
        if gateway.ipv6:
            lines.append(f"route replace ::/0 via {gateway.ipv6} dev eth0 onlink")
    return lines


def default_vns(
    count: int, policy: dict[str, Any] | None = None, kind: Kind = "l2", nves: Sequence[str] = (), ila: bool = False
) -> list[VNSpec]:
    """`count` networks vn1, vn2, ... with VNIs 100, 200, ...

    Of kind l3, the k-th has the subnets 10.k.n.0/24 and 2001:db8:k:n::/64 at the n-th NVE; with `ila` also the SIR
    prefix 2001:db8:5:k::/64.
    """
    if kind == "l2":
        return [VNSpec(f"vn{k}", 100 * k, dict(policy or {})) for k in range(1, count + 1)]
    return [
        VNSpec(
            f"vn{k}", 100 * k, dict(policy or {}), kind, subnets=subnets(k, nves),
            sir=f"2001:db8:5:{k:x}::/64" if ila else None,
        )
        for k in range(1, count + 1)
    ]


def subnets(k: int, nves: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The subnets of the k-th network of layer 3: an IPv4 and an IPv6 one at each NVE."""
    found = []
    for n, nve in enumerate(nves, 1):
        found += [(f"10.{k}.{n}.0/24", nve), (f"2001:db8:{k:x}:{n:x}::/64", nve)]
    return tuple(found)


def task(
    name: str, vn: VNSpec, nve: str, ipv4: str | None, ipv6: str | None, number: int, **more: Any
) -> VMSpec:
    """A task of a network of layer 3, with host addresses (/32, /128) where no prefix length is given.

    `number`, 1 to 65535, makes its MAC together with the network's VNI.
    """
    if not 1 <= number <= 0xFFFF:
        raise TopologyError(f"{name}: number {number} is not within 1 to 65535")
    mac = "02:" + (vn.vni << 16 | number).to_bytes(5).hex(":")
    wanted = [None if address is None else address if "/" in address else f"{address}/{length}"
              for address, length in ((ipv4, 32), (ipv6, 128))]
    return VMSpec(name, vn.name, nve, mac, ipv4=wanted[0], ipv6=wanted[1], **more)


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
    every VN counts as the first: two VNs use the same addresses, MAC addresses included. In networks of layer 3 the
    i-th is 10.k.n.i and 2001:db8:k:n::i at the n-th NVE, or with a SIR prefix that and ::k:i.
    """
    if any(vn.kind == "l3" for vn in vns):
        if overlap:
            raise TopologyError("the default numbering has no networks of layer 3 with the same addresses")
        return _tasks(count, vns, nves, attach)
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


def _tasks(count: int, vns: Sequence[VNSpec], nves: Sequence[str], attach: Attachment) -> list[VMSpec]:
    specs = []
    for number in range(count):
        k, i = number % len(vns), number // len(vns)
        n, vn = i % len(nves), vns[number % len(vns)]
        if i + 1 > 254:
            raise TopologyError("the default numbering ends at 254 tasks in each network")
        # ILA carries no network's number: an identifier is one guest's in all networks
        ipv6 = vn.sir.partition("::")[0] + f"::{k + 1:x}" if vn.sir else f"2001:db8:{k + 1:x}:{n + 1:x}:"
        specs.append(task(
            f"vm{number + 1}", vn, nves[n], f"10.{k + 1}.{n + 1}.{i + 1}", f"{ipv6}:{i + 1:x}", i + 1, attach=attach
        ))
    return specs
