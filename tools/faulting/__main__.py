"""Command line of ``tools/faults``."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks import report as tables
from benchmarks.report import Part
from mininet.log import setLogLevel
from proof.authority import Unhealthy
from proof.lab import Lab

from topologies import TopologyError

from . import cells, chaos, faults, many, minds, report, requests, sweep, twists
from .faults import SHORT, Fault
from .ground import Ground
from .staged import STATES

_POINTS = ("matrix", "minds", "sweep", "requests", "restart", "chaos")


class Trial:
    """Runs what was chosen and keeps what was found."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._started = time.monotonic()
        self.problems: list[str] = []
        self.parts: list[Part] = []

    def say(self, text: str) -> None:
        """What is going on, to standard error."""
        print(f"faults: {time.monotonic() - self._started:5.0f} s  {text}", file=sys.stderr, flush=True)

    def take(self, problems: Iterable[str]) -> None:
        """Note what should not be so."""
        for problem in problems:
            self.problems.append(problem)
            self.say(f"FAULT: {problem}")

    def run(self) -> None:
        """All that was chosen."""
        chosen = self._given.only.split(",")
        if "matrix" in chosen:
            self._cells("matrix", "Faults at every state of a move", faults.FAULTS, ())
        if "minds" in chosen:
            self._cells("minds", "Changed minds", minds.AT_EVERY_STATE, twists.TWISTS)
        if "sweep" in chosen:
            self._sweep()
        if "requests" in chosen:
            with Lab(nves=3, vms=3) as lab:
                asked = requests.run(lab, self._given.kills, self._given.seed)
            self.say(f"{asked.acknowledged} requests acknowledged over {asked.kills} kills")
            self.take(asked.problems())
            self.parts.append(report.requests(asked))
        if "restart" in chosen:
            found = many.run(self._given.vms, self._given.restarts, self.say)
            self.take(found.problems())
            self.parts.append(found.part())
        if "chaos" in chosen:
            self._chaos()

    def _sweep(self) -> None:
        found: list[cells.Cell] = []
        todo = [(f"NVA killed after {after:.3f} s", _kill(after)) for after in sweep.moments(self._given.moments)]
        self._series(todo, {}, found, [])
        if found:
            self.parts.append(sweep.part(found))

    def _chaos(self) -> None:
        self.say(f"chaos with seed {self._given.seed}")
        with Ground(movers=chaos.MOVERS, attached=True, **chaos.TIMES) as ground:
            one = chaos.run(ground, self._given.seed, self._given.minutes * 60, self.say)
        self.take(one.problems())
        self.parts.append(chaos.part([one]))

    def _cells(self, name: str, title: str, what: Iterable[Fault], stories: Iterable[twists.Twist]) -> None:
        words = self._given.faults.split(",") if self._given.faults else [""]
        states = self._given.states.split(",") if self._given.states else STATES
        todo: list[tuple[bool, str, Callable[[Ground], cells.Cell]]] = []
        for fault in what:
            if any(word in fault.key for word in words):
                todo += [(fault.short, f"{fault.title} while {state}", _cell(fault, state)) for state in states]
        todo += [(story.short, story.name, _story(story)) for story in stories
                 if any(word in story.key for word in words)]
        found: list[cells.Cell] = []
        crashed: list[str] = []
        for short in (False, True):
            self._series([(label, play) for s, label, play in todo if s is short] * self._given.runs,
                         dict(SHORT) if short else {}, found, crashed)
        if at_states := [cell for cell in found if cell.state in STATES]:
            self.parts.append(report.overview(at_states, f"{name} overview", f"{title}, in short", states))
        if found:
            self.parts.append(report.matrix(found, name, title, crashed))

    def _series(self, todo: list[tuple[str, Callable[[Ground], cells.Cell]]], options: dict[str, Any],
                found: list[cells.Cell], crashed: list[str]) -> None:
        """Play them in one lab, in a new one after each that went wrong: one fault must not colour the next."""
        while todo:
            try:
                with Ground(underlay=self._given.underlay, pull=self._given.pull, **options) as ground:
                    while todo:
                        label, play = todo.pop(0)
                        began = time.monotonic()
                        cell = play(ground)
                        found.append(cell)
                        self.say(f"{label}: {cell.end}, {cell.losses.lost} lost, {cell.losses.beyond} beyond "
                                 f"({time.monotonic() - began:.1f} s)")
                        self.take(cell.problems())
                        if cell.others or cell.wrong or cell.left:
                            break
            except (TopologyError, Unhealthy, AssertionError) as error:
                crashed.append(label)
                self.take(["\n".join([f"{label}: {error}", *getattr(error, "__notes__", ())])])


def _cell(fault: Fault, state: str) -> Callable[[Ground], cells.Cell]:
    return lambda ground: cells.run(ground, fault, state)


def _story(story: twists.Twist) -> Callable[[Ground], cells.Cell]:
    return lambda ground: twists.run(ground, story)


def _kill(after: float) -> Callable[[Ground], cells.Cell]:
    return lambda ground: sweep.run(ground, after)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/faults", description="Breaks moves on real switches.")
    parser.add_argument("--only", default=",".join(_POINTS), help=f"some of {', '.join(_POINTS)}")
    parser.add_argument("--faults", default="", help="of matrix and minds: only names with these words")
    parser.add_argument("--states", default="", help=f"only at these of {', '.join(STATES)}")
    parser.add_argument("--underlay", default="ipv4", choices=("ipv4", "ipv6"), help="(ipv4)")
    parser.add_argument("--pull", action="store_true", help="matrix, minds and sweep in a network that is pulled")
    parser.add_argument("--runs", type=int, default=1, help="runs of each (1)")
    parser.add_argument("--moments", type=int, default=30, help="of sweep: kills, spread over a move (30)")
    parser.add_argument("--kills", type=int, default=10, help="of requests: how often the NVA is killed (10)")
    parser.add_argument("--vms", type=int, default=1000, help="of restart: VMs (1,000)")
    parser.add_argument("--restarts", type=int, default=many.RUNS, help=f"of restart: how often ({many.RUNS})")
    parser.add_argument("--minutes", type=float, default=3.0, help="of chaos (3)")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of requests and chaos (random)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--text", action="store_true", help="print tables for a terminal, not Markdown")
    given = parser.parse_args(arguments)
    if unknown := set(given.only.split(",")) - set(_POINTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if given.states and (unknown := set(given.states.split(",")) - set(STATES)):
        parser.error(f"no such state: {', '.join(sorted(unknown))}")
    return given


def main(arguments: list[str] | None = None) -> int:
    """Break, count and print; 1 if anything was not as it should be."""
    given = _arguments(arguments)
    if os.geteuid():
        print("faults: not root: network namespaces and Open vSwitch need it", file=sys.stderr)
        return 1
    setLogLevel("warning")
    facts: dict[str, Any] = machine.facts()
    trial = Trial(given)
    try:
        trial.run()
    except (TopologyError, Unhealthy, AssertionError) as error:
        trial.take(["\n".join([str(error), *getattr(error, "__notes__", ())])])
    facts["load after"] = f"{os.getloadavg()[0]:.2f}"
    print(tables.text(trial.parts, facts) if given.text else tables.markdown(trial.parts, facts))
    if given.json:
        tables.write_json(given.json, trial.parts, facts)
    bad = len(trial.problems)
    print(f"faults: {'all as it should be' if not bad else f'{bad} FAULTS'}", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
