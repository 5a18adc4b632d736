"""Command line of ``tools/tasks``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from mininet.log import setLogLevel

from . import matrix
from .lab import TaskLab, say
from .moves import drop, moves

_PARTS = ("moves", "drop", "matrix")
#: Agents that wait no longer than a test does.
QUICK = {"peer": 4.0, "activated": 4.0, "task": 5.0}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def run_moves(given: argparse.Namespace) -> tuple[str, list[str]]:
    """Many connections through many moves."""
    rows, problems = [], []
    kinds = given.networks.split(",")
    places = [(underlay, "l2") for underlay in given.underlay.split(",") if "l2" in kinds]
    places += [(underlay, "l3") for underlay in ("both", "ipv6") if "l3" in kinds]
    for underlay, kind in places:
        with TaskLab(underlay, times=QUICK, kind=kind) as lab:
            for families, policy in (((4,), "keep"), ((6,), "keep"), ((4, 6), "migrate")):
                each = max(1, given.connections // (2 * len(families)))
                found = moves(lab, families, each, given.moves, policy)
                problems += found.problems()
                rows.append({"underlay": underlay, **found.row()})
                say(str(rows[-1]))
    return "### Connections that move\n\n" + table(rows), problems


def run_drop(given: argparse.Namespace) -> tuple[str, list[str]]:
    """Connections closed at both ends."""
    rows, problems = [], []
    with TaskLab(times=QUICK) as lab:
        for families in ((4,), (6,)):
            found = drop(lab, families, max(1, given.connections // 2))
            problems += found.problems()
            ordered = sorted(found.again) or [0.0]
            rows.append({
                "family": f"IPv{families[0]}", "connections": found.connections,
                "closed after the freeze, ms": round(found.reset * 1e3),
                "connected again, ms (median)": round(ordered[len(ordered) // 2] * 1e3),
                "longest": round(ordered[-1] * 1e3),
            })  # fmt: skip
            say(str(rows[-1]))
    return "### Connections that are dropped\n\n" + table(rows), problems


def run_matrix(given: argparse.Namespace) -> tuple[str, list[str]]:
    """Kills at every step."""
    rows, problems = [], []
    victims = [one for one in matrix.VICTIMS if given.victims in (None, one)]
    with TaskLab(times=QUICK) as lab:
        task = lab.task((4, 6))
        task.run("nve1")
        at = "nve1"
        for _ in range(given.runs):
            for victim in victims:
                row: dict[str, Any] = {"killed": victim}
                for step in given.steps.split(","):
                    found, at = matrix.cell(lab, task, at, victim, step)
                    problems += found.problems()
                    how = "anew" if found.anew else "goes on"
                    row[step] = f"{found.home}, {how}, {found.lost} lost, {found.seconds:.1f} s"
                    say(f"{victim} at {step}: {row[step]} {found.problems() or ''}")
                rows.append(row)
    return "### Kills at each of the five steps\n\n" + table(rows), problems


def main() -> None:
    """The command line; see tools/tasks."""
    parser = argparse.ArgumentParser(prog="tools/tasks")
    parser.add_argument("--only", default=",".join(_PARTS))
    parser.add_argument("--moves", type=int, default=10)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--underlay", default="ipv4,ipv6")
    parser.add_argument("--networks", default="l2,l3")
    parser.add_argument("--victims", choices=matrix.VICTIMS)
    parser.add_argument("--steps", default=",".join(matrix.STEPS))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("tasks: this builds network namespaces: run it as root")
    setLogLevel("error")
    problems: list[str] = []
    texts = []
    for part in given.only.split(","):
        if part not in _PARTS:
            parser.error(f"there is no part {part!r}; there are {', '.join(_PARTS)}")
        text, wrong = {"moves": run_moves, "drop": run_drop, "matrix": run_matrix}[part](given)
        problems += wrong
        texts.append(text)
        print(text, flush=True)
    for problem in problems:
        say(f"FAULT: {problem}")
    if given.json is not None:
        given.json.write_text(json.dumps({"texts": texts, "problems": problems}))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
