"""(a) How long a move takes from its trigger to the last barrier."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ryu_vmm.emulation.client import Emulation

from . import overlay, real_moves
from .controller import BenchError, Vmm
from .machine import SWITCHES_CPU
from .report import Part, milliseconds

#: VMs that take turns to move, so that the next move need not wait for the last to settle.
MOVERS = 8
#: Settings for a thousand NVEs played by one processor and served by another, in seconds.
PATIENCE = {"prepare_deadline": 120, "steer_deadline": 60}
#: Seconds that connecting and programming a whole overlay may take.
CONNECT = 600
#: Emulated NVEs -> moves; and the same where it has to be quick.
SIZES, QUICK = {100: 40, 1000: 16}, {100: 10}


def measure(quick: bool, say: Callable[[str], None]) -> list[Part]:
    """Real NVEs first, then the emulated overlays."""
    found: dict[str, dict[str, Any]] = {}
    refused = real_moves.impossible()
    if refused:
        say(f"3 real NVEs left out: {refused}")
    else:
        found["3 real"] = _summary(real_moves.run(9 if quick else 30, say))
    for size, count in (QUICK if quick else SIZES).items():
        times = emulated(size, count, say)
        found[f"{size:,} emulated"] = _summary(times) | {"connect_seconds": times[0]["connect"]}
    return [_part(found, refused)]


def emulated(size: int, count: int, say: Callable[[str], None]) -> list[dict[str, float]]:
    """Hot moves of VMs in a network that has a member on each of ``size`` emulated NVEs."""
    residents = [overlay.Guest(n, n) for n in range(1, size + 1)]
    movers = [overlay.Guest(size + n, 1 + n * size // MOVERS % size) for n in range(1, MOVERS + 1)]
    guests = residents + movers
    with tempfile.TemporaryDirectory(prefix="vmm-bench-") as folder, Vmm(Path(folder), **PATIENCE) as vmm:
        vmm.register("nves", [overlay.nve_body(n) for n in range(1, size + 1)])
        vmm.register("networks", [overlay.network_body()])
        vmm.register("vms", [guest.body() for guest in guests])
        say(f"{size} emulated NVEs, {len(guests)} VMs registered")
        with Emulation(vmm.address, SWITCHES_CPU) as emulation:
            emulation.call("add", switches=[overlay.switch(n, guests) for n in range(1, size + 1)])
            start = time.monotonic()
            emulation.call("ready", timeout=CONNECT, answer_within=CONNECT + 10)
            vmm.synchronised(size, CONNECT)
            emulation.call("quiet", idle=1.0, timeout=CONNECT, answer_within=CONNECT + 10)
            connect = time.monotonic() - start - 1.0
            say(f"{size} emulated NVEs connected and programmed in {connect:.1f} s")
            times = []
            where = {guest: guest.nve for guest in movers}
            for n in range(count):
                guest = movers[n % MOVERS]
                destination = where[guest] % size + 1
                times.append(move(vmm, emulation, size, guest, where[guest], destination) | {"connect": connect})
                where[guest] = destination
                say(f"{size} emulated NVEs, move {n + 1}: {milliseconds(times[-1]['trigger_to_last_barrier'])} ms")
    return times


def move(
    vmm: Vmm, emulation: Emulation, size: int, guest: overlay.Guest, source: int, destination: int
) -> dict[str, float]:
    """One planned hot move, as a hypervisor does it, and what it took."""
    emulation.call("port", dpid=destination, name=guest.port, state="up")
    asked = time.monotonic()
    move = vmm.post("/moves", {"vm": guest.name, "to": overlay.nve_name(destination)})
    _reach(vmm, move["id"], lambda doc: doc["state"] == "prepared", "prepared")
    prepared = time.monotonic() - asked
    start = time.monotonic()
    vmm.post(f"/moves/{move['id']}/redirect")
    _reach(vmm, move["id"], lambda doc: doc["redirect_in_force"], "redirecting")
    redirected = time.monotonic() - start
    emulation.call("port", dpid=source, name=guest.port, state="gone")
    watch = [n for n in range(1, size + 1) if n != destination]
    seen = emulation.call(
        "move", dpid=destination, port=guest.port, frame=guest.announcement().hex(), watch=watch, answer_within=60
    )
    if seen["missing"]:
        raise BenchError(f"{len(seen['missing'])} NVEs never heard of the move: {seen['missing'][:5]}")
    document = _reach(vmm, move["id"], lambda doc: doc["state"] in ("draining", "settled"), "draining")
    return {
        "trigger_to_last_barrier": max(seen["seconds"].values()),
        "ledger": max(document["ledger"]["barriers"].values()),
        "prepare": prepared,
        "redirect": redirected,
    }


def _reach(vmm: Vmm, move: int, reached: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        document: dict[str, Any] = vmm.get(f"/moves/{move}")
        if document["state"] in ("failed", "aborted"):
            raise BenchError(f"move {move} {document['state']}: {document.get('error')}")
        return document if reached(document) else None

    found: dict[str, Any] = vmm.wait_for(look, 60, f"move {move} to be {what}", every=0.002)
    return found


def _summary(times: Sequence[dict[str, float]]) -> dict[str, Any]:
    summary: dict[str, Any] = {"moves": len(times)}
    for key in ("trigger_to_last_barrier", "ledger", "prepare", "redirect"):
        values = sorted(one[key] for one in times if key in one)
        if values:
            summary[key] = {"median": statistics.median(values), "p99": _percentile(values, 0.99), "max": values[-1]}
    return summary


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _part(found: dict[str, dict[str, Any]], refused: str) -> Part:
    rows = []
    for name, summary in found.items():
        row = [name, str(summary["moves"])]
        for key in ("trigger_to_last_barrier", "ledger"):
            figures = summary.get(key)
            row += [milliseconds(figures["median"]), milliseconds(figures["p99"])] if figures else ["-", "-"]
        row += [milliseconds(summary[key]["median"]) if key in summary else "-" for key in ("prepare", "redirect")]
        rows.append(row)
    notes = [
        "Trigger: the VM's announcement at its destination. Last barrier: the last correspondent NVE has acknowledged "
        "the new location, as the switches saw it and as the move's ledger has it. Hot moves of VMs in one network "
        "that has a member on every NVE. 'prepare' proves the path from every NVE to the destination; 'redirect' is "
        "from the hook to in force; both include REST.",
        "With so few moves p99 is close to the largest value. Settings beside the defaults for the emulated NVEs: "
        + ", ".join(f"{name} = {value}" for name, value in PATIENCE.items())
        + " s.",
    ]
    if refused:
        notes.append(f"3 real NVEs were not measured: {refused}.")
    columns = ["NVEs", "moves", "seen by switches: median, ms", "p99, ms", "ledger: median, ms", "p99, ms"]
    return Part(
        "moves",
        "Convergence of a move, from trigger to last barrier",
        [*columns, "prepare: median, ms", "redirect: median, ms"],
        rows,
        notes,
        found,
    )
