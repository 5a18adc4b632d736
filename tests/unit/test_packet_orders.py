"""Where frames go in whatever order switches hear of one step, and over underlays of both kinds."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from world import World, broadcast, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.errors import Conflict
from ryu_vmm.model import Distribution, Kind, Move, MoveState, Place, Policy
from ryu_vmm.wire import frames

ORDERS = list(itertools.permutations(["n1", "n2", "n3"]))


def three(kind: str) -> tuple[World, Move]:
    """vm1 on n1 on its way to n2, whose port is there, watched by vm2 on n2 and vm3 on n3."""
    w = World(3)
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    move = w.move("vm1", "n2")
    if kind != "no port":
        w.plug("n2", "tap-vm1")
    return w, move


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("kind", ["port", "no port"])
def test_a_redirect_all_at_once_finds_the_destination_ready(order: tuple[str, ...], kind: str) -> None:
    """The VM's port goes, or it is heard at the destination, without anybody having asked for a redirect."""
    for event in ("departed", "activated"):
        w, move = three(kind)
        w.late = {"n1", "n2", "n3"}
        if event == "departed":
            w.unplug("n1", "tap-vm1")
        else:
            w.handle(ev.ActivationReported(move.id))
        for landed, name in enumerate(order):
            w.land(name, len(w.boxes[name].inbox))
            aware = set(order[: landed + 1])
            before = len(w.out)
            out = w.send("n3", "tap-vm3", unicast(3, 1))
            if "n1" in aware or (event == "activated" and "n3" in aware):
                if kind == "no port":
                    w.plug("n2", "tap-vm1")
                    w.land("n2")
                    out = [(nve, port) for nve, port, _ in w.out[before:]]
                    assert out == [("n2", "tap-vm1")], (event, order[: landed + 1])
                    break
                assert out == [("n2", "tap-vm1")], (event, order[: landed + 1])


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("kind", ["port", "no port"])
def test_an_abort_loses_nothing_on_its_way(order: tuple[str, ...], kind: str) -> None:
    w, move = three(kind)
    w.handle(ev.RedirectRequested(move.id))
    w.late = {"n1", "n2", "n3"}
    w.handle(ev.AbortRequested(move.id))
    sent, before = 0, len(w.out)
    for name in order:
        w.land(name)
        if "n2" not in w.late:  # until then its port there takes them
            for n in (2, 3):
                sent += 1
                w.send(f"n{n}", f"tap-vm{n}", unicast(n, 1))
    assert [(nve, port) for nve, port, _ in w.out[before:]] == [("n1", "tap-vm1")] * sent
    assert w.nva.state.returning == {} and w.differences() == []


def test_a_source_port_that_was_away_for_a_moment_gets_its_packets_again() -> None:
    w, move = three("port")
    w.unplug("n1", "tap-vm1")
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]
    w.plug("n1", "tap-vm1")
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", "tap-vm1")]
    assert w.current(move).state is MoveState.PREPARED and not w.current(move).departed
    w.handle(ev.RedirectRequested(move.id))
    w.unplug("n1", "tap-vm1")
    w.plug("n1", "tap-vm1")  # asked for: the hypervisor says what is to be
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]
    w, move = three("port")
    w.unplug("n1", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))  # asked for as well
    w.plug("n1", "tap-vm1")
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]


# --- underlays of both kinds ------------------------------------------------------------------------------------------
def test_a_broadcast_reaches_peers_of_either_kind_once() -> None:
    w = World(4, family=(46, 4, 6, 46))
    w.network()
    for n in (1, 2, 3, 4):
        w.vm(n, f"n{n}")
    assert sorted(w.send("n1", "tap-vm1", broadcast(1))) == [(f"n{n}", f"tap-vm{n}") for n in (2, 3, 4)]
    assert w.send("n1", "tap-vm1", unicast(1, 2)) == [("n2", "tap-vm2")]
    assert w.send("n1", "tap-vm1", unicast(1, 3)) == [("n3", "tap-vm3")]


@pytest.mark.parametrize(("there", "peer"), [(4, 6), (6, 4)])
def test_a_redirect_from_one_kind_to_the_other(there: int, peer: int) -> None:
    """n3 still sends to n1 by one kind of underlay, n1 reaches n2 by the other only."""
    w = World(3, family=(46, 46, peer))
    w.network()
    w.vm(1, "n1")
    w.vm(3, "n3")
    move = w.move("vm1", "n2")
    assert w.current(move).state is MoveState.PREPARED
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    box = w.boxes["n2"]
    narrow = dataclasses.replace(box.nve, **{"ipv6" if there == 4 else "ipv4": None})
    w.handle(ev.NveSubmitted(narrow))
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]
    assert w.differences() == []


def test_a_move_to_where_a_correspondent_has_no_path_is_refused() -> None:
    w = World(3, family=(46, 4, 6))
    w.network()
    w.vm(1, "n1")
    w.vm(3, "n3")
    with pytest.raises(Conflict, match="n3 and n2 share no underlay"):
        w.move("vm1", "n2")


# --- one VM in two networks -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", list(Kind))
def test_two_interfaces_with_one_mac_are_two(kind: Kind) -> None:
    """Packets that the NVA holds or brings on stay in the network that they came from."""
    w = World(3)
    w.network("blue", 100)
    w.network("red", 200)
    first = w.vm(1, "n1", vni=100)
    second = dataclasses.replace(first, id="vm1/eth1", name="eth1", vni=200, location=Place("n1", "tap-red"))
    w.handle(ev.VmSubmitted("vm1", (first, second)))
    w.plug("n1", "tap-red")
    w.vm(3, "n3", vni=200)
    move = w.move("vm1", "n2", kind)
    before, out = w.installed("n3"), len(w.out)
    if kind is Kind.HOT:
        w.handle(ev.RedirectRequested(move.id))
        assert w.send("n3", "tap-vm3", unicast(3, 1)) == []  # waits
    else:
        for port in ("tap-vm1", "tap-red"):
            w.unplug("n1", port)
    for port in ("tap-vm1", "tap-red"):
        w.plug("n2", port)
    if kind is Kind.COLD:
        w.handle(ev.ActivationReported(move.id))
        after = w.installed("n3")
        for flow in before.values():  # n3 forgets what it acknowledged
            if after.get(flow.key) != flow:
                w.boxes["n3"].tables.add(flow)
        w.send("n3", "tap-vm3", unicast(3, 1))
    assert [(nve, port) for nve, port, _ in w.out[out:]] == [("n2", "tap-red")]


def test_a_neighbor_that_stays_finds_a_vm_that_left_unasked() -> None:
    """In a pull network, from the NVE that the VM has left, which has never asked where it is."""
    w = World(2)
    w.network(policy=Policy(distribution=Distribution.PULL, idle_timeout=5))
    w.vm(1, "n1", attachments=(Place("n2", "tap-vm1"),))
    w.vm(2, "n1")
    w.unplug("n1", "tap-vm1")
    w.plug("n2", "tap-vm1")
    w.send("n2", "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.1")))
    (move,) = w.nva.state.open_moves()
    assert move.source == "n1" and not move.state.closed
    for _ in range(2):  # asked for, then by the flow
        assert w.send("n1", "tap-vm2", unicast(2, 1)) == [("n2", "tap-vm1")]
    assert w.nva.counters["packet_in.miss"] == 1
    assert w.differences() == []
