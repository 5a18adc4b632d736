"""Packet-ins as fast as a controller answers them, and what its answers took.

Requests are made by the switch's own tables: a frame is injected on a port, and whatever packet-in the
flows that the controller installed make of it is what is sent, over and over. Each connection keeps
``window`` requests unanswered; one packet-out counts as one answer, and answers come in the order of the
requests.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..wire import base as of
from .farm import Farm, Link, clock
from .switch import packet_in
from .tables import ToNva


class NoPacketIn(Exception):
    """The tables do not send such a frame to the controller."""


@dataclass(slots=True)
class Result:
    """What a load run has measured; times in seconds."""

    answered: int
    total: int  # answers with those of the warm-up and after the end
    seconds: float
    latencies: dict[str, float]  # "p50", "p90", "p99", "max"
    per_switch: list[int]
    lost: int  # requests still unanswered when the run ended and answers had stopped
    samples: list[tuple[int, int, bytes]] = field(default_factory=list)  # dpid, request number, packet-out

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answered / self.seconds


def requests_of(farm: Farm, dpid: int, frames: Sequence[tuple[int, bytes]]) -> list[bytes]:
    """The packet-ins that a switch's tables make of (port number, frame) pairs.

    Raises:
        NoPacketIn: one of the frames is not sent to the controller.
    """
    switch = farm.fabric.switches[dpid]
    messages = []
    for port, frame in frames:
        found = [r for r in switch.tables.run(frame, port) if isinstance(r, ToNva)]
        if len(found) != 1:
            raise NoPacketIn(f"{len(found)} packet-ins for a frame on port {port} of switch {dpid}")
        messages.append(packet_in(found[0]))
    return messages


#: The length of a packet-out's actions if that is a single output (OpenFlow 1.3 section 7.3.7).
_ONE_OUTPUT = b"\0\x10"


class _Stream:
    """One connection under load."""

    def __init__(self, farm: Farm, link: Link, requests: list[bytes], sample: int) -> None:
        self.farm = farm
        self.link = link
        self.requests = requests
        self.ring = b"".join(requests * 2)
        self.starts = [0, *itertools.accumulate(map(len, requests * 2))]
        self.asked = self.answered = 0
        self.asking = True
        self.sent: deque[tuple[int, float]] = deque()  # (requests sent up to here, when)
        self.latencies: list[tuple[float, int]] = []  # seconds, how many requests took so long
        self.rest = b""
        self.sample = sample
        self.samples: list[tuple[int, int, bytes]] = []

    def ask(self, number: int, now: float) -> None:
        """Send the next ``number`` requests."""
        data = []
        count = len(self.requests)
        while number:
            first = self.asked % count
            part = min(number, count)
            data.append(self.ring[self.starts[first] : self.starts[first + part]])
            self.asked += part
            number -= part
        self.sent.append((self.asked, now))
        self.farm.send(self.link, b"".join(data))

    def receive(self, data: bytes, now: float) -> None:
        """Count the answers in what came, and ask as many times again."""
        if self.rest:
            data = self.rest + data
        session = self.link.session
        assert session is not None
        before = number = self.answered
        at, end = 0, len(data)
        while end - at >= 8:
            size = data[at + 2] << 8 | data[at + 3]
            if end - at < size:
                break
            # What has more actions than one is sent elsewhere, as probes of tunnels are: no answer.
            if data[at + 1] == of.PACKET_OUT and data[at + 16 : at + 18] == _ONE_OUTPUT:
                if not number % self.sample or number < len(self.requests):
                    self.samples.append((session.switch.dpid, number, data[at : at + size]))
                number += 1
            else:
                session.message(data[at + 1], data[at : at + size], now)
            at += size
        self.rest = data[at:]
        self.answered = number
        if number == before:
            return
        if self.asking:
            self.ask(number - before, now)
        while before < number:
            upto, when = self.sent[0]
            part = min(upto, number) - before
            self.latencies.append((now - when, part))
            before += part
            if before == upto:
                self.sent.popleft()


def run(
    farm: Farm,
    frames: Mapping[int, Sequence[tuple[int, bytes]]],
    window: int,
    seconds: float,
    warm_up: float = 1.0,
    sample: int = 1000,
) -> Result:
    """Load the controller with requests from some switches.

    Args:
        farm: connected switches.
        frames: what enters each of them (dpid): (port number, frame) pairs, sent round and round.
        window: requests that each switch leaves unanswered, 1 or more.
        seconds: how long to measure, after ``warm_up`` seconds of the same.
        sample: keep each such answer, and the first round of them.

    Raises:
        NoPacketIn: the tables do not send one of the frames to the controller.
        ConnectionError: the controller closed a connection.
    """
    streams = [
        _Stream(farm, farm.links[dpid], requests_of(farm, dpid, pairs), sample) for dpid, pairs in frames.items()
    ]
    losses = farm.losses
    for stream in streams:
        stream.link.receive = stream.receive
    try:
        for stream in streams:
            stream.ask(window, clock())
        _serve(farm, warm_up, losses)
        for stream in streams:
            stream.latencies.clear()
        before = [stream.answered for stream in streams]
        start = clock()
        _serve(farm, seconds, losses)
        took = clock() - start
        per_switch = [stream.answered - b for stream, b in zip(streams, before, strict=True)]
        for stream in streams:
            stream.asking = False
        farm.run(lambda: all(stream.answered >= stream.asked for stream in streams), 5.0)
    finally:
        for stream in streams:
            stream.link.receive = None
    return Result(
        sum(per_switch),
        sum(stream.answered for stream in streams),
        took,
        percentiles([pair for stream in streams for pair in stream.latencies]),
        per_switch,
        sum(stream.asked - stream.answered for stream in streams),
        [s for stream in streams for s in stream.samples],
    )


def _serve(farm: Farm, seconds: float, losses: int) -> None:
    farm.run(lambda: farm.losses > losses, seconds)
    if farm.losses > losses:
        raise ConnectionError("the controller closed a connection during the load")


def percentiles(weighted: list[tuple[float, int]]) -> dict[str, float]:
    """p50, p90, p99 and max of values that count so many times each; empty for no values."""
    if not weighted:
        return {}
    weighted = sorted(weighted)
    total = sum(count for _, count in weighted)
    found: dict[str, float] = {}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        seen = 0
        for value, count in weighted:
            seen += count
            if seen >= share * total:
                found[name] = value
                break
    found["max"] = weighted[-1][0]
    return found
