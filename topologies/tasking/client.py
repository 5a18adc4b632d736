"""Clients of the stream task: so many connections, opened once, every record checked.

Run as `python -S -m topologies.tasking.client CONFIG.json` inside a VM's namespace; the file has `to` (addresses),
`port`, `count` (of each address), `rate`, `size`, `reconnect`. Prints `{"ready": true}` when all are open; on SIGTERM
it ends all streams and prints what they saw. With `reconnect` a connection that is reset is opened again at once, and
what that took is told.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Any

from topologies.tasking.streams import End
from topologies.traffic.stopping import Stopping

_TICK = 0.01


class Clients:
    """All connections of one place."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.poll = select.epoll()
        self.ends: dict[int, tuple[str, End]] = {}
        self.finished: list[End] = []
        self.connecting: dict[int, tuple[str, socket.socket, float]] = {}
        self.again: list[float] = []  # seconds from a reset to the next connection
        self.resets: list[float] = []  # when connections were reset, CLOCK_MONOTONIC

    def _open(self, address: str, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = End(sock, True, self.config["rate"], self.config["size"])
        self.ends[sock.fileno()] = (address, end)
        self.poll.register(sock, select.EPOLLIN)

    def connect(self) -> None:
        """Open all. Raises OSError."""
        for address in self.config["to"]:
            for _ in range(self.config["count"]):
                self._open(address, socket.create_connection((address, self.config["port"]), timeout=15))

    def _reconnect(self, address: str, since: float) -> None:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.connect_ex((address, self.config["port"]))
        self.connecting[sock.fileno()] = (address, sock, since)
        self.poll.register(sock, select.EPOLLOUT)

    def _connected(self, fd: int) -> None:
        address, sock, since = self.connecting.pop(fd)
        self.poll.unregister(fd)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()
            self._reconnect(address, since)
            return
        self.again.append(time.monotonic() - since)
        self._open(address, sock)

    def _closed(self, fd: int) -> None:
        address, end = self.ends.pop(fd)
        self.poll.unregister(fd)
        end.sock.close()
        self.finished.append(end)
        if self.config.get("reconnect") and end.errors and not end.ending:
            now = time.monotonic()
            self.resets.append(now)
            self._reconnect(address, now)

    def turn(self) -> None:
        """One round."""
        for fd, _ in self.poll.poll(_TICK):
            if fd in self.connecting:
                self._connected(fd)
            else:
                self.ends[fd][1].read()
        now = time.monotonic()
        for fd, (_, end) in list(self.ends.items()):
            end.turn(now)
            if not end.open:
                self._closed(fd)

    def end(self, seconds: float) -> None:
        """End all streams; each must be answered with the server's own account."""
        for _, end in self.ends.values():
            end.last()
        deadline = time.monotonic() + seconds
        while self.ends and time.monotonic() < deadline:
            self.turn()
        for fd, (_, end) in list(self.ends.items()):
            end.fail(f"no end within {seconds:g} s")
            self._closed(fd)

    def report(self) -> dict[str, Any]:
        """What all saw."""
        return {
            "connections": len(self.finished),
            "errors": [error for end in self.finished for error in end.errors],
            "sent": sum(end.sent for end in self.finished),
            "taken": sum(end.taken for end in self.finished),
            "bytes": sum(end.bytes for end in self.finished),
            "stall": max((end.stall for end in self.finished), default=0.0),
            "again": self.again,
            "resets": self.resets,
        }


def main() -> None:
    """The command line; see the module's text."""
    with open(sys.argv[1], encoding="utf-8") as file:
        clients = Clients(json.load(file))
    stopping = Stopping()
    clients.connect()
    print(json.dumps({"ready": True}), flush=True)
    while not stopping.requested:
        clients.turn()
    clients.end(45.0)  # after a long standstill the next retransmission takes as long again to come
    print(json.dumps(clients.report()), flush=True)


if __name__ == "__main__":
    main()
