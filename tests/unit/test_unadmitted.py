"""What a port was not admitted to send is remembered and told, at a bounded cost, and taken for no offence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from forged import icmpv6, ipv6_frame
from test_guard import FROM_ROUTERS, FROM_SERVERS, NEVER
from world import World, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm import unadmitted
from ryu_vmm.cli import render
from ryu_vmm.emulation import packets
from ryu_vmm.model import Place, Unadmitted
from ryu_vmm.nva import Settings
from ryu_vmm.rest import views
from ryu_vmm.tables import Drop, Why, cookie
from ryu_vmm.wire import frames

PORT = Place("n1", "tap-vm1")
STRANGE = ip("fe80::99")
CHATTER = ipv6_frame(1, STRANGE, ip("ff02::16"), 58, b"\x8f\0\0\0\0\0\0\0")
KINDS: dict[str, tuple[Drop, bytes, bytes]] = {
    "an unregistered link-local address": (Drop.SPOOFED_ADDRESS, CHATTER, STRANGE),
    "an unregistered IPv4 address": (
        Drop.SPOOFED_ADDRESS,
        packets.build({"eth_src": mac(1), "eth_dst": mac(2), "ipv4_src": ip("10.0.0.77"), "ipv4_dst": ip("10.0.0.2")}),
        ip("10.0.0.77"),
    ),
    "another MAC": (Drop.SPOOFED_MAC, unicast(7, 2), ip("10.0.0.7")),
    "another MAC, no IP": (
        Drop.SPOOFED_MAC, mac(2) + mac(7) + b"\x88\xcc" + bytes(46), mac(7),
    ),
    "a claim about an address": (
        Drop.SPOOFED_ARP, frames.build_arp_request(mac(1), ip("10.0.0.9"), ip("10.0.0.2")), ip("10.0.0.9"),
    ),
}  # fmt: skip


def two(**more: object) -> World:
    w = World(2, **more)  # type: ignore[arg-type]
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n2")
    return w


def seen(w: World) -> tuple[Unadmitted, ...]:
    return w.nva.state.unadmitted.get(PORT, ())


def events(w: World) -> list[dict[str, object]]:
    return [fields for kind, fields in w.reports if kind == "admission.dropped"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_remembered_by_cause_and_by_the_address_that_it_named(kind: str) -> None:
    w = two()
    cause, frame, address = KINDS[kind]
    for _ in range(3):
        assert w.send("n1", "tap-vm1", frame) == []
    assert seen(w) == (Unadmitted("vm1/eth0", cause, address, 3, w.now),)


@pytest.mark.parametrize(
    "kind", [*FROM_ROUTERS, *FROM_SERVERS, "advertisement in fragments", "headers that end nowhere"]
)
def test_what_no_port_may_say_is_remembered_too(kind: str) -> None:
    w = two()
    cause, frame = {**FROM_ROUTERS, **FROM_SERVERS, **NEVER}[kind]
    assert w.send("n1", "tap-vm1", frame) == []
    ((found),) = seen(w)
    assert (found.interface, found.cause) == ("vm1/eth0", cause)


def test_it_is_told_once_and_then_by_the_number_and_is_no_offence() -> None:
    w = two()
    for _ in range(5):
        w.send("n1", "tap-vm1", CHATTER)
    (first,) = events(w)
    assert (first["nve"], first["port"], first["interface"]) == ("n1", "tap-vm1", "vm1/eth0")
    assert (first["cause"], first["address"], first["count"]) == ("spoofed-address", "fe80::99", 1)
    w.advance(w.nva.settings.report_interval + 0.1)
    assert [event["count"] for event in events(w)] == [1, 4]
    assert not w.nva.state.silenced and not [kind for kind, _ in w.reports if kind.startswith("port.off")]


def test_a_flood_costs_no_more_than_the_meter_lets_pass_and_then_nothing() -> None:
    w = two()
    before = w.nva.counters.get("packet_in.drop", 0)
    for _ in range(300):
        w.send("n1", "tap-vm1", CHATTER)
    assert w.nva.counters["packet_in.drop"] - before <= w.nva.settings.forgery_rate
    for _ in range(100):
        w.advance(0.2)
        for _ in range(10):
            w.send("n1", "tap-vm1", CHATTER)
    assert w.nva.counters["packet_in.drop"] - before <= w.nva.settings.forgery_rate + unadmitted.ENOUGH
    assert PORT in w.nva.state.muted and w.differences() == []
    w.advance(w.nva.settings.silence_time)
    assert PORT not in w.nva.state.muted
    w.send("n1", "tap-vm1", CHATTER)
    assert seen(w)[0].last == w.now


def test_one_ports_flood_hides_nobody_elses_and_a_muted_port_is_still_heard_forging() -> None:
    w = two()
    w.vm(3, "n1")
    while PORT not in w.nva.state.muted:
        w.send("n1", "tap-vm1", CHATTER)
        w.advance(0.05)
    before = seen(w)
    w.send("n1", "tap-vm1", CHATTER)
    assert seen(w) == before
    w.send("n1", "tap-vm3", unicast(8, 2))
    assert w.nva.state.unadmitted[Place("n1", "tap-vm3")][0].cause == Drop.SPOOFED_MAC
    w.send("n1", "tap-vm1", KINDS["a claim about an address"][1])
    assert seen(w)[0].cause == Drop.SPOOFED_ARP


def test_no_more_than_so_many_are_remembered_the_last_ones() -> None:
    w = two(settings=Settings(forgery_rate=10_000))
    for n in range(unadmitted.MOST + 5):
        w.send("n1", "tap-vm1", icmpv6(1, ip(f"fe80::{n + 1:x}:1"), ip("ff02::1"), 128, bytes(4)))
    assert len(seen(w)) == unadmitted.MOST
    assert seen(w)[0].address == ip(f"fe80::{unadmitted.MOST + 5:x}:1")


@pytest.mark.parametrize("end", ["port", "vm"])
def test_it_goes_with_the_port_and_is_none_of_the_next_ones(end: str) -> None:
    w = two()
    w.send("n1", "tap-vm1", CHATTER)
    if end == "port":
        w.unplug("n1", "tap-vm1")
        assert seen(w) == ()
        return
    w.handle(ev.VmWithdrawn("vm1"))
    interface = w.vm(1, "n1", name="other", port=False)
    w.handle(ev.VmWithdrawn("other"))
    w.handle(ev.VmSubmitted("other", (replace(interface, location=PORT),)))
    document = views.vm(w.nva.state, w.nva.state.vms["other"])
    assert document["interfaces"][0]["unadmitted"] == []


def test_a_vm_made_anew_with_the_same_name_has_nothing_of_the_former() -> None:
    w = two()
    w.send("n1", "tap-vm1", CHATTER)
    w.handle(ev.VmWithdrawn("vm1"))
    w.vm(1, "n1", port=False)
    document = views.vm(w.nva.state, w.nva.state.vms["vm1"])
    assert document["interfaces"][0]["unadmitted"] == []


def test_nothing_is_kept_of_an_nve_that_is_withdrawn() -> None:
    w = two(settings=Settings(offender_rate=0))
    w.send("n1", "tap-vm1", CHATTER)
    for _ in range(3):  # an offender, too
        w.send("n1", "tap-vm1", frames.build_arp_request(mac(1), ip("10.0.0.9"), ip("10.0.0.2")))
    assert PORT in w.nva.state.silenced
    w.handle(ev.VmWithdrawn("vm1"))
    w.send("n1", "tap-vm1", CHATTER)
    w.handle(ev.NveWithdrawn("n1"))
    assert not w.nva.state.unadmitted
    w.advance(100)
    assert not w.nva.state.silenced


def test_an_address_that_is_registered_is_admitted_and_the_vms_document_says_what_was_not() -> None:
    w = two()
    w.send("n1", "tap-vm1", CHATTER)
    document = views.vm(w.nva.state, w.nva.state.vms["vm1"])
    (found,) = document["interfaces"][0]["unadmitted"]
    assert (found["cause"], found["address"], found["packets"]) == ("spoofed-address", "fe80::99", 1)
    text = "".join(str(part) for part in render.vm(document)[1:])
    assert "not admitted (spoofed-address): fe80::99, 1 packets, last at" in text


def test_a_switch_without_meters_hands_nothing_over() -> None:
    w = two(meters=False)
    for _, frame, _ in KINDS.values():
        assert w.send("n1", "tap-vm1", frame) == []
    assert seen(w) == () and w.nva.counters.get("packet_in.drop", 0) == 0


@pytest.mark.parametrize("length", range(15))
def test_a_frame_that_ends_before_it_says_who_it_is_from_is_a_sample_too(length: int) -> None:
    w = two()
    number = w.boxes["n1"].ports["tap-vm1"]
    w.handle(ev.PacketSeen(1, number, cookie(Why.DROP, Drop.SPOOFED_MAC), CHATTER[:length]))
    (sample,) = seen(w)
    assert (sample.cause, len(sample.address)) == (Drop.SPOOFED_MAC, 6)


def test_samples_of_ports_of_nobody_are_counted_and_forgotten() -> None:
    w = two()
    number = w.boxes["n1"].ports["tap-vm1"]
    w.handle(ev.VmWithdrawn("vm1"))
    w.handle(ev.PacketSeen(1, number, cookie(Why.DROP, Drop.SPOOFED_MAC), CHATTER))
    assert not w.nva.state.unadmitted
