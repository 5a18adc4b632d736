"""Evacuations."""

from __future__ import annotations

from pydantic import Field

from ... import model
from .common import TIME, Document
from .moves import StepDocument, WaitingDocument


class EvacueeCounts(Document):
    """How many VMs of an evacuation are in which state."""

    waiting: int
    moving: int
    draining: int
    moved: int
    failed: int
    left: int
    gone: int


class EvacueeDocument(WaitingDocument):
    """A VM of an evacuation. ``move``: its newest move by the evacuation, ``to``: where that goes and waits for."""

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
