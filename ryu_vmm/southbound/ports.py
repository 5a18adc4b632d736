"""Readings of ports' statistics from one switch that are under way. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import DecodeError
from ..flows import PortCounts
from ..wire import base
from ..wire import ports as wire


class PortReadings:
    """Which have been asked for, by transaction id, and what has come of them so far.

    Args:
        tell: is told the token of a reading that has ended, and what it found; nothing if it has failed.
    """

    def __init__(self, tell: Callable[[str, dict[int, PortCounts]], None]) -> None:
        self._tell = tell
        self._under_way: dict[int, tuple[str, dict[int, PortCounts]]] = {}

    def ask(self, xid: int, token: str, port: int | None) -> bytes:
        """The request that reads a port, None: all."""
        self._under_way[xid] = (token, {})
        return wire.encode_port_stats_request(xid, base.ANY if port is None else port)

    def answered(self, message: bytes, xid: int) -> bool:
        """Take in a multipart reply if it answers one of our questions. Raises DecodeError."""
        if xid not in self._under_way:
            return False
        try:
            part, more = wire.decode_port_stats(message)
        except DecodeError:
            self.failed(xid)
            raise
        self._under_way[xid][1].update(part)
        if not more:
            self._tell(*self._under_way.pop(xid))
        return True

    def waits(self, xid: int) -> bool:
        """Whether more of an answer is to come."""
        return xid in self._under_way

    def failed(self, xid: int) -> bool:
        """A question was answered with an error. False if it was none of ours."""
        token, _ = self._under_way.pop(xid, (None, {}))
        if token is not None:
            self._tell(token, {})
        return token is not None
