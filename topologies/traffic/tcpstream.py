"""TCP connections that must survive: a checksummed stream in both directions, and an idle one in the manner
of SSH.

Run as `python -m topologies.traffic.tcpstream CONFIG.json`; prints one line `{"ready": true}` when all
connections are up, and on SIGTERM one line of JSON with what each of them saw. Every connection is opened
once and never again: an error or an end ends its account, and is reported.

A stream sends numbered records at a fixed rate from both ends; each end checks number and CRC-32 of every
record. An idle connection sends a few bytes now and then and waits for the echo.
"""

from __future__ import annotations

import json
import random
import select
import socket
import struct
import sys
import time
import zlib
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from topologies import netns
from topologies.traffic.stopping import Stopping

_RECORD = struct.Struct("!III")  # payload length, number, CRC-32 of the payload
_TICK = 0.005
_TOTAL_RETRANS = 100  # offset of tcpi_total_retrans in struct tcp_info
_RANDOM = random.Random(1).randbytes(1 << 20)


@dataclass
class Seen:
    """What one end of a connection saw. Times in seconds."""

    records: int = 0
    bytes: int = 0
    errors: list[str] = field(default_factory=list)
    stall: float = 0.0  # longest time without data from the other end
    stall_at: float = 0.0  # when that began, CLOCK_MONOTONIC
    retransmitted: int = 0  # segments this end sent again


class End:
    """One end of one connection."""

    def __init__(self, sock: socket.socket, spec: dict[str, Any], client: bool) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.client = sock, client
        self.idle = spec["kind"] == "idle"
        self.period = spec.get("interval", 1.0) if self.idle else 1.0 / spec.get("rate", 200.0)
        self.size = 32 if self.idle else spec.get("size", 1000)
        self.seen = Seen()
        self.sent = 0
        self._out = bytearray()
        self._in = bytearray()
        self._last = self._due = time.monotonic()
        self.open = True

    def _fail(self, text: str) -> None:
        if self.open:
            self.seen.errors.append(text)
            self.open = False

    def _put(self, number: int) -> None:
        at = (number * 7919) % (len(_RANDOM) - self.size)
        payload = _RANDOM[at : at + self.size]
        self._out += _RECORD.pack(self.size, number, zlib.crc32(payload)) + payload

    def turn(self, now: float) -> None:
        """Send what is due: records by the clock; on an idle connection the client's only, the rest are
        echoes.
        """
        if not self.open:
            return
        if self.client or not self.idle:
            while self._due <= now and len(self._out) < 1 << 20:
                self._put(self.sent)
                self.sent += 1
                self._due += self.period
        self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self.sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError as exc:
            self._fail(f"send: {exc}")

    def read(self) -> None:
        """Take what has arrived and check it."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as exc:
            self._fail(f"receive: {exc}")
            return
        if not data:
            self._fail("the other end closed")
            return
        now = time.monotonic()
        if now - self._last > self.seen.stall:
            self.seen.stall, self.seen.stall_at = now - self._last, self._last
        self._last = now
        self.seen.bytes += len(data)
        self._in += data
        self._check()

    def _check(self) -> None:
        at = 0
        while len(self._in) - at >= _RECORD.size:
            length, number, crc = _RECORD.unpack_from(self._in, at)
            if length != self.size:
                self._fail(f"record {self.seen.records}: length {length}")
                return
            if len(self._in) - at < _RECORD.size + length:
                break
            payload = self._in[at + _RECORD.size : at + _RECORD.size + length]
            if number != self.seen.records or zlib.crc32(payload) != crc:
                self._fail(f"record {self.seen.records}: got number {number}, or a wrong checksum")
                return
            self.seen.records += 1
            if self.idle and not self.client:
                self._put(number)
                self.sent += 1
            at += _RECORD.size + length
        del self._in[:at]

    def report(self) -> dict[str, Any]:
        """What this end saw, as plain data."""
        waited = time.monotonic() - self._last
        if waited > self.seen.stall:
            self.seen.stall, self.seen.stall_at = waited, self._last
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if len(info) >= _TOTAL_RETRANS + 4:
            self.seen.retransmitted = struct.unpack_from("=I", info, _TOTAL_RETRANS)[0]
        return {**vars(self.seen), "sent": self.sent, "open": self.open}


def _connect(spec: dict[str, Any]) -> tuple[End, End]:
    """Open one connection between two namespaces; (client, server)."""
    address, port = spec["to"], spec["port"]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered(spec["server"]) if spec.get("server") else nullcontext():
        listener = socket.socket(family, socket.SOCK_STREAM)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(1)
        listener.settimeout(15)
        with netns.entered(spec["client"]) if spec.get("client") else nullcontext():
            client = socket.socket(family, socket.SOCK_STREAM)
        client.settimeout(15)
        client.connect((address, port))
        server, _ = listener.accept()
    return End(client, spec, client=True), End(server, spec, client=False)


def run(config: dict[str, Any], stopping: Stopping) -> dict[str, Any]:
    """Keep all connections busy until SIGTERM; returns the accounts."""
    pairs = {spec["name"]: _connect(spec) for spec in config["streams"]}
    ends = {end.sock.fileno(): end for pair in pairs.values() for end in pair}
    poll = select.epoll()
    for fd in ends:
        poll.register(fd, select.EPOLLIN)
    print(json.dumps({"ready": True}), flush=True)
    while not stopping.requested:
        for fd, _ in poll.poll(_TICK):
            ends[fd].read()
            if not ends[fd].open:
                poll.unregister(fd)
        now = time.monotonic()
        for end in ends.values():
            end.turn(now)
    return {name: {"client": a.report(), "server": b.report()} for name, (a, b) in pairs.items()}


def main() -> None:
    """The command line; see the module's text."""
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    print(json.dumps(run(config, Stopping())), flush=True)


if __name__ == "__main__":
    main()
