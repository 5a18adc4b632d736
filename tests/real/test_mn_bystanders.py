"""Whatever goes wrong in `mn` with a topology of ours, other people's processes live on, and it ends with a status.

Each runs in a process and mount namespace of its own: what this looks for would otherwise kill on the whole machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MN = Path(sys.executable).parent / "mn"
NAMES = ("ryu-manager", "ping", "controller", "ofprotocol")  # some of those that Mininet's clean-up ends

#: $1 a folder with harmless programs of those names; the rest is mn's. Says its status, who lives, and what is left.
SCRIPT = """
mount -t tmpfs tmpfs /run && mkdir /run/netns
folder=$1 when=$2; shift 2
for name in $(cat "$folder/names"); do "$folder/$name" 600 & pids="$pids $name:$!"; done
env --default-signal=INT "$@" < "$folder/script" &
mn=$!
if [ "$when" = interrupt ]; then
  until [ -n "$(ls /run/netns)" ] || ! kill -0 $mn; do sleep 0.05; done
  kill -INT $mn
fi
wait $mn; echo "status=$?"
for one in $pids; do kill -0 "${one#*:}" && echo "lives=${one%%:*}"; done
echo "left=$(ls /run/netns | tr '\\n' ' ')$(ls -d /run/ryu_vmm-* 2>/dev/null | tr '\\n' ' ')"
"""

SMALL = "overlay,nves=1,vms=1,rest=none"
BROKEN_STOP = "py setattr(type(net.lab), 'close', lambda lab: 1 // 0)\n"


@pytest.mark.parametrize(("what", "arguments", "status", "says"), [
    ("a bad argument", ["--topo", "overlay,nves=many", "--controller", "none"], 1, "nves: 'many' is not a number"),
    ("a misspelt argument", ["--topo", "overlay,nvs=3", "--controller", "none"], 1, "no parameter nvs; there are nves"),
    ("an unknown topology", ["--topo", "nosuch", "--controller", "none"], 1, "nosuch"),
    ("an unknown controller", ["--topo", SMALL, "--controller", "nosuch"], 1, "nosuch"),
    ("an unknown switch", ["--topo", SMALL, "--switch", "nosuch", "--controller", "none"], 1, "nosuch"),
    ("start", ["--topo", SMALL, "--controller", "none"], 1, "ovsdb-tool"),
    ("an unknown test", ["--topo", SMALL, "--controller", "none", "--test", "nosuch"], 1, "nosuch"),
    ("stop", ["--topo", SMALL, "--controller", "none"], 1, "ZeroDivisionError"),
    ("interrupt", ["--topo", SMALL, "--controller", "none"], 130, ""),
    ("nothing", ["--topo", SMALL, "--controller", "none"], 0, ""),
], ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "")  # fmt: skip
def test_bystanders_live_and_the_status_tells(
    tmp_path: Path, what: str, arguments: list[str], status: int, says: str
) -> None:
    for name in NAMES:
        shutil.copy("/bin/sleep", tmp_path / name)
    (tmp_path / "names").write_text(" ".join(NAMES))
    (tmp_path / "script").write_text(BROKEN_STOP if what == "stop" else "")
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    if what == "start":
        (fakes / "ovsdb-tool").symlink_to("/bin/false")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "sh", "-c", SCRIPT, "sh",
         str(tmp_path), what, "env", f"PATH={fakes}:/usr/sbin:/usr/bin:/sbin:/bin", sys.executable, str(MN), "--custom",
         str(ROOT / "topologies" / "overlay.py"), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    told = done.stdout.splitlines()
    assert f"status={status}" in told, done.stdout
    assert {f"lives={name}" for name in NAMES} <= set(told), done.stdout
    assert says in done.stdout
    if what != "stop":
        assert "left=" in told, done.stdout
