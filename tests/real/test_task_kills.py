"""Agents, hosts and the NVA killed in the middle of a task's move: always exactly one copy runs; see `tools/tasks`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tasking import matrix
from tasking.lab import TaskLab

TIMES = {"peer": 4.0, "activated": 4.0, "task": 5.0}
#: Of the 25 that `tools/tasks --only matrix` runs: for each who dies, those steps between which something is decided.
CELLS = [
    ("source agent", "stop"), ("source agent", "send"), ("source agent", "start"),
    ("destination agent", "package"), ("destination agent", "instantiate"), ("destination agent", "start"),
    ("source host", "send"), ("source host", "instantiate"),
    ("destination host", "instantiate"), ("destination host", "start"),
    ("destination agent", "run"), ("destination host", "run"),
    ("NVA", "stop"), ("NVA", "send"), ("NVA", "start"),
]  # fmt: skip


@pytest.fixture(scope="module")
def grounds() -> Iterator[dict[str, object]]:
    """The overlay, the task in it, and where that is now."""
    with TaskLab(times=TIMES) as lab:
        task = lab.task((4, 6))
        task.run("nve1")
        yield {"lab": lab, "task": task, "at": "nve1"}


@pytest.mark.parametrize(("victim", "step"), CELLS)
def test_exactly_one_copy_runs_whoever_is_killed(grounds: dict[str, object], victim: str, step: str) -> None:
    lab, task, at = grounds["lab"], grounds["task"], grounds["at"]
    found, grounds["at"] = matrix.cell(lab, task, at, victim, step)  # type: ignore[arg-type]
    assert found.problems() == []
