"""How often a source may be wrong: token buckets, in bounded memory."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

__all__ = ["Buckets", "source_of"]


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, the /64 of an IPv6 address (which one host may have whole)."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


class Buckets:
    """A bucket for each source: full at first, emptied by :meth:`take`, refilled by time.

    Args:
        size: what a full bucket holds.
        refill: how much comes back in a second.
        most: sources remembered; of more, the one that has been silent longest is forgotten.
    """

    def __init__(self, size: float, refill: float, most: int = 4096) -> None:
        self.size, self.refill, self.most = size, refill, most
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def level(self, source: str, now: float) -> float:
        """What is in a source's bucket."""
        level, at = self._levels.get(source, (self.size, now))
        return min(self.size, level + max(0.0, now - at) * self.refill)

    def take(self, source: str, now: float) -> bool:
        """Take one out; False if there is none left."""
        level = self.level(source, now)
        enough = level >= 1
        self._levels[source] = (level - 1 if enough else level, now)
        self._levels.move_to_end(source)
        while len(self._levels) > self.most:
            self._levels.popitem(last=False)
        return enough

    def wait(self, source: str, now: float) -> float:
        """Seconds until there is one to take."""
        return max(0.0, (1 - self.level(source, now)) / self.refill)
