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


INVENTORY = """\
nves:
  - {name: nve1, dpid: "0x1", ipv4: 192.0.2.1}
networks:
  - {name: blue, vni: 100}
vms:
  - {name: vm1, interfaces: [{name: eth0, network: blue, mac: "02:00:00:00:00:01", nve: nve1, port: tap1}]}
  - {name: vm2, interfaces: [{name: eth0, network: blue, mac: "02:00:00:00:00:01", nve: nve1, port: tap2}]}
"""


def test_an_inventory_is_read_at_every_start_and_undoes_nothing(ryu_manager: Start, tmp_path: Path) -> None:
    """What clashes in it is told, and keeps nobody away; what was removed by request stays removed."""
    (tmp_path / "lab.yaml").write_text(INVENTORY)
    path = tmp_path / "vmm.conf"
    path.write_text(f"[vmm]\nstore = {tmp_path / 'vmm.sqlite'}\ninventory = {tmp_path / 'lab.yaml'}\n")
    for names in (["vm1"], []):
        manager = ryu_manager("--config-file", str(path), "ryu_vmm")
        manager.connect(manager.rest).close()
        with urllib.request.urlopen(f"http://127.0.0.1:{manager.rest}/v1/vms", timeout=60) as reply:
            assert [vm["name"] for vm in json.load(reply)["items"]] == names
        told = health(manager.rest)
        if names:
            (line,) = told["inventory"]
            assert line.startswith(f"{tmp_path / 'lab.yaml'}:7: vms[1]: MAC 02:00:00:00:00:01")
            assert told["status"] == "degraded"
            assert f"not taken: {line}" in manager.text
            for name in ("vms/vm1", "networks/blue", "nves/nve1"):
                url = f"http://127.0.0.1:{manager.rest}/v1/{name}"
                urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=60).close()
        else:
            assert "there is no network blue" in told["inventory"][0]
        assert manager.end() == 0
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
