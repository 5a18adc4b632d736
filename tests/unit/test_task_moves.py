"""Tasks that move in a layer 3 network: with their addresses, by ILA, or to addresses of their destination's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from l3town import SIR, VNI, Layer3
from outside import GATEWAY, ILA, locator
from world import ip

from ryu_vmm import events as ev
from ryu_vmm import sought
from ryu_vmm.errors import Conflict, InvalidInput
from ryu_vmm.model import Addressing, Answer, Connections, Interface, Leave, Move, MoveState, Place
from ryu_vmm.runtime import Runtime
from ryu_vmm.store import MemoryStore
from ryu_vmm.tables import Why, cookie
from ryu_vmm.wire import frames
from ryu_vmm.wire.ip import parse_ip
from ryu_vmm.wire.openflow import PacketIn


@pytest.fixture
def world() -> Layer3:
    return Layer3()


def _addresses(task: Interface) -> list[bytes]:
    return [task.ipv4[0], task.ipv6[0], task.ipv6[1]]


KINDS = pytest.mark.parametrize("kind", [0, 1, 2], ids=["ipv4", "ipv6", "ila"])


@KINDS
def test_every_packet_finds_a_task_at_every_step_of_its_move(world: Layer3, kind: int) -> None:
    one, two, three = world.task(1, "n1"), world.task(2, "n2"), world.task(3, "n3")
    dst = _addresses(one)[kind]
    guests = (two, three, world.task(4, "n1"))

    def all_reach(nve: str) -> None:
        for guest in guests:
            assert world.hops(guest, dst) == [(nve, "tap-t1")], guest.id
            assert parse_ip(world.last()).dst == dst
        assert not world.differences()

    all_reach("n1")
    move = world.move("t1", "n2")
    world.advance(0.5)
    assert world.current(move).state is MoveState.PREPARED
    all_reach("n1")
    world.plug("n2", "tap-t1")
    all_reach("n1")
    world.handle(ev.RedirectRequested(move.id))
    world.advance(0.2)
    all_reach("n2")
    world.handle(ev.ActivationReported(move.id))
    all_reach("n2")
    world.advance(5.0)
    assert world.current(move).state is MoveState.SETTLED
    all_reach("n2")
    back = world.move("t1", "n1")
    world.advance(0.5)
    assert world.through(back, "tap-t1").state is MoveState.SETTLED
    all_reach("n1")


@KINDS
def test_what_a_late_correspondent_sends_is_redirected(world: Layer3, kind: int) -> None:
    one, three = world.task(1, "n1"), world.task(3, "n3")
    world.task(2, "n2")
    move = world.move("t1", "n2")
    world.advance(0.5)
    world.plug("n2", "tap-t1")
    world.handle(ev.RedirectRequested(move.id))
    world.advance(0.2)
    world.late.add("n3")
    world.handle(ev.ActivationReported(move.id))
    assert world.hops(three, _addresses(one)[kind]) == [("n2", "tap-t1")]
    world.late.clear()
    world.land("n3")
    world.advance(6.0)
    closed = world.current(move)
    assert closed.state is MoveState.SETTLED
    assert (closed.ledger.redirected_packets, closed.ledger.arrived_packets) == (1, 1)


@KINDS
def test_packets_wait_for_a_port_that_is_not_there_yet(world: Layer3, kind: int) -> None:
    one, three = world.task(1, "n1"), world.task(3, "n3")
    move = world.move("t1", "n2")
    world.advance(0.5)
    world.handle(ev.RedirectRequested(move.id))
    world.advance(0.2)
    dst = _addresses(one)[kind]
    assert world.hops(three, dst) == []
    world.plug("n2", "tap-t1")
    nve, port, frame = world.out[-1]
    assert (nve, port, parse_ip(frame).dst) == ("n2", "tap-t1", dst)
    assert frame[:6] == one.mac


@KINDS
def test_an_aborted_move_leaves_nothing_behind(world: Layer3, kind: int) -> None:
    one, three = world.task(1, "n1"), world.task(3, "n3")
    before = {name: world.installed(name) for name in world.boxes}
    move = world.move("t1", "n2")
    world.advance(0.5)
    world.plug("n2", "tap-t1")
    world.handle(ev.RedirectRequested(move.id))
    world.advance(0.2)
    world.handle(ev.AbortRequested(move.id))
    world.advance(1.0)
    world.unplug("n2", "tap-t1")
    assert world.hops(three, _addresses(one)[kind]) == [("n1", "tap-t1")]
    world.advance(sought.SECONDS, step=sought.SECONDS)  # the VM may show up there after all
    after = {name: world.installed(name) for name in world.boxes}
    assert {name: flows.keys() for name, flows in after.items()} == {name: f.keys() for name, f in before.items()}


@pytest.mark.parametrize("answer", list(Answer))
def test_an_old_locator_is_dealt_with_as_the_policy_says(answer: Answer) -> None:
    world = Layer3(leave=Leave(answer, 30))
    one, three = world.task(1, "n1"), world.task(3, "n3")
    world.task(2, "n2")
    move = world.move("t1", "n2")
    world.advance(0.5)
    world.through(move, "tap-t1")
    late = world.sent(three, one.ipv6[1])
    late = late[:38] + locator(1) + late[46:]  # as it left n3 before the move

    def arrives() -> list[tuple[str, str]]:
        before = len(world.out)
        box = world.boxes["n1"]
        world._emit(box, box.tables.run(late, in_port=ILA, now=world.now), ILA)
        world._pump()
        return [(nve, port) for nve, port, _ in world.out[before:]]

    came = arrives()
    if answer is Answer.DROP:
        assert came == []
    elif answer is Answer.FORWARD:
        assert came == [("n2", "tap-t1")]
        assert parse_ip(world.last()).dst == one.ipv6[1]
    else:
        assert came == [("n3", "tap-t3")]
        found = parse_ip(world.last())
        assert world.last()[found.start] == 1
        assert world.last()[found.start + 8 + 24 :][:16] == one.ipv6[1]  # what it is about, as its sender knows it
    world.advance(31, step=0.5)
    assert arrives() == []
    assert not world.nva.state.left
    assert not world.differences()


# --- addresses that change --------------------------------------------------------------------------------------------
def _change(world: Layer3, to: str, **more: object) -> Move:
    move, _ = world.handle(ev.MoveRequested("t1", to, address=Addressing.CHANGE, **more))  # type: ignore[misc, arg-type]
    world.advance(0.5)
    return world.current(move)


@pytest.mark.parametrize("answer", list(Answer))
@pytest.mark.parametrize("kind", [0, 1], ids=["ipv4", "ipv6"])
def test_the_address_becomes_one_of_the_destinations(answer: Answer, kind: int) -> None:
    world = Layer3(leave=Leave(answer, 20))
    one, three, four = world.task(1, "n1"), world.task(3, "n3"), world.task(4, "n1")
    move = _change(world, "n2")
    changed = {change.old: change.new for change in move.changes}
    assert changed == {one.ipv4[0]: ip("10.1.2.1"), one.ipv6[0]: ip("2001:db8:1:2::1")}
    old, new = list(changed.items())[kind]
    assert world.hops(three, old) == [("n1", "tap-t1")]
    world.through(move, "tap-t1")
    task = world.nva.state.interfaces["t1/eth0"]
    assert (task.ipv4, task.ipv6) == ((ip("10.1.2.1"),), (ip("2001:db8:1:2::1"), one.ipv6[1]))
    for guest in (three, four):
        assert world.hops(guest, new) == [("n2", "tap-t1")]
        came = world.hops(guest, old)
        place = world.nva.state.interfaces[guest.id].location
        expected = {Answer.DROP: [], Answer.FORWARD: [("n2", "tap-t1")], Answer.UNREACHABLE: [tuple(place)]}
        assert came == expected[answer]
    assert world.hops(task, three.ipv4[0]) == [("n3", "tap-t3")]
    spoof = world.sent(one, three.ipv4[0])
    spoof = spoof[:26] + one.ipv4[0] + spoof[30:]
    assert world.send("n2", "tap-t1", spoof) == ([("n3", "tap-t3")] if answer is Answer.FORWARD else [])
    kinds = [fields for kind, fields in world.reports if kind == "task.readdressed"]
    assert [(ip(str(f["old"])), ip(str(f["new"])), f["answer"]) for f in kinds] == [
        (o, n, answer) for o, n in changed.items()
    ]
    assert not world.differences()
    world.advance(25, step=0.5)
    assert not world.nva.state.left
    assert world.hops(three, old) == [("n3", "tap-t3")]  # unreachable, as any that nobody has
    assert world.send("n2", "tap-t1", spoof) == []
    assert not world.differences()


def test_wherever_a_task_may_show_up_it_speaks_for_its_present_and_former_addresses() -> None:
    world = Layer3(leave=Leave(Answer.FORWARD, 20))
    one = replace(world.task(1, "n1"), attachments=(Place("n3", "tap-t1"),))
    world.handle(ev.VmSubmitted("t1", (one,)))
    world.plug("n3", "tap-t1")  # an attachment that is no end of the moves
    move = _change(world, "n2")
    assert move.state is MoveState.PREPARED and not world.differences()
    world.handle(ev.AbortRequested(move.id))
    world.advance(0.5)
    assert not world.differences()
    world.through(_change(world, "n2"), "tap-t1")
    assert world.nva.state.left and not world.differences()
    world.handle(ev.MoveRequested("t1", "n1"))
    world.advance(25, step=0.5)
    assert not world.nva.state.left and next(world.nva.state.open_moves())
    assert not world.differences()  # at the ends of the move, too


def test_the_tasks_own_policy_comes_first() -> None:
    world = Layer3(leave=Leave(Answer.UNREACHABLE, 20))
    one, three = world.task(1, "n1", Leave(Answer.DROP, 30)), world.task(3, "n3")
    world.through(_change(world, "n2"), "tap-t1")
    assert world.hops(three, one.ipv4[0]) == []


def test_an_old_address_outlives_a_restart(world: Layer3) -> None:
    one, three = world.task(1, "n1"), world.task(3, "n3")
    world.through(_change(world, "n2"), "tap-t1")
    world.kill()
    world.start()
    assert world.hops(three, one.ipv4[0]) == [("n3", "tap-t3")]
    assert world.nva.state.left
    world.advance(61, step=1.0)
    assert not world.nva.state.left
    assert not world.differences()


def test_an_old_address_that_somebody_has_again_is_theirs(world: Layer3) -> None:
    one, three = world.task(1, "n1"), world.task(3, "n3")
    world.through(_change(world, "n2"), "tap-t1")
    heir = replace(world.task(5, "n1"), ipv4=one.ipv4)
    world.handle(ev.VmSubmitted("t5", (heir,)))
    assert world.hops(three, one.ipv4[0]) == [("n1", "tap-t5")]


def test_a_task_that_returns_gets_its_address_back(world: Layer3) -> None:
    one, three = world.task(1, "n1"), world.task(3, "n3")
    world.through(_change(world, "n2"), "tap-t1")
    world.through(_change(world, "n1"), "tap-t1")
    task = world.nva.state.interfaces["t1/eth0"]
    assert task.ipv4 == one.ipv4
    assert world.hops(three, one.ipv4[0]) == [("n1", "tap-t1")]
    assert not world.differences()


def test_an_address_that_is_taken_is_not_allotted(world: Layer3) -> None:
    world.task(1, "n1")
    other = replace(world.task(7, "n2"), ipv4=(ip("10.1.2.1"),))
    world.handle(ev.VmSubmitted("t7", (other,)))
    move = _change(world, "n2")
    assert move.changes[0].new == ip("10.1.2.2")
    world.task(8, "n1")
    second, _ = world.handle(ev.MoveRequested("t8", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    assert second.changes[0].new == ip("10.1.2.8")


def test_the_new_address_announces_the_task(world: Layer3) -> None:
    one = world.task(1, "n1")
    move = _change(world, "n2")
    world.handle(ev.RedirectRequested(move.id))
    world.advance(0.2)
    world.plug("n2", "tap-t1")
    world.send("n2", "tap-t1", frames.build_garp(one.mac, move.changes[0].new))
    assert world.current(move).state.steered


def test_a_rolled_back_change_changes_nothing(world: Layer3) -> None:
    world.task(1, "n1")
    before = world.nva.state.interfaces["t1/eth0"]
    move = _change(world, "n2")
    world.handle(ev.AbortRequested(move.id))
    world.advance(0.5)
    assert world.nva.state.interfaces["t1/eth0"] == before
    assert not world.nva.state.left
    assert not world.differences()


def test_an_answer_that_was_given_is_not_given_for_an_address_to_come(world: Layer3) -> None:
    """Before the move the gateway has the address, for all it knows; then it asks whether one of its own is taken."""
    one = world.task(1, "n1")
    store = MemoryStore()
    store.rows = dict(world.store.rows)
    run = Runtime(store)
    for box in world.boxes.values():
        run.event(ev.NveConnected(box.nve.dpid, tuple(ev.PortInfo(n, port, True) for port, n in box.ports.items())))
        run.event(ev.FlowsRead(box.nve.dpid, "sync", ()))
    question = frames.build_arp_request(one.mac, bytes(4), ip("10.1.2.1"))
    number = world.boxes["n1"].ports["tap-t1"]
    packet = PacketIn(1, 20, cookie(Why.RESOLVE), number, None, None, question, None)
    run.packets(1, [packet])  # it is heard
    assert len(run.packets(1, [packet])) == 1
    move, _ = run.handle(ev.MoveRequested("t1", "n2", address=Addressing.CHANGE))
    assert ip("10.1.2.1") in [change.new for change in move.changes]
    assert run.packets(1, [packet]) == []
    run.stop()


def test_what_cannot_change_is_refused(world: Layer3) -> None:
    world.task(1, "n1")
    with pytest.raises(InvalidInput, match="connections cannot be keep"):
        _change(world, "n2", connections=Connections.KEEP)
    with pytest.raises(InvalidInput, match="connections cannot be migrate"):
        _change(world, "n2", connections=Connections.MIGRATE)
    assert _change(world, "n2").connections is Connections.DROP
    bare = replace(world.tasks, subnets=tuple(s for s in world.tasks.subnets if s.nve != "n3"))
    world.handle(ev.AbortRequested(1))
    world.handle(ev.NetworkSubmitted(bare))
    with pytest.raises(Conflict, match="no IPv4 subnet"):
        _change(world, "n3")
    world.network("blue", 100)
    world.vm(1, "n1")
    with pytest.raises(InvalidInput, match="none can change"):
        world.handle(ev.MoveRequested("vm1", "n2", address=Addressing.CHANGE))


def test_a_full_subnet_has_nothing_to_allot(world: Layer3) -> None:
    small = replace(world.tasks, subnets=(*world.tasks.subnets[:1], replace_length(world, "n2", 30)))
    world.handle(ev.NetworkSubmitted(small))
    for n, last in ((21, 1), (22, 2)):
        task = world.task(n, "n2")
        world.handle(ev.VmSubmitted(task.vm, (replace(task, ipv4=(ip(f"10.1.2.{last}"),)),)))
    world.task(1, "n1")
    with pytest.raises(Conflict, match="no IPv4 free address"):
        _change(world, "n2")


def replace_length(world: Layer3, nve: str, length: int) -> object:
    """The IPv4 subnet of an NVE with another length."""
    return next(s for s in world.tasks.subnets if s.nve == nve and len(s.prefix) == 4)._replace(length=length)


def test_a_task_that_is_removed_takes_what_it_left_along(world: Layer3) -> None:
    world.task(1, "n1")
    world.task(3, "n3")
    world.through(_change(world, "n2"), "tap-t1")
    world.handle(ev.VmWithdrawn("t1"))
    assert not world.nva.state.left
    assert not world.differences()


def test_gateway_is_the_same_before_and_after(world: Layer3) -> None:
    one = world.task(1, "n1")
    move = world.move("t1", "n2")
    world.advance(0.5)
    world.through(move, "tap-t1")
    world.send("n2", "tap-t1", frames.build_arp_request(one.mac, one.ipv4[0], GATEWAY.ipv4 or b""))
    assert frames.parse_arp(world.last()).sha == GATEWAY.mac
    assert SIR and VNI


def test_every_kind_of_path_is_proven_before_a_task_moves(world: Layer3) -> None:
    world.task(1, "n1")
    world.task(3, "n3")
    bare = replace(world.boxes["n3"].nve, routed_port=None)
    world.handle(ev.NveSubmitted(bare))
    move = world.move("t1", "n2")
    world.advance(0.5)
    ways = {f"{pair}{by}" for pair in ("n1->n2", "n2->n1") for by in ("", " without Ethernet", " by ILA")}
    ways |= {f"{pair}{by}" for pair in ("n3->n2", "n2->n3") for by in ("", " by ILA")}
    assert world.current(move).ledger.probes.keys() == ways


def test_a_locator_that_is_not_reached_fails_the_move_and_not_the_task(world: Layer3) -> None:
    one, three = world.task(1, "n1"), world.task(3, "n3")
    world.underlay.join("n2", b"\x02\xee\0\0\0\2", ip("fd00:100::2"), None)  # its br-ext has no flow for the locator
    world.advance(20, step=0.5)
    move = world.move("t1", "n2")
    world.advance(11.0, step=0.5)
    failed = world.current(move)
    assert failed.state is MoveState.FAILED
    assert "n3 to n2 by ILA" in (failed.error or "")
    assert world.hops(three, one.ipv6[1]) == [("n1", "tap-t1")]
