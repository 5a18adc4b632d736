"""The receiving half: sockets in one or more namespaces, every datagram's number and time kept.

Run as `python -m topologies.traffic.udprecv CONFIG.json`; prints one line `{"ready": true}` when its sockets
are bound. On SIGTERM it waits until nothing has arrived for `quiet` seconds (1 by default, 10 at most in
all), writes one file per flow into `folder` and prints one line of JSON with the counts.

A flow's file: one line of JSON (`{"flow": 1, "count": 2000, "fields": ["seq", "sent_ns", "arrived_ns"]}`),
then `count` little-endian unsigned 64-bit numbers for each field in turn. `topologies.traffic.arrivals` reads
it.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import struct
import sys
import time
from array import array
from contextlib import nullcontext
from typing import Any

from topologies import netns
from topologies.traffic.packet import HEADER, MAGIC, PORT
from topologies.traffic.stopping import Stopping

_BUFFER = 16 << 20  # bytes; a resumed VM gets its whole queue at once
_SO_MEMINFO, _MEMINFO_DROPS = 55, 8
_BATCH = 256
_LONGEST_WAIT = 10.0


class Flow:
    """What arrived of one flow."""

    def __init__(self, number: int, vn: int) -> None:
        self.number, self.vn = number, vn
        self.seq, self.sent, self.arrived = array("Q"), array("Q"), array("Q")

    def write(self, folder: str) -> str:
        """Write the flow's file and return its path."""
        path = f"{folder}/flow-{self.number}.bin"
        header = {"flow": self.number, "count": len(self.seq), "fields": ["seq", "sent_ns", "arrived_ns"]}
        with open(path, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            for column in (self.seq, self.sent, self.arrived):
                if sys.byteorder == "big":
                    column.byteswap()
                column.tofile(file)
        return path


class Listener:
    """One socket in one VM and the flows that are meant to arrive at it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        family = socket.AF_INET6 if spec["family"] == 6 else socket.AF_INET
        namespace = spec.get("namespace")
        with netns.entered(namespace) if namespace else nullcontext():
            self.sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), _BUFFER)
        self.sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", spec.get("port", PORT)))
        self.sock.setblocking(False)
        self.flows = {flow["flow"]: Flow(flow["flow"], flow["vn"]) for flow in spec["flows"]}
        self.foreign = 0
        self.samples: list[str] = []
        self._buffer = bytearray(2048)

    def read(self) -> int:
        """Take what waits in the socket, up to a batch; returns how many datagrams."""
        receive, buffer, unpack, clock = self.sock.recv_into, self._buffer, HEADER.unpack_from, time.monotonic_ns
        flows, taken = self.flows, 0
        try:
            for taken in range(1, _BATCH + 1):  # noqa: B007 (its value counts)
                size = receive(buffer)
                now = clock()
                if size >= HEADER.size:
                    magic, vn, number, seq, sent = unpack(buffer)
                    flow = flows.get(number)
                    if flow is not None and vn == flow.vn and magic == MAGIC:
                        flow.seq.append(seq)
                        flow.sent.append(sent)
                        flow.arrived.append(now)
                        continue
                self.foreign += 1
                if len(self.samples) < 5:
                    self.samples.append(bytes(buffer[: min(size, 64)]).hex())
        except BlockingIOError:
            return taken - 1
        return taken

    def drops(self) -> int:
        """Datagrams the kernel dropped because this socket's buffer was full."""
        info = self.sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_MEMINFO_DROPS + 1))
        return int(struct.unpack(f"{len(info) // 4}I", info)[_MEMINFO_DROPS])


def _receive(poll: select.epoll, listeners: dict[int, Listener], stopping: Stopping, quiet: float) -> None:
    """Receive until stopped, and then until nothing came for `quiet` seconds."""
    while not stopping.requested:
        for fd, _ in poll.poll():
            if fd in listeners:
                listeners[fd].read()
    poll.unregister(stopping.fileno())
    stopped = time.monotonic()
    while time.monotonic() - stopped < _LONGEST_WAIT:
        ready = poll.poll(quiet)
        if not ready:
            return
        for fd, _ in ready:
            listeners[fd].read()


def run(config: dict[str, Any], stopping: Stopping) -> dict[str, Any]:
    """Receive until SIGTERM and then until it is quiet; returns the counts and where the files are."""
    listeners = {}
    poll = select.epoll()
    poll.register(stopping.fileno(), select.EPOLLIN)
    for spec in config["listeners"]:
        listener = Listener(spec)
        listeners[listener.sock.fileno()] = listener
        poll.register(listener.sock.fileno(), select.EPOLLIN)
    gc.disable()
    print(json.dumps({"ready": True}), flush=True)
    _receive(poll, listeners, stopping, config.get("quiet", 1.0))
    cpu = time.process_time()
    flows = [flow for listener in listeners.values() for flow in listener.flows.values()]
    return {
        "files": {str(flow.number): flow.write(config["folder"]) for flow in flows},
        "listeners": [
            {"name": spec.get("name", ""), "foreign": listener.foreign, "drops": listener.drops(),
             "samples": listener.samples}
            for spec, listener in zip(config["listeners"], listeners.values(), strict=True)
        ],
        "cpu": cpu,
    }


def main() -> None:
    """The command line; see the module's text."""
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    print(json.dumps(run(config, Stopping())), flush=True)


if __name__ == "__main__":
    main()
