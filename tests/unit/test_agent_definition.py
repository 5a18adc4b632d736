"""Files that people write for the agent, what a driver refuses, and what the agent never loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ryu_vmm.agent import criu
from ryu_vmm.agent.cli import main
from ryu_vmm.agent.definition import Configuration, TaskDefinition, load
from ryu_vmm.agent.faults import BadImage, Unsupported
from ryu_vmm.agent.nva import STEERED
from ryu_vmm.agent.records import Step
from ryu_vmm.agent.tasks import leg_of
from ryu_vmm.checking import check
from ryu_vmm.errors import InvalidInput
from ryu_vmm.model import MoveState
from ryu_vmm.schema import VmInput

ROOT = Path(__file__).parents[2]


def definition(**changes: Any) -> dict[str, Any]:
    one = {
        "network": "blue", "mac": "02:00:00:00:00:09", "addresses": ["10.1.1.9/32", "2001:db8::9/128"],
        "routes": [{"via": "169.254.1.1", "onlink": True}, {"via": "fe80::1", "onlink": True}],
    }  # fmt: skip
    return {"name": "web", "command": ["python3", "web.py"], "interfaces": [one], **changes}


def test_a_task_registers_as_the_nva_takes_it() -> None:
    task = check(TaskDefinition, definition())
    body = task.vm("nve1")
    assert check(VmInput, body).interfaces[0].ipv4 == ["10.1.1.9"]
    assert body["interfaces"][0]["port"] == "tk-web"


@pytest.mark.parametrize("name", ["a", "a-very-long-name-of-a-task", "x" * 63])
def test_port_names_fit_and_do_not_change(name: str) -> None:
    task = check(TaskDefinition, definition(name=name))
    port = task.port(task.interfaces[0])
    assert len(port) <= 15
    assert port == check(TaskDefinition, definition(name=name)).port(task.interfaces[0])


@pytest.mark.parametrize("wrong", [
    {"name": "a/b"}, {"command": []}, {"interfaces": []}, {"driver": "magic"}, {"directory": "here"}, {"more": 1},
    {"sysctls": {"kernel/panic": 1}}, {"sysctls": {"net/../kernel/panic": 1}},
    {"interfaces": [{"network": "blue", "mac": "02:00:00:00:00:09", "name": "eth0; reboot"}]},
    {"interfaces": [{"network": "blue", "mac": "02:00:00:00:00:09", "routes": [{"via": "x dev lo"}]}]},
])  # fmt: skip
def test_a_definition_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        check(TaskDefinition, definition(**wrong))


def test_addresses_that_change_keep_their_length() -> None:
    task = check(TaskDefinition, definition()).readdressed({"10.1.1.9": "10.1.2.7"})
    assert task.interfaces[0].addresses == ["10.1.2.7/32", "2001:db8::9/128"]


def test_a_leg_is_read_from_a_move() -> None:
    move = {"id": 4, "source": "nve1", "destination": "nve2"}
    assert leg_of(move, "nve1", Step.OPENED).policy == "keep"
    assert leg_of(move, "nve1", Step.OPENED).peer == "nve2"
    changes = [{"interface": "web/eth0", "old": "10.1.1.9", "new": "10.1.2.7"}]
    leg = leg_of({**move, "connections": None, "addresses": changes}, "nve2", Step.OPENED)
    assert (leg.policy, leg.peer, leg.changes) == ("drop", "nve1", {"10.1.1.9": "10.1.2.7"})
    assert leg_of({**move, "connections": "migrate"}, "nve1", Step.OPENED).policy == "migrate"


def test_the_agent_reads_a_moves_state_as_the_nva_means_it() -> None:
    assert set(STEERED) == {state.value for state in MoveState if state.steered}


def test_agents_must_know_each_other(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("nve: nve1\nlisten: 192.0.2.1\n")
    with pytest.raises(InvalidInput, match="know each other"):
        load(Configuration, path)
    path.write_text("nve: nve1\nlisten: 192.0.2.1\nsecret_file: /etc/secret\n")
    assert load(Configuration, path).port == 7420
    path.write_text("nve: [")
    with pytest.raises(InvalidInput, match="neither JSON nor YAML"):
        load(Configuration, path)


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    path.write_text('{"name": "web", "command": ["x"], "interfaces": [{"network": "blue", "mac": "zz"}]}')
    done = CliRunner().invoke(main, ["run", str(path)])
    assert done.exit_code == 6
    assert "mac" in done.output
    done = CliRunner().invoke(main, ["--run", str(tmp_path), "list"])
    assert done.exit_code == 1
    assert "no agent at" in done.output


def test_nothing_of_ryu_is_loaded_and_a_task_needs_the_standard_library_only() -> None:
    code = "import sys, ryu_vmm.agent.cli; print(*(m for m in sys.modules if m.split('.')[0] in ('ryu', 'eventlet')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
    code = "import ryu_vmm.agent.cooperate"
    environment = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-S", "-c", code], check=True, env=environment, cwd="/")


# --- CRIU -------------------------------------------------------------------------------------------------------------
def program(folder: Path, text: str) -> str:
    path = folder / "criu"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_criu_is_refused_in_its_own_words(tmp_path: Path) -> None:
    said = "Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds"
    with pytest.raises(Unsupported, match="Unexpected rt vDSO area bounds"):
        criu.Criu(program(tmp_path, f"echo '{said}' >&2; exit 1")).check()
    with pytest.raises(Unsupported, match="No such file"):
        criu.Criu(str(tmp_path / "nowhere")).check()
    criu.Criu(program(tmp_path, "echo Looks good.")).check()


def test_what_criu_is_asked_for(tmp_path: Path) -> None:
    words = criu.dump_words("criu", 42, tmp_path, 4026531840)
    assert words[:4] == ["criu", "dump", "--tree", "42"]
    assert {"--tcp-established", "--leave-stopped"} < set(words)
    assert words[words.index("--external") + 1] == "net[4026531840]:extRootNetNS"
    words = criu.restore_words("criu", tmp_path, 7, tmp_path / "pid")
    assert words[:2] == ["criu", "restore"]
    assert words[words.index("--inherit-fd") + 1] == "fd[7]:extRootNetNS"
    assert {"--restore-detached", "--leave-stopped", "--tcp-established"} < set(words)


def test_a_dump_of_criu_is_carried_and_nothing_else(tmp_path: Path) -> None:
    import io
    import tarfile

    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    (source / "core-1.img").write_bytes(b"core")
    (source / "dump.log").write_text("words")
    criu._unpack(criu._packed(source), target)
    assert [path.name for path in target.iterdir()] == ["core-1.img"]
    for name in ("../evil.img", "/evil.img", "evil.sh", ".img"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        with pytest.raises(BadImage):
            criu._unpack(file.getvalue(), target)
    with pytest.raises(BadImage):
        criu._unpack(b"no archive", target)
