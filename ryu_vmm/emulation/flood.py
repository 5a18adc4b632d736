"""Packet-ins as fast as a connection takes them, whether they are answered or not.

The switch goes on answering meanwhile: what it has to say otherwise waits for one block of the flood at the most.
Answers to the flood are not carried out, which would take longer than making the flood.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..wire import base as of

#: Bytes that are sent at once, about.
BLOCK = 1 << 16


class Flood:
    """What is sent over and over.

    Args:
        messages: packet-ins, as the switch's tables make them.
        rate: packets in a second (None: as many as the connection takes).

        ports: numbers of the ports that they come in on.

    Attributes:
        sent: messages so far.
        answered: packet-outs that were not carried out.
    """

    def __init__(self, messages: Sequence[bytes], rate: float | None = None, ports: Collection[int] = ()) -> None:
        self._ports = {port.to_bytes(4, "big") for port in ports}
        self.answered = 0
        times = max(1, BLOCK // sum(map(len, messages)))
        self._block = b"".join(messages) * times
        self._ends: list[int] = []
        end = 0
        for message in list(messages) * times:
            end += len(message)
            self._ends.append(end)
        self.rate = rate
        self.sent = 0
        self._began: float | None = None

    def block(self, now: float) -> bytes:
        """What to send now: whole messages, perhaps none yet. ``now``: seconds on a steady clock."""
        count = len(self._ends)
        if self.rate is not None:
            if self._began is None:
                self._began = now
            count = min(count, int((now - self._began) * self.rate) - self.sent)
        if count <= 0:
            return b""
        self.sent += count
        return self._block[: self._ends[count - 1]]

    def is_answer(self, message: bytes) -> bool:
        """Whether a message of the controller is about a packet of the flood: out of its port, or as if in by it."""
        if message[1] != of.PACKET_OUT or not self._ports.intersection((message[12:16], message[28:32])):
            return False
        self.answered += 1
        return True
