"""Switches that are plain sockets, and the application of board_app.py that they speak to."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ryu_vmm.events import PortInfo
from ryu_vmm.wire import agent, base, frames, openflow

HERE = Path(__file__).parent
BOARD, BESIDE = str(HERE / "board_app.py"), str(HERE / "beside_app.py")
PORTS = [PortInfo(1, "tap-vm1", True), PortInfo(2, "vxlan", True), PortInfo(0xFFFFFFFE, "br-int", False)]
ARP = frames.build_arp_request(b"\2\0\0\0\0\2", bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1]))


class Client:
    """A switch: answers what the handshake asks, all else is the test's business."""

    def __init__(self, sock: socket.socket, dpid: int = 0x2A) -> None:
        self.sock, self.dpid, self.buffer = sock, dpid, b""
        sock.settimeout(60)

    def send(self, *messages: bytes) -> None:
        self.sock.sendall(b"".join(messages))

    def receive(self, *kinds: int) -> tuple[int, int, bytes]:
        """(type, xid, message) of the next message of one of these types, or of any."""
        while True:
            while len(self.buffer) < 8 or len(self.buffer) < openflow.decode_header(self.buffer).length:
                more = self.sock.recv(1 << 20)
                if not more:
                    raise EOFError
                self.buffer += more
            header = openflow.decode_header(self.buffer)
            message, self.buffer = self.buffer[: header.length], self.buffer[header.length :]
            if not kinds or header.type in kinds:
                return header.type, header.xid, message

    def shake_hands(self, meters: bytes | None = None) -> Client:
        """Until the controller's first barrier, whose reply has it take us in. ``meters``: features, if any."""
        self.send(openflow.encode_hello(1))
        while True:
            kind, xid, message = self.receive()
            if kind == base.FEATURES_REQUEST:
                self.send(agent.encode_features_reply(xid, self.dpid))
            elif kind == base.BARRIER_REQUEST:
                self.send(agent.encode_barrier_reply(xid))
                return self
            elif kind == base.MULTIPART_REQUEST:
                asked, _ = agent.decode_multipart_request(message)
                if asked == base.MP_PORT_DESC:
                    self.send(agent.encode_port_desc_reply(xid, PORTS))
                elif asked == base.MP_METER_FEATURES and meters is not None:
                    head = struct.pack("!HH4x", asked, 0)
                    self.send(base.message(base.MULTIPART_REPLY, xid, head + meters))
                else:
                    self.send(agent.encode_error(xid, 1, 2, message[:64]))

    def tell(self, do: str, **arguments: Any) -> None:
        """Have the application do something."""
        text = json.dumps({"do": do, **arguments}).encode()
        self.send(agent.encode_packet_in(1, bytes(12) + b"\x88\xb6" + text))

    def closed(self) -> bool:
        """Whether the controller ends the connection (waits for it)."""
        try:
            while True:
                self.receive()
        except (EOFError, ConnectionResetError):
            return True


class Board:
    """The application and its switches."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.clients: list[Client] = []

    def connect(self, dpid: int = 0x2A) -> Client:
        self.clients.append(Client(self.manager.connect(self.manager.ofp), dpid))
        return self.clients[-1]

    def switch(self, dpid: int = 0x2A) -> Client:
        client = self.connect(dpid).shake_hands()
        self.event(f"NveConnected(dpid={dpid}, ")
        return client

    def event(self, text: str) -> None:
        self.manager.wait_for(f"event {text}")

    def batches(self) -> list[int]:
        """Sizes of the packet-in batches so far."""
        return [int(size) for size in re.findall(r"batch \w+ (\d+)", self.manager.text)]

    def end(self, failures: int = 0) -> dict[str, int]:
        """End the application; what it has counted. There must be no more tracebacks than said."""
        assert self.manager.end() == 0
        assert self.manager.text.count("Traceback") == failures
        found: dict[str, int] = json.loads(re.findall(r"counters (\{.*\})", self.manager.text)[-1])
        return found


@pytest.fixture
def start(ryu_manager: Callable[..., Any]) -> Iterator[Callable[..., Board]]:
    """start(*more applications, **settings of the switchboard)."""
    boards: list[Board] = []

    def start(*apps: str, args: tuple[str, ...] = (), **settings: float) -> Board:
        environment = {**os.environ, "BOARD": json.dumps(settings)}
        boards.append(Board(ryu_manager(*args, BOARD, *apps, env=environment)))
        return boards[-1]

    yield start
    for board in boards:
        for client in board.clients:
            client.sock.close()
