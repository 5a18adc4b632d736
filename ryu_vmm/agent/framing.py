"""Frames between an agent and its tasks: a JSON document, bytes, and file descriptors, over a unix stream socket.

A frame is ``"VMT1"``, the document's length and the payload's length (four bytes each, network order), the document
(UTF-8 JSON, an object), the payload. Descriptors travel with the frame's first byte (SCM_RIGHTS, unix(7)), at most
FDS in one frame: more of them go ahead in frames whose document is ``{"more": true}``.

Standard library only: tasks import this.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FDS", "MAX_DOCUMENT", "MAX_PAYLOAD", "Channel", "Closed", "Frame", "FrameError"]

HEAD = struct.Struct("!4sII")
MAGIC = b"VMT1"
FDS = 200  # the kernel's limit is 253 (SCM_MAX_FD)
MAX_DOCUMENT = 4 << 20  # bytes
MAX_PAYLOAD = 1 << 30
_MAX_FDS = 65536
_INT = array.array("i").itemsize


class FrameError(Exception):
    """What came is not a frame."""


class Closed(Exception):
    """The other end is gone."""


@dataclass
class Frame:
    """One message. Whoever receives it owns ``fds`` and closes them."""

    document: dict[str, Any]
    payload: bytes = b""
    fds: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        while self.fds:
            with contextlib.suppress(OSError):
                os.close(self.fds.pop())


class Channel:
    """Frames over a connected unix stream socket. Not for two threads at once."""

    def __init__(self, sock: socket.socket, seconds: float | None = None) -> None:
        sock.settimeout(seconds)
        self.sock = sock

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self.sock.fileno()

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def ask(self, document: dict[str, Any], payload: bytes = b"", fds: Sequence[int] = ()) -> Frame:
        """Send a frame and wait for the answer. Raises Closed, FrameError, TimeoutError."""
        self.send(document, payload, fds)
        return self.receive()

    def send(self, document: dict[str, Any], payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a frame. Raises Closed, TimeoutError; FrameError if it is larger than the other end would take."""
        fds = list(fds)
        while len(fds) > FDS:
            ahead, fds = fds[:FDS], fds[FDS:]
            self._send({"more": True}, b"", ahead)
        self._send(document, payload, fds)

    def _send(self, document: dict[str, Any], payload: bytes, fds: Sequence[int]) -> None:
        text = json.dumps(document, separators=(",", ":")).encode()
        if len(text) > MAX_DOCUMENT or len(payload) > MAX_PAYLOAD:
            raise FrameError(f"a frame of {len(text)} + {len(payload)} bytes is too large")
        head = HEAD.pack(MAGIC, len(text), len(payload))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.sock.sendmsg([head], rights)
            self.sock.sendall(head[sent:] + text)
            if payload:  # after the last byte the other end may be gone, and even nothing would be too much
                self.sock.sendall(payload)
        except TimeoutError:
            raise
        except OSError as e:
            raise Closed(str(e)) from None

    def receive(self) -> Frame:
        """The next frame. Raises Closed, FrameError, TimeoutError; descriptors of an incomplete frame are closed."""
        frame = Frame({})
        try:
            while True:
                document = self._receive(frame)
                if document.get("more") is not True:
                    frame.document = document
                    return frame
        except BaseException:
            frame.close()
            raise

    def _receive(self, frame: Frame) -> dict[str, Any]:
        magic, length, size = HEAD.unpack(self._head(frame.fds))
        if magic != MAGIC:
            raise FrameError("this is not the protocol of tasks")
        if length > MAX_DOCUMENT or size > MAX_PAYLOAD or len(frame.fds) > _MAX_FDS:
            raise FrameError(f"a frame of {length} + {size} bytes is too large")
        try:
            document = json.loads(self._exactly(length))
        except (ValueError, RecursionError) as e:
            raise FrameError(f"not JSON: {e}") from None
        if not isinstance(document, dict):
            raise FrameError("not a JSON object")
        frame.payload = self._exactly(size)
        return document

    def _head(self, fds: list[int]) -> bytes:
        head = b""
        while len(head) < HEAD.size:
            try:
                space = socket.CMSG_SPACE(253 * _INT)
                data, rights, _, _ = self.sock.recvmsg(HEAD.size - len(head), space, socket.MSG_CMSG_CLOEXEC)
            except TimeoutError:
                raise
            except OSError as e:
                raise Closed(str(e)) from None
            for level, kind, what in rights:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    found = array.array("i")
                    found.frombytes(what[: len(what) - len(what) % _INT])
                    fds.extend(found)
            if not data:
                raise Closed("the other end has closed")
            head += data
        return head

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                part = self.sock.recv(min(size - len(data), 1 << 20))
            except TimeoutError:
                raise
            except OSError as e:
                raise Closed(str(e)) from None
            if not part:
                raise Closed("the other end has closed in the middle of a frame")
            data += part
        return bytes(data)
