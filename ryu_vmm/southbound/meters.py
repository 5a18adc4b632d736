"""The meters of one switch: which are there, and which flow uses which. No I/O.

A meter lives as long as any flow that uses it: it is made before the first and removed after the last, since a switch
removes with a meter all flows that use it. One that is there already when it is wanted, because an earlier connection
ended in the middle of a move, counts from zero again, unless a flow that uses it is there as well.

What the switch says it has is believed as of the moment when it was asked. Only an answer to the question for all that
no change has overtaken replaces what is known (``replace``); from then on nothing is to be learned from any other.
Before it (``adopt``), what we have changed ourselves is known better: a key that has lost its meter does not get it
back, and nobody uses a meter that we have removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ..flows import Flow, FlowChange, FlowKey, Meter
from ..wire import meters as wire

#: So many meters are always asked for one by one.
ASKED_SINGLY = 16
#: Keys that have lost their meter and are remembered for it.
LOST_KEPT = 4096


class Meters:
    """What a connection knows of its switch's meters.

    Args:
        rate: packets per second that a meter of some number lets pass; 0: it only counts.

    Attributes:
        highest: the highest number a meter may have, 0: none.
        features, end: transaction ids of the first questions.
        readings: those under way, by transaction id: token, what has been read, how many answers are still to come;
            complete: those just completed.
    """

    def __init__(self, rate: Callable[[int], int] = lambda meter: 0) -> None:
        self._rate = rate
        self.highest = 0
        self.features = self.end = -1
        self.readings: dict[int, tuple[str, dict[int, tuple[int, int]], int]] = {}
        self.complete: dict[int, tuple[str, dict[int, tuple[int, int]]]] = {}
        self._there: dict[int, int | None] = {}  # meter -> its rate; None: some other kind of meter
        self._inherited: list[int] = []  # adopted, and not yet looked at
        self._used: dict[FlowKey, int] = {}
        self._users: Counter[int] = Counter()
        self._known = False  # all has been read, and what has been changed since was changed by us
        # Until then: keys that have lost their meter by a change of ours, and meters that we have removed.
        self._lost: dict[FlowKey, None] = {}
        self._removed: set[int] = set()

    def answered(self, message: bytes, xid: int) -> bool:
        """Take in a multipart reply if it answers one of our questions. Raises DecodeError."""
        if xid == self.features:
            self.highest = wire.decode_meter_features(message)
            return True
        if xid not in self.readings:
            return False
        token, found, left = self.readings[xid]
        part, more = wire.decode_meter_stats(message)
        found.update(part)
        if not more:
            self.readings[xid] = (token, found, left - 1)
        if not more and left == 1:
            del self.readings[xid]
            self.complete[xid] = (token, found)
        return True

    def ask(self, xid: int, token: str) -> bytes:
        """The requests that read the meters which count.

        Every port has meters that limit, which nobody reads: where few count, these alone are asked for.
        """
        counting = [meter for meter in self._users if not self._rate(meter)]
        asked = [wire.encode_meter_stats_request(xid, meter) for meter in counting]
        if not asked or (len(asked) > ASKED_SINGLY and len(asked) > len(self._users) // 4):
            asked = [wire.encode_meter_stats_request(xid)]
        self.readings[xid] = (token, {}, len(asked))
        return b"".join(asked)

    def replace(self, there: dict[int, int | None], flows: Iterable[Flow]) -> None:
        """Believe nothing but that these meters are there, by rate, and these flows, of which some use them.

        Both were read, and nothing has been changed since they were asked for.
        """
        self._there = dict(there)
        for known in (self._inherited, self._used, self._users, self._lost, self._removed):
            known.clear()
        self._known = False
        self.adopt(flows)
        self._known = True

    def lacks(self, there: dict[int, int | None]) -> bool:
        """Whether a meter that flows use is not among those that are there."""
        return self.highest > 0 and any(meter not in there for meter in self._users)

    def adopt(self, flows: Iterable[Flow]) -> None:
        """Learn from flows that were read at some time which meters are in use, where that is not known better."""
        for flow in () if self._known else flows:
            meter = _meter(flow)
            if meter is None or meter in self._removed:
                continue
            key = flow.key
            if key not in self._used and key not in self._lost:
                self._inherited.append(meter)
                self._uses(key, meter)

    def around(self, changes: Sequence[FlowChange], xid: int) -> tuple[bytes, bytes]:
        """The meter changes that must come before some flow changes, and those that must come after them."""
        before = self._corrected(xid)
        left: set[int] = set()
        for op, flow in changes:
            meter = _meter(flow) if op == "add" else None
            if meter is None and not self._used:
                continue
            key = flow.key
            if self._used.get(key) == meter:
                continue
            last = self._release(key)
            if last is not None:
                left.add(last)
            if meter is None:
                self._has_lost(key)
                continue
            if meter not in self._users and meter not in left:
                before.append(wire.encode_meter_add(meter, xid, meter in self._there, self._rate(meter)))
            self._uses(key, meter)
            self._there[meter] = self._rate(meter)
            self._removed.discard(meter)
        gone = sorted(meter for meter in left if meter not in self._users)
        for meter in gone:
            self._there.pop(meter, None)
        if not self._known:
            self._removed.update(gone)
        return b"".join(before), b"".join(wire.encode_meter_delete(meter, xid) for meter in gone)

    def refused(self, message: bytes, code: int) -> int | None:
        """A switch has refused a meter change, of which these are the first bytes: it is to be made when next wanted.

        ``code``: of an OFPET_METER_MOD_FAILED error (OpenFlow 1.3 section 7.4.4). Returns the meter that the switch
        does not have; None: it was no such change, or that meter is there.
        """
        meter = wire.decode_refused(message)
        if meter is None:
            return None
        if code == wire.METER_EXISTS:
            self._there[meter] = None
        else:
            self._there.pop(meter, None)
            if not self._known:
                self._removed.add(meter)
        for key in [key for key, used in self._used.items() if used == meter]:
            self._release(key)
        return None if code == wire.METER_EXISTS else meter

    def _corrected(self, xid: int) -> list[bytes]:
        """The changes of meters in use that an earlier connection made with another rate: options may change."""
        known = [meter for meter in self._inherited if meter in self._users and meter in self._there]
        wrong = [meter for meter in dict.fromkeys(known) if self._there[meter] != self._rate(meter)]
        self._inherited.clear()
        self._there.update((meter, self._rate(meter)) for meter in wrong)
        return [wire.encode_meter_add(meter, xid, True, self._rate(meter)) for meter in wrong]

    def _uses(self, key: FlowKey, meter: int) -> None:
        self._used[key] = meter
        self._users[meter] += 1
        self._lost.pop(key, None)

    def _has_lost(self, key: FlowKey) -> None:
        """A flow has its meter no longer. Of many such, the oldest are forgotten: all is read before long."""
        if self._known:
            return
        self._lost[key] = None
        if len(self._lost) > LOST_KEPT:
            del self._lost[next(iter(self._lost))]

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
