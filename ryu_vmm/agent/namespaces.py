"""The calling thread's network namespace (Linux, network_namespaces(7))."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["NAMED", "entered"]

#: Where ``ip netns`` keeps the handles of namespaces that have names.
NAMED = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Put the calling thread, and commands it runs, into a named namespace for the `with` block, then back.

    Sockets and taps opened inside stay in that namespace. Raises OSError where there is none of that name.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(NAMED / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)
