"""The demonstration's parts that need neither root nor switches: command line, machine, ports, verdict."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import sys
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from demonstration import machine, options
from demonstration.account import Account, Moved, tables
from rich.console import Console

from topologies import MoveReport
from topologies.traffic.arrivals import Arrivals, count
from topologies.traffic.session import FlowResult, Outcome


def test_what_is_not_said_has_a_default() -> None:
    assert options.parse([]) == options.Options()


def test_milliseconds_become_seconds() -> None:
    words = "--pause 200 --rate 500 --underlay ipv6 --move vm1 nve2 --pid 7"
    got = options.parse(words.split())
    assert (got.pause, got.rate, got.underlay, got.move, got.pid) == (0.2, 500.0, "ipv6", ("vm1", "nve2"), 7)


@pytest.mark.parametrize("words", [
    ["--rate", "x"], ["--rate", "1"], ["--pause", "-1"], ["--pause", "nan"], ["--underlay", "ipv5"], ["--pid", "3"],
    ["--keep", "--stop"], ["--move", "vm1", "nve2", "--stop"], ["--move", "vm1"], ["surplus"],
])
def test_what_makes_no_sense_is_refused_with_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        options.parse(words)
    assert exit_.value.code == 2
    assert "tools/demo: error: " in capsys.readouterr().err


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(machine.Unfit, match="not root"):
        machine.check()


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool in ("ovs-vsctl", "mnexec") else f"/usr/bin/{tool}")
    with pytest.raises(machine.Unfit, match=r"missing commands: ovs-vsctl, mnexec .*mininet openvswitch-common"):
        machine.check()


def _unused() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_two_at_once_get_different_ports_before_anybody_listens() -> None:
    wish = _unused()
    first, second = machine.Port(wish), machine.Port(wish)
    try:
        assert first.number == wish
        assert second.number != wish
        first.release()
        third = machine.Port(wish)
        assert third.number == wish
        third.release()
    finally:
        first.release()
        second.release()


def test_a_port_where_somebody_listens_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = machine.Port(taken.getsockname()[1])
        port.release()
        assert port.number != taken.getsockname()[1]


# --- the verdict ---------------------------------------------------------------------------------------------


def flow(numbers: list[int], sent: int = 3) -> FlowResult:
    times = array("Q", (10**9 + n for n in range(len(numbers))))
    arrivals = Arrivals(1, array("Q", numbers), times, times)
    pair: Any = SimpleNamespace(rate=1000.0)
    return FlowResult("vm1 to vm2, IPv4", pair, count(arrivals, sent), arrivals)


def moved() -> Moved:
    ledger = {
        "closed": True, "redirected": {"packets": 5, "bytes": 500}, "arrived": {"packets": 5, "bytes": 500},
        "unaccounted": 0, "lost": {"packets": 0, "bytes": 0}, "held": {"packets": 0, "lost": 0},
        "dropped": {"packets": 0},
        "barriers": {"nve1": 0.01},
    }
    history = [{"state": "draining", "at": 1.0, "seconds": 2.0}, {"state": "settled", "at": 3.0, "seconds": None}]
    report = MoveReport("vm1", "nve1", "nve2", True, "hot", "rarp", "1", {"paused": 1.0, "resumed": 1.05})
    return Moved(report, {"id": 1, "state": "settled", "history": history, "ledger": ledger})


def account(flows: list[FlowResult]) -> Account:
    verified = [{"nve": "nve1", "in_sync": True, "flows": 9, "differences": [], "tunnel_to_tunnel": []}]
    return Account([moved()], Outcome(flows, 0, 0, [], 0.0, {}), verified, [], 0.0)


def test_it_passes_where_all_is_well() -> None:
    good = account([flow([0, 1, 2])])
    assert good.faults() == []
    assert good.verdict().startswith("PASSED: 3 datagrams in 1 flows during 1 moves, none lost, none doubled")
    assert good.document()["ok"] is True


def _set(path: str, value: Any) -> Callable[[Account], None]:
    def change(found: Account) -> None:
        target: Any = found.moved[0].document
        *way, last = path.split(".")
        for step in way:
            target = target[step]
        target[last] = value

    return change


@pytest.mark.parametrize(("change", "words"), [
    (lambda a: setattr(a, "outcome", account([flow([0, 2])]).outcome), "1 datagrams were lost"),
    (lambda a: setattr(a, "outcome", account([flow([0, 1, 1, 2])]).outcome), "1 datagrams arrived twice"),
    (lambda a: setattr(a, "outcome", replace(a.outcome, foreign=4)), "4 datagrams arrived that were nobody"),
    (lambda a: a.verified[0].update(in_sync=False, differences=["a flow"]), "nve1 differs .* in 1 flows"),
    (lambda a: a.verified[0].update(tunnel_to_tunnel=["a flow"]), "nve1 still sends from tunnel to tunnel"),
    (lambda a: a.problems.append("the power failed"), "the power failed"),
    (_set("state", "failed"), "the move nve1 -> nve2 is failed"),
    (_set("ledger.unaccounted", 2), "the ledger of nve1 -> nve2 misses 2 packets"),
    (_set("ledger.lost.packets", 3), "misses 3 packets"),
    (_set("ledger.held.lost", 4), "misses 4 packets"),
])
def test_it_fails_and_says_why(change: Callable[[Account], None], words: str) -> None:
    bad = account([flow([0, 1, 2])])
    change(bad)
    assert re.match(f"FAILED: .*{words}", bad.verdict())
    assert bad.document()["ok"] is False


@pytest.mark.parametrize(("width", "side_by_side"), [(120, True), (80, False)])
def test_both_tables_stand_side_by_side_where_there_is_room(width: int, side_by_side: bool) -> None:
    written = io.StringIO()
    console = Console(file=written, width=width)
    console.print(tables(account([flow([0, 1, 2])]), console))
    lines = written.getvalue().splitlines()
    assert any("switches counted" in line and "receivers counted" in line for line in lines) is side_by_side
    assert max(map(len, lines)) <= width
