"""A watch on a name: what the name server says it stands for, and from when on."""

from __future__ import annotations

import contextlib
import threading
import time

import dns.exception

from topologies.errors import NotReady
from topologies.nameserver import NameServer
from topologies.rundir import wait_until

_LOOK = 0.001  # seconds between two looks


class Watch:
    """Asks for a name over and over and notes when the answer changes; a context manager.

    seen: (Unix time of the answer, addresses as `NameServer.resolve` returns them); the first is from before it began.
    """

    def __init__(self, server: NameServer, name: str) -> None:
        self._server, self._name = server, name
        self.seen: list[tuple[float, tuple[str, ...]]] = [(time.time(), server.resolve(name))]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name=f"watch on {name}", daemon=True)

    def _look(self) -> None:
        while not self._stop.wait(_LOOK):
            with contextlib.suppress(OSError, NotReady, dns.exception.DNSException):
                found = self._server.resolve(self._name, 1.0)
                if found != self.seen[-1][1]:
                    self.seen.append((time.time(), found))

    def changed_to(self, *addresses: str, seconds: float = 10.0) -> float:
        """The Unix time of the first answer by which the name stood for these addresses and no others.

        Raises NotReady after so many seconds.
        """
        wanted = set(addresses)

        def when() -> list[float]:
            return [at for at, found in self.seen if set(found) == wanted]

        return float(wait_until(when, seconds, f"{self._name} to stand for {', '.join(sorted(wanted))}", 0.005)[0])

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
