"""Guests are told of changed answers: whoever answers questions about addresses says when they change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from l3town import Layer3
from outside import GATEWAY
from world import World, arp, ip, mac

from ryu_vmm import announcing
from ryu_vmm import events as ev
from ryu_vmm.addresses import link_local
from ryu_vmm.announcing import KEPT, PAUSES
from ryu_vmm.effects import Record
from ryu_vmm.model import Changed, Gateway, Interface, Kind, Network, Place, Vanished
from ryu_vmm.store import SqliteStore
from ryu_vmm.wire import frames

IP, IP6 = ip("10.0.0.1"), ip("2001:db8::1")


def three() -> World:
    w = World(3)
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    return w


def told(w: World, since: int = 0, port: str = "tap-vm3") -> list[tuple[bytes, bytes]]:
    """What a guest has been told unasked: (address, MAC), each as often as it was."""
    found = []
    for _, name, frame in w.out[since:]:
        kind = frames.classify(frame)
        if name == port and kind is frames.Kind.GARP:
            found.append((frames.parse_arp(frame).spa, frames.parse_arp(frame).sha))
        elif name == port and kind is frames.Kind.NA_UNSOLICITED:
            nd = frames.parse_nd(frame)
            assert nd.flags & frames.NA_OVERRIDE and nd.lladdr is not None
            found.append((nd.target, nd.lladdr))
    return found


def renew(w: World, n: int, **changes: object) -> Interface:
    """Register a VM's interface again with other content."""
    interface = replace(w.nva.state.interfaces[f"vm{n}/eth0"], **changes)  # type: ignore[arg-type]
    w.handle(ev.VmSubmitted(f"vm{n}", (interface,)))
    return interface


def restart(w: World) -> None:
    w.kill()
    w.start()


# --- what is told
def test_a_changed_mac_is_told_again_and_again_and_then_no_more() -> None:
    w = three()
    renew(w, 1, mac=mac(99))
    both = [(IP, mac(99)), (IP6, mac(99))]
    assert sorted(told(w)) == sorted(both)
    for n, pause in enumerate(PAUSES, 2):
        w.advance(pause - 0.2, step=0.1)
        assert len(told(w)) == 2 * (n - 1)
        w.advance(0.3, step=0.1)
        assert sorted(told(w)) == sorted(both * n)
    w.advance(KEPT + 60, step=30.0)
    assert len(told(w)) == 2 * (1 + len(PAUSES))
    assert not w.nva.state.changed and not w.nva.state.telling
    assert w.differences() == []


def test_an_address_that_goes_to_another_interface_is_told() -> None:
    w = three()
    renew(w, 1, ipv4=(ip("10.0.0.11"),), ipv6=())
    assert told(w) == []
    renew(w, 2, ipv4=(ip("10.0.0.2"), IP), ipv6=(ip("2001:db8::2"), IP6))
    assert sorted(told(w)) == sorted([(IP, mac(2)), (IP6, mac(2))])


def test_an_address_that_changes_hands_in_one_step_is_told() -> None:
    w = three()
    one, two = (w.nva.state.interfaces[f"vm{n}/eth0"] for n in (1, 2))
    outcome = w.nva.handle_all(
        [
            ev.VmSubmitted("vm1", (replace(one, ipv4=(ip("10.0.0.11"),)),)),
            ev.VmSubmitted("vm2", (replace(two, ipv4=(*two.ipv4, IP)),)),
        ],
        w.now,
    )
    for effect in outcome.effects:
        w._carry_out(effect)
    assert told(w) == [(IP, mac(2))]


@pytest.mark.parametrize("again", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("days", [0, 9])
def test_a_vm_made_anew_with_another_mac_is_told(again: bool, days: int) -> None:
    w = three()
    w.handle(ev.VmWithdrawn("vm1"))
    w.advance(days * 86400.0, step=7200.0)
    if again:
        restart(w)
    assert told(w) == []
    w.handle(ev.VmWithdrawn("vm2"))
    renewed = Interface("new/eth0", "new", "eth0", 100, mac(77), (IP,), (IP6,), Place("n2", "tap-vm2"))
    w.handle(ev.VmSubmitted("new", (renewed,)))
    assert sorted(told(w)) == sorted([(IP, mac(77)), (IP6, mac(77))])


def test_a_vm_made_anew_with_the_same_mac_is_not_told() -> None:
    w = three()
    w.handle(ev.VmWithdrawn("vm1"))
    w.vm(1, "n2")
    w.advance(30)
    assert told(w) == []


def test_a_vm_made_anew_while_guests_may_not_have_heard_of_its_mac_is_told() -> None:
    w = three()
    w.disconnect("n3")
    changed = renew(w, 1, mac=mac(99))
    w.handle(ev.VmWithdrawn("vm1"))
    w.connect("n3")
    assert told(w) == []
    w.handle(ev.VmSubmitted("vm1", (changed,)))
    assert sorted(told(w)) == sorted([(IP, mac(99)), (IP6, mac(99))])


def test_addresses_that_nobody_had_are_not_told() -> None:
    w = World(3)
    w.network()
    for n in range(1, 40):
        w.vm(n, f"n{n % 3 + 1}")
    w.advance(20)
    assert not any(frames.classify(f) in (frames.Kind.GARP, frames.Kind.NA_UNSOLICITED) for _, _, f in w.out)
    assert not w.nva.state.changed and not w.deadlines


def test_a_moved_vm_says_nothing_new() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.handle(ev.RedirectRequested(move.id))
    w.plug("n2", "tap-vm1")
    w.handle(ev.ActivationReported(move.id))
    w.advance(10)
    assert told(w) == []


def test_a_registered_link_local_address_is_told() -> None:
    w = three()
    router = ip("fe80::1")
    renew(w, 1, ipv6=(IP6, router))
    renew(w, 1, ipv6=(IP6,))
    renew(w, 2, ipv6=(router,))
    assert told(w) == [(router, mac(2))]
    taken = link_local(mac(2))  # what a MAC makes of itself, until somebody is given it
    renew(w, 2, mac=mac(88))
    renew(w, 1, ipv6=(IP6, taken))
    renew(w, 1, ipv6=(IP6,))
    before = len(w.out)
    renew(w, 3, ipv6=(taken,))
    assert told(w, before, "tap-vm1") == [(taken, mac(3))]


def test_the_vm_that_has_the_address_is_not_told() -> None:
    w = three()
    state = w.nva.state
    one = state.interfaces["vm1/eth0"]
    two = Interface("vm1/eth1", "vm1", "eth1", 100, mac(11), (), (), Place("n1", "tap-vm1b"))
    w.handle(ev.VmSubmitted("vm1", (one, two)))
    w.plug("n1", "tap-vm1b")
    w.handle(ev.VmSubmitted("vm1", (replace(one, ipv4=()), replace(two, ipv4=(IP,)))))
    assert told(w) == [(IP, mac(11))]
    assert told(w, port="tap-vm1") == told(w, port="tap-vm1b") == []
    move, _ = w.handle(ev.MoveRequested("vm1", "n3", ports={"eth1": "tap-vm1c"}))  # type: ignore[misc]
    w.advance(1)
    w.handle(ev.RedirectRequested(move.id))
    w.plug("n3", "tap-vm1")
    w.plug("n3", "tap-vm1c")
    w.advance(5)
    assert told(w, port="tap-vm1") == told(w, port="tap-vm1b") == told(w, port="tap-vm1c") == []


# --- who was away
def test_an_nve_that_was_away_is_told_when_it_is_back() -> None:
    w = three()
    w.disconnect("n3")
    renew(w, 1, mac=mac(99))
    w.advance(KEPT + 100, step=10.0)
    assert told(w) == [] and len(told(w, port="tap-vm2")) == 2 * (1 + len(PAUSES))
    w.connect("n3")
    w.advance(20)
    assert len(told(w)) == 2 * (1 + len(PAUSES)) == len(told(w, port="tap-vm2"))
    w.advance(KEPT + 100, step=10.0)
    assert not w.nva.state.changed


def test_an_nve_that_goes_between_the_rounds_is_told_the_rest() -> None:
    w = three()
    renew(w, 1, mac=mac(99))
    w.disconnect("n3")
    w.advance(2)
    before = len(w.out)
    w.connect("n3")
    assert sorted(told(w, before)) == sorted([(IP, mac(99)), (IP6, mac(99))])


def test_an_nve_that_is_withdrawn_is_waited_for_no_more() -> None:
    w = three()
    w.disconnect("n3")
    renew(w, 1, mac=mac(99))
    w.handle(ev.VmWithdrawn("vm3"))
    w.handle(ev.NveWithdrawn("n3"))
    assert all(not row.owed for row in w.nva.state.changed.values())
    w.advance(KEPT + 60, step=30.0)
    assert not w.nva.state.changed


def test_a_restarted_nva_goes_on_telling() -> None:
    w = three()
    renew(w, 1, mac=mac(99))
    before = len(w.out)
    restart(w)
    assert sorted(told(w, before)) == sorted([(IP, mac(99)), (IP6, mac(99))])
    w.advance(20)
    assert len(told(w, before)) == 2 * (1 + len(PAUSES))
    before = len(w.out)
    w.advance(60)
    restart(w)
    w.advance(20)
    assert told(w, before) == []


@pytest.mark.parametrize("how", ["port", "cold move"])
def test_a_guest_that_comes_up_is_told_what_has_changed(how: str) -> None:
    w = three()
    w.unplug("n3", "tap-vm3")
    renew(w, 1, mac=mac(99))
    w.advance(20)
    assert told(w) == []
    if how == "port":
        w.plug("n3", "tap-vm3")
    else:
        move = w.move("vm3", "n2", Kind.COLD)
        w.plug("n2", "tap-vm3")
        w.handle(ev.ActivationReported(move.id))
    w.advance(20)
    assert len(told(w)) == 2 * (1 + len(PAUSES))
    assert {*told(w)} == {(IP, mac(99)), (IP6, mac(99))}


# --- gateways
def test_a_gateways_new_mac_is_told() -> None:
    w = World(2)
    gateway = Gateway(mac(200), ip("10.0.0.254"), ip("2001:db8::fe"))
    net = Network("blue", 100, gateway=gateway, router="r")
    w.handle(ev.NetworkSubmitted(net))
    w.vm(1, "n1")
    w.handle(ev.NetworkSubmitted(replace(net, gateway=gateway._replace(mac=mac(201)))))
    assert sorted(told(w, port="tap-vm1")) == sorted([(gateway.ipv4, mac(201)), (gateway.ipv6, mac(201))])
    (said,) = (f for _, _, f in w.out if frames.classify(f) is frames.Kind.NA_UNSOLICITED)
    assert frames.parse_nd(said).flags == frames.NA_ROUTER | frames.NA_OVERRIDE  # RFC 4861 section 4.4


def test_in_a_layer_3_network_only_the_gateways_mac_matters() -> None:
    w = Layer3()
    one, two = w.task(1, "n1"), w.task(2, "n2")
    w.handle(ev.VmSubmitted("t1", (replace(one, mac=mac(99)),)))
    w.handle(ev.VmWithdrawn("t1"))
    w.task(5, "n1")
    w.handle(ev.VmSubmitted("t5", (replace(w.nva.state.interfaces["t5/eth0"], ipv4=one.ipv4),)))
    w.advance(20)
    assert told(w, port="tap-t2") == []
    w.handle(ev.NetworkSubmitted(replace(w.tasks, gateway=GATEWAY._replace(mac=mac(200)))))
    heard = told(w, port="tap-t2")
    assert {(GATEWAY.ipv4, mac(200)), (GATEWAY.ipv6, mac(200)), (one.ipv4[0], mac(200))} <= {*heard}
    assert two.ipv4[0] not in [address for address, _ in heard]


def test_in_a_layer_3_network_a_gateways_new_mac_is_told_for_shared_addresses_too() -> None:
    w = Layer3()
    one, shared = w.task(1, "n1"), (ip("10.1.1.200"), ip("2001:db8:1:1::200"))
    w.task(2, "n2")
    w.handle(ev.VmSubmitted("t1", (replace(one, shared=shared),)))
    w.send("n1", "tap-t1", frames.build_garp(one.mac, shared[0]))
    w.send("n1", "tap-t1", frames.build_unsolicited_na(one.mac, shared[1]))
    assert told(w, port="tap-t2") == []
    w.handle(ev.NetworkSubmitted(replace(w.tasks, gateway=GATEWAY._replace(mac=mac(200)))))
    assert {(address, mac(200)) for address in shared} <= {*told(w, port="tap-t2")}


def test_a_task_with_another_address_says_nothing_new() -> None:
    from ryu_vmm.model import Addressing

    w = Layer3()
    w.task(1, "n1")
    w.task(2, "n2")
    move, _ = w.handle(ev.MoveRequested("t1", "n3", address=Addressing.CHANGE))  # type: ignore[misc]
    w.advance(1)
    w.through(move, "tap-t1")
    assert told(w, port="tap-t2") == []


# --- what is kept
def test_no_more_is_kept_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "VANISHED_KEPT", 4)
    monkeypatch.setattr(announcing, "CHANGED_KEPT", 4)
    w = World(1)
    w.network()
    for n in range(1, 9):
        w.vm(n, "n1")
        renew(w, n, mac=mac(100 + n))
        w.handle(ev.VmWithdrawn(f"vm{n}"))
    assert sorted(row.address for row in w.nva.state.vanished.values() if len(row.address) == 4) == [
        ip("10.0.0.7"), ip("10.0.0.8"),
    ]  # fmt: skip
    restart(w)
    w.vm(9, "n1")
    w.handle(ev.VmWithdrawn("vm9"))
    assert {row.address[-1] for row in w.nva.state.vanished.values()} == {8, 9}
    for n in range(1, 9):
        w.vm(n, "n1", port=False)
        renew(w, n, mac=mac(50 + n))
    assert len(w.nva.state.changed) == 4
    assert sum(target[0] == "address" for target in w.nva.state.telling) == 4
    for n in range(1, 9):
        w.handle(ev.VmWithdrawn(f"vm{n}"))
    w.handle(ev.NetworkWithdrawn("blue"))
    assert not w.nva.state.vanished and not w.nva.state.changed and not w.store.rows.keys() & {"vanished", "changed"}


def test_what_is_kept_survives_in_the_store(tmp_path: Path) -> None:
    rows = [Changed(100, IP, mac(1), 12.5, ("n1",)), Vanished(100, IP6, None, 13.0), Vanished(7, IP, mac(2), 14.0)]
    tables = {Changed: "changed", Vanished: "vanished"}
    store = SqliteStore(tmp_path / "store.sqlite")
    store.commit([Record(tables[type(row)], row.key, row) for row in rows])
    assert sorted((key, value) for _, key, value in store.load()) == sorted((row.key, row) for row in rows)
    store.close()


def test_a_question_gets_the_answer_that_was_told() -> None:
    w = three()
    renew(w, 1, mac=mac(99))
    w.send("n3", "tap-vm3", arp(3, 1))
    assert frames.parse_arp(w.out[-1][2]).sha == mac(99)
