"""Forged announcements: none is believed, each is reported, floods of them are limited, and who goes on is silenced."""

from __future__ import annotations

import dataclasses

import pytest
from forged import LL1, LL2, advertisement, solicitation
from world import World, arp, ip, mac, unicast

from ryu_vmm import addresses
from ryu_vmm import events as ev
from ryu_vmm.errors import NotFound
from ryu_vmm.limits import (
    HIGHEST,
    PORT_METERS,
    PROBE_METER,
    PROBES,
    SHARED_SLOT,
    Limits,
    forgery_meter,
    gone_meter,
    question_meter,
    rate,
)
from ryu_vmm.model import MARK_BASE, MARKS, METER_SLOTS, Leg, MoveState, Place, Policy, Trust
from ryu_vmm.nva import Settings
from ryu_vmm.tables import redirect_meter
from ryu_vmm.wire import frames

TAG = b"\x81\0\0\5"
VICTIM4, VICTIM6 = ip("10.0.0.2"), ip("2001:db8::2")
NA = advertisement(1, LL1, VICTIM6, mac(1))


def tagged(frame: bytes) -> bytes:
    return frame[:12] + TAG + frame[12:]


def from_mac(frame: bytes, source: bytes) -> bytes:
    return frame[:6] + source + frame[12:]


def truncated(frame: bytes) -> bytes:
    return frame[:40]


#: What vm1's port says of vm2, or of what is nobody's.
FORGED = {
    "GARP request": frames.build_garp(mac(2), VICTIM4),
    "GARP reply": frames.build_garp(mac(2), VICTIM4, request=False),
    "GARP with my MAC": frames.build_garp(mac(1), VICTIM4),
    "GARP reply with my MAC": frames.build_garp(mac(1), VICTIM4, request=False),
    "ARP reply": frames.build_arp_reply(mac(1), VICTIM4, mac(3), ip("10.0.0.3")),
    "ARP reply in another's name": frames.build_arp_reply(mac(2), VICTIM4, mac(3), ip("10.0.0.3")),
    "ARP request": frames.build_arp_request(mac(1), VICTIM4, ip("10.0.0.3")),
    "Ethernet says me, ARP says another": from_mac(frames.build_garp(mac(2), VICTIM4), mac(1)),
    "Ethernet says another, ARP says me": from_mac(frames.build_garp(mac(1), ip("10.0.0.1")), mac(2)),
    "an address of nobody": frames.build_garp(mac(1), ip("10.0.0.99")),
    "ARP cut short": truncated(frames.build_garp(mac(1), VICTIM4)),
    "RARP": frames.build_rarp_request(mac(2)),
    "RARP from my MAC": from_mac(frames.build_rarp_request(mac(2)), mac(1)),
    "RARP in my name from another MAC": from_mac(frames.build_rarp_request(mac(1)), mac(2)),
    "NA": frames.build_unsolicited_na(mac(2), VICTIM6),
    "NA with my MAC": frames.build_unsolicited_na(mac(1), VICTIM6),
    "NA from my address": advertisement(1, ip("2001:db8::1"), VICTIM6, mac(1)),
    "NA solicited": advertisement(1, LL1, VICTIM6, mac(1), flags=0x60),
    "NA that does not override": advertisement(1, LL1, VICTIM6, mac(1), flags=0),
    "NA without its MAC": advertisement(1, LL1, VICTIM6, None),
    "NA of my address at another's MAC": advertisement(1, LL1, ip("2001:db8::1"), mac(2)),
    "NA of another's link-local address": advertisement(1, LL1, LL2, mac(1)),
    "NA in another's link-local name": advertisement(1, LL2, ip("2001:db8::1"), mac(1)),
    "NA of a mapped address": advertisement(1, LL1, ip("::ffff:10.0.0.2"), mac(1)),
    "NA from beyond a router": b"\x40".join((NA[:21], NA[22:])),
    "NA behind options": b"".join(
        (NA[:18], b"\0\x28\x3c\xff", LL1, ip("ff02::1"), b"\x3a\0\1\4\0\0\0\0", NA[54:])
    ),
    "NS in another's name": solicitation(1, VICTIM6, ip("2001:db8::3"), mac(1)),
    "NS with another's MAC": solicitation(1, LL1, ip("2001:db8::3"), mac(2)),
    "tagged GARP": tagged(frames.build_garp(mac(1), VICTIM4)),
    "tagged GARP of my own": tagged(frames.build_garp(mac(1), ip("10.0.0.1"))),
    "tagged RARP": tagged(frames.build_rarp_request(mac(2))),
    "tagged NA": tagged(frames.build_unsolicited_na(mac(2), VICTIM6)),
}  # fmt: skip


def three(**settings: object) -> World:
    """vm1 on n1, vm2 on n2, vm3 on n3; vm5 in another network has vm2's addresses, and its port is on n1."""
    w = World(3, settings=Settings(**settings))  # type: ignore[arg-type]
    w.network()
    w.network("red", 200)
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    twin = dataclasses.replace(
        w.nva.state.interfaces["vm2/eth0"], id="vm5/eth0", vm="vm5", vni=200, location=Place("n1", "tap-vm5")
    )
    w.handle(ev.VmSubmitted("vm5", (twin,)))
    w.plug("n1", "tap-vm5")
    return w


def refused(w: World) -> list[dict[str, object]]:
    return [fields for kind, fields in w.reports if kind == "announcement.refused"]


def places(w: World) -> dict[str, Place]:
    return {key: i.location for key, i in w.nva.state.interfaces.items()}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("port", ["tap-vm1", "nobodys"])
def test_no_forgery_is_believed_and_each_is_reported(name: str, port: str) -> None:
    w = three()
    w.plug("n1", "nobodys")
    before, frame = places(w), FORGED[name]
    assert w.send("n1", port, frame) == []
    assert places(w) == before
    assert not w.nva.state.moves
    if port == "nobodys" and (name.startswith("NS") or name == "NA behind options"):
        return  # what nobody's port asks is no announcement
    (report,) = refused(w)
    assert (report["nve"], report["port"], report["count"]) == ("n1", port, 1)
    assert report["mac"] == addresses.format_mac(frame[6:12])
    assert report["interface"] == ("vm1/eth0" if port == "tap-vm1" else None)
    if "cut short" not in name and "options" not in name:
        assert report["claimed_mac"] is not None or "without" in name or name.endswith("NS")
        assert report["claimed_ip"] is not None
    assert w.differences() == []


@pytest.mark.parametrize("name", FORGED)
def test_a_switch_without_meters_hands_no_forgery_over(name: str) -> None:
    w = World(2, meters=False)
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n2")
    assert w.send("n1", "tap-vm1", FORGED[name]) == []
    assert w.nva.counters == {}
    assert not w.nva.state.moves


@pytest.mark.parametrize("name", FORGED)
def test_where_any_port_is_believed_no_other_port_is_believed_more(name: str) -> None:
    """Trust in any port is trust in who names itself whole and right; a port that is bound stays bound."""
    w = World(3)
    w.network(policy=Policy(announcements=Trust.ANY))
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    before = places(w)
    assert w.send("n1", "tap-vm1", FORGED[name]) == []
    assert places(w) == before
    w.plug("n1", "nobodys")
    w.send("n1", "nobodys", FORGED[name])
    whole = name in ("GARP request", "GARP reply", "RARP", "NA")  # that is what a VM that moved says
    assert bool(w.nva.state.moves) is whole
    if not whole and not name.startswith("NS") and name != "NA behind options":
        assert refused(w)[-1]["port"] == "nobodys"


def test_the_twin_of_a_mac_in_another_network_moves_nobody() -> None:
    w = three()
    before = places(w)
    w.send("n1", "tap-vm5", frames.build_garp(mac(2), VICTIM4))  # its own address, in its own network
    assert places(w) == before
    assert not refused(w)
    assert not w.nva.state.moves


def test_a_move_is_activated_by_its_own_vm_alone() -> None:
    """At a move's destination all announce: the VM of another move, one from elsewhere, and then the right one."""
    w = three()
    move = w.move("vm2", "n1")
    w.plug("n1", "tap-vm2")
    for frame in (
        frames.build_garp(mac(3), ip("10.0.0.3")),
        frames.build_rarp_request(mac(1)),
        frames.build_garp(mac(2), ip("10.0.0.3")),
        frames.build_unsolicited_na(mac(3), ip("2001:db8::3")),
        unicast(3, 1),
        advertisement(2, VICTIM6, ip("2001:db8::3"), mac(2)),  # the right VM, but of another
        advertisement(2, LL2, VICTIM6, mac(3)),
        solicitation(2, LL2, ip("2001:db8::3"), mac(3)),
    ):
        w.send("n1", "tap-vm2", frame)
        assert w.current(move).state is MoveState.PREPARED
    w.send("n1", "tap-vm1", frames.build_garp(mac(2), VICTIM4))
    assert w.current(move).state is MoveState.PREPARED
    w.send("n1", "tap-vm2", frames.build_garp(mac(2), VICTIM4))
    assert w.current(move).state.steered


def test_the_source_of_a_move_that_has_settled_is_not_believed() -> None:
    """A guest left running by mistake, or a replay of what it said."""
    w = three()
    move = w.move("vm2", "n1")
    w.plug("n1", "tap-vm2")
    garp = frames.build_garp(mac(2), VICTIM4)
    w.send("n1", "tap-vm2", garp)
    w.advance(30)
    assert w.current(move).state is MoveState.SETTLED
    w.send("n2", "tap-vm2", garp)
    assert w.nva.state.interfaces["vm2/eth0"].location == Place("n1", "tap-vm2")
    assert [r["port"] for r in refused(w)] == ["tap-vm2"]


def test_a_flood_of_forgeries_is_few_packets_and_fewer_reports() -> None:
    w = three(offender_rate=1000)
    for _ in range(500):
        w.send("n1", "tap-vm1", FORGED["GARP request"])
    assert w.nva.counters["announcement.refused"] == 20  # the meter's: as many at once as in a second
    assert [r["count"] for r in refused(w)] == [1]
    w.advance(10.1)
    assert [r["count"] for r in refused(w)] == [1, 19]
    w.advance(10.1)
    assert [r["count"] for r in refused(w)] == [1, 19]
    w.send("n1", "tap-vm1", FORGED["GARP request"])
    assert [r["count"] for r in refused(w)] == [1, 19, 1]


def test_reports_of_one_port_do_not_hide_those_of_another() -> None:
    w = three()
    for _ in range(500):
        w.send("n1", "tap-vm1", FORGED["GARP request"])
    w.send("n2", "tap-vm2", frames.build_garp(mac(3), ip("10.0.0.3")))
    assert [(r["nve"], r["count"]) for r in refused(w)] == [("n1", 1), ("n2", 1)]


def test_an_offender_is_reported_and_then_only_counted() -> None:
    w = three(offender_rate=1.0, silence_time=30.0)
    for _ in range(15):
        w.send("n1", "tap-vm1", FORGED["GARP request"])
    offences = [fields for kind, fields in w.reports if kind == "port.offender"]
    assert [(o["nve"], o["port"], o["packets"], o["until"]) for o in offences] == [("n1", "tap-vm1", 11, w.now + 30)]
    assert w.nva.counters["announcement.refused"] == 11
    for name in FORGED:
        assert w.send("n1", "tap-vm1", FORGED[name]) == []
    assert w.nva.counters["announcement.refused"] == 11
    assert w.send("n1", "tap-vm1", unicast(1, 2)) == [("n2", "tap-vm2")]  # what is its own goes on
    w.send("n1", "tap-vm1", arp(1, 2))
    assert w.out[-1][:2] == ("n1", "tap-vm1")
    w.advance(31)
    assert [fields["port"] for kind, fields in w.reports if kind == "port.heard-again"] == ["tap-vm1"]
    w.send("n1", "tap-vm1", FORGED["GARP request"])
    assert w.nva.counters["announcement.refused"] == 12
    assert w.differences() == []


def test_nobodys_port_is_silenced_even_where_any_port_is_believed() -> None:
    w = World(2, settings=Settings(offender_rate=0))
    w.network(policy=Policy(announcements=Trust.ANY))
    w.vm(1, "n1")
    w.plug("n2", "nobodys")
    forged = frames.build_garp(mac(1), ip("10.0.0.77"))
    for _ in range(3):
        w.send("n2", "nobodys", forged)
    assert w.nva.counters["announcement.refused"] == 1
    w.advance(61)
    w.send("n2", "nobodys", frames.build_garp(mac(1), ip("10.0.0.1")))
    assert w.nva.state.interfaces["vm1/eth0"].location == Place("n2", "nobodys")


def test_questions_are_limited_port_by_port_and_data_never() -> None:
    w = three(question_rate=50)
    for _ in range(200):
        w.send("n1", "tap-vm1", arp(1, 99))  # whom no flow knows
        assert w.send("n1", "tap-vm1", unicast(1, 2)) == [("n2", "tap-vm2")]
    assert w.nva.counters["packet_in.resolve"] == 50
    assert w.send("n1", "tap-vm1", arp(1, 2)) == [], "what flows answer is limited as well"
    w.send("n2", "tap-vm2", arp(2, 99))
    assert w.nva.counters["packet_in.resolve"] == 51
    free = three(question_rate=0)
    for _ in range(200):
        free.send("n1", "tap-vm1", arp(1, 99))
    assert free.nva.counters["packet_in.resolve"] == 200


@pytest.mark.parametrize("sign", ["garp", "rarp", "na", "data"])
def test_a_sign_of_life_comes_through_whatever_other_ports_do(sign: str) -> None:
    w = three(question_rate=5)
    move = w.move("vm2", "n1")
    w.plug("n1", "tap-vm2")
    for _ in range(100):
        w.send("n1", "tap-vm1", arp(1, 3))
        w.send("n1", "tap-vm1", FORGED["GARP request"])
        w.send("n1", "tap-vm2", frames.build_garp(mac(3), ip("10.0.0.3")))
    own = {
        "garp": frames.build_garp(mac(2), VICTIM4),
        "rarp": frames.build_rarp_request(mac(2)),
        "na": frames.build_unsolicited_na(mac(2), VICTIM6),
        "data": unicast(2, 3),
    }
    w.send("n1", "tap-vm2", own[sign])
    assert w.current(move).state.steered


def test_an_attached_port_hands_over_data_only_while_its_vm_is_nowhere() -> None:
    w = World(2)
    w.network()
    w.vm(1, "n1", attachments=(Place("n2", "tap-vm1"),))
    w.vm(2, "n2")
    w.plug("n2", "tap-vm1")
    for _ in range(5):
        w.send("n2", "tap-vm1", unicast(1, 2))
    assert "packet_in.life" not in w.nva.counters
    w.unplug("n1", "tap-vm1")
    w.send("n2", "tap-vm1", unicast(1, 2))
    assert w.nva.state.interfaces["vm1/eth0"].location == Place("n2", "tap-vm1")
    assert w.differences() == []


# --- interfaces that flap ---------------------------------------------------------------------------------------------
def flapping(**settings: object) -> World:
    """vm1 has announced itself in two places in turn until it was frozen, at n2."""
    w = World(3, settings=Settings(flap_moves=3, **settings))  # type: ignore[arg-type]
    w.network()
    w.vm(1, "n1", attachments=(Place("n1", "tap-vm1"), Place("n2", "tap-vm1"), Place("n3", "tap-vm1")))
    w.plug("n2", "tap-vm1")
    w.plug("n3", "tap-vm1")
    for nve in ("n2", "n1", "n2", "n1"):
        claim(w, nve)
    assert location(w) == "n2"
    assert w.nva.state.frozen.keys() == {"vm1/eth0"}
    return w


def claim(w: World, nve: str) -> None:
    w.send(nve, "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.1")))
    w.advance(3)


def location(w: World) -> str:
    return w.nva.state.interfaces["vm1/eth0"].location.nve


def test_a_frozen_interface_is_reported_once_and_then_counted() -> None:
    w = flapping()
    claim(w, "n1")
    claim(w, "n3")
    frozen = [fields for kind, fields in w.reports if kind == "interface.frozen"]
    assert [(f["interface"], f["nve"], f["claimed_nve"], f["moves"]) for f in frozen] == [("vm1/eth0", "n2", "n1", 3)]
    assert location(w) == "n2"
    w.unplug("n2", "tap-vm1")
    w.send("n1", "tap-vm1", unicast(1, 2))  # neither does data move it, nor is it handed over
    assert location(w) == "n2"
    assert w.nva.counters["announcement.flapping"] == 3
    assert w.differences() == []


@pytest.mark.parametrize("by", ["time", "request", "move"])
def test_it_thaws_and_what_was_before_does_not_count(by: str) -> None:
    w = flapping(freeze_time=30.0 if by == "time" else 0.0)
    w.advance(20)
    claim(w, "n1")
    assert location(w) == "n2"
    if by == "time":
        w.advance(30)
    elif by == "request":
        assert w.handle(ev.ThawRequested("vm1")) is w.nva.state.vms["vm1"]
    else:
        move = w.move("vm1", "n3")
        claim(w, "n3")
        assert w.current(move).state.steered
    assert not w.nva.state.frozen
    assert [fields["by"] for kind, fields in w.reports if kind == "interface.thawed"] == [by]
    for nve in ("n1", "n2", "n1"):
        claim(w, nve)
        assert location(w) == nve
    claim(w, "n3")
    assert location(w) == "n1"
    assert w.nva.state.frozen
    assert w.differences() == []


def test_thawing_what_is_not_frozen_changes_nothing_and_who_is_not_there_is_not_found() -> None:
    w = three()
    w.handle(ev.ThawRequested("vm1"))
    assert not [kind for kind, _ in w.reports if kind == "interface.thawed"]
    with pytest.raises(NotFound):
        w.handle(ev.ThawRequested("vm9"))


def test_a_vm_that_is_removed_leaves_no_freeze_behind() -> None:
    w = flapping()
    w.handle(ev.VmWithdrawn("vm1"))
    assert not w.nva.state.frozen
    assert not w.nva.state.thawed
    assert ("freeze", "vm1/eth0") not in w.nva.state.clock


# --- numbers of meters ------------------------------------------------------------------------------------------------
def test_no_meter_has_two_meanings() -> None:
    leg = Leg("", 1, Place("", ""), Place("", ""), MARK_BASE + MARKS - 1)
    last = redirect_meter(leg, METER_SLOTS - 1)
    assert last < gone_meter(0) < gone_meter(8190) < PROBE_METER < question_meter(0)
    assert question_meter(PORT_METERS - 1) < forgery_meter(0) < forgery_meter(PORT_METERS - 1) == HIGHEST == 262_144
    assert gone_meter(8191) > HIGHEST
    limits = Limits(7, 3)
    numbers = (1, last, gone_meter(8190), PROBE_METER, question_meter(5), forgery_meter(5))
    assert [rate(meter, limits) for meter in numbers] == [0, 0, 0, PROBES, 7, 3]
    assert question_meter(5) != question_meter(6) and SHARED_SLOT == PORT_METERS - 1
