"""What requests say of layer 3: gateways, subnets, and addresses that are left."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from . import addresses, model
from .fields import Input, Ipv4, Ipv6, Mac, Name, Prefix, Whole

__all__ = ["GatewayInput", "LeaveInput", "SubnetInput"]

_MAC = addresses.format_mac(model.Gateway().mac)


class GatewayInput(Input):
    """The router that every NVE is to a network's guests: one MAC, the same addresses at all of them."""

    ipv4: Ipv4 | None = None
    ipv6: Ipv6 | None = Field(default=None, description="fe80::1, for one: guests need no other")
    mac: Mac = _MAC

    @model_validator(mode="after")
    def _has_address(self) -> GatewayInput:
        if self.ipv4 is None and self.ipv6 is None:
            raise ValueError("a gateway needs an address: ipv4, ipv6 or both")
        return self

    def value(self) -> model.Gateway:
        """The core's value."""
        return model.Gateway(
            addresses.parse_mac(self.mac),
            addresses.parse_ipv4(self.ipv4) if self.ipv4 else None,
            addresses.parse_ipv6(self.ipv6) if self.ipv6 else None,
        )


class SubnetInput(Input):
    """Addresses that belong to an NVE: tasks there have them, and the NVA allots them to tasks that come."""

    prefix: Prefix
    nve: Name

    def value(self) -> model.Subnet:
        """The core's value."""
        return model.Subnet(*addresses.parse_prefix(self.prefix), self.nve)


class LeaveInput(Input):
    """What the old NVE does with packets for an address that a task has left, and for how long."""

    answer: model.Answer = Field(
        default=model.Answer.UNREACHABLE,
        description="drop them, answer 'destination unreachable', or forward them to where the task is now",
    )
    seconds: Annotated[Whole, Field(ge=1, le=86400)] = 60

    def value(self) -> model.Leave:
        """The core's value."""
        return model.Leave(self.answer, self.seconds)
