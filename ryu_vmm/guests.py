"""What requests say of a guest's interfaces: the pydantic models of one and of the places where it may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from . import addresses, model
from .fields import HostName, Input, Ip, Ipv4, Ipv6, Mac, Name, PortName, distinct

__all__ = ["Allow", "InterfaceInput", "PlaceInput"]

Allow = Annotated[
    list[model.Allowed], Field(max_length=len(model.Allowed)), AfterValidator(distinct), AfterValidator(sorted)
]


class PlaceInput(Input):
    """An attachment point."""

    nve: Name
    port: PortName

    def value(self) -> model.Place:
        """The core's value."""
        return model.Place(self.nve, self.port)


class InterfaceInput(Input):
    """An interface of a VM, where it is now, and where else the hypervisor may attach it."""

    name: Name
    network: Name
    mac: Mac
    ipv4: Annotated[list[Ipv4], Field(max_length=64), AfterValidator(distinct)] = []
    ipv6: Annotated[list[Ipv6], Field(max_length=64), AfterValidator(distinct)] = []
    nve: Name
    port: PortName
    attachments: list[PlaceInput] = Field(
        default=[],
        max_length=256,
        description="ports elsewhere that are bound to this interface, at most one per NVE",
    )
    allow: Allow = Field(
        default=[],
        description="what it may do beyond speaking for itself: send what routers send (router), or DHCP servers and "
        "relays (dhcp-server), or IP packets of others (forward)",
    )
    dns: HostName | None = Field(
        default=None,
        description="name whose address records are to be its addresses; interfaces of one tenant may share one",
    )

    shared: Annotated[list[Ip], Field(max_length=64), AfterValidator(distinct)] = Field(
        default=[],
        description="IP addresses that it holds in turn with other interfaces of its network: whoever announced last",
    )
    shared_macs: Annotated[list[Mac], Field(max_length=16), AfterValidator(distinct)] = Field(
        default=[], description="MACs that it holds in turn with others, as virtual routers do (VRRP)"
    )

    @model_validator(mode="after")
    def _shared_or_own(self) -> InterfaceInput:
        for own, shared in (((*self.ipv4, *self.ipv6), self.shared), ((self.mac,), self.shared_macs)):
            twice = sorted({*own} & {*shared})
            if twice:
                raise ValueError(f"{twice[0]} is both its own and shared with others")
        return self

    @model_validator(mode="after")
    def _one_port_per_nve(self) -> InterfaceInput:
        seen = {self.nve: self.port}
        for place in self.attachments:
            if seen.setdefault(place.nve, place.port) != place.port:
                raise ValueError(f"two ports on NVE {place.nve}: {seen[place.nve]} and {place.port}")
        return self

    def value(self, vm: str, vni: int) -> model.Interface:
        """The core's value."""
        return model.Interface(
            id=f"{vm}/{self.name}",
            vm=vm,
            name=self.name,
            vni=vni,
            mac=addresses.parse_mac(self.mac),
            ipv4=tuple(addresses.parse_ipv4(a) for a in self.ipv4),
            ipv6=tuple(addresses.parse_ipv6(a) for a in self.ipv6),
            location=model.Place(self.nve, self.port),
            attachments=tuple(dict.fromkeys(place.value() for place in self.attachments)),
            allow=tuple(self.allow),
            dns=self.dns,
            shared=tuple(addresses.parse_ip(a) for a in self.shared),
            shared_macs=tuple(addresses.parse_mac(a) for a in self.shared_macs),
        )
