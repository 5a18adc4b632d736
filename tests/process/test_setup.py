"""tools/setup on a machine that is not there: stand-ins for apt-get, dpkg and python record what they are asked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALL = [
    "openvswitch-switch", "mininet", "ethtool", "iproute2", "nftables", "iputils-ping", "tcpdump", "procps", "openssl",
    "python3-venv", "bind9",
]  # fmt: skip

APT_GET = """
echo "apt-get $*" >> "$STATE/calls"
[ ! -e "$STATE/offline" ] || { echo "Temporary failure resolving 'deb.debian.org'"; exit 100; }
case $1 in install) for word in "$@"; do echo "$word" >> "$STATE/packages"; done ;; esac
"""
DPKG_QUERY = """
status=0
for word in "$@"; do
  case $word in
    -* | *{*) ;;
    *) if grep -qx "$word" "$STATE/packages"; then echo "$word installed"; else status=1; fi ;;
  esac
done
exit $status
"""
DPKG = 'echo "dpkg $*" >> "$STATE/calls"; [ "$1" != --audit ] || [ ! -e "$STATE/torn" ] || cat "$STATE/torn"; '
DPKG += '[ "$1" != --configure ] || rm "$STATE/torn"'
ID = 'if [ "$1" = -u ] && [ -e "$STATE/user" ]; then echo 1000; else exec /usr/bin/id "$@"; fi'
PYTHON = """
case "$*" in
  -V) echo "Python 3.11.2"; exit ;;
  -c*) exit ;;
esac
echo "python $*" >> "$STATE/calls"
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *-e*)
    [ ! -e "$STATE/offline" ] || { echo "Failed to establish: [Errno -3] Temporary failure in name resolution"; exit 1; }
    [ ! -e "$STATE/slow" ] || { echo $$ > "$STATE/pid"; exec sleep 600; } ;;
esac
"""  # noqa: E501


class Machine:
    """A copy of the repository's set-up, and the machine it sees."""

    def __init__(self, folder: Path) -> None:
        self.repository, self.state = folder / "repository", folder / "state"
        shutil.copytree(ROOT / "tools", self.repository / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.cfg", "setup.py", "pyproject.toml"):
            shutil.copy(ROOT / name, self.repository)
        self.state.mkdir()
        self.have(ALL)
        (self.state / "calls").touch()
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        scripts = {"apt-get": APT_GET, "dpkg-query": DPKG_QUERY, "dpkg": DPKG, "id": ID, "python3": PYTHON}
        for name, text in scripts.items():
            (bin_folder / name).write_text("#!/bin/bash\n" + text)
            (bin_folder / name).chmod(0o755)
        self.environment = {
            "PATH": f"{bin_folder}:/usr/sbin:/usr/bin:/sbin:/bin",
            "STATE": str(self.state),
            "SETUP_PYTHON": str(bin_folder / "python3"),
        }

    def have(self, packages: list[str]) -> None:
        """These Debian packages are installed, of those we want."""
        (self.state / "packages").write_text("".join(f"{name}\n" for name in packages))

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.repository / "tools/setup", *args], env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def setup(self, *args: str) -> tuple[int, str]:
        """Its exit status and all it says."""
        with self.start(*args) as process:
            output, _ = process.communicate(timeout=30)
        return process.returncode, output

    def calls(self) -> list[str]:
        """What the stand-ins have been asked since the last time, without pip's longer arguments."""
        path = self.state / "calls"
        lines = path.read_text().splitlines()
        path.write_text("")
        return [line.replace(str(self.repository), "REPOSITORY") for line in lines]


PIP_TOOLS, PIP_ALL, PIP_US = "pip install pip==", "REPOSITORY[test]", "--no-deps -e REPOSITORY "


def kinds(calls: list[str]) -> list[str]:
    """Calls by kind: venv, tools, all, us, or as they are."""
    marks = {" -m venv ": "venv", PIP_TOOLS: "tools", PIP_ALL: "all", PIP_US: "us"}
    return [next((kind for mark, kind in marks.items() if mark in call), call) for call in calls]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    if not Path("/etc/debian_version").exists():
        pytest.fail("these tests expect Debian's /etc/os-release")
    return Machine(tmp_path)


def test_from_nothing_then_nothing_to_do(machine: Machine) -> None:
    status, output = machine.setup()
    assert status == 0, output
    assert kinds(machine.calls()) == ["venv", "tools", "all"]
    assert machine.setup() == (0, "setup: nothing to do\n")
    assert machine.setup("--quiet") == (0, "")
    assert machine.calls() == []


def test_only_what_is_missing_is_installed(machine: Machine) -> None:
    machine.have(ALL[2:])
    status, output = machine.setup()
    assert status == 0, output
    assert "apt-get install openvswitch-switch mininet\n" in output
    update, install = [call for call in machine.calls() if call.startswith("apt-get")]
    assert update.startswith("apt-get update")
    assert "--no-install-recommends" in install
    assert install.endswith(" openvswitch-switch mininet")


def test_a_machine_with_none_of_it(machine: Machine) -> None:
    machine.have([])
    assert machine.setup()[0] == 0
    (install,) = [call for call in machine.calls() if call.startswith("apt-get install")]
    assert install.endswith(" ".join(ALL))


def test_an_installation_torn_off_is_finished_first(machine: Machine) -> None:
    machine.have(ALL[1:])
    (machine.state / "torn").write_text("openvswitch-switch is half-configured\n")
    assert machine.setup()[0] == 0
    calls = machine.calls()
    assert calls.index("dpkg --configure -a") < min(i for i, c in enumerate(calls) if c.startswith("apt-get"))


def test_not_root_is_said_only_when_it_matters(machine: Machine) -> None:
    (machine.state / "user").touch()
    assert machine.setup()[0] == 0
    machine.have(ALL[1:])
    status, output = machine.setup()
    assert status == 1
    assert "not root, and these Debian packages are missing: openvswitch-switch (" in output
    assert machine.setup("--no-apt") == (0, "setup: nothing to do\n")


@pytest.mark.parametrize("packages", [ALL, ALL[1:]])
def test_no_network_is_said(machine: Machine, packages: list[str]) -> None:
    machine.have(packages)
    (machine.state / "offline").touch()
    status, output = machine.setup()
    assert status == 1
    assert "no network?" in output
    (machine.state / "offline").unlink()
    assert machine.setup()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_interrupted_it_starts_again(machine: Machine, number: signal.Signals) -> None:
    (machine.state / "slow").touch()
    pid_file = machine.state / "pid"
    with machine.start() as process:
        end = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text().endswith("\n")):
            assert time.monotonic() < end
            time.sleep(0.02)
        pip = int(pid_file.read_text())
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait(10)
            os.kill(pip, signal.SIGKILL)  # ours: nothing else could end it
        output, _ = process.communicate(timeout=20)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "not finished; run it again" in output
        assert not Path(f"/proc/{pip}").exists()
    (machine.state / "slow").unlink()
    machine.calls()
    status, output = machine.setup()
    assert status == 0
    assert "removing a half-made .venv" in output
    assert kinds(machine.calls()) == ["venv", "tools", "all"]


def test_a_change_is_followed_by_no_more_than_it_needs(machine: Machine) -> None:
    machine.setup()
    machine.calls()
    for name, text, expected in (
        ("setup.py", "\n# changed", ["us"]),
        ("tools/constraints.txt", "\n# changed", ["tools", "all"]),
        ("pyproject.toml", "\n# changed", []),
    ):
        with (machine.repository / name).open("a") as file:
            file.write(text)
        assert machine.setup()[0] == 0
        assert kinds(machine.calls()) == expected, name
    assert machine.setup() == (0, "setup: nothing to do\n")


def test_two_at_once_take_turns(machine: Machine) -> None:
    with machine.start() as first, machine.start() as second:
        outputs = [process.communicate(timeout=30)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0
    assert kinds(machine.calls()) == ["venv", "tools", "all"]
    assert sum("ready in" in output for output in outputs) == 1
    assert sum("nothing to do" in output for output in outputs) == 1


def test_an_unknown_option_is_refused(machine: Machine) -> None:
    status, output = machine.setup("--nonsense")
    assert status == 1
    assert "unknown option --nonsense" in output
    status, output = machine.setup("--help")
    assert status == 0
    assert "--no-apt" in output
