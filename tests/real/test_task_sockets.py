"""Sockets taken out of one kernel's namespace and put into another, without an NVA: every byte, every state."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator

import pytest
from taking import received

from ryu_vmm.agent import host, sockets, tcp
from ryu_vmm.agent.faults import HostError, Unsupported

MINE = {socket.AF_INET: "10.9.0.2", socket.AF_INET6: "fd09::2"}
FAMILIES = [socket.AF_INET, socket.AF_INET6]


class Wire:
    """Two hosts of a task, `a` and `b`, and a peer `c` that is wired to one of them at a time."""

    def __init__(self, tag: str) -> None:
        self.a, self.b, self.c = (f"{tag}-{name}" for name in "abc")
        self.at = self.a

    def build(self) -> None:
        for name in (self.a, self.b, self.c):
            host.run("ip", "netns", "add", name)
            with host.entered(name):
                host.ip("link set lo up")
        with host.entered(self.c):
            host.ip("link add br0 type bridge", "link set br0 up", "addr add 10.9.0.1/24 dev br0",
                    "addr add fd09::1/64 dev br0 nodad")
        for name, port in ((self.a, "pa"), (self.b, "pb")):
            with host.entered(self.c):
                host.ip(f"link add {port} type veth peer name eth0 address 02:00:00:00:00:09 netns {name}",
                        f"link set {port} up")
            with host.entered(name):
                host.ip("link set eth0 up", "addr add 10.9.0.2/24 dev eth0", "addr add fd09::2/64 dev eth0 nodad")
        self.plug(self.a)

    def plug(self, where: str | None) -> None:
        """Wire the peer to one of the hosts, or to none."""
        with host.entered(self.c):
            host.ip("link set pa nomaster", "link set pb nomaster")
            if where is not None:
                host.ip(f"link set {'pa' if where == self.a else 'pb'} master br0")
        if where is not None:
            with host.entered(self.c):  # a bridge forwards to a new port once it has carrier there
                host.wait_until(lambda: self._reaches(), 10.0, "the wire")

    def _reaches(self) -> bool:
        with contextlib.suppress(HostError):
            host.run("ping", "-c", "1", "-W", "0.3", "10.9.0.2")
            host.run("ping", "-c", "1", "-W", "0.3", "fd09::2")
            return True
        return False

    def remove(self) -> None:
        for name in (self.a, self.b, self.c):
            with contextlib.suppress(HostError):
                host.run("ip", "netns", "del", name)


@pytest.fixture(scope="module")
def wires() -> Iterator[Wire]:
    wire = Wire(f"vmmt{os.getpid()}")
    try:
        wire.build()
        yield wire
    finally:
        wire.remove()


@pytest.fixture
def wire(wires: Wire) -> Wire:
    wires.plug(wires.a)
    return wires


def connected(wire: Wire, family: int, port: int) -> tuple[socket.socket, socket.socket, socket.socket]:
    """(listening socket at a, the task's end at a, the peer's end at c)."""
    with host.entered(wire.a):
        listener = socket.create_server((MINE[family], port), family=family)
    with host.entered(wire.c):
        peer = socket.create_connection((MINE[family], port), timeout=5)
    mine, _ = listener.accept()
    return listener, mine, peer


def waiting(listener: socket.socket) -> int:
    """Connections that nobody has accepted yet: what TCP_INFO calls unacknowledged at a listening socket."""
    return int(struct.unpack_from("=I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)[0])


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that the other end has not confirmed yet."""
    return int(struct.unpack("=i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """What this thread sends stays in order: each processor has a queue of its own of packets to take in."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def carried_to(wire: Wire, found: list[sockets.Carried]) -> list[socket.socket]:
    document, blob = sockets.encode(found)
    with host.entered(wire.b):
        return sockets.make(sockets.decode(document, blob))


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_a_connection_goes_on_with_every_byte_of_its_queues(wire: Wire, family: int) -> None:
    listener, mine, peer = connected(wire, family, 5001)
    mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.sendall(b"unread ")
    mine.sendall(b"said before ")
    assert received(peer, 12) == b"said before "
    host.wait_until(lambda: mine.recv(100, socket.MSG_PEEK) == b"unread ", 5, "the peer's bytes")
    wire.plug(None)
    peer.sendall(b"under way")
    pattern = os.urandom(1 << 16)
    mine.setblocking(False)
    sent = mine.send(pattern)
    state = {"c": mine}
    taken = sockets.take(state, [])
    [one] = taken.sockets
    assert one.connection is not None
    assert one.connection.unread == b"unread "
    assert one.connection.sent + one.connection.unsent == pattern[:sent]
    assert one.connection.unsent and one.connection.sent
    mine.close()
    listener.close()
    [new] = carried_to(wire, taken.sockets)
    assert new.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == one.connection.mss
    wire.plug(wire.b)
    tcp.resume(new, one.connection)
    assert received(peer, sent) == pattern[:sent]
    assert received(new, 16) == b"unread under way"
    assert new.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert new.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    for data in (b"there", b"and back"):
        peer.sendall(data)
        assert received(new, len(data)) == data
        new.sendall(data)
        assert received(peer, len(data)) == data
    tcp.abort(new)
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    new.close()
    peer.close()


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("resumed", [1, 2])
def test_writing_what_was_not_sent_is_done_once_even_if_asked_twice(wire: Wire, family: int, resumed: int) -> None:
    listener, mine, peer = connected(wire, family, 5002)
    wire.plug(None)
    mine.setblocking(False)
    pattern = os.urandom(1 << 16)
    sent = mine.send(pattern)
    connection = tcp.dump(mine)
    mine.close()
    listener.close()
    with host.entered(wire.b):
        new = socket.socket(family)
    tcp.restore(new, connection)
    wire.plug(wire.b)
    for _ in range(resumed):
        tcp.resume(new, connection)
    new.sendall(b"end")
    assert received(peer, sent + 3) == pattern[:sent] + b"end"
    new.close()
    peer.close()


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("who", ["peer", "task", "both", "task, not acknowledged"])
def test_a_connection_that_is_half_closed_stays_so(wire: Wire, family: int, who: str) -> None:
    listener, mine, peer = connected(wire, family, 5003)
    if who in ("peer", "both"):
        peer.sendall(b"last")
        peer.shutdown(socket.SHUT_WR)
        host.wait_until(lambda: tcp.information(mine)[0] == tcp.CLOSE_WAIT, 5, "the peer's FIN")
    if who == "both":
        wire.plug(None)  # else it would be closed altogether
    if who == "task, not acknowledged":
        wire.plug(None)
    if who != "peer":
        mine.sendall(b"bye")
        mine.shutdown(socket.SHUT_WR)
        if who == "task":
            host.wait_until(lambda: tcp.information(mine)[0] == tcp.FIN_WAIT2, 5, "the acknowledgement of our FIN")
    wire.plug(None)
    taken = sockets.take({"c": mine}, [])
    before = taken.sockets[0].connection
    assert before is not None
    mine.close()
    listener.close()
    [new] = carried_to(wire, taken.sockets)
    assert tcp.information(new)[0] == before.state
    wire.plug(wire.b)
    tcp.resume(new, before)
    if who in ("peer", "both"):
        assert received(new, 10) == b"last"  # and then the end
    if who == "peer":
        new.sendall(b"bye")
        new.shutdown(socket.SHUT_WR)
    assert received(peer, 10) == b"bye"
    if who.startswith("task"):
        peer.sendall(b"more")
        assert received(new, 4) == b"more"
    new.close()
    peer.close()


def test_listening_sockets_and_those_who_wait_there_are_carried(wire: Wire) -> None:
    with host.entered(wire.a):
        listener = socket.create_server(("0.0.0.0", 5004), backlog=17)
    with host.entered(wire.c):
        peers = [socket.create_connection((MINE[socket.AF_INET], 5004), timeout=5) for _ in range(3)]
    for n, peer in enumerate(peers):
        peer.sendall(b"%d" % n)
    host.wait_until(lambda: waiting(listener) == len(peers), 5, "those who wait at the listening socket")
    host.wait_until(lambda: not any(unacknowledged(peer) for peer in peers), 5, "their bytes to have come")
    wire.plug(None)
    taken = sockets.take({"l": listener}, [])
    kinds = [(one.key, one.kind, one.accepted) for one in taken.sockets]
    assert kinds == [("l", "listen", False)] + 3 * [("l", "tcp", True)]
    assert taken.sockets[0].backlog == 17
    for sock in (listener, *(sock for _, sock in taken.accepted)):
        sock.close()
    new, *accepted = carried_to(wire, taken.sockets)
    wire.plug(wire.b)
    for sock, one in zip(accepted, taken.sockets[1:], strict=True):
        assert one.connection is not None
        tcp.resume(sock, one.connection)
    assert sorted(received(sock, 1) for sock in accepted) == [b"0", b"1", b"2"]
    with host.entered(wire.c):
        late = socket.create_connection((MINE[socket.AF_INET], 5004), timeout=5)
    fresh, _ = new.accept()
    late.sendall(b"hello")
    assert received(fresh, 5) == b"hello"
    for sock in (new, fresh, late, *accepted, *peers):
        sock.close()


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_datagrams_that_nobody_has_read_are_carried(wire: Wire, family: int) -> None:
    with host.entered(wire.a):
        mine = socket.socket(family, socket.SOCK_DGRAM)
        mine.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 5005))
    with host.entered(wire.c):
        peer = socket.socket(family, socket.SOCK_DGRAM)
        peer.connect((MINE[family], 5005))
    messages = [b"one", b"", os.urandom(1200)]
    with host.entered(wire.a), socket.socket(family, socket.SOCK_DGRAM) as last, on_one_processor():
        last.bind(("", 5007))
        for message in messages:
            peer.send(message)
        # Nobody may look into the queue twice (a kernel passes over an empty datagram that it has shown before); but
        # what has been sent after these has come after these.
        peer.sendto(b"last", (MINE[family], 5007))
        assert received(last, 4) == b"last"
    taken = sockets.take({"u": mine}, [])
    assert [data for _, _, data in taken.sockets[0].waiting] == messages
    mine.setblocking(False)
    assert mine.recv(2000) == b"one"  # taking does not take away
    [new] = carried_to(wire, taken.sockets)
    new.settimeout(5)
    assert [new.recvfrom(2000) for _ in messages] == [(data, peer.getsockname()) for data in messages]
    wire.plug(wire.b)
    new.sendto(b"back", peer.getsockname())
    assert received(peer, 4) == b"back"
    for sock in (mine, new, peer):
        sock.close()


def test_what_cannot_be_carried_is_named_and_nothing_is_broken(wire: Wire) -> None:
    listener, mine, peer = connected(wire, socket.AF_INET, 5006)
    one, other = socket.socketpair()
    with pytest.raises(Unsupported, match="'unix'"):
        sockets.take({"a": mine, "unix": one}, [])
    mine.sendall(b"still here")  # not in repair mode
    assert received(peer, 10) == b"still here"
    for sock in (listener, mine, peer, one, other):
        sock.close()
