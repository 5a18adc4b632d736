"""Ports on loopback for servers that are about to start."""

from __future__ import annotations

import random
import socket

#: Below those that kernels give to clients by default (32768 on Linux): one that is free now and is bound a second
#: later must not be some connection's other end by then.
_FIRST, _LAST = 10240, 32767


def free_port() -> int:
    """A port of 127.0.0.1 that is free right now, for TCP and for UDP. OSError if none is found."""
    for _ in range(1000):
        port = random.randint(_FIRST, _LAST)
        try:
            with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise OSError("no free port on 127.0.0.1")
