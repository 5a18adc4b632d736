"""What the NVA has found out about edges and ports, as JSON documents: tunnels, ports, and what was not admitted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from .. import model
from ..state import State
from ..tables import name_of
from ..unadmitted import shown
from ..whose import error

__all__ = ["broken", "fault", "lacking", "port_account", "timestamp", "unadmitted", "way"]

Doc = dict[str, Any]


def timestamp(at: float) -> str:
    """RFC 3339 in UTC with milliseconds.

    >>> timestamp(0)
    '1970-01-01T00:00:00.000Z'
    """
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lacking(value: model.Lacking | None) -> Doc | None:
    """Ports to the underlay that an NVE ought to have."""
    return None if value is None else {"ports": list(value.ports), "since": timestamp(value.since)}


def fault(state: State, nve: str, most: int = 100) -> Doc | None:
    """What an NVE refused last, and what it goes without for that, oldest first; at most so many."""
    value = state.faults.get(nve)
    if value is None:
        return None
    rows = [row for unit in state.refused_by(nve) if (row := state.refusals[nve, unit]).times]
    return {
        "type": value.type,
        "code": value.code,
        "error": error(value.type, value.code),
        "time": timestamp(value.at),
        "times": value.times,
        "without": [
            {
                "what": row.what,
                "flow": row.flow or None,
                "error": error(row.type, row.code),
                "since": timestamp(row.since),
                "times": row.times,
                "retry": timestamp(row.due),
            }
            for row in sorted(rows, key=lambda row: row.since)[:most]
        ],
    }


def way(by: str) -> str:
    """What a path is taken by, in words."""
    return by.strip() or "by VXLAN"


def broken(state: State, nve: str | None = None, most: int = 100) -> list[Doc]:
    """Paths that do not work, of one NVE or of all, oldest first; at most so many."""
    found = sorted(
        (value.since, pair, value) for pair, value in state.broken.items() if nve is None or nve in pair[:2]
    )
    return [
        {
            "source": pair[0],
            "destination": pair[1],
            "way": way(pair[2]),
            "since": timestamp(since),
            "mtu": value.mtu,
            "probes": value.probes,
            "small": value.small,
        }
        for since, pair, value in found[:most]
    ]


def unadmitted(value: model.Unadmitted) -> Doc:
    """What a port was not admitted to send."""
    return {
        "cause": name_of(value.cause),
        "address": shown(value.address),
        "packets": value.packets,
        "last": timestamp(value.last),
    }


def port_account(name: str, value: model.PortAccount) -> Doc:
    """What a port at an end of a move dropped."""
    nve, _, port = name.partition("/")
    remedy = f"ip link set {port} txqueuelen {value.queue}" if value.dropped else None
    return {
        "nve": nve,
        "port": port,
        "interface": value.interface,
        "dropped": value.dropped,
        "read": value.known,
        "remedy": remedy,
    }
