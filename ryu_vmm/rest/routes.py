"""Every route there is, in one table: the application, the OpenAPI document and the reference all read this one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import __version__, schema
from ..fields import Input
from . import documents as doc
from . import evacuating, locating, metering, moving, queries, registering, roles, service, stream
from .contract import Call, Reply
from .roles import Role

__all__ = ["ROUTES", "Route"]

_JSON = ("application/json",)


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    Attributes:
        method: GET (HEAD is had with it), POST, PUT, PATCH, DELETE.
        path: with ``{parameters}``.
        handler: what answers.
        summary: a line for the reference.
        tag: the reference's chapter.
        replies: status to model of the document (None: no body).
        query: model of the query string.
        body: model of the request's body, None where there is none.
        body_list: type of the body where a list is taken as well.
        body_optional: an empty body stands for ``{}``.
        problems: statuses of problems beyond those that any request may meet.
        produces: media types of the reply.
        location: the reply has a Location header.
        roles: who may call it, None: anybody. What of it a tenant or a hypervisor sees is in ``scopes``.
    """

    method: str
    path: str
    handler: Callable[[Call], Reply]
    summary: str
    tag: str
    replies: dict[int, Any]
    query: type[queries.Query] = queries.NoQuery
    body: type[Input] | None = None
    body_list: Any = None
    body_optional: bool = False
    problems: tuple[int, ...] = ()
    produces: tuple[str, ...] = _JSON
    location: bool = False
    roles: frozenset[Role] | None = roles.ADMINS


def _registry(
    made: registering.Collection,
    body: type[Input],
    document: type[doc.Document],
    listing: type[queries.Query] = queries.PageQuery,
    *,
    readers: frozenset[Role],
    writers: frozenset[Role] = roles.ADMINS,
) -> tuple[Route, ...]:
    """The routes of a kind of object that is registered under a name."""
    what, title = made.what, f"an {made.noun}" if made.noun == "NVE" else f"a {made.noun}"
    path, bulk = f"/v1/{what}", made is registering.VMS
    page: Any = doc.Page[document]  # type: ignore[valid-type]
    created: dict[int, Any] = {201: document, 200: document}
    if bulk:
        created = {201: document | doc.BulkDocument, 200: document | doc.BulkDocument}
    return (
        Route(
            "GET",
            path,
            made.listing,
            f"List {made.noun}s",
            what,
            {200: page},
            query=listing,
            roles=readers,
        ),
        Route(
            "POST",
            path,
            registering.post_vms if bulk else made.post,
            f"Register {title}; the same again is answered with 200"
            + (". A list is taken whole or refused whole" if bulk else ""),
            what,
            created,
            body=body,
            body_list=list[schema.VmInput] if bulk else None,
            problems=(409, 503),
            location=True,
            roles=writers,
        ),
        Route(
            "GET",
            f"{path}/{{name}}",
            made.get,
            f"Show {title}",
            what,
            {200: document},
            problems=(404,),
            roles=readers,
        ),
        Route(
            "PUT",
            f"{path}/{{name}}",
            made.put,
            f"Create or replace {title}",
            what,
            {201: document, 200: document},
            body=body,
            problems=(409, 503),
            location=True,
            roles=writers,
        ),
        Route(
            "DELETE",
            f"{path}/{{name}}",
            made.delete,
            f"Remove {title}",
            what,
            {204: None},
            problems=(404, 409, 503),
            roles=writers,
        ),
    )


def _hook(
    name: str, summary: str, body: type[Input] | None = None, callers: frozenset[Role] = roles.OPERATORS
) -> Route:
    return Route(
        "POST",
        f"/v1/moves/{{id}}/{name}",
        moving.HOOKS[name],
        summary,
        "moves",
        {202: doc.MoveDocument},
        body=body,
        body_optional=True,
        problems=(404, 409, 503),
        location=True,
        roles=callers,
    )


def _index(call: Call) -> Reply:
    """Where to begin: every path without parameters."""
    paths = dict.fromkeys(route.path for route in ROUTES if "{" not in route.path)
    links = {path.rpartition("/")[2].partition(".")[0]: path for path in paths if path not in ("/", "/v1")}
    return Reply({"name": "ryu_vmm", "version": __version__, "links": links})


def _openapi(call: Call) -> Reply:
    """The document about this table."""
    from .openapi import document  # is made of this module's table

    return Reply(document())


ROUTES: tuple[Route, ...] = (
    *_registry(
        registering.NVES, schema.NveInput, doc.NveDocument, readers=roles.READERS | roles.OPERATORS
    ),
    Route(
        "POST",
        "/v1/nves/{name}/verify",
        registering.verify,
        "Compare all flows of the switch with the desired state",
        "nves",
        {200: doc.VerifyDocument},
        problems=(404, 409, 504),
        roles=roles.OPERATORS,
    ),
    *_registry(registering.NETWORKS, schema.NetworkInput, doc.NetworkDocument, readers=roles.ALL),
    *_registry(
        registering.VMS,
        schema.VmInput,
        doc.VmDocument,
        queries.VmsQuery,
        readers=roles.ALL,
        writers=roles.TENANTS,
    ),
    Route(
        "GET",
        "/v1/vms/{name}/explain",
        locating.explain,
        "Where a VM is, since when, and which flow on which NVE carries its packets now",
        "vms",
        {200: doc.ExplainDocument},
        problems=(404,),
        roles=roles.READERS | roles.OPERATORS,
    ),
    Route(
        "POST",
        "/v1/vms/{name}/thaw",
        registering.thaw,
        "Let announcements move the VM again: its interfaces were frozen because they flapped",
        "vms",
        {200: doc.VmDocument},
        problems=(404, 503),
    ),
    Route(
        "GET",
        "/v1/moves",
        moving.list_moves,
        "List moves, newest first",
        "moves",
        {200: doc.Page[doc.MoveDocument]},
        query=queries.MovesQuery,
        roles=roles.ALL,
    ),
    Route(
        "POST",
        "/v1/moves",
        moving.post_move,
        "Ask for a move; the same request_id (or Idempotency-Key header) again is answered with the same move",
        "moves",
        {202: doc.MoveDocument},
        body=schema.MoveInput,
        problems=(404, 409, 503),
        location=True,
        roles=roles.PARTIES,
    ),
    Route(
        "GET",
        "/v1/moves/{id}",
        moving.get_move,
        "Show a move: state, generation, history, ledger",
        "moves",
        {200: doc.MoveDocument},
        problems=(404,),
        roles=roles.ALL,
    ),
    Route(
        "PATCH",
        "/v1/moves/{id}",
        moving.patch_move,
        "Name other ports at the destination, until the VM runs there: a hypervisor may learn them late",
        "moves",
        {200: doc.MoveDocument},
        body=schema.AmendInput,
        problems=(404, 409, 503),
        roles=roles.PARTIES,
    ),
    _hook("redirect", "The VM is about to be paused: send what is in flight to the destination from now on"),
    _hook(
        "activate",
        "The VM runs at the destination (where it does not announce that itself). Of a move that failed or was aborted "
        "while the VM is still where it was: a further move, which the answer shows, takes it there at once",
        schema.ActivateInput,
    ),
    _hook("abort", "Abandon the move; the source serves again", schema.AbortInput, roles.PARTIES),
    Route(
        "GET",
        "/v1/evacuations",
        evacuating.list_evacuations,
        "List evacuations, newest first",
        "evacuations",
        {200: doc.Page[doc.EvacuationDocument]},
        query=queries.EvacuationsQuery,
        roles=roles.READERS,
    ),
    Route(
        "POST",
        "/v1/evacuations",
        evacuating.post_evacuation,
        "Move all VMs of an NVE elsewhere; the same request_id (or Idempotency-Key header) again is answered with the "
        "same evacuation",
        "evacuations",
        {202: doc.EvacuationDocument},
        body=schema.EvacuationInput,
        problems=(404, 409, 503),
        location=True,
    ),
    Route(
        "GET",
        "/v1/evacuations/{id}",
        evacuating.get_evacuation,
        "Show an evacuation: what has become of every VM",
        "evacuations",
        {200: doc.EvacuationDocument},
        problems=(404,),
        roles=roles.READERS,
    ),
    Route(
        "POST",
        "/v1/evacuations/{id}/cancel",
        evacuating.cancel,
        "Open no further moves; those that are open go on, or are aborted if asked for",
        "evacuations",
        {202: doc.EvacuationDocument},
        body=schema.CancelInput,
        body_optional=True,
        problems=(404, 409, 503),
        location=True,
    ),
    Route(
        "POST",
        "/v1/evacuations/{id}/resume",
        evacuating.resume,
        "Try the VMs again that failed or were left, and those that have come since",
        "evacuations",
        {202: doc.EvacuationDocument},
        body=schema.ResumeInput,
        body_optional=True,
        problems=(404, 409, 503),
        location=True,
    ),
    Route(
        "GET",
        "/v1/directory",
        locating.directory,
        "Look up locations by network, MAC, IP or VM",
        "directory",
        {200: doc.Page[doc.DirectoryEntry]},
        query=queries.DirectoryQuery,
        problems=(404,),
        roles=roles.ALL,
    ),
    Route(
        "GET",
        "/v1/names",
        locating.names,
        "List names: the addresses they stand for, and whether name servers have been told",
        "names",
        {200: doc.Page[doc.NameDocument]},
        query=queries.PageQuery,
        roles=roles.READERS | roles.TENANTS,
    ),
    Route(
        "POST",
        "/v1/inventory",
        registering.post_inventory,
        "Create or replace NVEs, networks and VMs, all of them or none",
        "inventory",
        {200: doc.InventoryDocument},
        body=schema.InventoryInput,
        problems=(409, 503),
    ),
    Route(
        "GET",
        "/v1/events",
        stream.events,
        "What happens, as Server-Sent Events; resumes after Last-Event-ID; ?follow=0 answers with a list",
        "events",
        {200: doc.Page[doc.EventDocument]},
        query=queries.EventsQuery,
        problems=(503,),
        produces=("text/event-stream", "application/json"),
        roles=roles.ALL,
    ),
    Route(
        "GET",
        "/v1/audit",
        service.audit,
        "Who changed what, or was refused, newest first",
        "audit",
        {200: doc.Page[doc.AuditDocument]},
        query=queries.AuditQuery,
        problems=(503,),
    ),
    Route(
        "GET",
        "/v1/health",
        service.health,
        "How the NVA is",
        "service",
        {200: doc.HealthDocument},
        roles=roles.ANYBODY,
    ),
    Route(
        "GET",
        "/v1/ready",
        service.ready,
        "Whether requests are taken: 200 or 503",
        "service",
        {200: doc.ReadyDocument, 503: doc.ReadyDocument},
        roles=roles.ANYBODY,
    ),
    Route("GET", "/", _index, "The API's entry", "service", {200: doc.IndexDocument}, roles=roles.ALL),
    Route("GET", "/v1", _index, "The API's entry", "service", {200: doc.IndexDocument}, roles=roles.ALL),
    Route(
        "GET",
        "/v1/openapi.json",
        _openapi,
        "This API as OpenAPI 3.1",
        "service",
        {200: dict[str, Any]},
        roles=roles.ALL,
    ),
    Route(
        "GET",
        "/metrics",
        metering.metrics,
        "Figures for Prometheus",
        "service",
        {200: str},
        produces=("text/plain", "application/openmetrics-text"),
        roles=roles.READERS,
    ),
)
