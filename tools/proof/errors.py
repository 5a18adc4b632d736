"""What a guest's kernel is told about datagrams that could not be delivered: its socket's error queue (RFC 3542)."""

from __future__ import annotations

import select
import socket
import struct
import time
from dataclasses import dataclass

from topologies import VM, netns

PORT = 33434
_MSG_ERRQUEUE = 0x2000
_ORIGINS = {2: 4, 3: 6}  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err


@dataclass(frozen=True)
class Told:
    """An ICMP or ICMPv6 error: from which router, its type and code, and the MTU where it says one."""

    family: int
    router: str
    type: int
    code: int
    mtu: int


#: (family, type) of the errors that routers send (RFC 792, RFC 4443)
UNREACHABLE = ((4, 3), (6, 1))
TOO_BIG = ((4, 3), (6, 2))
TIME_EXCEEDED = ((4, 11), (6, 3))


class Sender:
    """A UDP socket in a guest that hears of errors; a context manager.

    hops: TTL or hop limit. fragment: whether packets may be fragmented by anybody; else the kernel forbids it (and
    refuses itself what is larger than what it knows of the path).
    """

    def __init__(self, vm: VM, to: str, hops: int = 64, fragment: bool = False, port: int = PORT) -> None:
        self._six = ":" in to
        with netns.entered(vm.namespace):
            self.sock = socket.socket(socket.AF_INET6 if self._six else socket.AF_INET, socket.SOCK_DGRAM)
        level = socket.IPPROTO_IPV6 if self._six else socket.IPPROTO_IP
        # IPV6_RECVERR, IPV6_MTU_DISCOVER, IPV6_UNICAST_HOPS and their counterparts of IPv4
        recverr, discover, limit = (25, 23, 16) if self._six else (11, 10, 2)
        self.sock.setsockopt(level, recverr, 1)
        self.sock.setsockopt(level, discover, 0 if fragment else 2)
        self.sock.setsockopt(level, limit, hops)
        self.sock.bind((vm.spec.ip6 if self._six else vm.spec.ip, 0))
        self._to = (to, port)

    def send(self, size: int = 32) -> None:
        """Send a datagram with so many bytes of payload. Raises OSError (EMSGSIZE: the kernel knows better)."""
        self.sock.sendto(bytes(size), self._to)

    def told(self, seconds: float = 2.0) -> Told | None:
        """The next error, None if none came within so many seconds."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.sock, 0)  # POLLERR is always asked for
        while (left := deadline - time.monotonic()) > 0:
            if not poll.poll(left * 1e3):
                break
            try:
                _, ancillary, _, _ = self.sock.recvmsg(2048, 512, _MSG_ERRQUEUE)
            except BlockingIOError:
                continue
            for _level, _kind, data in ancillary:
                found = self._read(data)
                if found is not None:
                    return found
        return None

    @staticmethod
    def _read(data: bytes) -> Told | None:
        if len(data) < _ERROR.size:
            return None
        _, origin, kind, code, _, info, _ = _ERROR.unpack_from(data)
        family = _ORIGINS.get(origin)
        if family is None:  # the kernel's own word
            return None
        offender = data[_ERROR.size :]
        if family == 4:
            router = socket.inet_ntop(socket.AF_INET, offender[4:8])
        else:
            router = socket.inet_ntop(socket.AF_INET6, offender[8:24])
        return Told(family, router, kind, code, info)

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.sock.close()


def told(vm: VM, to: str, hops: int = 64, size: int = 32, seconds: float = 2.0, fragment: bool = False) -> Told | None:
    """The error that a datagram causes, None if none comes within so many seconds."""
    with Sender(vm, to, hops, fragment) as sender:
        sender.send(size)
        return sender.told(seconds)
