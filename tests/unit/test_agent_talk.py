"""What agents say to each other and to their tasks: frames, descriptors, secrets, certificates, malformed input."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from ryu_vmm.agent import peers
from ryu_vmm.agent.cooperate import Phase, Resumed, Saved, Task
from ryu_vmm.agent.definition import Configuration
from ryu_vmm.agent.faults import PeerError
from ryu_vmm.agent.framing import FDS, Channel, Closed, Frame, FrameError
from ryu_vmm.checking import check


@contextlib.contextmanager
def pair() -> Iterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        yield Channel(one, 5.0), Channel(other, 5.0)


# --- frames between an agent and a task -------------------------------------------------------------------------------
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4), st.binary(max_size=500))
def test_a_frame_arrives_as_it_was_sent(document: dict[str, Any], payload: bytes) -> None:
    document.pop("more", None)
    with pair() as (one, other):
        one.send(document, payload)
        found = other.receive()
        assert (found.document, found.payload, found.fds) == (document, payload, [])


@pytest.mark.parametrize("count", [1, FDS, FDS + 1, 2 * FDS + 3])
def test_descriptors_arrive_in_order_however_many(count: int) -> None:
    files = [os.memfd_create(f"{n}") for n in range(count)]
    try:
        for n, fd in enumerate(files):
            os.write(fd, str(n).encode())
        with pair() as (one, other):
            sender = threading.Thread(target=one.send, args=({"a": 1}, b"x" * 100_000, files))
            sender.start()
            found = other.receive()
            sender.join()
            assert [int(os.pread(fd, 10, 0)) for fd in found.fds] == list(range(count))
            assert len(found.payload) == 100_000
            found.close()
    finally:
        for fd in files:
            os.close(fd)


@given(st.binary(min_size=1, max_size=200))
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    with pair() as (one, other):
        one.sock.sendall(data)
        one.sock.shutdown(socket.SHUT_WR)
        with pytest.raises((FrameError, Closed)):
            other.receive()


@given(st.binary(max_size=60), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_frame_with_a_wrong_head_is_refused_without_waiting_for_its_bytes(text: bytes, a: int, b: int) -> None:
    with pair() as (one, other):
        one.sock.sendall(b"VMT1" + a.to_bytes(4, "big") + b.to_bytes(4, "big") + text)
        one.sock.shutdown(socket.SHUT_WR)
        try:
            found = other.receive()
        except (FrameError, Closed):
            return
        assert isinstance(found.document, dict)


# --- a task that cooperates -------------------------------------------------------------------------------------------
class Program:
    """A program with a socket, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.path = str(path)
        self.task = Task(self.path, self.save)
        self.went_on: list[Resumed] = []
        self.broken = False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def save(self) -> Saved:
        if self.broken:
            raise RuntimeError("not now")
        return Saved(b"state", {"one": self.ours})

    def work(self) -> None:
        self.went_on.append(self.task.begin())
        while len(self.went_on) < 3:
            resumed = self.task.serve()
            if resumed is not None:
                self.went_on.append(resumed)

    def ask(self, **document: Any) -> Frame:
        fds = document.pop("fds", [])
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.path)
            return Channel(sock, 5.0).ask(document, b"elsewhere", fds)


def test_a_task_is_frozen_and_goes_on(tmp_path: Path) -> None:
    program = Program(tmp_path / "t.sock")
    assert program.ask(do="status").document["phase"] == Phase.WAITING
    assert "error" in program.ask(do="freeze").document  # it does not run yet
    assert program.ask(do="start").document["phase"] == Phase.RUNNING
    program.broken = True
    assert "not now" in program.ask(do="freeze").document["error"]
    program.broken = False
    frozen = program.ask(do="freeze")
    assert frozen.payload == b"state"
    assert frozen.document["sockets"] == ["one"]
    with socket.socket(fileno=frozen.fds.pop()) as same:
        same.send(b"x")
        assert program.theirs.recv(1) == b"x"
    assert program.ask(do="status").document["phase"] == Phase.FROZEN
    assert "error" in program.ask(do="freeze").document
    # what the agent has accepted meanwhile is kept there, and comes when the task goes on; whichever agent asks
    a, b = socket.socketpair()
    program.ask(do="keep", accepted=["listen"], fds=[a.fileno()]).close()
    again = program.ask(do="sockets")
    assert (again.document["sockets"], again.document["accepted"], len(again.fds)) == (["one"], ["listen"], 2)
    again.close()
    assert program.ask(do="thaw", dropped=["two"]).document["phase"] == Phase.RUNNING
    program.ask(do="freeze").close()
    program.ask(do="thaw").close()
    program.thread.join(5.0)
    assert [r.state for r in program.went_on] == [None, None, None]
    [(key, sock)] = program.went_on[1].accepted
    assert (key, program.went_on[1].dropped) == ("listen", frozenset({"two"}))
    sock.send(b"y")
    assert b.recv(1) == b"y"
    for one in (a, b, sock):
        one.close()


def test_a_task_begins_where_it_stopped_elsewhere(tmp_path: Path) -> None:
    program = Program(tmp_path / "t.sock")
    a, b = socket.socketpair()
    a.setblocking(False)
    answer = program.ask(do="restore", sockets=["one"], accepted=[], dropped=["two"], fds=[a.fileno()])
    assert answer.document["phase"] == Phase.RESTORED
    assert program.went_on == []  # it has all, and does not run
    assert "error" in program.ask(do="start").document
    assert program.ask(do="run").document["phase"] == Phase.RUNNING
    program.ask(do="freeze").close()
    assert program.went_on[0].state == b"elsewhere"
    assert program.went_on[0].dropped == frozenset({"two"})
    assert program.went_on[0].sockets["one"].getblocking() is False
    a.close()
    b.close()


def test_a_task_survives_an_agent_that_dies_or_talks_nonsense(tmp_path: Path) -> None:
    program = Program(tmp_path / "t.sock")
    for data in (b"", b"VMT1", b"nonsense of all kinds", b"VMT1\0\0\0\2\0\0\0\0[]", b"VMT1\0\0\0\5\0\0\0\0{\"do\""):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(program.path)
            sock.sendall(data)
    with pytest.raises(Closed):  # names two sockets and sends none
        program.ask(do="restore", sockets=["a", "b"])
    assert program.ask(do="status").document["phase"] == Phase.WAITING
    assert "there is no 'dance'" in program.ask(do="dance").document["error"]


# --- between agents ---------------------------------------------------------------------------------------------------
def configuration(tmp_path: Path, nve: str, **more: Any) -> Configuration:
    return check(Configuration, {"nve": nve, "listen": "127.0.0.1", "port": 0, "times": {"peer": 5.0}, **more})


def secret(tmp_path: Path, name: str, text: str, mode: int = 0o600) -> str:
    path = tmp_path / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def meet(one: Configuration, other: Configuration, name: str = "nve2") -> tuple[object, object]:
    """A call and its answer: what came of both."""
    with peers.listener(other) as listener:
        answers: list[object] = []

        def serve() -> None:
            try:
                with peers.answer(other, listener.accept()[0]) as peer:
                    document, payload = peer.receive()
                    peer.send({"nve": peer.nve, **document}, payload)
                    answers.append(peer.nve)
            except PeerError as e:
                answers.append(e)

        thread = threading.Thread(target=serve)
        thread.start()
        found: object
        try:
            with peers.call(one, name, listener.getsockname()) as peer:
                peer.send({"a": 1}, b"payload")
                found = peer.receive()
        except PeerError as e:
            found = e
        thread.join(10.0)
        return found, answers[0]


def test_agents_with_the_same_secret_talk(tmp_path: Path) -> None:
    path = secret(tmp_path, "s", "x" * 40)
    one, other = (configuration(tmp_path, n, secret_file=path) for n in ("nve1", "nve2"))
    assert meet(one, other) == (({"nve": "nve1", "a": 1}, b"payload"), "nve1")
    found, _ = meet(one, other, "nve3")
    assert isinstance(found, PeerError) and "nve2's, not nve3's" in str(found)


def test_agents_with_different_secrets_do_not(tmp_path: Path) -> None:
    one = configuration(tmp_path, "nve1", secret_file=secret(tmp_path, "a", "x" * 40))
    other = configuration(tmp_path, "nve2", secret_file=secret(tmp_path, "b", "y" * 40))
    found, answer = meet(one, other)
    assert isinstance(found, PeerError) and isinstance(answer, PeerError)


def test_secrets_that_are_none_are_refused(tmp_path: Path) -> None:
    opened = secret(tmp_path, "open", "x" * 40, 0o644)
    for path in (secret(tmp_path, "short", "x" * 31), opened, str(tmp_path / "none")):
        with pytest.raises(PeerError):
            peers.secret_of(configuration(tmp_path, "nve1", secret_file=path))


def certified(tmp_path: Path, authority: trustme.CA, name: str, file: str | None = None) -> Configuration:
    made = authority.issue_cert(name)
    cert = tmp_path / f"{file or name}.pem"
    made.private_key_and_cert_chain_pem.write_to_path(str(cert))
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    return configuration(tmp_path, file or name, tls={"cert": str(cert), "key": str(cert), "ca": str(ca)})


def test_agents_with_certificates_of_one_authority_talk(tmp_path: Path) -> None:
    authority = trustme.CA()
    one, other = certified(tmp_path, authority, "nve1"), certified(tmp_path, authority, "nve2")
    assert meet(one, other) == (({"nve": "nve1", "a": 1}, b"payload"), "nve1")


def test_certificates_of_others_or_of_another_authority_are_not_believed(tmp_path: Path) -> None:
    authority = trustme.CA()
    other = certified(tmp_path, authority, "nve2")
    liar = certified(tmp_path, authority, "nve7", file="nve1")  # says nve1, and shows nve7's
    assert isinstance(meet(liar, other)[1], PeerError)
    folder = tmp_path / "b"
    folder.mkdir()
    stranger = certified(folder, trustme.CA(), "nve1")
    assert all(isinstance(one, PeerError) for one in meet(stranger, other))
    plain = configuration(tmp_path, "nve1", secret_file=secret(tmp_path, "a", "x" * 40))
    assert all(isinstance(one, PeerError) for one in meet(plain, other))


@settings(deadline=None, max_examples=30)
@given(st.binary(min_size=1, max_size=200))
def test_a_stranger_at_an_agents_door_gets_nothing(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        other = configuration(Path(folder), "nve2", secret_file=secret(Path(folder), "s", "x" * 40))
        one, sock = socket.socketpair()
        with one:
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)
            with pytest.raises(PeerError):
                peers.answer(other, sock)


def test_a_frame_that_was_changed_or_repeated_on_the_way_is_refused(tmp_path: Path) -> None:
    one, two = socket.socketpair()
    a, b = peers.Peer(one, 5.0), peers.Peer(two, 5.0)
    thread = threading.Thread(target=a.share, args=(b"s" * 32, True))
    thread.start()
    b.share(b"s" * 32, False)
    thread.join()
    a.send({"n": 1})
    raw = two.recv(65536)
    for wrong in (raw[:-1] + bytes([raw[-1] ^ 1]), raw[:9] + b"X" + raw[10:]):
        c, d = socket.socketpair()
        victim = peers.Peer(d, 5.0)
        victim._keys = b._keys
        c.sendall(wrong)
        with pytest.raises(PeerError):
            victim.receive()
        c.close()
        d.close()
    c, d = socket.socketpair()
    victim = peers.Peer(d, 5.0)
    victim._keys = b._keys
    c.sendall(raw + raw)
    assert victim.receive()[0] == {"n": 1}
    with pytest.raises(PeerError):
        victim.receive()
    for sock in (c, d, one, two):
        sock.close()


def test_agents_believe_the_certificates_that_tools_ca_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    from certificates.__main__ import main

    folder = tmp_path / "agents"
    assert main([str(folder), "--agent", "nve1", "--agent", "nve2", "--quiet"]) == 0
    assert not (folder / "controller.crt").exists()

    def shown(nve: str) -> dict[str, str]:
        return {"cert": f"{folder}/agent-{nve}.crt", "key": f"{folder}/agent-{nve}.key", "ca": f"{folder}/ca.crt"}

    one, other = (configuration(tmp_path, nve, tls=shown(nve)) for nve in ("nve1", "nve2"))
    assert meet(one, other) == (({"nve": "nve1", "a": 1}, b"payload"), "nve1")
    with pytest.raises(SystemExit):  # one authority for agents and the NVA: an agent could pass for the NVA
        main([str(folder), "--agent", "nve1", "--nve", "nve2"])
