"""The control channel: bytes both ways, closes both ways, and cuts."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from topologies import OverlayNet
from topologies.netns import entered
from topologies.nve import CONTROL_PORT, NVE
from topologies.rundir import wait_until

HELLO = bytes.fromhex("0400000800000001")
FEATURES_REQUEST = bytes.fromhex("0405000800000002")


@pytest.fixture
def nva() -> Iterator[socket.socket]:
    """Something that listens where an NVA would."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


@pytest.fixture
def net(nva: socket.socket) -> Iterator[OverlayNet]:
    with OverlayNet(nves=1, vms=0, controller=nva.getsockname(), rest=None) as built:
        yield built


def inside(nve: NVE) -> socket.socket:
    """A connection to the NVE's own control port, as its switch would make one."""
    with entered(nve.namespace):
        sock = socket.socket()
    sock.settimeout(10)
    sock.connect(("127.0.0.1", CONTROL_PORT))
    return sock


def pair(nva: socket.socket, nve: NVE) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection through the relay, the switch's own connections put aside."""
    ours = inside(nve)
    ours.sendall(b"it is me")
    while True:
        theirs, _ = nva.accept()
        theirs.settimeout(10)
        with contextlib.suppress(ConnectionError):  # a switch gives connections up on which nobody answers
            if theirs.recv(8) == b"it is me":
                return ours, theirs
        theirs.close()


def handshake(nva: socket.socket, dpid: str) -> socket.socket:
    """The NVA's end of a connection on which the switch has said who it is.

    Open vSwitch gives a connection up on which nobody says hello for a second, and tries anew: so do we.
    """
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        switch, _ = nva.accept()
        switch.settimeout(10)
        data = b"nothing yet"
        with contextlib.suppress(ConnectionError):
            switch.sendall(HELLO + FEATURES_REQUEST)
            said = b""
            while data and dpid not in said.hex():
                data = switch.recv(4096)
                said += data
            if data:
                return switch
        switch.close()
    raise AssertionError("no connection lasted for long enough")


def test_open_vswitch_gets_through_and_is_seen_as_connected(net: OverlayNet, nva: socket.socket) -> None:
    nve = net.nve("nve1")
    assert not nve.connected()
    with handshake(nva, nve.dpid):
        wait_until(nve.connected, 10, "the handshake")
    wait_until(lambda: not nve.connected(), 5, "the close")


@pytest.mark.parametrize("sender", ["switch", "nva"])
def test_much_data_with_a_slow_reader(net: OverlayNet, nva: socket.socket, sender: str) -> None:
    ours, theirs = pair(nva, net.nve("nve1"))
    source, target = (ours, theirs) if sender == "switch" else (theirs, ours)
    block = bytes(range(256)) * 4096 * 16  # 16 MiB: more than all buffers on the way hold
    with ours, theirs:
        source.settimeout(30)
        thread = threading.Thread(target=source.sendall, args=(block,))
        thread.start()
        got = bytearray()
        while len(got) < len(block):
            got += target.recv(4096 if len(got) < 1 << 20 else 1 << 18)
        thread.join()
    assert bytes(got) == block


def test_small_messages_do_not_wait_for_acknowledgements(net: OverlayNet, nva: socket.socket) -> None:
    ours, theirs = pair(nva, net.nve("nve1"))
    with ours, theirs:
        times = []
        for _ in range(200):
            start = time.monotonic()
            ours.sendall(HELLO)
            assert theirs.recv(64) == HELLO
            theirs.sendall(HELLO)
            assert ours.recv(64) == HELLO
            times.append(time.monotonic() - start)
    assert min(times) < 0.04  # a delayed acknowledgement would make each of them that, on any machine


@pytest.mark.parametrize("closer", ["switch", "nva"])
def test_closes_are_passed_on(net: OverlayNet, nva: socket.socket, closer: str) -> None:
    ours, theirs = pair(nva, net.nve("nve1"))
    first, last = (ours, theirs) if closer == "switch" else (theirs, ours)
    with ours, theirs:
        first.sendall(b"last words")
        first.shutdown(socket.SHUT_WR)
        assert last.recv(64) == b"last words"
        assert last.recv(64) == b""
        last.sendall(b"yours too")  # the other half is still open
        assert first.recv(64) == b"yours too"
        last.close()
        assert first.recv(64) == b""


def test_an_absent_nva_is_a_closed_connection(net: OverlayNet, nva: socket.socket) -> None:
    nva.close()
    # the reset may already come while we connect, or as an end afterwards: either way the switch knows
    with contextlib.suppress(ConnectionResetError), inside(net.nve("nve1")) as ours:
        assert ours.recv(64) == b""


def test_cut_and_restore(net: OverlayNet, nva: socket.socket) -> None:
    nve = net.nve("nve1")
    ours, theirs = pair(nva, nve)
    with ours, theirs:
        nve.cut()
        for end in (ours, theirs):
            with pytest.raises(ConnectionResetError):
                end.recv(64)
        with pytest.raises(ConnectionRefusedError):
            inside(nve)
    nve.restore()
    ours, theirs = pair(nva, nve)
    ours.close()
    theirs.close()


@pytest.mark.parametrize(("how", "to_nva", "to_switch"), [
    ("stall", False, False), ("stall-nva", False, True), ("stall-switch", True, False),
])
def test_stalls_hold_what_is_sent_until_restored(
    net: OverlayNet, nva: socket.socket, how: str, to_nva: bool, to_switch: bool
) -> None:
    nve = net.nve("nve1")
    ours, theirs = pair(nva, nve)
    with ours, theirs:
        nve.cut(how)
        ours.sendall(b"up")
        theirs.sendall(b"down")
        for end, passes, words in ((theirs, to_nva, b"up"), (ours, to_switch, b"down")):
            end.settimeout(10 if passes else 0.3)
            if passes:
                assert end.recv(64) == words
            else:
                with pytest.raises(TimeoutError):
                    end.recv(64)
        nve.restore()
        for end, passed, words in ((theirs, to_nva, b"up"), (ours, to_switch, b"down")):
            if not passed:
                end.settimeout(10)
                assert end.recv(64) == words
