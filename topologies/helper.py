"""Talking to a helper process: JSON lines over a socket pair, one answer per request.

The topology's Python process stays free while the helpers (vnic, relay) move frames and bytes. A helper ends
by itself when its parent does: the socket closes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from topologies.errors import HelperError
from topologies.rundir import RunDir

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Helper:
    """The parent's end of one helper process."""

    def __init__(self, run: RunDir, module: str) -> None:
        self.name = module
        self._run = run
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        # -S and no user site: the helpers need the standard library only, and start three times faster
        # without
        self.process = run.spawn(
            [sys.executable, "-S", "-m", f"topologies.{module}", str(theirs.fileno())],
            env={"PYTHONPATH": ROOT}, pass_fds=[theirs.fileno()], log=f"{module}.log",
        )
        theirs.close()
        ours.settimeout(30.0)
        self._socket = ours
        self._file = ours.makefile("r", encoding="utf-8")

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises HelperError with the helper's reason."""
        with self._lock:
            try:
                self._socket.sendall(json.dumps({"do": command, **arguments}).encode() + b"\n")
                line = self._file.readline()
            except OSError as exc:
                raise HelperError(f"{self.name}: {command}: {exc}") from exc
        if not line:
            raise HelperError(f"{self.name}: {command}: the process has ended (see {self._run.path}/{self.name}.log)")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise HelperError(f"{self.name}: {command}: {answer['error']}")
        return answer

    def close(self) -> None:
        """Close the socket and end the process."""
        self._file.close()
        self._socket.close()
        self._run.end(self.process)


class Commands:
    """The helper's end: reads requests from the inherited socket, calls `do_<command>` of the server object."""

    def __init__(self, server: object) -> None:
        self.socket = socket.socket(fileno=int(sys.argv[1]))
        self.socket.setblocking(False)
        self._server = server
        self._buffer = b""

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self.socket.fileno()

    def readable(self) -> bool:
        """Serve what has arrived; False when the parent is gone."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._answer(line)
        return True

    def _answer(self, line: bytes) -> None:
        request = json.loads(line)
        try:
            method: Callable[..., dict[str, Any] | None] = getattr(self._server, "do_" + request.pop("do"))
            reply = method(**request)
        except Exception as exc:  # the parent gets the reason, whatever it is; the helper lives on
            reply = {"error": f"{type(exc).__name__}: {exc}"}
        if reply is not None:
            self.reply(reply)

    def reply(self, reply: dict[str, Any]) -> None:
        """Send an answer. A `do_*` method that returned None owes the parent this call."""
        self.socket.setblocking(True)
        try:
            self.socket.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            return
        finally:
            self.socket.setblocking(False)
