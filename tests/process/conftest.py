"""Real ryu-manager processes on loopback: started here, waited for by condition, ended by their own pid."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from topologies.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Helpers beside the tests are imported by name, whatever directory pytest is started from.
sys.path.insert(0, str(Path(__file__).parent))

BIN = Path(sys.executable).parent
T = TypeVar("T")
DEADLINE = 60.0  # seconds; a loaded machine is slow, a hang is endless


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.process)


def wait_until(condition: Callable[[], T | None], what: str, deadline: float = DEADLINE) -> T:
    """The first true value of `condition`; fails after `deadline` seconds without one."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {deadline} s"
        time.sleep(0.01)
    return value


class Manager:
    """One ryu-manager. Its output goes to one file, `text`."""

    def __init__(
        self, folder: Path, args: tuple[str, ...], cwd: Path | None, env: dict[str, str] | None
    ) -> None:
        self.ofp, self.rest = free_port(), free_port()
        self.output = folder / f"ryu-manager-{self.ofp}.log"
        ports = {
            "--ofp-listen-host": "127.0.0.1",
            "--ofp-tcp-listen-port": str(self.ofp),
            "--wsapi-host": "127.0.0.1",
            "--wsapi-port": str(self.rest),
        }
        given = dict(itertools.pairwise(args))
        self.ofp = int(given.get("--ofp-tcp-listen-port", self.ofp))
        self.rest = int(given.get("--wsapi-port", self.rest))
        # ended with us even if we are killed
        command = ["setpriv", "--pdeathsig", "TERM", str(BIN / "ryu-manager"), *args]
        for name, value in ports.items():
            if name not in args:
                command += [name, value]
        env = dict(os.environ if env is None else env)
        env.pop("PYTEST_CURRENT_TEST", None)  # eventlet is quieter where it sees this
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=cwd or folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until `text` is in the output; fails at once if the process ends before."""

        def seen() -> bool:
            ended = self.process.poll() is not None
            assert text in self.text or not ended, f"ended without {text!r}:\n{self.text}"
            return text in self.text

        wait_until(seen, f"{text!r} in the output")

    def connect(self, port: int) -> socket.socket:
        """A connection to a port it listens on, or soon will."""

        def attempt() -> socket.socket | None:
            assert self.process.poll() is None, self.text
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
            except ConnectionRefusedError:
                return None

        return wait_until(attempt, f"listening on port {port}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


@pytest.fixture
def ryu_manager(tmp_path: Path) -> Iterator[Callable[..., Manager]]:
    """ryu_manager(*args, cwd=None, env=None): one on ports of its own, killed at last if need be."""
    started: list[Manager] = []

    def start(*args: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Manager:
        started.append(Manager(tmp_path, args, cwd, env))
        return started[-1]

    yield start
    for manager in started:
        if manager.process.poll() is None:
            manager.process.kill()
            manager.process.wait()


TOY = '''
from webob import Response

import ryu_vmm.compat
from ryu.app.wsgi import ControllerBase, WSGIApplication, route, websocket
from ryu.base import app_manager
from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, set_ev_cls

ryu_vmm.compat.HANDSHAKE_DEADLINE = 3.0
ryu_vmm.compat.CLOSE_DEADLINE = 1.0
ryu_vmm.compat.ACCEPT_RETRY = 0.1


class Pages(ControllerBase):
    @route("hello", "/hello")
    def hello(self, req, **_):
        return Response(text="hello")

    @websocket("echo", "/echo")
    def echo(self, ws):
        while (message := ws.wait()) is not None:
            ws.send("echo " + message)


class Toy(app_manager.RyuApp):
    _CONTEXTS = {"wsgi": WSGIApplication}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        kwargs["wsgi"].register(Pages, {"toy": self})

    @set_ev_cls(ofp_event.EventOFPHello)
    def hello(self, ev):
        self.logger.info("toy: hello from %s", ev.msg.datapath.address[1])

    def stop(self):
        super().stop()
        self.logger.info("toy: stopped")

    def close(self):
        self.logger.info("toy: closed")
'''


@pytest.fixture
def toy(tmp_path: Path) -> str:
    """The path of a small Ryu application: GET /hello, a websocket on /echo, a log of what happens to it."""
    path = tmp_path / "toy.py"
    path.write_text(TOY)
    return str(path)
