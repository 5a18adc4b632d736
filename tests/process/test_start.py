"""`ryu-manager ryu_vmm` as a user starts it: from any folder, with a configuration file, ended by a signal."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]

ROOT = Path(__file__).parents[2]
NOISE = re.compile(r"Traceback|[Dd]eprecat|Warning|RLock|Exception ignored|uncaught exception")


@pytest.fixture
def configuration(tmp_path: Path) -> str:
    path = tmp_path / "vmm.conf"
    path.write_text(f"[vmm]\nstore = {tmp_path / 'vmm.sqlite'}\n")
    return str(path)


def health(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health", timeout=60) as reply:
        return dict(json.load(reply))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["root", "elsewhere"])
def test_starts_anywhere_and_ends_cleanly(
    ryu_manager: Start, configuration: str, tmp_path: Path, where: str, number: signal.Signals
) -> None:
    assert (ROOT / "ryu_vmm").is_dir()  # what stock Ryu stumbles over
    cwd = ROOT if where == "root" else tmp_path
    manager = ryu_manager("--config-file", configuration, "ryu_vmm", cwd=cwd)
    for port in (manager.ofp, manager.rest):
        manager.connect(port).close()
    assert health(manager.rest)
    assert (tmp_path / "vmm.sqlite").exists()
    assert manager.end(number) == 0
    assert not NOISE.search(manager.text)


def test_a_second_one_is_refused(ryu_manager: Start, configuration: str, tmp_path: Path) -> None:
    first = ryu_manager("--config-file", configuration, "ryu_vmm")
    for port in (first.ofp, first.rest):
        first.connect(port).close()
    other = tmp_path / "other.conf"
    other.write_text("[vmm]\nstore = :memory:\n")
    for option, port in (("--ofp-tcp-listen-port", first.ofp), ("--wsapi-port", first.rest)):
        second = ryu_manager("--config-file", str(other), option, str(port), "ryu_vmm")
        assert second.process.wait(60) == 1
        assert f"port {port} on 127.0.0.1 is in use, another controller?" in second.text.splitlines()
        assert not NOISE.search(second.text)
    assert health(first.rest)
    assert first.end() == 0
