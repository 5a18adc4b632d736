"""An overlay with an NVA, an agent on each NVE, clients in VMs, and a task that serves them."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from proof.lab import Lab

from topologies import VMSpec, VNSpec
from topologies.tasking import Agents, Clients, StreamTask

ADDRESSES = {4: "10.0.0.100/24", 6: "2001:db8::100/64"}
MAC = "02:00:00:00:01:00"  # of every task, one after the other: clients remember whose address that is
NVES = ("nve1", "nve2", "nve3")


def _client(number: int) -> VMSpec:
    return VMSpec(
        f"vm{number}", "vn1", f"nve{number}", f"02:00:00:00:00:{number:02x}", f"10.0.0.{number}/24",
        f"2001:db8::{number:x}/64",
    )  # fmt: skip


class TaskLab:
    """A context manager. Clients are on the second and third NVE; the task starts on the first.

    Args:
        underlay: ipv4 or ipv6.
        folder: for the NVA's files.
        times: of the agents (definition.Times).
        options: of the NVA.
    """

    def __init__(
        self, underlay: str = "ipv4", folder: Path | None = None, times: dict[str, float] | None = None, **options: Any
    ) -> None:
        self.lab = Lab(
            underlay, 3, [_client(2), _client(3)], [VNSpec("vn1", 100)], folder=folder, **{"quiet_time": 1.0, **options}
        )
        self._times = times or {}
        self._stack = contextlib.ExitStack()
        self.agents: Agents
        self._tasks = 0

    def __enter__(self) -> TaskLab:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.lab)
            self.agents = stack.enter_context(Agents(self.lab.net, self.lab.nva.base, **self._times))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            for name, agent in self.agents.on.items():
                words = agent.log.read_text(errors="replace") if agent.log.exists() else ""
                error.add_note(f"the agent of {name}:\n{words[-3000:]}")
        self._stack.__exit__(None if error is None else type(error), error, None)

    def task(self, families: tuple[int, ...] = (4, 6), rate: float = 20.0, size: int = 256) -> StreamTask:
        """A new task with addresses of these families, not run yet."""
        self._tasks += 1
        return StreamTask(
            self.agents, f"task{self._tasks}",
            [{"network": "vn1", "mac": MAC, "addresses": [ADDRESSES[one] for one in families]}], rate, size,
        )  # fmt: skip

    def clients(self, task: StreamTask, count: int, reconnect: bool = False, vms: tuple[str, ...] = ("vm2", "vm3"),
                rate: float = 20.0, size: int = 256) -> Clients:  # fmt: skip
        """Clients of a task: `count` connections from each VM to each of its addresses."""
        return Clients([self.lab.vm(vm) for vm in vms], task.addresses, count, rate, size, reconnect)


def onward(nve: str) -> str:
    """The NVE after one, round and round."""
    return NVES[(NVES.index(nve) + 1) % len(NVES)]


def say(text: str) -> None:
    """What is going on, to standard error."""
    print(f"tasks: {text}", file=sys.stderr, flush=True)
