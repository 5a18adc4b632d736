"""The stream task on an overlay, and its account: which of its processes ran when."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ryu_vmm.agent import host
from topologies.helper import ROOT
from topologies.rundir import wait_until
from topologies.tasking.agents import Agents

PORT = 7000


@dataclass
class Ran:
    """A time in which one process of a task ran, CLOCK_MONOTONIC seconds. `until`: its last sign of life."""

    pid: int
    since: float
    until: float
    frozen: bool = False  # it ended because the task was frozen

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return not self.frozen and host.start_time(self.pid) is not None


class StreamTask:
    """A task that serves checked streams.

    Args:
        agents: of the overlay.
        name: of the task.
        definition: `interfaces`, as definition.TaskDefinition has them.
        rate, size: records per second on each connection and their bytes, both ways.
    """

    def __init__(
        self, agents: Agents, name: str, interfaces: list[dict[str, Any]], rate: float = 20.0, size: int = 256
    ) -> None:
        self.agents, self.name = agents, name
        folder = Path(agents.net.lab.run.folder(f"task-{name}"))
        self.beats = folder / "beats"
        self.beats.mkdir()
        config = folder / "config.json"
        config.write_text(json.dumps({"port": PORT, "rate": rate, "size": size, "beats": str(self.beats)}))
        self.rate, self.size = rate, size
        self.definition = {
            "name": name, "command": [sys.executable, "-S", "-m", "topologies.tasking.server", str(config)],
            "environment": {"PYTHONPATH": ROOT}, "interfaces": interfaces,
        }  # fmt: skip
        for nve in agents.net.nves:  # what is left there if we are killed is found by its record
            agents.net.lab.run.note(netns=f"{agents[nve.name].config['namespaces']}{name}", task=True)
        self.addresses = [a.partition("/")[0] for one in interfaces for a in one["addresses"]]

    def run(self, nve: str) -> dict[str, Any]:
        """Start it on an NVE and wait until it serves. Raises AgentError, NotReady."""
        before = len(self.ran())
        answer = self.agents[nve].ask("run", definition=self.definition)
        self.await_begun(before + 1)  # the agent's word is that there is a process; it has yet to listen
        return answer

    def await_begun(self, times: int, seconds: float = 20.0) -> None:
        """Wait until it has begun to run so many times, with its sockets. Raises NotReady."""
        wait_until(lambda: len(self.ran()) >= times, seconds, f"{self.name} to run, time {times}")

    def move(self, source: str, to: str, **policy: Any) -> dict[str, Any]:
        """Have it moved; the move's document as it is opened."""
        return self.agents[source].ask("move", task=self.name, to=to, **policy)

    def moved(self, source: str, to: str, seconds: float = 15.0, **policy: Any) -> dict[str, Any]:
        """Have it moved and wait until it runs there and the source knows; the source's report."""
        number = self.move(source, to, **policy)["id"]
        self.agents.await_home(self.name, to, seconds)

        def report() -> dict[str, Any] | None:
            row = self.agents[source].tasks().get(self.name)
            reports = [one for one in (row or {}).get("reports", []) if one["move"] == number]
            return reports[-1] if reports else None

        found: dict[str, Any] = wait_until(report, 5, f"the report of move {number}")
        return found

    def ran(self) -> list[Ran]:
        """The times in which its processes ran, in order."""
        found = []
        for path in self.beats.iterdir():
            current: Ran | None = None
            for line in path.read_text().splitlines():
                at, _, what = line.partition(" ")
                if what not in ("run", "beat", "stop"):
                    continue  # or cut off by a kill
                if what == "run" or current is None:
                    current = Ran(int(path.name), float(at), float(at))
                    found.append(current)
                current.until = float(at)
                if what == "stop":
                    current.frozen, current = True, None
        return sorted(found, key=lambda one: one.since)

    def births(self) -> int:
        """How many of its processes began anew, from its definition."""
        return sum("anew" in path.read_text() for path in self.beats.iterdir())

    def overlaps(self) -> list[tuple[Ran, Ran]]:
        """Times in which two of its processes ran at once: there must be none."""
        ran = self.ran()
        return [(a, b) for a, b in itertools.pairwise(ran) if b.since < a.until]
