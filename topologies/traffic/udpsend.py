"""The sending half: many flows of numbered datagrams, each at its own fixed rate, from one process.

Run as `python -m topologies.traffic.udpsend CONFIG.json`; prints one line `{"ready": true}`, sends from then
on (or for `duration` seconds from `start`, in monotonic seconds, if given), and ends on SIGTERM with one line
of JSON that says how many datagrams of each flow were handed to the kernel.

Each flow keeps an absolute schedule: the n-th datagram is due at start + n / rate. When the process itself was late,
it catches up by at most `_CATCH_UP` datagrams every half period, so that it never makes a burst
that the network must take for congestion.
"""

from __future__ import annotations

import ctypes
import gc
import json
import socket
import sys
import time
from contextlib import nullcontext
from typing import Any

from topologies import netns
from topologies.traffic.packet import HEADER, MAGIC, PORT
from topologies.traffic.stopping import Stopping

_CATCH_UP = 4  # datagrams of one flow in one turn
_PR_SET_TIMERSLACK = 29


class Sender:
    """One flow: where it goes, how fast, and how far it is.

    flow: number. vn: tag. to: address. port: UDP port. rate: datagrams per second. size: payload bytes, 28 or
    more. namespace: where the socket is opened (None: here). source: address to send from (None: the kernel's
    choice).
    """

    def __init__(
        self, flow: int, vn: int, to: str, rate: float, size: int = 100, port: int = PORT,
        namespace: str | None = None, source: str | None = None,
    ) -> None:
        if rate <= 0 or size < HEADER.size:
            raise ValueError(f"flow {flow}: rate {rate} must be above 0 and size {size} at least {HEADER.size}")
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        with netns.entered(namespace) if namespace else nullcontext():
            self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_SNDBUFFORCE", 32), 4 << 20)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect((to, port))
        self.sock.setblocking(False)
        self.flow, self.vn = flow, vn
        self.period = round(1e9 / rate)
        self.padding = bytes(size - HEADER.size)
        self.sent = 0
        self.retried = 0
        self.due = 0
        self.earliest = 0  # of the next turn: catching up, turns keep half a period apart

    def turn(self, now: int) -> None:
        """Send what is due at `now` (monotonic nanoseconds), at most a few."""
        stamp = now
        for _ in range(_CATCH_UP):
            if self.due > now:
                break
            stamp = time.monotonic_ns()
            try:
                self.sock.send(HEADER.pack(MAGIC, self.vn, self.flow, self.sent, stamp) + self.padding)
            except OSError:  # full buffer, or an ICMP error of an earlier one: the same number again next time
                self.retried += 1
                break
            self.sent += 1
            self.due += self.period
        self.earliest = stamp + self.period // 2


def run(senders: list[Sender], config: dict[str, Any], stopping: Stopping) -> dict[str, Any]:
    """Send until stopped or until the duration is over; returns what was sent."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    start = round(config["start"] * 1e9) if config.get("start") else time.monotonic_ns()
    duration = config.get("duration")
    end = start + round(duration * 1e9) if duration else None
    for sender in senders:
        sender.due = start
    worst = 0
    gc.disable()
    while not stopping.requested:
        due = min(max(sender.due, sender.earliest) for sender in senders)
        now = time.monotonic_ns()
        if due > now:
            time.sleep((due - now) / 1e9)
            now = time.monotonic_ns()
        if end is not None and now >= end:
            break
        worst = max(worst, now - min(sender.due for sender in senders))
        for sender in senders:
            if sender.due <= now and sender.earliest <= now:
                sender.turn(now)
    return {
        "flows": {str(s.flow): {"sent": s.sent, "retried": s.retried} for s in senders},
        "worst_lateness": worst / 1e9,
        "cpu": time.process_time(),
    }


def main() -> None:
    """The command line; see the module's text."""
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    stopping = Stopping()
    senders = [Sender(**flow) for flow in config["flows"]]
    print(json.dumps({"ready": True}), flush=True)
    print(json.dumps(run(senders, config, stopping)), flush=True)


if __name__ == "__main__":
    main()
