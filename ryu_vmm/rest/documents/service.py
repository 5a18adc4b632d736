"""Events, the record of changes, health, problems."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ...audit import Result
from .common import TIME, Document
from .registry import BrokenPathDocument


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
    status: int = Field(description="HTTP status of the answer; 0: what came of it has not been recorded")
    code: str | None = Field(description="code of the problem that was the answer")
    result: Result = Field(
        description="denied: because of who asked; refused: because of what was asked; failed: the NVA's fault; "
        "begun: it was about to be done, and what came of it has not been recorded"
    )
    more: int = Field(description="refused attempts before it that were too many to record")


class Tally(Document):
    """NVEs by how well they are connected."""

    registered: int
    connected: int
    in_sync: int
    refusing: int = Field(description="refused a flow and have not been brought in sync since")
    lacking: list[str] = Field(description="have no port to the underlay that they ought to have, 100 names at most")


class TunnelsDocument(Document):
    """Tunnels between NVEs that share a network, as far as probes have told."""

    failed: int = Field(description="paths, each in one direction, on which probes do not arrive")
    paths: list[BrokenPathDocument] = Field(description="these, oldest first, 100 at most")


class HealthDocument(Document):
    """How the NVA is. ``degraded``: it serves, but not every NVE is in sync, or one refuses flows, or a tunnel between
    NVEs does not work, or a port to the underlay is missing, or not all of the inventory file could be taken at start,
    or the NVA has failed at something lately.

    Who does not see the whole gets the status and null for the rest.
    """

    status: Literal["ok", "degraded", "failing"]
    version: str | None
    started: str | None = TIME
    uptime: float | None = Field(description="seconds")
    store: str | None = Field(description="'ok' or what is wrong")
    audit: str | None = Field(description="'ok', 'none' if changes are not recorded, or why none can be made now")
    failed: str | None = Field(description="'ok', or what the NVA failed at in the last ten minutes and has undone")
    credentials: str | None = Field(description="'ok', 'none' if nobody is asked, or what is wrong with their file")
    inventory: list[str] | None = Field(description="what of the file read at start could not be taken, and why")
    nves: Tally | None
    tunnels: TunnelsDocument | None
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
