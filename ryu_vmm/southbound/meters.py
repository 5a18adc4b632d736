"""The meters of one switch: which are there, and which flow uses which. No I/O.

A meter lives as long as the one flow that uses it: it is made before the flow and removed after it. One that is there
already when it is wanted, because an earlier connection ended in the middle of a move, counts from zero again, unless
the flow that uses it is there as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..flows import Flow, FlowChange, FlowKey, Meter
from ..wire import meters as wire


class Meters:
    """What a connection knows of its switch's meters.

    Attributes:
        highest: the highest number a meter may have, 0: none.
        features, config, end: transaction ids of the first questions.
        readings: those under way, by transaction id; complete: those just completed.
    """

    def __init__(self) -> None:
        self.highest = 0
        self.features = self.config = self.end = -1
        self.readings: dict[int, tuple[str, dict[int, tuple[int, int]]]] = {}
        self.complete: dict[int, tuple[str, dict[int, tuple[int, int]]]] = {}
        self._there: set[int] = set()
        self._used: dict[FlowKey, int] = {}

    def answered(self, message: bytes, xid: int) -> bool:
        """Take in a multipart reply if it answers one of our questions. Raises DecodeError."""
        if xid == self.features:
            self.highest = wire.decode_meter_features(message)
            return True
        if xid == self.config:
            self._there |= wire.decode_meter_config(message)[0]
            return True
        if xid not in self.readings:
            return False
        _, found = self.readings[xid]
        part, more = wire.decode_meter_stats(message)
        found.update(part)
        if not more:
            self.complete[xid] = self.readings.pop(xid)
        return True

    def adopt(self, flows: Iterable[Flow]) -> None:
        """Learn from flows that were read which meters are in use."""
        for flow in flows:
            meter = _meter(flow)
            if meter is not None:
                self._used[flow.key] = meter

    def around(self, changes: Sequence[FlowChange], xid: int) -> tuple[bytes, bytes]:
        """The meter changes that must come before some flow changes, and those that must come after them."""
        before, after = [], []
        for op, flow in changes:
            if flow.actions and isinstance(flow.actions[0], Meter) and op == "add":
                meter = flow.actions[0].id
                if self._used.get(flow.key) != meter:
                    before.append(wire.encode_meter_add(meter, xid, again=meter in self._there))
                    self._used[flow.key] = meter
                    self._there.add(meter)
            elif op == "delete" and self._used and flow.key in self._used:
                meter = self._used.pop(flow.key)
                self._there.discard(meter)
                after.append(wire.encode_meter_delete(meter, xid))
        return b"".join(before), b"".join(after)


def _meter(flow: Flow) -> int | None:
    return flow.actions[0].id if flow.actions and isinstance(flow.actions[0], Meter) else None
