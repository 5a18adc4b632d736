"""See tools/fuzz."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.report import Part, markdown, milliseconds, number, text
from decoders import Target, targets

from .worker import Fuzzer, Report, limit

#: Seconds beyond its time that a decoder's process may take to end.
GRACE = 60.0


def work(pipe: Connection, target: Target, options: argparse.Namespace, seconds: float) -> None:
    """A decoder's process."""
    limit()
    dice = random.Random(f"{options.seed} {target.name}")
    pipe.send(Fuzzer(target, dice, options.crashes, at_hand(options, target)).run(seconds, options.inputs))


def at_hand(options: argparse.Namespace, target: Target) -> Path:
    """Where a decoder's process keeps the input in hand."""
    return Path(options.crashes) / f".{target.name.replace(' ', '-').replace('/', '-')}"


def fuzz(target: Target, options: argparse.Namespace, seconds: float) -> Report:
    """Try a decoder; a process that dies or hangs is a crash, too."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=work, args=(theirs, target, options, seconds))
    process.start()
    theirs.close()
    began, report = time.monotonic(), None
    try:
        if ours.poll(seconds + GRACE):
            report = ours.recv()
    except EOFError:
        pass
    finally:
        process.join(5 if report is not None else 0.5)
        if process.is_alive():
            process.kill()
            process.join()
    held = at_hand(options, target)
    if report is None:
        content = held.read_bytes() if held.exists() else b"\0\0\0\0"
        data = content[4 : 4 + int.from_bytes(content[:4], "big")]
        file = Path(options.crashes) / f"{target.name.replace(' ', '-')}-died"
        file.write_bytes(data)
        report = Report(crashes={f"process ended by signal {-(process.exitcode or 0)}": str(file)})
    held.unlink(missing_ok=True)
    report.seconds = time.monotonic() - began
    return report


def table(reports: dict[str, Report]) -> Part:
    """One line for each decoder, and their sum."""
    rows = [
        [
            name,
            number(r.tried),
            number(r.refused),
            number(r.ways),
            number(r.tried / r.seconds if r.seconds else 0),
            milliseconds(r.slowest),
            number(len(r.crashes)),
        ]
        for name, r in reports.items()
    ]
    tried, crashes = sum(r.tried for r in reports.values()), sum(len(r.crashes) for r in reports.values())
    slowest = milliseconds(max((r.slowest for r in reports.values()), default=0.0))
    refused, ways = sum(r.refused for r in reports.values()), sum(r.ways for r in reports.values())
    rows.append(["all", number(tried), number(refused), number(ways), "", slowest, number(crashes)])
    columns = ("decoder", "inputs", "refused", "different ways", "inputs/s", "slowest (ms)", "crashes")
    notes = [f"{way}: {file}" for r in reports.values() for way, file in r.crashes.items()]
    return Part("fuzz", "Fuzzing of everything that decodes bytes", columns, rows, notes)


def main() -> int:
    """Fuzz. 1 if there was a crash."""
    known = targets()
    parser = argparse.ArgumentParser(prog="tools/fuzz")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--inputs", type=int, default=None)
    parser.add_argument("--only", default=",".join(known))
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--crashes", type=Path, default=Path(__file__).parents[2] / "out" / "fuzz")
    parser.add_argument("--replay", type=Path, default=None)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - known.keys():
        parser.error(f"there is no decoder {sorted(unknown)[0]}; --list shows all")
    if options.list:
        print("\n".join(known))
        return 0
    if options.replay is not None:
        for name in chosen:
            known[name].make()(options.replay.read_bytes())
        return 0
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    options.crashes.mkdir(parents=True, exist_ok=True)
    reports: dict[str, Report] = {}
    for name in chosen:
        reports[name] = fuzz(known[name], options, options.seconds / len(chosen))
        print(f"{name}: {reports[name].tried} inputs, {len(reports[name].crashes)} crashes", file=sys.stderr)
    part = table(reports)
    seconds = sum(r.seconds for r in reports.values())
    facts = {"seed": str(options.seed), "seconds": number(seconds)}
    print((markdown if options.markdown else text)([part], facts))
    if options.json is not None:
        options.json.write_text(json.dumps({name: vars(r) for name, r in reports.items()}, indent=1) + "\n")
    return 1 if any(r.crashes for r in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
