"""Whose a process is: an agent that cannot tell starts no second copy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ryu_vmm.agent import host
from ryu_vmm.agent.agent import Agent
from ryu_vmm.agent.definition import Configuration, TaskDefinition
from ryu_vmm.agent.faults import AgentError
from ryu_vmm.agent.records import Journal, Record, Role, Started
from ryu_vmm.agent.tasks import Tasks


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    secret.chmod(0o600)
    return Configuration(
        nve="nve1", listen="127.0.0.1", port=0, secret_file=str(secret), state=str(tmp_path / "state"),
        run=str(tmp_path / "run"), namespaces=f"t{os.getpid()}-",
    )  # fmt: skip


DEFINITION = TaskDefinition.model_validate(
    {"name": "web", "command": ["true"], "interfaces": [{"network": "blue", "mac": "02:00:00:00:00:09"}]}
)


def running(mark: tuple[str, str], leader: bool = True) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; print(1, flush=True); time.sleep(600)"], stdout=subprocess.PIPE,
        env={**os.environ, mark[0]: mark[1]}, start_new_session=leader,
    )  # fmt: skip


@pytest.fixture
def stray(configuration: Configuration) -> Iterator[subprocess.Popen[bytes]]:
    """A process of task web that no record knows, and a child of such a one."""
    mark = Tasks(configuration).cell("web").mark
    processes = [running(mark), running(mark, leader=False), running((mark[0], "nve2/other"))]
    for one in processes:
        assert one.stdout is not None
        one.stdout.readline()
    yield processes[0]
    for one in processes:
        one.kill()
        one.wait()


def test_a_task_is_found_by_its_process(configuration: Configuration, stray: subprocess.Popen[bytes]) -> None:
    found = Tasks(configuration).stray("web")
    assert found is not None
    assert found.pid == stray.pid
    assert Tasks(configuration).stray("web2") is None


def test_what_runs_here_is_not_run_again(configuration: Configuration, stray: subprocess.Popen[bytes]) -> None:
    with pytest.raises(AgentError, match=rf"web runs here already, process {stray.pid}") as refusal:
        Agent(configuration).run(DEFINITION)
    assert str(configuration.state) in refusal.value.message
    assert stray.poll() is None


def record(tasks: Tasks, **changes: Any) -> Record:
    mine = host.Process.of(os.getpid())
    assert mine is not None
    process = tasks.started(mine).model_copy(update=changes)
    return tasks.put(Record(definition=DEFINITION, role=Role.HOME, process=process))


def test_a_process_that_cannot_be_seen_is_not_started_again(configuration: Configuration) -> None:
    tasks = Tasks(configuration)
    assert tasks.process(record(tasks)) is not None
    unseen = record(tasks, sight=1)
    assert tasks.hidden(unseen)
    assert tasks.process(unseen) is None
    with pytest.raises(AgentError, match=r"another PID namespace .* no second copy is started"):
        tasks.begin(DEFINITION)
    assert not tasks.hidden(record(tasks, sight=1, boot="before"))  # that boot is over, and all that ran in it


def test_records_of_an_older_agent_are_read() -> None:
    old = Started.model_validate({"pid": 1, "started": 2, "boot": "x"})
    assert not old.hidden("x")


def test_two_agents_do_not_share_their_records(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.claim()
    with pytest.raises(AgentError, match=rf"another agent \(process {os.getpid()}\) has the records"):
        second.claim()
    first.release()
    second.claim()
    second.release()


def test_a_name_that_leads_nowhere_is_no_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As another mount namespace leaves it: an empty file."""
    monkeypatch.setattr(host.namespaces, "NAMED", tmp_path)
    (tmp_path / "web").touch()
    assert not host.is_named("web")
    assert not host.leads_to("web", "self")
    (tmp_path / "real").symlink_to("/proc/self/ns/net")
    assert host.is_named("real")
    assert host.leads_to("real", "self")
