"""Shared addresses and MACs: whoever announced last holds them, and they move along with their holder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from l3town import Layer3
from test_changed_answers import restart, told
from world import World, arp, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.addresses import link_local
from ryu_vmm.admission import heard_about
from ryu_vmm.effects import Record
from ryu_vmm.errors import Conflict, InvalidInput
from ryu_vmm.model import Admit, Distribution, Gateway, Holder, Interface, MoveState, Network, Place, Policy, Unknown
from ryu_vmm.resolution import answering
from ryu_vmm.runtime import Runtime
from ryu_vmm.sharing import MOST, PAUSE
from ryu_vmm.store import MemoryStore, SqliteStore
from ryu_vmm.tables import Why, cookie
from ryu_vmm.wire import frames
from ryu_vmm.wire.openflow import PacketIn

VIP, VIP6, VMAC = ip("10.0.0.100"), ip("2001:db8::100"), bytes.fromhex("00005e000101")
BOTH = {"shared": (VIP, VIP6), "shared_macs": (VMAC,)}


def change(w: World, n: int, **changes: object) -> Interface:
    interface = replace(w.nva.state.interfaces[f"vm{n}/eth0"], **changes)  # type: ignore[arg-type]
    w.handle(ev.VmSubmitted(f"vm{n}", (interface,)))
    return interface


def three(policy: Policy | None = None) -> World:
    """VMs 1 and 2, on n1 and n2, may hold the shared addresses; VM 3 on n3 uses them."""
    w = World(3)
    w.network(policy=policy)
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    for n in (1, 2):
        change(w, n, **BOTH)
    return w


def reply(sha: bytes, spa: bytes, dst: bytes = frames.BROADCAST, tpa: bytes | None = None) -> bytes:
    return dst + frames.build_arp_reply(sha, spa, dst, spa if tpa is None else tpa)[6:]


TAKEN = {
    "garp request": (VIP, lambda m: frames.build_garp(m, VIP)),
    "garp reply": (VIP, lambda m: frames.build_garp(m, VIP, request=False)),
    "unsolicited reply": (VIP, lambda m: reply(m, VIP, tpa=ip("10.0.0.3"))),
    "unsolicited advertisement": (VIP6, lambda m: frames.build_unsolicited_na(m, VIP6)),
}


def holder(w: World, address: bytes = VIP) -> str | None:
    row = w.nva.state.holder_of(100, address)
    return None if row is None else row.interface


def asked(w: World, address: bytes = VIP) -> bytes | None:
    """The MAC that VM 3 is told when it asks for an address."""
    before = len(w.out)
    src = ip("10.0.0.3") if len(address) == 4 else ip("2001:db8::3")
    build = frames.build_arp_request if len(address) == 4 else frames.build_ns
    w.send("n3", "tap-vm3", build(mac(3), src, address))
    got = [f for n, p, f in w.out[before:] if p == "tap-vm3"]
    return None if not got else (frames.parse_arp(got[0]).sha if len(address) == 4 else frames.parse_nd(got[0]).lladdr)


def take(w: World, n: int, nve: str = "", how: str = "garp request", as_mac: bytes | None = None) -> None:
    w.send(nve or f"n{n}", f"tap-vm{n}", TAKEN[how][1](as_mac or mac(n)))


# --- taking
@pytest.mark.parametrize("how", list(TAKEN))
@pytest.mark.parametrize("admit", list(Admit))
@pytest.mark.parametrize("distribution", list(Distribution))
def test_whoever_announced_last_holds_it(how: str, admit: Admit, distribution: Distribution) -> None:
    w = three(Policy(admit=admit, distribution=distribution, unknown=Unknown.DROP))
    address = TAKEN[how][0]
    for n in (1, 2, 1):
        before = len(w.out)
        take(w, n, how=how)
        assert holder(w, address) == f"vm{n}/eth0"
        assert asked(w, address) == mac(n)
        if n == 2:
            assert (address, mac(2)) in told(w, before)
        w.advance(1)
    assert [f["before"] for kind, f in w.reports if kind == "address.taken"] == [None, "vm1/eth0", "vm2/eth0"]
    assert w.differences() == []


@pytest.mark.parametrize("how", list(TAKEN))
def test_nobody_else_takes_it(how: str) -> None:
    w = three()
    take(w, 1, how=how)
    take(w, 3, how=how)
    take(w, 3, how=how, as_mac=mac(1))
    w.send("n2", "tap-vm2", TAKEN[how][1](mac(1)))
    assert holder(w, TAKEN[how][0]) == "vm1/eth0"
    assert w.send("n3", "tap-vm3", reply(mac(3), VIP)) == []


def test_a_question_from_a_holder_takes_nothing() -> None:
    w = three()
    take(w, 1)
    assert w.send("n2", "tap-vm2", frames.build_arp_request(mac(2), VIP, ip("10.0.0.3"))) == [("n2", "tap-vm2")]
    w.send("n2", "tap-vm2", frames.build_arp_reply(mac(2), VIP, mac(3), ip("10.0.0.3")))
    solicited = frames.build_na(VIP6, mac(2), ip("2001:db8::3"), mac(3))
    take(w, 1, how="unsolicited advertisement")
    w.send("n2", "tap-vm2", solicited)
    assert holder(w) == holder(w, VIP6) == "vm1/eth0"


def test_who_may_hold_it_may_ask_whether_it_is_taken() -> None:
    w = three()
    take(w, 1)
    take(w, 1, how="unsolicited advertisement")
    probe = frames.build_arp_request(mac(2), bytes(4), VIP)
    dad = frames.build_ns(mac(2), bytes(16), VIP6)
    for question in (probe, dad):  # the holder answers if it is alive; the NVA does not know
        assert sorted(w.send("n2", "tap-vm2", question)) == [("n1", "tap-vm1"), ("n3", "tap-vm3")]
    w.send("n2", "tap-vm2", frames.build_arp_request(mac(2), ip("10.0.0.2"), VIP))
    assert w.out[-1][:2] == ("n2", "tap-vm2") and frames.parse_arp(w.out[-1][2]).sha == mac(1)
    before = len(w.out)
    w.send("n3", "tap-vm3", frames.build_arp_request(mac(3), bytes(4), VIP))
    assert frames.parse_arp(w.out[before][2]).sha == mac(1)  # it is taken, for anybody else


@pytest.mark.parametrize("unknown", list(Unknown))
@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_while_nobody_holds_it_those_who_may_are_asked(unknown: Unknown, address: bytes) -> None:
    w = three(Policy(unknown=unknown))
    src = ip("10.0.0.3") if len(address) == 4 else ip("2001:db8::3")
    build = frames.build_arp_request if len(address) == 4 else frames.build_ns
    assert sorted(w.send("n3", "tap-vm3", build(mac(3), src, address))) == [("n1", "tap-vm1"), ("n2", "tap-vm2")]
    answer = (
        frames.build_arp_reply(mac(2), VIP, mac(3), src) if len(address) == 4
        else frames.build_na(VIP6, mac(2), src, mac(3))
    )  # fmt: skip
    assert w.send("n2", "tap-vm2", answer) == [("n3", "tap-vm3")]
    assert holder(w, address) == "vm2/eth0" and asked(w, address) == mac(2)


# --- virtual MACs
def test_who_may_hold_a_virtual_mac_finds_its_holder_by_link_local_address() -> None:
    w = three(Policy(unknown=Unknown.DROP))
    address = link_local(VMAC)
    take(w, 1, as_mac=VMAC)
    before = len(w.out)
    for n, wanted in ((2, [VMAC]), (1, [])):
        w.send(f"n{n}", f"tap-vm{n}", frames.build_ns(mac(n), link_local(mac(n)), address))
        got = [frames.parse_nd(f) for _, p, f in w.out[before:] if p == f"tap-vm{n}"]
        assert [nd.lladdr for nd in got] == wanted and all(nd.target == address for nd in got)
    for src in (bytes(16), address):  # whether it is taken, the NVA does not know
        w.send("n2", "tap-vm2", frames.build_ns(VMAC, src, address))
    assert len([f for _, p, f in w.out[before:] if p == "tap-vm2"]) == 1


def test_a_virtual_mac_leads_to_its_holder() -> None:
    w = three()
    to_router = VMAC + unicast(3, 1)[6:]
    assert w.send("n3", "tap-vm3", to_router) == []
    for n in (1, 2, 1):
        take(w, n, as_mac=VMAC)
        assert holder(w) == holder(w, VMAC) == f"vm{n}/eth0"
        assert asked(w) == VMAC and answering(w.nva.state, 100, link_local(VMAC)) == VMAC
        assert w.send("n3", "tap-vm3", to_router) == [(f"n{n}", f"tap-vm{n}")]
        assert w.send(f"n{n}", f"tap-vm{n}", unicast(n, 3)[:6] + VMAC + unicast(n, 3)[12:]) == [("n3", "tap-vm3")]
    assert not w.nva.state.changed  # the answer has been the same all the time
    assert w.send("n3", "tap-vm3", unicast(3, 1)[:6] + VMAC + unicast(3, 1)[12:]) == []
    assert w.differences() == []


@pytest.mark.parametrize("distribution", list(Distribution))
def test_shared_addresses_and_macs_move_along(distribution: Distribution) -> None:
    w = three(Policy(distribution=distribution))
    take(w, 1, as_mac=VMAC)
    to_router = VMAC + unicast(3, 1)[6:]
    assert w.send("n3", "tap-vm3", to_router) == [("n1", "tap-vm1")]
    move = w.move("vm1", "n2")
    w.advance(1)
    w.late = {"n3"}  # it goes on sending to the source
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.1)
    before = len(w.out)
    assert w.send("n3", "tap-vm3", to_router) == []  # waits for the port
    w.plug("n2", "tap-vm1")
    assert [(n, p, f) for n, p, f in w.out[before:] if p == "tap-vm1"] == [("n2", "tap-vm1", to_router)]
    assert w.send("n3", "tap-vm3", to_router) == [("n2", "tap-vm1")]
    w.handle(ev.ActivationReported(move.id))
    assert w.send("n3", "tap-vm3", to_router) == [("n2", "tap-vm1")]
    w.land("n3")
    w.advance(0.2)
    assert w.send("n3", "tap-vm3", to_router) == [("n2", "tap-vm1")]
    w.advance(10)
    assert w.current(move).state is MoveState.SETTLED and holder(w) == "vm1/eth0"
    assert w.current(move).ledger.unaccounted == 0
    assert w.differences() == []


def test_an_announcement_from_the_destination_takes_it_too() -> None:
    w = three()
    take(w, 2)
    move = w.move("vm1", "n3")
    w.advance(1)
    w.handle(ev.RedirectRequested(move.id))
    w.plug("n3", "tap-vm1")
    w.advance(0.1)
    take(w, 1, nve="n3")
    assert w.current(move).state.steered and holder(w) == "vm1/eth0" and asked(w) == mac(1)


@pytest.mark.parametrize("how", list(TAKEN))
def test_what_is_announced_right_after_a_sign_of_life_counts_as_well(how: str) -> None:
    """A virtual router that comes to life at its destination takes back all its addresses within one read."""
    w = three()
    take(w, 2, how=how)
    move = w.move("vm1", "n3")
    w.advance(1)
    store = MemoryStore()
    store.rows = dict(w.store.rows)
    run = Runtime(store)
    for dpid in (1, 2, 3):
        run.event(ev.NveConnected(dpid, (ev.PortInfo(10, "tap-vm1", True),) if dpid == 3 else ()))
    life = cookie(Why.LIFE, heard_about(run.state.interfaces["vm1/eth0"]))
    said = (unicast(1, 3), unicast(1, 3), TAKEN[how][1](mac(1)), unicast(1, 3))
    run.packets(3, [PacketIn(1, 20, life, 10, None, None, frame, None) for frame in said])
    assert run.state.moves[move.id].state.steered
    held = run.state.holder_of(100, TAKEN[how][0])
    assert held is not None and held.interface == "vm1/eth0"
    assert run.counters["packet_in.life"] == 4
    run.stop()


# --- life
@pytest.mark.parametrize("how", ["withdrawn", "taken away", "another network"])
def test_who_is_gone_holds_nothing(how: str) -> None:
    w = three(Policy(unknown=Unknown.DROP))
    w.network("red", 200)
    take(w, 1, as_mac=VMAC)
    if how == "withdrawn":
        w.handle(ev.VmWithdrawn("vm1"))
    else:
        change(w, 1, **({"vni": 200} if how == "another network" else {"shared": (), "shared_macs": ()}))
    assert not w.nva.state.holders and asked(w) is None
    before = len(w.out)
    take(w, 2)
    assert holder(w) == "vm2/eth0" and (VIP, mac(2)) in told(w, before)
    assert w.differences() == []


def test_a_holders_new_mac_is_answered_and_told() -> None:
    w = three()
    take(w, 1)
    before = len(w.out)
    change(w, 1, mac=mac(99))
    assert asked(w) == mac(99) and (VIP, mac(99)) in told(w, before)


def test_a_restarted_nva_knows_who_holds_it() -> None:
    w = three()
    take(w, 1, as_mac=VMAC)
    take(w, 2, how="unsolicited advertisement")
    restart(w)
    assert (asked(w), asked(w, VIP6), holder(w, VMAC)) == (VMAC, mac(2), "vm1/eth0")
    assert w.differences() == []


def test_an_edge_that_was_away_is_told_of_the_new_holder() -> None:
    w = three()
    take(w, 1)
    w.disconnect("n3")
    take(w, 2)
    before = len(w.out)
    w.connect("n3")
    assert (VIP, mac(2)) in told(w, before)


@pytest.mark.parametrize("away", ["nva", "edge"])
@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("as_mac", [None, VMAC], ids=["own", "virtual"])
def test_what_was_taken_while_nobody_listened_is_asked_for(away: str, address: bytes, as_mac: bytes | None) -> None:
    w = three()
    how = "garp request" if len(address) == 4 else "unsolicited advertisement"
    take(w, 1, how=how, as_mac=as_mac)
    w.kill() if away == "nva" else w.disconnect("n2")
    take(w, 2, how=how, as_mac=as_mac)  # and never again
    before = len(w.out)
    w.start() if away == "nva" else w.connect("n2")
    assert holder(w, address) == "vm1/eth0"
    (question, *_) = [f for _, p, f in w.out[before:] if p == "tap-vm2"]
    answer = frames.build_arp_reply(as_mac or mac(2), VIP, question[6:12], bytes(4))
    if len(address) == 16:
        nd = frames.parse_nd(question)
        assert nd.target == address
        answer = frames.build_na(address, as_mac or mac(2), nd.src, nd.eth_src)
    w.send("n2", "tap-vm2", answer)
    assert holder(w, address) == "vm2/eth0" and asked(w, address) == (as_mac or mac(2))
    assert as_mac is None or holder(w, VMAC) == "vm2/eth0"
    assert not w.nva.state.doubted and w.differences() == []


def test_a_holder_that_answers_keeps_it_and_one_that_does_not_is_asked_again() -> None:
    w = three()
    take(w, 1)
    restart(w)
    w.advance(20)
    questions = [f for _, p, f in w.out if p == "tap-vm1" and frames.classify(f) is frames.Kind.ARP_PROBE]
    assert len(questions) == 5, "as each of their edges is back, and three times after that"
    assert not w.nva.state.doubted and holder(w) == "vm1/eth0"
    w.send("n2", "tap-vm2", frames.build_arp_reply(mac(2), VIP, mac(3), ip("10.0.0.3")))
    assert holder(w) == "vm1/eth0"
    restart(w)
    for n in (1, 2):  # a former holder that still answers is too late
        w.send(f"n{n}", f"tap-vm{n}", frames.build_arp_reply(mac(n), VIP, questions[0][6:12], bytes(4)))
    assert holder(w) == "vm1/eth0" and not w.nva.state.doubted


def test_where_there_is_a_gateway_it_asks() -> None:
    """Another one may be probing for the address right now, and give way to a probe (RFC 5227 section 2.1.1)."""
    w = three()
    gateway = Gateway(mac(200), ip("10.0.0.254"), None)
    w.handle(ev.NetworkSubmitted(Network("blue", 100, gateway=gateway)))
    take(w, 1)
    before = len(w.out)
    restart(w)
    asking = [f for _, p, f in w.out[before:] if p == "tap-vm2"]
    assert asking and {(frames.parse_arp(f).spa, f[6:12]) for f in asking} == {(gateway.ipv4, gateway.mac)}
    answer = frames.build_arp_reply(mac(2), VIP, asking[0][6:12], ip("10.0.0.254"))
    w.send("n2", "tap-vm2", answer)
    assert holder(w) == "vm2/eth0"


def test_two_masters_do_not_take_it_from_each_other_all_the_time() -> None:
    w = three()
    for n in range(40):
        take(w, n % 2 + 1)
        w.advance(0.1)
    changes = [f for kind, f in w.reports if kind == "address.taken"]
    contested = [f for kind, f in w.reports if kind == "address.contested"]
    assert len(changes) == MOST and len(contested) == 1
    w.advance(PAUSE)
    assert holder(w) == "vm2/eth0"  # the newest claim
    assert len([f for kind, f in w.reports if kind == "address.taken"]) <= MOST + 1


def test_a_claim_that_waits_survives_a_restart() -> None:
    w = three()
    for n in range(MOST + 1):
        take(w, n % 2 + 1)
    assert holder(w) == "vm1/eth0"
    restart(w)
    w.advance(PAUSE + 1)
    assert holder(w) == "vm2/eth0"


def test_nobody_waits_for_a_holder_whose_port_is_gone() -> None:
    w = three()
    for n in range(MOST):
        take(w, n % 2 + 1)
    assert holder(w) == "vm1/eth0"
    w.unplug("n1", "tap-vm1")
    take(w, 2)
    assert holder(w) == "vm2/eth0"


def test_holders_survive_in_the_store(tmp_path: Path) -> None:
    row = Holder(100, VIP, "vm1/eth0", VMAC, 12.5, (1.0, 12.5), ("vm2/eth0", mac(2)))
    store = SqliteStore(tmp_path / "store.sqlite")
    store.commit([Record("holders", row.key, row)])
    assert list(store.load()) == [("holders", row.key, row)]
    store.close()


# --- layer 3, routed networks
def test_shared_addresses_are_routed_to_their_holder() -> None:
    w = Layer3()
    one, two, three = w.task(1, "n1"), w.task(2, "n2"), w.task(3, "n3")
    for address in (ip("10.1.1.200"), ip("192.0.2.7"), ip("2001:db8:1:1::200")):
        for task in (one, two):
            w.handle(ev.VmSubmitted(task.vm, (replace(task, shared=(address,)),)))
        build = frames.build_garp if len(address) == 4 else frames.build_unsolicited_na
        for nve, task in (("n1", one), ("n2", two), ("n1", one)):
            w.send(nve, task.location.port, build(task.mac, address))
            assert w.hops(three, address) == [(nve, task.location.port)]
        assert w.differences() == []
    assert told(w, port="tap-t3") == []


def test_a_router_between_networks_knows_the_holder() -> None:
    w = three()
    gateways = [Gateway(mac(200), ip(f"10.0.{n}.254"), None) for n in (0, 1)]
    w.handle(ev.NetworkSubmitted(Network("blue", 100, gateway=gateways[0], router="r")))
    w.handle(ev.NetworkSubmitted(Network("red", 200, gateway=gateways[1], router="r")))
    far = Interface("vm9/eth0", "vm9", "eth0", 200, mac(9), (ip("10.0.1.9"),), (), Place("n3", "tap-vm3"))
    w.handle(ev.VmWithdrawn("vm3"))
    w.handle(ev.VmSubmitted("vm9", (far,)))
    packet = unicast(9, 100)
    packet = mac(200) + packet[6:26] + ip("10.0.1.9") + packet[30:]
    for n in (1, 2):
        take(w, n, as_mac=VMAC if n == 2 else None)
        assert w.send("n3", "tap-vm3", packet) == [(f"n{n}", f"tap-vm{n}")]
        assert w.out[-1][2][:6] == (VMAC if n == 2 else mac(1))


# --- registration
def test_what_is_one_interfaces_own_is_not_shared() -> None:
    w = three()
    with pytest.raises(Conflict, match="shared"):
        change(w, 3, ipv4=(VIP,))
    with pytest.raises(Conflict, match="shared_macs"):
        change(w, 3, mac=VMAC)
    with pytest.raises(Conflict, match="registered with each as shared"):
        change(w, 2, ipv4=(ip("10.0.0.1"),))
    with pytest.raises(Conflict, match="does not share"):
        change(w, 3, shared=(ip("10.0.0.1"),))
    with pytest.raises(Conflict, match="does not share"):
        change(w, 3, shared_macs=(mac(1),))
    two = w.nva.state.interfaces["vm2/eth0"]
    place = two.location._replace(port="x")
    twin = replace(two, id="vm2/eth1", name="eth1", mac=mac(22), ipv4=(), ipv6=(), location=place)
    with pytest.raises(InvalidInput):
        w.handle(ev.VmSubmitted("vm2", (replace(two, shared=()), replace(twin, shared=two.ipv4))))
    w.handle(ev.VmSubmitted("vm2", (two, twin)))
    change(w, 3, shared=(VIP,))
    assert w.send("n1", "tap-vm1", arp(1, 3)) == [("n1", "tap-vm1")]


def test_tenants_share_nothing_with_each_other() -> None:
    w = World(2)
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n2")
    one, two = (w.nva.state.interfaces[f"vm{n}/eth0"] for n in (1, 2))
    w.handle(ev.VmSubmitted("vm1", (replace(one, shared=(VIP,)),), tenant="a"))
    with pytest.raises(Conflict, match="another tenant"):
        w.handle(ev.VmSubmitted("vm2", (replace(two, shared=(VIP,)),), tenant="b"))
    w.handle(ev.VmSubmitted("vm2", (replace(two, shared=(VIP,)),), tenant="a"))


@pytest.mark.parametrize("own", [True, False])
def test_one_vm_shares_no_address_in_two_networks_of_one_router(own: bool) -> None:
    w = World(1)
    for n, name in enumerate(("blue", "red")):
        gateway = Gateway(mac(200), ip(f"10.0.{n}.254"), None)
        w.handle(ev.NetworkSubmitted(Network(name, 100 + 100 * n, gateway=gateway, router="r")))
    near = Interface("vm1/eth0", "vm1", "eth0", 100, mac(1), (), (), Place("n1", "a"))
    far = Interface("vm1/eth1", "vm1", "eth1", 200, mac(2), (), (), Place("n1", "b"), shared=(VIP,))
    for first, second in ((near, far), (far, near)):
        both = [replace(i, **({"ipv4": (VIP,)} if own else {"shared": (VIP,)})) if i is not far else i
                for i in (first, second)]  # fmt: skip
        with pytest.raises(InvalidInput, match="two networks of one router"):
            w.handle(ev.VmSubmitted("vm1", tuple(both)))
    both = [replace(i, shared=(link_local(VMAC),)) for i in (near, far)]  # which are not routed
    w.handle(ev.VmSubmitted("vm1", tuple(both)))


@pytest.mark.parametrize("address", [VIP, VIP6], ids=["ipv4", "ipv6"])
def test_who_had_an_address_before_it_was_shared_holds_it(address: bytes) -> None:
    """That is how to go about the 409: its guest has it and has no reason to announce it again."""
    w = World(3)
    w.network(policy=Policy(unknown=Unknown.DROP))
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    field, before = ("ipv4", (ip("10.0.0.1"),)) if len(address) == 4 else ("ipv6", (ip("2001:db8::1"),))
    change(w, 1, **{field: (*before, address)})
    with pytest.raises(Conflict, match="registered with each as shared"):
        change(w, 2, **{field: (address,)})
    for n in (1, 2):
        change(w, n, shared=(address,), **({field: before} if n == 1 else {}))
        assert holder(w, address) == "vm1/eth0" and asked(w, address) == mac(1)
    assert not w.nva.state.changed and w.differences() == []
    restart(w)
    assert asked(w, address) == mac(1)
    change(w, 1, shared=(address,), mac=mac(99))
    assert asked(w, address) == mac(99)


def test_a_shared_address_stays_reached_in_a_layer_3_network() -> None:
    w = Layer3()
    one, three = w.task(1, "n1"), w.task(3, "n3")
    address = ip("10.1.1.200")
    w.handle(ev.VmSubmitted("t1", (replace(one, ipv4=(*one.ipv4, address)),)))
    w.handle(ev.VmSubmitted("t1", (replace(one, shared=(address,)),)))
    assert w.hops(three, address) == [("n1", "tap-t1")] and w.differences() == []
