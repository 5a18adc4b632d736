"""What waits to be sent to one switch, in order; no I/O.

Flow changes are kept as they are and encoded piece by piece when the connection has room for them: programming a
hundred thousand flows costs neither their bytes in memory nor a pause for everybody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ..flows import FlowChange
from .openflow import encode_flow_mods

WRITE_SIZE = 1 << 18
"""Bytes joined for one write, about."""
ENCODE_AT_ONCE = 256
"""Flow changes encoded for one write: a few milliseconds."""


class _Batch:
    __slots__ = ("changes", "done", "refused", "xid")

    def __init__(
        self, changes: Sequence[FlowChange], xid: int, refused: Callable[[FlowChange, ValueError], None]
    ) -> None:
        self.changes, self.xid, self.refused, self.done = changes, xid, refused, 0

    def encode(self) -> bytes:
        piece = self.changes[self.done : self.done + ENCODE_AT_ONCE]
        first = self.xid + self.done
        self.done += len(piece)
        try:
            return encode_flow_mods(piece, first)
        except ValueError:
            return b"".join(self._encode_one(change, xid) for xid, change in enumerate(piece, first))

    def _encode_one(self, change: FlowChange, xid: int) -> bytes:
        try:
            return encode_flow_mods((change,), xid)
        except ValueError as error:
            self.refused(change, error)
            return b""


class Outbox:
    """A queue of bytes and flow changes. ``size``: bytes that wait; ``changes``: flow changes not encoded yet."""

    def __init__(self) -> None:
        self.size = 0
        self.changes = 0
        self._waiting: deque[bytes | _Batch] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, data: bytes) -> None:
        """Append bytes."""
        if not data:
            return  # an empty write would look like nothing left to write
        self._waiting.append(data)
        self.size += len(data)

    def put_changes(
        self, changes: Sequence[FlowChange], xid: int, refused: Callable[[FlowChange, ValueError], None]
    ) -> None:
        """Append flow changes, with transaction ids from ``xid`` upwards.

        ``refused`` is called, from :meth:`take`, for each that OpenFlow has no room for; it is left out.
        """
        if changes:
            self.changes += len(changes)
            self._waiting.append(_Batch(changes, xid, refused))

    def take(self) -> bytes:
        """What to write next: about WRITE_SIZE bytes, at most ENCODE_AT_ONCE changes among them. b"": nothing waits."""
        parts: list[bytes] = []
        size = 0
        waiting = self._waiting
        while waiting and size < WRITE_SIZE:
            item = waiting[0]
            if isinstance(item, bytes):
                waiting.popleft()
                parts.append(item)
                size += len(item)
                continue
            if parts:
                break  # its turn is next
            before = item.done
            data = item.encode()
            self.changes -= item.done - before
            self.size += len(data)
            if item.done == len(item.changes):
                waiting.popleft()
            if data:
                parts.append(data)
                size += len(data)
                if waiting and waiting[0] is item:
                    break
        taken = parts[0] if len(parts) == 1 else b"".join(parts)
        self.size -= len(taken)
        return taken

    def put_back(self, rest: bytes) -> None:
        """Return what was taken and could not be written."""
        self._waiting.appendleft(rest)
        self.size += len(rest)

    def clear(self) -> None:
        """Drop all that waits."""
        self._waiting.clear()
        self.size = self.changes = 0
