"""NVEs, networks, VMs, and what became of several at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ... import model
from ...routed import GatewayInput, LeaveInput, SubnetInput
from ...schema import Allow, PlaceInput, PolicyInput
from .common import TIME, Document


class PortDocument(Document):
    """A port as its switch reports it."""

    name: str
    number: int
    up: bool
    silenced: str | None = Field(
        description="it forges: until when that is only counted (RFC 3339, UTC)", examples=["2026-01-31T12:00:00.000Z"]
    )


class NveGeneration(Document):
    """Which generation of its flows was sent to an NVE last, and which it has acknowledged."""

    programmed: int
    realised: int


class WithoutDocument(Document):
    """What an NVE goes without, since its switch refuses a flow of it; all else it has, and is in sync with."""

    what: str = Field(description="in words", examples=["the way to vm1/eth0 in network blue"])
    flow: str | None = Field(description="the flow that was refused, as Open vSwitch writes it; null: not known")
    error: str = Field(description="the switch's error", examples=["table full"])
    since: str = TIME
    times: int = Field(description="refused so often in a row")
    retry: str = Field(description="when it is tried again at the latest (RFC 3339, UTC)")


class FaultDocument(Document):
    """What an NVE refused last: OpenFlow error type and code, and how often in a row."""

    type: int
    code: int
    error: str = Field(description="the same in words", examples=["table full"])
    time: str = TIME
    times: int
    without: list[WithoutDocument] = Field(description="what it goes without for that, 100 at most")


class LackingDocument(Document):
    """Ports to the underlay that an NVE ought to have: names, or a pattern where any port of such a name will do."""

    ports: list[str]
    since: str = TIME


class BrokenPathDocument(Document):
    """A path from one NVE to another on which probes do not arrive, though both are connected and in sync."""

    source: str
    destination: str
    way: str = Field(description="by VXLAN, without Ethernet, by ILA")
    since: str = TIME
    mtu: int = Field(description="bytes of the probes, the largest MTU of the networks that the two share")
    probes: int = Field(description="so many were not answered")
    small: bool = Field(description="a small probe has crossed: the path carries no packets of that MTU")


class NveDocument(Document):
    """An NVE. ``in_sync``: its flows were read back and corrected. ``ports`` only where one NVE is asked for."""

    name: str
    dpid: str
    ipv4: str | None
    ipv6: str | None
    tunnel_port: str | None
    certificate: str | None
    routed_port: str | None
    locator: str | None
    ila_port: str | None
    next_hop: str | None
    connected: bool
    tls: bool = Field(description="connected over TLS, with its own certificate")
    in_sync: bool
    tunnel: int | None = Field(description="port number of the tunnel port in use")
    routed: int | None = Field(description="port number of the tunnel port without Ethernet headers in use")
    ila: int | None = Field(description="port number of the port to the underlay in use")
    answers: list[model.Question] = Field(
        description="questions for addresses that it answers by itself; all others are answered by the NVA"
    )
    generation: NveGeneration
    fault: FaultDocument | None = Field(description="what it refused, until it has all that it should")
    lacking: LackingDocument | None = Field(description="ports to the underlay that it ought to have and does not show")
    broken: list[BrokenPathDocument] = Field(
        description="tunnels from or to it on which probes do not arrive, 100 at most"
    )
    evacuation: int | None = Field(description="the evacuation that runs: it takes no VMs meanwhile")
    networks: list[str]
    ports: list[PortDocument] | None = None


class NetworkDocument(Document):
    """A virtual network. ``members``: the NVEs that hold its state."""

    name: str
    vni: int
    tenant: str | None = Field(description="whose it is, null: the operator's")
    policy: PolicyInput
    kind: model.NetworkKind
    gateway: GatewayInput | None
    subnets: list[SubnetInput]
    sir: str | None
    router: str | None
    members: list[str]
    interfaces: int


class FrozenDocument(Document):
    """An interface that flapped. ``until``: null until somebody thaws it; ``moves``: unrequested ones before."""

    since: str = TIME
    until: str | None
    moves: int


class LeftDocument(Document):
    """An address, or a locator, that a task has left: what that NVE does with packets for it, and until when."""

    nve: str
    address: str
    locator: bool = Field(description="whether this is about the address under the NVE's locator")
    answer: model.Answer
    until: str = TIME


class SharedDocument(Document):
    """An IP address that an interface shares. ``holder``: the interface that has it now, null: nobody; ``mac``: what
    questions for it are answered with."""

    address: str
    holder: str | None
    mac: str | None
    since: str | None


class SharedMacDocument(Document):
    """A MAC that an interface shares, and who has it now."""

    mac: str
    holder: str | None
    since: str | None


class UnadmittedDocument(Document):
    """What an interface's port was not admitted to send, by cause and by the address that it named as its sender."""

    cause: str
    address: str = Field(description="IP address or MAC")
    packets: int = Field(description="as far as samples tell, which a meter limits")
    last: str = TIME


class InterfaceDocument(Document):
    """An interface: ``nve`` and ``port`` are its location; ``bound``: that port is there and up."""

    name: str
    network: str | None
    vni: int
    mac: str
    ipv4: list[str]
    ipv6: list[str]
    nve: str
    port: str
    bound: bool
    pending: str | None = Field(description="port of its NVE that is to serve it as soon as it is there")
    epoch: int
    since: str = TIME
    attachments: list[PlaceInput]
    allow: Allow
    dns: str | None = Field(description="name whose address records are its addresses")
    frozen: FrozenDocument | None = Field(description="it flaps: announcements move it no more")
    left: list[LeftDocument]
    shared: list[SharedDocument] = Field(description="what it holds in turn with other interfaces")
    shared_macs: list[SharedMacDocument]
    unadmitted: list[UnadmittedDocument] = Field(description="the last 16 of what its port was not admitted to send")


class VmDocument(Document):
    """A VM. ``move``: its newest open move."""

    name: str
    tenant: str | None = Field(description="whose it is, null: the operator's")
    interfaces: list[InterfaceDocument]
    leave: LeaveInput | None
    move: int | None


class BulkItem(Document):
    """What became of one item of several."""

    name: str
    result: Literal["created", "unchanged"]


class BulkDocument(Document):
    """What became of VMs that were posted together: all were taken (else the reply is a problem)."""

    items: list[BulkItem]


class InventoryDocument(Document):
    """What an inventory came to."""

    created: int
    updated: int
    unchanged: int
