"""What a test takes from a socket."""

from __future__ import annotations

import socket


def received(sock: socket.socket, size: int) -> bytes:
    """So many bytes; fewer where the other end closes before. Raises TimeoutError after 10 s without any."""
    sock.settimeout(10)
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            break
        data += part
    return data
