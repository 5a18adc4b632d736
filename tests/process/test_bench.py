"""tools/bench: its figures are right, and its parts run. Not that they are good; that is what the bench is for."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from benchmarks import moves, noise, overlay, packet_ins, report  # noqa: E402
from benchmarks.controller import BenchError  # noqa: E402

from ryu_vmm.emulation import packets  # noqa: E402

PART = report.Part("x", "A title", ["what", "figure"], [["a", "1,000"], ["b", "2"]], ["A note."], {"a": 1000})


def test_tables_as_text_markdown_and_json(tmp_path: Path) -> None:
    assert report.text([PART], {"cpu": "fast"}).splitlines() == [
        "cpu: fast",
        "",
        "A title",
        "=======",
        "what  figure",
        "----  ------",
        "a      1,000",
        "b          2",
        "A note.",
    ]
    assert report.markdown([PART], {"cpu": "fast"}).splitlines() == [
        "**A title**",
        "",
        "| what | figure |",
        "|---|--:|",
        "| a | 1,000 |",
        "| b | 2 |",
        "",
        "A note.",
        "",
        "Measured: cpu fast.",
    ]
    report.write_json(tmp_path / "figures.json", [PART], {"cpu": "fast"})
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written == {"facts": {"cpu": "fast"}, "parts": {"x": {"title": "A title", "a": 1000}}}


@pytest.mark.parametrize(("count", "p99"), [(1, 1), (40, 40), (100, 99), (101, 100), (1000, 990)])
def test_percentile_is_the_nearest_rank(count: int, p99: int) -> None:
    assert moves._percentile(range(1, count + 1), 0.99) == p99 == math.ceil(0.99 * count)


def test_guests_ask_and_are_answered_in_frames_that_fit() -> None:
    asker, other = overlay.Guest(1, 1), overlay.Guest(70_000, 2)
    asked, answered = packets.parse(asker.asks_for(other)), packets.parse(asker.answer_for(other))
    assert (asked["arp_spa"], asked["arp_tpa"]) == (answered["arp_tpa"], answered["arp_spa"])
    assert (asked["arp_op"], answered["arp_op"]) == (1, 2)
    assert answered["arp_sha"] == answered["eth_src"] == int.from_bytes(other.mac, "big")
    guests = [overlay.Guest(n, 1 + n % 7) for n in range(1, 2001)]
    assert len({guest.mac for guest in guests} | {guest.ipv4 for guest in guests}) == 4000
    assert len({overlay.underlay(n) for n in range(1, 1001)}) == 1000


def test_a_wrong_answer_is_noticed() -> None:
    one, two = overlay.Guest(1, 1), overlay.Guest(2, 1)
    asked = {1: [(one, two), (two, one)]}
    right = [
        (1, 0, [{"out": 2, "frame": one.answer_for(two).hex()}]),
        (1, 1, [{"out": 3, "frame": two.answer_for(one).hex()}]),
    ]
    assert packet_ins._check(asked, right) == 2
    for wrong in (
        [(1, 0, [{"out": 3, "frame": one.answer_for(two).hex()}])],
        [(1, 0, [{"out": 2, "frame": two.answer_for(one).hex()}])],
        [(1, 0, [])],
        [(1, 0, [*right[0][2], *right[1][2]])],
        [],
    ):
        with pytest.raises(BenchError):
            packet_ins._check(asked, wrong)


@pytest.mark.slow
def test_every_program_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_ins, "GUESTS", 8)
    monkeypatch.setattr(packet_ins, "SWITCHES", (2,))
    said: list[str] = []
    part = packet_ins.measure(1, 0.3, said.append)
    figures = part.data["2"]
    assert set(figures) == set(packet_ins.SUBJECTS)
    for median in figures.values():
        assert median["rate"] > 0
        assert 0 < median["p50"] <= median["p99"]
    assert figures["ryu_vmm"]["checked"] >= packet_ins.GUESTS  # how many it comes to depends on the machine
    assert len(said) == len(part.rows) == len(packet_ins.SUBJECTS)


@pytest.mark.slow
def test_moves_are_measured() -> None:
    times = moves.emulated(6, 3, lambda text: None)
    assert len(times) == 3
    for one in times:
        assert 0 < one["trigger_to_last_barrier"] < 10
        assert 0 < one["ledger"] < 10
    assert moves._summary(times)["ledger"]["median"] == sorted(one["ledger"] for one in times)[1]


@pytest.mark.slow
def test_noise_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """That moves go on in a flood; how fast, is for a machine that does nothing else."""
    monkeypatch.setattr(noise, "NVES", 4)
    monkeypatch.setattr(noise, "MOVERS", 2)
    said: list[str] = []
    part = noise.measure(1, said.append)
    assert [row[0].split()[0] for row in part.rows] == ["quiet", "known", "unknown"]
    for name in ("quiet", *noise.FLOODS):
        assert part.data[name]["moves"] == 2
        assert 0 < part.data[name]["median"] < 10
    assert all(part.data[name]["packets_per_second"] > 1000 for name in noise.FLOODS)
    assert part.data["shed"] > 0
    assert len(said) == 3
