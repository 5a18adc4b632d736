"""What counts as a sign of life at a destination, and how a VM that still runs at its source is taken back."""

from __future__ import annotations

import itertools
import struct

import pytest
from world import World, arp, broadcast, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.admission import link_local
from ryu_vmm.model import Admit, Distribution, Interface, Kind, MoveState, Place, Policy, Trust
from ryu_vmm.signs import TABLE, Sign, Verdict, sign_of
from ryu_vmm.watching import ASKER
from ryu_vmm.wire import frames

LINK_LOCAL = link_local(mac(1))
ALL_ROUTERS = ip("ff02::2")


def ipv6(src: bytes, dst: bytes, following: int, payload: bytes, eth_dst: bytes | None = None) -> bytes:
    """A frame of vm1 with any IPv6 packet."""
    to = eth_dst or b"\x33\x33" + dst[12:]
    return to + mac(1) + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(payload), following, 255) + src + dst + payload


def ipv4(src: str, dst: str, protocol: int = 17, eth_dst: bytes = b"\xff" * 6) -> bytes:
    """A frame of vm1 with any IPv4 packet, ports 68 to 67."""
    udp = struct.pack("!HHHH", 68, 67, 8 + 20, 0) + bytes(20)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, protocol, 0)
    return eth_dst + mac(1) + b"\x08\0" + head + ip(src) + ip(dst) + udp


MLD = ipv6(bytes(16), ip("ff02::16"), 0, b"\x3a\0\5\2\0\0\1\0" + b"\x8f\0\0\0\0\0\0\1" + bytes(20))
BY_ITSELF = {
    "MLD report from no address": MLD,
    "MLD report": ipv6(LINK_LOCAL, ip("ff02::16"), 0, MLD[54:]),
    "DAD": frames.build_ns(mac(1), bytes(16), ip("2001:db8::1")),
    "DAD of a link-local address": frames.build_ns(mac(1), bytes(16), LINK_LOCAL),
    "ARP probe": frames.build_arp_request(mac(1), bytes(4), ip("10.0.0.1")),
    "router solicitation": ipv6(LINK_LOCAL, ALL_ROUTERS, 58, b"\x85\0\0\0" + bytes(4)),
    "router solicitation from no address": ipv6(bytes(16), ALL_ROUTERS, 58, b"\x85\0\0\0" + bytes(4)),
    "NS from a link-local address": frames.build_ns(mac(1), LINK_LOCAL, ip("2001:db8::2")),
    "NA of a link-local address": frames.build_unsolicited_na(mac(1), LINK_LOCAL),
    "unicast from a link-local address": ipv6(LINK_LOCAL, ip("2001:db8::2"), 17, bytes(20), mac(2)),
    "IGMP report": ipv4("0.0.0.0", "224.0.0.22", 2, b"\1\0\x5e\0\0\x16"),
    "DHCP": ipv4("0.0.0.0", "255.255.255.255"),
    "mDNS": ipv4("10.0.0.1", "224.0.0.251", 17, b"\1\0\x5e\0\0\xfb"),
    "mDNS over IPv6": ipv6(ip("2001:db8::1"), ip("ff02::fb"), 17, bytes(20)),
    "broadcast": broadcast(1),
    "no IP": b"\1\0\x0c\xcc\xcc\xcd" + mac(1) + b"\x88\xcc" + bytes(20),
}
ANNOUNCED = {
    "gratuitous ARP": frames.build_garp(mac(1), ip("10.0.0.1")),
    "gratuitous ARP reply": frames.build_garp(mac(1), ip("10.0.0.1"), request=False),
    "unsolicited NA": frames.build_unsolicited_na(mac(1), ip("2001:db8::1")),
    "RARP": frames.build_rarp_request(mac(1)),
}
SPOKEN = {
    "data": unicast(1, 2),
    "data over IPv6": ipv6(ip("2001:db8::1"), ip("2001:db8::2"), 17, bytes(20), mac(2)),
    "ARP request": arp(1, 2),
    "ARP reply": frames.build_arp_reply(mac(1), ip("10.0.0.1"), mac(2), ip("10.0.0.2")),
    "NS": frames.build_ns(mac(1), ip("2001:db8::1"), ip("2001:db8::2")),
    "NA": frames.build_na(ip("2001:db8::1"), mac(1), ip("2001:db8::2"), mac(2)),
}
FRAMES = {**BY_ITSELF, **ANNOUNCED, **SPOKEN}
DELIVERED = {"n1": [("n1", "tap-vm1")], "n2": [("n2", "tap-vm1")]}


def kind_of(name: str) -> Sign:
    return Sign.ITSELF if name in BY_ITSELF else Sign.ANNOUNCED if name in ANNOUNCED else Sign.SPOKEN


def town(policy: Policy | None = None, **more: object) -> World:
    """vm1 on n1, vm2 on n2, vm3 on n3; a port for vm1 on n2 as well."""
    w = World(3)
    w.network(policy=policy)
    for n, nve in enumerate(("n1", "n2", "n3"), 1):
        w.vm(n, nve, **(more if n == 1 else {}))  # type: ignore[arg-type]
    w.plug("n2", "tap-vm1")
    return w


def to_vm1(w: World) -> list[tuple[str, str]]:
    return w.send("n3", "tap-vm3", unicast(3, 1))


def asked(w: World, nve: str = "n1", port: str = "tap-vm1") -> list[bytes]:
    """What the NVA has asked a port so far."""
    return [frame for where, at, frame in w.out if (where, at) == (nve, port) and frame[6:12] == ASKER]


def answer(question: bytes, n: int = 1) -> bytes:
    """What a guest answers."""
    if question[12:14] == frames.ETH_ARP:
        return frames.build_arp_reply(mac(n), ip(f"10.0.0.{n}"), question[6:12], bytes(4))
    nd = frames.parse_nd(question)
    return frames.build_na(nd.target, mac(n), nd.src, nd.eth_src)


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(itertools.product(Sign, (False, True), (False, True)))


@pytest.mark.parametrize("name", FRAMES)
def test_what_a_frame_is(name: str) -> None:
    found = World(1)
    found.network()
    found.vm(1, "n1")
    interface = found.nva.state.interfaces["vm1/eth0"]
    assert sign_of(interface, FRAMES[name], frames.classify(FRAMES[name])) is kind_of(name)


def test_a_link_local_address_that_is_registered_is_the_guest_s_own() -> None:
    own = Interface("v/e", "v", "e", 1, mac(1), (), (LINK_LOCAL,), Place("n1", "p"))
    frame = BY_ITSELF["NA of a link-local address"]
    assert sign_of(own, frame, frames.classify(frame)) is Sign.ANNOUNCED


@pytest.mark.parametrize(
    ("redirect", "up", "admit"),
    [*itertools.product((False, True), (False, True), (Admit.MAC,)), (False, True, Admit.ADDRESSES)],
)
@pytest.mark.parametrize("name", FRAMES)
def test_what_follows_from_a_frame(name: str, redirect: bool, up: bool, admit: Admit) -> None:
    """Every kind of frame at the destination, before and after 'about to pause', source's port up or gone."""
    w = town(Policy(admit=admit))
    move = w.move("vm1", "n2")
    if redirect:
        w.handle(ev.RedirectRequested(move.id))
        w.advance(0.1)
    if not up:
        w.unplug("n1", "tap-vm1")
    before = w.current(move).state
    w.send("n2", "tap-vm1", FRAMES[name])
    found, verdict = w.current(move), TABLE[kind_of(name), redirect, up]
    assert found.state is (before if verdict is Verdict.NOTHING else MoveState.DRAINING)
    assert found.watched is (verdict is Verdict.WATCHED)
    w.advance(0.1)
    assert bool(asked(w)) is (verdict is Verdict.WATCHED)
    assert w.differences() == []
    if verdict is Verdict.NOTHING and not redirect:
        assert to_vm1(w) == DELIVERED["n1"]
        w.handle(ev.AbortRequested(move.id))
        assert w.current(move).state is MoveState.ABORTED


@pytest.mark.parametrize("distribution", list(Distribution))
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("family", [0, 1])
def test_a_vm_that_answers_at_its_source_is_taken_back(kind: Kind, family: int, distribution: Distribution) -> None:
    w = town(Policy(distribution=distribution))
    move = w.move("vm1", "n2", kind)
    w.send("n2", "tap-vm1", ANNOUNCED["gratuitous ARP"])
    assert to_vm1(w) == DELIVERED["n2"]
    w.advance(0.1)
    w.send("n1", "tap-vm1", answer(asked(w)[family]))
    assert to_vm1(w) == DELIVERED["n1"]
    back = next(m for m in w.nva.state.open_moves() if m.id != move.id)
    assert (back.source, back.destination, back.watched) == ("n2", "n1", False)
    assert ("move.taken-back", {"move": move.id, "vm": "vm1", "nve": "n1", "port": "tap-vm1",
                                "by": "arp-reply" if family == 0 else "na"}) in w.reports  # fmt: skip
    w.advance(5)
    assert w.current(move).state is MoveState.FAILED and "heard at its source" in str(w.current(move).error)
    assert to_vm1(w) == DELIVERED["n1"] and w.differences() == []
    assert w.send("n1", "tap-vm1", unicast(1, 3)) == [("n3", "tap-vm3")]


def test_a_vm_that_only_talks_at_its_source_is_taken_back_once_that_cannot_be_what_was_queued() -> None:
    w = town()
    move = w.move("vm1", "n2")
    w.send("n2", "tap-vm1", SPOKEN["data"])
    for _ in range(40):  # what waited in the source's port while the guest moved
        assert ("n3", "tap-vm3") in w.send("n1", "tap-vm1", unicast(1, 3))
    assert to_vm1(w) == DELIVERED["n2"] and len(asked(w)) == 2
    w.advance(0.4)
    assert to_vm1(w) == DELIVERED["n2"] and w.current(move).error is None
    w.send("n1", "tap-vm1", MLD)
    assert to_vm1(w) == DELIVERED["n2"]
    w.send("n1", "tap-vm1", unicast(1, 3))
    assert to_vm1(w) == DELIVERED["n1"]
    w.advance(5)
    assert w.current(move).state is MoveState.FAILED and w.differences() == []


def test_a_frame_of_the_epoch_before_takes_nothing_back() -> None:
    """The source has not heard yet of the new epoch: what its port hands over by then says nothing."""
    w = town()
    move = w.move("vm1", "n2")
    w.late = {"n1"}
    w.send("n2", "tap-vm1", ANNOUNCED["gratuitous ARP"])
    w.advance(0.3)
    question = frames.build_arp_request(ASKER, bytes(4), ip("10.0.0.1"))
    for frame in (*ANNOUNCED.values(), *SPOKEN.values(), answer(question)):
        w.send("n1", "tap-vm1", frame)
    assert w.current(move).error is None and to_vm1(w) == DELIVERED["n2"]


def test_a_silent_source_is_asked_three_times_and_then_left_alone() -> None:
    w = town()
    move = w.move("vm1", "n2")
    w.send("n2", "tap-vm1", ANNOUNCED["RARP"])
    w.advance(5)
    assert w.current(move).state is MoveState.SETTLED
    assert len(asked(w)) == 2 * 3  # IPv4 and IPv6
    w.plug("n2", "tap-vm1")
    assert to_vm1(w) == DELIVERED["n2"] and w.differences() == []


def test_whoever_reports_the_vm_running_knows_it() -> None:
    w = town()
    move = w.move("vm1", "n2")
    w.send("n2", "tap-vm1", ANNOUNCED["gratuitous ARP"])
    w.handle(ev.ActivationReported(move.id))
    assert not w.current(move).watched
    w.advance(0.5)
    assert asked(w) == [] and w.differences() == []


def test_an_nva_that_starts_again_goes_on_watching() -> None:
    w = town()
    move = w.move("vm1", "n2")
    w.send("n2", "tap-vm1", ANNOUNCED["gratuitous ARP"])
    w.kill()
    w.out.clear()
    w.start()
    w.advance(0.5)
    w.send("n1", "tap-vm1", answer(asked(w)[0]))
    assert to_vm1(w) == DELIVERED["n1"]
    w.advance(20, step=0.5)
    assert w.current(move).state is MoveState.FAILED and w.differences() == []


@pytest.mark.parametrize("restarted", [False, True])
def test_a_source_that_is_away_is_asked_when_it_is_back(restarted: bool) -> None:
    w = town()
    move = w.move("vm1", "n2")
    if not restarted:
        w.disconnect("n1")
    w.send("n2", "tap-vm1", ANNOUNCED["gratuitous ARP"])
    if restarted:
        w.kill()
        w.out.clear()
        w.start("n2", "n3")
    w.advance(3)
    w.connect("n1")
    w.advance(0.1)
    w.send("n1", "tap-vm1", answer(asked(w)[0]))
    assert to_vm1(w) == DELIVERED["n1"]
    w.advance(20, step=0.5)
    assert w.current(move).state is MoveState.FAILED and w.differences() == []
    assert not [key for key in w.deadlines if key[0] in ("watch", "rewatch")]


@pytest.mark.parametrize("case", ["a move", "an attachment", "any port"])
def test_a_source_that_has_said_nothing_since_the_nva_started_has_not_gone(case: str) -> None:
    places = (Place("n2", "tap-vm1"),) if case == "an attachment" else ()
    w = town(Policy(announcements=Trust.ANY if case == "any port" else Trust.BOUND), attachments=places)
    if case == "a move":
        w.move("vm1", "n2")
    w.kill()
    w.start("n2", "n3")
    for frame in (*BY_ITSELF.values(), *([] if case == "a move" else SPOKEN.values())):
        w.send("n2", "tap-vm1", frame)
    w.connect("n1")
    w.advance(1)
    assert to_vm1(w) == DELIVERED["n1"] and w.differences() == []
    w.unplug("n1", "tap-vm1")  # now it has
    w.send("n2", "tap-vm1", SPOKEN["ARP request"])
    assert to_vm1(w) == DELIVERED["n2"]


def test_all_interfaces_of_a_vm_are_taken_back_together() -> None:
    w = town()
    other = Interface("vm1/eth1", "vm1", "eth1", 100, mac(9), (ip("10.0.0.9"),), (), Place("n1", "tap-vm9"))
    w.handle(ev.VmSubmitted("vm1", (w.nva.state.interfaces["vm1/eth0"], other)))
    for nve in ("n1", "n2"):
        w.plug(nve, "tap-vm9")
    move = w.move("vm1", "n2")
    w.send("n2", "tap-vm1", MLD)
    w.send("n2", "tap-vm9", frames.build_ns(mac(9), bytes(16), ip("2001:db8::9")))
    assert w.current(move).state is MoveState.PREPARED
    w.send("n2", "tap-vm9", frames.build_garp(mac(9), ip("10.0.0.9")))
    w.advance(0.1)
    w.send("n1", "tap-vm1", answer(asked(w)[0]))
    places = [w.nva.state.interfaces[i].location for i in ("vm1/eth0", "vm1/eth1")]
    assert places == [Place("n1", "tap-vm1"), Place("n1", "tap-vm9")]
    w.advance(5)
    assert w.current(move).state is MoveState.FAILED and w.differences() == []


def test_only_the_leg_whose_source_has_gone_may_say_anything() -> None:
    w = town()
    other = Interface("vm1/eth1", "vm1", "eth1", 100, mac(9), (ip("10.0.0.9"),), (), Place("n1", "tap-vm9"))
    w.handle(ev.VmSubmitted("vm1", (w.nva.state.interfaces["vm1/eth0"], other)))
    for nve in ("n1", "n2"):
        w.plug(nve, "tap-vm9")
    move = w.move("vm1", "n2")
    w.unplug("n1", "tap-vm9")
    w.send("n2", "tap-vm1", MLD)
    assert w.current(move).state is MoveState.REDIRECTING
    w.send("n2", "tap-vm9", frames.build_ns(mac(9), bytes(16), ip("2001:db8::9")))
    assert w.current(move).state is MoveState.DRAINING


@pytest.mark.parametrize("trusting", [False, True], ids=["attachment", "any port"])
def test_what_a_kernel_says_by_itself_where_the_vm_may_show_up_moves_nobody(trusting: bool) -> None:
    places = () if trusting else (Place("n2", "tap-vm1"),)
    w = town(Policy(announcements=Trust.ANY if trusting else Trust.BOUND), attachments=places)
    for frame in BY_ITSELF.values():
        w.send("n2", "tap-vm1", frame)
    assert not w.nva.state.moves and to_vm1(w) == DELIVERED["n1"]
    w.unplug("n1", "tap-vm1")
    w.send("n2", "tap-vm1", BY_ITSELF["NA of a link-local address"])
    assert to_vm1(w) == DELIVERED["n2"] and w.differences() == []


@pytest.mark.parametrize("trusting", [False, True], ids=["attachment", "any port"])
def test_an_announcement_where_the_vm_may_show_up_is_contradicted_at_its_location(trusting: bool) -> None:
    places = () if trusting else (Place("n2", "tap-vm1"),)
    w = town(Policy(announcements=Trust.ANY if trusting else Trust.BOUND), attachments=places)
    w.send("n2", "tap-vm1", ANNOUNCED["unsolicited NA"])
    assert to_vm1(w) == DELIVERED["n2"]
    w.advance(0.1)
    w.send("n1", "tap-vm1", answer(asked(w)[0]))
    assert to_vm1(w) == DELIVERED["n1"]
    w.advance(5)
    assert [m.state for m in w.nva.state.moves.values()] == [MoveState.FAILED, MoveState.SETTLED]
    assert w.differences() == []


def test_two_that_speak_in_turns_end_frozen() -> None:
    w = town(attachments=(Place("n2", "tap-vm1"),))
    for _ in range(10):
        w.send("n2", "tap-vm1", ANNOUNCED["gratuitous ARP"])
        w.advance(0.1)
        w.send("n1", "tap-vm1", ANNOUNCED["gratuitous ARP"])
    assert "vm1/eth0" in w.nva.state.frozen
    assert len(w.nva.state.moves) == w.nva.settings.flap_moves
    w.advance(10)
    assert w.differences() == []
