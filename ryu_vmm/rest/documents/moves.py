"""Moves and their ledgers."""

from __future__ import annotations

from pydantic import Field

from ... import model
from ...schema import PlaceInput
from ...waiting import Wait
from .common import TIME, Document
from .registry import NveGeneration


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


class Dropped(Document):
    """Packets that ports had no room for."""

    packets: int


class PortAccountDocument(Document):
    """What the port of an interface at one end of a move had no room for since the move's redirect began."""

    nve: str
    port: str
    interface: str
    dropped: int = Field(description="packets for the guest that its port dropped, its queue being full")
    read: bool = Field(description="its statistics were read from the beginning to the end, and did not begin anew")
    remedy: str | None = Field(
        description="the command that makes its queue long enough for what came, to be run on the NVE's host for this "
                    "port or wherever its like is made; null: it dropped nothing")  # fmt: skip


class LedgerDocument(Document):
    """The account of a move."""

    closed: bool
    redirected: Amount
    arrived: Amount
    unaccounted: int = Field(description="packets redirected that the destination never counted")
    lost: Amount = Field(description="reached the source while the VM was gone and no destination was known")
    held: Held
    dropped: Dropped = Field(description="by the ports at both ends, their queues being full")
    late_packets: int
    exact: bool = Field(description="counted by meters (flow counters, the fallback, are blurred around a change), "
                        "and every switch that counts kept its counters and was read to the end")
    forgetful: list[str] = Field(description="NVEs whose counters were lost or could not be read to the end")
    unread: list[str] = Field(description="ports, as NVE/port, whose statistics were not read from beginning to end")
    ports: list[PortAccountDocument]
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


class UnderlayDocument(Document):
    """The underlay addresses of an NVE."""

    ipv4: str | None
    ipv6: str | None


class WaitingDocument(Document):
    """What a move waits for."""

    waiting_for: Wait | None = Field(description="what it waits for now; null: it has ended and its ledger is closed")
    waiting_on: list[str] = Field(description="the NVEs that this depends on")
    until: str | None = Field(
        description="when the state's deadline passes: a move that has not steered fails then, one that has goes on "
                    "without what is missing; RFC 3339, UTC; null: it waits as long as it takes")  # fmt: skip


class MoveDocument(WaitingDocument):
    """A move."""

    id: int
    vm: str
    tenant: str | None = Field(description="whose VM it was when the move began")
    kind: model.Kind
    trigger: str
    follows: int | None = Field(description="the move that was rolled back, though its VM runs at its destination")
    source: str
    destination: str
    underlay: dict[str, UnderlayDocument] = Field(
        description="where the agents of its two NVEs find each other; empty for tenants"
    )
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
