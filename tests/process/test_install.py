"""What a new user types, in a clean environment: `tools/install`, and an NVA that listens. Needs a package index.

With each Python that is found here; the summary names those that are not, as not tried.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

from topologies.ports import free_port

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13")
_PATIENCE = 900.0  # seconds; several installations at once: a loaded machine is slow, a hang is endless


class NotTried(UserWarning):
    """A Python that is not installed here; pytest's summary shows it."""


def interpreters() -> dict[str, str]:
    """The Pythons of those versions that run here: on the PATH, or where pyenv keeps them."""
    found = {}
    kept = sorted(Path.home().glob(".pyenv/versions/*/bin/python3"))
    for version in VERSIONS:
        for python in filter(None, [*map(str, kept), shutil.which(f"python{version}"), "/usr/bin/python3"]):
            words = [python, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout.strip() == version:
                found[version] = python
                break
    return found


def test_one_command_ends_with_a_running_nva(tmp_path: Path) -> None:
    """All Pythons at once: one test, so that parallel workers do not each install everything."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_CON", "PIP_BUILD", "PYTHON"))}
    env["PIP_NO_COMPILE"] = "1"  # each module that is used is compiled when it is
    installing = {}
    pythons = interpreters()
    for version in VERSIONS:
        if version not in pythons:
            warnings.warn(f"Python {version}: not tried, it is not installed here", NotTried, stacklevel=1)
            continue
        with (tmp_path / f"{version}.log").open("w") as log:
            words = [ROOT / "tools" / "install", "--python", pythons[version], tmp_path / version]
            installing[version] = subprocess.Popen(words, env=env, stdout=log, stderr=log)
    assert installing, f"no Python of {', '.join(VERSIONS)} is here"
    try:
        for version, child in installing.items():
            assert child.wait(_PATIENCE) == 0, (tmp_path / f"{version}.log").read_text()
            serves(tmp_path / version, tmp_path)
    finally:
        for child in installing.values():
            child.terminate()  # it ends what it has started
            child.wait(60)


def serves(folder: Path, work: Path) -> None:
    """Start the NVA that was installed there, ask it and end it."""
    conf = work / f"{folder.name}.conf"
    conf.write_text(f"[vmm]\nstore = {work / folder.name}.sqlite\n")
    openflow, rest = str(free_port()), free_port()
    manager = subprocess.Popen(
        [folder / "bin" / "ryu-manager", "--config-file", conf, "--ofp-tcp-listen-port", openflow,
         "--wsapi-port", str(rest), "ryu_vmm"],
        cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{rest}"
        assert answer(manager, f"{url}/v1/health")["status"] == "ok"
        told = subprocess.run([folder / "bin" / "vmm", "--url", url, "nve", "list"], capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
        assert told.returncode == 0, told.stderr
    finally:
        manager.send_signal(signal.SIGTERM)
        out, _ = manager.communicate(timeout=60)
    assert manager.returncode == 0, out
    assert "Traceback" not in out


def answer(manager: subprocess.Popen[str], url: str) -> dict[str, object]:
    """The document there, as soon as it is served."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return dict(json.load(reply))
        except (urllib.error.URLError, ConnectionError):
            assert manager.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline, "no answer within a minute"
            time.sleep(0.1)


def test_a_python_or_folder_that_will_not_do_is_said(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for words, says in (
        (["--python", "no-such-python"], "there is no no-such-python"),
        ([str(tmp_path / "there")], "no virtual environment"),
        (["--pyhton", sys.executable], "unknown option"),
    ):
        done = subprocess.run([ROOT / "tools" / "install", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert says in done.stderr
