"""``vmm`` against a served runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from live import LiveRuntime, serving

from ryu_vmm import inventory
from ryu_vmm.cli.root import vmm as command
from ryu_vmm.rest import make_app

LAB = """
nves:
- {name: nve1, dpid: 0000000000000001, ipv4: 192.168.100.1}
- {name: nve2, dpid: 0000000000000002, ipv4: 192.168.100.2}
- {name: nve3, dpid: 0000000000000003, ipv4: 192.168.100.3}
networks:
- {name: blue, vni: 100, policy: {mtu: 1400}}
vms:
- name: web-1
  interfaces:
  - {name: eth0, network: blue, mac: 02:00:00:00:00:01, ipv4: [10.0.0.1], ipv6: [2001:db8::1], nve: nve1,
     port: tap-1, attachments: [{nve: nve2, port: tap-1}]}
- name: web-2
  interfaces:
  - {name: eth0, network: blue, mac: 02:00:00:00:00:02, ipv4: [10.0.0.2], nve: nve2, port: tap-2}
"""


class Nva:
    """A served runtime, and ``vmm`` against it."""

    def __init__(self, runtime: LiveRuntime, url: str) -> None:
        self.runtime, self.url = runtime, url

    def run(self, line: str, code: int = 0) -> Result:
        result = CliRunner(env={"VMM_URL": self.url}).invoke(command, line.split(), catch_exceptions=False)
        assert result.exit_code == code, (line, result.exit_code, result.output)
        return result

    def json(self, line: str, code: int = 0) -> Any:
        return json.loads(self.run(f"{line} --json", code).stdout)


@pytest.fixture
def nva(runtime: LiveRuntime) -> Iterator[Nva]:
    with serving(make_app(runtime)) as url:
        yield Nva(runtime, url)


@pytest.fixture
def lab(nva: Nva) -> Nva:
    """Three connected NVEs, network blue, web-1 on nve1 and web-2 on nve2."""
    inventory.apply(nva.runtime, inventory.parse(LAB))
    for n in (1, 2, 3):
        nva.runtime.connect(f"nve{n}", f"tap-{n}")
    return nva
