"""Moves of a task with established connections: nothing lost, doubled or out of order; how long it stood still."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from .lab import TaskLab, onward


@dataclass
class Moves:
    """What came of some moves in a row."""

    families: tuple[int, ...]
    policy: str
    kind: str = "l2"
    connections: int = 0
    pauses: list[float] = field(default_factory=list)  # seconds from the freeze to the start elsewhere
    stall: float = 0.0  # the longest time that a client got nothing
    records: int = 0
    bytes: int = 0
    image: int = 0  # the largest
    errors: list[str] = field(default_factory=list)
    overlaps: int = 0
    ran: int = 0

    def problems(self) -> list[str]:
        """What should not be so."""
        found = list(self.errors[:5])
        if self.overlaps:
            found.append(f"two copies ran at once, {self.overlaps} times")
        if self.ran != len(self.pauses) + 1:
            found.append(f"{self.ran} copies ran in {len(self.pauses)} moves")
        return found

    def row(self) -> dict[str, Any]:
        """For a table."""
        ordered = sorted(self.pauses)
        return {
            "network": self.kind, "families": "+".join(f"IPv{one}" for one in self.families),
            "connections": self.connections,
            "policy": self.policy, "moves": len(self.pauses), "errors": len(self.errors),
            "records checked": self.records, "MB": round(self.bytes / 1e6, 1),
            "pause ms, median": round(ordered[len(ordered) // 2] * 1e3), "longest": round(ordered[-1] * 1e3),
            "longest silence at a client, ms": round(self.stall * 1e3), "largest image, kB": self.image // 1000,
        }  # fmt: skip


def moves(lab: TaskLab, families: tuple[int, ...], each: int, count: int, policy: str = "keep") -> Moves:
    """Move a task ``count`` times with ``each`` connections from each of two VMs to each of its addresses."""
    found = Moves(families, policy, lab.kind)
    task = lab.task(families)
    task.run("nve1")
    at = "nve1"
    with lab.clients(task, each) as clients:
        time.sleep(0.3)  # streams are under way
        for _ in range(count):
            to = onward(at)
            report = task.moved(at, to, connections=policy)
            found.pauses.append(report["pause"])
            found.image = max(found.image, report["bytes"])
            at = to
            time.sleep(0.2)
        for seen in clients.stop():
            found.connections += seen["connections"]
            found.records += seen["taken"] + seen["sent"]
            found.bytes += seen["bytes"]
            found.stall = max(found.stall, seen["stall"])
            found.errors += seen["errors"]
    found.overlaps, found.ran = len(task.overlaps()), len(task.ran())
    lab.agents[at].ask("stop", task=task.name, remove=True)
    return found


@dataclass
class Dropped:
    """What came of a move with the policy drop."""

    connections: int
    again: list[float]  # seconds from the reset to the next connection
    errors: list[str]
    reset: float  # seconds from the freeze to the last reset at a client
    pause: float  # seconds from the freeze to the start elsewhere

    def problems(self) -> list[str]:
        """What should not be so."""
        found = list(self.errors)
        if len(self.again) != self.connections:
            found.append(f"{len(self.again)} of {self.connections} connections were reset and opened again")
        return found


def drop(lab: TaskLab, families: tuple[int, ...], each: int) -> Dropped:
    """Move a task once, its connections closed at both ends; the clients open them again at once."""
    task = lab.task(families)
    task.run("nve1")
    with lab.clients(task, each, reconnect=True) as clients:
        time.sleep(0.3)
        report = task.moved("nve1", "nve2", connections="drop")
        time.sleep(1.0)  # streams go on
        seen = clients.stop()
    resets = [at for one in seen for at in one["resets"]]
    wrong = [text for one in seen for text in one["errors"] if "reset by peer" not in text]
    lab.agents["nve2"].ask("stop", task=task.name, remove=True)
    return Dropped(
        2 * each * len(families), [seconds for one in seen for seconds in one["again"]], wrong,
        max(resets, default=0.0) - report["marks"]["stopped"], report["pause"],
    )  # fmt: skip
