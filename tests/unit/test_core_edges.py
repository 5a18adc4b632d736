"""What happens at the wrong moment: in mid-move, late, twice, or while the store fails."""

from __future__ import annotations

import pytest
from world import World, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.model import Distribution, MoveState, Policy
from ryu_vmm.pipeline import Why, cookie


def three(policy: Policy | None = None) -> World:
    """vm1 on n1, vm2 on n2, vm3 on n3, in one network."""
    w = World(3)
    w.network(policy=policy)
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    return w


def left(w: World, before: int) -> list[tuple[str, str, bytes]]:
    """What has left any port since ``before``: NVE, port, last byte."""
    return [(nve, port, frame[-1:]) for nve, port, frame in w.out[before:]]


# --- packets that wait for a port
def redirected(w: World) -> int:
    """vm1 on its way to n2, whose port for it is not there yet; two packets wait for it."""
    move = w.move("vm1", "n2")
    w.handle(ev.RedirectRequested(move.id))
    assert w.send("n3", "tap-vm3", unicast(3, 1, b"a")) == []
    assert w.send("n2", "tap-vm2", unicast(2, 1, b"b")) == []
    return move.id


def test_packets_that_wait_go_to_the_source_if_the_move_is_aborted() -> None:
    w = three()
    move, before = redirected(w), len(w.out)
    w.handle(ev.AbortRequested(move))
    assert left(w, before) == [("n1", "tap-vm1", b"a"), ("n1", "tap-vm1", b"b")]
    assert w.nva.state.moves[move].ledger.held_packets == 2 and w.nva.state.held == {}


def test_packets_wait_without_a_record_for_each() -> None:
    w = three()
    move = w.move("vm1", "n2")
    w.handle(ev.RedirectRequested(move.id))
    w.advance(1)
    event = ev.PacketSeen(2, 1, cookie(Why.HOLD, move.id), unicast(3, 1))
    assert w.nva.handle(event, w.now).records == []


@pytest.mark.parametrize("step", ["wait", "release"])
def test_packets_that_wait_survive_a_store_that_fails(step: str) -> None:
    w = three()
    move, before = redirected(w), len(w.out)
    event: ev.Event = ev.PortChanged(2, ev.PortInfo(w.boxes["n2"].number("tap-vm1"), "tap-vm1", True))
    if step == "wait":
        event = ev.PacketSeen(2, 1, cookie(Why.HOLD, move), unicast(3, 1, b"c"))
    w.nva.handle(event, w.now)
    w.nva.rollback()
    w.handle(event)
    w.plug("n2", "tap-vm1")
    assert [last for _, _, last in left(w, before)] == [b"a", b"b", b"c"][: 3 if step == "wait" else 2]


def test_a_packet_that_waits_for_a_vm_that_is_withdrawn_is_dropped() -> None:
    w = three()
    move = redirected(w)
    w.handle(ev.VmWithdrawn("vm1"))
    assert w.nva.state.held == {} and w.nva.counters["drop.hold-closed"] == 2
    w.handle(ev.PacketSeen(2, 1, cookie(Why.HOLD, move), unicast(3, 1)))  # was on its way
    assert w.nva.counters["drop.hold-closed"] == 3


def test_a_move_does_not_settle_while_packets_wait_for_its_port() -> None:
    w = three()
    move = redirected(w)
    w.handle(ev.ActivationReported(move))
    w.advance(10)
    assert w.nva.state.moves[move].state is MoveState.DRAINING
    before = len(w.out)
    w.plug("n2", "tap-vm1")
    assert left(w, before) == [("n2", "tap-vm1", b"a"), ("n2", "tap-vm1", b"b")]
    w.advance(3)
    assert w.nva.state.moves[move].state is MoveState.SETTLED


def test_packets_that_wait_are_released_by_a_port_that_came_while_its_nve_was_away() -> None:
    w = three()
    redirected(w)
    w.disconnect("n3")
    w.boxes["n2"].number("tap-vm1")
    before = len(w.out)
    w.connect("n2")
    assert left(w, before) == [("n2", "tap-vm1", b"a"), ("n2", "tap-vm1", b"b")]


def test_a_question_for_a_vm_that_has_come_to_the_asking_nve_meanwhile() -> None:
    w = three(Policy(distribution=Distribution.PULL))
    frame = unicast(3, 1)
    asked = ev.PacketSeen(3, w.boxes["n3"].ports["tap-vm3"], cookie(Why.MISS, 100), frame)
    move = w.move("vm1", "n3")
    w.plug("n3", "tap-vm1")
    w.handle(ev.ActivationReported(move.id))
    before = len(w.out)
    w.handle(asked)
    assert left(w, before) == [("n3", "tap-vm1", frame[-1:])]
    assert mac(1) == frame[:6]
