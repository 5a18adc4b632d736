"""Who may use the NVA and what they did, as tables for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from .context import table
from .words import Doc, local, styled

__all__ = ["audit", "principals"]


def audit(items: Iterable[Doc]) -> Table:
    """What was changed or refused, a line each."""
    return table(
        "",
        "TIME",
        "WHO",
        "ROLE",
        "FROM",
        "RESULT",
        "WHAT",
        "STATUS",
        "WHY",
        "WITH",
        rows=(
            (
                local(a["time"]),
                a["principal"],
                a["role"],
                a["address"],
                styled(a["result"]),
                f"{a['method']} {a['path']}",
                a["status"] or None,
                a["code"] if not a["more"] else f"{a['code']} ({a['more']} more before)",
                a["body"],
            )
            for a in items
        ),
        right=["STATUS"],
    )


def principals(items: Iterable[Doc]) -> Table:
    """Who may use the NVA, a line each."""
    return table(
        "",
        "NAME",
        "ROLE",
        "TENANT",
        "NVES",
        "PORTS",
        "TOKENS",
        "CERTIFICATES",
        "EXPIRES",
        "NOTE",
        rows=(
            (
                p["name"],
                p["role"],
                p["tenant"],
                p["nves"],
                p["ports"],
                [key["id"] + (f" until {local(key['expires'])}" if key["expires"] else "") for key in p["tokens"]],
                p["certificates"],
                local(p["expires"]),
                p["note"],
            )
            for p in items
        ),
    )
