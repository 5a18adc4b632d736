"""See tools/soak."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import test_layer3_stories as tasks
import test_packet_paths as paths
from benchmarks.report import Part, markdown, number, text
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from l3story import Readdressed
from reading import forgotten
from test_core_stateful import Storm
from tried import FAULTS, TRIED
from upheaval import Upheaval, lived

from ryu_vmm.model import Distribution, MoveState

#: Examples in a row, so many that Hypothesis gets from small ones to large ones.
CHUNK = 60
OPEN = [state.value for state in MoveState if not state.closed]
pushed_or_pulled = st.sampled_from(list(Distribution))


def _storms(limits: settings, start: int) -> None:
    class Seeded(Storm):
        """Its own class for each seed: Hypothesis keeps what it knows with the class."""

    seed(start)(Seeded)
    run_state_machine_as_test(Seeded, settings=settings(limits, stateful_step_count=60))


def _property(body: Callable[..., None], actions: st.SearchStrategy[object]) -> Callable[[settings, int], None]:
    def run(limits: settings, start: int) -> None:
        seed(start)(limits(given(st.lists(actions, max_size=50), pushed_or_pulled)(lambda a, d: body(a, d))))()

    return run


def _upheavals(limits: settings, start: int) -> None:
    @seed(start)
    @limits
    @given(st.integers(0, 2**32), st.integers(1, 80))
    def run(number: int, acts: int) -> None:
        lived(number, acts, lambda world: _reads(world, number))

    run()


def _reads(world: Upheaval, number: int) -> None:
    """Now and then: whatever units read touches them."""
    if (number + len(world.acts)) % 16 == 0:
        assert not (found := forgotten(world.w.nva.state)), found


PROPERTIES: dict[str, tuple[str, Callable[[settings, int], None]]] = {
    "storms": ("stateful: anything in any order", _storms),
    "stories": ("packets: planned moves under faults", _property(paths.told, paths.FAULTS)),
    "paths": ("packets: planned moves", _property(paths.told, paths.STORY)),
    "tasks": ("packets of tasks: planned moves under faults", _property(lambda a, _: tasks.told(a), paths.FAULTS)),
    "readdressed": (
        "packets of tasks: addresses that change under faults",
        _property(lambda a, _: tasks.told(a, kind=Readdressed), paths.FAULTS),
    ),
    "histories": ("packets: any history", _property(paths.lived, paths.HISTORY)),
    "upheavals": ("layer 3: anything in any order", _upheavals),
}


@dataclass
class Result:
    """What was tried of one property, and what came of it."""

    title: str
    seconds: float = 0.0
    tried: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def attempt(result: Result, run: Callable[[settings, int], None], start: int, failures: Path) -> None:
    """One chunk of examples; a failure is reduced, written down, and counted."""
    limits = settings(
        max_examples=CHUNK,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    before, began, said = Counter(TRIED), time.monotonic(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            run(limits, start)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        failures.mkdir(parents=True, exist_ok=True)
        file = failures / f"{start}.txt"
        notes = "\n".join(getattr(error, "__notes__", []))
        file.write_text(f"seed {start}\n{said.getvalue()}\n{notes}\n{''.join(traceback.format_exception(error))}")
        result.failures.append(str(file))
        print(f"FAILED: {result.title}: {type(error).__name__}: {str(error)[:200]}; see {file}", file=sys.stderr)
    result.seconds += time.monotonic() - began
    result.tried += Counter(TRIED) - before


def tables(results: dict[str, Result]) -> list[Part]:
    """What was tried, and at which states of a move which faults were."""
    rows = [
        [
            r.title,
            number(r.seconds),
            number(r.tried["examples"]),
            number(r.tried["steps"]),
            number(r.tried["frames"]),
            number(sum(count for name, count in r.tried.items() if name.startswith("moves "))),
            number(len(r.failures)),
        ]
        for r in results.values()
    ]
    columns = ("property", "seconds", "examples", "steps", "frames sent", "moves", "failures")
    notes = [f"failed: {file}" for r in results.values() for file in r.failures]
    parts = [Part("soak", "Property tests of the core", columns, rows, notes, {n: vars(r) for n, r in results.items()})]
    by_fault: dict[str, Counter[str]] = {}
    for (name, at), count in FAULTS.items():
        by_fault.setdefault(name, Counter())[at] += count
    if by_fault:
        faults = [[name, *(number(counts[at]) for at in OPEN)] for name, counts in sorted(by_fault.items())]
        parts.append(Part("faults", "Faults tried, by state of an open move", ("fault", *OPEN), faults))
    return parts


def main() -> int:
    """Run until the time is over. 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="tools/soak")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--only", default=",".join(PROPERTIES), help="comma-separated: " + ", ".join(PROPERTIES))
    parser.add_argument("--seed", type=int, default=None, help="where to begin; the next chunk has the next number")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--failures", type=Path, default=Path(__file__).parents[2] / "out" / "soak")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - PROPERTIES.keys():
        parser.error(f"there is no property {sorted(unknown)[0]}")
    start = random.randrange(1 << 32) if options.seed is None else options.seed
    results = {name: Result(PROPERTIES[name][0]) for name in chosen}
    until, first = time.monotonic() + options.seconds, start
    with contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < until:
            name = min(chosen, key=lambda each: results[each].seconds)
            print(f"{PROPERTIES[name][0]}: seed {start}", file=sys.stderr)
            attempt(results[name], PROPERTIES[name][1], start, options.failures)
            start += 1
    facts = {"first seed": str(first), "seconds": number(sum(r.seconds for r in results.values()))}
    parts = tables(results)
    print((markdown if options.markdown else text)(parts, facts))
    if options.json is not None:
        found = {part.name: {"columns": part.columns, "rows": part.rows} for part in parts}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(r.failures for r in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
