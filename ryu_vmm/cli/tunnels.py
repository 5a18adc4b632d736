"""Tunnels that do not work, and ports to the underlay that are missing, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from .context import table
from .words import Doc, local

__all__ = ["broken", "trouble"]


def trouble(nve: Doc) -> Text:
    """What is wrong with an NVE, in a line; a dash where nothing is."""
    found = []
    if nve["fault"] is not None:
        fault = nve["fault"]
        found.append(f"OpenFlow error {fault['type']}/{fault['code']} ({fault['error']}), {fault['times']}x")
        found += [f"without {each['what']} since {local(each['since'])}" for each in fault["without"][:3]]
        if len(fault["without"]) > 3:
            found.append(f"and without {len(fault['without']) - 3} more")
    if nve["lacking"] is not None:
        found.append(f"no port {', '.join(nve['lacking']['ports'])} since {local(nve['lacking']['since'])}")
    if nve["broken"]:
        others = sorted({path["source"] for path in nve["broken"]} | {path["destination"] for path in nve["broken"]})
        named = [other for other in others if other != nve["name"]]
        found.append(f"tunnels fail: {', '.join(named[:3])}{f' and {len(named) - 3} more' if len(named) > 3 else ''}")
    return Text("; ".join(found), style="red") if found else Text("-")


def broken(paths: Sequence[Doc]) -> list[Table]:
    """Paths on which probes do not arrive; nothing if there are none."""
    if not paths:
        return []
    rows = [
        (
            f"{path['source']} -> {path['destination']}",
            path["way"],
            local(path["since"]),
            f"{path['probes']} of {path['mtu']} bytes unanswered" + (", small ones cross" if path["small"] else ""),
        )
        for path in paths
    ]
    return [table("", "TUNNEL FAILS", "WAY", "SINCE", "PROBES", rows=rows)]
