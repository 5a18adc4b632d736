"""Forged packets in networks of layer 3, from guests and from the underlay: none arrives, each is counted."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from proof import layer3, raw
from proof.errors import UNREACHABLE, told
from proof.lab import Lab
from proof.raw import Card

from ryu_vmm.tables import Drop
from topologies import netns
from topologies.frames import checksum
from topologies.specs import GATEWAY_MAC

MARK = b"forged, layer 3!"
GATEWAY = raw.mac(GATEWAY_MAC)
FOUR, SIX = raw.ip("10.1.1.100"), raw.ip("2001:db8:1:1::64")  # cli1's own
NEAR4, NEAR6 = raw.ip("10.1.1.1"), raw.ip("2001:db8:1:1::1")  # task1's, at the same edge
FAR4, FAR6 = raw.ip("10.1.2.100"), raw.ip("2001:db8:1:2::64")  # cli2's
GUESTS_SEEN = ("task1", "cli1", "cli2", "cli3", "mob1", "far1", "far3", "alien1")
OWN, NEAR, FAR = raw.mac("02:00:00:64:01:64"), raw.mac("02:00:00:64:01:01"), raw.mac("02:00:00:64:02:64")
PATIENCE = 0.15  # seconds in which what must not arrive would have arrived
ARRIVING = 5.0  # seconds for what must


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with layer3.laboratory("both", ping=False) as made:
        made.net.await_pings([made.vm(name) for name in ("cli1", "cli2", "task1", "mob1", "far3")])
        yield made


def delivered(lab: Lab, act: Callable[[], object], expected: str | None = None) -> list[str]:
    """The guests that see a datagram with the mark while something is done, and for a moment after.

    expected: who ought to see it; the moment begins when it has, or when that has taken too long.
    """
    with contextlib.ExitStack() as stack:
        cards = {name: stack.enter_context(Card(lab.vm(name))) for name in GUESTS_SEEN}
        act()
        saw = {expected} if expected and cards[expected].await_frame(marked, ARRIVING) is not None else set()
        time.sleep(PATIENCE)  # what must not come has no event to wait for
        saw |= {name for name, card in cards.items() if any(map(marked, card.during(0.0)))}
        return [name for name in cards if name in saw]


def marked(frame: bytes) -> bool:
    """Not what answers quote of it."""
    return MARK in frame and frame[20 if raw.kind_of(frame) == raw.IPV6 else 23] == 17


def underlay(lab: Lab, kind: int, packet: bytes) -> Callable[[], None]:
    """What sends a packet to nve1 from a host on the underlay."""
    [link] = json.loads(netns.run(["ip", "-n", lab.net.nve("nve1").namespace, "-json", "link", "show", "br-ext"]))
    frame = raw.ethernet(raw.mac(link["address"]), raw.mac("02:00:00:00:00:99"), kind, packet)

    def send() -> None:
        with netns.entered(lab.net.nve("nve3").namespace):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with wire:
            wire.bind(("und0", 0))
            wire.send(frame)

    return send


def claimed_na(address: str, dst: bytes, group: bytes) -> bytes:
    """An unsolicited advertisement that an address is at cli1's MAC."""
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + raw.ip(address) + b"\2\1" + OWN
    return raw.ipv6(dst, OWN, raw.ip(address), group, 58, body)


def advertisement() -> bytes:
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\1\1" + OWN
    return raw.ipv6(b"\x33\x33\0\0\0\1", OWN, SIX, raw.ALL_NODES, 58, body)


GUESTS = {
    "another's IPv4 address": (raw.udp4(GATEWAY, OWN, NEAR4, FAR4, MARK), Drop.SPOOFED_ADDRESS),
    "another's IPv6 address": (raw.udp6(GATEWAY, OWN, NEAR6, FAR6, MARK), Drop.SPOOFED_ADDRESS),
    "the gateway's IPv4 address": (raw.udp4(NEAR, OWN, raw.ip("169.254.1.1"), NEAR4, MARK), Drop.SPOOFED_ADDRESS),
    "the gateway's IPv6 address": (raw.udp6(NEAR, OWN, raw.ip("fe80::1"), NEAR6, MARK), Drop.SPOOFED_ADDRESS),
    "an NVE's address": (raw.udp6(GATEWAY, OWN, raw.ip("fd00:100::2"), FAR6, MARK), Drop.SPOOFED_ADDRESS),
    "an address under a locator": (
        raw.udp6(GATEWAY, OWN, raw.ip("fd00:1:0:1::1:64"), FAR6, MARK), Drop.SPOOFED_ADDRESS),
    "the gateway's MAC": (raw.udp4(NEAR, GATEWAY, FOUR, NEAR4, MARK), Drop.SPOOFED_MAC),
    "another's MAC": (raw.udp4(GATEWAY, NEAR, NEAR4, FAR4, MARK), Drop.SPOOFED_MAC),
    "ARP for the gateway's address": (
        raw.arp(2, OWN, raw.ip("169.254.1.1"), NEAR, NEAR4, dst=NEAR), Drop.SPOOFED_ARP),
    "ARP for the gateway's address to all": (
        raw.arp(1, OWN, raw.ip("169.254.1.1"), bytes(6), raw.ip("169.254.1.1")), Drop.SPOOFED_ARP),
    "ND for the gateway's address": (claimed_na("fe80::1", NEAR, NEAR6), Drop.SPOOFED_ND),
    "a router's advertisement": (advertisement(), Drop.ROUTER_ADVERTISEMENT),
    "link-local destinations": (
        raw.udp6(GATEWAY, OWN, SIX, raw.ip("fe80::ff:fe64:101"), MARK), Drop.NOT_ROUTED),
}


@pytest.mark.parametrize("name", GUESTS)
def test_a_guests_forgery_is_dropped_and_counted(lab: Lab, name: str) -> None:
    frame, cause = GUESTS[name]
    before = lab.dropped(cause)
    with Card(lab.vm("cli1")) as card:
        assert delivered(lab, lambda: (card.send(frame), lab.await_dropped(cause, before + 1))) == []
    for other in ("task1", "cli2"):
        known = json.loads(netns.run(netns.inside(lab.vm(other).namespace, ["ip", "-json", "neigh"])))
        assert {entry.get("lladdr") for entry in known} <= {GATEWAY_MAC, None}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("to", ["same edge", "other edge"])
def test_nothing_goes_past_the_router(lab: Lab, to: str, family: int) -> None:
    """A guest that knows another's MAC address cannot reach it on the link: there is no such link."""
    mac, four, six = (NEAR, NEAR4, NEAR6) if to == "same edge" else (FAR, FAR4, FAR6)
    frame = raw.udp4(mac, OWN, FOUR, four, MARK) if family == 4 else raw.udp6(mac, OWN, SIX, six, MARK)
    with Card(lab.vm("cli1")) as card:
        assert delivered(lab, lambda: card.send(frame)) == []


@pytest.mark.parametrize("address", ["fd00:100::2", "fd00:1:0:2::2:64", "192.168.100.2"])
def test_guests_do_not_reach_the_underlay(lab: Lab, address: str) -> None:
    answer = told(lab.vm("far1"), address, seconds=ARRIVING)
    assert answer is not None
    assert (answer.family, answer.type) in UNREACHABLE
    assert answer.router == ("fe80::1" if ":" in address else "169.254.1.1")


# --- from the underlay --------------------------------------------------------------------------------------------
def gre(source: str, target: str, vni: int, kind: int, packet: bytes) -> tuple[int, bytes]:
    """(Ethernet type, packet of the underlay) with a packet inside."""
    body = struct.pack("!HHI", 0x2000, kind, vni) + packet
    ends = raw.ip(source) + raw.ip(target)
    if ":" in source:
        return raw.IPV6, struct.pack("!IHBB", 0x60000000, len(body), 47, 64) + ends + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 47, 0) + ends
    return raw.IPV4, head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def plain(source: str, target: str) -> tuple[int, bytes]:
    return raw.IPV6, raw.udp6(OWN, OWN, raw.ip(source), raw.ip(target), MARK)[14:]


INNER4 = raw.udp4(GATEWAY, OWN, FAR4, FOUR, MARK)[14:]
INNER6 = raw.udp6(GATEWAY, OWN, FAR6, SIX, MARK)[14:]
UNDERLAY = {
    "a tunnel of no NVE": (gre("192.168.100.77", "192.168.100.1", 100, raw.IPV4, INNER4), Drop.UNKNOWN_TUNNEL_SOURCE),
    "a tunnel of no NVE, IPv6": (gre("fd00:100::77", "fd00:100::1", 100, raw.IPV6, INNER6), Drop.UNKNOWN_TUNNEL_SOURCE),
    "a network that is none": (gre("192.168.100.2", "192.168.100.1", 999, raw.IPV4, INNER4), Drop.UNKNOWN_VNI),
    "a network without members there": (
        gre("192.168.100.2", "192.168.100.1", 400, raw.IPV4, INNER4), Drop.UNKNOWN_TUNNEL_SOURCE),
    "a locator's address from outside of the SIR prefix": (
        plain("2001:db8:1:2::64", "fd00:1:0:1::1:1"), Drop.UNKNOWN_LOCATOR),
    "a locator's address of nobody": (plain("2001:db8:5:2::3:64", "fd00:1:0:1::dead"), Drop.UNKNOWN_LOCATOR),
}


@pytest.mark.parametrize("name", UNDERLAY)
def test_what_the_underlay_forges_is_dropped_and_counted(lab: Lab, name: str) -> None:
    (kind, packet), cause = UNDERLAY[name]
    before = lab.dropped(cause)
    send = underlay(lab, kind, packet)
    assert delivered(lab, lambda: (send(), lab.await_dropped(cause, before + 1))) == []


def test_what_is_not_forged_arrives_by_the_same_ways(lab: Lab) -> None:
    """Else the tests above would show nothing."""
    tunnelled = underlay(lab, *gre("192.168.100.2", "192.168.100.1", 100, raw.IPV4, INNER4))
    assert delivered(lab, tunnelled, "cli1") == ["cli1"]
    assert delivered(lab, underlay(lab, *plain("2001:db8:5:2::3:64", "fd00:1:0:1::1:1")), "mob1") == ["mob1"]
    with Card(lab.vm("cli1")) as card:
        assert delivered(lab, lambda: card.send(raw.udp4(GATEWAY, OWN, FOUR, FAR4, MARK)), "cli2") == ["cli2"]
    assert lab.verify() == []
