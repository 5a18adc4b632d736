"""Larger receive buffers for the packet sockets of a vswitchd with the userspace datapath.

Its main thread forwards and also reconfigures, so now and then it does not read for some tens of
milliseconds. What arrives meanwhile waits in the kernel's packet sockets, 256 small frames each by default:
64 ms at 4,000 frames/s. OVS has no setting for it, and the system-wide default is not ours to change; so the
sockets themselves are borrowed for a moment (`pidfd_getfd`, Linux 5.6) and widened.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from pathlib import Path

__all__ = ["widen", "widen_switch"]

RECEIVE = 8 << 20  # bytes: some ten thousand small frames
_SYS_PIDFD_GETFD = 438
_SO_RCVBUFFORCE = 33
_libc = ctypes.CDLL(None, use_errno=True)


def widen_switch(database: str) -> int:
    """Widen the sockets of the vswitchd whose control socket is beside a database's (``unix:PATH``); returns how many.

    A task that starts to run where clients wait for it answers all of them in the same millisecond, and its port is so
    new that nobody else has seen to it. Nothing happens where there is no such vswitchd, or it may not be touched.
    """
    folder = Path(database.removeprefix("unix:")).parent
    for control in sorted(folder.glob("*vswitchd*.ctl")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(1.0)
            sock.connect(str(control))
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return widen(struct.unpack("3i", credentials)[0])
    return 0


def _packet_inodes(pid: int) -> set[str]:
    with open(f"/proc/{pid}/net/packet", encoding="ascii") as file:
        return {line.split()[-1] for line in file.readlines()[1:]}


def widen(pid: int, size: int = RECEIVE) -> int:
    """Widen every packet socket of the process; returns how many. Nothing happens on kernels that cannot."""
    wanted = {f"socket:[{inode}]" for inode in _packet_inodes(pid)}
    done = 0
    pidfd = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") not in wanted:
                    continue
            except FileNotFoundError:  # closed since
                continue
            fd = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, int(name), 0)
            if fd < 0:
                continue
            with socket.socket(fileno=fd) as sock:
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
                done += 1
    finally:
        os.close(pidfd)
    return done
