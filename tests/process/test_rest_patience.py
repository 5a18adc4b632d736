"""Clients that are slow, half-open or many: each is served or dropped, and nobody else waits for them."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from rest_access import DEADLINE, Place

#: Loaded before the NVA: patience that a test can wait for.
HASTE = """
import ryu_vmm.listener
from ryu.base import app_manager

for name, seconds in {"HANDSHAKE": 3.0, "HEAD": 2.0, "BODY": 1.0, "IDLE": 3.0, "STALLED": 2.0}.items():
    assert hasattr(ryu_vmm.listener, name)
    setattr(ryu_vmm.listener, name, seconds)


class Haste(app_manager.RyuApp):
    pass
"""


@pytest.fixture
def nva(ryu_manager: Callable[..., Any], tmp_path: Path) -> Place:
    """An NVA in a hurry."""
    made = Place(tmp_path, ryu_manager)
    made.admit("ops", "--role", "admin")
    haste = tmp_path / "haste.py"
    haste.write_text(HASTE)
    manager = made.start(str(haste), "ryu_vmm")
    manager.connect(manager.rest).close()
    return made


def until_closed(sock: socket.socket) -> tuple[bytes, float]:
    """What comes until the other side hangs up, and after how many seconds it does."""
    begun, found = time.monotonic(), b""
    try:
        while chunk := sock.recv(65536):
            found += chunk
    except (ConnectionError, ssl.SSLError):
        pass
    return found, time.monotonic() - begun


def dribble(sock: socket.socket, data: bytes, pause: float = 0.1) -> None:
    """Send a byte now and then, until nobody takes them any more."""
    end = time.monotonic() + DEADLINE
    try:
        for n in range(len(data)):
            sock.sendall(data[n : n + 1])
            time.sleep(pause)
            assert time.monotonic() < end, "still taken"
    except (ConnectionError, ssl.SSLError):
        pass


def test_nobody_waits_for_who_is_slow(nva: Place) -> None:
    head = f"GET /v1/vms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {nva.tokens['ops']}\r\n".encode()
    with ExitStack() as stack, nva.client(nva.tokens["ops"]) as ops:
        for _ in range(60):
            stack.enter_context(nva.raw())  # says nothing
            half = stack.enter_context(nva.raw())
            half.sendall(b"\x16\x03\x01\x02\x00\x01")  # begins a handshake
            late = stack.enter_context(nva.secure())
            late.sendall(head)  # and no end of it
        begun = time.monotonic()
        for _ in range(5):
            assert ops.get("/v1/vms").status_code == 200
        assert time.monotonic() - begun < DEADLINE / 2
        silent = stack.enter_context(nva.raw())
        assert until_closed(silent)[1] < DEADLINE / 2
    assert "Traceback" not in nva.manager.text


def test_every_patience_ends(nva: Place) -> None:
    token = nva.tokens["ops"]
    with nva.secure() as sock:
        dribble(sock, b"GET /v1/vms HTTP/1.1\r\n" + b"X-A: b\r\n" * 100)
    post = f"POST /v1/networks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    post += "Content-Type: application/json\r\n"
    with nva.secure() as sock:
        sock.sendall(f"{post}Content-Length: 1000\r\n\r\n".encode() + b"{")
        said, _ = until_closed(sock)
        assert said.startswith(b"HTTP/1.1 408 "), said
    with nva.secure() as sock:
        sock.sendall(f"{post}Transfer-Encoding: chunked\r\n\r\n".encode() + b"5\r\n{")
        assert until_closed(sock)[0].startswith(b"HTTP/1.1 408 ")
    with nva.secure() as sock:  # silent between requests
        sock.sendall(f"GET /v1/vms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        said, seconds = until_closed(sock)
        assert said.startswith(b"HTTP/1.1 200 ")
        assert seconds < DEADLINE / 2
    with nva.client(token) as client:
        assert client.get("/v1/networks").json()["items"] == []
    assert "Traceback" not in nva.manager.text


def test_who_does_not_read_is_dropped(nva: Place) -> None:
    request = f"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {nva.tokens['ops']}\r\n\r\n"
    with nva.secure() as sock, nva.client(nva.tokens["ops"]) as ops:
        assert ops.get("/v1/ready").status_code == 200
        sock.sendall(request.encode() * 300)  # some 30 MB of answers, which no buffer holds
        begun = time.monotonic()
        assert open_connections(nva.manager.rest) == 2
        while open_connections(nva.manager.rest) > 1:
            assert ops.get("/v1/ready").status_code == 200
            assert time.monotonic() - begun < DEADLINE, "still waited for"
            time.sleep(0.05)
        assert time.monotonic() - begun > 0.5, "it was waited for a while"
    assert "Traceback" not in nva.manager.text


def open_connections(port: int) -> int:
    """Connections to a port that the server has not closed, as the kernel tells."""
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file]
    return sum(row[1].endswith(f":{port:04X}") and row[3] in ("01", "08") for row in rows)


def test_what_is_too_large_is_not_taken(nva: Place) -> None:
    token = nva.tokens["ops"]
    auth = f"Authorization: Bearer {token}\r\n"
    endless = [
        (b"GET /v1/" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
        (f"GET /v1/vms HTTP/1.1\r\n{auth}X: ".encode() + b"a" * 100_000 + b"\r\n\r\n", b" 400 "),
        (f"GET /v1/vms HTTP/1.1\r\n{auth}".encode() + b"X: aaaaaaaaaa\r\n" * 10_000 + b"\r\n", b" 4"),
        (f"POST /v1/vms HTTP/1.1\r\n{auth}Content-Length: 9999999999\r\n\r\n".encode() + b"a" * 10_000, b" 413 "),
        (b"POST /v1/vms HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n" + b"a" * 10_000, b" 401 "),
        (b"POST /v1/vms HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 50_000, b" 401 "),
    ]
    for sent, status in endless:
        with nva.secure() as sock:
            try:
                sock.sendall(sent)
            except (ConnectionError, ssl.SSLError):
                continue  # it has hung up already
            said, seconds = until_closed(sock)
            assert status in said.partition(b"\r\n")[0] or not said, (sent[:60], said[:200])
            assert seconds < DEADLINE / 2, sent[:60]
    with nva.client(token) as client:
        assert client.get("/v1/vms").status_code == 200
    assert "Traceback" not in nva.manager.text


def test_a_refused_body_still_gets_its_answer(nva: Place) -> None:
    body = b"x" * (1 << 20)
    with nva.client() as nobody:
        for _ in range(3):
            response = nobody.post("/v1/vms", content=body, headers={"Content-Type": "application/json"})
            assert (response.status_code, response.headers["connection"]) == (401, "close")
    with nva.client(nva.tokens["ops"]) as ops:
        response = ops.post("/v1/vms", content=body + body, headers={"Content-Type": "application/json"})
        assert response.status_code == 413
