"""Answers about the NVA itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .. import __version__
from . import views
from .contract import Call, Reply

__all__ = ["health", "ready"]


def health(call: Call) -> Reply:
    """How the NVA is: always 200 while it answers at all; ``status`` tells."""
    state, reported = call.state, call.runtime.health()
    sessions = state.sessions.values()
    nves = {
        "registered": len(state.nves),
        "connected": len(sessions),
        "in_sync": sum(session.synced for session in sessions),
        "refusing": len(state.faults),
    }
    store = str(reported.get("store", "ok"))
    status = "ok" if nves["in_sync"] == nves["registered"] and not state.faults else "degraded"
    return Reply(
        {
            "status": "failing" if _obstacles(reported) else status,
            "version": __version__,
            "started": views.timestamp(call.runtime.started),
            "uptime": round(time.time() - call.runtime.started, 3),
            "store": store,
            "nves": nves,
            "networks": len(state.networks),
            "vms": len(state.vms),
            "moves_open": sum(1 for _ in state.open_moves()),
            "generation": state.generation,
        }
    )


def ready(call: Call) -> Reply:
    """200 if requests are taken, else 503."""
    why = _obstacles(call.runtime.health())
    return Reply({"ready": not why, "why": why}, 503 if why else 200)


def _obstacles(reported: Mapping[str, Any]) -> list[str]:
    why = []
    if reported.get("store", "ok") != "ok":
        why.append(f"store: {reported['store']}")
    elif not reported.get("ready", True):
        why.append("still starting")
    return why
