"""A file that one process at a time holds, and that says which one does."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

__all__ = ["Held", "hold"]


class Held(Exception):
    """Another process holds the file. ``owner``: its pid, or "unknown"."""

    def __init__(self, owner: str) -> None:
        super().__init__(f"held by process {owner}")
        self.owner = owner


def hold(path: Path) -> IO[str]:
    """Hold a file, made if it is not there, until what is returned is closed or this process ends.

    Raises:
        Held: another process does.
        OSError: it cannot be opened.
    """
    lock = open(path, "a+")  # noqa: SIM115 - held by whoever keeps it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise Held(owner) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
