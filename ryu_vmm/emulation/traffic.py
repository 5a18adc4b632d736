"""What the ports of an emulated switch have carried and dropped (OpenFlow 1.3.5 section 7.3.5.6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..flows import PortCounts

_RX, _TX, _RX_BYTES, _TX_BYTES, _TX_DROPPED = map(
    PortCounts._fields.index, ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "tx_dropped")
)


class Traffic:
    """Counters of ports, by number.

    Attributes:
        room: frames that a port's queue still takes, where nobody reads it; all others take any number.
    """

    def __init__(self) -> None:
        self.room: dict[int, int] = {}
        self._counts: defaultdict[int, list[int]] = defaultdict(lambda: [0] * len(PortCounts._fields))

    def came(self, port: int, frame: bytes) -> None:
        """A frame came in by a port."""
        counts = self._counts[port]
        counts[_RX] += 1
        counts[_RX_BYTES] += len(frame)

    def leaves(self, port: int, frame: bytes) -> bool:
        """Whether there is room for a frame that is to leave by a port; counted either way."""
        counts = self._counts[port]
        if port in self.room:
            if not self.room[port]:
                counts[_TX_DROPPED] += 1
                return False
            self.room[port] -= 1
        counts[_TX] += 1
        counts[_TX_BYTES] += len(frame)
        return True

    def of(self, port: int) -> PortCounts:
        """What a port has counted."""
        return PortCounts(*self._counts[port]) if port in self._counts else PortCounts()

    def read(self, ports: Iterable[int], wanted: int | None = None) -> dict[int, PortCounts]:
        """The counters of those ports, or of the one that is wanted, if it is among them."""
        return {port: self.of(port) for port in ports if wanted in (None, port)}

    def forget(self, port: int) -> None:
        """A port has gone: one of its number counts from zero."""
        self._counts.pop(port, None)
        self.room.pop(port, None)
