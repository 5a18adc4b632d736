"""`mn --custom topologies/overlay.py`: the overlay as Mininet's users know their topologies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from topologies.netns import NAMED
from topologies.rundir import BASE, wait_until

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"
OVERLAY, LAYER3 = TOPOLOGIES / "overlay.py", TOPOLOGIES / "layer3.py"
MN = Path(sys.executable).parent / "mn"


def mn(
    *arguments: str, cwd: Path | str = "/", script: str | None = None, custom: Path = OVERLAY
) -> tuple[subprocess.Popen[str], str]:
    """Run `mn` to its end, fed with CLI commands; the process and what it printed."""
    child = start(*arguments, cwd=cwd, custom=custom)
    out, _ = child.communicate(script, timeout=60)
    return child, out.replace("mininet> ", "")


def start(*arguments: str, cwd: Path | str = "/", custom: Path = OVERLAY) -> subprocess.Popen[str]:
    program = str(MN) if MN.exists() else "/usr/bin/mn"
    return subprocess.Popen(
        [sys.executable, program, "--custom", str(custom), *arguments], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )


def left_by(pid: int) -> list[str]:
    """Run folders and namespaces of a process's topologies."""
    folders = [name for name in os.listdir(BASE) if re.fullmatch(rf"ryu_vmm-{pid}(-\d+)?", name)]
    spaces = os.listdir(NAMED) if os.path.isdir(NAMED) else []
    return folders + [name for name in spaces if name.startswith(f"vmm{pid}-")]


def test_the_command_line_interface_moves_vms(tmp_path: Path) -> None:
    script = "\n".join([
        "nodes", "where", "move vm1 nve3 rarp unplanned", "py vm3.move('nve1', planned=False).destination", "where",
        "move vm9 nve1", "",
    ])
    child, out = mn("--topo", "overlay,nves=3,vms=6,vns=2,overlap=1,underlay=ipv6,rest=none", "--controller", "none",
                    cwd=tmp_path, script=script)
    assert child.returncode == 0, out
    assert "nve1 nve2 nve3 und vm1 vm2 vm3 vm4 vm5 vm6" in out
    assert "vm1: nve1 -> nve3, down for" in out
    assert "no VM 'vm9'" in out
    before, after = ({line.split()[0]: line.split() for line in block} for block in _where(out))
    assert [before[f"vm{n}"][2] for n in range(1, 7)] == ["nve1", "nve1", "nve2", "nve2", "nve3", "nve3"]
    assert (after["vm1"][2], after["vm3"][2], after["vm2"][2]) == ("nve3", "nve1", "nve1")
    assert before["vm1"][3:] == before["vm2"][3:]  # the same addresses in another network
    assert before["vm1"][1] != before["vm2"][1]
    assert left_by(child.pid) == []


def _where(out: str) -> tuple[list[str], list[str]]:
    lines = re.findall(r"^vm\d +vn\d .*$", out, re.MULTILINE)
    assert len(lines) == 12, out
    return lines[:6], lines[6:]


def test_a_topology_of_layer_3_has_what_its_file_says() -> None:
    script = "\n".join(["where", "cli2 ip route", "cli2 ip -6 route", "move mob1 nve3 none", ""])
    child, out = mn("--topo", "layer3,underlay=ipv6,routing=1,rest=none", "--controller", "none", script=script,
                    custom=LAYER3)
    assert child.returncode == 0, out
    assert re.search(r"^mob1 +mobile +nve1 +\S+ 10.2.1.1/32 2001:db8:5:2::1:1/128$", out, re.MULTILINE), out
    assert "default via 169.254.1.1 dev eth0 onlink" in out
    assert "default via fe80::1 dev eth0" in out
    assert "mob1: nve1 -> nve3, down for" in out
    assert left_by(child.pid) == []


def test_an_unreachable_nva_is_said_and_not_fatal() -> None:
    controller = "remote,ip=127.0.0.1,port=1"
    child, out = mn("--topo", "overlay,nves=1,vms=1,rest=none", "--controller", controller, script="exit\n")
    assert child.returncode == 0, out
    assert left_by(child.pid) == []


def test_a_bad_parameter_is_explained_and_leaves_nothing() -> None:
    child, out = mn("--topo", "overlay,nves=3,underlay=ipx", "--controller", "none")
    assert "underlay 'ipx' is not one of ipv4, ipv6, both" in out
    assert child.returncode == 1
    assert left_by(child.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_takes_down_its_own_and_nothing_else(number: signal.Signals, tmp_path: Path) -> None:
    program = shutil.copy("/bin/sleep", tmp_path / "ofprotocol")  # Mininet's own clean-up ends whatever has that name
    bystander = subprocess.Popen([program, "600"])
    try:
        child = start("--topo", "overlay,nves=2,vms=2,rest=none", "--controller", "none", "--test", "none", "--pre",
                      "/dev/stdin")
        wait_until(lambda: len(left_by(child.pid)) >= 6, 30, "the namespaces")
        child.send_signal(number)
        child.communicate(timeout=30)
        assert left_by(child.pid) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
