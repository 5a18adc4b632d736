"""The arithmetic behind tools/prove: what counts as a loss beyond the gap, what as agreement, what a table says."""

from __future__ import annotations

import dataclasses
import sys
from array import array
from pathlib import Path
from types import SimpleNamespace as Made
from typing import Any

import pytest

for folder in (Path(__file__).parents[2], Path(__file__).parents[2] / "tools"):
    sys.path.insert(0, str(folder))

from benchmarks.report import markdown  # noqa: E402
from proof import crises, layer3, planned, raw, report, tasks, unplanned  # noqa: E402
from proof.__main__ import main  # noqa: E402
from proof.isolation import Seen, tag_of  # noqa: E402

from topologies import MoveReport  # noqa: E402
from topologies.traffic.arrivals import Arrivals, count  # noqa: E402
from topologies.traffic.packet import HEADER, MAGIC  # noqa: E402
from topologies.traffic.session import FlowResult, Outcome  # noqa: E402

MS = 1_000_000


def flow(name: str, lost: range, sent: int = 1000, delay: int = MS // 2) -> Any:
    """One datagram each millisecond from second 1 on, some of them lost."""
    numbers = [n for n in range(sent) if n not in lost]
    times = [1000 * MS + n * MS for n in numbers]
    arrivals = Arrivals(1, array("Q", numbers), array("Q", times), array("Q", [at + delay for at in times]))
    return FlowResult(name, None, count(arrivals, sent), arrivals)  # type: ignore[arg-type]


def gap(gone: float, announced: float) -> MoveReport:
    made = MoveReport("vm1", "nve1", "nve2", False, "hot", "na")
    made.times = {"paused": gone, "announced": announced, "resumed": announced}
    return made


@pytest.mark.parametrize(
    ("lost", "beyond", "latest", "unexplained"),
    [
        (range(100, 155), 0, 0.0045, 0),  # up to 154.5 ms: 4.5 ms after the announcement
        (range(100, 156), 1, 0.0055, 0),
        (range(100, 175), 20, 0.0245, 0),
        (range(70, 150), 0, -0.0005, 10),  # 20 ms may have been under way, not 30
        (range(0), 0, -0.05, 0),
    ],
)
def test_losses_are_placed_by_a_flow_that_lost_nothing(
    lost: range, beyond: int, latest: float, unexplained: int
) -> None:
    found = unplanned._loss(flow("a", lost), flow("b", range(0)), gap(1.1, 1.15), 0.02)
    assert (found.lost, found.beyond, found.unexplained) == (len(lost), beyond, unexplained)
    assert found.latest == pytest.approx(latest, abs=1e-6)
    assert found.excess == pytest.approx(max(0.0, latest - 0.005) if beyond else 0.0, abs=1e-6)
    assert found.window == pytest.approx(0.05)


def test_what_the_machine_held_up_around_a_move_is_allowed_for() -> None:
    """Six processes may wait as long as the sender did; a delay long before or after the move is none of its own."""

    def traffic(lateness: float, delayed: dict[int, int]) -> Outcome:
        untouched = flow("b", range(0))
        for number, by in delayed.items():
            untouched.arrivals.arrived_ns[number] += by
        return Outcome([flow("a", range(70, 150)), untouched], 0, 0, [], lateness, {})

    made = gap(1.4, 1.45)
    assert unplanned._held_up(traffic(0.0, {}), made) == pytest.approx(0.0005)
    assert unplanned._held_up(traffic(0.004, {}), made) == pytest.approx(0.024)
    assert unplanned._held_up(traffic(0.004, {10: 99 * MS, 900: 99 * MS}), made) == pytest.approx(0.024)
    assert unplanned._held_up(traffic(0.004, {390: 30 * MS}), made) == pytest.approx(0.0305)


def test_the_ledger_must_lie_within_what_the_datagrams_allow() -> None:
    times = {"requested": 1.2, "in force": 1.25, "steering": 1.4}
    ledger: dict[str, Any] = {"barriers": {"nve3": 0.0102}, "stale": [{"nve": "nve3", "packets": 180}]}
    made = flow("vm3 to vm1", range(0))
    one = FlowResult(made.name, Made(source=Made(nve=Made(name="nve3"))), made.count, made.arrivals)  # type: ignore
    found = planned._redirected(one, times, ledger, 0.015)
    assert (found.least, found.ledger, found.most) == (136, 180, 226)  # 250 to 385 ms; 200 to 425 ms
    assert found.agrees
    for wrong in (135, 232):
        assert not planned.Redirected("nve3", wrong, found.least, found.most).agrees


def test_marks_are_found_in_every_kind_of_frame() -> None:
    own, four, six = raw.mac("02:00:00:00:00:01"), raw.ip("10.0.0.1"), raw.ip("2001:db8::1")
    marked = HEADER.pack(MAGIC, 200, 7, 9, 0)
    assert tag_of(raw.udp4(raw.BROADCAST, own, four, b"\xff" * 4, marked)) == (200, 7, 9)
    assert tag_of(raw.udp6(b"\x33\x33\0\0\0\1", own, six, raw.ALL_NODES, marked)) == (200, 7, 9)
    assert tag_of(raw.arp(1, own, four, bytes(6), bytes((10, 0, 0, 201)))) == (200, 0, 0)
    assert tag_of(raw.solicitation(own, six, six[:12] + b"\xde\xad\0\xc8")) == (200, 0, 0)
    for plain in (raw.arp(1, own, four, bytes(6), four), raw.solicitation(own, six, six), b"", bytes(60)):
        assert tag_of(plain) is None


def test_faults_show_in_the_tables() -> None:
    ledger = {
        "redirected": {"packets": 300, "bytes": 1}, "arrived": {"packets": 299, "bytes": 1}, "unaccounted": 1,
        "lost": {"packets": 0}, "held": {"lost": 0}, "dropped": {"packets": 0}, "exact": True,
        "stale": [{"nve": "nve3", "packets": 300}],
        "barriers": {"nve3": 0.02},
    }  # fmt: skip
    traffic = Outcome([flow("vm2 to vm1", range(3), 1200), flow("vm1 to vm2", range(0), 1200)], 0, 0, [], 0.001, {})
    made = gap(0.1, 0.15)
    move = planned.PlannedMove(
        "ipv4", 6, "na", made, {"state": "settled", "ledger": ledger}, traffic,
        [planned.Redirected("nve3", 300, 100, 400)],
    )
    problems = "; ".join(move.problems())
    assert "lost, vm2 to vm1" in problems
    assert "unaccounted is 1, not 0" in problems
    text = markdown([report.planned([move]), report.switches(4, ["nve2 is not in sync"])], {"date": "today"})
    assert "| IPv6 over IPv4 | 0 of 1 | 2,400 | 3 | 0 | 300 | 299 | 1 | 1 of 1 | 50.0 (50.0) | 20.0 (20.0) |" in text
    assert "| 4 | 1 |" in text
    quiet = report.isolation({}, Seen(foreign=["vm2: 00"]))
    assert quiet.rows[-1][4] == "1"


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--only", "planned,miracles"])
    assert caught.value.code == 2
    assert "no such part: miracles" in capsys.readouterr().err


def routed(underlay: str, how: str, inside: int, payload: int, overhead: int, **more: Any) -> layer3.Size:
    packet = payload + (28 if inside == 4 else 48)
    made: dict[str, Any] = {"sent": layer3.PACKETS, "arrived": layer3.PACKETS, "wrong": (), "refused": 0, **more}
    return layer3.Size(underlay, inside, how, payload, packet, packet + 14 + overhead, expected=how, **made)  # type: ignore


def test_bytes_per_packet_stand_side_by_side() -> None:
    found = [
        routed("ipv4", "vxlan", 4, 64, 50), routed("ipv4", "gre", 4, 64, 28), routed("ipv6", "vxlan", 4, 64, 70),
        routed("ipv4", "vxlan", 6, 64, 50), routed("ipv6", "plain", 6, 64, 0),
    ]  # fmt: skip
    table = markdown([report.sizes(found)], {})
    ways = ("VXLAN over IPv4", "without Ethernet over IPv4", "VXLAN over IPv6", "ILA over IPv6")
    assert f"| UDP payload | IP packet | {' | '.join(ways)} |" in table
    assert "| IPv4, 64 bytes | 92 | 156 (+50) | 134 (+28) | 176 (+70) |  |" in table
    assert "| IPv6, 64 bytes | 112 | 176 (+50) |  |  | 126 (+0) |" in table
    assert "100 datagrams" in table
    assert ": 0 faults" in table


@pytest.mark.parametrize(("more", "words"), [
    ({"sent": 19}, "19 were on the underlay"), ({"arrived": 19}, "19 arrived"),
    ({"wrong": ("inner UDP",)}, "inner UDP"), ({"refused": 1}, "1 refused"),
])  # fmt: skip
def test_a_size_that_was_not_as_it_should_be_is_a_fault(more: dict[str, Any], words: str) -> None:
    [problem] = routed("ipv4", "gre", 4, 64, 28, **more).problems()
    assert words in problem
    by_another = dataclasses.replace(routed("ipv4", "vxlan", 4, 64, 50), expected="gre")
    assert "carried by vxlan" in by_another.problems()[0]


def test_a_task_that_moved_by_another_way_than_ila_is_a_fault() -> None:
    moved = MoveReport("mob1", "nve1", "nve2", True, "hot", "none", move="1")
    moved.times = {"paused": 1.0, "resumed": 1.05}
    ledger = {
        "redirected": {"packets": 9, "bytes": 900}, "arrived": {"packets": 9, "bytes": 774}, "unaccounted": 0,
        "lost": {"packets": 0}, "held": {"lost": 0}, "dropped": {"packets": 0}, "exact": True,
        "barriers": {"nve1": 0.01},
    }  # fmt: skip
    good = tasks.TaskMove(
        "ipv6", "ILA", 6, moved, {"state": "settled", "ledger": ledger},
        Outcome([flow("a", range(0))], 0, 0, [], 0.0, {}), [], {"plain": 1000, "gre": 9}, [],
    )  # fmt: skip
    assert good.problems() == []
    assert "1 of 1" in markdown([report.tasks([good])], {})
    for changed, words in (
        ({"carried": {"vxlan": 2000}}, "not by ILA"), ({"wrong_sums": ["inner UDP"]}, "inner UDP"),
        ({"traffic": Outcome([flow("a", range(5))], 0, 0, [], 0.0, {})}, "lost, a"),
    ):
        [problem] = dataclasses.replace(good, **changed).problems()  # type: ignore[arg-type]
        assert words in problem


def test_a_task_that_never_arrives_or_a_datagram_lost_in_a_crisis_is_a_fault() -> None:
    moved = MoveReport("mob1", "nve1", "nve2", True, "hot", "none", move="1")
    moved.times = {"paused": 1.0, "resumed": 1.05}
    calm = Outcome([flow("a", range(0))], 0, 0, [], 0.0, {})
    good = crises.Crisis(3, "killed", [moved], 4, calm, ["settled"])
    assert good.problems() == []
    table = markdown([report.crises([good, dataclasses.replace(good, what="cut")])], {})
    assert "| the NVA, killed and started | 1 of 1 | 1 | 4 | 1,000 | 0 | 0 |" in table
    assert "| all | 2 of 2 | 2 | 8 |" in table
    for changed, words in (
        ({"failed": ["mob1 to nve2: late"]}, "late"), ({"wrong": ["nve1 is not in sync"]}, "not in sync"),
        ({"states": ["aborted"]}, "aborted"),
        ({"traffic": Outcome([flow("a", range(5))], 0, 0, [], 0.0, {})}, "5 lost"),
    ):
        [problem] = dataclasses.replace(good, **changed).problems()  # type: ignore[arg-type]
        assert words in problem
        assert problem.startswith("round 3 (killed)")
