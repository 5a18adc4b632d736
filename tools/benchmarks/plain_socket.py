"""The least that Python can do with a packet-in: a loop on plain sockets that answers with constant bytes.

No framework, no decoding beyond message lengths. The benchmark shows by it how fast the emulated switches can ask.
    python plain_socket.py PORT
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import struct
import sys

from benchmarks.constant import ANSWER

_HEADER = struct.Struct("!BBHI")
_FEATURES_REQUEST = _HEADER.pack(4, 5, 8, 1)
# table-miss flow: everything to the controller
_MATCH = struct.pack("!HH4x", 1, 4)
_APPLY = struct.pack("!HH4xHHIH6x", 4, 24, 0, 16, 0xFFFFFFFD, 0xFFFF)
_FLOW_MOD = struct.pack("!QQBBHHHIIIHxx", 0, 0, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
_MISS = _HEADER.pack(4, 14, 8 + len(_FLOW_MOD) + len(_MATCH) + len(_APPLY), 2) + _FLOW_MOD + _MATCH + _APPLY


class _Peer:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.out = _HEADER.pack(4, 0, 8, 0) + _FEATURES_REQUEST

    def read(self) -> bool:
        data = self.sock.recv(1 << 18)
        if not data:
            return False
        data = self.rest + data
        at, answers = 0, 0
        while len(data) - at >= 8:
            _, kind, size, xid = _HEADER.unpack_from(data, at)
            if len(data) - at < size:
                break
            if kind == 10:
                answers += 1
            elif kind == 6:
                self.out += _MISS
            elif kind == 2:
                self.out += _HEADER.pack(4, 3, size, xid) + data[at + 8 : at + size]
            at += size
        self.rest = data[at:]
        self.out += ANSWER * answers
        return True

    def write(self) -> None:
        if self.out:
            with contextlib.suppress(BlockingIOError):
                self.out = self.out[self.sock.send(self.out) :]


def main(port: int) -> None:
    """Serve switches on loopback until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    selector = selectors.DefaultSelector()
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, events in selector.select():
                if key.data is None:
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    peer = _Peer(sock)
                    selector.register(sock, selectors.EVENT_READ, peer)
                else:
                    peer = key.data
                    try:
                        alive = peer.read() if events & selectors.EVENT_READ else True
                        peer.write()
                    except ConnectionError:
                        alive = False
                    if not alive:
                        selector.unregister(peer.sock)
                        peer.sock.close()
                        continue
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.out else 0)
                selector.modify(peer.sock, wanted, peer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
