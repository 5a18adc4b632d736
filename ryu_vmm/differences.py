"""The changes that turn one set of flows into another, in the order in which no packet is lost by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .flows import Flow, FlowChange, FlowKey, Match
from .tables import FLOOD

__all__ = ["difference"]

#: More than a switch has.
_TABLES = 256


def difference(installed: dict[FlowKey, Flow], wanted: dict[FlowKey, Flow]) -> tuple[FlowChange, ...]:
    """The changes that turn one set of flows into another: additions before deletions (make before break).

    Additions go from the last table to the first, so that no packet is let in before it has a way out; deletions the
    other way round. Of a broadcast's list that is divided over several tables and becomes shorter, the first part is
    first: who moves up a table is in both meanwhile, and in neither otherwise.
    """
    add = [flow for key, flow in wanted.items() if installed.get(key) != flow]
    delete = [flow for key, flow in installed.items() if key not in wanted]
    shorter = _shorter(add, installed, wanted)
    add.sort(key=lambda flow: flow.table - _TABLES if (flow.priority, flow.match) in shorter else -flow.table)
    delete.sort(key=lambda flow: flow.table)
    return (*(FlowChange("add", flow) for flow in add), *(FlowChange("delete", flow) for flow in delete))


def _shorter(
    add: Iterable[Flow], installed: dict[FlowKey, Flow], wanted: dict[FlowKey, Flow]
) -> set[tuple[int, Match]]:
    """Lists of broadcasts, by priority and match, that are divided over several tables and become shorter."""
    divided = {(flow.priority, flow.match) for flow in add if flow.table > FLOOD}
    if not divided:
        return set()
    longer: Counter[tuple[int, Match]] = Counter()
    for flows, sign in ((installed, 1), (wanted, -1)):
        for flow in flows.values():
            if flow.table >= FLOOD and (flow.priority, flow.match) in divided:
                longer[flow.priority, flow.match] += sign * len(flow.actions)
    return {on for on, actions in longer.items() if actions > 0}
