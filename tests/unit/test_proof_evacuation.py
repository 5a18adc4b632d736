"""The arithmetic behind the evacuations of tools/prove: what counts as a fault, and what a table says."""

from __future__ import annotations

import sys
from array import array
from pathlib import Path
from types import SimpleNamespace as Made
from typing import Any

import pytest

for folder in (Path(__file__).parents[2], Path(__file__).parents[2] / "tools"):
    sys.path.insert(0, str(folder))

from benchmarks.report import markdown  # noqa: E402
from proof import evacuation, report  # noqa: E402

from topologies import MoveReport  # noqa: E402
from topologies.hypervisors import EvacuationReport  # noqa: E402
from topologies.specs import crowd  # noqa: E402
from topologies.traffic.arrivals import Arrivals, count  # noqa: E402
from topologies.traffic.session import FlowResult, Outcome  # noqa: E402


def move(number: int, prepared: float, resumed: float) -> MoveReport:
    made = MoveReport(f"vm{number}", "nve1", "nve2", True, "hot", "na", move=str(number))
    made.times = {"prepared": prepared, "paused": resumed - 0.05, "resumed": resumed}
    return made


def ledger(**more: Any) -> dict[str, Any]:
    return {
        "redirected": {"packets": 3}, "arrived": {"packets": 3}, "unaccounted": 0, "lost": {"packets": 0},
        "held": {"packets": 0, "lost": 0}, "dropped": {"packets": 0}, **more,
    }  # fmt: skip


def evacuated(arrived: list[int] | None = None, sent: int = 10, **more: Any) -> evacuation.Evacuated:
    numbers = list(range(sent)) if arrived is None else arrived
    times = array("Q", [1_000_000 * (n + 1) for n in range(len(numbers))])
    flow = Arrivals(1, array("Q", numbers), times, times)
    traffic = Outcome([FlowResult("a to b", None, count(flow, sent), flow)], 0, 0, [], 0.0, {})  # type: ignore[arg-type]
    document = {"state": "done", "total": 2, "counts": {"moved": 2}, "vms": [{"attempts": 1}, {"attempts": 1}]}
    made = EvacuationReport(document, [move(1, 1.0, 2.0), move(2, 1.5, 2.5)], seconds=4.0)
    usual: dict[str, Any] = {"ledgers": [ledger(), ledger()], "spread": {"nve2": 1, "nve3": 1}, "left": 0, "wrong": []}
    return evacuation.Evacuated("ipv4", 2, made, traffic, **{**usual, **more})


def test_all_well() -> None:
    assert evacuated().problems() == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (evacuated(arrived=[0, 1, 2, 3, 4, 5, 7, 8, 9]), "1 lost, a to b"),
        (evacuated(arrived=[*range(10), 4]), "1 duplicated, a to b"),
        (evacuated(left=1), "VMs left is 1, not 0"),
        (evacuated(spread={"nve2": 4, "nve3": 2}), "spread unevenly"),
        (evacuated(wrong=["nve1 has a flow to IN_PORT"]), "IN_PORT"),
        (evacuated(ledgers=[ledger(unaccounted=1), ledger()]), "1 unaccounted"),
        (evacuated(ledgers=[ledger(lost={"packets": 2}), ledger()]), "2 lost in the ledgers"),
        (evacuated(ledgers=[ledger(redirected={"packets": 0})]), "this has shown nothing"),
    ],
)
def test_every_fault_is_named(given: evacuation.Evacuated, words: str) -> None:
    (problem,) = given.problems()
    assert problem.startswith("2 VMs over ipv4, 2 at a time: ")
    assert words in problem


def test_more_at_a_time_than_allowed_is_a_fault() -> None:
    made = evacuated()
    assert made.report.most_at_once == 2
    made.report.moves.append(move(3, 1.9, 2.4))
    assert made.report.most_at_once == 3
    assert made.problems() == ["2 VMs over ipv4, 2 at a time: 3 VMs were under way at a time"]
    one_after_the_other = EvacuationReport({}, [move(1, 1.0, 2.0), move(2, 2.0, 3.0)])
    assert one_after_the_other.most_at_once == 1


def test_the_table() -> None:
    text = markdown([report.evacuations([evacuated(), evacuated(away=[1.25, 3.0])])], {})
    assert "| IPv4 | 2 | 2 of 2 | 1 + 1 | 10 | 0 | 0 | 6 | 0 | 4.0 | 0.5 | 50.0 (50.0) |" in text
    assert "| IPv4, NVA killed 2 times, away for 1.2, 3.0 s |" in text


def test_a_crowd_has_addresses_of_its_own() -> None:
    specs = crowd(200, 54)
    assert len({spec.mac for spec in specs}) == len({spec.ipv4 for spec in specs}) == len(specs) == 253
    assert [spec.name for spec in specs if spec.nve != "nve1"][:2] == ["peer2", "peer3"]


def test_everybody_hears_somebody_and_speaks() -> None:
    net = Made(vms=[Made(name=spec.name, spec=spec) for spec in crowd(5, 3)])
    found = evacuation.pairs(Made(net=net))  # type: ignore[arg-type]
    for vm in net.vms[:5]:
        heard = {pair.family for pair in found if pair.target is vm}
        said = {pair.family for pair in found if pair.source is vm}
        assert heard
        assert said == {4, 6}
    assert all(pair.source is not pair.target for pair in found)
