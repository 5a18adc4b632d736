"""TCP connections taken out of one kernel and put into another (TCP_REPAIR).

The kernel's side is in ``net/ipv4/tcp.c``. In repair mode a socket sends nothing, its queues can be read and written,
its sequence numbers set, ``connect`` establishes without a handshake and ``close`` says nothing to the peer. The
caller sees to it that no packet reaches or leaves the socket from ``dump`` until it is closed or resumed: repair mode
alone does not stop incoming segments.

Not carried: what is congestion control's (it starts slowly again), segments received out of order (the peer sends them
again), urgent data. Needs CAP_NET_ADMIN in the socket's network namespace.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import termios
from dataclasses import asdict, dataclass, field
from typing import Any

from . import inject
from .faults import Unsupported

__all__ = ["CARRIED", "Connection", "abort", "dump", "information", "leave_repair", "restore", "resume"]

_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ, _REPAIR_OPTIONS, _TIMESTAMP, _REPAIR_WINDOW = 19, 20, 21, 22, 24, 29
_RECEIVE, _SEND = 1, 2
_SIOCOUTQNSD = 0x894B
_SNDBUFFORCE, _RCVBUFFORCE, _BUF_LOCK = 32, 33, 72
_WINDOW = struct.Struct("=IIIII")  # snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup
_OPTION = struct.Struct("=II")
_MSS, _SCALE, _SACK, _TIMESTAMPS = 2, 3, 4, 8  # option kinds of RFC 9293, 7323, 2018
_HAS_TIMESTAMPS, _HAS_SACK, _HAS_SCALE = 1, 2, 4  # tcpi_options
_TCP = socket.IPPROTO_TCP
_libc = ctypes.CDLL(None, use_errno=True)

ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = 1, 4, 5, 8, 9, 10, 11
#: States that are carried, and in them: whether our FIN has been sent, and the peer's has come.
CARRIED: dict[int, tuple[bool, bool]] = {
    ESTABLISHED: (False, False),
    CLOSE_WAIT: (False, True),
    FIN_WAIT1: (True, False),
    FIN_WAIT2: (True, False),
    CLOSING: (True, True),
    LAST_ACK: (True, True),
}


@dataclass
class Connection:
    """A connection, whole. Sequence numbers are those of the first byte in each queue.

    Attributes:
        local, remote: address and port, as in a socket address (IPv4-mapped in an IPv6 socket).
        sent: bytes sent that the peer has not acknowledged. unsent: bytes not sent yet. unread: bytes received.
        send_seq, receive_seq: of the first byte of ``sent`` + ``unsent``, and of ``unread``.
        window: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup (struct tcp_repair_window).
        options: tcpi_options; scales: snd_wscale | rcv_wscale << 16; timestamp: as TCP_TIMESTAMP gives it.
        buffers: bytes of send and receive buffer.
    """

    family: int
    local: tuple[Any, ...]
    remote: tuple[Any, ...]
    state: int
    send_seq: int
    receive_seq: int
    mss: int
    options: int
    scales: int
    timestamp: int
    window: tuple[int, ...]
    buffers: tuple[int, int]
    sent: bytes = field(default=b"", repr=False)
    unsent: bytes = field(default=b"", repr=False)
    unread: bytes = field(default=b"", repr=False)

    def document(self) -> dict[str, Any]:
        """All but the queues, as JSON takes it."""
        found = asdict(self)
        for queue in ("sent", "unsent", "unread"):
            found[queue] = len(found[queue])
        return found


def information(sock: socket.socket) -> tuple[int, int, int]:
    """State, option bits and window scales of a socket (TCP_INFO)."""
    info = sock.getsockopt(_TCP, socket.TCP_INFO, 16)
    scales = info[6]
    return info[0], info[5], (scales & 15) | (scales >> 4) << 16


def _ioctl(sock: socket.socket, request: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), request, b"\0" * 4))[0])


def _seq(sock: socket.socket, queue: int) -> int:
    sock.setsockopt(_TCP, _REPAIR_QUEUE, queue)
    return sock.getsockopt(_TCP, _QUEUE_SEQ) & 0xFFFFFFFF


def _peek(sock: socket.socket, queue: int, size: int) -> bytes:
    if size == 0:
        return b""
    sock.setsockopt(_TCP, _REPAIR_QUEUE, queue)
    data = sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    if len(data) != size:
        raise Unsupported(f"a queue of {size} bytes gave {len(data)}")
    return data


def dump(sock: socket.socket) -> Connection:
    """Take a connection's state. The socket stays in repair mode, to be closed silently or resumed.

    Raises Unsupported if its state is not among CARRIED, OSError. After an error it is not in repair mode.
    """
    sock.setsockopt(_TCP, _REPAIR, 1)
    try:
        return _dump(sock)
    except BaseException:
        leave_repair(sock)
        raise


def _dump(sock: socket.socket) -> Connection:
    state, options, scales = information(sock)
    if state not in CARRIED:
        raise Unsupported(f"a TCP socket in state {state} is not carried")
    ours, theirs = CARRIED[state]
    unread = _ioctl(sock, termios.FIONREAD)
    unacknowledged, unsent = _ioctl(sock, termios.TIOCOUTQ), _ioctl(sock, _SIOCOUTQNSD)
    window = _WINDOW.unpack(sock.getsockopt(_TCP, _REPAIR_WINDOW, _WINDOW.size))
    # A FIN has a sequence number, and no byte in a queue. In FIN_WAIT2 the peer has acknowledged ours.
    fin_waits = ours and state != FIN_WAIT2
    send_end, receive_end = _seq(sock, _SEND), _seq(sock, _RECEIVE)
    if fin_waits and unacknowledged:
        unacknowledged -= 1
        unsent = max(0, unsent - 1)
    send_end -= ours
    receive_end -= theirs
    out = _peek(sock, _SEND, unacknowledged)
    return Connection(
        family=int(sock.family),
        local=tuple(sock.getsockname()),
        remote=tuple(sock.getpeername()),
        state=state,
        send_seq=(send_end - unacknowledged) & 0xFFFFFFFF,
        receive_seq=(receive_end - unread) & 0xFFFFFFFF,
        mss=sock.getsockopt(_TCP, socket.TCP_MAXSEG),
        options=options,
        scales=scales,
        timestamp=sock.getsockopt(_TCP, _TIMESTAMP) & 0xFFFFFFFF,
        window=window,
        buffers=(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        ),
        sent=out[: unacknowledged - unsent],
        unsent=out[unacknowledged - unsent :],
        unread=_peek(sock, _RECEIVE, unread),
    )


def restore(sock: socket.socket, connection: Connection) -> None:
    """Make a fresh socket (of the right family, in the right namespace) that connection, still in repair mode.

    ``unsent`` is not written yet: ``resume`` does that, and only then does the kernel send anything. Raises OSError.
    """
    c = connection
    sock.setsockopt(_TCP, _REPAIR, 1)  # which also lets it be bound beside others
    # What the peer was promised must fit, and so must the queues; the kernel doubles what it is told.
    sock.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, max(c.buffers[0] // 2, 2 * len(c.sent + c.unsent), 65536))
    sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, max(c.buffers[1] // 2, 2 * len(c.unread), 65536))
    # Else it would start with segments of the least size, whatever mss is set once it is connected.
    sock.setsockopt(_TCP, socket.TCP_MAXSEG, min(max(c.mss, 88), 32767))
    sock.bind(c.local)
    for queue, seq in ((_RECEIVE, c.receive_seq), (_SEND, c.send_seq)):
        sock.setsockopt(_TCP, _REPAIR_QUEUE, queue)
        sock.setsockopt(_TCP, _QUEUE_SEQ, struct.pack("=I", seq))
    blocking = sock.getblocking()
    sock.setblocking(True)
    sock.connect(c.remote)
    sock.setblocking(blocking)
    options = [_OPTION.pack(_MSS, c.mss)]
    if c.options & _HAS_SCALE:
        options.append(_OPTION.pack(_SCALE, c.scales))
    if c.options & _HAS_SACK:
        options.append(_OPTION.pack(_SACK, 0))
    if c.options & _HAS_TIMESTAMPS:
        options.append(_OPTION.pack(_TIMESTAMPS, 0))
    sock.setsockopt(_TCP, _REPAIR_OPTIONS, b"".join(options))
    if c.options & _HAS_TIMESTAMPS:
        sock.setsockopt(_TCP, _TIMESTAMP, struct.pack("=I", c.timestamp))
    _fill(sock, _RECEIVE, c.unread)
    _fill(sock, _SEND, c.sent)
    ours, theirs = CARRIED[c.state]
    wl1, send, largest, receive, wup = c.window
    sock.setsockopt(_TCP, _REPAIR_WINDOW, _WINDOW.pack(wl1, send, largest, receive, (wup - theirs) & 0xFFFFFFFF))
    ends = [_shut] * (ours and not c.unsent) + [_hear] * (theirs or c.state == FIN_WAIT2)
    for end in reversed(ends) if c.state == LAST_ACK else ends:  # there the peer's FIN came first
        end(sock, c)


def _shut(sock: socket.socket, _connection: Connection) -> None:
    """Queue our FIN, as sent."""
    sock.setsockopt(_TCP, _REPAIR_QUEUE, _SEND)
    sock.shutdown(socket.SHUT_WR)


def _hear(_sock: socket.socket, c: Connection) -> None:
    """The peer's FIN, or its acknowledgement of ours: there is no other way than its own segment."""
    theirs = CARRIED[c.state][1]
    inject.segment(
        (str(c.remote[0]), c.remote[1]), (str(c.local[0]), c.local[1]), c.receive_seq + len(c.unread),
        c.send_seq + (c.state == FIN_WAIT2), theirs, min(c.window[1] >> (c.scales & 15), 65535),
    )  # fmt: skip


def _fill(sock: socket.socket, queue: int, data: bytes) -> None:
    if not data:
        return
    sock.setsockopt(_TCP, _REPAIR_QUEUE, queue)
    view, chunk = memoryview(data), 32768
    while view:
        try:
            done = sock.send(view[:chunk])
        except OSError as e:
            if e.errno not in (errno.ENOMEM, errno.ENOBUFS) or chunk <= 1024:
                raise
            chunk //= 2  # the kernel wants each piece of the receive queue in one allocation
        else:
            view = view[done:]


def leave_repair(sock: socket.socket) -> None:
    """The socket is an ordinary one again. The kernel sends a window probe, whose answer tells what the peer has."""
    sock.setsockopt(_TCP, _REPAIR, 0)
    # That took SO_REUSEADDR away, without which the task's listening socket could not be bound beside it again.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def resume(sock: socket.socket, connection: Connection) -> None:
    """Leave repair mode and go on, writing what had not been sent. Done again, it goes on where it ended. OSError."""
    sock.setsockopt(_TCP, _REPAIR, 1)
    end = connection.send_seq + len(connection.sent)
    written = (_seq(sock, _SEND) - end) & 0xFFFFFFFF
    leave_repair(sock)
    view = memoryview(connection.unsent)[written:]
    while view:
        view = view[sock.send(view, socket.MSG_DONTWAIT) :]
    if connection.unsent and CARRIED[connection.state][0] and written <= len(connection.unsent):
        sock.shutdown(socket.SHUT_WR)
    # From here on the kernel chooses the sizes of its buffers again.
    sock.setsockopt(socket.SOL_SOCKET, _BUF_LOCK, 0)


def abort(sock: socket.socket) -> None:
    """Close a connection with RST, whoever else has a descriptor of it. The socket must not be in repair mode."""
    # connect(AF_UNSPEC) is ABORT (RFC 9293, 3.10.5); close() would do nothing while the task holds it as well.
    address = struct.pack("=H14x", socket.AF_UNSPEC)
    if _libc.connect(sock.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
