"""Who follows a name: a client that knows nothing else of a task, and a server that says nothing."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from dataclasses import dataclass

import dns.exception

from topologies import VM, netns
from topologies.errors import NotReady, TopologyError
from topologies.nameserver import NameServer
from topologies.rundir import wait_until
from topologies.tasking.streams import End
from topologies.traffic.session import Family

_TICK = 0.02
_ASK = 0.01  # seconds between two questions to the name server while there is no connection
_TRY = 0.25  # seconds for one attempt to connect, unless the name server gives another address meanwhile
_RETRANSMITS = 2  # offset of tcpi_retransmits in struct tcp_info
_SIZE = 256


@dataclass(frozen=True)
class Broken:
    """An interruption. Times are CLOCK_MONOTONIC seconds.

    how: "reset" or "silence". heard: the last data before. noticed: when the client knew. back: when it was connected
    anew. old, new: addresses. retries: how often its kernel had sent the same data again.
    """

    how: str
    heard: float
    noticed: float
    back: float
    old: str
    new: str
    retries: int

    @property
    def outage(self) -> float:
        """Seconds without a connection that carries anything."""
        return self.back - self.heard

    @property
    def reconnecting(self) -> float:
        """Seconds from when the client knew until it was connected."""
        return self.back - self.noticed


class Follower:
    """A client in a guest: asks for a name, connects, exchanges checked records, and connects anew if it has to.

    Args:
        vm: the guest; it asks the name server by another network than the overlay.
        name: what it knows of the task.
        patience: seconds without data after which it believes no longer in its connection.
    """

    def __init__(self, vm: VM, server: NameServer, name: str, family: Family, port: int, patience: float) -> None:
        self.vm, self.family, self.patience = vm, family, patience
        self._server, self._name, self._port = server, name, port
        self.broken: list[Broken] = []
        self.errors: list[str] = []
        self.address = ""
        self.records = 0
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=f"{vm.name}, IPv{family}", daemon=True)

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.vm.name}, IPv{self.family}"

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def await_connected(self, seconds: float = 10.0) -> None:
        """Wait for the first connection. Raises NotReady."""
        if not self._ready.wait(seconds):
            raise NotReady(f"{self.label} has no connection to {self._name}: {'; '.join(self.errors)}")

    def await_back(self, seconds: float) -> Broken:
        """Wait until it has been interrupted and is back. Raises NotReady."""
        wait_until(lambda: self.broken or self.errors, seconds, f"{self.label} to be back at {self._name}")
        if not self.broken:
            raise TopologyError(f"{self.label}: {'; '.join(self.errors)}")
        return self.broken[0]

    def stop(self) -> None:
        """End it; its last connection is closed."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    # --- its life -----------------------------------------------------------------------------------------------------
    def _guarded(self) -> None:
        try:
            self._run()
        except Exception as exc:  # whatever it was: the story's claims fail by it
            self.errors.append(f"{type(exc).__name__}: {exc}")

    def _run(self) -> None:
        found = self._connect()
        while found is not None:
            sock, self.address = found
            end = End(sock, True, 20.0, _SIZE)
            self._ready.set()
            self._exchange(end)
            self.records += end.taken
            how = "reset" if any("reset" in error for error in end.errors) else "silence"
            self.errors += [error for error in end.errors if how != "reset"]
            noticed, heard, old, retries = time.monotonic(), end.heard, self.address, _retries(sock)
            sock.close()
            if self._stop.is_set():
                return
            found = self._connect()
            if found is not None:
                self.broken.append(Broken(how, heard, noticed, time.monotonic(), old, found[1], retries))

    def _exchange(self, end: End) -> None:
        """Until the connection has come to an end, or nothing has been heard for too long."""
        while end.open and not self._stop.is_set():
            if select.select([end.sock], [], [], _TICK)[0]:
                end.read()
            now = time.monotonic()
            end.turn(now)
            if now - end.heard > self.patience:
                return

    def _connect(self) -> tuple[socket.socket, str] | None:
        """Ask and try until there is a connection; None: it is to stop."""
        attempt: socket.socket | None = None
        tried, since = "", 0.0
        try:
            while not self._stop.is_set():
                now = time.monotonic()
                address = self._ask()
                if address and (address != tried or attempt is None or now - since > _TRY):
                    if attempt is not None:
                        attempt.close()
                    attempt, tried, since = self._attempt(address), address, now
                if attempt is None:
                    time.sleep(_ASK)
                    continue
                if select.select([], [attempt], [], _ASK)[1]:
                    if not attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        done, attempt = attempt, None
                        return done, tried
                    attempt.close()
                    attempt = None
                    time.sleep(_ASK)
            return None
        finally:
            if attempt is not None:
                attempt.close()

    def _ask(self) -> str:
        try:
            found = self._server.records(self._name, "A" if self.family == 4 else "AAAA", 1.0)
        except (OSError, NotReady, dns.exception.DNSException):
            return ""
        return found[0] if found else ""

    def _attempt(self, address: str) -> socket.socket:
        with netns.entered(self.vm.namespace):
            sock = socket.socket(socket.AF_INET if self.family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # what select and SO_ERROR will say, too
            sock.connect_ex((address, self._port))
        return sock


def _retries(sock: socket.socket) -> int:
    """How often in a row a socket's kernel has sent the same data again without an answer."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[_RETRANSMITS]


class Service:
    """A server in a guest that takes streams at any of its addresses; a context manager."""

    def __init__(self, vm: VM, port: int) -> None:
        self._listeners = []
        with netns.entered(vm.namespace):
            for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address, port))
                sock.listen()
                self._listeners.append(sock)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"service of {vm.name}", daemon=True)

    def _serve(self) -> None:
        ends: dict[int, End] = {}
        while not self._stop.is_set():
            waiting = [*self._listeners, *(end.sock for end in ends.values())]
            for sock in select.select(waiting, [], [], _TICK)[0]:
                if sock in self._listeners:
                    taken = sock.accept()[0]
                    taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    ends[taken.fileno()] = End(taken, False, 20.0, _SIZE)
                else:
                    ends[sock.fileno()].read()
            for fd, end in list(ends.items()):
                end.turn(time.monotonic())
                if not end.open:
                    del ends[fd]
                    end.sock.close()
        for end in ends.values():
            end.sock.close()

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
        for sock in self._listeners:
            sock.close()
