"""A task's sockets as data: listening and connected TCP, UDP; taken from descriptors and made again from the data."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from . import inject, tcp
from .faults import BadImage, Unsupported

__all__ = ["Carried", "Taken", "decode", "encode", "kept", "make", "open_connections", "take"]

_SOCKET, _TCP, _IP, _IP6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6
_PEEK_OFF, _RCVBUFFORCE = 42, 33
#: Options whose values are carried, where a socket has them. Level, name in Python's socket module or number.
_ANY = [
    (_SOCKET, socket.SO_REUSEPORT), (_SOCKET, socket.SO_KEEPALIVE), (_SOCKET, socket.SO_PRIORITY),
    (_SOCKET, socket.SO_OOBINLINE), (_IP, socket.IP_TOS), (_IP, socket.IP_TTL),
]  # fmt: skip
_ANY6 = [(_IP6, socket.IPV6_TCLASS), (_IP6, socket.IPV6_UNICAST_HOPS)]
_ONLY_TCP = [
    (_TCP, socket.TCP_NODELAY), (_TCP, socket.TCP_KEEPIDLE), (_TCP, socket.TCP_KEEPINTVL), (_TCP, socket.TCP_KEEPCNT),
    (_TCP, socket.TCP_USER_TIMEOUT), (_TCP, socket.TCP_NOTSENT_LOWAT),
]  # fmt: skip
_ONLY_LISTENING = [(_TCP, socket.TCP_DEFER_ACCEPT)]
_ONLY_UDP = [(_SOCKET, socket.SO_BROADCAST)]
_MAX_WAITING = 65536  # datagrams of one socket's queue


@dataclass
class Carried:
    """A socket, as it travels.

    Attributes:
        key: the task's name for it; of a connection that nobody had accepted, the listening socket's.
        kind: ``listen``, ``tcp``, ``udp``.
        accepted: nobody had accepted it yet.
        backlog: of a listening socket.
        waiting: what is in a UDP socket's queue: (address, port, data), oldest first.
    """

    key: str
    kind: str
    family: int
    local: tuple[Any, ...]
    blocking: bool
    options: list[tuple[int, int, int]]
    accepted: bool = False
    backlog: int = 0
    remote: tuple[Any, ...] | None = None
    only6: int | None = None
    waiting: list[tuple[str, int, bytes]] = field(default_factory=list)
    connection: tcp.Connection | None = None


@dataclass
class Taken:
    """What ``take`` found, and connections that it accepted itself: (key of the listener, socket)."""

    sockets: list[Carried]
    accepted: list[tuple[str, socket.socket]] = field(default_factory=list)


def _options(sock: socket.socket, kind: str) -> list[tuple[int, int, int]]:
    wanted = list(_ANY) if kind == "tcp" else [(_SOCKET, socket.SO_REUSEADDR), *_ANY]
    if sock.family == socket.AF_INET6:
        wanted += _ANY6
    wanted += _ONLY_UDP if kind == "udp" else _ONLY_TCP
    if kind == "listen":
        wanted += _ONLY_LISTENING
    found = []
    for level, name in wanted:
        with contextlib.suppress(OSError):
            found.append((level, name, sock.getsockopt(level, name)))
    if kind == "udp":
        found.append((_SOCKET, _RCVBUFFORCE, sock.getsockopt(_SOCKET, socket.SO_RCVBUF) // 2))  # the kernel doubles it
    return found


def take(sockets: Mapping[str, socket.socket], accepted: list[tuple[str, socket.socket]]) -> Taken:
    """Take the state of a frozen task's sockets. Connections that nobody has accepted yet are accepted first.

    All TCP connections are in repair mode afterwards; after an error none is. Raises Unsupported, OSError.
    """
    taken = Taken([], list(accepted))
    repaired: list[socket.socket] = []
    try:
        for key, sock in sockets.items():
            if sock.family not in (socket.AF_INET, socket.AF_INET6):
                raise Unsupported(f"socket {key!r}: of the Internet's families only")
            if sock.type == socket.SOCK_STREAM and tcp.information(sock)[0] == tcp.LISTEN:
                taken.accepted += [(key, new) for new in _accept(sock)]
        waiting = [(key, sock, True) for key, sock in taken.accepted]
        for key, sock, new in [*((key, sock, False) for key, sock in sockets.items()), *waiting]:
            one = _one(key, sock, repaired)
            one.accepted = new
            taken.sockets.append(one)
    except BaseException:
        for sock in repaired:
            tcp.leave_repair(sock)
        raise
    return taken


def _accept(listener: socket.socket) -> Iterator[socket.socket]:
    poll = select.poll()  # its descriptor may be one that blocks, and that is not ours to change
    poll.register(listener, select.POLLIN)
    while poll.poll(0):
        try:
            yield listener.accept()[0]
        except OSError:  # gone again meanwhile
            return


def _one(key: str, sock: socket.socket, repaired: list[socket.socket]) -> Carried:
    blocking = os.get_blocking(sock.fileno())
    local = tuple(sock.getsockname())
    only6 = sock.getsockopt(_IP6, socket.IPV6_V6ONLY) if sock.family == socket.AF_INET6 else None
    if sock.type == socket.SOCK_DGRAM:
        found = Carried(key, "udp", int(sock.family), local, blocking, _options(sock, "udp"), only6=only6)
        with contextlib.suppress(OSError):
            found.remote = tuple(sock.getpeername())
        found.waiting = list(_waiting(sock))
        return found
    if sock.type != socket.SOCK_STREAM:
        raise Unsupported(f"socket {key!r}: TCP and UDP only")
    if tcp.information(sock)[0] == tcp.LISTEN:
        backlog = struct.unpack_from("=I", sock.getsockopt(_TCP, socket.TCP_INFO, 104), 28)[0]  # tcpi_sacked
        return Carried(
            key, "listen", int(sock.family), local, blocking, _options(sock, "listen"), backlog=backlog, only6=only6
        )
    options = _options(sock, "tcp")
    try:
        connection = tcp.dump(sock)
    except Unsupported as e:
        raise Unsupported(f"socket {key!r}: {e}") from None
    repaired.append(sock)
    return Carried(key, "tcp", int(sock.family), local, blocking, options, only6=only6, connection=connection)


def _waiting(sock: socket.socket) -> Iterator[tuple[str, int, bytes]]:
    """What is in a UDP socket's queue, which stays as it is: the task may go on here after all.

    A kernel passes over an empty datagram that it has shown before: who asks a second time does not get it.
    """
    sock.setsockopt(_SOCKET, _PEEK_OFF, 0)
    try:
        for _ in range(_MAX_WAITING):
            try:
                data, sender = sock.recvfrom(65535, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except OSError:
                return
            yield sender[0], sender[1], data
    finally:
        sock.setsockopt(_SOCKET, _PEEK_OFF, -1)


def make(carried: list[Carried]) -> list[socket.socket]:
    """Make sockets like those, in their order, in the calling thread's namespace; connections in repair mode.

    Connections come first: beside a socket that listens already no other could be bound. Raises OSError.
    """
    made: dict[int, socket.socket] = {}
    try:
        for number, one in sorted(enumerate(carried), key=lambda item: _ORDER[item[1].kind]):
            kind = socket.SOCK_DGRAM if one.kind == "udp" else socket.SOCK_STREAM
            sock = made[number] = socket.socket(one.family, kind)
            if one.only6 is not None:
                sock.setsockopt(_IP6, socket.IPV6_V6ONLY, one.only6)
            _MAKERS[one.kind](sock, one)
            _set(sock, one)
            os.set_blocking(sock.fileno(), one.blocking)
    except BaseException:
        for sock in made.values():
            sock.close()
        raise
    return [made[number] for number in range(len(carried))]


def _make_tcp(sock: socket.socket, one: Carried) -> None:
    assert one.connection is not None
    tcp.restore(sock, one.connection)


def _make_listen(sock: socket.socket, one: Carried) -> None:
    sock.setsockopt(_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(one.local)
    sock.listen(max(one.backlog, 1))


def _set(sock: socket.socket, one: Carried) -> None:
    for level, name, value in one.options:
        with contextlib.suppress(OSError):  # what an older kernel here does not know
            sock.setsockopt(level, name, value)


def _make_udp(sock: socket.socket, one: Carried) -> None:
    _set(sock, one)  # what waits must find the room that it had
    sock.bind(one.local)
    for address, port, data in one.waiting:
        with contextlib.suppress(OSError):
            inject.datagram((address, port), _target(one, address), data)
    if one.remote is not None:
        sock.connect(one.remote)


def _target(one: Carried, sender: str) -> tuple[str, int]:
    """An address of the task's own that reaches this socket."""
    address = inject.unmapped(one.local[0])
    if not address.is_unspecified:
        return str(address), one.local[1]
    return ("127.0.0.1" if inject.unmapped(sender).version == 4 else "::1"), one.local[1]


_ORDER = {"tcp": 0, "udp": 1, "listen": 2}
_MAKERS = {"tcp": _make_tcp, "listen": _make_listen, "udp": _make_udp}


def open_connections(carried: list[Carried]) -> list[tcp.Connection]:
    """The TCP connections among them."""
    return [one.connection for one in carried if one.connection is not None]


def kept(carried: list[Carried], drop: bool, changes: Mapping[str, str]) -> tuple[list[Carried], list[str]]:
    """What is made again where addresses change (old to new), and the keys of connections that are not.

    Sockets bound to an address that changes get the new one. Connections of such an address, and with ``drop`` all,
    have been closed.
    """
    found, dropped = [], []
    for one in carried:
        new = changes.get(str(inject.unmapped(one.local[0])) if one.connection is None else _local(one.connection))
        if one.connection is not None and (drop or new is not None):
            dropped.append(one.key)
        elif new is not None:
            mapped = f"::ffff:{new}" if one.family == socket.AF_INET6 and ":" not in new else new
            found.append(replace(one, local=(mapped, *one.local[1:])))
        else:
            found.append(one)
    return found, dropped


def _local(connection: tcp.Connection) -> str:
    return str(inject.unmapped(connection.local[0]))


# --- as bytes -------------------------------------------------------------------------------------------------------
def encode(carried: list[Carried]) -> tuple[bytes, bytes]:
    """A JSON document, and the queues' bytes one after the other."""
    rows, blob = [], bytearray()
    for one in carried:
        row = {f.name: getattr(one, f.name) for f in fields(one)}
        row["waiting"] = [(address, port, len(data)) for address, port, data in one.waiting]
        for _, _, data in one.waiting:
            blob += data
        if one.connection is not None:
            row["connection"] = one.connection.document()
            blob += one.connection.sent + one.connection.unsent + one.connection.unread
        rows.append(row)
    return json.dumps(rows).encode(), bytes(blob)


def decode(document: bytes, blob: bytes) -> list[Carried]:
    """The inverse of ``encode``. Raises BadImage."""
    try:
        found, at = [], 0
        rows = json.loads(document)
        if not isinstance(rows, list):
            raise BadImage("the sockets of an image are a list")
        for row in rows:
            one = Carried(**row)
            one.local = tuple(one.local)
            one.options = [(int(level), int(name), int(value)) for level, name, value in one.options]
            one.remote = None if one.remote is None else tuple(one.remote)
            waiting = []
            for address, port, size in row["waiting"]:
                waiting.append((str(address), int(port), _part(blob, at, size)))
                at += size
            one.waiting = waiting
            if row["connection"] is not None:
                values = dict(row["connection"])
                for queue in ("sent", "unsent", "unread"):
                    size = values[queue]
                    values[queue] = _part(blob, at, size)
                    at += size
                one.connection = tcp.Connection(**values)
                for name in ("local", "remote", "window", "buffers"):
                    setattr(one.connection, name, tuple(values[name]))
            if one.kind not in _MAKERS or (one.kind == "tcp") != (one.connection is not None):
                raise BadImage(f"socket {one.key!r} is of kind {one.kind!r}")
            found.append(one)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise BadImage(f"the sockets of an image: {type(e).__name__}: {e}") from None
    if at != len(blob):
        raise BadImage(f"the sockets of an image: {len(blob) - at} bytes are left over")
    return found


def _part(blob: bytes, at: int, size: object) -> bytes:
    if not isinstance(size, int) or size < 0 or at + size > len(blob):
        raise BadImage("the sockets of an image: a queue is cut off")
    return blob[at : at + size]
