"""Command line of ``tools/prove``."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks import report as tables
from benchmarks.report import Part
from mininet.log import setLogLevel

from topologies import TopologyError, VNSpec
from topologies.tap import KERNEL_QUEUE, QUEUE
from topologies.traffic.session import Family

from . import (
    changes,
    crises,
    evacuation,
    forgery,
    isolation,
    layer3,
    planned,
    queues,
    report,
    streams,
    tasks,
    unplanned,
)
from .authority import Unhealthy
from .lab import Lab

_POINTS = ("planned", "unplanned", "streams", "isolation", "evacuation", "forgery", "layer3", "changes", "queues")
_UNDERLAYS = ("ipv4", "ipv6")


class Proof:
    """Runs the scenarios and keeps what they found."""

    def __init__(self, chosen: list[str], moves: int, rounds: int, vms: int = evacuation.VMS) -> None:
        self._chosen, self._moves, self._rounds, self._vms = chosen, moves, rounds, vms
        self._started = time.monotonic()
        self._compared = 0
        self.wrong: list[str] = []
        self.problems: list[str] = []
        self.parts: list[Part] = []

    def say(self, text: str) -> None:
        """What is going on, to standard error."""
        print(f"prove: {time.monotonic() - self._started:5.0f} s  {text}", file=sys.stderr, flush=True)

    def _take(self, wrong: list[str], problems: list[str], comparisons: int) -> None:
        self._compared += comparisons
        self.wrong += wrong
        self.problems += problems
        for problem in problems:
            self.say(f"FAULT: {problem}")

    def run(self) -> None:
        """All that was chosen."""
        moved: list[planned.PlannedMove] = []
        survived: dict[str, streams.Survived] = {}
        if "planned" in self._chosen or "streams" in self._chosen:
            for underlay in _UNDERLAYS:
                with Lab(underlay) as lab:
                    if "planned" in self._chosen:
                        moved += self._planned(lab)
                    if "streams" in self._chosen:
                        survived[underlay] = self._streams(lab, underlay)
        if moved:
            self.parts.append(report.planned(moved))
        if "unplanned" in self._chosen:
            self._unplanned()
        if survived:
            self.parts.append(report.streams(survived))
        isolated = self._isolation() if "isolation" in self._chosen else None
        evacuated = self._evacuations() if "evacuation" in self._chosen else []
        forged = self._forgery() if "forgery" in self._chosen else None
        routed = self._layer3() if "layer3" in self._chosen else []
        changed = self._changes() if "changes" in self._chosen else []
        self.parts.append(report.switches(self._compared, self.wrong))
        if isolated is not None:
            self.parts.append(isolated)
        if evacuated:
            self.parts.append(report.evacuations(evacuated))
        if forged is not None:
            self.parts.append(forged)
        self.parts += routed
        if changed:
            self.parts.append(report.changes(changed))
        if "queues" in self._chosen:
            self.parts.append(report.queues(self._queues()))

    def _planned(self, lab: Lab) -> list[planned.PlannedMove]:
        found = []
        for inside, announce in planned.itinerary(self._moves // 2, (4, 6)):
            move = planned.one(lab, inside, announce)
            found.append(move)
            self._take(move.wrong, move.problems(), len(lab.net.nves))
            redirected = move.ledger["redirected"]["packets"]
            self.say(f"{move.name}: {move.traffic.sent:,} sent, {move.traffic.lost} lost, {redirected} redirected")
        return found

    def _streams(self, lab: Lab, underlay: str) -> streams.Survived:
        found = streams.run(lab, planned.MOVER, planned.CORRESPONDENTS)
        self._take(found.wrong, found.problems(), len(lab.net.nves) * len(found.moves))
        self.say(f"TCP over {underlay}: {found.records:,} records through {len(found.moves)} moves, "
                 f"{found.retransmitted} segments sent again")
        return found

    def _unplanned(self) -> None:
        moves = []
        vns = [VNSpec("vn1", 100, {"announcements": "any"}), VNSpec("vn2", 200)]
        with Lab(nves=3, vms=6, vns=vns, attached={"vn2"}, flap_moves=100_000) as lab:
            for turn in range(self._rounds):
                for kind in unplanned.KINDS:
                    for policy, name, others in (("any", "vm1", ("vm3", "vm5")), ("bound", "vm2", ("vm4", "vm6"))):
                        move = unplanned.one(
                            lab, policy, lab.vm(name), [lab.vm(other) for other in others], kind, (4, 6)[turn % 2],
                            tap_first=turn // 2 % 2 == 0,
                        )
                        moves.append(move)
                        self._take(move.wrong, move.problems(), len(lab.net.nves))
                        late = ", ".join(f"{loss.latest * 1e3:.1f}" for loss in move.losses)
                        self.say(f"{move.name}: last losses {late} ms after the announcement")
        self.parts.append(report.unplanned(moves))

    def _isolation(self) -> Part:
        with Lab(nves=3, vms=6, vns=2, overlap=True, attached={"vn1", "vn2"}) as lab:
            leaked = isolation.leak(lab)
            if not {"single", "group", "question"} <= leaked[0].foreign_kinds.keys():
                self._take([], [f"a leak made on purpose was not seen: {leaked[0].foreign_kinds}"], 0)
            found = {}
            for name, rounds in (
                ("planned moves", [(True, "garp-request"), (True, "na"), (True, "rarp"), (True, "none")]),
                ("unplanned moves", [(False, "garp-reply"), (False, "rarp")]),
            ):
                found[name] = isolation.run(lab, rounds)
                self._take(found[name].wrong, found[name].problems(), len(lab.net.nves) * len(rounds))
                self.say(f"two networks with the same addresses, {name}: {len(found[name].seen.foreign)} frames of the "
                         "other network")
        return report.isolation(found, leaked[0])

    def _forgery(self) -> Part:
        with forgery.laboratory() as lab:
            found = forgery.run(lab)
        self._take(found.wrong, found.problems(), len(lab.net.nves))
        for row in found.rows:
            self.say(f"forgeries from {row.name}: {row.tried:,} tried, {row.believed} believed, {row.heard} reported")
        return report.forgery(found)

    def _layer3(self) -> list[Part]:
        measured: list[layer3.Size] = []
        moved: list[tasks.TaskMove] = []
        for underlay in _UNDERLAYS:
            with layer3.laboratory(underlay) as lab:
                found = layer3.sizes(lab)
                self._take([], [problem for one in found for problem in one.problems()], 0)
                self.say(f"bytes per packet over {underlay}: {len(found)} ways and sizes")
                measured += found
                for _ in range(max(3, self._moves // 5)):
                    moved += [self._task(lab, *way) for way in tasks.ways(underlay)]
        return [report.sizes(measured), report.tasks(moved), report.crises(self._crises())]

    def _crises(self) -> list[crises.Crisis]:
        found: list[crises.Crisis] = []
        for underlay, routing in (("both", False), ("ipv6", True)):
            with layer3.laboratory(underlay, routing=routing, tasks=3, quiet_time=1.0) as lab:
                for number in range(self._moves // 2):
                    one = crises.one(lab, number, random.Random(f"{underlay} {number}"))
                    found.append(one)
                    self._take(one.wrong, one.problems(), len(lab.net.nves))
                    out, what = one.traffic, f"{len(one.reports)} tasks over {underlay}, {one.what}"
                    self.say(f"{what}: {out.sent:,} sent, {out.lost} lost, {out.duplicated} doubled")
        return found

    def _changes(self) -> list[changes.Changed]:
        found = []
        for underlay in _UNDERLAYS:
            with changes.laboratory(underlay) as (lab, server):
                for answer in changes.ANSWERS * max(1, self._moves // 10):
                    one = changes.one(lab, server, answer)
                    found.append(one)
                    self._take(one.wrong, one.problems(), len(lab.net.nves))
                    self.say(f"{one.name}: named after {one.named * 1e3:.1f} ms, {one.forwarded} forwarded, "
                             f"{one.told} told, {one.limited} at once")
        return found

    def _task(self, lab: Lab, who: tasks.Who, inside: Family) -> tasks.TaskMove:
        move = tasks.one(lab, who, inside, capture=True)
        self._take(move.wrong, move.problems(), len(lab.net.nves))
        out = move.traffic
        self.say(f"{move.name}: {out.sent:,} sent, {out.lost} lost, {out.duplicated} doubled, carried {move.carried}")
        return move

    def _queues(self) -> list[queues.Paused]:
        found = []
        for queue in (KERNEL_QUEUE, QUEUE):
            with Lab(nves=3, vms=3, queue=queue) as lab:
                for _ in range(max(1, self._moves // 10)):
                    one = queues.one(lab, queue)
                    found.append(one)
                    self._take(lab.verify(), one.problems(), len(lab.net.nves))
                    self.say(f"a queue of {queue}: {one.lost} lost, the ledger tells of {one.told}")
        return found

    def _evacuations(self) -> list[evacuation.Evacuated]:
        done = []
        for underlay, parallel, kills in evacuation.RUNS:
            with evacuation.lab(underlay, self._vms) as lab:
                found = evacuation.run(lab, evacuation.prepare(lab), parallel, kills)
                self._take(found.wrong, found.problems(), len(lab.net.nves))
            done.append(found)
            self.say(f"{found.name}: {found.report.document['counts']['moved']} moved in {found.report.seconds:.1f} s, "
                     f"{found.traffic.sent:,} sent, {found.traffic.lost} lost, {found.traffic.duplicated} doubled")
        return done


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(prog="tools/prove", description="Shows on real switches what ryu_vmm claims.")
    parser.add_argument("--only", default=",".join(_POINTS), help=f"some of {', '.join(_POINTS)}")
    parser.add_argument("--moves", type=int, default=20, help="planned moves in all (20)")
    parser.add_argument("--rounds", type=int, default=4, help="unplanned moves of each kind (4)")
    parser.add_argument("--vms", type=int, default=evacuation.VMS, help=f"VMs to evacuate ({evacuation.VMS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--text", action="store_true", help="print tables for a terminal, not Markdown")
    given = parser.parse_args(arguments)
    chosen = given.only.split(",")
    if unknown := set(chosen) - set(_POINTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if os.geteuid():
        print("prove: not root: network namespaces and Open vSwitch need it", file=sys.stderr)
        return 1
    setLogLevel("warning")
    facts = machine.facts()
    proof = Proof(chosen, max(2, given.moves), max(1, given.rounds), max(2, given.vms))
    try:
        proof.run()
    except (TopologyError, Unhealthy, AssertionError) as error:
        proof.problems.append("\n".join([str(error), *getattr(error, "__notes__", ())]))
        proof.say(f"FAULT: {proof.problems[-1]}")
    facts["load after"] = f"{os.getloadavg()[0]:.2f}"
    print(tables.text(proof.parts, facts) if given.text else tables.markdown(proof.parts, facts))
    if given.json:
        tables.write_json(given.json, proof.parts, facts)
    print(f"prove: {'all as claimed' if not proof.problems else f'{len(proof.problems)} FAULTS'}", file=sys.stderr)
    return int(bool(proof.problems))


if __name__ == "__main__":
    sys.exit(main())
