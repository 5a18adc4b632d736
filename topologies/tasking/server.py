"""A task that cooperates: it serves checked streams, echoes datagrams, and says when it runs.

Run by an agent: `python -S -m topologies.tasking.server CONFIG.json`; the file has `port`, `rate`, `size`, `beats` (a
folder). Every process of the task writes there, in a file of its own, when it begins, stops, goes on, and every 10 ms
in between: so that two copies that run at one time would show.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from ryu_vmm.agent import cooperate
from topologies.tasking.streams import End

_TICK = 0.01


class Server:
    """The task's program."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.rate, self.size, self.port = config["rate"], config["size"], config["port"]
        self.poll = select.epoll()
        self.ends: dict[int, tuple[str, End]] = {}
        self.listeners: dict[int, tuple[str, socket.socket]] = {}
        self.echoes: dict[int, tuple[str, socket.socket]] = {}
        self.number = 0  # of the next connection
        self.done: list[dict[str, Any]] = []
        self.moves = 0
        self.born = time.time()
        self.beats = open(f"{config['beats']}/{os.getpid()}", "a", encoding="ascii", buffering=1)  # noqa: SIM115
        task = cooperate.join(self.save)
        if task is None:
            raise SystemExit("this is a task: an agent runs it")
        self.task = task

    # --- state --------------------------------------------------------------------------------------------------------
    def save(self) -> cooperate.Saved:
        """What another process needs to go on."""
        self.beats.write(f"{time.monotonic():.6f} stop\n")
        named = [*self.listeners.values(), *self.echoes.values(), *((key, end.sock) for key, end in self.ends.values())]
        state = {
            "ends": {key: end.state() for key, end in self.ends.values()}, "number": self.number,
            "moves": self.moves + 1, "born": self.born, "done": self.done,
        }  # fmt: skip
        return cooperate.Saved(json.dumps(state).encode(), dict(named))

    def begin(self, begun: cooperate.Resumed) -> None:
        """Begin anew, or where it stopped elsewhere."""
        if begun.state is None:
            self.beats.write(f"{time.monotonic():.6f} anew\n")
            for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                listener = socket.socket(family, socket.SOCK_STREAM)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                echo = socket.socket(family, socket.SOCK_DGRAM)
                for sock in (listener, echo):
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind((address, self.port))
                listener.listen(256)
                self._listen(f"listen{address}", listener)
                self._echo(f"udp{address}", echo)
        else:
            state = json.loads(begun.state)
            self.number, self.moves, self.born, self.done = (state[k] for k in ("number", "moves", "born", "done"))
            for key, sock in begun.sockets.items():
                if key.startswith("listen"):
                    self._listen(key, sock)
                elif key.startswith("udp"):
                    self._echo(key, sock)
                else:
                    self._add(key, End.of(sock, state["ends"][key]))
        self._again(begun)

    def _again(self, resumed: cooperate.Resumed) -> None:
        for fd, (key, end) in list(self.ends.items()):
            if key in resumed.dropped:
                self._remove(fd, end)
        for _, sock in resumed.accepted:
            self._new(sock)
        self.beats.write(f"{time.monotonic():.6f} run\n")

    # --- sockets ------------------------------------------------------------------------------------------------------
    def _listen(self, key: str, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.listeners[sock.fileno()] = (key, sock)
        self.poll.register(sock, select.EPOLLIN)

    def _echo(self, key: str, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.echoes[sock.fileno()] = (key, sock)
        self.poll.register(sock, select.EPOLLIN)

    def _new(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._add(f"conn{self.number}", End(sock, False, self.rate, self.size))
        self.number += 1

    def _add(self, key: str, end: End) -> None:
        self.ends[end.sock.fileno()] = (key, end)
        self.poll.register(end.sock, select.EPOLLIN)

    def _remove(self, fd: int, end: End) -> None:
        del self.ends[fd]
        self.poll.unregister(fd)
        if end.errors:
            self.done.append({"errors": end.errors, "taken": end.taken})
        end.sock.close()

    def _event(self, fd: int) -> None:
        if fd in self.listeners:
            try:
                self._new(self.listeners[fd][1].accept()[0])
            except OSError:
                return
        elif fd in self.echoes:
            sock = self.echoes[fd][1]
            try:
                while True:
                    data, sender = sock.recvfrom(65535)
                    sock.sendto(data, sender)
            except OSError:
                return
        elif fd in self.ends:
            self.ends[fd][1].read()

    def serve(self) -> None:
        """Until SIGTERM."""
        self.poll.register(self.task, select.EPOLLIN)
        mine, beat = self.task.fileno(), 0.0
        while True:
            for fd, _ in self.poll.poll(_TICK):
                if fd == mine:
                    resumed = self.task.serve()
                    if resumed is not None:
                        self._again(resumed)
                else:
                    self._event(fd)
            now = time.monotonic()
            if now - beat >= _TICK:
                beat = now
                self.beats.write(f"{now:.6f} beat\n")
            for fd, (_, end) in list(self.ends.items()):
                end.turn(now)
                if not end.open:
                    self._remove(fd, end)


def main() -> None:
    """The command line; see the module's text."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with open(sys.argv[1], encoding="utf-8") as file:
        server = Server(json.load(file))
    server.begin(server.task.begin())
    server.serve()


if __name__ == "__main__":
    main()
