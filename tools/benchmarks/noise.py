"""(c) What moves take while one VM floods the NVA, against what they take in quiet."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ryu_vmm.emulation.client import Emulation

from . import moves, overlay
from .controller import BenchError, Vmm
from .machine import SWITCHES_CPU
from .report import Part, milliseconds, number, ratio

NVES = 8
#: VMs that take turns to move. They go round the NVEs, the one that floods included: as source, as destination, and as
#: one of those that have to confirm.
MOVERS = 8
#: The NVE whose VM floods.
NOISY = 1
#: Packets that the NVA answers from what it knows, and packets that it has to look into and send on to all NVEs.
FLOODS = ("known", "unknown")
PHASES = ("prepare", "redirect", "trigger_to_last_barrier")


def measure(rounds: int, say: Callable[[str], None]) -> Part:
    """``rounds`` rounds of so many moves as there are movers: in quiet and in each flood by turns."""
    residents = [overlay.Guest(n, n) for n in range(1, NVES + 1)]
    movers = [overlay.Guest(NVES + n, 1 + (n - 1) % NVES) for n in range(1, MOVERS + 1)]
    # The one that floods is in a network that is pulled, for its questions to be the NVA's to answer.
    beside = [overlay.Guest(1000 + n, n, "vn2") for n in range(1, NVES + 1)]
    noisy = overlay.Guest(2000, NOISY, "vn2")
    guests = [*residents, *movers, *beside, noisy]
    stranger = overlay.Guest(9999, 1)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("quiet", *FLOODS)}
    flooded: dict[str, list[float]] = {name: [] for name in FLOODS}
    with (
        tempfile.TemporaryDirectory(prefix="vmm-bench-") as folder,
        Vmm(Path(folder)) as vmm,
        Emulation(vmm.address, SWITCHES_CPU) as emulation,
    ):
        vmm.register("nves", [overlay.nve_body(n) for n in range(1, NVES + 1)])
        vmm.register("networks", [overlay.network_body(), overlay.network_body("vn2", 200, distribution="pull")])
        vmm.register("vms", [guest.body() for guest in guests])
        emulation.add([overlay.switch(n, guests) for n in range(1, NVES + 1)])
        vmm.synchronised(NVES)
        where = {guest: guest.nve for guest in movers}
        frames = {"known": noisy.asks_for(beside[2]).hex(), "unknown": noisy.asks_for(stranger).hex()}

        def go() -> Iterator[dict[str, float]]:
            for guest in movers:
                destination = where[guest] % NVES + 1
                yield moves.move(vmm, emulation, NVES, guest, where[guest], destination)
                where[guest] = destination

        for n in range(rounds):
            for name in found:
                if name in frames:
                    emulation.call("flood", dpid=NOISY, frames=[(noisy.port, frames[name])])
                began = time.monotonic()
                found[name] += go()
                if name in frames:
                    sent = emulation.call("flood", dpid=NOISY)["sent"]
                    flooded[name].append(sent / (time.monotonic() - began))
                emulation.call("quiet", idle=0.3, timeout=60, answer_within=70)
                median = milliseconds(statistics.median(_total(one) for one in found[name][-MOVERS:]))
                say(f"round {n + 1}, {name}: {median} ms")
        shed = _shed(vmm)
    if not shed:
        raise BenchError("nothing was shed: that was no flood")
    return _part(found, flooded, shed)


def _total(times: dict[str, float]) -> float:
    return sum(times[phase] for phase in PHASES)


def _shed(vmm: Vmm) -> int:
    text = vmm.http.get(f"http://127.0.0.1:{vmm.rest_port}/metrics").raise_for_status().text
    lines = [line for line in text.splitlines() if line.startswith("vmm_packet_ins_shed_total{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def _part(found: dict[str, list[dict[str, float]]], flooded: dict[str, list[float]], shed: int) -> Part:
    rows = []
    data: dict[str, Any] = {"shed": shed}
    base = 0.0
    for name, times in found.items():
        totals = sorted(map(_total, times))
        median, p90 = statistics.median(totals), totals[int(0.9 * (len(totals) - 1))]
        base = base or median
        rate = statistics.median(flooded[name]) if name in flooded else 0.0
        data[name] = {"moves": len(times), "median": median, "p90": p90, "packets_per_second": rate, "x": median / base}
        rows.append(
            [
                name if name == "quiet" else f"{name} addresses asked for",
                number(rate) if rate else "-",
                str(len(times)),
                milliseconds(median),
                ratio(median / base),
                milliseconds(p90),
                *(milliseconds(statistics.median(one[phase] for one in times)) for phase in PHASES),
            ]
        )
    return Part(
        "noise",
        "What a move takes while one VM floods the NVA",
        [
            "flood",
            "packets/s",
            "moves",
            "move: median, ms",
            "x quiet",
            "p90, ms",
            "prepare, ms",
            "redirect, ms",
            "trigger to last barrier, ms",
        ],
        rows,
        [
            f"One run, kinds of flood by turns; {NVES} emulated NVEs, moves round all of them, the one that the flood "
            "comes from included. A move: from its request to prepared, from the hook to the redirect in force, from "
            "the VM's announcement to the last barrier reply; REST included. The flood is what its connection takes "
            f"of one port's packets; {number(shed)} packets were shed, all of that port.",
        ],
        data,
    )
