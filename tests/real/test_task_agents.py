"""Agents with tokens of their own, and agents that come back in another mount namespace: one copy runs, and moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tasking.lab import TaskLab

from ryu_vmm.agent import host
from ryu_vmm.agent.faults import AgentError
from topologies.errors import ApiError
from topologies.rest import Rest
from topologies.rundir import wait_until

TIMES = {"peer": 4.0, "activated": 4.0, "task": 5.0, "ending": 2.0}


@pytest.fixture(scope="module")
def lab() -> Iterator[TaskLab]:
    with TaskLab(times=TIMES, secured=True) as made:
        yield made


def test_an_agents_token_is_good_for_its_moves_and_for_nothing_else(lab: TaskLab) -> None:
    """There and back, with connections; whoever has the third host's token sees and does nothing of it."""
    task = lab.task()
    with pytest.raises(AgentError, match="set register_vm to false"):
        task.run("nve1")
    lab.lab.nva.rest.call("POST", "/vms", {"name": task.name, "interfaces": [{
        "name": "eth0", "network": "vn1", "mac": task.definition["interfaces"][0]["mac"], "nve": "nve1",
        "port": f"tk-{task.name}", "ipv4": ["10.0.0.100"], "ipv6": ["2001:db8::100"],
    }]})  # fmt: skip
    task.definition["register_vm"] = False
    task.run("nve1")
    third = Rest(lab.lab.nva.base, token=Path(lab.tokens["nve3"]).read_text().strip())
    with lab.clients(task, 2, vms=("vm2",)):
        for source, to in (("nve1", "nve2"), ("nve2", "nve1")):
            report = task.moved(source, to)
            number = report["move"]
            assert report["connections"] == 4
            assert third.call("GET", "/moves")["items"] == []
            for method, path in (("GET", ""), ("POST", "/redirect"), ("POST", "/activate"), ("POST", "/abort")):
                with pytest.raises(ApiError, match="404"):
                    third.call(method, f"/moves/{number}{path}")
    for path in ("/nves/nve1", f"/vms/{task.name}"):
        with pytest.raises(ApiError, match="404"):
            third.call("GET", path)
    with pytest.raises(ApiError, match=r"404|409"):
        third.call("POST", "/moves", {"vm": task.name, "to": "nve3"})
    assert task.births() == 1
    assert task.overlaps() == []
    _removed(lab, task, "nve1")


def _removed(lab: TaskLab, task, nve: str) -> None:  # type: ignore[no-untyped-def]
    def stopped() -> bool:
        try:
            lab.agents[nve].ask("stop", task=task.name, remove=True)
        except AgentError as e:
            if "on the move" not in str(e):  # the agent has just started, and looks after it
                raise
            return False
        return True

    wait_until(stopped, 10, f"{task.name} to be stopped")
    lab.lab.nva.rest.call("DELETE", f"/vms/{task.name}")


def _running(lab: TaskLab, nve: str = "nve1"):  # type: ignore[no-untyped-def]
    task = lab.task()
    lab.lab.nva.rest.call("POST", "/vms", {"name": task.name, "interfaces": [{
        "name": "eth0", "network": "vn1", "mac": task.definition["interfaces"][0]["mac"], "nve": nve,
        "port": f"tk-{task.name}", "ipv4": ["10.0.0.100"], "ipv6": ["2001:db8::100"],
    }]})  # fmt: skip
    task.definition["register_vm"] = False
    task.run(nve)
    return task


def test_an_agent_in_another_mount_namespace_adopts_its_tasks_and_moves_them(lab: TaskLab) -> None:
    """Namespaces' names and the task's socket are not there for it: the task is, and so it is found by its process."""
    task = _running(lab)
    agent = lab.agents["nve1"]
    (only,) = task.ran()
    agent.stop()
    name = f"/run/netns/{agent.config['namespaces']}{task.name}"
    hide = f'umount {name} && mount -t tmpfs none {agent.config["run"]}/tasks && exec "$@"'
    agent.start("unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh")
    wait_until(lambda: agent.tasks()[task.name]["pid"] == only.pid, 10, "the task to be adopted")
    assert [one.pid for one in task.ran()] == [only.pid]
    with lab.clients(task, 2, vms=("vm2",)):
        assert task.moved("nve1", "nve2")["connections"] == 4
    assert task.births() == 1
    assert task.overlaps() == []
    wait_until(lambda: host.start_time(only.pid) is None, 10, "the end of the copy at the source")
    agent.stop()
    agent.start()
    _removed(lab, task, "nve2")


def test_what_no_record_knows_is_not_started_a_second_time(lab: TaskLab) -> None:
    task = _running(lab)
    agent = lab.agents["nve1"]
    (only,) = task.ran()
    agent.stop()
    shutil.move(f"{agent.config['state']}/tasks", f"{agent.config['state']}/hidden")
    agent.start()
    with pytest.raises(AgentError, match=f"runs here already, process {only.pid}, and this agent has no record"):
        agent.ask("run", definition=task.definition)
    assert only.running
    agent.stop()
    shutil.rmtree(f"{agent.config['state']}/tasks")
    shutil.move(f"{agent.config['state']}/hidden", f"{agent.config['state']}/tasks")
    path = Path(f"{agent.config['state']}/tasks/{task.name}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "process": None}))  # it died before it noted that
    agent.start()
    wait_until(lambda: agent.tasks()[task.name]["pid"] == only.pid, 10, "the task to be adopted")
    assert [one.pid for one in task.ran()] == [only.pid]
    _removed(lab, task, "nve1")
