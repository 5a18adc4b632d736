"""Moves between three real NVEs, with Open vSwitch daemons of their own, each in its namespace."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from .controller import BenchError, Vmm
from .report import milliseconds


def impossible() -> str:
    """Why this cannot be measured here; empty if it can."""
    if os.geteuid():
        return "not root"
    if shutil.which("ovs-vswitchd") is None:
        return "no Open vSwitch"
    return ""


def run(count: int, say: Callable[[str], None]) -> list[dict[str, float]]:
    """``count`` planned hot moves of VMs around three NVEs; times from each move's ledger, in seconds."""
    from topologies import OverlayNet
    from topologies.errors import TopologyError

    times = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="vmm-bench-") as folder,
            Vmm(Path(folder)) as vmm,
            OverlayNet(nves=3, vms=6, controller=vmm.address, rest=f"http://127.0.0.1:{vmm.rest_port}") as net,
        ):
            net.wait_for_nva()
            net.register()
            for n in range(count):
                vm = net.vm(f"vm{1 + n % 3}")
                destination = f"nve{int(vm.nve.name.removeprefix('nve')) % 3 + 1}"
                report = vm.move(destination, settle=30)
                document = vmm.get(f"/moves/{report.move}")
                times.append(
                    {
                        "ledger": max(document["ledger"]["barriers"].values()),
                        "prepare": report.times["prepared"] - report.times["requested"],
                        "redirect": report.times["redirect_in_force"] - report.times["notified"],
                    }
                )
                say(f"3 real NVEs, move {n + 1}: {milliseconds(times[-1]['ledger'])} ms")
    except TopologyError as error:
        raise BenchError(f"real NVEs: {error}") from error
    return times
