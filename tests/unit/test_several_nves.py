"""VMs with interfaces on several NVEs: each move takes those on one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from evacuating import evacuate, rows
from rest_lab import client, lab, problem, vm
from restarted import check_restart
from world import World, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.errors import Conflict, InvalidInput
from ryu_vmm.model import Distribution as How
from ryu_vmm.model import EvacueeState, Interface, Move, MoveState, Place, Policy

__all__ = ["client", "lab"]


def two_legs(nves: int = 4, policy: Policy | None = None, first: str = "n1", second: str = "n2") -> World:
    """VM v has eth0 in blue on one NVE and eth1 in red on another one; vm2 and vm3 are their peers on the last."""
    w = World(nves)
    w.network(policy=policy)
    w.network("red", 200, policy)
    legs = []
    for n, (name, vni, nve) in enumerate((("eth0", 100, first), ("eth1", 200, second))):
        addresses = (ip(f"10.0.0.{21 + n}"),), (ip(f"2001:db8::{21 + n}"),)
        legs.append(Interface(f"v/{name}", "v", name, vni, mac(21 + n), *addresses, Place(nve, f"tap-{name}")))
    w.handle(ev.VmSubmitted("v", tuple(legs)))
    for leg in legs:
        w.plug(*leg.location)
    w.vm(2, f"n{nves}")
    w.vm(3, f"n{nves}", vni=200)
    return w


def ask(w: World, to: str, source: str | None = None, **ports: str) -> Move:
    move, _ = w.handle(ev.MoveRequested("v", to, ports=ports, source=source))  # type: ignore[misc]
    return w.current(move)


def carry(w: World, *moves: Move) -> None:
    """One guest is paused here and runs there: all hooks of all its moves."""
    for move in moves:
        w.handle(ev.RedirectRequested(move.id))
    w.advance(0.1)
    for move in moves:
        for leg in move.legs:
            w.unplug(*leg.src)
            w.plug(*leg.dst)
    for move in moves:
        w.handle(ev.ActivationReported(move.id))
    w.advance(3)
    for move in moves:
        assert w.current(move).state is MoveState.SETTLED
    assert w.differences() == []


def homes(w: World) -> dict[str, str]:
    return {i.name: i.location.nve for i in w.nva.state.interfaces.values() if i.vm == "v"}


def reached(w: World) -> list[list[tuple[str, str]]]:
    """Where packets for both interfaces come out."""
    return [w.send("n4", f"tap-vm{n}", unicast(n, n + 19)) for n in (2, 3)]


@pytest.mark.parametrize("how", list(How))
def test_they_gather_at_one_nve_by_two_moves_at_once(how: How) -> None:
    w = two_legs(policy=Policy(distribution=how))
    first, second = ask(w, "n3", "n1"), ask(w, "n3", "n2")
    assert [leg.interface for move in (first, second) for leg in move.legs] == ["v/eth0", "v/eth1"]
    assert (first.source, second.source) == ("n1", "n2")
    carry(w, first, second)
    assert homes(w) == {"eth0": "n3", "eth1": "n3"}
    assert reached(w) == [[("n3", "tap-eth0")], [("n3", "tap-eth1")]]
    assert check_restart(w) is not None


def test_they_go_to_a_host_with_as_many_nves() -> None:
    w = two_legs(5)
    w.vm(4, "n4")
    carry(w, ask(w, "n3", "n1"), ask(w, "n4", "n2"))
    assert homes(w) == {"eth0": "n3", "eth1": "n4"}


def test_those_at_one_nve_move_and_the_rest_stays() -> None:
    w = two_legs()
    carry(w, ask(w, "n3", "n1"))
    assert homes(w) == {"eth0": "n3", "eth1": "n2"}
    assert reached(w) == [[("n3", "tap-eth0")], [("n2", "tap-eth1")]]


def test_those_that_are_there_already_need_no_word() -> None:
    """One source is left, so it need not be named; a VM on one NVE is moved as ever."""
    w = two_legs()
    carry(w, ask(w, "n2"))
    assert homes(w) == {"eth0": "n2", "eth1": "n2"}
    carry(w, ask(w, "n3"))
    assert homes(w) == {"eth0": "n3", "eth1": "n3"}


def test_what_is_not_clear_is_asked_for() -> None:
    w = two_legs()
    with pytest.raises(Conflict, match="the interfaces of v are on n1, n2") as refused:
        ask(w, "n3")
    assert (refused.value.details["nves"], refused.value.details["field"]) == (["n1", "n2"], "source")
    with pytest.raises(Conflict, match="v has no interface on n3"):
        ask(w, "n4", "n3")
    with pytest.raises(InvalidInput, match="v has no interface eth1 on n1"):
        ask(w, "n3", "n1", eth1="x")
    with pytest.raises(Conflict, match="is on n1 already"):
        ask(w, "n1", "n1")
    ask(w, "n3", "n1")
    with pytest.raises(Conflict, match="move 1 is already open"):
        ask(w, "n4", "n1")
    assert list(w.nva.state.moves) == [1]


def test_one_of_two_moves_that_fails_takes_nothing_from_the_other() -> None:
    w = two_legs()
    first, second = ask(w, "n3", "n1"), ask(w, "n3", "n2")
    w.handle(ev.AbortRequested(first.id))
    carry(w, second)
    assert homes(w) == {"eth0": "n1", "eth1": "n3"}
    assert w.current(first).state is MoveState.ABORTED


def test_an_evacuation_gathers_a_vm_where_the_rest_of_it_is() -> None:
    w = two_legs()
    w.vm(5, "n2")  # n3 has fewer
    evacuate(w)
    (move,) = w.nva.state.open_moves()
    carry(w, move)
    assert homes(w) == {"eth0": "n2", "eth1": "n2"}
    assert rows(w) == {"v": EvacueeState.MOVED}


def test_an_evacuation_takes_what_is_there_and_leaves_the_rest() -> None:
    w = two_legs()
    evacuate(w, to=("n3",))
    (move,) = w.nva.state.open_moves()
    assert [leg.interface for leg in move.legs] == ["v/eth0"]
    assert check_restart(w) is not None
    carry(w, move)
    assert homes(w) == {"eth0": "n3", "eth1": "n2"}
    assert rows(w) == {"v": EvacueeState.MOVED}
    assert reached(w) == [[("n3", "tap-eth0")], [("n2", "tap-eth1")]]


@pytest.mark.parametrize("off", [False, True])
def test_both_nves_of_a_vm_are_evacuated_at_once(off: bool) -> None:
    """What leaves the second goes where what left the first goes, although there are fewer VMs elsewhere."""
    w = two_legs(5)
    w.vm(4, "n3")
    w.vm(6, "n5")
    w.vm(7, "n4")
    for n, port in ((1, "tap-eth0"), (2, "tap-eth1")) if off else ():
        w.unplug(f"n{n}", port)
    for nve in ("n1", "n2"):
        evacuate(w, nve, to=("n3", "n4", "n5"))
    moves = list(w.nva.state.moves.values())
    assert [move.off for move in moves] == [off, off]
    assert {move.destination for move in moves} == {moves[0].destination}
    if off:
        for move in moves:
            w.plug(*move.legs[0].dst)
            w.handle(ev.ActivationReported(move.id))
        w.advance(5)
    else:
        carry(w, *moves)
    assert len(set(homes(w).values())) == 1
    assert rows(w, 1) == rows(w, 2) == {"v": EvacueeState.MOVED}


def test_the_second_of_both_nves_takes_on_what_the_first_has_sent_there() -> None:
    w = two_legs()
    evacuate(w, "n1")
    evacuate(w, "n2", to=("n3",))
    carry(w, *w.nva.state.open_moves())
    assert homes(w) == {"eth0": "n2", "eth1": "n3"}
    carry(w, *w.nva.state.open_moves())
    assert homes(w) == {"eth0": "n3", "eth1": "n3"}
    assert rows(w, 1) == rows(w, 2) == {"v": EvacueeState.MOVED}


def test_a_vm_is_not_off_where_a_port_of_it_is_on_another_nve() -> None:
    w = two_legs()
    w.unplug("n1", "tap-eth0")
    evacuate(w, to=("n3",))
    (move,) = w.nva.state.open_moves()
    w.advance(10)
    assert not w.current(move).state.steered
    w.unplug("n2", "tap-eth1")
    w.plug("n1", "tap-eth0")
    w.advance(1)
    w.unplug("n1", "tap-eth0")
    w.advance(3)
    assert w.current(move).off, "now it is"


def test_a_restart_in_the_middle() -> None:
    w = two_legs()
    first, second = ask(w, "n3", "n1"), ask(w, "n3", "n2")
    w.kill()
    w.start()
    w.advance(1)
    assert {w.current(move).state for move in (first, second)} <= {MoveState.PREPARED, MoveState.PREPARING}
    carry(w, first, second)
    assert homes(w) == {"eth0": "n3", "eth1": "n3"}


def test_over_rest(lab: Any) -> None:
    body = vm(9, "nve1")
    second = {**body["interfaces"][0], "name": "eth1", "mac": "02:00:00:00:09:09", "ipv4": [], "ipv6": []}
    body["interfaces"].append({**second, "nve": "nve2", "port": "tap-vm9b"})
    assert lab.post("/v1/vms", json=body).status_code == 201
    wanted = {"vm": "vm9", "to": "nve3", "ports": {}}
    assert problem(lab.post("/v1/moves", json=wanted), 409)["details"]["nves"] == ["nve1", "nve2"]
    made = lab.post("/v1/moves", json={**wanted, "source": "nve2", "request_id": "r"})
    assert made.status_code == 202
    assert made.json()["source"] == "nve2"
    assert lab.post("/v1/moves", json={**wanted, "source": "nve2", "request_id": "r"}).json()["id"] == made.json()["id"]
    problem(lab.post("/v1/moves", json={**wanted, "source": "nve1", "request_id": "r"}), 409)


# --- a source whose port flaps, an end that forgets -------------------------------------------------------------------
def flap(w: World, nve: str, port: str) -> None:
    w.unplug(nve, port)
    w.advance(0.2)
    w.plug(nve, port)
    w.advance(0.2)


def test_a_source_port_that_flaps_renews_no_deadline_for_ever() -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n2")
    move = w.move("vm1", "n2")
    for _ in range(10):
        flap(w, "n1", "tap-vm1")
    ended = w.current(move)
    assert ended.state is MoveState.FAILED
    assert "tap-vm1 on n1 is there again" in str(ended.error)
    assert "prepared 8 times" in str(ended.error)
    assert w.nva.state.interfaces["vm1/eth0"].location == Place("n1", "tap-vm1"), "it is served where it was"
    assert w.send("n2", "tap-vm2", unicast(2, 1)) == [("n1", "tap-vm1")]
    w.advance(2)
    assert w.differences() == []
    carry_on = w.move("vm1", "n2")
    assert w.current(carry_on).state is MoveState.PREPARED, "who asks again may"


def test_a_port_that_flaps_once_costs_nothing() -> None:
    w = World(2)
    w.network()
    w.vm(1, "n1")
    move = w.move("vm1", "n2")
    for _ in range(3):
        flap(w, "n1", "tap-vm1")
    assert w.current(move).state is MoveState.PREPARED


def test_an_end_that_forgets_again_and_again() -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1")
    move = w.move("vm1", "n2")
    for _ in range(12):
        w.lose_tables("n2")
        w.connect("n2")
        w.advance(0.3)
    ended = w.current(move)
    assert ended.state is MoveState.FAILED
    assert "empty tables, and it has been prepared 8 times" in str(ended.error)


# --- MACs for ILA -----------------------------------------------------------------------------------------------------
def nve(w: World, name: str, dpid: int, n: int, ila: bool = True) -> None:
    made = replace(w.boxes["n1"].nve, name=name, dpid=dpid, ipv4=ip(f"192.168.9.{n}"), ipv6=ip(f"fd00:9::{n}"))
    half = ip(f"2001:db8:{n:x}::")[:8]
    w.handle(ev.NveSubmitted(replace(made, locator=half if ila else None, ila_port="ila" if ila else None)))


def test_no_two_nves_have_one_mac_for_ila() -> None:
    w = World(1, family=46, layer3=True)
    nve(w, "a", 0x0001_0000_0000_00AA, 10)
    with pytest.raises(Conflict, match="MAC 02:69:00:00:00:aa of NVE a: the last 8 digits of their datapath ids") as no:
        nve(w, "b", 0x0002_0000_0000_00AA, 11)
    assert no.value.details["field"] == "dpid"
    nve(w, "b", 0x0002_0000_0000_00AA, 11, ila=False)
    nve(w, "c", 0x0002_0000_0000_00AB, 12)
    with pytest.raises(Conflict, match="of NVE a"):
        nve(w, "b", 0x0002_0000_0000_00AA, 11)  # gets a locator only now
    nve(w, "a", 0x0001_0000_0000_00AA, 10, ila=False)
    nve(w, "b", 0x0002_0000_0000_00AA, 11)
    macs = [n for n in w.nva.state.nves.values() if n.locator is not None]
    assert len({n.dpid & 0xFFFFFFFF for n in macs}) == len(macs)
