"""The story of layer 3 as a user runs it: its figures bear out what it claims, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_demo import GENTLE, Demo, demo

from topologies.rundir import command_of, wait_until

SIZES = {"VXLAN": 50, "GRE": 32, "ILA": 0}  # bytes added, tunnels over IPv4


def running(one: Demo) -> list[str]:
    """Command lines of all processes that have to do with its folder, recorded or not."""
    commands = [command_of(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()]
    return [command for command in commands if f"{one.run}/" in command]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run with --json: its document, its files' folder, and what it said to standard error."""
    folder = tmp_path_factory.mktemp("layer3")
    with demo("--layer3", "--json", *GENTLE, folder=folder) as one:
        code = one.end(240)
        errors = one.errors()
        document: dict[str, Any] = json.loads("".join(one.lines))
        one.leaves_nothing([])
    return {**document, "code": code, "errors": errors, "folder": folder / "out"}


def test_it_passes_with_every_claim(told: dict[str, Any]) -> None:
    assert [one for one in told["claims"] if not one["held"]] == []
    assert (told["code"], told["errors"], told["ok"]) == (0, "", True)
    assert told["verdict"].startswith("PASSED: ")
    assert {one["chapter"] for one in told["claims"]} == {"stage", "ways", "datagrams", "connections", "names"}
    assert len(told["claims"]) >= 70
    assert told["underlay"] == "both"
    assert json.loads((told["folder"] / "account.json").read_text())["claims"] == told["claims"]


def test_a_packet_by_three_ways(told: dict[str, Any]) -> None:
    ways = {(one["way"], one["inside"]): one for one in told["ways"]}
    assert set(ways) == {("VXLAN", "ipv4"), ("VXLAN", "ipv6"), ("GRE", "ipv4"), ("GRE", "ipv6"), ("ILA", "ipv6")}
    for (way, inside), one in ways.items():
        assert one["packet"] == (20 if inside == "ipv4" else 40) + 8 + one["payload"]
        assert one["overhead"] == SIZES[way]
        assert len(bytes.fromhex(one["bytes"])) == one["frame"] == 14 + one["packet"] + one["overhead"]
        assert one["wrong_checksums"] == []
        assert one["arrived"]


def test_datagrams_while_a_task_moves(told: dict[str, Any]) -> None:
    found = told["datagrams"]
    assert (found["lost"], found["duplicated"]) == (0, 0)
    assert len(found["flows"]) == 8
    for flow in found["flows"]:
        assert flow["sent"] == flow["received"] > 500, flow["name"]
    for move in found["moves"]:
        ledger = move["nva"]["ledger"]
        assert ledger["redirected"]["packets"] == ledger["arrived"]["packets"] > 0
        assert ledger["exact"]
    svg = ElementTree.fromstring((told["folder"] / "arrivals.svg").read_text())
    words = [node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert f"{found['sent']:,} datagrams sent, {found['sent']:,} arrived, 0 lost, 0 duplicated" in words


def test_a_task_with_its_connections(told: dict[str, Any]) -> None:
    found = told["connections"]
    assert sum(one["connections"] for one in found["clients"].values()) == 20
    assert [one["errors"] for one in found["clients"].values()] == [[], []]
    assert found["overlaps"] == 0
    for move in found["moves"]:
        assert move["agent"]["connections"] == 20
        assert move["agent"]["bytes"] > 20 * 100
        assert 0 < move["agent"]["pause"] < 5
        assert move["nva"]["state"] == "settled"


def test_tasks_whose_addresses_change(told: dict[str, Any]) -> None:
    tasks = {one["task"]: one for one in told["names"]}
    web, mute = tasks["web"], tasks["mute"]
    for one in (web, mute):
        assert [old for old, _ in one["addresses"]] == one["before"]
        assert [new for _, new in one["addresses"]] == one["after"]
        assert 0 <= one["named_seconds"] < 1
        assert len(one["clients"]) == 4
        for client in one["clients"].values():
            assert [client["old"], client["new"]] in one["addresses"]
    assert all(answer["router"] in ("169.254.1.1", "fe80::1") for answer in web["answers"].values())
    assert list(mute["answers"].values()) == [None, None]
    assert {client["how"] for client in web["clients"].values()} == {"reset"}
    assert {client["how"] for client in mute["clients"].values()} == {"silence"}
    slowest, fastest = (
        pick(client["outage"] for client in one["clients"].values()) for pick, one in ((max, web), (min, mute))
    )
    assert slowest < fastest
    assert fastest > 4.9, "they have five seconds of patience"


def test_interrupted_it_removes_tasks_and_name_server_as_well(tmp_path: Path) -> None:
    with demo("--layer3", "--underlay", "ipv6", *GENTLE, folder=tmp_path) as one:
        one.until("3  A process moves", 180)
        one.until("running ")
        owned = one.owned()
        commands = [command_of(entry["pid"]) for entry in owned]
        for words in ("ryu_vmm.agent", "topologies.tasking.server", "ovs-vswitchd"):
            assert any(words in command for command in commands), words
        assert any("named" in command for command in running(one))
        one.process.send_signal(signal.SIGINT)
        assert one.end(30) == 128 + signal.SIGINT, "".join(one.lines)
        assert one.errors() == "tools/demo: SIGINT: everything has been ended and removed\n"
        one.leaves_nothing(owned)
        wait_until(lambda: running(one) == [], 10, "the end of everything that has to do with its folder", 0.05)
