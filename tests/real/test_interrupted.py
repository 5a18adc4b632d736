"""Interrupted runs: everything goes with the program where it can, and what cannot is found and removed later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from topologies import cleanup
from topologies.netns import NAMED
from topologies.rundir import command_of, wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = """
import signal, sys, time
# what starts the tests may ignore these (nohup, a shell's background job), and its children would, too
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
from topologies import OverlayNet
net = OverlayNet(nves=2, vms=2, controller=None)
net.start()
net.lab.relay.ask("counts")
print(net.run_dir, flush=True)
time.sleep(600)
"""


def started() -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL, start_new_session=True,
    )
    assert child.stdout is not None
    path = child.stdout.readline().strip()
    assert os.path.isdir(path)
    return child, path


def remains(found: cleanup.Leftover) -> list[str]:
    """What of a run still exists."""
    processes = [command for pid, command in found.processes if command_of(pid) == command]
    return processes + [name for name in found.namespaces if os.path.exists(f"{NAMED}/{name}")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_polite_signal_takes_everything_down(number: signal.Signals) -> None:
    child, path = started()
    found = cleanup.read(path)
    assert len(found.processes) == 6
    assert len(found.namespaces) == 5
    child.send_signal(number)
    child.communicate(timeout=30)
    assert remains(found) == []
    assert not os.path.exists(path)


def test_a_killed_run_is_cleaned_up_afterwards_and_only_that() -> None:
    bystander, beside = started()
    child, path = started()
    try:
        found = cleanup.read(path)
        assert found.owner_alive
        assert path not in [one.path for one in cleanup.clean()]  # its owner lives: not touched
        assert len(remains(found)) == 11
        child.kill()
        child.communicate(timeout=30)
        # the helpers notice by themselves, the daemons do not
        wait_until(lambda: len(cleanup.read(path).processes) == 4, 10, "the helpers' end")
        listed = subprocess.run(
            [sys.executable, "-m", "topologies.cleanup", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert f"{path}: left behind" in listed
        assert f"{beside}: in use" in listed
        assert path in [one.path for one in cleanup.clean()]
        assert remains(found) == []
        assert not os.path.exists(path)
        assert len(remains(cleanup.read(beside))) == 11
    finally:
        bystander.terminate()
        bystander.communicate(timeout=30)
        child.kill()
        cleanup.clean()
    assert not os.path.exists(beside)


def test_a_process_that_only_has_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    innocent = subprocess.Popen(["sleep", "600"])
    try:
        lines = [
            '{"owner": 1, "started": 1}',
            f'{{"pid": {innocent.pid}, "started": 1, "command": "sleep 600"}}',  # another start time
            f'{{"pid": {innocent.pid}, "started": {cleanup.start_time(innocent.pid)}, "command": "ovs-vswitchd"}}',
            '{"netns": "no-such-namespace"}',
            '{"pid": 12',  # cut off
        ]
        (tmp_path / "owned").write_text("\n".join(lines))
        found = cleanup.read(str(tmp_path))
        assert not found.owner_alive
        assert found.processes == []
        assert found.namespaces == []
        cleanup.remove(found)
        assert not tmp_path.exists()
        time.sleep(0.1)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
