"""What tools/prove forges is what it says it is: tried against the oracle, as it later is against Open vSwitch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for folder in (Path(__file__).parents[2], Path(__file__).parents[2] / "tools"):
    sys.path.insert(0, str(folder))

from proof.forgeries import Tunnelled, Who, claims, others, tunnelled  # noqa: E402
from proof.forgery import Found, Row  # noqa: E402
from world import TUNNEL, World, ip, mac  # noqa: E402

from ryu_vmm.emulation.tables import Out  # noqa: E402
from ryu_vmm.tables import Drop, Why, cookie, why_of  # noqa: E402

ME, VICTIM = (Who(mac(n), ip(f"10.0.0.{n}"), ip(f"2001:db8::{n}")) for n in (1, 2))
FORGED = {**claims(ME, VICTIM), **others(ME, VICTIM)}
MEMBER, OUTSIDER, NOBODY = (ip(f"192.168.100.{n}") for n in (2, 3, 77))
PACKETS = tunnelled(MEMBER, OUTSIDER, NOBODY, 100, 200, ME)


def world() -> World:
    w = World(3)
    w.network()
    w.network("red", 200)
    w.vm(1, "n1")
    w.vm(2, "n2")
    w.vm(3, "n3", vni=200)
    return w


def dropped(w: World) -> dict[Drop, int]:
    found: dict[Drop, int] = {}
    for entry in w.boxes["n1"].tables.select(cookie=cookie(Why.DROP), cookie_mask=0xFFFFFF << 40):
        about = why_of(entry.cookie)
        assert about is not None
        found[Drop(about[1])] = found.get(Drop(about[1]), 0) + entry.packets
    return {cause: count for cause, count in found.items() if count}


@pytest.mark.parametrize("name", FORGED)
def test_a_ports_forgery_is_dropped_for_its_cause(name: str) -> None:
    w, forgery = world(), FORGED[name]
    assert w.send("n1", "tap-vm1", forgery.frame) == []
    assert dropped(w) == {forgery.cause: 1}
    assert ([kind for kind, _ in w.reports if kind == "announcement.refused"] != []) is forgery.heard


@pytest.mark.parametrize("name", [name for name in PACKETS if PACKETS[name].cause is not None])
def test_an_intruders_packet_is_dropped_for_its_cause(name: str) -> None:
    w, packet = world(), PACKETS[name]
    tables = w.boxes["n1"].tables
    own = w.boxes["n1"].nve.ipv4
    assert not [r for r in tables.run(packet.inner, TUNNEL, packet.vni, packet.source or own) if isinstance(r, Out)]
    assert packet.cause is not None
    assert dropped(w) == {packet.cause: 1}


def test_what_an_intruder_sends_is_vxlan() -> None:
    packet = Tunnelled(MEMBER, 0x123456, b"inner" * 20, None)
    frame = packet.packet(mac(9), MEMBER)
    assert frame[36:38] == (4789).to_bytes(2, "big")
    assert frame[42:50] == bytes.fromhex("0800000012345600")
    assert frame[50:] == b"inner" * 20


def test_what_is_believed_or_not_told_is_a_problem() -> None:
    good = Row("port", 2, 10, expected_heard=10, heard=11)
    assert Found([good]).problems() == []
    assert len(Found([Row("port", 2, 10, moved=1), Row("port", 2, 10, delivered=1)]).problems()) == 2
    assert len(Found([Row("port", 2, 10, expected_heard=10, heard=9)]).problems()) == 1
