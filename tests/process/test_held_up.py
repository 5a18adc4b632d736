"""An NVA that was held up: what was said to it meanwhile is heard before deadlines pass."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from nva_lab import Nva, nva, overlay  # noqa: F401

#: Seconds from the redirect to the VM's sign of life.
REDIRECT_DEADLINE = 1.0
GUESTS = [overlay.Guest(1, 1), overlay.Guest(2, 2)]


@contextmanager
def announced(lab: Nva, number: int) -> Iterator[None]:
    """The VM speaks at its destination: its switch hands it over, and nobody reads it."""
    emulation = lab.emulations[0]
    emulation.call("inject", dpid=2, port=GUESTS[0].port, frame=GUESTS[0].announcement().hex())
    yield


@contextmanager
def activated(lab: Nva, number: int) -> Iterator[None]:
    """The hypervisor says that the VM runs: a connection that nobody has accepted, and a request in it."""
    with socket.create_connection(("127.0.0.1", lab.manager.rest), timeout=40) as client:
        head = f"POST /v1/moves/{number}/activate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
        client.sendall(head.encode())
        yield


@pytest.mark.parametrize("said", [announced, activated])
def test_what_was_said_in_time_counts(nva: Callable[..., Nva], said: Callable[..., object]) -> None:  # noqa: F811
    lab = nva(redirect_deadline=REDIRECT_DEADLINE, quiet_time=1)
    lab.register(2, GUESTS)
    emulation = lab.emulation()
    emulation.add([overlay.switch(n, GUESTS, eager=True) for n in (1, 2)])
    emulation.call("port", dpid=2, name=GUESTS[0].port, state="up")
    lab.synchronised(1, 2)
    number = lab.post("/moves", {"vm": GUESTS[0].name, "to": "nve2"})["id"]
    lab.wait(lambda: lab.get(f"/moves/{number}")["state"] == "prepared", "the move prepared")
    lab.post(f"/moves/{number}/redirect")
    lab.manager.process.send_signal(signal.SIGSTOP)
    try:
        with said(lab, number):  # type: ignore[attr-defined]
            time.sleep(2 * REDIRECT_DEADLINE)  # the deadline passes, for everybody but the NVA
            lab.manager.process.send_signal(signal.SIGCONT)
            lab.wait(lambda: lab.get(f"/moves/{number}")["state"] in ("settled", "failed"), "the end of the move")
    finally:
        lab.manager.process.send_signal(signal.SIGCONT)
    document = lab.get(f"/moves/{number}")
    assert document["state"] == "settled", document["history"]
