"""Evacuations of whole NVEs."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from .moves import Kind, Step


class EvacuationState(enum.StrEnum):
    """States of an evacuation. All but the first two have ended; ``resume`` leads back to running."""

    RUNNING = "running"
    CANCELLING = "cancelling"  # no further move is opened; those that are open go on
    DONE = "done"  # every VM has left, and every redirect with it
    INCOMPLETE = "incomplete"  # some VMs could not be moved
    CANCELLED = "cancelled"

    @property
    def open(self) -> bool:
        """Whether the evacuation has not ended yet."""
        return self in (EvacuationState.RUNNING, EvacuationState.CANCELLING)


class EvacueeState(enum.StrEnum):
    """What has become of a VM in an evacuation."""

    WAITING = "waiting"  # for its turn
    MOVING = "moving"  # its move is open and holds one of the places: preparing to steering
    DRAINING = "draining"  # it is served elsewhere; the redirect waits for silence
    MOVED = "moved"
    FAILED = "failed"  # as often as allowed, or there is nowhere to go
    LEFT = "left"  # cancelled before its turn came, or while its move was open
    GONE = "gone"  # removed, or moved by somebody else


@dataclass(frozen=True, slots=True)
class Evacuee:
    """A VM of an evacuation. ``move``, ``to``: its newest move and where that goes; ``failed_at``: where earlier ones
    failed, tried last from now on."""

    evacuation: int
    vm: str
    state: EvacueeState = EvacueeState.WAITING
    move: int | None = None
    to: str | None = None
    attempts: int = 0
    failed_at: tuple[str, ...] = ()
    why: str = ""

    @property
    def key(self) -> str:
        """Its key in the table: evacuation and VM."""
        return f"{self.evacuation}/{self.vm}"


class EvacuationAsked(NamedTuple):
    """What an evacuation was asked for with, beside its NVE and kind; it may be resumed with other things."""

    to: tuple[str, ...]
    parallel: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Evacuation:
    """All VMs of an NVE moving elsewhere.

    ``to``: where they may go (empty: every other NVE); ``parallel``: moves that may be open at once, draining ones
    aside; ``attempts``: moves for a VM before it counts as failed; ``why``: what holds up all of them now.
    """

    id: int
    nve: str
    to: tuple[str, ...]
    kind: Kind
    parallel: int
    attempts: int
    state: EvacuationState
    created: float
    history: tuple[Step, ...]
    ended: float | None = None
    request_id: str | None = None
    requested_by: str | None = None
    why: str = ""
    asked_with: EvacuationAsked | None = None  # None: an older version did not keep it
