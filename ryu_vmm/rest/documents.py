"""What the NVA answers: the pydantic models of replies, from which the OpenAPI document is made.

Replies are built as plain dicts by ``views`` (100,000 of them must not cost a model each); a test holds every
view against its model here. Time stamps are RFC 3339 in UTC with milliseconds; fields named ``at``, ``until`` or
``seconds`` are seconds as numbers, of Unix time or of duration.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from .. import model
from ..audit import Result
from ..routed import GatewayInput, LeaveInput, SubnetInput
from ..schema import Allow, PlaceInput, PolicyInput

T = TypeVar("T")
TIME = Field(description="RFC 3339, UTC", examples=["2026-01-31T12:00:00.000Z"])


class Document(BaseModel):
    """What all replies have in common."""

    model_config = ConfigDict(extra="forbid")


class Page(Document, Generic[T]):
    """A part of a list. ``next`` is the value of ``?after=`` for the part that follows, null at the end."""

    items: list[T]
    next: str | None


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


class FaultDocument(Document):
    """What an NVE refused last: OpenFlow error type and code, and how often in a row."""

    type: int
    code: int
    time: str = TIME
    times: int


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
    generation: NveGeneration
    fault: FaultDocument | None = Field(description="what it refused, until it has been brought in sync again")
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
    epoch: int
    since: str = TIME
    attachments: list[PlaceInput]
    allow: Allow
    dns: str | None = Field(description="name whose address records are its addresses")
    frozen: FrozenDocument | None = Field(description="it flaps: announcements move it no more")
    left: list[LeftDocument]


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


class LegDocument(Document):
    """One interface's part of a move."""

    interface: str
    network: str | None
    vni: int
    source: PlaceInput
    destination: PlaceInput
    mark: int = Field(description="VNI that redirected packets travel under")


class StepDocument(Document):
    """A state of a move's history; ``seconds`` it lasted, null while it lasts."""

    state: str
    time: str = TIME
    at: float
    seconds: float | None
    why: str


class Amount(Document):
    """Packets and bytes."""

    packets: int
    bytes: int


class Held(Document):
    """Packets that waited in the NVA for the destination's port, and what found the waiting room full."""

    packets: int
    lost: int


class StaleDocument(Document):
    """What a correspondent NVE still sent to the source. ``until``: Unix time of the last such packet."""

    nve: str
    packets: int
    bytes: int
    until: float
    corrected: int = Field(description="how often the NVE was corrected")


class LedgerDocument(Document):
    """The account of a move."""

    closed: bool
    redirected: Amount
    arrived: Amount
    unaccounted: int = Field(description="packets redirected that the destination never counted")
    lost: Amount = Field(description="reached the source while the VM was gone and no destination was known")
    held: Held
    late_packets: int
    exact: bool = Field(description="counted by meters (flow counters, the fallback, are blurred around a change), "
                        "and no switch that counts has lost its counters")
    stale: list[StaleDocument]
    barriers: dict[str, float] = Field(description="seconds from the trigger to each NVE's barrier reply")
    probes: dict[str, float] = Field(description="seconds that each path's probe took")


class MoveGeneration(Document):
    """``realised`` has reached ``desired`` once every NVE concerned has acknowledged what the move asked for."""

    desired: int
    realised: int
    nves: dict[str, NveGeneration]


class ChangeDocument(Document):
    """An address that is another one once the move has steered."""

    interface: str
    old: str
    new: str


class MoveDocument(Document):
    """A move."""

    id: int
    vm: str
    tenant: str | None = Field(description="whose VM it was when the move began")
    kind: model.Kind
    trigger: str
    source: str
    destination: str
    state: model.MoveState
    open: bool
    created: str = TIME
    triggered: str | None = Field(description="when the VM's location changed; RFC 3339, UTC")
    request_id: str | None
    requested_by: str | None
    activated_by: str | None
    error: str | None
    redirect: model.Redirect
    redirect_in_force: bool
    unconfirmed: list[str] = Field(description="correspondent NVEs that have not acknowledged the new location")
    generation: MoveGeneration
    connections: model.Connections
    addresses: list[ChangeDocument]
    legs: list[LegDocument]
    history: list[StepDocument]
    ledger: LedgerDocument


class EvacueeCounts(Document):
    """How many VMs of an evacuation are in which state."""

    waiting: int
    moving: int
    draining: int
    moved: int
    failed: int
    left: int
    gone: int


class EvacueeDocument(Document):
    """A VM of an evacuation. ``move``: its newest move by the evacuation, ``to``: where that goes."""

    vm: str
    state: model.EvacueeState
    to: str | None
    move: int | None
    move_state: model.MoveState | None
    attempts: int = Field(description="moves opened for it")
    why: str = Field(description="why it waits, failed, was left, or is gone")


class EvacuationDocument(Document):
    """An evacuation. ``vms`` only where one evacuation is asked for."""

    id: int
    nve: str
    to: list[str] = Field(description="the NVEs that may take the VMs; empty: every other one")
    kind: model.Kind
    parallel: int
    attempts: int
    state: model.EvacuationState
    open: bool
    created: str = TIME
    ended: str | None = Field(description="RFC 3339, UTC")
    request_id: str | None
    requested_by: str | None
    why: str = Field(description="what holds up all of it now")
    total: int = Field(description="VMs in it")
    counts: EvacueeCounts
    history: list[StepDocument]
    vms: list[EvacueeDocument] | None = None


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


class EventDocument(Document):
    """Something that happened. ``id`` orders events and can be resumed from."""

    id: str
    time: str = TIME
    at: float
    kind: str
    fields: dict[str, Any]


class AuditDocument(Document):
    """An attempt to change something, or one that was refused because of who asked."""

    id: int
    time: str = TIME
    at: float
    principal: str | None = Field(description="who, by the name in the credentials; null: nobody knows")
    role: str | None
    via: str | None = Field(description="what they showed: token and its id, certificate and its name, or local")
    address: str
    method: str
    path: str
    body: str | None = Field(description="what came with it, as JSON text, shortened")
    status: int = Field(description="HTTP status of the answer")
    code: str | None = Field(description="code of the problem that was the answer")
    result: Result = Field(
        description="denied: because of who asked; refused: because of what was asked; failed: the NVA's fault"
    )
    more: int = Field(description="refused attempts before it that were too many to record")


class Tally(Document):
    """NVEs by how well they are connected."""

    registered: int
    connected: int
    in_sync: int
    refusing: int = Field(description="refused a flow and have not been brought in sync since")


class HealthDocument(Document):
    """How the NVA is. ``degraded``: it serves, but not every NVE is in sync, or one refuses flows.

    Who does not see the whole gets the status and null for the rest.
    """

    status: Literal["ok", "degraded", "failing"]
    version: str | None
    started: str | None = TIME
    uptime: float | None = Field(description="seconds")
    store: str | None = Field(description="'ok' or what is wrong")
    credentials: str | None = Field(description="'ok', 'none' if nobody is asked, or what is wrong with their file")
    nves: Tally | None
    networks: int | None
    vms: int | None
    moves_open: int | None
    generation: int | None


class ReadyDocument(Document):
    """Whether requests are taken."""

    ready: bool
    why: list[str]


class IndexDocument(Document):
    """The API's entry."""

    name: str
    version: str
    links: dict[str, str]


class FieldError(Document):
    """A wrong field and what is wrong with it."""

    field: str
    why: str


class ProblemDocument(Document):
    """RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:ryu-vmm:problem:CODE")
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="stable identifier of the kind of problem")
    errors: list[FieldError] | None = None
    details: dict[str, Any] | None = None
