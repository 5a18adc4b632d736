"""Switches that nobody knows, and switches that are taken for somebody else: what is said of them, and how often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from live import LiveRuntime
from rest_lab import client, lab
from world import World

from ryu_vmm import events as ev
from ryu_vmm.cli.client import UNREACHABLE
from ryu_vmm.cli.root import vmm
from ryu_vmm.edge.plan import Edge
from ryu_vmm.effects import Report
from ryu_vmm.model import Nve, Place

__all__ = ["client", "lab"]

STOCK = tuple(ev.PortInfo(n, f"s1-eth{n}", True) for n in range(1, 4))


def told(w: World, kind: str) -> list[dict[str, Any]]:
    return [fields for found, fields in w.reports if found == kind]


def test_an_unknown_switch_is_told_with_the_command_that_registers_it() -> None:
    w = World()
    w.handle(ev.NveConnected(0xABC, STOCK))
    (fields,) = told(w, "nve.unregistered")
    assert fields["dpid"] == "0000000000000abc"
    assert fields["ports"] == ["s1-eth1", "s1-eth2", "s1-eth3"]
    words = str(fields["register"]).replace("NAME", "nve4").replace("ADDRESS", "192.0.2.1").split()
    assert words[0] == "vmm"
    tried = CliRunner(env={"VMM_URL": "http://127.0.0.1:1"}).invoke(vmm, words[1:])
    assert tried.exit_code == UNREACHABLE  # it is a command that there is, with options that there are


def test_it_is_told_once_however_often_it_comes_back(lab: Any, runtime: LiveRuntime) -> None:
    for _ in range(50):
        runtime.event(ev.NveConnected(0xABC, STOCK))
        runtime.event(ev.NveDisconnected(0xABC))
    entries = lab.get("/v1/events?follow=0&kind=nve.unregistered").json()["items"]
    assert len(entries) == 1
    assert "vmm nve add NAME --dpid 0000000000000abc --ipv4 ADDRESS" in entries[0]["fields"]["register"]


@pytest.mark.parametrize(
    ("ports", "doubtful"),
    [
        (STOCK, True),
        ((), True),
        ((*STOCK, ev.PortInfo(9, "vxlan", True)), False),
        ((ev.PortInfo(5, "tap-vm1", True),), False),  # its tunnel port has been lost, and it is n1 all the same
        ((ev.PortInfo(5, "tap-later", True),), False),  # somebody may show up there
    ],
    ids=["stock", "bare", "tunnel", "guest", "attachment"],
)
def test_a_switch_that_does_not_look_its_part_is_told(ports: tuple[ev.PortInfo, ...], doubtful: bool) -> None:
    w = World()
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n2", attachments=(Place("n1", "tap-later"),))
    w.disconnect("n1")
    w.reports.clear()
    w.handle(ev.NveConnected(1, ports))
    assert len(told(w, "nve.connected")) == 1
    found = told(w, "nve.doubtful")
    assert [fields["nve"] for fields in found] == (["n1"] if doubtful else [])
    if doubtful:
        assert found[0]["dpid"] == "0000000000000001"
        port = Edge("nve1", (), ipv4="192.0.2.1", bridge="BRIDGE").tunnel_step().words
        made = str(found[0]["remedy"]).partition("(")[2].partition(")")[0].split()
        assert "add-port BRIDGE vxlan -- set Interface vxlan type=vxlan" in " ".join(made)
        assert {word for word in made if "=" in word} == {word for word in port if "=" in word}


def test_the_port_that_is_missed_is_named_as_it_is_registered() -> None:
    w = World()
    w.handle(ev.NveSubmitted(replace(w.boxes["n1"].nve, tunnel_port="underlay0")))
    w.disconnect("n1")
    w.handle(ev.NveConnected(1, STOCK))
    assert "add-port BRIDGE underlay0 -- set Interface underlay0 type=vxlan" in told(w, "nve.doubtful")[-1]["remedy"]


def test_a_stranger_that_is_registered_without_a_tunnel_port_is_doubtful_then() -> None:
    w = World()
    w.handle(ev.NveConnected(0xABC, STOCK))
    assert told(w, "nve.doubtful") == []
    outcome = w.nva.handle(ev.NveSubmitted(Nve("n9", 0xABC, bytes([192, 0, 2, 9]))), w.now)
    found = [e.fields for e in outcome.effects if isinstance(e, Report) and e.kind == "nve.doubtful"]
    assert [fields["nve"] for fields in found] == ["n9"]
