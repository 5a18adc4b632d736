"""(b) How many ARP requests are answered per second, by whom, and how fast."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ryu_vmm.emulation.client import Emulation

from . import controller, overlay
from .controller import BenchError, Controller, Vmm
from .machine import SWITCHES_CPU, cpu_seconds
from .report import Part, number, ratio

#: Requests without an answer at any time, over all switches.
WINDOW = 512
GUESTS = 64  # behind each switch
SWITCHES = (1, 16)

SUBJECTS: dict[str, Callable[[Path], Controller]] = {
    "ryu_vmm": Vmm,
    "simple_switch_13": controller.simple_switch,
    "bare application": controller.bare,
    "plain Python loop": controller.plain,
}
BASELINE = "simple_switch_13"


def measure(rounds: int, seconds: float, say: Callable[[str], None]) -> Part:
    """Interleaved rounds, a fresh controller for each run; medians."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for n in range(rounds):
        for switches in SWITCHES:
            for subject, start in SUBJECTS.items():
                result = _run(subject, start, switches, seconds)
                runs.setdefault((subject, switches), []).append(result)
                say(f"round {n + 1}, {switches} switches, {subject}: {number(result['rate'])} answers/s")
    return _part(runs, rounds, seconds)


def _run(subject: str, start: Callable[[Path], Controller], switches: int, seconds: float) -> dict[str, Any]:
    guests = [overlay.Guest(n, 1 + (n - 1) % switches) for n in range(1, GUESTS * switches + 1)]
    with tempfile.TemporaryDirectory(prefix="vmm-bench-") as folder, start(Path(folder)) as program:
        if isinstance(program, Vmm):
            program.register("nves", [overlay.nve_body(n) for n in range(1, switches + 1)])
            # In a network that is pushed, the switches would answer by themselves.
            program.register("networks", [overlay.network_body(distribution="pull")])
            program.register("vms", [guest.body() for guest in guests])
        with Emulation(program.address, SWITCHES_CPU) as emulation:
            emulation.add([overlay.switch(n, guests) for n in range(1, switches + 1)])
            if isinstance(program, Vmm):
                program.synchronised(switches)
            emulation.call("quiet", idle=0.3, timeout=30)
            asked = {n: _questions(guests, n) for n in range(1, switches + 1)}
            frames = {
                str(n): [(asker.port, asker.asks_for(other).hex()) for asker, other in pairs]
                for n, pairs in asked.items()
            }
            used = cpu_seconds(program.pid)
            loaded = emulation.call("load", frames=frames, window=WINDOW // switches, seconds=seconds)
            used = cpu_seconds(program.pid) - used
            one = {"1": frames["1"]}
            alone = emulation.call("load", frames=one, window=1, seconds=seconds / 3, warm_up=0.3)
        if isinstance(program, Vmm):
            checked = _check(asked, loaded["answers"] + alone["answers"])
        else:
            checked = 0
    if loaded["lost"]:
        raise BenchError(f"{subject} left {loaded['lost']} requests unanswered")
    return {
        "rate": loaded["rate"],
        "p50": loaded["latencies"]["p50"],
        "p99": loaded["latencies"]["p99"],
        "alone_p50": alone["latencies"]["p50"],
        "alone_p99": alone["latencies"]["p99"],
        "per_cpu_second": loaded["total"] / used,
        "checked": checked,
    }


def _questions(guests: list[overlay.Guest], nve: int) -> list[tuple[overlay.Guest, overlay.Guest]]:
    """Each guest of an NVE asks for one in another place, as far as there are other places."""
    here = [guest for guest in guests if guest.nve == nve]
    step = len(guests) // 2 + 1
    return [(guest, guests[(guest.number - 1 + step) % len(guests)]) for guest in here]


def _check(asked: dict[int, list[tuple[overlay.Guest, overlay.Guest]]], answers: list[Any]) -> int:
    """Every sampled answer is the right ARP reply, sent to the port of the one who asked."""
    for dpid, n, came_out in answers:
        asker, other = asked[dpid][n]
        port = 2 + asked[dpid].index((asker, other))  # port 1 is the tunnel's
        right = {"out": port, "frame": asker.answer_for(other).hex()}
        if [{k: v for k, v in out.items() if k in right} for out in came_out] != [right]:
            raise BenchError(f"switch {dpid}: {asker.name} asked for {other.name} and got {came_out}")
    if not answers:
        raise BenchError("no answer was sampled")
    return len(answers)


def _part(runs: dict[tuple[str, int], list[dict[str, Any]]], rounds: int, seconds: float) -> Part:
    rows = []
    data: dict[str, Any] = {}
    for (subject, switches), results in sorted(runs.items(), key=lambda item: item[0][1]):
        median = {key: statistics.median(result[key] for result in results) for key in results[0]}
        rates = [result["rate"] for result in results]
        data.setdefault(str(switches), {})[subject] = {**median, "rates": rates}
    for label, by_subject in data.items():
        base = by_subject[BASELINE]["rate"]
        for subject, median in by_subject.items():
            rows.append(
                [
                    label,
                    subject,
                    number(median["rate"]),
                    f"{number(min(median['rates']))} to {number(max(median['rates']))}",
                    ratio(median["rate"] / base),
                    number(median["per_cpu_second"]),
                    ratio(median["per_cpu_second"] / by_subject[BASELINE]["per_cpu_second"]),
                    f"{median['p99'] * 1e3:.1f}",
                    f"{median['alone_p50'] * 1e6:.0f}",
                ]
            )
    checked = int(sum(result["checked"] for results in runs.values() for result in results))
    return Part(
        "packet-ins",
        "ARP requests answered per second, controller on one processor",
        [
            "switches",
            "program",
            "answers/s",
            "lowest to highest",
            f"x {BASELINE}",
            "per CPU second",
            f"x {BASELINE}",
            "p99 under load, ms",
            "alone, us",
        ],
        rows,
        [
            f"Medians of {rounds} interleaved rounds of {seconds:.0f} s each; {WINDOW} requests without an answer at "
            f"any time, {GUESTS} VMs behind each switch. 'alone': median time to an answer with one request at a "
            "time, from one of the switches. 'per CPU second': answers by the processor time that the controller used, "
            "which other programs at work disturb less.",
            f"{checked} sampled answers of ryu_vmm were compared with the right ARP reply and port; all agreed. "
            "simple_switch_13 floods; the bare application and the loop send a constant.",
        ],
        data,
    )
