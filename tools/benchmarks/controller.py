"""The programs under test: started on a processor of their own, talked to over REST, ended by their own pid."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from topologies.ports import free_port

from .machine import CONTROLLER_CPU

TOOLS = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


class BenchError(Exception):
    """A measurement could not be taken."""


_RUNNING: list[subprocess.Popen[bytes]] = []


@contextlib.contextmanager
def _undisturbed() -> Iterator[set[signal.Signals]]:
    """Keeps signals waiting, so that none comes between the start of a program and knowing of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield {signal.Signals(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process in _RUNNING:
        _RUNNING.remove(process)


@atexit.register
def _end_all() -> None:
    """Whatever interrupted its owner, no program outlives this one."""
    while _RUNNING:
        _end(_RUNNING[-1])


class Controller:
    """A controller listening for switches on loopback; a context manager that ends it.

    Args:
        command: what to run. ``{port}`` stands for the OpenFlow port.
        folder: where its log goes.
        wait: how long it may take to listen, in seconds.
    """

    def __init__(self, command: list[str], folder: Path, wait: float = 60.0) -> None:
        self.port = free_port()
        self.log = folder / f"controller-{self.port}.log"
        environment = {**os.environ, "PYTHONPATH": f"{TOOLS}:{TOOLS.parent}"}
        started = time.monotonic()
        with self.log.open("wb") as log, _undisturbed() as before:

            def prepare() -> None:
                os.sched_setaffinity(0, {CONTROLLER_CPU})
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

            self.process = subprocess.Popen(
                [part.format(port=self.port) for part in command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=prepare,
            )
            _RUNNING.append(self.process)
        try:
            self.wait_for(self._listening, wait, "it to listen")
        except BaseException:
            self.close()
            raise
        self.startup = time.monotonic() - started

    @property
    def address(self) -> tuple[str, int]:
        """Where switches connect to."""
        return "127.0.0.1", self.port

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def wait_for(self, condition: Any, seconds: float, what: str, every: float = 0.01) -> Any:
        """The first true value of ``condition()``.

        Raises:
            BenchError: there was none in time, or the process has ended.
        """
        end = time.monotonic() + seconds
        while not (value := condition()):
            if self.process.poll() is not None:
                raise BenchError(f"controller ended while waiting for {what}:\n{self.tail()}")
            if time.monotonic() > end:
                raise BenchError(f"waited {seconds:.0f} s for {what} in vain:\n{self.tail()}")
            time.sleep(every)
        return value

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def _listening(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(self.address) == 0

    def close(self) -> None:
        """End it."""
        _end(self.process)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, Exception):
            error.add_note(f"the controller's last words:\n{self.tail()}")


def _ryu(*arguments: str) -> list[str]:
    return [str(BIN / "ryu-manager"), "--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", "{port}", *arguments]


def simple_switch(folder: Path) -> Controller:
    """Ryu's own learning switch."""
    return Controller(_ryu("ryu.app.simple_switch_13"), folder)


def bare(folder: Path) -> Controller:
    """A Ryu application that sends a constant."""
    return Controller(_ryu("benchmarks.bare_app"), folder)


def plain(folder: Path) -> Controller:
    """A Python loop that sends a constant."""
    return Controller([sys.executable, "-m", "benchmarks.plain_socket", "{port}"], folder)


class Vmm(Controller):
    """``ryu-manager ryu_vmm`` with a store in ``folder`` (kept if it is there) and a REST client.

    ``startup`` is the time until REST says that it is ready.
    """

    def __init__(self, folder: Path, wait: float = 120.0, **options: object) -> None:
        self.rest_port = free_port()
        config = folder / "nva.conf"
        lines = {"store": folder / "nva.sqlite", **options}
        config.write_text("[vmm]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items()))
        rest = ["--wsapi-host", "127.0.0.1", "--wsapi-port", str(self.rest_port)]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.rest_port}/v1", timeout=120.0)
        started = time.monotonic()
        super().__init__(_ryu("--config-file", str(config), *rest, "ryu_vmm"), folder, wait)
        try:
            self.wait_for(self._ready, wait, "readiness")
        except BaseException:
            self.close()
            raise
        self.startup = time.monotonic() - started

    def _ready(self) -> bool:
        try:
            return self.http.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        """The document at ``path``. BenchError: it is refused."""
        return self._checked(self.http.get(path))

    def post(self, path: str, body: Any = None) -> Any:
        """The answer to a POST. BenchError: it is refused."""
        return self._checked(self.http.post(path, json=body))

    def _checked(self, response: httpx.Response) -> Any:
        if response.is_error:
            raise BenchError(f"{response.request.method} {response.request.url.path}: {response.text[:500]}")
        return response.json()

    def register(self, kind: str, bodies: list[dict[str, Any]], at_once: int = 2000) -> None:
        """Register many objects: VMs in bulk, others one by one."""
        if kind == "vms":
            for start in range(0, len(bodies), at_once):
                self.post("/vms", bodies[start : start + at_once])
        else:
            for body in bodies:
                self.post(f"/{kind}", body)

    def synchronised(self, count: int, seconds: float = 300.0) -> None:
        """Wait until so many NVEs are connected and have acknowledged all that they were programmed with."""

        def done() -> bool:
            found, after = 0, ""
            while True:
                page = self.get(f"/nves?limit=1000{after}")
                for nve in page["items"]:
                    generation = nve["generation"]
                    found += nve["in_sync"] and generation["programmed"] == generation["realised"]
                if page["next"] is None:
                    return found == count
                after = f"&after={page['next']}"

        self.wait_for(done, seconds, "all NVEs to be programmed", every=0.25)

    def close(self) -> None:
        self.http.close()
        super().close()
