"""Lists in parts, so that 100,000 VMs never hold up the NVA: a page costs what a page costs."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

from .contract import Call, Reply

__all__ = ["by_name", "listed"]


def by_name(call: Call, names: Iterable[str], view: Callable[[str], Any]) -> Reply:
    """The page of ``names`` that the query asks for, in order, each as its ``view``."""
    limit, after = call.query.limit, call.query.after
    rest = names if after is None else [name for name in names if name > after]
    # Sorting all names for every page would cost more than the page.
    found = heapq.nsmallest(limit + 1, rest)
    following = found[limit - 1] if len(found) > limit else None
    return listed(call, [view(name) for name in found[:limit]], following)


def listed(call: Call, items: list[Any], following: str | None) -> Reply:
    """A page and where the next one is, also as a Link header (RFC 8288)."""
    headers = {}
    if following is not None:
        query = {**call.query.model_dump(mode="json", exclude_none=True), "after": following}
        headers["Link"] = f'<?{urlencode(query)}>; rel="next"'
    return Reply({"items": items, "next": following}, headers=headers)
