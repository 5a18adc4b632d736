"""Addresses that open moves change: the old one and the new one are the task's until the move has ended."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from l3town import SIR, VNI, Layer3
from outside import GATEWAY
from test_layer3_properties import NVES, Story, _action
from town import TIMES
from world import ip, mac

from ryu_vmm import events as ev
from ryu_vmm.errors import Conflict, VmmError
from ryu_vmm.model import (
    PROBE_IDENTIFIER,
    Addressing,
    Gateway,
    Interface,
    Kind,
    Leave,
    Move,
    MoveState,
    Network,
    NetworkKind,
    Place,
)
from ryu_vmm.model.networks import Answer

OLD4, NEW4, OLD6, NEW6 = ip("10.1.1.7"), ip("10.1.2.7"), ip("2001:db8:1:1::7"), ip("2001:db8:1:2::7")
OFFICE = Network("office", 200, gateway=GATEWAY._replace(ipv4=ip("10.9.0.254"), ipv6=ip("2001:db8:9::fe")), router="r")


@pytest.fixture
def w() -> Layer3:
    world = Layer3(3)
    world.task(7, "n1")
    world.task(9, "n3")
    return world


def opened(w: Layer3, to: str = "n2", vm: str = "t7") -> Move:
    move, _ = w.handle(ev.MoveRequested(vm, to, address=Addressing.CHANGE))  # type: ignore[misc]
    w.advance(0.5)
    return w.current(move)


def other(address: bytes, vni: int = VNI, **more: object) -> ev.VmSubmitted:
    """Registers a task t50 with an address."""
    four, six = ((address,), ()) if len(address) == 4 else ((), (address,))
    return ev.VmSubmitted(
        "t50", (Interface("t50/eth0", "t50", "eth0", vni, mac(50), four, six, Place("n2", "tap-t50"), **more),)  # type: ignore[arg-type]
    )


def steered(w: Layer3, move: Move) -> Move:
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.1)
    w.plug(move.destination, f"tap-{move.vm}")
    w.handle(ev.ActivationReported(move.id))
    return w.current(move)


def has(w: Layer3, n: int = 7) -> tuple[bytes, ...]:
    interface = w.nva.state.interfaces[f"t{n}/eth0"]
    return (*interface.ipv4, *interface.ipv6)


@pytest.mark.parametrize("address", [OLD4, NEW4, OLD6, NEW6])
@pytest.mark.parametrize("how", ["own", "shared", "in another network of its router", "after a restart"])
@pytest.mark.parametrize("when", ["prepared", "steered"])
def test_nobody_is_given_an_address_that_an_open_move_changes(w: Layer3, address: bytes, how: str, when: str) -> None:
    if how.startswith("in another"):
        w.handle(ev.NetworkSubmitted(replace(w.tasks, router="r")))
        w.handle(ev.NetworkSubmitted(OFFICE))
    move = opened(w)
    if when == "steered":
        w.hold_barriers = {"n3"}
        assert steered(w, move).state is MoveState.STEERING
    if how == "after a restart":
        w.kill()
        w.start()
    request = other(address, OFFICE.vni if how.startswith("in another") else VNI)
    if how == "shared":
        request = other(b"\x0a\x01\x02\x63", shared=(address,))
    with pytest.raises(Conflict, match="belongs to t7/eth0 by move 1, which is open"):
        w.handle(request)
    w.release("n3")
    if when == "prepared":
        w.advance(1)
        steered(w, move)
    w.advance(10, step=0.5)
    assert {NEW4, NEW6} <= {*has(w)}
    assert w.differences() == []


def test_what_a_move_gave_up_is_free_when_it_has_ended(w: Layer3) -> None:
    move = steered(w, opened(w))
    with pytest.raises(Conflict, match="by move 1"):
        w.handle(other(OLD4))
    w.advance(5)
    assert w.current(move).state is MoveState.SETTLED
    w.handle(other(OLD4))
    assert not [left for left in w.nva.state.left.values() if left.address == OLD4]


def test_an_aborted_move_promises_nothing_any_more(w: Layer3) -> None:
    w.handle(ev.AbortRequested(opened(w).id))
    w.handle(other(NEW4))
    assert w.nva.state.by_ip[VNI, NEW4] == "t50/eth0"


def test_two_moves_are_never_allotted_the_same_in_all_networks_of_a_router() -> None:
    w = Layer3(3)
    w.handle(ev.NetworkSubmitted(replace(w.tasks, router="r")))
    more = Network("more", 301, kind=NetworkKind.L3, gateway=GATEWAY, router="r")
    w.handle(ev.NetworkSubmitted(more))
    w.task(7, "n1")
    there = Interface("t8/eth0", "t8", "eth0", VNI, mac(8), (ip("10.1.3.7"),), (), Place("n3", "tap-t8"))
    w.handle(ev.VmSubmitted("t8", (there,)))
    w.plug("n3", "tap-t8")
    first, second = opened(w), opened(w, vm="t8")
    new = [change.new for move in (first, second) for change in move.changes]
    assert len(set(new)) == len(new) == 3
    for change in (*first.changes, *second.changes):
        with pytest.raises(Conflict, match="which is open"):
            w.handle(other(change.new, 301))


def test_no_network_joins_a_router_where_an_address_is_promised(w: Layer3) -> None:
    w.handle(ev.NetworkSubmitted(OFFICE))
    w.handle(other(NEW4, OFFICE.vni))
    w.handle(ev.NetworkSubmitted(replace(w.tasks, router=None)))
    opened(w)
    with pytest.raises(Conflict, match=r"10\.1\.2\.7 is in network office"):
        w.handle(ev.NetworkSubmitted(replace(w.tasks, router="r")))


@pytest.mark.parametrize("address", [OLD4, NEW4])
def test_no_gateway_is_given_a_guests_address_nor_one_that_is_promised(w: Layer3, address: bytes) -> None:
    opened(w)
    with pytest.raises(Conflict, match="belongs to"):
        w.handle(ev.NetworkSubmitted(replace(w.tasks, gateway=GATEWAY._replace(ipv4=address))))


def test_an_address_of_an_identifier_or_a_gateway_is_not_allotted() -> None:
    w = Layer3(2)
    w.task(7, "n1")
    sir = replace(w.tasks, sir=ip("2001:db8:1:2::")[:8], gateway=Gateway(GATEWAY.mac, ip("10.1.2.7"), GATEWAY.ipv6))
    w.handle(ev.NetworkSubmitted(sir))
    with pytest.raises(Conflict, match="no IPv6 free address"):
        opened(w)
    w.handle(ev.NetworkSubmitted(replace(sir, sir=SIR)))
    assert NEW4 not in [change.new for change in opened(w).changes]


@pytest.mark.parametrize("end", ["activate", "abort", "withdraw"])
@pytest.mark.parametrize("given", [(), (ip("10.1.1.70"),), (NEW4,), (OLD4, NEW4)])
def test_a_move_changes_only_what_the_task_still_has(w: Layer3, given: tuple[bytes, ...], end: str) -> None:
    """It was registered with other addresses while its move was open."""
    move = opened(w)
    before = w.nva.state.interfaces["t7/eth0"]
    w.handle(ev.VmSubmitted("t7", (replace(before, ipv4=given, ipv6=before.ipv6[1:]),)))
    with pytest.raises(Conflict, match="which is open"):
        w.handle(other(OLD4 if OLD4 not in given else OLD6))
    if end == "withdraw":
        w.handle(ev.VmWithdrawn("t7"))
        w.handle(other(OLD4))
    elif end == "abort":
        w.handle(ev.AbortRequested(move.id))
        assert has(w) == (*given, *before.ipv6[1:])
    else:
        w.advance(1)
        assert steered(w, move).state.steered
        assert w.nva.state.interfaces["t7/eth0"].ipv4 == tuple(dict.fromkeys(NEW4 if a == OLD4 else a for a in given))
    w.advance(100, step=0.5)
    assert not list(w.nva.state.open_moves())
    holds(w)


def test_a_network_is_given_an_sir_prefix_only_if_its_guests_can_be_reached_by_it(w: Layer3) -> None:
    """They may have been registered with addresses under it before, which were nothing special then."""
    later = Network("later", 301, kind=NetworkKind.L3, gateway=GATEWAY)
    prefix = ip("2001:db8:6::")[:8]
    w.handle(ev.NetworkSubmitted(later))

    def refused(identifier: int, words: str, **more: object) -> None:
        address = prefix + identifier.to_bytes(8, "big")
        w.handle(other(ip("10.5.0.1") if more else address, 301, **dict.fromkeys(more, (address,))))
        with pytest.raises(VmmError, match=words) as caught:
            w.handle(ev.NetworkSubmitted(replace(later, sir=prefix)))
        assert "sir" in (getattr(caught.value, "field", ""), caught.value.details.get("field"))

    refused(7, "the identifier of 2001:db8:6::7 belongs to t7/eth0")
    refused(int.from_bytes(PROBE_IDENTIFIER, "big"), "reserved for probes")
    refused(5, "reached by ILA, at one task", shared=True)
    w.handle(other(prefix + (5).to_bytes(8, "big"), 301))
    w.handle(ev.NetworkSubmitted(replace(later, sir=prefix)))
    with pytest.raises(Conflict, match="the identifier of 2001:db8:5::5 belongs to t50/eth0"):
        w.task(5, "n1")
    assert w.differences() == []


def test_no_prefix_of_identifiers_is_laid_over_an_address_that_a_move_changes(w: Layer3) -> None:
    move = opened(w)
    for address in (OLD6, NEW6):
        with pytest.raises(Conflict, match=r"an open move changes 2001:db8:1:\d::7"):
            w.handle(ev.NetworkSubmitted(replace(w.tasks, sir=address[:8])))
    w.handle(ev.AbortRequested(move.id))
    w.handle(ev.NetworkSubmitted(replace(w.tasks, sir=NEW6[:8])))


def test_what_is_registered_elsewhere_in_the_router_was_not_left() -> None:
    w = Layer3(3, leave=Leave(Answer.FORWARD, 3600))
    w.task(7, "n1")
    w.handle(ev.NetworkSubmitted(OFFICE))
    w.handle(ev.NetworkSubmitted(replace(w.tasks, router="r", policy=w.nva.state.networks[VNI].policy)))
    steered(w, opened(w))
    w.advance(5)
    assert [left.address for left in w.nva.state.left_at("n1") if len(left.address) == 4] == [OLD4]
    w.handle(other(OLD4, OFFICE.vni))
    holds(w)
    w.handle(ev.VmWithdrawn("t50"))
    w.handle(ev.NetworkSubmitted(replace(OFFICE, router=None)))
    w.handle(ev.MoveRequested("t7", "n1", address=Addressing.CHANGE))  # has OLD4 again
    back = next(w.nva.state.open_moves())
    w.advance(0.5)
    w.handle(ev.RedirectRequested(back.id))
    w.advance(0.1)
    w.handle(ev.ActivationReported(back.id))
    w.advance(5)
    assert [left.address for left in w.nva.state.left_at("n2") if len(left.address) == 4] == [NEW4]
    w.handle(other(NEW4, OFFICE.vni))
    assert [left.address for left in w.nva.state.left_at("n2") if len(left.address) == 4] == [NEW4]
    w.handle(ev.NetworkSubmitted(OFFICE))  # routed together from now on
    holds(w)
    assert not [left for left in w.nva.state.left_at("n2") if left.address == NEW4]


def holds(w: Layer3) -> None:
    """No address of what is routed together has two owners, or was left by one and is another's."""
    state = w.nva.state
    owners: dict[tuple[int, bytes], str] = {}
    for interface in state.interfaces.values():
        for address in (*interface.ipv4, *interface.ipv6):
            assert owners.setdefault((state.domain(interface.vni)[0], address), interface.id) == interface.id
    for move in state.open_moves():
        for change in move.changes:
            vni = next(leg.vni for leg in move.legs if leg.interface == change.interface)
            for address in (change.old, change.new):
                assert owners.setdefault((state.domain(vni)[0], address), change.interface) == change.interface
    for left in state.left.values():
        assert left.ila or state.owner(left.vni, left.address) is None
        assert not left.ila or left.address in state.interfaces[left.interface].ipv6
    assert w.differences() == []


class Registering(Story):
    """A story in which tasks are registered with whatever addresses come to mind."""

    def _register(self, n: int, at: int, host: int, vni: int) -> None:
        known = self.world.nva.state.interfaces.get(f"t{n}/eth0")
        four, six = (ip(f"10.1.{at}.{host}"),), (ip(f"2001:db8:1:{at}::{host}"), SIR + host.to_bytes(8, "big"))
        place = Place(f"n{at}", f"tap-t{n}") if known is None else known.location
        given_ = Interface(f"t{n}/eth0", f"t{n}", "eth0", vni, mac(n), four, six[: 2 if vni == VNI else 1], place)
        self.world.handle(ev.VmSubmitted(f"t{n}", (given_,)))


_register = st.tuples(
    st.just("register"), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.sampled_from([VNI, VNI, 100])
)
_change = st.tuples(
    st.just("move"), st.integers(1, 5), st.sampled_from(NVES), st.just(Addressing.CHANGE), st.just(Kind.HOT)
)


@settings(max_examples=40 * TIMES, deadline=None)
@given(st.lists(st.one_of(_action, _register, _register, _change), max_size=25))
def test_no_address_has_two_owners_whatever_happens(actions: list[tuple[object, ...]]) -> None:
    story = Registering()
    for action in actions:
        with contextlib.suppress(VmmError):
            story.do(action)
        holds(story.world)
