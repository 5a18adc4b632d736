"""Reading what a receiver wrote, and counting it: received, lost, duplicated, reordered, the longest gap."""

from __future__ import annotations

import json
import sys
from array import array
from dataclasses import dataclass
from itertools import pairwise


@dataclass
class Arrivals:
    """One flow's datagrams in the order of their arrival: numbers, and times in monotonic nanoseconds."""

    flow: int
    seq: array[int]
    sent_ns: array[int]
    arrived_ns: array[int]

    def __len__(self) -> int:
        return len(self.seq)


def read(path: str) -> Arrivals:
    """Read a flow's file. Raises ValueError where it is cut short."""
    with open(path, "rb") as file:
        header = json.loads(file.readline())
        columns = []
        for _ in header["fields"]:
            data = file.read(8 * header["count"])
            if len(data) != 8 * header["count"]:
                raise ValueError(f"{path}: cut short")
            column = array("Q", data)
            if sys.byteorder == "big":
                column.byteswap()
            columns.append(column)
    return Arrivals(header["flow"], *columns)


@dataclass(frozen=True)
class Count:
    """The account of one flow. Times in seconds.

    reordered: arrivals with a number below one that arrived earlier (RFC 4737's type-P-reordered). lost_runs:
    the longest runs of missing numbers, as (first number, how many), at most ten. stall: the longest time
    without an arrival, and when it began.
    """

    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    stall: float
    stall_at: float
    delay_median: float
    delay_max: float
    lost_runs: list[tuple[int, int]]


def count(arrivals: Arrivals, sent: int) -> Count:
    """Hold what arrived against how many were sent (numbers 0 to sent - 1)."""
    seen = bytearray(sent)
    duplicated = reordered = 0
    highest = -1
    for number in arrivals.seq:
        if number >= sent:
            raise ValueError(f"flow {arrivals.flow}: number {number} arrived, but only {sent} were sent")
        if seen[number]:
            duplicated += 1
            continue
        seen[number] = 1
        if number < highest:
            reordered += 1
        else:
            highest = number
    stall = stall_at = 0
    times = arrivals.arrived_ns
    for before, after in pairwise(times):
        if after - before > stall:
            stall, stall_at = after - before, before
    delays = sorted(there - here for here, there in zip(arrivals.sent_ns, times, strict=True))
    received = len(arrivals) - duplicated
    return Count(
        sent=sent, received=received, lost=sent - received, duplicated=duplicated, reordered=reordered,
        stall=stall / 1e9, stall_at=stall_at / 1e9,
        delay_median=delays[len(delays) // 2] / 1e9 if delays else 0.0,
        delay_max=delays[-1] / 1e9 if delays else 0.0,
        lost_runs=_runs(seen),
    )


def _runs(seen: bytearray) -> list[tuple[int, int]]:
    """The ten longest runs of zeros, in the order of their place."""
    runs = []
    start = seen.find(0)
    while start >= 0:
        end = seen.find(1, start)
        end = len(seen) if end < 0 else end
        runs.append((start, end - start))
        start = seen.find(0, end) if end < len(seen) else -1
    return sorted(sorted(runs, key=lambda run: -run[1])[:10])
