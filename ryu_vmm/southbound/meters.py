"""The meters of one switch: which are there, and which flow uses which. No I/O.

A meter lives as long as any flow that uses it: it is made before the first and removed after the last, since a switch
removes with a meter all flows that use it. One that is there
already when it is wanted, because an earlier connection ended in the middle of a move, counts from zero again, unless
a flow that uses it is there as well.
"""

from __future__ import annotations

from collections import Counter
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
        self._users: Counter[int] = Counter()

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
            if meter is not None and self._used.get(flow.key) != meter:
                self._release(flow.key)
                self._used[flow.key] = meter
                self._users[meter] += 1

    def around(self, changes: Sequence[FlowChange], xid: int) -> tuple[bytes, bytes]:
        """The meter changes that must come before some flow changes, and those that must come after them."""
        before: list[bytes] = []
        left: set[int] = set()
        for op, flow in changes:
            meter = flow.actions[0].id if flow.actions and isinstance(flow.actions[0], Meter) and op == "add" else None
            if (meter is None and not self._used) or self._used.get(flow.key) == meter:
                continue
            last = self._release(flow.key)
            if last is not None:
                left.add(last)
            if meter is not None:
                if not self._users[meter] and meter not in left:
                    before.append(wire.encode_meter_add(meter, xid, again=meter in self._there))
                self._used[flow.key] = meter
                self._users[meter] += 1
                self._there.add(meter)
        gone = sorted(meter for meter in left if not self._users[meter])
        self._there.difference_update(gone)
        return b"".join(before), b"".join(wire.encode_meter_delete(meter, xid) for meter in gone)

    def _release(self, key: FlowKey) -> int | None:
        """A flow uses its meter no longer: the meter, if nothing else does."""
        meter = self._used.pop(key, None)
        if meter is None:
            return None
        self._users[meter] -= 1
        if self._users[meter]:
            return None
        del self._users[meter]
        return meter


def _meter(flow: Flow) -> int | None:
    return flow.actions[0].id if flow.actions and isinstance(flow.actions[0], Meter) else None
