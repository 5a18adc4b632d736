"""One flow table: its entries by identity, and by what they match.

Lookup is by tuple space search: the flows that match the same bits of the same fields share a hash table.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

from ..errors import DecodeError
from ..flows import FIELDS, Flow, FlowStats, Match, Meter
from ..wire import agent
from ..wire.oxm import decode_match

_Signature = tuple[tuple[str, int], ...]  # the fields that are matched, each with its mask
_Values = tuple[int, ...]
_METER = struct.Struct("!HHI")
_METER_INSTRUCTION = 6
_FIXED = struct.Struct("!Q8xBxHHH12xH")  # of an ofp_flow_mod: cookie, table, idle, hard, priority, flags


class Entry:
    """A flow in a table, with its counters; times are in seconds on the caller's clock.

    One made by :meth:`unread` keeps its ofp_flow_mod and looks into the instructions when ``flow`` is first asked for.
    """

    __slots__ = (
        "_flow",
        "_message",
        "bytes",
        "cookie",
        "created",
        "flags",
        "hard_timeout",
        "idle_timeout",
        "match",
        "packets",
        "priority",
        "shape",
        "table",
        "used",
    )

    def __init__(self, flow: Flow, now: float = 0.0, hard_timeout: int = 0, flags: int = 0) -> None:
        self._flow: Flow | None = flow
        self._message = b""
        self.table, self.priority, self.match = flow.table, flow.priority, flow.match
        self.cookie, self.idle_timeout = flow.cookie, flow.idle_timeout
        self.shape = shape(flow.match)
        self.hard_timeout = hard_timeout
        self.flags = flags
        self.packets = 0
        self.bytes = 0
        self.created = self.used = now

    @classmethod
    def unread(cls, message: bytes, now: float = 0.0) -> Entry:
        """The entry that an ofp_flow_mod with command ADD makes, taken for good. Raises DecodeError (match only)."""
        entry = cls.__new__(cls)
        entry.cookie, entry.table, entry.idle_timeout, entry.hard_timeout, entry.priority, entry.flags = (
            _FIXED.unpack_from(message, 8)
        )
        size = int.from_bytes(message[50:52], "big")
        entry.match, entry.shape = _match(message[48 : 48 + (size + 7 & ~7)])
        entry._flow = None
        entry._message = message
        entry.packets = entry.bytes = 0
        entry.created = entry.used = now
        return entry

    @property
    def flow(self) -> Flow:
        """The flow. Instructions that make no sense count as none."""
        if self._flow is None:
            try:
                self._flow = agent.decode_flow_mod(self._message).flow
            except DecodeError:
                self._flow = Flow(self.table, self.priority, self.match, (), None, 0, self.cookie, self.idle_timeout)
            self._message = b""
        return self._flow

    @flow.setter
    def flow(self, flow: Flow) -> None:
        self._flow = flow
        self._message = b""

    def uses(self, meter: int) -> bool:
        """Whether the flow has that meter."""
        if self._flow is None and _METER.pack(_METER_INSTRUCTION, 8, meter) not in self._message:
            return False
        return Meter(meter) in self.flow.actions

    def stats(self, now: float) -> FlowStats:
        """The entry as flow statistics report it."""
        return FlowStats(self.flow, self.packets, self.bytes, now - self.created)


class Table:
    """One table: entries by identity, and by what they match for lookup."""

    def __init__(self) -> None:
        self.entries: dict[tuple[int, Match], Entry] = {}
        self.groups: dict[_Signature, dict[_Values, list[Entry]]] = {}

    def put(self, entry: Entry) -> Entry | None:
        """Add an entry; the one of the same priority and match that it replaces, or None."""
        replaced = self.remove(entry.priority, entry.match)
        self.entries[entry.priority, entry.match] = entry
        signature, values = entry.shape
        group = self.groups.setdefault(signature, {})
        same = group.get(values)
        if same is None:
            group[values] = [entry]
        else:
            same.append(entry)
            same.sort(key=_by_priority)
        return replaced

    def remove(self, priority: int, match: Match) -> Entry | None:
        """Remove the entry of that priority and match, if there is one, and return it."""
        entry = self.entries.pop((priority, match), None)
        if entry is not None:
            signature, values = entry.shape
            group = self.groups[signature]
            group[values].remove(entry)
            if not group[values]:
                del group[values]
                if not group:
                    del self.groups[signature]
        return entry

    def find(self, fields: Mapping[str, int]) -> Entry | None:
        """The entry of the highest priority that matches, or None."""
        best: Entry | None = None
        for signature, group in self.groups.items():
            found = group.get(tuple([fields.get(name, 0) & mask for name, mask in signature]))
            if found and (best is None or found[0].priority > best.priority):
                best = found[0]
        return best


def _by_priority(entry: Entry) -> int:
    return -entry.priority


def shape(match: Match) -> tuple[_Signature, _Values]:
    """What a match looks at, and what it has to find there."""
    signature = []
    values = []
    for name, value, mask in match:
        width = FIELDS[name].width
        bits = int.from_bytes(mask, "big") if mask is not None else (1 << 8 * width) - 1
        signature.append((name, bits))
        values.append(int.from_bytes(value, "big") & bits)
    return _SIGNATURES.setdefault(tuple(signature), tuple(signature)), tuple(values)


_SIGNATURES: dict[_Signature, _Signature] = {}  # one object for all entries alike


@lru_cache(maxsize=1 << 16)  # the switches of an overlay match much the same
def _match(encoded: bytes) -> tuple[Match, tuple[_Signature, _Values]]:
    match, _ = decode_match(encoded, 0, len(encoded))
    for name, _, _ in match:
        if name not in FIELDS:
            raise DecodeError(f"unknown match field {name}", "of-match")
    return match, shape(match)
