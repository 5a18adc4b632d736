"""Tasks on an overlay: an agent on each NVE, a task that cooperates, and clients that check every byte of theirs.

`Agents(net, rest)` starts the agents, `StreamTask` runs a task on one and drives it, `Clients` are its peers. The
programs they start are `python -m topologies.tasking.server` and `... .client`.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"Agents": "agents", "Clients": "peers", "StreamTask": "task"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
