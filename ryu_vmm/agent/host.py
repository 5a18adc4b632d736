"""What an agent does to its host: commands, network namespaces, processes. Nothing here knows of moves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from . import namespaces
from .faults import HostError

__all__ = [
    "Process", "attach", "boot", "entered", "ip", "is_named", "leads_to", "marked", "nft", "path_of", "pid_namespace",
    "processes_in", "run", "start_time", "wait_until",
]  # fmt: skip

_T = TypeVar("_T")


def run(*argv: str, stdin: str | None = None, seconds: float = 30.0) -> str:
    """Run a command to its end, in the calling thread's namespace; what it printed. Raises HostError in its words."""
    try:
        done = subprocess.run(
            argv, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL, capture_output=True, text=True,
            errors="backslashreplace", timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HostError(f"{' '.join(argv)}: no end within {seconds:g} s") from None
    except OSError as e:
        raise HostError(f"{argv[0]}: {e.strerror}") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise HostError(f"{' '.join(argv)}: {words}")
    return done.stdout


def ip(*lines: str) -> None:
    """Several ``ip`` commands in one process, in the calling thread's namespace. Raises HostError."""
    run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")


def nft(text: str) -> None:
    """Commands for nftables, all of them or none, in the calling thread's namespace. Raises HostError."""
    run("nft", "-f", "-", stdin=text)


def path_of(namespace: str) -> Path:
    """The handle of a named namespace."""
    return namespaces.NAMED / namespace


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """As `namespaces.entered`. Raises HostError where there is no such namespace."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(namespaces.entered(namespace))
        except OSError as e:
            raise HostError(f"namespace {namespace}: {e.strerror}") from None
        yield


def boot() -> str:
    """An identifier of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str]:
    """State, parent, ... of /proc/PID/stat from its third field on; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since boot; None if it has ended. With the pid it names a process for good."""
    words = _stat(pid)
    return int(words[19]) if len(words) > 19 and words[0] not in "ZX" else None


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def processes_in(namespace: str) -> list[int]:
    """The processes whose network namespace is the one of that name."""
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if leads_to(namespace, pid):
                found.append(pid)
    return found


def leads_to(namespace: str, pid: int | str) -> bool:
    """Whether the name, in this mount namespace, leads to the network namespace of a process. OSError: it has none."""
    there = os.stat(f"/proc/{pid}/ns/net")
    try:
        named = path_of(namespace).stat()
    except OSError:
        return False
    return (named.st_dev, named.st_ino) == (there.st_dev, there.st_ino)


def is_named(namespace: str) -> bool:
    """Whether the name leads to a network namespace. A handle that was made in another mount namespace is an empty file
    here, or is not there."""
    with contextlib.suppress(OSError):
        return path_of(namespace).stat().st_dev == os.stat("/proc/self/ns/net").st_dev
    return False


def attach(namespace: str, pid: int) -> None:
    """Have the name lead to the network namespace of a process, in this mount namespace. Raises HostError."""
    with contextlib.suppress(OSError):
        if leads_to(namespace, pid):
            return
    if path_of(namespace).exists():
        with contextlib.suppress(HostError):
            run("ip", "netns", "del", namespace)
        with contextlib.suppress(OSError):
            path_of(namespace).unlink()
    run("ip", "netns", "attach", namespace, str(pid))


def marked(mark: str) -> list[int]:
    """The processes that were started with that in their environment (NAME=VALUE) and lead their sessions."""
    wanted = mark.encode()
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and os.getsid(pid) == pid:
                found.append(pid)
    return found


def pid_namespace() -> int:
    """An identifier of the PID namespace that this program sees."""
    return os.stat("/proc/self/ns/pid").st_ino


class Process:
    """A process, by pid and start time: never another one that has got its pid."""

    def __init__(self, pid: int, started: int) -> None:
        self.pid, self.started = pid, started

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this pid now."""
        started = start_time(pid)
        return None if started is None else cls(pid, started)

    @property
    def alive(self) -> bool:
        """Whether it runs. One that has ended and is our child is reaped."""
        if start_time(self.pid) == self.started:
            return True
        with contextlib.suppress(OSError):
            os.waitpid(self.pid, os.WNOHANG)
        return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, if it is still there."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return
        try:
            if start_time(self.pid) == self.started:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)

    def end(self, grace: float) -> None:
        """SIGTERM, after ``grace`` seconds SIGKILL (0: at once); returns when it has ended. Raises HostError."""
        if grace > 0 and self.alive:
            self.kill(signal.SIGTERM)
            with contextlib.suppress(HostError):
                wait_until(lambda: not self.alive, grace, "")
                return
        self.kill()
        wait_until(lambda: not self.alive, 10.0, f"the end of process {self.pid}")


def wait_until(condition: Callable[[], _T], seconds: float, what: str, every: float = 0.005) -> _T:
    """Call until it returns something true, and return that. Raises HostError, naming ``what``, after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise HostError(f"{what}: not within {seconds:g} s")
        time.sleep(every)


