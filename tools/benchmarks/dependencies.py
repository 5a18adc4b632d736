"""(h) What it would cost to record what each unit of flows reads, instead of declaring it (dependencies.py).

A prototype of the recording: whatever a unit looks at is noted when it is computed, by cell, so that a change finds the
units that have read it. It is the recorder of the tests (tests/unit/reading.py), which needs nothing declared.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median

from ryu_vmm import events as ev
from ryu_vmm.effects import Program
from ryu_vmm.model import Interface, Network, Nve, Place, Port, Session
from ryu_vmm.nva import Nva
from ryu_vmm.pipeline import desired, units_of

from .report import Part, milliseconds, number

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "unit"))
import reading

SIZES = (10, 100, 1000)
#: NVEs whose units are recorded; all of them do not fit into memory.
SAMPLE = 10


def measure(quick: bool, say: Callable[[str], None]) -> Part:
    """A network with so many members, one guest at each: a step of the core, and what recording adds."""
    rows, data = [], []
    for size in SIZES[:2] if quick else SIZES:
        nva, now = _overlay(size)
        step = _step(nva, now)
        state = nva.state
        nves = list(state.sessions)[: SAMPLE if size <= 100 else 1]
        units = sum(len(set(units_of(state, nve))) for nve in nves)
        began = time.process_time()
        for nve in nves:
            desired(state, nve)
        plain = (time.process_time() - began) / units
        gc.collect()
        tracemalloc.start()
        before, began = tracemalloc.get_traced_memory()[0], time.process_time()
        kept: dict[object, set[object]] = {}
        for nve in nves:
            for unit in set(units_of(state, nve)):
                for cell in reading.cells(state, nve, unit):
                    kept.setdefault(cell, set()).add((nve, unit))
        recording = (time.process_time() - began) / units
        per_unit = (tracemalloc.get_traced_memory()[0] - before) / units
        tracemalloc.stop()
        whole = per_unit * units / len(nves) * size
        say(f"{size} members: a step {step * 1e3:.1f} ms, {per_unit:.0f} bytes per unit, {whole / 2**20:.0f} MiB")
        rows.append([
            number(size), number(units / len(nves)), milliseconds(step), f"{plain * 1e6:.0f}",
            f"{recording * 1e6:.0f}", number(per_unit), number(whole / 2**20),
        ])
        data.append({"members": size, "step": step, "plain": plain, "recording": recording, "bytes": per_unit})
        kept.clear()
    columns = [
        "members", "units per NVE", "registering an address anew, ms", "computing a unit, µs", "recording it, µs",
        "bytes per unit", "for all NVEs, MiB",
    ]  # fmt: skip
    notes = [
        "One network of Ethernet, a guest at each NVE. The third column is a whole step of the core as it is, with "
        f"what it touches derived from declarations. Recording is of up to {SAMPLE} NVEs; the last column is what all "
        "of them would keep. Time is of the processor; recording's is that of the tests' recorder, which computes each "
        "unit twice, and of accounting for memory: an upper bound."
    ]
    return Part("dependencies", "Recording what flows are computed from", columns, rows, notes, {"sizes": data})


def _overlay(size: int) -> tuple[Nva, float]:
    """An NVA that knows so many edges, which are there and in sync without having been told anything."""
    nva, now = Nva(), 1000.0
    nva.handle(ev.NetworkSubmitted(Network("blue", 100)), now)
    for n in range(1, size + 1):
        nva.handle(ev.NveSubmitted(Nve(f"n{n}", n, b"\x0a\0" + n.to_bytes(2, "big"))), now)
        nva.state.begin()
        nva.state.put("ports", (f"n{n}", "tap"), Port(f"n{n}", "tap", 10))
    nva.handle_all([ev.VmSubmitted(f"vm{n}", (_guest(n, n),)) for n in range(1, size + 1)], now)
    for n in range(1, size + 1):
        nva.state.put("sessions", f"n{n}", Session(f"n{n}", 1, synced=True, meters=262144))
    nva.state.begin()
    return nva, now


def _guest(n: int, address: int) -> Interface:
    mac, ip = b"\x02\0\0\0" + n.to_bytes(2, "big"), b"\x0a\1" + address.to_bytes(2, "big")
    return Interface(f"vm{n}/eth0", f"vm{n}", "eth0", 100, mac, (ip,), (), Place(f"n{n}", "tap"))


def _step(nva: Nva, now: float) -> float:
    """Seconds for a step that touches a guest everywhere: it has another address."""
    found = []
    for n in range(5):
        began = time.process_time()
        outcome = nva.handle(ev.VmSubmitted("vm1", (_guest(1, 60000 + n),)), now)
        found.append(time.process_time() - began)
        for effect in outcome.effects:
            if isinstance(effect, Program):
                nva.handle(ev.BarrierReplied(effect.dpid, effect.generation), now)
    return median(found)
