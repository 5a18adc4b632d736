"""Start emulated switches in a process of their own and tell them what to do."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ..errors import VmmError


class EmulationError(VmmError):
    """The emulation could not do what it was told, or has ended."""

    code = "emulation"


class Emulation:
    """Emulated switches that connect to ``controller``; a context manager that ends them.

    Args:
        controller: (address, port).
        cpu: processor to stay on (None: any).

    ``call(command, ...)`` is a command of :class:`ryu_vmm.emulation.service.Service`.
    """

    def __init__(self, controller: tuple[str, int], cpu: int | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ryu_vmm.emulation", controller[0], str(controller[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if cpu is not None:
            os.sched_setaffinity(self._process.pid, {cpu})
        self._rest = b""

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def call(self, do: str, answer_within: float = 60.0, **arguments: Any) -> dict[str, Any]:
        """Carry out a command and return its results.

        Raises: EmulationError: it failed, there was no answer in ``answer_within`` seconds, or the process
        is gone.
        """
        self.tell(do, **arguments)
        return self.answer(do, answer_within)

    def tell(self, do: str, **arguments: Any) -> None:
        """Give a command without waiting; ``answer`` collects its results later."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: closed
            raise EmulationError("the emulation has ended", do=do) from error

    def answer(self, do: str, within: float = 60.0) -> dict[str, Any]:
        """The results of the oldest command not answered yet (errors as ``call``)."""
        answer: dict[str, Any] = json.loads(self._line(do, time.monotonic() + within))
        if not answer.pop("ok"):
            raise EmulationError(f"{do}: {answer['error']}", do=do)
        return answer

    def _line(self, do: str, deadline: float) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise EmulationError(f"{do}: no answer in time", do=do)
                data = os.read(self._process.stdout.fileno(), 1 << 20)
                if not data:
                    raise EmulationError(f"{do}: the emulation has ended", do=do)
                self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def add(self, switches: Sequence[dict[str, Any]], timeout: float = 60.0) -> float:
        """Add switches and wait until all are connected; how long that took in seconds."""
        self.call("add", switches=list(switches))
        seconds: float = self.call("ready", answer_within=timeout + 5, timeout=timeout)["seconds"]
        return seconds

    def close(self) -> None:
        """End the process."""
        process = self._process
        if process.poll() is None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Emulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
