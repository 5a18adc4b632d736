"""A VM that shows up at the destination of a move that was rolled back: a late one is served where it runs."""

from __future__ import annotations

import pytest
from l3town import Layer3
from world import World, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.errors import Conflict, MoveStateConflict
from ryu_vmm.model import Distribution, Interface, Kind, Move, MoveState, Network, Place, Policy
from ryu_vmm.nva import Settings
from ryu_vmm.sought import SECONDS
from ryu_vmm.wire import frames

GARP = frames.build_garp(mac(1), ip("10.0.0.1"))
SHOWS_UP = {"RARP": frames.build_rarp_request(mac(1)), "GARP": GARP, "data": unicast(1, 3)}


def town(policy: Policy | None = None, interfaces: int = 1) -> World:
    w = World(3, settings=Settings(redirect_deadline=2.0))
    w.network(policy=policy)
    for n, nve in enumerate(("n1", "n2", "n3"), 1):
        w.vm(n, nve)
    if interfaces == 2:
        other = Interface("vm1/eth1", "vm1", "eth1", 100, mac(9), (ip("10.0.0.9"),), (), Place("n1", "tap-vm9"))
        w.handle(ev.VmSubmitted("vm1", (w.nva.state.interfaces["vm1/eth0"], other)))
        w.plug("n1", "tap-vm9")
    return w


def rolled_back(w: World, how: str = "failed", gone: bool = True) -> Move:
    """A move of vm1 to n2 that was redirecting for too long, or was aborted then."""
    move = w.move("vm1", "n2")
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.1)
    for port in ("tap-vm1", "tap-vm9") if gone else ():
        if port in w.boxes["n1"].ports:
            w.unplug("n1", port)
    if how == "aborted":
        w.handle(ev.AbortRequested(move.id))
    w.advance(3)
    assert w.current(move).state == how
    return w.current(move)


def to_vm1(w: World) -> list[tuple[str, str]]:
    return w.send("n3", "tap-vm3", unicast(3, 1))


def served_at_n2(w: World) -> None:
    assert to_vm1(w) == [("n2", "tap-vm1")]
    assert w.send("n2", "tap-vm1", unicast(1, 3)) == [("n3", "tap-vm3")]
    w.advance(5)
    assert to_vm1(w) == [("n2", "tap-vm1")]
    assert w.differences() == [] and not w.nva.state.sought


@pytest.mark.parametrize("distribution", list(Distribution))
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("how", ["failed", "aborted"])
@pytest.mark.parametrize("sign", SHOWS_UP)
def test_a_vm_that_comes_late_is_served_where_it_runs(
    sign: str, how: str, restarted: bool, distribution: Distribution
) -> None:
    w = town(Policy(distribution=distribution))
    failed = rolled_back(w, how)
    if restarted:
        w.kill()
        w.start()
    w.plug("n2", "tap-vm1")
    w.send("n2", "tap-vm1", SHOWS_UP[sign])
    late = next(w.nva.state.open_moves())
    assert (late.trigger, late.follows) == ("announcement", failed.id)
    served_at_n2(w)


def test_the_record_says_what_puts_it_right() -> None:
    w = town()
    failed = rolled_back(w)
    assert f"POST /v1/moves/{failed.id}/activate" in str(failed.error)
    (told,) = [fields for kind, fields in w.reports if kind == "move.sought"]
    assert (told["nve"], told["ports"]) == ("n2", {"eth0": "tap-vm1"})
    other = w.move("vm2", "n3")
    w.handle(ev.AbortRequested(other.id))
    assert w.current(other).error is None and "vm2/eth0" not in w.nva.state.sought  # nothing had been redirected


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("sign", SHOWS_UP)
def test_a_move_that_was_prepared_for_too_long_is_carried_out_late(sign: str, kind: Kind, restarted: bool) -> None:
    w = town()
    if kind is Kind.COLD:
        w.unplug("n1", "tap-vm1")
    failed = w.move("vm1", "n2", kind)
    w.advance(w.nva.settings.prepared_deadline + 50, step=50)
    assert w.current(failed).state is MoveState.FAILED
    assert f"POST /v1/moves/{failed.id}/activate" in str(w.current(failed).error)
    if restarted:
        w.kill()
        w.start()
    if kind is Kind.HOT:
        w.unplug("n1", "tap-vm1")
    w.plug("n2", "tap-vm1")
    w.send("n2", "tap-vm1", SHOWS_UP[sign])
    assert next(w.nva.state.open_moves()).follows == failed.id
    served_at_n2(w)


def test_a_vm_that_still_runs_at_its_source_moves_by_announcements_only_and_is_watched() -> None:
    w = town()
    rolled_back(w, gone=False)
    w.plug("n2", "tap-vm1")
    w.send("n2", "tap-vm1", unicast(1, 3))
    assert to_vm1(w) == [("n1", "tap-vm1")]
    w.send("n2", "tap-vm1", GARP)
    assert next(w.nva.state.open_moves()).watched
    w.send("n1", "tap-vm1", GARP)
    assert to_vm1(w) == [("n1", "tap-vm1")]


def test_all_interfaces_come_together() -> None:
    w = town(interfaces=2)
    rolled_back(w)
    w.plug("n2", "tap-vm1")
    w.plug("n2", "tap-vm9")
    w.send("n2", "tap-vm9", frames.build_garp(mac(9), ip("10.0.0.9")))
    assert {i.location.nve for i in w.nva.state.interfaces.values() if i.vm == "vm1"} == {"n2"}
    served_at_n2(w)


@pytest.mark.parametrize("ending", ["time", "a move", "the VM is removed"])
def test_it_is_forgotten(ending: str) -> None:
    w = town()
    rolled_back(w)
    if ending == "time":
        w.advance(SECONDS, step=SECONDS / 4)
    elif ending == "a move":
        w.plug("n1", "tap-vm1")
        w.move("vm1", "n3")
    else:
        w.handle(ev.VmWithdrawn("vm1"))
    w.plug("n2", "tap-vm1")
    w.send("n2", "tap-vm1", GARP)
    assert not w.nva.state.sought
    if ending != "the VM is removed":
        assert w.nva.state.interfaces["vm1/eth0"].location.nve == "n1"
    w.advance(1)
    assert w.differences() == []


def test_a_place_that_is_somebody_elses_by_now_is_theirs() -> None:
    w = town()
    failed = rolled_back(w)
    four = Interface("vm4/eth0", "vm4", "eth0", 100, mac(4), (ip("10.0.0.4"),), (), Place("n2", "tap-vm1"))
    w.handle(ev.VmSubmitted("vm4", (four,)))
    w.plug("n2", "tap-vm1")
    w.send("n2", "tap-vm1", GARP)
    assert w.nva.state.interfaces["vm1/eth0"].location.nve == "n1"
    with pytest.raises(Conflict, match="taken by vm4/eth0"):
        w.handle(ev.ActivationReported(failed.id))


@pytest.mark.parametrize("restarted", [False, True])
def test_of_two_that_were_going_to_one_port_the_last_one_is_looked_for(restarted: bool) -> None:
    w = town()
    w.vm(4, "n1")
    for n in (1, 4):  # by a name that a hypervisor gives to one guest after another
        move, _ = w.handle(ev.MoveRequested(f"vm{n}", "n2", ports={"eth0": "vnet7"}))  # type: ignore[misc]
        w.handle(ev.RedirectRequested(move.id))
        w.advance(0.1)
        w.unplug("n1", f"tap-vm{n}")
        w.advance(3)
    if restarted:
        w.kill()
        w.start()
    w.plug("n2", "vnet7")
    w.send("n2", "vnet7", frames.build_rarp_request(mac(4)))
    assert w.send("n3", "tap-vm3", unicast(3, 4)) == [("n2", "vnet7")]
    w.advance(5)
    assert w.differences() == []


# --- by request -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("plugged", [False, True])
@pytest.mark.parametrize("how", ["failed", "aborted"])
def test_one_request_takes_it_there(how: str, plugged: bool) -> None:
    w = town(interfaces=2)
    failed = rolled_back(w, how)
    if plugged:
        w.plug("n2", "tap-vm1")
    made = w.handle(ev.ActivationReported(failed.id))
    assert isinstance(made, Move)
    assert (made.trigger, made.follows, made.activated_by) == ("activation", failed.id, "activate")
    again = w.handle(ev.ActivationReported(failed.id))
    assert isinstance(again, Move) and again.id == made.id
    if not plugged:
        assert to_vm1(w) == []  # it waits for the port
        w.plug("n2", "tap-vm1")
        assert w.out[-1][:2] == ("n2", "tap-vm1")
    served_at_n2(w)
    assert w.current(made).state is MoveState.SETTLED
    again = w.handle(ev.ActivationReported(failed.id))
    assert isinstance(again, Move) and again.id == made.id


def test_a_cold_move_that_failed_is_activated_as_well() -> None:
    w = town()
    w.unplug("n1", "tap-vm1")
    move = w.move("vm1", "n2", Kind.COLD)
    w.handle(ev.AbortRequested(move.id))
    made = w.handle(ev.ActivationReported(move.id))
    assert isinstance(made, Move) and made.kind is Kind.COLD
    w.plug("n2", "tap-vm1")
    served_at_n2(w)


def test_what_is_not_put_right_by_that() -> None:
    w = town()
    failed = rolled_back(w, gone=False)
    w.disconnect("n2")
    with pytest.raises(Conflict, match="not connected"):
        w.handle(ev.ActivationReported(failed.id))
    w.connect("n2")
    other = w.move("vm1", "n3")
    with pytest.raises(Conflict, match=f"move {other.id} is open"):
        w.handle(ev.ActivationReported(failed.id))
    w.plug("n3", "tap-vm1")
    w.handle(ev.ActivationReported(other.id))
    w.advance(5)
    with pytest.raises(Conflict, match="no longer where"):
        w.handle(ev.ActivationReported(failed.id))


@pytest.mark.parametrize("change", ["made anew", "another's"])
def test_a_vm_that_only_has_the_name_of_the_one_that_moved_is_not_moved(change: str) -> None:
    w = town()
    failed = rolled_back(w, gone=False)
    if change == "made anew":
        known = w.nva.state.interfaces["vm1/eth0"]
        w.handle(ev.VmWithdrawn("vm1"))
        w.advance(1)
        w.handle(ev.VmSubmitted("vm1", (known,)))
    else:
        w.handle(ev.NetworkSubmitted(Network("blue", 100, Policy(), tenant="somebody")))
        assert w.nva.state.vms["vm1"].tenant == "somebody"
    with pytest.raises(Conflict, match="no longer where"):
        w.handle(ev.ActivationReported(failed.id))
    assert to_vm1(w) == [("n1", "tap-vm1")] and w.differences() == []


def test_a_move_whose_vm_was_taken_back_is_not_activated_again() -> None:
    w = town()
    move = w.move("vm1", "n2")
    w.plug("n2", "tap-vm1")
    w.send("n2", "tap-vm1", GARP)
    w.send("n1", "tap-vm1", GARP)
    w.advance(5)
    assert w.current(move).state is MoveState.FAILED
    with pytest.raises(MoveStateConflict, match="ask for a move"):
        w.handle(ev.ActivationReported(move.id))


def test_in_a_layer_3_network_too() -> None:
    w = Layer3(settings=Settings(redirect_deadline=2.0))
    task = w.task(1, "n1")
    other = w.task(2, "n3")
    move = w.move(task.vm, "n2")
    w.advance(1)
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.1)
    w.unplug("n1", task.location.port)
    w.advance(3)
    assert w.current(move).state is MoveState.FAILED
    w.plug("n2", task.location.port)
    w.send("n2", task.location.port, frames.build_rarp_request(task.mac))
    assert w.hops(other, task.ipv6[1]) == [("n2", task.location.port)]
    w.advance(5)
    assert w.differences() == []


@pytest.mark.parametrize("how", ["failed", "aborted"])
def test_who_asks_before_starting_the_vm_is_refused_once_the_move_has_ended(how: str) -> None:
    """Its source goes on with it: two would run."""
    w = town()
    failed = rolled_back(w, how)
    before = set(w.nva.state.moves)
    with pytest.raises(MoveStateConflict, match="not to be started at n2"):
        w.handle(ev.ActivationReported(failed.id, if_open=True))
    assert set(w.nva.state.moves) == before
