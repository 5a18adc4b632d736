"""The run directory: what one topology owns outside its own Python process, written down before it is used.

/run/ryu_vmm-<pid>[-<n>]/ holds one folder per NVE (OVS sockets, databases, logs), the helpers' logs, and the
file `owned`: one JSON line per process started and per namespace named. After a crash `python -m
topologies.cleanup` reads it and ends exactly that, nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from topologies import netns
from topologies.errors import CommandError, NotReady

BASE = "/run"
PREFIX = "ryu_vmm-"


def _stat(pid: int, word: int) -> int | None:
    """A number of /proc/<pid>/stat, counted from the process's state; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[word])
    except (OSError, IndexError, ValueError):
        return None


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None where there is no such process.

    Together with the pid this names a process for good: pids are reused, the pair is not.
    """
    return _stat(pid, 19)


def parent_of(pid: int) -> int | None:
    """The pid of the process's parent; None where there is no such process."""
    return _stat(pid, 1)


def command_of(pid: int) -> str:
    """The process's command line, words joined by spaces; empty where there is no such process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


class RunDir:
    """One topology's folder and the record of what it owns."""

    _count = 0

    def __init__(self) -> None:
        RunDir._count += 1
        suffix = "" if RunDir._count == 1 else f"-{RunDir._count}"
        pid = os.getpid()
        self.path = f"{BASE}/{PREFIX}{pid}{suffix}"
        self.tag = f"vmm{pid}{suffix}"
        with contextlib.suppress(FileNotFoundError):  # left by a crashed process of the same pid
            if not os.path.exists(f"{self.path}/owned"):
                shutil.rmtree(self.path)
        os.mkdir(self.path, 0o755)
        self._record: IO[str] = open(f"{self.path}/owned", "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._namespaces: list[str] = []
        self.note(owner=pid, started=start_time(pid))

    def note(self, **what: Any) -> None:
        """Add one line to the record, unless it is closed."""
        if not self._record.closed:
            self._record.write(json.dumps(what) + "\n")

    def folder(self, name: str) -> str:
        """A fresh folder of that name inside the run directory."""
        path = f"{self.path}/{name}"
        os.makedirs(path, exist_ok=True)
        return path

    # --- namespaces -----------------------------------------------------------------------------------

    def namespace_name(self, node: str) -> str:
        """The system-wide name of a node's namespace, unique to this run: `ip netns exec NAME ...` works."""
        return f"{self.tag}-{node}"

    def name_namespace(self, node: str, pid: int) -> str:
        """Give the namespace that process `pid` lives in its name; the name is recorded first."""
        name = self.namespace_name(node)
        self.note(netns=name)
        self._namespaces.append(name)  # before it exists: an interruption may fall in between
        netns.run(["ip", "netns", "attach", name, str(pid)])
        return name

    def drop_namespace(self, name: str) -> None:
        """Remove the name (the namespace itself goes with its last process)."""
        if name in self._namespaces:
            self._namespaces.remove(name)
        if netns.exists(name):
            netns.run(["ip", "netns", "del", name], check=False)

    # --- processes ------------------------------------------------------------------------------------

    def spawn(
        self, argv: Sequence[str], *, namespace: str | None = None, env: Mapping[str, str] | None = None,
        log: str | None = None, pass_fds: Sequence[int] = (), cwd: str | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own (a Ctrl-C at the terminal does not reach it) and record it.

        `env` adds to the environment; `log` is a file in the run directory for both its outputs.
        """
        words = netns.inside(namespace, argv) if namespace else list(argv)
        target: int | IO[bytes] = subprocess.DEVNULL
        if log:
            target = open(f"{self.path}/{log}", "ab")  # noqa: SIM115
        try:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=target, stderr=target, start_new_session=True,
                env={**os.environ, **(env or {})}, pass_fds=tuple(pass_fds), cwd=cwd,
            )
        except OSError as exc:
            raise CommandError(f"{words[0]}: {exc.strerror}") from exc
        finally:
            if not isinstance(target, int):
                target.close()
        # nsenter replaces itself by the program: record the program's own words, they are what /proc will
        # show
        self.note(pid=child.pid, started=start_time(child.pid), command=" ".join(argv))
        self._children[child.pid] = child
        return child

    def end(self, child: subprocess.Popen[bytes], grace: float = 3.0) -> None:
        """End one process started by `spawn`: SIGTERM, then SIGKILL after `grace` seconds."""
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(grace)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.pop(child.pid, None)
        self.note(ended=child.pid)

    def _end_strays(self) -> None:
        """End children that an interruption kept from being noted: ours, and running with a path of this run."""
        for entry in os.listdir("/proc"):
            if entry.isdigit() and parent_of(int(entry)) == os.getpid() and f"{self.path}/" in command_of(int(entry)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(entry), signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(entry), 0)

    def close(self) -> None:
        """End every process still running, remove every namespace name and the folder itself."""
        children = list(self._children.values())
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in children:
            self.end(child)
        self._end_strays()
        for name in list(self._namespaces):
            self.drop_namespace(name)
        self._record.close()
        shutil.rmtree(self.path, ignore_errors=True)


def wait_until(condition: Any, seconds: float, what: str, every: float = 0.01) -> Any:
    """Call `condition` until it returns something true and return that.

    Raises NotReady, naming `what`, after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise NotReady(f"{what}: not within {seconds:g} s")
        time.sleep(every)
