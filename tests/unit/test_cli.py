"""The command line against a real server: what is printed, and the exit codes."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from cli_lab import Nva, lab, nva
from click.testing import CliRunner
from live import serving
from test_inventory import GOOD

from ryu_vmm.cli import client, inventories
from ryu_vmm.cli.root import vmm as command
from ryu_vmm.errors import StoreUnavailable

__all__ = ["lab", "nva"]


# --- registering ----------------------------------------------------------------------------------------------
def test_registering_and_removing(lab: Nva) -> None:
    assert "nve1 is registered" in lab.run("nve add nve1 --dpid 1 --ipv4 192.168.100.1").stdout
    lab.run("nve add nve1 --dpid 1 --ipv4 192.168.100.9", client.CONFLICT)
    lab.run("nve add nve1 --dpid 1 --ipv4 192.168.100.9 --replace")
    assert lab.json("nve show nve1")["ipv4"] == "192.168.100.9"
    lab.run("nve remove nve1", client.CONFLICT)
    assert lab.json("network show blue")["policy"]["mtu"] == 1400
    lab.run("network add blue --vni 100 --distribution pull --replace")
    assert lab.json("network show blue")["policy"]["distribution"] == "pull"
    lab.run(
        "vm add web-9 --network blue --mac 02:00:00:00:00:09 --ip 10.0.0.9 --ip 2001:db8::9 "
        "--nve nve1 --port tap-9 --attach nve2=tap-9 --attach nve3=tap-8"
    )
    interface = lab.json("vm show web-9")["interfaces"][0]
    assert (interface["ipv4"], interface["ipv6"]) == (["10.0.0.9"], ["2001:db8::9"])
    assert interface["attachments"] == [{"nve": "nve2", "port": "tap-9"}, {"nve": "nve3", "port": "tap-8"}]
    lab.run(
        "vm add web-9 --network blue --mac 02:00:00:00:00:09 --nve nve1 --port tap-9 --replace "
        "--shared 10.0.0.100 --shared 2001:db8::100 --shared 00:00:5e:00:01:07"
    )
    interface = lab.json("vm show web-9")["interfaces"][0]
    assert [s["address"] for s in interface["shared"]] == ["10.0.0.100", "2001:db8::100"]
    assert [s["mac"] for s in interface["shared_macs"]] == ["00:00:5e:00:01:07"]
    assert "10.0.0.100 (at nobody)" in " ".join(lab.run("vm show web-9").stdout.split())
    assert "shares 10.0.0.100 (at nobody)" in lab.run("vm list").stdout + lab.run("explain web-9").stdout
    lab.run("vm remove web-9")
    assert "web-1 is removed" in lab.run("vm remove web-1").stdout
    lab.run("vm remove web-1", client.NOT_FOUND)
    lab.run("vm remove web-2")
    lab.run("network remove blue")
    lab.run("nve remove nve1")
    assert [n["name"] for n in lab.json("nve list")["items"]] == ["nve2", "nve3"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nve list", ["nve1", "0000000000000001", "192.168.100.1", "yes", "blue"]),
        ("nve show nve1", ["192.168.100.1", "tap-1", "vxlan", "acknowledged"]),
        ("network list", ["blue", "100", "push", "bound", "1400", "nve1, nve2"]),
        ("network show blue", ["blue", "100"]),
        ("vm list", ["web-1", "eth0", "02:00:00:00:00:01", "10.0.0.1, 2001:db8::1", "nve1", "tap-1"]),
        ("vm list --nve nve2", ["web-2"]),
        ("vm show web-2", ["web-2", "tap-2"]),
        ("directory --network blue --ip 10.0.0.1", ["web-1/eth0", "nve1", "192.168.100.1"]),
        ("explain web-1", ["nve1 port tap-1", "epoch 1", "tunnel to nve1 (192.168.100.1)", "tun_id=0x64"]),
        ("status", ["ok", "3 registered, 3 connected, 3 in sync"]),
        ("events", ["nve.connected", "nve.synchronised"]),
        ("nve verify", ["nve1: ", "in sync"]),
    ],
)
def test_what_people_read(lab: Nva, line: str, words: list[str]) -> None:
    text = lab.run(line).stdout
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"
    if "--nve" in line:
        assert "web-1" not in text


def every_command(group: click.Command = command, name: str = "vmm") -> Iterator[tuple[str, click.Command]]:
    yield name, group
    if isinstance(group, click.Group):
        for verb, sub in group.commands.items():
            yield from every_command(sub, f"{name} {verb}")


@pytest.mark.parametrize(("name", "found"), list(every_command()), ids=lambda x: x if isinstance(x, str) else "")
def test_every_command_has_help_with_an_example(name: str, found: click.Command) -> None:
    result = CliRunner().invoke(command, [*name.split()[1:], "--help"], prog_name="vmm")
    assert result.exit_code == 0
    examples = re.findall(r"Example: (vmm [^\n]*)", " ".join((found.help or "").split("\n")))
    assert examples, f"{name} has no example"
    assert examples[0].startswith(name if name != "vmm" else "vmm move")
    for option in ("--url", "--json", "--timeout"):
        assert option in result.output
    known = {option for parameter in found.params for option in parameter.opts}
    if not isinstance(found, click.Group):
        assert set(re.findall(r" (--[a-z0-9-]+)", examples[0])) <= known


# --- output for programs --------------------------------------------------------------------------------------
def test_json_everywhere(lab: Nva, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("vms: []\n")
    lines = [
        "nve list",
        "nve show nve1",
        "nve verify nve1",
        "nve add nve1 --dpid 1 --ipv4 192.168.100.1",
        "network list",
        "network show blue",
        "vm list",
        "vm show web-1",
        "directory",
        "explain web-1",
        "status",
        "move start web-1 --to nve2",
        "move list",
        "move show 1",
        "move abort 1",
        f"vm apply {file}",
        f"inventory apply {file}",
        f"inventory check {file}",
    ]
    for line in lines:
        assert isinstance(lab.json(line), dict), line
    events = lab.run("events --json").stdout.splitlines()
    assert all(json.loads(line)["kind"] for line in events)
    assert lab.run("nve remove nve3 --json").stdout == ""
    problem = lab.json("nve show nve9", client.NOT_FOUND)
    assert (problem["status"], problem["code"]) == (404, "not-found")


def test_options_before_and_after_the_verb(nva: Nva) -> None:
    run = CliRunner(env={"VMM_URL": "http://127.0.0.1:1"}).invoke
    for line in (
        ["--url", nva.url, "--json", "nve", "list"],
        ["nve", "--json", "list", "--url", nva.url],
        ["--url", "http://127.0.0.1:1", "nve", "list", "--json", "--url", nva.url],
    ):
        result = run(command, line)
        assert result.exit_code == 0, (line, result.output)
        assert json.loads(result.stdout)["items"] == []


# --- exit codes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("nve show nve9", 4, "there is no NVE nve9"),
        ("vm show a/../b", 4, "nothing at"),
        ("explain nobody", 4, "there is no VM nobody"),
        ("directory --ip 10.9.9.9", 4, "nothing of the kind"),
        ("directory --network grey", 4, "there is no network grey"),
        ("move show 9", 4, "there is no move 9"),
        ("move start nobody --to nve2", 4, "there is no VM nobody"),
        ("move start web-1 --to nve1", 5, "is on nve1 already"),
        ("nve add nve4 --dpid 1 --ipv4 192.168.100.4", 5, "belongs to NVE nve1"),
        ("nve add nve4 --dpid zz --ipv4 192.168.100.4", 6, "dpid: 'zz' is not a datapath id"),
        ("nve add nve4 --dpid zz --ipv4 224.0.0.1", 6, "  ipv4: '224.0.0.1' is not"),
        ("network add red --vni 0", 6, "vni"),
        ("move list --state lost", 6, "state"),
        ("directory --mac x", 6, "mac"),
        ("nve add nve4", 2, "Missing option"),
        ("move start web-1 --to nve2 --port eth0", 2, "INTERFACE=PORT"),
        ("move start web-1 --to nve2 --kind tepid", 2, "tepid"),
        ("move show x", 2, "not a valid integer"),
        ("dance", 2, "No such command"),
        ("nve list --url ftp://x", 2, "not an http URL"),
        ("nve list --timeout 0", 2, "0.0 is not in the range"),
        ("inventory apply /nonexistent", 2, "does not exist"),
    ],
)
def test_exit_codes(lab: Nva, line: str, code: int, words: str) -> None:
    assert words in " ".join(lab.run(line, code).stderr.split("\n"))


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        result = CliRunner().invoke(command, ["--url", url, "status"])
        assert (result.exit_code, "no NVA at" in result.stderr) == (client.UNREACHABLE, True)
        free.listen()
        result = CliRunner().invoke(command, ["--url", url, "--timeout", "1", "status"])
        assert (result.exit_code, "in time" in result.stderr) == (client.UNREACHABLE, True)


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "502 Bad Gateway"])
def test_somebody_else_there(status: str) -> None:
    def other(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [("Content-Type", "text/html")])
        return [b"<h1>hello</h1>"]

    with serving(other) as url:
        result = CliRunner().invoke(command, ["--url", url, "nve", "list"])
    assert result.exit_code == client.UNREACHABLE
    assert "is not the NVA" in result.stderr


def test_what_the_nva_cannot_do(lab: Nva) -> None:
    lab.runtime.fail = StoreUnavailable("disk is full")
    assert "disk is full" in lab.run("vm remove web-1", client.FAILED).stderr
    lab.runtime.fail = None
    lab.runtime._store.check = lambda: "locked"  # type: ignore[method-assign]
    lab.run("status", client.FAILED)


def test_verify_that_finds_a_difference(lab: Nva) -> None:
    from ryu_vmm.flows import FlowChange

    tables = lab.runtime.boxes["nve1"].tables
    victim = next(flow for flow in tables.flows if flow.table == 40 and flow.priority == 100)
    tables.change(FlowChange("delete", victim), lab.runtime.now())
    text = lab.run("nve verify", client.FAILED).stdout
    assert "nve1: " in text
    assert "1 differences" in text
    assert lab.json("nve verify nve1", client.FAILED)["in_sync"] is False
    lab.run("nve verify nve2 nve3")


# --- files ----------------------------------------------------------------------------------------------------
def test_what_was_not_taken_from_the_file_at_start_is_in_the_status(nva: Nva) -> None:
    nva.runtime.refused = ["lab.yaml:4: vms[0]: taken"]
    shown = nva.run("status").stdout
    assert "degraded" in shown
    assert "lab.yaml:4: vms[0]: taken" in shown


def test_applying_an_inventory(nva: Nva, tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(GOOD)
    assert "2 nves, 2 networks, 1 vms" in nva.run(f"inventory check {file}").stdout
    assert "5 created, 0 updated, 0 unchanged" in nva.run(f"inventory apply {file}").stdout
    assert nva.json(f"inventory apply {file}") == {"created": 0, "updated": 0, "unchanged": 5}
    assert nva.json(f"vm apply {file}") == {"created": 0, "updated": 0, "unchanged": 1}
    file.write_text(GOOD.replace("mac: 52", "mac: 53"))
    for verb in ("check", "apply"):
        assert f"{file}:20: vms[0].interfaces[0].mac" in nva.run(f"inventory {verb} {file}", client.INVALID).stderr
    file.write_text(GOOD.replace("network: blue", "network: grey"))
    assert "there is no network grey" in nva.run(f"inventory apply {file}", client.INVALID).stderr
    file.write_bytes(b"\xff")
    nva.run(f"inventory apply {file}", client.INVALID)


def test_a_large_inventory_goes_in_parts(nva: Nva, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "PART", 2000)
    whole: dict[str, Any] = {
        "nves": [{"name": "nve1", "dpid": "1", "ipv4": "192.168.100.1"}],
        "networks": [{"name": "blue", "vni": 100}],
        "vms": [
            {
                "name": f"vm{n}",
                "interfaces": [
                    {
                        "name": "eth0",
                        "network": "blue",
                        "mac": f"02:00:00:00:00:{n:02x}",
                        "nve": "nve1",
                        "port": f"tap{n}",
                    }
                ],
            }
            for n in range(1, 60)
        ],
    }
    parts = list(inventories.divided(whole))
    assert len(parts) > 3
    assert [item for part in parts for item in part.get("vms", [])] == whole["vms"]
    file = tmp_path / "large.json"
    file.write_text(json.dumps(whole))
    assert nva.json(f"inventory apply {file}") == {"created": 61, "updated": 0, "unchanged": 0}
    assert len(nva.json("vm list")["items"]) == 59
    whole["vms"][-1]["interfaces"][0]["network"] = "grey"
    file.write_text(json.dumps(whole))
    assert re.search(r"part \d of \d failed", nva.run(f"inventory apply {file}", client.INVALID).stderr)


def test_lists_longer_than_a_page(nva: Nva, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGE", 2)
    for n in range(1, 6):
        nva.run(f"network add net{n} --vni {n}")
    assert [n["name"] for n in nva.json("network list")["items"]] == [f"net{n}" for n in range(1, 6)]


# --- events ---------------------------------------------------------------------------------------------------
def test_events(lab: Nva) -> None:
    everything = [json.loads(line) for line in lab.run("events --json").stdout.splitlines()]
    assert len(everything) > 3
    assert [json.loads(x) for x in lab.run("events --json --limit 2").stdout.splitlines()] == everything[-2:]
    after = everything[-3]["id"]
    assert [json.loads(x) for x in lab.run(f"events --json --after {after}").stdout.splitlines()] == everything[-2:]
    assert "nve.connected" not in lab.run("events --kind port").stdout


def test_following_events_goes_on_where_the_past_ends(lab: Nva) -> None:
    found: list[dict[str, Any]] = []
    lab.runtime.log.append(lab.runtime.now(), "test.before", {"n": 0})
    nva = client.Client(lab.url, 5)
    past = list(nva.items("/v1/events", follow="0"))
    lab.runtime.log.append(lab.runtime.now(), "test.between", {"n": 1})
    stream = nva.events(past[-1]["id"], "test.")
    found.append(next(stream))
    lab.runtime.log.append(lab.runtime.now(), "test.after", {"n": 2})
    found.append(next(stream))
    assert [event["kind"] for event in found] == ["test.between", "test.after"]
    stream.close()
    nva.close()


def test_following_ends_when_the_nva_does(lab: Nva, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.Client, "events", lambda self, last, kind: iter(()))
    assert "ended the stream" in lab.run("events --follow", client.UNREACHABLE).stderr
