"""What may be sent to the NVA: the pydantic models of requests, shared by REST, inventory and ``vmm``.

Unknown fields are refused, and so is anything that is not plainly what a field wants: no number for a text,
no text, float or boolean for a number. (A YAML file has no reliable types, ``02:00:00:00:00:01`` and
``0000000000000001`` being numbers to YAML 1.1; its scalars stay text, and the validation context
``{"text": True}`` lets whole numbers be read from text.) A model's ``value`` method gives the core's value or
event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Protocol

from pydantic import Field, model_validator

from . import addresses, events, model
from .checking import error, refuse
from .fields import Dpid, Half, Input, Ipv4, Ipv6, Name, PortName, Targets, Token, Whole, Words, distinct
from .guests import Allow, InterfaceInput, PlaceInput
from .routed import GatewayInput, LeaveInput, SubnetInput

__all__ = [
    "AbortInput",
    "Allow",
    "CancelInput",
    "EvacuationInput",
    "InterfaceInput",
    "InventoryInput",
    "Known",
    "MoveInput",
    "NetworkInput",
    "NveInput",
    "PlaceInput",
    "PolicyInput",
    "ResumeInput",
    "VmInput",
    "duplicates",
    "named_twice",
]

_POLICY = model.Policy()


class Known(Protocol):
    """What the names in a body refer to: an index that REST and the inventory make of the state."""

    def vni(self, network: str) -> int | None:
        """VNI of a network, None if there is no such network."""

    def has_nve(self, name: str, vm: str) -> bool:
        """Whether that NVE is registered, or was named for a VM before."""


class NveInput(Input):
    """A network virtualization edge: one OpenFlow bridge and its underlay address or addresses."""

    name: Name
    dpid: Dpid
    ipv4: Ipv4 | None = Field(default=None, description="underlay IPv4 address")
    ipv6: Ipv6 | None = Field(default=None, description="underlay IPv6 address")
    tunnel_port: PortName | None = Field(
        default=None, description="port name of the VXLAN port; default: found by itself"
    )
    certificate: Words | None = Field(
        default=None,
        description="name in the certificate that its switch shows over TLS (DNS name, else common name); default: the "
        "NVE's own. Given, the switch is never taken without TLS",
    )
    routed_port: PortName | None = Field(
        default=None, description="port name of the tunnel without Ethernet headers (layer 3 networks); default: none"
    )
    locator: Half | None = Field(
        default=None, description="prefix of the underlay addresses by which ILA reaches the tasks of this NVE"
    )
    ila_port: PortName | None = Field(
        default=None, description="port name of the patch port that leads to the underlay's bridge, for ILA"
    )
    next_hop: Ipv6 | None = Field(
        default=None,
        description="underlay router on the way to other NVEs' locators; default: each NVE's own underlay address",
    )

    @model_validator(mode="after")
    def _reachable(self) -> NveInput:
        if self.ipv4 is None and self.ipv6 is None:
            raise ValueError("an NVE needs an underlay address: ipv4, ipv6 or both")
        if (self.locator is None) != (self.ila_port is None):
            raise ValueError("locator and ila_port go together")
        if self.next_hop is not None and self.locator is None:
            raise ValueError("next_hop is about locators, and there is none")
        ports = [p for p in (self.tunnel_port, self.routed_port, self.ila_port) if p is not None]
        if len(set(ports)) != len(ports):
            raise ValueError("tunnel_port, routed_port and ila_port are different ports")
        return self

    def value(self) -> model.Nve:
        """The core's value."""
        return model.Nve(
            self.name,
            addresses.parse_dpid(self.dpid),
            addresses.parse_ipv4(self.ipv4) if self.ipv4 else None,
            addresses.parse_ipv6(self.ipv6) if self.ipv6 else None,
            self.tunnel_port,
            self.certificate,
            self.routed_port,
            addresses.parse_half(self.locator) if self.locator else None,
            self.ila_port,
            addresses.parse_ipv6(self.next_hop) if self.next_hop else None,
        )


class PolicyInput(Input):
    """Policy of a network; every field has a default."""

    distribution: model.Distribution = Field(
        default=_POLICY.distribution,
        description="locations are pushed to the NVEs, or pulled by them on first use",
    )
    announcements: model.Trust = Field(
        default=_POLICY.announcements, description="whose announcement moves a VM without a request"
    )
    unknown: model.Unknown = Field(
        default=_POLICY.unknown, description="what becomes of ARP and ND for addresses nobody registered"
    )
    admit: model.Admit = Field(default=_POLICY.admit, description="what a port's frames are checked against")
    mtu: Whole = Field(default=_POLICY.mtu, ge=576, le=9000, description="bytes of IP packet inside the network")
    idle_timeout: Whole = Field(
        default=_POLICY.idle_timeout,
        ge=1,
        le=65535,
        description="seconds a pulled entry lasts without traffic",
    )
    allow: Allow = Field(default=[], description="what all its interfaces may do beyond speaking for themselves")
    leave: LeaveInput = LeaveInput()

    def value(self) -> model.Policy:
        """The core's value."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return model.Policy(**{**given, "allow": tuple(self.allow), "leave": self.leave.value()})


class NetworkInput(Input):
    """A virtual network."""

    name: Name
    vni: Whole = Field(ge=1, lt=model.VNI_RESERVED, description="VXLAN network identifier")
    policy: PolicyInput = PolicyInput()
    tenant: Name | None = Field(default=None, description="whose network it is; default: the operator's")
    kind: model.NetworkKind = Field(
        default=model.NetworkKind.L2,
        description="l2: Ethernet between its guests; l3: IP by way of the NVE, which is every guest's router",
    )
    gateway: GatewayInput | None = Field(default=None, description="the router that every NVE is to the guests")
    subnets: Annotated[list[SubnetInput], Field(max_length=4096)] = Field(
        default=[], description="addresses of tasks, by NVE; a task elsewhere with such an address has a host route"
    )
    sir: Half | None = Field(default=None, description="IPv6 addresses that ILA moves: this prefix and an identifier")
    router: Name | None = Field(
        default=None, description="networks of one tenant with the same router are routed between"
    )

    @model_validator(mode="after")
    def _routed(self) -> NetworkInput:
        l3 = self.kind is model.NetworkKind.L3
        if self.gateway is None and (l3 or self.router is not None):
            raise ValueError("a network that is routed needs a gateway")
        if not l3 and (self.subnets or self.sir is not None):
            raise ValueError("subnets and sir are a layer 3 network's")
        if l3 and self.policy.distribution is model.Distribution.PULL:
            raise ValueError("locations of a layer 3 network are pushed, never pulled")
        found = [(s.prefix, s.nve) for s in self.subnets]
        distinct([prefix for prefix, _ in found])
        return self

    def value(self) -> model.Network:
        """The core's value."""
        return model.Network(
            self.name,
            self.vni,
            self.policy.value(),
            self.tenant,
            self.kind,
            None if self.gateway is None else self.gateway.value(),
            tuple(subnet.value() for subnet in self.subnets),
            addresses.parse_half(self.sir) if self.sir else None,
            self.router,
        )


class VmInput(Input):
    """A VM and its interfaces. Of an interface that is known already, ``nve`` and ``port`` say something new only if
    they differ from the last registration's: then it is served there, at once or as soon as the port is there."""

    name: Name
    interfaces: list[InterfaceInput] = Field(min_length=1, max_length=32)
    tenant: Name | None = Field(
        default=None, description="whose VM it is; default: of the tenant that all its networks belong to"
    )
    leave: LeaveInput | None = Field(
        default=None, description="for packets to an address that it has left; default: what its network says"
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> VmInput:
        distinct([i.name for i in self.interfaces])
        return self

    def value(self, known: Known, at: str = "") -> events.VmSubmitted:
        """The core's event. InvalidInput names the field (after ``at``) of an unknown network or NVE."""
        errors: list[dict[str, str]] = []
        interfaces = []
        for n, interface in enumerate(self.interfaces):
            path = f"{at}.interfaces[{n}]" if at else f"interfaces[{n}]"
            vni = known.vni(interface.network)
            if vni is None:
                errors.append(error(f"{path}.network", f"there is no network {interface.network}"))
            if not known.has_nve(interface.nve, self.name):
                errors.append(error(f"{path}.nve", f"there is no NVE {interface.nve}"))
            for m, place in enumerate(interface.attachments):
                if not known.has_nve(place.nve, self.name):
                    errors.append(error(f"{path}.attachments[{m}].nve", f"there is no NVE {place.nve}"))
            interfaces.append(interface.value(self.name, vni or 0))
        if errors:
            refuse(errors)
        leave = None if self.leave is None else self.leave.value()
        return events.VmSubmitted(self.name, tuple(interfaces), self.tenant, leave)


class MoveInput(Input):
    """A move of a VM to another NVE."""

    vm: Name
    to: Name = Field(description="name of the destination NVE")
    kind: model.Kind = Field(
        default=model.Kind.HOT, description="hot: the VM runs on; cold: shut down here, started there"
    )
    ports: dict[Name, PortName] = Field(
        default={},
        max_length=32,
        description="interface name to port name at the destination; default: its attachment there, else the name it "
        "has at the source",
    )
    request_id: Token | None = Field(default=None, description="the same id again is answered with the same move")
    requested_by: Words | None = None
    address: model.Addressing = Field(
        default=model.Addressing.KEEP,
        description="keep: addresses stay (host routes, ILA); change: the task gets those of the destination's subnet",
    )
    connections: model.Connections | None = Field(
        default=None,
        description="what the task's agents do with its connections; default: keep, or drop where the address changes",
    )
    source: Name | None = Field(
        default=None,
        description="of a VM with interfaces on several NVEs, those on this one are moved, and the others stay or have "
        "moves of their own; default: the one NVE that has any which are not at the destination yet",
    )

    def value(self) -> events.MoveRequested:
        """The core's event."""
        return events.MoveRequested(
            self.vm,
            self.to,
            self.kind,
            dict(self.ports),
            self.request_id,
            self.requested_by,
            self.address,
            self.connections,
            self.source,
        )


class AmendInput(Input):
    """Other ports of an open move at its destination."""

    ports: dict[Name, PortName] = Field(
        min_length=1, max_length=32, description="interface name to port name; what is not named stays as it is"
    )


class ActivateInput(Input):
    """Whether the VM runs at the destination already, or is to be started there if this is accepted."""

    if_open: bool = Field(
        default=False,
        description="refuse this once the move has failed or was aborted: for who starts the VM only if it is accepted",
    )


class AbortInput(Input):
    """Why a move is aborted; kept in its history."""

    why: Words = "abort requested"


class EvacuationInput(Input):
    """An evacuation: all VMs of an NVE are moved elsewhere."""

    nve: Name = Field(description="the NVE that they leave")
    to: Targets = Field(
        default=[], description="the NVEs that may take them; default: every other one that is connected"
    )
    kind: model.Kind = Field(
        default=model.Kind.HOT, description="hot: the VMs run on; cold: shut down here, started there"
    )
    parallel: Whole = Field(
        default=4, ge=1, le=256, description="so many moves at a time, those that only drain aside"
    )
    attempts: Whole = Field(default=3, ge=1, le=100, description="moves for one VM before it counts as failed")
    request_id: Token | None = Field(default=None, description="the same id again is answered with the same evacuation")
    requested_by: Words | None = None

    def value(self) -> events.EvacuationRequested:
        """The core's event."""
        return events.EvacuationRequested(
            self.nve, tuple(self.to), self.kind, self.parallel, self.attempts, self.request_id, self.requested_by
        )


class CancelInput(Input):
    """How an evacuation is cancelled."""

    why: Words = "cancelled"
    abort: bool = Field(
        default=False, strict=True, description="abort the moves that are open, unless the VM runs elsewhere already"
    )


class ResumeInput(Input):
    """How an evacuation goes on; null: as before."""

    to: Targets | None = Field(default=None, description="the NVEs that may take the VMs from now on")
    parallel: Whole | None = Field(default=None, ge=1, le=256, description="so many moves at a time from now on")


class InventoryInput(Input):
    """NVEs, networks and VMs, applied as a whole in this order."""

    nves: list[NveInput] = []
    networks: list[NetworkInput] = []
    vms: list[VmInput] = []


def named_twice(inventory: InventoryInput) -> Iterator[dict[str, str]]:
    """Entries of one kind with a name that an earlier one has."""
    for kind in ("nves", "networks", "vms"):
        seen: dict[str, int] = {}
        for n, entry in enumerate(getattr(inventory, kind)):
            first = seen.setdefault(entry.name, n)
            if first != n:
                yield error(f"{kind}[{n}].name", f"{entry.name} is already used by {kind}[{first}].name")


def duplicates(inventory: InventoryInput) -> Iterator[dict[str, str]]:
    """What occurs twice and may not: names, datapath ids, VNIs, addresses in a network, attachment points."""
    seen: dict[tuple[str, ...], str] = {}

    def twice(path: str, *key: str) -> Iterator[dict[str, str]]:
        first = seen.setdefault(key, path)
        if first != path:
            yield error(path, f"{key[-1]} is already used by {first}")

    yield from named_twice(inventory)
    for n, nve in enumerate(inventory.nves):
        yield from twice(f"nves[{n}].dpid", "dpid", nve.dpid)
    for n, network in enumerate(inventory.networks):
        yield from twice(f"networks[{n}].vni", "vni", str(network.vni))
    for n, vm in enumerate(inventory.vms):
        for m, interface in enumerate(vm.interfaces):
            path = f"vms[{n}].interfaces[{m}]"
            yield from twice(f"{path}.mac", "mac", interface.network, interface.mac)
            yield from twice(f"{path}.port", "place", interface.nve, interface.port)
            for family, ips in (("ipv4", interface.ipv4), ("ipv6", interface.ipv6)):
                for k, ip in enumerate(ips):
                    yield from twice(f"{path}.{family}[{k}]", "ip", interface.network, ip)
