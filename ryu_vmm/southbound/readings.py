"""A question about a switch's flows, while the answer comes in, part by part. No I/O."""

from __future__ import annotations

import time

from ..effects import ReadFlows
from ..flows import FlowStats
from ..wire import meters, openflow


class Reading:
    """What was asked, and what has been answered so far.

    Args:
        asked_for: see effects.ReadFlows.
        attempt: how often it has been asked.

    Attributes:
        asked: when, by the monotonic clock.
        programs: those that had been sent to the switch before it was asked.
        config: transaction id of the question what meters there are; -1: that is not asked.
        flows: those read so far; meters: those read so far, each with its rate.
    """

    def __init__(self, asked_for: ReadFlows, attempt: int = 1) -> None:
        self.asked_for, self.attempt = asked_for, attempt
        self.asked = time.monotonic()
        self.programs = 0
        self.config = -1
        self.flows: list[FlowStats] = []
        self.meters: dict[int, int | None] = {}

    def again(self) -> Reading:
        """The same question, to be asked once more."""
        return Reading(self.asked_for, self.attempt + 1)

    def take(self, message: bytes, xid: int) -> bool:
        """Take in a part of an answer; whether more of that one follow. Raises DecodeError."""
        if xid == self.config:
            found, more = meters.decode_meter_config(message)
            self.meters.update(found)
        else:
            flows, more = openflow.decode_flow_stats(message)
            self.flows += flows
        return more
