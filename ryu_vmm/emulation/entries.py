"""One flow table: its entries by identity, and by what they match.

Lookup is by tuple space search: the flows that match the same bits of the same fields share a hash table.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..flows import FIELDS, Flow, FlowStats, Match


class Entry:
    """A flow in a table, with its counters; times are in seconds on the caller's clock."""

    __slots__ = ("bytes", "created", "flags", "flow", "hard_timeout", "packets", "used")

    def __init__(self, flow: Flow, now: float = 0.0, hard_timeout: int = 0, flags: int = 0) -> None:
        self.flow = flow
        self.packets = 0
        self.bytes = 0
        self.created = self.used = now
        self.hard_timeout = hard_timeout
        self.flags = flags

    def stats(self, now: float) -> FlowStats:
        """The entry as flow statistics report it."""
        return FlowStats(self.flow, self.packets, self.bytes, now - self.created)


_Signature = tuple[tuple[str, int], ...]  # the fields that are matched, each with its mask
_Values = tuple[int, ...]


class Table:
    """One table: entries by identity, and by what they match for lookup."""

    def __init__(self) -> None:
        self.entries: dict[tuple[int, Match], Entry] = {}
        self.groups: dict[_Signature, dict[_Values, list[Entry]]] = {}

    def put(self, entry: Entry) -> Entry | None:
        flow = entry.flow
        replaced = self.remove(flow.priority, flow.match)
        self.entries[flow.priority, flow.match] = entry
        signature, values = _shape(flow.match)
        same = self.groups.setdefault(signature, {}).setdefault(values, [])
        same.append(entry)
        same.sort(key=lambda e: -e.flow.priority)
        return replaced

    def remove(self, priority: int, match: Match) -> Entry | None:
        entry = self.entries.pop((priority, match), None)
        if entry is not None:
            signature, values = _shape(match)
            group = self.groups[signature]
            group[values].remove(entry)
            if not group[values]:
                del group[values]
                if not group:
                    del self.groups[signature]
        return entry

    def find(self, fields: Mapping[str, int]) -> Entry | None:
        best: Entry | None = None
        for signature, group in self.groups.items():
            found = group.get(tuple([fields.get(name, 0) & mask for name, mask in signature]))
            if found and (best is None or found[0].flow.priority > best.flow.priority):
                best = found[0]
        return best


def _shape(match: Match) -> tuple[_Signature, _Values]:
    signature = []
    values = []
    for name, value, mask in match:
        width = FIELDS[name].width
        bits = int.from_bytes(mask, "big") if mask is not None else (1 << 8 * width) - 1
        signature.append((name, bits))
        values.append(int.from_bytes(value, "big") & bits)
    return tuple(signature), tuple(values)
