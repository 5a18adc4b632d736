"""Removing what a crashed topology left behind: exactly what its run directory records, nothing else.

    python -m topologies.cleanup            remove what dead topologies left
    python -m topologies.cleanup --list     only say what there is

A process is ended only if its pid, its start time and its command line are the recorded ones, or if it is in a
recorded namespace of an agent's task; a namespace is removed only if its name is recorded. Run directories whose owner
is alive are left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from ryu_vmm.agent import host
from topologies import netns
from topologies.rundir import BASE, PREFIX, command_of, start_time


@dataclass
class Leftover:
    """What one run directory records."""

    path: str
    owner: int = 0
    owner_alive: bool = False
    processes: list[tuple[int, str]] = field(default_factory=list)  # those alive, with their command line
    namespaces: list[str] = field(default_factory=list)  # those that exist
    tasks: list[str] = field(default_factory=list)  # those among them that hold an agent's task, and nobody else's

    def __str__(self) -> str:
        state = "in use" if self.owner_alive else "left behind"
        return (f"{self.path}: {state} (process {self.owner}), {len(self.processes)} processes, "
                f"{len(self.namespaces)} namespaces")


def _lines(path: str) -> list[dict[str, Any]]:
    entries = []
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError):  # a last line cut off by the crash
                entries.append(json.loads(line))
    return entries


def read(path: str) -> Leftover:
    """What the run directory records and still exists."""
    found = Leftover(path)
    for entry in _lines(f"{path}/owned"):
        if "owner" in entry:
            found.owner = entry["owner"]
            found.owner_alive = start_time(found.owner) == entry["started"]
        elif "pid" in entry:
            pid, started = entry["pid"], entry["started"]
            command = command_of(pid)  # a script's begins with its interpreter
            if started is not None and start_time(pid) == started and command.endswith(entry["command"]):
                found.processes.append((pid, command))
        elif "netns" in entry and netns.exists(entry["netns"]) and entry["netns"] not in found.namespaces:
            found.namespaces.append(entry["netns"])
            if entry.get("task"):
                found.tasks.append(entry["netns"])
    return found


def survey() -> list[Leftover]:
    """All run directories of this machine."""
    return [read(path) for path in sorted(glob.glob(f"{BASE}/{PREFIX}*")) if os.path.isdir(path)]


def remove(leftover: Leftover, grace: float = 3.0) -> None:
    """End the recorded processes (SIGTERM, then SIGKILL after `grace` seconds), remove namespaces and folder."""
    alive = dict(leftover.processes)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while alive and time.monotonic() < deadline:
            alive = {pid: command for pid, command in alive.items() if command_of(pid) == command}
            time.sleep(0.02)
        if not alive:
            break
    for name in leftover.tasks:
        for pid in host.processes_in(name):
            process = host.Process.of(pid)
            if process is not None:
                process.end(0)
    for name in leftover.namespaces:
        netns.run(["ip", "netns", "del", name], check=False)
    shutil.rmtree(leftover.path, ignore_errors=True)


def clean() -> list[Leftover]:
    """Remove what dead topologies left behind; returns what was removed."""
    removed = []
    for leftover in survey():
        if not leftover.owner_alive:
            remove(leftover)
            removed.append(leftover)
    return removed


def main() -> None:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m topologies.cleanup", description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="only say what there is")
    found = survey() if parser.parse_args().list else clean()
    for leftover in found:
        print(leftover)
    if not found:
        print("nothing left behind")


if __name__ == "__main__":
    main()
