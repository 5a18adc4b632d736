"""One end of a checked stream: numbered records at a fixed rate both ways, each with its CRC-32.

A byte lost, doubled or out of order anywhere shows at the end that reads it. When a client has sent all that it wants
to, it shuts its side down; the server then sends what it still has and a last record that says how many records it has
sent and taken, so that nothing can be missing at the tail either.
"""

from __future__ import annotations

import base64
import socket
import struct
import time
import zlib
from typing import Any

_RECORD = struct.Struct("!III")  # payload length, number, CRC-32 of number and payload
_LAST = 0xFFFFFFFF  # number of the last record
_COUNTS = struct.Struct("!II")
_PATTERN = bytes(range(256)) * 64


class End:
    """One end. It sends records of `size` bytes, `rate` per second, until `last`."""

    def __init__(self, sock: socket.socket, client: bool, rate: float, size: int) -> None:
        sock.setblocking(False)
        self.sock, self.client, self.rate, self.size = sock, client, rate, size
        self.sent = self.taken = self.bytes = 0
        self.errors: list[str] = []
        self.out, self.into = bytearray(), bytearray()
        self.due = self.heard = time.monotonic()
        self.stall = 0.0  # longest time without data, in seconds
        self.ending = False  # no more records of its own
        self.shut = False
        self.counts: tuple[int, int] | None = None  # what the other end says that it sent and took
        self.open = True

    # --- a server's connections move --------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """All but the socket."""
        return {
            "rate": self.rate, "size": self.size, "sent": self.sent, "taken": self.taken, "bytes": self.bytes,
            "errors": self.errors, "ending": self.ending, "shut": self.shut,
            "out": base64.b64encode(self.out).decode(), "into": base64.b64encode(self.into).decode(),
        }  # fmt: skip

    @classmethod
    def of(cls, sock: socket.socket, state: dict[str, Any]) -> End:
        """A server's end, as it was elsewhere."""
        end = cls(sock, False, state["rate"], state["size"])
        for name in ("sent", "taken", "bytes", "errors", "ending", "shut"):
            setattr(end, name, state[name])
        end.out, end.into = bytearray(base64.b64decode(state["out"])), bytearray(base64.b64decode(state["into"]))
        return end

    # --- records ------------------------------------------------------------------------------------------------------
    def fail(self, text: str) -> None:
        """Note an error; the connection is of no use any more."""
        if self.open:
            self.errors.append(text)
            self.open = False

    def _put(self, number: int, payload: bytes) -> None:
        crc = zlib.crc32(payload, number)
        self.out += _RECORD.pack(len(payload), number, crc) + payload

    def turn(self, now: float) -> None:
        """Send what is due."""
        if not self.open:
            return
        if not self.ending:
            while self.due <= now and len(self.out) < 1 << 18:
                at = self.sent * 31 % (len(_PATTERN) - self.size)
                self._put(self.sent, _PATTERN[at : at + self.size])
                self.sent += 1
                self.due += 1.0 / self.rate
        self._flush()

    def last(self) -> None:
        """No more records: a client shuts its side down once all is sent, a server says how much there was."""
        if not self.ending:
            self.ending = True
            if not self.client:
                self._put(_LAST, _COUNTS.pack(self.sent, self.taken))
        self._flush()

    def _flush(self) -> None:
        try:
            while self.out:
                del self.out[: self.sock.send(self.out)]
            if self.ending and not self.shut:
                self.shut = True
                self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as exc:
            self.fail(f"send: {exc}")

    def read(self) -> None:
        """Take what has arrived and check it."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as exc:
            self.fail(f"receive: {exc}")
            return
        now = time.monotonic()
        self.stall, self.heard = max(self.stall, now - self.heard), now
        if not data:
            self._ended()
            return
        self.bytes += len(data)
        self.into += data
        self._check()

    def _ended(self) -> None:
        if not self.client:
            self.last()
            self.open = bool(self.out) and self.open
        elif self.counts is None:
            self.fail("the other end closed")
        else:
            self.open = False
            if self.counts != (self.taken, self.sent):
                self.errors.append(f"sent {self.sent} and took {self.taken} records, the other end says {self.counts}")

    def _check(self) -> None:
        at = 0
        while len(self.into) - at >= _RECORD.size:
            length, number, crc = _RECORD.unpack_from(self.into, at)
            if length > len(_PATTERN):
                self.fail(f"record {self.taken}: length {length}")
                return
            if len(self.into) - at < _RECORD.size + length:
                break
            payload = bytes(self.into[at + _RECORD.size : at + _RECORD.size + length])
            if zlib.crc32(payload, number) != crc or number not in (self.taken, _LAST):
                self.fail(f"record {self.taken}: got number {number}, or a wrong checksum")
                return
            if number == _LAST:
                sent, taken = _COUNTS.unpack(payload)
                self.counts = (sent, taken)
            else:
                self.taken += 1
            at += _RECORD.size + length
        del self.into[:at]
