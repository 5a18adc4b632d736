"""TCP connections that are opened once and must survive one move after the other."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from topologies import MoveReport
from topologies.traffic.session import Stream, StreamResult, TcpSession

from .lab import Lab

MOVES = 10
RATE = 200.0  # records of 1,000 bytes per second in each direction
INTERVAL = 0.5  # seconds between the few bytes of an idle connection
_ANNOUNCEMENTS = ("garp-request", "na", "rarp", "garp-reply", "none")


@dataclass(frozen=True)
class Survived:
    """What came of it. seconds: how long the connections lived. retransmitted: TCP segments, all ends."""

    moves: list[MoveReport]
    streams: list[StreamResult]
    seconds: float
    wrong: list[str]

    @property
    def retransmitted(self) -> int:
        """TCP segments sent again by any end."""
        return sum(int(end["retransmitted"]) for one in self.streams for end in (one.client, one.server))

    @property
    def stall(self) -> float:
        """The longest time in seconds that any end of a busy stream waited for data."""
        return max(one.stall for one in self.streams if one.name.endswith("stream"))

    @property
    def records(self) -> int:
        """Records that arrived intact, in order, once."""
        return sum(one.records for one in self.streams)

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = list(self.wrong)
        for one in self.streams:
            found += [f"{one.name}: {error}" for error in one.errors]
            for side, end in (("client", one.client), ("server", one.server)):
                if not end["open"]:
                    found.append(f"{one.name}: the {side}'s end is closed")
            rate = 1 / INTERVAL if one.name.endswith("idle") else RATE
            least = 2 * rate * (self.seconds - 2.0) * 0.9
            if one.records < least:
                found.append(f"{one.name}: {one.records} records in {self.seconds:.1f} s, fewer than {least:.0f}")
        return found


def run(lab: Lab, mover: str, others: tuple[str, str], moves: int = MOVES, **options: Any) -> Survived:
    """Move a VM with four streams and two idle connections on, so many times in a row.

    Every second move begins while the one before it still drains. Switches are compared after every move. `options` as
    for `topologies.move.move`.
    """
    vm, one, two = (lab.vm(name) for name in (mover, *others))
    streams = [
        *(Stream(vm, one, "stream", family, RATE) for family in (4, 6)),
        *(Stream(two, vm, "stream", family, RATE) for family in (4, 6)),
        Stream(vm, two, "idle", 4, interval=INTERVAL), Stream(one, vm, "idle", 6, interval=INTERVAL),
    ]
    reports, wrong = [], []
    with TcpSession(streams) as session:
        started = time.monotonic()
        for n in range(moves):
            announce = _ANNOUNCEMENTS[n % len(_ANNOUNCEMENTS)]
            reports.append(vm.move(lab.next_nve(vm), announce=announce, **options))
            if n % 2 and n < moves - 1:
                lab.await_state(reports[-1].move, "draining", "settled")
                wrong += lab.verify(moving=True)
            else:
                for report in reports[-2:]:
                    lab.await_closed(report.move)
                wrong += lab.verify()
        seconds = time.monotonic() - started
        found = session.stop()
    return Survived(reports, found, seconds, wrong)
