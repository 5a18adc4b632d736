"""No two ports of an NVE share a meter, whatever their numbers, and who had one keeps it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, arp

from ryu_vmm import events as ev
from ryu_vmm import limits
from ryu_vmm.flows import Flow, FlowKey, Meter
from ryu_vmm.limits import SHARED_SLOT, forgery_meter, question_meter

PORTS = ("a", "b", "c", "d", "e", "f")
NUMBERS = st.sampled_from([5, 6, 7, 4094, 4095, 4096, 4097, 4101, 8192, 8197, 65_279])


def plug(w: World, port: str, number: int) -> None:
    w.boxes["n1"].ports[port] = number
    w.plug("n1", port)


def given_out(w: World) -> dict[str, int]:
    return {port: w.nva.state.ports["n1", port].slot for port in w.nva.state.ports_of("n1")}


def meters(flows: dict[FlowKey, Flow]) -> set[int]:
    return {action.id for flow in flows.values() for action in flow.actions if isinstance(action, Meter)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(
    st.tuples(st.just("plug"), st.sampled_from(PORTS), NUMBERS),
    st.tuples(st.just("unplug"), st.sampled_from(PORTS), st.just(0)),
    st.tuples(st.just("restart"), st.sampled_from(PORTS), st.integers(0, 1)),
    st.tuples(st.just("reconnect"), st.sampled_from(PORTS), st.integers(0, 1)),
), max_size=25))  # fmt: skip
def test_no_two_ports_share_a_meter_and_each_keeps_its_own(steps: list[tuple[str, str, int]]) -> None:
    w = World(1)
    w.network()
    for what, port, number in steps:
        there = w.boxes["n1"].ports
        before = given_out(w)
        if what == "plug" and number not in there.values():
            before.pop(port, None)
            plug(w, port, number)
        elif what == "unplug" and port in there:
            w.unplug("n1", port)
        elif what in ("restart", "reconnect"):
            if number and port in there:
                del there[port]  # it goes while nobody looks
            flows = w.installed("n1") if port not in before else None
            if what == "restart":
                w.kill()
                w.start()
            else:
                w.disconnect("n1")
                w.connect("n1")
            w.advance(0.1)
            if flows is not None:
                assert w.installed("n1") == flows, "nothing is programmed anew"
        now = given_out(w)
        own = list(now.values())
        assert len(set(own)) == len(own) and min(own) > 0 and max(own) < SHARED_SLOT
        assert all(now[kept] == slot for kept, slot in before.items() if kept in now)
        assert set(w.nva.state.slots) == {
            f"n1/{name}" for name in now if now[name] != w.nva.state.ports["n1", name].number
        }
        assert w.differences() == []


@pytest.mark.parametrize("numbers", [(1000, 5096), (4096, 8192), (9, 65_279)])
def test_a_flood_at_one_port_silences_no_other(numbers: tuple[int, int]) -> None:
    w = World(2)
    w.network()
    w.network("red", 200)
    for n, number in zip((1, 2), numbers, strict=True):
        w.vm(n, "n1", vni=100 * n, port=False)
        plug(w, f"tap-vm{n}", number)
    w.vm(3, "n1")
    for _ in range(1200):
        w.send("n1", "tap-vm2", arp(2, 99))
    assert ("n1", "tap-vm1") in w.send("n1", "tap-vm1", arp(1, 3))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("slots", "switches", "slottables"):
        monkeypatch.setattr(f"ryu_vmm.{module}.SHARED_SLOT", 8)


def test_more_ports_than_meters_share_one_and_that_is_told(few: None) -> None:
    w = World(1)
    w.network()
    for n in range(10):
        plug(w, f"p{n}", 100 + n)
    shared = sorted(port for port, slot in given_out(w).items() if slot == 8)
    assert shared == [f"p{n}" for n in range(6, 10)], "the tunnel has one, too"
    assert [fields["port"] for kind, fields in w.reports if kind == "port.crowded"] == shared
    assert w.differences() == [] and {question_meter(8), forgery_meter(8)} & meters(w.installed("n1"))
    w.kill()
    w.start()
    assert sorted(port for port, slot in given_out(w).items() if slot == 8) == shared
    w.unplug("n1", "p0")
    w.unplug("n1", "p7")
    plug(w, "p7", 107)
    assert given_out(w)["p7"] != 8, "what is free again is given out again"


def test_slots_of_an_nve_end_with_it() -> None:
    w = World(1)
    w.network()
    plug(w, "p", 5000)
    assert w.nva.state.slots == {"n1/p": SHARED_SLOT - 1}
    w.handle(ev.NveWithdrawn("n1"))
    assert w.nva.state.slots == {} and not [key for key in w.store.rows if key[0] == "slots"]


def test_meters_that_are_not_of_ports_are_no_ports() -> None:
    highest = max(question_meter(SHARED_SLOT), forgery_meter(SHARED_SLOT))
    assert highest == limits.HIGHEST
    assert question_meter(0) not in {question_meter(slot) for slot in range(1, SHARED_SLOT + 1)}
