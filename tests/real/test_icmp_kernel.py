"""A guest's kernel as the judge of what its router says: sockets get the errors, pings their answers, datagrams their
fragments, and nothing is counted as broken."""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

import pytest

from ryu_vmm.wire import icmp, ip
from ryu_vmm.wire.icmp import Unreachable
from topologies import netns, tap

pytestmark = pytest.mark.real

GUEST, ROUTER = "02:00:00:00:00:0a", "02:76:6d:00:00:01"
HERE = {4: "10.1.1.5", 6: "2001:db8:1:1::5"}
THERE = {4: "10.1.2.7", 6: "2001:db8:1:2::7"}
GATEWAY = {4: "169.254.1.1", 6: "fe80::1"}
OWN = tuple(ip_address(text).packed for text in GATEWAY.values())
MAC = bytes.fromhex(ROUTER.replace(":", ""))
INET = {4: socket.AF_INET, 6: socket.AF_INET6}
families = pytest.mark.parametrize("family", [4, 6])
_DEADLINE = 10.0
_RECVERR = {4: (socket.SOL_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}  # IP_RECVERR, IPV6_RECVERR
_PATH_MTU = {4: (socket.SOL_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}  # IP_MTU, IPV6_MTU
_DISCOVER = {4: (socket.SOL_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER; 2: always DF
_numbers = itertools.count(1)


class Heard(NamedTuple):
    """What the kernel tells a socket of an error, and by whom it came (struct sock_extended_err)."""

    errno: int
    origin: int
    type: int
    code: int
    info: int
    offender: str


class Guest:
    """A kernel with one neighbor, its router; we are the wire."""

    def __init__(self) -> None:
        self.name = f"icmp-{os.getpid()}-{next(_numbers)}"
        netns.run(["ip", "netns", "add", self.name])
        netns.sysctl(
            self.name,
            {
                "net/ipv4/ping_group_range": "0 0",
                "net/ipv6/conf/default/accept_dad": 0,
                "net/ipv6/conf/default/accept_ra": 0,
                "net/ipv4/icmp_ratelimit": 0,
            },
        )
        self.fd = tap.open_tap(self.name, "eth0", GUEST, 1500)
        lines = []
        for family, prefix in ((4, 32), (6, 128)):
            via = f"{'default' if family == 4 else '::/0'} via {GATEWAY[family]} dev eth0 onlink"
            lines += [
                f"addr add {HERE[family]}/{prefix} dev eth0{' nodad' if family == 6 else ''}",
                f"route add {via}",
                f"neigh replace {GATEWAY[family]} lladdr {ROUTER} dev eth0 nud permanent",
            ]
        netns.ip_batch(self.name, "link set lo up", *lines)

    def close(self) -> None:
        os.close(self.fd)
        netns.run(["ip", "netns", "del", self.name])

    def socket(self, family: int, kind: int = socket.SOCK_DGRAM, protocol: int = 0) -> socket.socket:
        with netns.entered(self.name):
            made = socket.socket(INET[family], kind, protocol)
        made.settimeout(_DEADLINE)
        return made

    def sent(self, family: int, protocol: int) -> bytes:
        """The next frame of the guest's with that protocol; what kernels say to all is passed over."""
        end = time.monotonic() + _DEADLINE
        while time.monotonic() < end:
            if select.select([self.fd], [], [], end - time.monotonic())[0]:
                frame = os.read(self.fd, 65536)
                kind = ip.ETH_IPV4 if family == 4 else ip.ETH_IPV6
                if frame[:6] == MAC and frame[12:14] == kind and ip.parse_ip(frame).proto == protocol:
                    return frame
        raise AssertionError("the guest has sent nothing")

    def receive(self, sock: socket.socket, *frames: bytes | None) -> None:
        """Give the guest frames until one of its sockets has something to say: a busy kernel may drop what it is sent,
        of whichever namespace, since its queue for that is one."""
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLERR | select.POLLHUP)
        end = time.monotonic() + _DEADLINE
        while time.monotonic() < end:
            for frame in frames:
                assert frame is not None
                os.write(self.fd, frame)
            if poll.poll(2000):
                return
        raise AssertionError("the guest has heard nothing")

    def broken(self) -> dict[str, int]:
        """What the kernel has found wrong, by its counters."""
        with netns.entered(self.name), open("/proc/net/snmp6") as six, open("/proc/net/snmp") as four:
            found = {words[0]: int(words[1]) for words in (line.split() for line in six)}
            lines = [line.split() for line in four]
            for names, values in zip(lines[::2], lines[1::2], strict=True):
                found |= {names[0][:-1] + n: int(v) for n, v in zip(names[1:], values[1:], strict=True)}
        return {n: v for n, v in found.items() if v and ("Csum" in n or "InErrors" in n or "HdrErrors" in n)}


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    try:
        yield made
        assert made.broken() == {}
    finally:
        made.close()


def heard(sock: socket.socket, family: int) -> Heard:
    """The error that waits at a socket."""
    _, ancillary, _, _ = sock.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
    ((_, _, data),) = [item for item in ancillary if item[:2] == _RECVERR[family]]
    number, origin, kind, code, info = struct.unpack_from("IBBBxI", data)
    at = 20 if family == 4 else 24
    offender = ip_address(data[at : at + (4 if family == 4 else 16)])
    return Heard(number, origin, kind, code, info, str(offender))


Says = Callable[[bytes], bytes | None]
ERRORS: dict[str, tuple[Says, tuple[int, int, int], tuple[int, int, int]]] = {
    "network": (
        lambda f: icmp.unreachable(f, MAC, OWN, Unreachable.NETWORK),
        (errno.ENETUNREACH, 3, 0),
        (errno.ENETUNREACH, 1, 0),
    ),
    "host": (
        lambda f: icmp.unreachable(f, MAC, OWN, Unreachable.HOST),
        (errno.EHOSTUNREACH, 3, 1),
        (errno.EHOSTUNREACH, 1, 3),
    ),
    "port": (
        lambda f: icmp.unreachable(f, MAC, OWN, Unreachable.PORT),
        (errno.ECONNREFUSED, 3, 3),
        (errno.ECONNREFUSED, 1, 4),
    ),
    "prohibited": (
        lambda f: icmp.unreachable(f, MAC, OWN, Unreachable.PROHIBITED),
        (errno.EHOSTUNREACH, 3, 13),
        (errno.EACCES, 1, 1),
    ),
    "time": (lambda f: icmp.time_exceeded(f, MAC, OWN), (errno.EHOSTUNREACH, 11, 0), (errno.EHOSTUNREACH, 3, 0)),
}


@pytest.mark.parametrize("name", ERRORS)
@families
def test_a_socket_hears_why(guest: Guest, family: int, name: str) -> None:
    says, *expected = ERRORS[name]
    number, kind, code = expected[family == 6]
    for size in (1, 548, 1400):
        with guest.socket(family) as sock:
            sock.setsockopt(*_RECVERR[family], 1)
            sock.connect((THERE[family], 9))
            sock.send(bytes(n % 256 for n in range(size)))
            guest.receive(sock, says(guest.sent(family, ip.UDP)))
            origin = 2 if family == 4 else 3
            assert heard(sock, family) == (number, origin, kind, code, 0, GATEWAY[family])


@families
def test_the_path_mtu_is_believed(guest: Guest, family: int) -> None:
    with guest.socket(family) as sock:
        sock.setsockopt(*_RECVERR[family], 1)
        sock.setsockopt(*_DISCOVER[family], 2)
        sock.connect((THERE[family], 9))
        assert sock.getsockopt(*_PATH_MTU[family]) == 1500
        sock.send(bytes(1450))
        guest.receive(sock, icmp.packet_too_big(guest.sent(family, ip.UDP), MAC, OWN, 1400))
        kind, code = (3, 4) if family == 4 else (2, 0)
        found = heard(sock, family)
        assert found == (errno.EMSGSIZE, 2 if family == 4 else 3, kind, code, 1400, GATEWAY[family])
        assert sock.getsockopt(*_PATH_MTU[family]) == 1400
        with pytest.raises(OSError, match="too long"):
            sock.send(bytes(1450))


@families
def test_a_connection_hears_why_it_does_not_come_about(guest: Guest, family: int) -> None:
    """What is quoted of a segment is enough for TCP to know which connection it is about."""
    with guest.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        assert sock.connect_ex((THERE[family], 9)) == errno.EINPROGRESS
        guest.receive(sock, icmp.unreachable(guest.sent(family, ip.TCP), MAC, OWN, Unreachable.HOST))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTUNREACH


@families
def test_the_gateway_answers_pings(guest: Guest, family: int) -> None:
    protocol = socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6
    with guest.socket(family, socket.SOCK_DGRAM, protocol) as sock:
        where = (GATEWAY[4], 0) if family == 4 else (GATEWAY[6], 0, 0, _index(guest))
        for size in (0, 1, 56, 1400):
            data = bytes(n % 256 for n in range(size))
            kind = 8 if family == 4 else 128
            sock.sendto(struct.pack("!BBHHH", kind, 0, 0, 0, size) + data, where)
            guest.receive(sock, icmp.echo_reply(guest.sent(family, protocol), MAC, OWN))
            answer, (source, *_) = sock.recvfrom(2048)
            assert (answer[0], answer[6:8], answer[8:]) == (
                kind - 8 if kind == 8 else 129,
                struct.pack("!H", size),
                data,
            )
            assert source.partition("%")[0] == GATEWAY[family]


def _index(guest: Guest) -> int:
    with netns.entered(guest.name):
        return socket.if_nametoindex("eth0")


def _datagram(family: int, data: bytes, port: int, ttl: int = 64, df: bool = True) -> bytes:
    """A frame to the guest, from beyond the router."""
    src, dst = (ip_address(addresses[family]).packed for addresses in (THERE, HERE))
    bare = struct.pack("!HHHH", 9, port, 8 + len(data), 0) + data
    total = ip.checksum(ip.pseudo_header(src, dst, ip.UDP, len(bare)) + bare) or 0xFFFF
    head = ip.header(src, dst, ip.UDP, len(bare), ttl)
    if not df:
        head = head[:4] + b"\x12\x34\0\0" + head[8:10] + b"\0\0" + head[12:]
        head = head[:10] + struct.pack("!H", ip.checksum(head)) + head[12:]
    kind = ip.ETH_IPV4 if family == 4 else ip.ETH_IPV6
    return bytes.fromhex(GUEST.replace(":", "")) + MAC + kind + head + bare[:6] + struct.pack("!H", total) + bare[8:]


@pytest.mark.parametrize("mtu", [68, 576, 1400])
def test_fragments_are_put_together(guest: Guest, mtu: int) -> None:
    with guest.socket(4) as sock:
        sock.bind((HERE[4], 0))
        data = bytes(n % 251 for n in range(3001))
        frames = ip.fragment(_datagram(4, data, sock.getsockname()[1], df=False), mtu)
        assert len(frames) > 2
        guest.receive(sock, *reversed(frames))
        assert sock.recv(65536) == data


@families
def test_routed_packets_arrive_with_what_is_left_of_their_life(guest: Guest, family: int) -> None:
    with guest.socket(family) as sock:
        ask, told = (
            ((socket.SOL_IP, 12), (socket.SOL_IP, 2))
            if family == 4
            else ((socket.IPPROTO_IPV6, 51), (socket.IPPROTO_IPV6, 52))
        )
        sock.setsockopt(*ask, 1)  # IP_RECVTTL, IPV6_RECVHOPLIMIT
        sock.bind((HERE[family], 0))
        for ttl in (2, 64, 255):
            guest.receive(sock, ip.routed(_datagram(family, b"x" * ttl, sock.getsockname()[1], ttl)))
            data, ancillary, _, _ = sock.recvmsg(2048, 512)
            ((_, _, left),) = [item for item in ancillary if item[:2] == told]
            assert (data, struct.unpack("i", left)) == (b"x" * ttl, (ttl - 1,))
