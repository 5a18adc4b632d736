"""A broadcast reaches everybody, however many they are: a list that is too long for one flow goes on in the next."""

from __future__ import annotations

import pytest
from world import TUNNEL, World, broadcast, ip

from ryu_vmm import events as ev
from ryu_vmm.flows import Flow, FlowChange, Output, SetField
from ryu_vmm.model import Interface, Nve, Place
from ryu_vmm.pipeline import flows_of
from ryu_vmm.tables import FLOOD, FLOOD_ACTIONS
from ryu_vmm.wire.base import MAX_MESSAGE
from ryu_vmm.wire.openflow import encode_flow_mods


def crowd(peers: int, family: int) -> World:
    """vm1 at n1, and a guest of its network at each of so many NVEs that are not connected."""
    w = World(1, family=family)
    w.network()
    w.vm(1, "n1")
    for n in range(2, peers + 2):
        four, six = (192 << 24 | n).to_bytes(4, "big"), ip("fd00::")[:8] + n.to_bytes(8, "big")
        nve = Nve(f"p{n}", n, four if family != 6 else None, six if family != 4 else None)
        w.nva.state.load("nves", nve.name, nve)
        mac = b"\2\0" + n.to_bytes(4, "big")
        guest = Interface(f"g{n}/eth0", f"g{n}", "eth0", 100, mac, (), (), Place(f"p{n}", "tap"))
        w.nva.state.load("interfaces", guest.id, guest)
    return w


#: Who hears vm1 in the world of :func:`divided`.
HEARERS = frozenset(
    {("n1", f"tap-vm{n}") for n in range(5, 10)} | {(f"n{n}", f"tap-vm{n}") for n in (2, 3, 4)}
)


def divided(monkeypatch: pytest.MonkeyPatch) -> World:
    """vm1 to vm4 at an NVE each, five more at n1, and flows that hold three actions of a list."""
    monkeypatch.setattr("ryu_vmm.pipeline.FLOOD_ACTIONS", 3)
    w = World(4)
    w.network()
    for n in (1, 2, 3, 4):
        w.vm(n, f"n{n}")
    for n in range(5, 10):
        w.vm(n, "n1")
    return w


def floods(w: World) -> list[Flow]:
    return [flow for flow in flows_of(w.nva.state, "n1", [("vn", 100)]).values() if flow.table >= FLOOD]


@pytest.mark.parametrize(("peers", "family", "tables"), [(1000, 4, 1), (1700, 6, 2), (2500, 4, 3)])
def test_every_peer_gets_one_copy_and_every_flow_fits_into_a_message(peers: int, family: int, tables: int) -> None:
    w = crowd(peers, family)
    found = sorted((flow for flow in floods(w) if Output(TUNNEL) in flow.actions), key=lambda flow: flow.table)
    assert [flow.table for flow in found] == list(range(FLOOD, FLOOD + tables))
    assert [flow.goto for flow in found] == [*range(FLOOD + 1, FLOOD + tables), None]
    assert max(len(encode_flow_mods([FlowChange("add", flow)], 1)) for flow in found) < 0.7 * MAX_MESSAGE
    goals = [a.value for flow in found for a in flow.actions if isinstance(a, SetField) and a.field.endswith("_dst")]
    known = {nve.ipv4 if family == 4 else nve.ipv6 for nve in w.nva.state.nves.values() if nve.name != "n1"}
    assert len(goals) == peers and set(goals) == known


def test_a_list_that_has_become_shorter_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    w = divided(monkeypatch)
    assert max(flow.table for flow in w.installed("n1").values()) > FLOOD + 2
    everybody = set(HEARERS)
    got = w.send("n1", "tap-vm1", broadcast(1))
    assert set(got) == everybody and len(got) == len(everybody)
    assert len(w.send("n2", "tap-vm2", broadcast(2))) == 8
    for n in range(5, 10):
        w.handle(ev.VmWithdrawn(f"vm{n}"))
    w.handle(ev.VmWithdrawn("vm4"))
    assert set(w.send("n1", "tap-vm1", broadcast(1))) == {("n2", "tap-vm2"), ("n3", "tap-vm3")}
    assert w.differences() == []


def test_what_a_vm_says_to_all_does_not_wait_for_itself_in_a_divided_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ryu_vmm.pipeline.FLOOD_ACTIONS", 1)
    w = World(2)
    w.network()
    for n in (1, 4):
        w.vm(n, "n1")
    for n in (2, 3):
        w.vm(n, "n2")
    w.plug("n2", "tap-vm1")
    move = w.move("vm1", "n2")
    w.advance(0.5)
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.2)
    assert sorted(w.send("n1", "tap-vm1", broadcast(1))) == [("n1", "tap-vm4"), ("n2", "tap-vm2"), ("n2", "tap-vm3")]
    assert ("n2", "tap-vm1") in w.send("n1", "tap-vm4", broadcast(4))


def test_lists_are_divided_evenly_for_what_a_message_holds() -> None:
    longest = Flow(FLOOD, 100, (), (SetField("tun_ipv6_dst", bytes(16)), Output(1)) * (FLOOD_ACTIONS // 2))
    assert len(encode_flow_mods([FlowChange("add", longest._replace(goto=FLOOD + 1))], 1)) < 0.7 * MAX_MESSAGE


@pytest.mark.parametrize("at", ["n1", "n0"])
def test_nobody_misses_a_broadcast_while_a_divided_list_changes(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    w = divided(monkeypatch)
    gone = 5 if at == "n1" else 2  # ahead of others in the list, of ports and of peers
    others = set(HEARERS)
    others -= {("n1", "tap-vm5"), ("n2", "tap-vm2")}
    for change in (lambda: w.handle(ev.VmWithdrawn(f"vm{gone}")), lambda: w.vm(gone, "n1" if gone == 5 else "n2")):
        w.late.add("n1")
        change()
        pieces = len(w.boxes["n1"].inbox)
        assert pieces > 3
        for _ in range(pieces):
            assert others <= set(w.send("n1", "tap-vm1", broadcast(1)))
            w.land("n1", 1)
        w.land("n1")
        got = w.send("n1", "tap-vm1", broadcast(1))
        assert len(got) == len(set(got)) and w.differences() == []
