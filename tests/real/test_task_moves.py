"""Tasks move with their connections, on real switches, with an agent on each NVE; the scenarios of `tools/tasks`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tasking.lab import TaskLab
from tasking.moves import drop, moves

from ryu_vmm.agent.faults import AgentError
from topologies.errors import TopologyError
from topologies.rundir import wait_until
from topologies.tasking import Clients, StreamTask

TIMES = {"peer": 4.0, "activated": 4.0, "task": 5.0, "ending": 2.0}


@pytest.fixture(scope="module")
def lab() -> Iterator[TaskLab]:
    with TaskLab(times=TIMES) as made:
        yield made


@pytest.fixture
def task(lab: TaskLab) -> Iterator[StreamTask]:
    """A task that runs on nve1, and is removed wherever it is afterwards."""
    made = lab.task()
    made.run("nve1")
    yield made
    home = lab.agents.await_home(made.name)
    lab.agents[home].ask("stop", task=made.name, remove=True)


@pytest.mark.parametrize(
    ("underlay", "kind", "policy"), [("ipv4", "l2", "keep"), ("ipv6", "l2", "migrate"), ("both", "l3", "keep")]
)
def test_a_hundred_connections_go_through_ten_moves(
    underlay: str, kind: str, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Streams both ways on each, every record checked: none lost, none twice, none out of order.

    IPv4 and IPv6; in the network of layer 3, IPv4 by host routes and IPv6 by ILA.
    """
    with TaskLab(underlay, times=TIMES, kind=kind) as lab:
        found = moves(lab, (4, 6), 25, 10, policy)
    assert found.problems() == []
    assert (found.connections, len(found.pauses)) == (100, 10)
    assert found.records > 5000
    with capsys.disabled():
        print(f"\n{kind} over {underlay}: pauses {', '.join(f'{one * 1e3:.0f}' for one in found.pauses)} ms; "
              f"longest silence at a client {found.stall * 1e3:.0f} ms")


def test_dropped_connections_are_closed_at_once_and_opened_again_at_the_destination(lab: TaskLab) -> None:
    for family in (4, 6):
        found = drop(lab, (family,), 50)
        assert found.problems() == []
        assert found.reset < 5.0
        # an attempt that is lost would be repeated after 1 s; one made while nobody runs has to wait for that
        assert sorted(found.again)[len(found.again) // 2] < 0.9 + found.pause


def test_an_address_changes_with_the_host() -> None:
    """Old connections are reset at once, the old address is answered as its policy says, the new one serves."""
    with TaskLab("both", times=TIMES, kind="owned") as lab:
        task = lab.task()
        task.run("nve1")
        with lab.clients(task, 2) as clients:
            task.moved("nve1", "nve2", address="change")
            errors = [text for one in clients.stop() for text in one["errors"]]
        assert len(errors) == 8
        assert all("reset by peer" in text for text in errors)
        row = lab.agents["nve2"].tasks()[task.name]
        assert row["addresses"] == ["10.2.2.101/32", "2001:db8:2:2::101/128"]
        there = [text.partition("/")[0] for text in row["addresses"]]
        with Clients([lab.lab.vm("vm3")], there, 1) as clients:
            assert clients.stop()[0]["errors"] == []
        with pytest.raises(TopologyError, match="No route to host"):
            Clients([lab.lab.vm("vm3")], task.addresses, 1).start()
        task.moved("nve2", "nve1", address="change")
        row = lab.agents["nve1"].tasks()[task.name]
        assert [text.partition("/")[0] for text in row["addresses"]] == task.addresses
        assert task.births() == 1


def test_a_move_that_somebody_else_asks_for_is_carried_out(lab: TaskLab, task: StreamTask) -> None:
    with lab.clients(task, 1) as clients:
        move = lab.lab.post("/moves", {"vm": task.name, "to": "nve3"})
        lab.agents.await_home(task.name, "nve3")
        assert all(one["errors"] == [] for one in clients.stop())
    document = lab.lab.get(f"/moves/{move['id']}")
    assert document["state"] in ("steering", "draining", "settled")
    assert document["activated_by"] == "activate"


def test_a_move_whose_destination_has_no_agent_leaves_the_task_where_it_is(lab: TaskLab, task: StreamTask) -> None:
    process = lab.agents["nve1"].tasks()[task.name]["pid"]
    lab.agents["nve2"].stop()
    try:
        with lab.clients(task, 1, vms=("vm3",)) as clients:
            move = task.move("nve1", "nve2")
            wait_until(lambda: not lab.lab.get(f"/moves/{move['id']}")["open"], 10, "the end of the move")
            row = wait_until(lambda: lab.agents["nve1"].tasks()[task.name], 5, "the task")
            wait_until(lambda: lab.agents["nve1"].tasks()[task.name]["role"] == "home", 5, "the task at home")
            assert all(one["errors"] == [] for one in clients.stop())
    finally:
        lab.agents["nve2"].start()
    row = lab.agents["nve1"].tasks()[task.name]
    assert (row["pid"], row["role"]) == (process, "home")
    assert "nve2" in row["why"]
    assert lab.lab.get(f"/moves/{move['id']}")["state"] == "aborted"


def test_a_move_that_is_called_off_when_the_task_has_stopped_costs_nothing(lab: TaskLab, task: StreamTask) -> None:
    agent = lab.agents["nve1"]
    with lab.clients(task, 2) as clients:
        agent.ask("halt", at="send")
        move = task.move("nve1", "nve2")
        wait_until(lambda: agent.ask("list")["halted"] == "send", 10, "the task stopped")
        lab.lab.post(f"/moves/{move['id']}/abort")
        agent.ask("proceed")
        assert lab.agents.await_home(task.name) == "nve1"
        assert all(one["errors"] == [] for one in clients.stop())
    assert task.overlaps() == []
    assert task.births() == 1


def test_a_task_outlives_its_agent_and_is_adopted_by_the_next(lab: TaskLab, task: StreamTask) -> None:
    agent = lab.agents["nve1"]
    before = agent.tasks()[task.name]["pid"]
    with lab.clients(task, 1) as clients:
        agent.kill()
        time.sleep(0.2)
        agent.start()
        lab.agents.await_home(task.name, "nve1")
        assert agent.tasks()[task.name]["pid"] == before
        task.moved("nve1", "nve2")
        assert all(one["errors"] == [] for one in clients.stop())


def test_a_task_whose_process_dies_begins_anew(lab: TaskLab, task: StreamTask) -> None:
    agent = lab.agents["nve1"]
    before, ran = agent.tasks()[task.name]["pid"], len(task.ran())
    subprocess.run(["kill", "-KILL", str(before)], check=True)
    wait_until(lambda: agent.tasks()[task.name]["pid"] not in (before, None), 10, "another process")
    task.await_begun(ran + 1)
    assert task.births() == 2
    with lab.clients(task, 1) as clients:
        assert all(one["errors"] == [] for one in clients.stop())


def test_what_is_left_of_a_task_that_went_is_removed_in_time(lab: TaskLab, task: StreamTask) -> None:
    with lab.clients(task, 1) as clients:
        task.moved("nve1", "nve2")
        rules = subprocess.run(
            ["ip", "netns", "exec", f"{lab.agents['nve1'].config['namespaces']}{task.name}", "nft", "list", "ruleset"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        remembered = re.findall(r"10\.0\.0\.[23] \. \d+ \. 10\.0\.0\.100 \. 7000 timeout 10s", rules)
        assert len(remembered) == 2
        clients.stop()
    assert lab.agents["nve1"].tasks()[task.name]["role"] == "left"
    wait_until(lambda: task.name not in lab.agents["nve1"].tasks(), 20, "the end of the record")
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"{lab.agents['nve1'].config['namespaces']}{task.name}" not in left


def test_the_command_runs_lists_moves_and_stops(lab: TaskLab, tmp_path: Path) -> None:
    task = lab.task()
    file = tmp_path / "task.json"
    file.write_text(json.dumps(task.definition))

    def command(nve: str, *words: str) -> str:
        run = str(lab.agents[nve].config["run"])
        done = subprocess.run(
            [sys.executable, "-m", "ryu_vmm.agent", "--run", run, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "runs, process" in command("nve1", "run", str(file))
    assert task.name in command("nve1", "list")
    assert "is open" in command("nve1", "move", task.name, "nve2", "--connections", "keep")
    lab.agents.await_home(task.name, "nve2")
    with pytest.raises(AgentError, match="does not run here"):
        task.move("nve1", "nve3")
    assert "has ended" in command("nve2", "stop", task.name, "--remove")
    assert task.name not in lab.agents["nve2"].tasks()
