"""Answers about the NVA itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .. import __version__
from ..errors import InvalidInput, StoreUnavailable
from . import findings, views
from .contract import Call, Reply
from .paging import listed

__all__ = ["audit", "health", "ready"]


def health(call: Call) -> Reply:
    """How the NVA is: always 200 while it answers at all; ``status`` tells."""
    state, reported = call.state, call.runtime.health()
    sessions = state.sessions.values()
    nves = {
        "registered": len(state.nves),
        "connected": len(sessions),
        "in_sync": sum(session.synced for session in sessions),
        "refusing": len(state.faults),
        "lacking": sorted(state.lacking)[:100],
    }
    tunnels = {"failed": len(state.broken), "paths": findings.broken(state)}
    keyring = call.shared.access.keyring
    trouble = "" if keyring is None else keyring.trouble
    in_sync = nves["in_sync"] == nves["registered"] and not state.faults
    failed = reported.get("failed")
    refused = list(reported.get("inventory", ()))[:100]
    well = in_sync and not (state.broken or state.lacking or trouble or failed or refused)
    status = "failing" if _obstacles(call, reported) else "ok" if well else "degraded"
    whole = {
        "status": status,
        "version": __version__,
        "started": views.timestamp(call.runtime.started),
        "uptime": round(time.time() - call.runtime.started, 3),
        "store": str(reported.get("store", "ok")),
        "audit": _recorded(call),
        "failed": failed or "ok",
        "credentials": "none" if keyring is None else trouble or "ok",
        "inventory": refused,
        "nves": nves,
        "tunnels": tunnels,
        "networks": len(state.networks),
        "vms": len(state.vms),
        "moves_open": sum(1 for _ in state.open_moves()),
        "generation": state.generation,
    }
    return Reply(whole if call.scope.whole else {name: whole[name] if name == "status" else None for name in whole})


def ready(call: Call) -> Reply:
    """200 if requests are taken, else 503."""
    why = _obstacles(call, call.runtime.health())
    status = 503 if why else 200
    return Reply({"ready": not why, "why": why if call.scope.whole else [w.partition(":")[0] for w in why]}, status)


def audit(call: Call) -> Reply:
    """A page of what was changed or refused, newest first."""
    query, trail = call.query, call.shared.audit
    if query.after is not None and not (query.after.isdecimal() and len(query.after) < 19):
        raise InvalidInput(f"{query.after} is not the number of an entry", field="after")
    before = None if query.after is None else int(query.after)
    if trail is None:
        return listed(call, [], None)
    found = trail.page(query.limit + 1, before, principal=query.principal, result=query.result)
    page = [{"id": row["id"], "time": views.timestamp(row["at"]), **row} for row in found[: query.limit]]
    return listed(call, page, str(page[-1]["id"]) if len(found) > len(page) else None)


def _recorded(call: Call) -> str:
    """"ok" if changes can be recorded, "none" if they need not be, else what is wrong."""
    trail = call.shared.audit
    try:
        if trail is not None:
            trail.require()
    except StoreUnavailable as error:
        return error.message
    return "none" if trail is None else "ok"


def _obstacles(call: Call, reported: Mapping[str, Any]) -> list[str]:
    why = []
    recorded = _recorded(call)
    if recorded not in ("ok", "none"):
        why.append(f"audit: {recorded}")
    if reported.get("store", "ok") != "ok":
        why.append(f"store: {reported['store']}")
    elif not reported.get("ready", True):
        why.append("still starting")
    return why
