"""Registrations that name another port: of the same NVE, of another one, of one that is not there yet."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world import World, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.errors import Conflict, InvalidInput, MoveStateConflict
from ryu_vmm.model import Distribution, Interface, Kind, MoveState, Place, Policy, Redirect
from ryu_vmm.wire import frames


@pytest.fixture(params=list(Distribution))
def world(request: pytest.FixtureRequest) -> World:
    w = World(3)
    w.network(policy=Policy(distribution=request.param))
    for n, nve in enumerate(("n1", "n2", "n3"), 1):
        w.vm(n, nve)
    return w


def eth0(w: World, n: int = 1) -> Interface:
    return w.nva.state.interfaces[f"vm{n}/eth0"]


def put(w: World, nve: str, port: str, n: int = 1) -> Interface:
    """Register a VM's interface with another place; as it is then."""
    w.handle(ev.VmSubmitted(f"vm{n}", (replace(eth0(w, n), location=Place(nve, port)),)))
    return eth0(w, n)


def to_vm1(w: World) -> list[tuple[str, str]]:
    return w.send("n3", "tap-vm3", unicast(3, 1))


def at_rest(w: World) -> None:
    w.advance(5)
    assert w.differences() == []


def test_a_renamed_port_serves_at_once(world: World) -> None:
    w = world
    w.unplug("n1", "tap-vm1")
    w.plug("n1", "vnet7")
    found = put(w, "n1", "vnet7")
    assert (found.location, found.epoch, found.pending) == (Place("n1", "vnet7"), 2, None)
    assert to_vm1(w) == [("n1", "vnet7")]
    assert w.send("n1", "vnet7", unicast(1, 3)) == [("n3", "tap-vm3")]
    assert "vm1/eth0" not in w.nva.state.gone
    at_rest(w)


def test_a_port_that_is_there_takes_over_from_one_that_still_is(world: World) -> None:
    w = world
    w.plug("n1", "vnet7")
    assert put(w, "n1", "vnet7").location == Place("n1", "vnet7")
    assert to_vm1(w) == [("n1", "vnet7")]
    assert w.send("n1", "tap-vm1", unicast(1, 3)) == []
    told = {"nve": "n1", "interface": "vm1/eth0", "port": "vnet7", "before": "tap-vm1"}
    assert ("interface.rebound", told) in w.reports
    at_rest(w)


def test_a_port_that_is_not_there_yet_is_waited_for(world: World) -> None:
    w = world
    found = put(w, "n1", "vnet7")
    assert (found.location, found.epoch, found.pending) == (Place("n1", "tap-vm1"), 1, Place("n1", "vnet7"))
    assert to_vm1(w) == [("n1", "tap-vm1")]
    assert put(w, "n1", "vnet7") == found  # the same again
    w.kill()
    w.start()
    assert to_vm1(w) == [("n1", "tap-vm1")]
    w.plug("n1", "vnet7")
    assert (eth0(w).location, eth0(w).pending, eth0(w).epoch) == (Place("n1", "vnet7"), None, 2)
    assert to_vm1(w) == [("n1", "vnet7")]
    at_rest(w)


def test_a_pending_port_takes_effect_when_the_old_one_goes(world: World) -> None:
    w = world
    put(w, "n1", "vnet7")
    w.unplug("n1", "tap-vm1")
    assert eth0(w).location == Place("n1", "vnet7")
    assert to_vm1(w) == []
    w.plug("n1", "vnet7")
    assert to_vm1(w) == [("n1", "vnet7")]
    at_rest(w)


def test_a_wish_is_taken_back_by_naming_where_it_is(world: World) -> None:
    w = world
    put(w, "n1", "vnet7")
    assert put(w, "n1", "tap-vm1").pending is None
    w.plug("n1", "vnet7")
    assert to_vm1(w) == [("n1", "tap-vm1")]
    at_rest(w)


def test_a_port_of_an_nve_that_is_away_is_looked_for_when_it_is_back(world: World) -> None:
    w = world
    w.disconnect("n1")
    assert put(w, "n1", "vnet7").pending == Place("n1", "vnet7")
    w.unplug("n1", "tap-vm1")
    w.plug("n1", "vnet7")
    w.connect("n1")
    assert to_vm1(w) == [("n1", "vnet7")]
    at_rest(w)


def test_repeating_a_registration_after_a_move_undoes_nothing(world: World) -> None:
    w = world
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.handle(ev.ActivationReported(move.id))
    at_rest(w)
    assert put(w, "n1", "tap-vm1").location == Place("n2", "tap-vm1")
    assert put(w, "n2", "tap-vm1").epoch == 2  # where it is: only the wish is another one
    with pytest.raises(Conflict, match="POST /v1/moves"):
        put(w, "n1", "tap-vm1")
    at_rest(w)


def test_a_store_that_has_not_kept_the_wish_takes_another_nve_for_the_old_one(world: World) -> None:
    w = world
    w.nva.state.put("interfaces", "vm1/eth0", replace(eth0(w), location=Place("n2", "tap-vm1")))
    w.nva.state.put("wishes", "request/vms/vm1", None)
    assert put(w, "n1", "tap-vm1").location == Place("n2", "tap-vm1")
    assert put(w, "n1", "tap-vm1").location == Place("n2", "tap-vm1")
    assert put(w, "n2", "vnet7").location == Place("n2", "vnet7")


def test_a_vm_that_was_started_elsewhere_is_served_there(world: World) -> None:
    w = world
    assert to_vm1(w) == [("n1", "tap-vm1")]
    w.unplug("n1", "tap-vm1")
    w.plug("n2", "vnet7")
    w.late = {"n3"}  # it still sends to the NVE where the VM was
    put(w, "n2", "vnet7")
    move = next(w.nva.state.open_moves())
    assert (move.trigger, move.activated_by, move.state) == ("registration", "registration", MoveState.STEERING)
    assert to_vm1(w) == [("n2", "vnet7")]
    w.late = set()
    w.land("n3")
    at_rest(w)
    done = w.current(move)
    assert (done.state, done.ledger.redirected_packets, done.ledger.unaccounted) == (MoveState.SETTLED, 1, 0)


def test_a_vm_whose_port_is_up_is_not_taken_elsewhere(world: World) -> None:
    with pytest.raises(Conflict, match=r"POST /v1/moves"):
        put(world, "n2", "vnet7")
    assert to_vm1(world) == [("n1", "tap-vm1")]
    world.disconnect("n1")
    with pytest.raises(Conflict, match="cold move"):
        put(world, "n2", "vnet7")


def test_an_nve_that_is_being_evacuated_takes_none_by_registration(world: World) -> None:
    world.unplug("n1", "tap-vm1")
    world.handle(ev.EvacuationRequested("n2"))
    with pytest.raises(Conflict, match="evacuated"):
        put(world, "n2", "vnet7")


@pytest.mark.parametrize("port", ["vnet7", "tap-vm1"])
def test_while_a_move_is_open_it_decides(world: World, port: str) -> None:
    w = world
    w.plug("n1", "vnet7")
    move = w.move("vm1", "n2")
    if port == "vnet7":
        with pytest.raises(Conflict, match=f"PATCH /v1/moves/{move.id}"):
            put(w, "n1", port)
    else:
        put(w, "n1", port)  # where it is
    assert eth0(w).location == Place("n1", "tap-vm1")


def test_a_move_takes_a_pending_wish_away(world: World) -> None:
    w = world
    put(w, "n1", "vnet7")
    move = w.move("vm1", "n2")
    w.plug("n1", "vnet7")
    assert eth0(w).location == Place("n1", "tap-vm1")  # while a move is open
    w.plug("n2", "tap-vm1")
    w.handle(ev.ActivationReported(move.id))
    assert eth0(w).pending is None
    at_rest(w)


def test_a_pending_wish_is_fulfilled_when_the_move_has_come_to_nothing(world: World) -> None:
    w = world
    put(w, "n1", "vnet7")
    move = w.move("vm1", "n2")
    w.plug("n1", "vnet7")
    w.handle(ev.AbortRequested(move.id))
    assert to_vm1(w) == [("n1", "vnet7")]
    at_rest(w)


@pytest.mark.parametrize(
    ("port", "refusal", "words"),
    [("tap-vm4", Conflict, "vm4"), ("vxlan0", InvalidInput, "tunnel")],
)
def test_a_port_that_is_another_s_or_the_tunnel_is_refused(
    world: World, port: str, refusal: type[Exception], words: str
) -> None:
    w = world
    w.vm(4, "n1")
    tunnel = next(name for name in w.nva.state.ports_of("n1") if w.nva.state.is_tunnel(Place("n1", name)))
    with pytest.raises(refusal, match=words):
        put(w, "n1", tunnel if port == "vxlan0" else port)
    put(w, "n1", "vnet7")
    with pytest.raises(Conflict, match="vm1/eth0"):  # waited for by vm1
        put(w, "n1", "vnet7", 4)
    assert put(w, "n1", "TAP-VM4").pending == Place("n1", "TAP-VM4")  # not the same name
    assert to_vm1(w) == [("n1", "tap-vm1")]


def two(w: World, first: str, second: str) -> list[str]:
    """Register vm1 with two interfaces at these ports of n1; where they are then."""
    known = w.nva.state.interfaces.get("vm1/eth1")
    other = known or Interface("vm1/eth1", "vm1", "eth1", 100, mac(9), (ip("10.0.0.9"),), (), Place("n1", second))
    both = (replace(eth0(w), location=Place("n1", first)), replace(other, location=Place("n1", second)))
    w.handle(ev.VmSubmitted("vm1", both))
    return [w.nva.state.interfaces[i].location.port for i in ("vm1/eth0", "vm1/eth1")]


def test_two_interfaces_swap_their_ports(world: World) -> None:
    w = world
    w.plug("n1", "tap-b")
    assert two(w, "tap-vm1", "tap-b") == ["tap-vm1", "tap-b"]
    assert two(w, "tap-b", "tap-vm1") == ["tap-b", "tap-vm1"]
    assert to_vm1(w) == [("n1", "tap-b")]
    with pytest.raises(InvalidInput, match="share a port"):
        two(w, "tap-b", "tap-b")
    w.disconnect("n1")
    assert two(w, "tap-vm1", "tap-b") == ["tap-b", "tap-vm1"]
    w.connect("n1")
    assert to_vm1(w) == [("n1", "tap-vm1")]
    at_rest(w)


def test_an_interface_waits_for_another_one_to_leave_its_port(world: World) -> None:
    w = world
    w.plug("n1", "tap-b")
    two(w, "tap-vm1", "tap-b")
    assert two(w, "tap-b", "vnet7") == ["tap-vm1", "tap-b"]
    assert to_vm1(w) == [("n1", "tap-vm1")]
    w.plug("n1", "vnet7")
    assert [w.nva.state.interfaces[i].location.port for i in ("vm1/eth0", "vm1/eth1")] == ["tap-b", "vnet7"]
    assert to_vm1(w) == [("n1", "tap-b")]
    at_rest(w)


# --- open moves -------------------------------------------------------------------------------------------------------
def amend(w: World, number: int, port: str = "vnet7") -> None:
    w.handle(ev.MoveAmended(number, {"eth0": port}))


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("late", [False, True], ids=["plugged before", "plugged after"])
@pytest.mark.parametrize("stage", ["preparing", "prepared", "redirecting"])
def test_a_move_is_given_another_port(world: World, stage: str, late: bool, kind: Kind) -> None:
    """Whatever was sent meanwhile waits for the port that it is in the end; nothing comes twice."""
    w = world
    w.hold_barriers = {"n3"} if stage == "preparing" else set()
    move = w.move("vm1", "n2", kind)
    assert w.current(move).state is (MoveState.PREPARING if stage == "preparing" else MoveState.PREPARED)
    sent = []
    if stage == "redirecting":
        w.handle(ev.RedirectRequested(move.id))
        w.advance(0.1)
        sent = [unicast(3, 1, b"%020d" % n) for n in range(3)]
        for frame in sent:
            assert w.send("n3", "tap-vm3", frame) == []
    if not late:
        w.plug("n2", "vnet7")
    before = len(w.out)
    amend(w, move.id)
    amend(w, move.id)
    if late:
        w.plug("n2", "vnet7")
    assert [out for out in w.out[before:] if out[1] != "tap-vm3"] == [("n2", "vnet7", frame) for frame in sent]
    if stage == "preparing":
        w.release("n3")
    w.advance(0.5)
    assert w.current(move).state is (MoveState.REDIRECTING if stage == "redirecting" else MoveState.PREPARED)
    if stage != "redirecting":
        w.handle(ev.RedirectRequested(move.id))
        w.advance(0.1)
    assert w.current(move).redirect is Redirect.IN_FORCE
    assert to_vm1(w) == [("n2", "vnet7")]
    w.unplug("n1", "tap-vm1")
    w.send("n2", "vnet7", frames.build_garp(mac(1), ip("10.0.0.1")))
    assert to_vm1(w) == [("n2", "vnet7")] and eth0(w).location == Place("n2", "vnet7")
    at_rest(w)
    assert w.current(move).state is MoveState.SETTLED and w.current(move).ledger.unaccounted == 0


def test_what_a_move_may_not_be_given(world: World) -> None:
    w = world
    w.vm(4, "n1")
    move, other = w.move("vm1", "n2"), w.move("vm4", "n2")
    tunnel = next(name for name in w.nva.state.ports_of("n2") if w.nva.state.is_tunnel(Place("n2", name)))
    for port, refusal, words in (
        ("tap-vm2", Conflict, "taken by vm2/eth0"),
        ("tap-vm4", Conflict, f"taken by move {other.id}"),
        (tunnel, InvalidInput, "tunnel"),
    ):
        with pytest.raises(refusal, match=words):
            amend(w, move.id, port)
    with pytest.raises(InvalidInput, match="no interface eth9"):
        w.handle(ev.MoveAmended(move.id, {"eth9": "vnet7"}))
    with pytest.raises(Conflict, match=f"PATCH /v1/moves/{move.id}"):
        w.handle(ev.MoveRequested("vm1", "n2", ports={"eth0": "vnet7"}))
    with pytest.raises(Conflict) as refused:
        w.handle(ev.MoveRequested("vm1", "n3", ports={"eth0": "vnet7"}))
    assert "PATCH" not in str(refused.value)
    w.plug("n2", "tap-vm1")
    w.handle(ev.ActivationReported(move.id))
    with pytest.raises(MoveStateConflict, match="PUT /v1/vms/vm1"):
        amend(w, move.id)
    w.handle(ev.AbortRequested(other.id))
    with pytest.raises(MoveStateConflict, match="has ended"):
        amend(w, other.id)


def test_two_interfaces_of_a_move_swap_their_ports(world: World) -> None:
    w = world
    w.plug("n1", "tap-b")
    two(w, "tap-vm1", "tap-b")
    move = w.move("vm1", "n2")
    w.handle(ev.MoveAmended(move.id, {"eth0": "tap-b", "eth1": "tap-vm1"}))
    assert [leg.dst.port for leg in w.current(move).legs] == ["tap-b", "tap-vm1"]
    with pytest.raises(Conflict, match="another interface"):
        w.handle(ev.MoveAmended(move.id, {"eth0": "tap-vm1"}))
    at_rest(w)
