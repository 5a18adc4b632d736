"""Query strings, as models: each field is a parameter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .. import model
from ..audit import Result
from ..fields import Input, Ip, Mac, Name, Start, Token, Whole

__all__ = [
    "DirectoryQuery",
    "EvacuationsQuery",
    "EventsQuery",
    "MovesQuery",
    "NoQuery",
    "PageQuery",
    "Query",
    "VmsQuery",
]


class Query(Input):
    """What all query strings have in common: unknown parameters are refused."""


class NoQuery(Query):
    """No parameters."""


class PageQuery(Query):
    """A part of a list."""

    limit: Whole = Field(default=1000, ge=1, le=10_000, description="at most so many items")
    after: Token | None = Field(default=None, description="continue after this: ``next`` of the previous part")


class VmsQuery(PageQuery):
    """A part of the list of VMs."""

    network: Name | None = Field(default=None, description="only VMs with an interface in this network")
    nve: Name | None = Field(default=None, description="only VMs with an interface located on this NVE")


class MovesQuery(PageQuery):
    """A part of the list of moves."""

    vm: Name | None = Field(default=None, description="only moves of this VM")
    nve: Name | None = Field(default=None, description="only moves from or to this NVE")
    state: model.MoveState | Literal["open", "closed"] | None = Field(
        default=None, description="only moves in this state, or that are open, or that have ended"
    )


class EvacuationsQuery(PageQuery):
    """A part of the list of evacuations."""

    nve: Name | None = Field(default=None, description="only evacuations of this NVE")
    state: model.EvacuationState | Literal["open", "closed"] | None = Field(
        default=None, description="only evacuations in this state, or that are open, or that have ended"
    )


class DirectoryQuery(PageQuery):
    """What to look up; all that is given must fit. Addresses may occur in several networks."""

    network: Name | None = Field(default=None, description="name of a network")
    mac: Mac | None = None
    ip: Ip | None = None
    vm: Name | None = Field(default=None, description="name of a VM")


class AuditQuery(PageQuery):
    """A part of the audit."""

    principal: Name | None = Field(default=None, description="only what this principal did or tried")
    result: Result | None = Field(default=None, description="only attempts that came to this")


class EventsQuery(Query):
    """What to hear."""

    follow: Literal["0", "1"] = Field(default="1", description="0: what there is so far, as a JSON list")
    after: Token | None = Field(
        default=None, description="id of an event; what came after it. Default: the Last-Event-ID header"
    )
    limit: Whole = Field(default=1000, ge=1, le=10_000, description="at most so many in a list")
    kind: Start | None = Field(
        default=None, max_length=64, description="only kinds that start with this, e.g. ``move.``"
    )
