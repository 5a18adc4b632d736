"""Mininet classes for an overlay of Open vSwitch edges (NVEs) and the VMs that move between them.

Importing the package costs nothing: the names below are loaded on first use, so that the small
helper processes (`topologies.vnic`, `topologies.relay`) start without Mininet.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "OverlayNet": "net",
    "OverlayTopo": "topo",
    "VMSpec": "specs",
    "VNSpec": "specs",
    "NVE": "nve",
    "VM": "vm",
    "TapLink": "links",
    "VethLink": "links",
    "Underlay": "underlay",
    "NVA": "controller",
    "MoveReport": "move",
    "TopologyError": "errors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'topologies' has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
