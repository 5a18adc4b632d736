"""Command line of ``tools/bench``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from ryu_vmm.emulation.client import EmulationError

from . import answers, checksums, dependencies, machine, memory, moves, noise, packet_ins, report, tunnels
from .controller import BenchError
from .report import Part

_PARTS: dict[str, Callable[[argparse.Namespace, Callable[[str], None]], list[Part]]] = {
    "moves": lambda given, say: moves.measure(given.quick, say),
    "packet-ins": lambda given, say: [
        packet_ins.measure(given.rounds or (1 if given.quick else 3), 1.5 if given.quick else 3.0, say)
    ],
    "noise": lambda given, say: [noise.measure(given.rounds or (2 if given.quick else 6), say)],
    "checksum": lambda given, say: checksums.measure(
        given.rounds or (1 if given.quick else 3), 1.0 if given.quick else 2.0, say
    ),
    "answers": lambda given, say: answers.parts(given.rounds or (3 if given.quick else 9), say),
    "memory": lambda given, say: [memory.measure(10_000 if given.quick else 100_000, say)],
    "dependencies": lambda given, say: [dependencies.measure(given.quick, say)],
    "tunnels": lambda given, say: [tunnels.measure(given.quick, say)],
}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if a measurement failed."""
    parser = argparse.ArgumentParser(prog="tools/bench", description="Measures ryu_vmm.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements, 10,000 VMs")
    parser.add_argument("--only", default=",".join(_PARTS), help=f"some of {', '.join(_PARTS)}")
    parser.add_argument("--rounds", type=int, default=0, help="rounds (3; noise 6; answers 9; quick 1, 2, 3)")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    given = parser.parse_args(arguments)
    chosen = given.only.split(",")
    if unknown := set(chosen) - _PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    started = time.monotonic()
    # the end of this process is the end of all that it has started: let its context managers see to that
    # (set for SIGINT as well: a shell starts what runs in its background with that one ignored)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))

    def say(text: str) -> None:
        print(f"bench: {time.monotonic() - started:5.0f} s  {text}", file=sys.stderr, flush=True)

    facts = machine.facts()
    if float(facts["load before"]) > 0.5:
        say(f"other programs are at work (load {facts['load before']}): figures will be too low")
    parts: list[Part] = []
    failed = False
    for name in chosen:
        try:
            parts += _PARTS[name](given, say)
        except (BenchError, EmulationError, httpx.HTTPError) as error:
            failed = True
            say("\n".join([f"{name} failed: {error}", *getattr(error, "__notes__", ())]))
    print(report.markdown(parts, facts) if given.markdown else report.text(parts, facts))
    if given.json:
        report.write_json(given.json, parts, facts)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
