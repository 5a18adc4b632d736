"""Where things are, what they are called, and which flows carry their packets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import TIME, Document
from .registry import InterfaceDocument


class DirectoryEntry(Document):
    """Where an interface is: an entry of the directory."""

    network: str | None
    vni: int
    mac: str
    ipv4: list[str]
    ipv6: list[str]
    vm: str
    interface: str
    nve: str
    port: str
    nve_ipv4: str | None
    nve_ipv6: str | None
    bound: bool
    epoch: int
    since: str = TIME


class NameFailure(Document):
    """Why a name could not be published. ``times``: in a row; ``retry``: when it is tried again, null: not as it is."""

    why: str = Field(description="what each name server answered")
    time: str = TIME
    times: int
    retry: str | None


class NameDocument(Document):
    """A name and the addresses that it stands for, those of all interfaces with that name."""

    name: str
    tenant: str | None = Field(description="whose it is, null: the operator's")
    interfaces: list[str] = Field(description="as VM/INTERFACE; none: the name is to be removed")
    wanted: list[str] = Field(description="addresses that it is to stand for")
    told: list[str] | None = Field(description="addresses that a name server has confirmed last; null: nobody knows")
    published: bool = Field(description="a name server has confirmed what is wanted")
    since: str = Field(description="when that began to be wanted; RFC 3339, UTC")
    failure: NameFailure | None


class VerifyDocument(Document):
    """A comparison of all flows of a switch with those that should be there."""

    nve: str
    in_sync: bool
    flows: int
    differences: list[str]
    tunnel_to_tunnel: list[str]


class FlowDocument(Document):
    """A flow as the switch reports it, in the notation of ovs-ofctl, and what it comes to."""

    nve: str
    table: int
    priority: int
    match: str
    actions: str
    packets: int
    bytes: int
    age: float = Field(description="seconds")
    purpose: str
    move: int | None
    to: str = Field(description="where the packets go: a port, an NVE, the NVA, nowhere")
    carries: list[Literal["local", "tunnel"]] = Field(
        description="which packets to the interface take this flow: from local ports, from the tunnel"
    )


class ExplainedInterface(InterfaceDocument):
    """An interface and the flows that concern packets to it."""

    flows: list[FlowDocument]


class Unread(Document):
    """An NVE whose flows could not be read."""

    nve: str
    why: str


class ExplainDocument(Document):
    """Where a VM is and which flows carry its packets."""

    vm: str
    move: int | None
    interfaces: list[ExplainedInterface]
    unread: list[Unread]
