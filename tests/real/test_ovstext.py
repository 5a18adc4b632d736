"""ovs-ofctl as the judge of flows in its own notation: what is written is the flow that was meant."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from test_wire_ovs import MASKED, PLAUSIBLE, SETTABLE, WHOLE, Switch

from ryu_vmm import ovstext
from ryu_vmm.flows import Flow, Output, SetField

pytestmark = pytest.mark.real

FLOWS = {
    **{f"match {name}": Flow(3, 7, on, (Output(2),), cookie=0xC0FFEE) for name, on in (PLAUSIBLE | MASKED).items()},
    **{f"set {name}": Flow(0, 7, on, (SetField(name, value), Output(3))) for name, (value, on) in SETTABLE.items()},
    **WHOLE,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    switch = Switch(tmp_path_factory.mktemp("ovs"), f"text-{os.getpid()}")
    try:
        switch.start()
        yield switch
    finally:
        switch.stop()


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_written_down_is_that_flow(running: Switch, name: str) -> None:
    flow = FLOWS[name]
    running.clear()
    target = f"unix:{running.folder}/br-int.mgmt"
    command = ["ovs-ofctl", "-OOpenFlow13", "add-flow", target, ovstext.describe(flow)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, (ovstext.describe(flow), done.stderr)
    assert [stats.flow for stats in running.read()] == [flow]
