"""Answers about evacuations. Errors are raised, never returned."""

from __future__ import annotations

from itertools import islice
from typing import Any

from .. import events, model, schema
from ..errors import InvalidInput, NotFound
from ..state import State
from . import views
from .contract import Call, Reply
from .moving import idempotent
from .paging import listed

__all__ = ["cancel", "document", "get_evacuation", "list_evacuations", "post_evacuation", "resume"]


def list_evacuations(call: Call) -> Reply:
    """A page of evacuations, newest first, without their VMs."""
    query, found = call.query, call.state.evacuations
    if query.after is not None and not query.after.isdecimal():
        raise InvalidInput(f"{query.after} is not the number of an evacuation", field="after")
    below = None if query.after is None else int(query.after)

    def wanted(one: model.Evacuation) -> bool:
        fits = query.state in (None, one.state) or query.state == ("open" if one.state.open else "closed")
        return fits and query.nve in (None, one.nve)

    numbers = sorted((n for n in found if below is None or n < below), reverse=True)
    chosen = list(islice((found[n] for n in numbers if wanted(found[n])), query.limit + 1))
    page = chosen[: query.limit]
    following = str(page[-1].id) if len(chosen) > len(page) else None
    return listed(call, [document(call.state, one) for one in page], following)


def get_evacuation(call: Call) -> Reply:
    """One evacuation with its VMs. NotFound."""
    return Reply(document(call.state, _evacuation(call), vms=True))


def post_evacuation(call: Call) -> Reply:
    """Begin an evacuation, or find the one of the same request id."""
    body: schema.EvacuationInput = idempotent(call, schema.EvacuationInput)
    evacuation, _ = call.runtime.handle(body.value())
    return _accepted(call, evacuation)


def cancel(call: Call) -> Reply:
    """Open no further moves. NotFound, Conflict."""
    body: schema.CancelInput = call.body
    number = _evacuation(call).id
    return _accepted(call, call.runtime.handle(events.EvacuationCancelled(number, body.why, body.abort)))


def resume(call: Call) -> Reply:
    """Try again what failed or was left. NotFound, Conflict, InvalidInput."""
    body: schema.ResumeInput = call.body
    to = None if body.to is None else tuple(body.to)
    number = _evacuation(call).id
    return _accepted(call, call.runtime.handle(events.EvacuationResumed(number, to, body.parallel)))


def _evacuation(call: Call) -> model.Evacuation:
    given = call.parameters["id"]
    number = int(given) if given.isascii() and given.isdecimal() and len(given) < 19 else -1
    found = call.state.evacuations.get(number)
    if found is None:
        raise NotFound(f"there is no evacuation {given}", evacuation=given)
    return found


def _accepted(call: Call, evacuation: model.Evacuation) -> Reply:
    # As it is by now: its request may have had consequences already.
    evacuation = call.state.evacuations.get(evacuation.id, evacuation)
    location = {"Location": f"/v1/evacuations/{evacuation.id}"}
    return Reply(document(call.state, evacuation, vms=True), 202, location)


# --- documents ----------------------------------------------------------------------------------------------
def document(state: State, value: model.Evacuation, *, vms: bool = False) -> dict[str, Any]:
    """An evacuation, with its VMs if asked for."""
    counts = {name.value: count for name, count in state.evacuee_counts(value.id).items()}
    made: dict[str, Any] = {
        "id": value.id,
        "nve": value.nve,
        "to": list(value.to),
        "kind": value.kind,
        "parallel": value.parallel,
        "attempts": value.attempts,
        "state": value.state,
        "open": value.state.open,
        "created": views.timestamp(value.created),
        "ended": None if value.ended is None else views.timestamp(value.ended),
        "request_id": value.request_id,
        "requested_by": value.requested_by,
        "why": value.why,
        "total": sum(counts.values()),
        "counts": counts,
        "history": views.history(value.history),
    }
    if vms:
        made["vms"] = [_evacuee(state, row) for row in state.evacuees_in(value.id)]
    return made


def _evacuee(state: State, row: model.Evacuee) -> dict[str, Any]:
    move = None if row.move is None else state.moves.get(row.move)
    return {
        "vm": row.vm,
        "state": row.state,
        "to": row.to,
        "move": row.move,
        "move_state": None if move is None else move.state,
        **views.waits(state, move),
        "attempts": row.attempts,
        "why": row.why,
    }
