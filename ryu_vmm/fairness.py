"""Packet-ins that wait for the NVA: fair between NVEs, and within an NVE between its ports. No I/O.

Every NVE that has something waiting gets its turn after all others, and in its turn each of its ports hands over one
packet after the other: whoever floods waits behind its own packets. What may wait is bounded in bytes, for a port, for
an NVE and in all, and a queue may grow only as far as there is as much room left as it takes already (dynamic
thresholds, Choudhury and Hahne 1998): one that floods fills half of what there is, the next one half of the rest. The
last eighth is for those that have little to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

#: What a packet costs beside its bytes, about what Python takes for it.
OVERHEAD = 200
#: This part of the room is for queues of at most that part of it.
RESERVE, LITTLE = 8, 256

Lane = bytes
"""What tells ports apart."""


class _Queue:
    __slots__ = ("cap", "lane", "messages", "size")

    def __init__(self, lane: Lane, cap: int) -> None:
        self.lane = lane
        self.cap = cap
        self.messages: deque[bytes] = deque()
        self.size = 0


class _Nve:
    __slots__ = ("dpid", "queues", "size", "turns")

    def __init__(self, dpid: int) -> None:
        self.dpid = dpid
        self.queues: dict[Lane, _Queue] = {}  # none of them is empty
        self.turns: deque[_Queue] = deque()  # the same, the next one first
        self.size = 0


class Backlog:
    """Messages by NVE and lane.

    Args:
        lane_of: which lane of its NVE a message belongs to.
        lane_cap: bytes that may wait in each lane, OVERHEAD for each message included.
        nve_cap: bytes that may wait for an NVE.
        cap: bytes that may wait in all.

    Attributes:
        size: bytes that wait.
    """

    def __init__(
        self,
        lane_of: Callable[[bytes], Lane],
        lane_cap: Callable[[Lane], int],
        nve_cap: int = 1 << 24,
        cap: int = 1 << 27,
    ) -> None:
        self.lane_of = lane_of
        self.lane_cap = lane_cap
        self.nve_cap = nve_cap
        self.cap = cap
        self.size = 0
        self._nves: dict[int, _Nve] = {}  # those with something waiting
        self._turns: deque[_Nve] = deque()  # the same, the next one first

    def __bool__(self) -> bool:
        return bool(self._turns)

    def put(self, dpid: int, messages: Sequence[bytes]) -> dict[Lane, int]:
        """Append messages of an NVE, in order; how many of each lane there was no room for."""
        lane_of, nve_cap = self.lane_of, self.nve_cap
        shed: dict[Lane, int] = {}
        nve = self._nves.get(dpid) or _Nve(dpid)
        queues, size = nve.queues, nve.size
        others = self.size - size
        nve_soft, nve_little = self.nve_cap - self.nve_cap // RESERVE, self.nve_cap // LITTLE
        soft, little = self.cap - self.cap // RESERVE, self.cap // LITTLE
        for message in messages:
            lane = lane_of(message)
            cost = len(message) + OVERHEAD
            queue = queues.get(lane)
            if queue is None:
                queue = _Queue(lane, self.lane_cap(lane))
            wanted = queue.size + cost
            after = size + cost
            if (
                wanted > queue.cap
                or (after > nve_cap if wanted <= nve_little else wanted + after > nve_soft)
                or (others + after > self.cap if after <= little else after + others + after > soft)
            ):
                shed[lane] = shed.get(lane, 0) + 1
                continue
            if not queue.size:
                queues[lane] = queue
                nve.turns.append(queue)
            queue.messages.append(message)
            queue.size = wanted
            size = after
        self.size += size - nve.size
        nve.size = size
        if size and dpid not in self._nves:
            self._nves[dpid] = nve
            self._turns.append(nve)
        return shed

    @property
    def next(self) -> int:
        """The datapath id whose turn it is. IndexError: nothing waits."""
        return self._turns[0].dpid

    def skip(self) -> None:
        """The NVE whose turn it is lets all others go before it. IndexError: nothing waits."""
        self._turns.append(self._turns.popleft())

    @property
    def nves(self) -> int:
        """How many NVEs have something waiting."""
        return len(self._turns)

    def take(self, most: int) -> list[bytes]:
        """The messages of the NVE whose turn it is, at most so many, each of its lanes in turn. IndexError."""
        nve = self._turns.popleft()
        queues, turns = nve.queues, nve.turns
        taken: list[bytes] = []
        size = 0
        while turns and len(taken) < most:
            queue = turns.popleft()
            message = queue.messages.popleft()
            cost = len(message) + OVERHEAD
            size += cost
            if queue.messages:
                queue.size -= cost
                turns.append(queue)
            else:
                del queues[queue.lane]
            taken.append(message)
        nve.size -= size
        self.size -= size
        if turns:
            self._turns.append(nve)
        else:
            del self._nves[nve.dpid]
        return taken

    def drain(self, dpid: int, lane: Lane) -> list[bytes]:
        """Take all that waits in a lane, in order."""
        nve = self._nves.get(dpid)
        queue = None if nve is None else nve.queues.pop(lane, None)
        if nve is None or queue is None:
            return []
        nve.turns.remove(queue)
        self._forget(nve, queue.size)
        return list(queue.messages)

    def drop(self, dpid: int) -> int:
        """Forget all that waits for an NVE, which is gone; how many messages that were."""
        nve = self._nves.get(dpid)
        if nve is None:
            return 0
        count = sum(len(queue.messages) for queue in nve.turns)
        nve.turns.clear()
        self._forget(nve, nve.size)
        return count

    def waiting(self, dpid: int) -> int:
        """How many messages of an NVE wait."""
        nve = self._nves.get(dpid)
        return 0 if nve is None else sum(len(queue.messages) for queue in nve.turns)

    def _forget(self, nve: _Nve, size: int) -> None:
        nve.size -= size
        self.size -= size
        if not nve.turns:
            del self._nves[nve.dpid]
            self._turns.remove(nve)
