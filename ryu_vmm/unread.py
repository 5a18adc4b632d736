"""Whether bytes wait in sockets, asked without waiting and without giving up the turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eventlet import patcher

_select: Any = patcher.original("select")  # Ryu has the usual one replaced by one that has no poll


def readable(sockets: Iterable[Any]) -> bool:
    """Whether any of these sockets has something to be read, its peer's end included; those closed have not."""
    poll = _select.poll()
    for sock in sockets:
        pending = getattr(sock, "pending", None)  # what TLS has taken off the wire already
        try:
            if pending is not None and pending():
                return True
            number = sock.fileno()
        except (OSError, ValueError):
            continue
        if number >= 0:
            poll.register(number, _select.POLLIN)
    return any(happened & (_select.POLLIN | _select.POLLHUP) for _, happened in poll.poll(0))
