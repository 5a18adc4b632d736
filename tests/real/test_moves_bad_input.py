"""What guests and strangers on the underlay may send: dropped, counted by cause, never an exception, never a flow."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from proof import raw
from proof.lab import Lab
from proof.raw import ARP, IPV6, RARP, Card, ip, mac

from ryu_vmm.tables import Drop
from topologies import VM, netns
from topologies.errors import NotReady
from topologies.rundir import wait_until
from topologies.traffic.session import UdpSession, both_ways

LLDP = b"\x01\x80\xc2\0\0\x0e"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(nves=3, vms=6, vns=2, overlap=True, attached={"vn1"}, quiet_time=1.0) as made:
        yield made


@pytest.fixture
def unharmed(lab: Lab) -> Iterator[None]:
    """Afterwards every switch holds the flows it held before, and the guests still reach each other."""

    def held() -> dict[str, list[str]]:
        return {nve.name: nve.flows() for nve in lab.net.nves}

    before = held()
    moves = lab.newest_move()
    yield
    with suppress(NotReady):  # a port that went has to be heard of first
        wait_until(lambda: held() == before, 10, "the flows of before", 0.1)
    assert held() == before
    assert lab.newest_move() == moves
    assert lab.verify() == []
    assert lab.net.pingAll() == 0
    lab.nva.check()


def addresses(vm: VM) -> tuple[bytes, bytes, bytes]:
    assert vm.spec.ip is not None
    assert vm.spec.ip6 is not None
    return mac(vm.spec.mac), ip(vm.spec.ip), ip(vm.spec.ip6)


def malformed(vm: VM, other: VM) -> dict[str, bytes]:
    """Frames that claim to be questions or announcements, by the cause that the NVA counts them under."""
    own, four, six = addresses(vm)
    # Of addresses that nobody has: questions for all others are answered by the edges themselves
    theirs, theirs6 = (address[:-1] + b"\xfe" for address in addresses(other)[1:])
    question = raw.arp(1, own, four, bytes(6), theirs)
    solicitation = raw.solicitation(own, six, theirs6)

    def but(frame: bytes, at: int, new: bytes) -> bytes:
        return frame[:at] + new + frame[at + len(new) :]

    reverse = raw.arp(3, own, bytes(4), own, bytes(4), kind=RARP)
    return {
        "arp-format": but(question, 18, b"\7"),  # hardware addresses of 7 bytes
        "nd-hop-limit": but(solicitation, 21, b"\x40"),
        "nd-checksum": but(solicitation, 56, b"\x12\x34"),
        "nd-option": resummed(but(solicitation, 79, b"\0")),  # an option of length 0
        "nd-address": resummed(but(solicitation, 62, b"\xff\2")),  # a group as target
        "rarp-truncated": reverse[:40],
        "rarp-format": but(reverse, 18, b"\5"),
    }


def resummed(frame: bytes) -> bytes:
    """An ICMPv6 frame with its checksum put right."""
    return raw.ipv6(frame[:6], frame[6:12], frame[22:38], frame[38:54], 58, frame[54:])


@pytest.mark.usefixtures("unharmed")
def test_malformed_questions_and_announcements_are_counted_by_cause(lab: Lab) -> None:
    vm, other = lab.vm("vm1"), lab.vm("vm3")
    before, spoofed = lab.nva.counters("drops"), lab.dropped(Drop.SPOOFED_ARP)
    frames = malformed(vm, other)
    with Card(vm) as card, Card(other) as theirs:
        for frame in frames.values():
            card.send(frame)
        heard = theirs.during(0.4)

    def grown() -> dict[str, int]:
        counted = lab.nva.counters("drops")
        return {cause: counted.get(cause, 0) - before.get(cause, 0) for cause in frames}

    # Open vSwitch itself makes nothing of ARP and RARP of another format: to it that comes from no address
    senseless = {"arp-format", "rarp-format", "rarp-truncated"}
    wait_until(lambda: sum(grown().values()) >= len(frames) - len(senseless), 5, "all to be counted", 0.05)
    lab.await_dropped(Drop.SPOOFED_ARP, spoofed + len(senseless))
    assert grown() == {cause: int(cause not in senseless) for cause in frames}
    own = addresses(vm)[0]
    assert not [f for f in heard if f[6:12] == own and raw.kind_of(f) in (ARP, RARP)]


@pytest.mark.usefixtures("unharmed")
def test_what_is_not_a_ports_own_is_counted_by_cause(lab: Lab) -> None:
    vm, other = lab.vm("vm1"), lab.vm("vm3")
    own, four, six = addresses(vm)
    theirs, four3, six3 = addresses(other)
    stranger = mac("02:00:00:00:66:66")
    na = raw.ipv6(b"\x33\x33\0\0\0\1", own, six, raw.ALL_NODES, 58,
                  struct.pack("!BBHI", 136, 0, 0, 0x20000000) + six3 + b"\2\1" + own)
    frames = [
        (Drop.SPOOFED_MAC, raw.udp4(theirs, stranger, four, four3, b"x" * 20)),
        (Drop.SPOOFED_ARP, raw.arp(2, theirs, four3, theirs, four3)),
        (Drop.SPOOFED_ADDRESS, raw.udp4(theirs, own, bytes((10, 0, 0, 77)), four3, b"x" * 20)),
        (Drop.SPOOFED_ADDRESS, raw.udp6(theirs, own, six3, six3, b"x" * 20)),
        (Drop.SPOOFED_ARP, raw.arp(2, own, four3, own, four3)),  # ARP spoofing: their address at my MAC
        (Drop.SPOOFED_ND, na),  # the same in neighbor discovery
        (Drop.VLAN_TAGGED, theirs + own + b"\x81\0\0\5" + b"\x08\0" + b"\0" * 46),
        (Drop.LINK_LOCAL_CONTROL, raw.ethernet(LLDP, own, 0x88CC, b"\0" * 46)),
        (Drop.UNKNOWN_DESTINATION, raw.udp4(mac("02:00:00:00:55:55"), own, four, bytes((10, 0, 0, 55)), b"x" * 20)),
    ]
    before = {cause: lab.dropped(cause) for cause, _ in frames}
    with Card(vm) as card, Card(other) as theirs_card:
        for _, frame in frames:
            card.send(frame)
        heard = theirs_card.during(0.4)
    for cause in before:
        count = sum(c is cause for c, _ in frames)
        wait_until(lambda cause=cause, count=count: lab.dropped(cause) == before[cause] + count, 5,
                   f"{count} more dropped as {cause.name}", 0.05)
    assert not [f for f in heard if f in [frame for _, frame in frames]]
    # and the NVA's own figures say so too, as soon as it has asked the switches
    wait_until(lambda: all(lab.nva.counters("drops").get(cause.name.lower().replace("_", "-"), 0) >= lab.dropped(cause)
                           for cause in before), 15, "the NVA's counters", 0.2)


@pytest.mark.usefixtures("unharmed")
def test_unknown_networks_and_tunnel_sources_are_counted(lab: Lab) -> None:
    """VXLAN packets that anybody on the underlay may forge: of no network, or from no NVE of the network."""
    vm, sender = lab.vm("vm1"), lab.net.nve("nve3")
    own, four, _ = addresses(lab.vm("vm3"))
    target, theirs, _ = addresses(vm)
    frame = raw.udp4(target, own, four, theirs, b"forged" * 4)
    before = {cause: lab.dropped(cause) for cause in (Drop.UNKNOWN_VNI, Drop.UNKNOWN_TUNNEL_SOURCE)}
    to = (vm.nve.ipv4 or "").partition("/")[0]
    stranger = "192.168.100.77"

    def forge(vni: int, source: str | None = None) -> None:
        with netns.entered(sender.namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            if source:
                sock.bind((source, 0))
            for _ in range(5):
                sock.sendto(struct.pack("!II", 0x08000000, vni << 8) + frame, (to, 4789))

    netns.ip_batch(sender.namespace, f"addr add {stranger}/24 dev br-ext")
    try:
        with Card(vm) as card:
            for vni in (4711, 0, 0xFFFFFF, 0xFFF123):  # nobody's, none, and the NVA's own range of marks
                forge(vni)
            forge(100, stranger)
            heard = card.during(0.4)
    finally:
        netns.ip_batch(sender.namespace, f"addr del {stranger}/24 dev br-ext")
    assert not [f for f in heard if b"forged" in f]
    for cause, count in ((Drop.UNKNOWN_VNI, 20), (Drop.UNKNOWN_TUNNEL_SOURCE, 5)):
        wait_until(lambda cause=cause, count=count: lab.dropped(cause) >= before[cause] + count, 5,
                   f"{count} more dropped as {cause.name}", 0.05)


def junk(chance: random.Random, own: bytes) -> bytes:
    """Any frame that starts as an announcement, a question, or anything, and goes on at random."""
    kind = chance.choice((ARP, RARP, IPV6, 0x0800, 0x8100, 0x88B5, chance.randrange(0x10000)))
    dst = chance.choice((raw.BROADCAST, b"\x33\x33\0\0\0\1", own, bytes(6), chance.randbytes(6)))
    frame = dst + chance.choice((own, own, chance.randbytes(6))) + kind.to_bytes(2, "big")
    if kind == IPV6 and chance.random() < 0.7:
        body = bytes([chance.choice((135, 136)), 0]) + chance.randbytes(chance.randrange(40))
        head = struct.pack("!IHBB", 0x60000000, chance.choice((len(body), 0, 65535)), 58, chance.choice((255, 1)))
        return frame + head + chance.randbytes(32) + body
    if kind in (ARP, RARP) and chance.random() < 0.7:
        fixed = struct.pack("!HHBBH", 1, 0x0800, 6, 4, chance.randrange(6))
        return frame + fixed + chance.randbytes(chance.randrange(30))
    return frame + chance.randbytes(chance.randrange(200))


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("seed", [1, 2])
def test_a_guest_that_sends_junk_harms_nobody(lab: Lab, seed: int) -> None:
    """Some thousand random frames from a guest, from its own port and from one where it may show up only."""
    chance = random.Random(seed)
    vm = lab.vm("vm1")
    own = addresses(vm)[0]
    elsewhere = lab.net.nve("nve2")
    vm.attachment.prepare(elsewhere)  # registered for vm1, so what it sends there is heard by the NVA
    try:
        with UdpSession(both_ways(lab.vm("vm3"), lab.vm("vm5"), 4, 200.0), quiet=0.4) as session, Card(vm) as card:
            for turn in range(2000):
                frame = junk(chance, own)
                try:
                    card.send(frame)
                except OSError:
                    continue  # too long for the card
                if turn % 10 == 0:
                    early = bytes(6) if frame[12:14] in (b"\x08\x06", b"\x80\x35", b"\x86\xdd") else frame[6:12]
                    vm.lab.vnic.ask("announce", vm=vm.name, nve=elsewhere.name,
                                    frames=[(0, (frame[:6] + early + frame[12:]).ljust(60, b"\0").hex())])
            time.sleep(0.3)
            outcome = session.stop()
        assert lab.get("/vms/vm1")["interfaces"][0]["nve"] == vm.nve.name
        assert outcome.lost == outcome.duplicated == outcome.foreign == 0
    finally:
        vm.attachment.unprepare(elsewhere)
        lab.await_synced()
