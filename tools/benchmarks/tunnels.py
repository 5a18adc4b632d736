"""(g) What proving the tunnels all the time costs: packets, and the NVA's processor time, by the number of edges."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ryu_vmm.emulation.client import Emulation

from . import overlay
from .controller import Vmm
from .machine import SWITCHES_CPU
from .report import Part, number

SIZES = (3, 100, 1000)
CONNECT = 300.0
#: Seconds after the last edge was programmed, in which what is urgent may be proven before anything is measured.
_SETTLING = 3.0


def measure(quick: bool, say: Callable[[str], None]) -> Part:
    """The same edges at rest with probes and without: the difference is what they cost."""
    sizes, seconds = (SIZES[:2], 5.0) if quick else (SIZES, 20.0)
    rows, data = [], []
    for size in sizes:
        sent, answered, busy = _at_rest(size, seconds, say)
        _, _, idle = _at_rest(size, seconds, say, tunnel_rate=0)
        paths = size * (size - 1)
        say(f"{size} edges: {sent:.0f} probes/min, {busy:.2f} s/min of processor time, without {idle:.2f}")
        rows.append([
            number(size), number(paths), number(sent), number(answered), f"{busy:.2f}", f"{idle:.2f}",
            f"{paths / (sent / 60):.0f}" if sent else "-",
        ])
        data.append({"edges": size, "sent": sent, "answered": answered, "busy": busy, "idle": idle})
    notes = ["A guest on each edge, all in one network. Nothing else happens; per minute, of one processor."]
    columns = [
        "edges (emulated)", "paths", "probes sent/min", "answered/min", "processor time, s/min",
        "without probes, s/min", "until every path had its turn, s",
    ]
    return Part("tunnels", "What proving the tunnels costs", columns, rows, notes, {"sizes": data})


def _at_rest(size: int, seconds: float, say: Callable[[str], None], **options: object) -> tuple[float, float, float]:
    """Probes sent and answered, and seconds of processor time, for each minute."""
    guests = [overlay.Guest(n, n) for n in range(1, size + 1)]
    with tempfile.TemporaryDirectory(prefix="vmm-bench-") as folder, Vmm(Path(folder), **options) as vmm:
        vmm.register("nves", [overlay.nve_body(n) for n in range(1, size + 1)])
        vmm.register("networks", [overlay.network_body()])
        vmm.register("vms", [guest.body() for guest in guests])
        with Emulation(vmm.address, SWITCHES_CPU) as emulation:
            emulation.call("add", switches=[overlay.switch(n, guests) for n in range(1, size + 1)])
            emulation.call("ready", timeout=CONNECT, answer_within=CONNECT + 10)
            vmm.synchronised(size, CONNECT)
            emulation.call("quiet", idle=_SETTLING, timeout=CONNECT, answer_within=CONNECT + 10)
            say(f"{size} emulated NVEs connected and programmed")
            before, began = (*_probes(vmm), _processor(vmm.pid)), time.monotonic()
            time.sleep(seconds)
            after, lasted = (*_probes(vmm), _processor(vmm.pid)), time.monotonic() - began
    sent, answered, busy = ((b - a) * 60 / lasted for a, b in zip(before, after, strict=True))
    return sent, answered, busy


def _probes(vmm: Vmm) -> tuple[float, float]:
    text = vmm.http.get(f"http://127.0.0.1:{vmm.rest_port}/metrics").raise_for_status().text
    found = {"probes": 0.0, "answered": 0.0}
    for line in text.splitlines():
        for name in found:
            if line.startswith(f'vmm_occurrences_total{{name="tunnel.{name}"}}'):
                found[name] = float(line.rpartition(" ")[2])
    return found["probes"], found["answered"]


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
