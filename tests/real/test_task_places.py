"""A task's place on a host and its driver, without an NVA or a bridge: made, closed, opened, frozen, made again."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from taking import received

from ryu_vmm.agent import host
from ryu_vmm.agent.cell import Cell
from ryu_vmm.agent.cooperate import Phase
from ryu_vmm.agent.cooperating import Cooperating
from ryu_vmm.agent.definition import Configuration, TaskDefinition
from ryu_vmm.agent.faults import HostError, TaskSilent
from ryu_vmm.checking import check
from topologies.helper import ROOT
from topologies.rundir import wait_until


def place(tmp_path: Path, command: list[str]) -> tuple[Cell, TaskDefinition, Cooperating]:
    configuration = check(Configuration, {
        "nve": "nve1", "listen": "127.0.0.1", "secret_file": "/none", "run": str(tmp_path),
        "namespaces": f"vmmt{os.getpid()}-",
    })
    definition = check(TaskDefinition, {
        "name": "web", "command": command, "environment": {"PYTHONPATH": ROOT},
        "interfaces": [{"network": "n", "mac": "02:00:00:00:00:09", "port": f"tk{os.getpid()}",
                        "addresses": ["10.8.0.9/24", "fd08::9/64"],
                        "routes": [{"via": "10.8.0.1"}, {"via": "fd08::1"}]}],
    })
    return Cell(configuration, "web"), definition, Cooperating(5.0)


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A host's own namespace: nothing of a cell is made in the one that everybody uses."""
    name = f"vmmt{os.getpid()}-host"
    host.run("ip", "netns", "add", name)
    try:
        with host.entered(name):
            yield name
    finally:
        host.run("ip", "netns", "del", name)


def without_bridge(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cell, "_vsctl", lambda *_: "")


def test_a_place_is_made_closed_opened_and_removed(
    tmp_path: Path, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, definition, _ = place(tmp_path, ["true"])
    without_bridge(cell, monkeypatch)
    cell.make(definition, closed=False)
    port = definition.port(definition.interfaces[0])
    host.ip(f"addr add 10.8.0.1/24 dev {port}")

    def ping() -> bool:
        with contextlib.suppress(HostError):
            host.run("ping", "-c", "1", "-W", "0.5", "10.8.0.9")
            return True
        return False

    wait_until(ping, 10, "the guest answers")
    before = cell.received(definition)
    cell.close(definition)
    assert not ping()
    assert cell.received(definition) > before  # it came, and was dropped without an answer
    cell.open(definition)
    wait_until(ping, 10, "the guest answers again")
    cell.defer(definition)
    with host.entered(cell.namespace):
        server = socket.create_server(("10.8.0.9", 80))
    with pytest.raises(TimeoutError):
        socket.create_connection(("10.8.0.9", 80), timeout=0.3)
    cell.open(definition)
    with socket.create_connection(("10.8.0.9", 80), timeout=5):
        pass
    server.close()
    cell.make(definition, closed=True)  # again, over what is there
    assert not ping()
    cell.remove(definition)
    cell.remove(definition)
    assert not cell.exists
    assert port not in Path("/proc/thread-self/net/dev").read_text()


PROGRAM = """
import socket, sys, select
from ryu_vmm.agent import cooperate
listener = None
def save():
    return cooperate.Saved(b"counted 7", {"l": listener})
task = cooperate.join(save)
begun = task.begin()
listener = begun.sockets.get("l") or socket.create_server(("0.0.0.0", 80))
print(begun.state, sorted(begun.dropped), flush=True)
while True:
    ready, _, _ = select.select([task, listener], [], [])
    if task in ready:
        task.serve()
    elif listener in ready:
        sock, _ = listener.accept()
        sock.sendall(str(begun.state).encode())
        sock.close()
"""


def test_the_driver_starts_freezes_and_makes_a_task_again(
    tmp_path: Path, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, definition, driver = place(tmp_path, [sys.executable, "-S", "-c", PROGRAM])
    without_bridge(cell, monkeypatch)
    cell.make(definition, closed=False)
    try:
        host.ip(f"addr add 10.8.0.1/24 dev {definition.port(definition.interfaces[0])}")
        process = driver.start(cell, definition)
        wait_until(_listens, 10, "the program listens")  # a new task makes its socket after it has begun
        assert _asked() == b"None"
        driver.freeze(cell, process)
        assert driver.phase(cell) is Phase.FROZEN
        package = driver.package(cell, process)
        again = driver.package(cell, process)  # by another agent, say
        assert (package.parts["state"], again.parts) == (b"counted 7", package.parts)
        driver.thaw(cell, process)
        assert _asked() == b"None"
        process.end(0)
        made: Any = driver.restore(cell, definition, package.parts, driver.prepare(cell, definition))
        assert driver.phase(cell) is Phase.RESTORED
        driver.run(cell, made, package.parts)
        driver.run(cell, made, package.parts)
        assert _asked() == b"b'counted 7'"
    finally:
        cell.remove(definition)


def _listens() -> bool:
    """Whether somebody listens. A task that is made again does from the start: its sockets come with it."""
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("10.8.0.9", 80), timeout=5) as sock:
        return received(sock, 100) == b"None"
    return False


def _asked() -> bytes:
    with socket.create_connection(("10.8.0.9", 80), timeout=5) as sock:
        return received(sock, 100)


def test_a_program_that_does_not_cooperate_is_named(
    tmp_path: Path, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, definition, driver = place(tmp_path, ["sh", "-c", "echo no such luck; exit 3"])
    without_bridge(cell, monkeypatch)
    cell.make(definition, closed=False)
    try:
        with pytest.raises((TaskSilent, HostError)):
            driver.start(cell, definition)
    finally:
        cell.remove(definition)
