"""Answers about moves. Errors are raised, never returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from .. import events, model, schema
from ..checking import check
from ..errors import InvalidInput, NotFound
from . import views
from .contract import Call, Reply
from .paging import listed

__all__ = ["HOOKS", "get_move", "idempotent", "list_moves", "patch_move", "post_move"]

Body = TypeVar("Body", schema.MoveInput, schema.EvacuationInput)


def list_moves(call: Call) -> Reply:
    """A page of moves, newest first."""
    query, moves = call.query, call.state.moves
    if query.after is not None and not query.after.isdecimal():
        raise InvalidInput(f"{query.after} is not the number of a move", field="after")
    below = None if query.after is None else int(query.after)

    def wanted(move: model.Move) -> bool:
        return (
            call.scope.move(move)
            and (query.vm is None or move.vm == query.vm)
            and (query.nve is None or query.nve in (move.source, move.destination))
            and (query.state in (None, move.state) or query.state == ("open" if move.open else "closed"))
        )

    numbers = sorted((n for n in moves if below is None or n < below), reverse=True)
    found = list(islice((moves[n] for n in numbers if wanted(moves[n])), query.limit + 1))
    page = found[: query.limit]
    following = str(page[-1].id) if len(found) > len(page) else None
    return listed(call, [_document(call, move) for move in page], following)


def get_move(call: Call) -> Reply:
    """One move. NotFound."""
    return Reply(_document(call, _move(call)))


def post_move(call: Call) -> Reply:
    """Open a move, or find the one of the same request id."""
    body: schema.MoveInput = idempotent(call, schema.MoveInput)
    vm = call.state.vms.get(body.vm)
    if vm is None or not call.scope.vm(vm):
        raise NotFound(f"there is no VM {body.vm}", vm=body.vm)
    call.scope.moving(body.vm, body.to, body.ports, body.source)
    wanted = replace(body.value(), request_id=call.scope.request_id(body.request_id))
    if wanted.requested_by is None and call.principal is not None and call.principal.via != "local":
        wanted = replace(wanted, requested_by=call.principal.name)
    move, _ = call.runtime.handle(wanted)
    return _accepted(call, move)


def patch_move(call: Call) -> Reply:
    """Name other ports of an open move. NotFound, InvalidInput, Conflict."""
    move, ports = _move(call), dict(call.body.ports)
    call.scope.amending(move, ports)
    return Reply(_document(call, call.runtime.handle(events.MoveAmended(move.id, ports))))


def idempotent(call: Call, kind: type[Body]) -> Body:
    """The request's body, with the Idempotency-Key header as its request_id. InvalidInput."""
    body: Body = call.body
    key = call.headers.get("Idempotency-Key")
    if key is None:
        return body
    # The header is a structured field's string, in quotation marks; few clients know.
    key = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if body.request_id not in (None, key):
        raise InvalidInput("Idempotency-Key and request_id differ", field="request_id")
    return check(kind, {**body.model_dump(), "request_id": key})


def _hook(make: Callable[[int, Any], events.Request]) -> Callable[[Call], Reply]:
    def handler(call: Call) -> Reply:
        number = _move(call).id
        return _accepted(call, call.runtime.handle(make(number, call.body)))

    return handler


#: The hooks of a move by name.
HOOKS: dict[str, Callable[[Call], Reply]] = {
    "redirect": _hook(lambda number, body: events.RedirectRequested(number)),
    "activate": _hook(lambda number, body: events.ActivationReported(number, body.if_open)),
    "abort": _hook(lambda number, body: events.AbortRequested(number, body.why)),
}


def _move(call: Call) -> model.Move:
    given = call.parameters["id"]
    move = call.state.moves.get(int(given)) if given.isascii() and given.isdecimal() and len(given) < 19 else None
    if move is None or not call.scope.move(move):
        raise NotFound(f"there is no move {given}", move=given)
    return move


def _accepted(call: Call, move: model.Move) -> Reply:
    # The reply shows the move as it is by now: its request may have had consequences already.
    move = call.state.moves.get(move.id, move)
    return Reply(_document(call, move), 202, {"Location": f"/v1/moves/{move.id}"})


def _document(call: Call, move: model.Move) -> dict[str, Any]:
    return call.scope.shown_move(views.move(call.state, move))
