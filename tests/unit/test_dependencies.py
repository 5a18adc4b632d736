"""What dependencies.py declares is what units read: nothing is forgotten, nothing declared in vain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from l3town import VNI, Layer3
from reading import Noted, forgotten, read_all
from test_core_properties import ACTIONS, act
from upheaval import Upheaval
from world import World, ip, unicast

from ryu_vmm import dependencies
from ryu_vmm import events as ev
from ryu_vmm.dependencies import EVERY, READS, changed
from ryu_vmm.model import Addressing, Answer, Distribution, Leave, Place, Policy
from ryu_vmm.state import State

#: Enough histories for everything to be read once.
SEEDS = (42, *range(20, 80))
EACH = [(kind, read) for kind, reads in (("every", EVERY), *READS.items()) for read in reads]


def states(seeds: tuple[int, ...], acts: int = 60, every: int = 10) -> Iterator[State]:
    """What an authority knows in the course of histories."""
    for seed in seeds:
        story = Upheaval(seed)
        for number in range(1, acts + 1):
            story.act()
            if number % every == 0:
                yield story.w.nva.state


def asked() -> State:
    """A pulled network, in which one edge has asked where somebody is."""
    w = World(2)
    w.network(policy=Policy(Distribution.PULL))
    w.vm(1, "n1"), w.vm(2, "n2")
    w.send("n1", "tap-vm1", unicast(1, 2))
    assert w.nva.state.pulled
    return w.nva.state


def rolled_back() -> State:
    """A move that has ended, while its source may not know and its destination is of the network no more."""
    w = Layer3(3)
    w.task(1, "n1")
    move, _ = w.handle(ev.MoveRequested("t1", "n2"))
    w.advance(1.0)
    w.handle(ev.RedirectRequested(move.id))
    w.advance(1.0)
    w.disconnect("n1")
    w.handle(ev.AbortRequested(move.id))
    assert move.id in w.nva.state.returning and "n2" not in w.nva.state.members(VNI)
    return w.nva.state


def test_whatever_a_unit_reads_touches_it() -> None:
    assert not {found for state in states((1, 2), every=8) for found in forgotten(state)}
    assert not forgotten(asked()) and not forgotten(rolled_back())


@settings(max_examples=15, deadline=None)
@given(st.lists(ACTIONS, max_size=25))
def test_whatever_a_unit_of_layer_2_reads_touches_it(actions: list[tuple]) -> None:  # type: ignore[type-arg]
    w = World(3)
    w.network()
    for n in (1, 2, 3, 4):
        w.vm(n, f"n{1 + n % 3}", attachments=(Place(f"n{1 + (n + 1) % 3}", f"tap-vm{n}"),))
    for action in actions:
        act(w, action)
    assert not forgotten(w.nva.state)


def test_a_dependency_that_is_not_declared_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in turn, and none of them is there in vain."""
    unfound = set(EACH)
    whole = dependencies._BY_TABLE
    for state in chain([asked(), rolled_back()], states(SEEDS)):
        if not unfound:
            break
        by_kind: dict[str, Noted] = defaultdict(dict)
        read = read_all(state)
        for (nve, unit), cells in read.items():
            by_kind[unit[0]][nve, unit] = cells
        for kind, declared in sorted(unfound, key=str):
            rest = [each for each in EACH if each != (kind, declared)]
            monkeypatch.setattr(dependencies, "_BY_TABLE", dependencies._by_table(r for _, r in rest))
            if forgotten(state, read if kind == "every" else by_kind[kind]):
                unfound.discard((kind, declared))
        monkeypatch.setattr(dependencies, "_BY_TABLE", whole)
    assert not {(kind, declared.table, declared.fields) for kind, declared in unfound}


def test_fields_are_told_apart() -> None:
    policy = Policy(mtu=1300)
    w = Layer3(1)
    before = w.nva.state.networks[VNI]
    assert changed(before, replace(before, policy=policy)) == {"policy", "policy.mtu"}
    assert changed(None, before) == changed(before, None) == frozenset()  # all of them
    w.nva.state.begin()
    w.nva.state.put("networks", VNI, replace(before, policy=replace(before.policy, leave=Leave(Answer.DROP, 7))))
    assert not w.nva.state.touched


# --- what had been forgotten ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", [4, 6, 46])
@pytest.mark.parametrize("field", ["ipv4", "ipv6"])
def test_subnets_follow_an_edges_underlay_address(family: int, field: str) -> None:
    w = Layer3(3, family=family)
    a, b = w.task(1, "n1"), w.task(2, "n2")
    new = {"ipv4": ip("192.168.100.77"), "ipv6": ip("fd00:100::77")}[field]
    box = w.boxes["n2"]
    if getattr(box.nve, field) is None:
        return
    box.former.add(getattr(box.nve, field))
    box.nve = replace(box.nve, **{field: new})
    w.handle(ev.NveSubmitted(box.nve))
    assert not w.differences()
    for address in (b.ipv4[0], b.ipv6[0]):
        assert w.hops(a, address) == [("n2", "tap-t2")]


def test_nobody_speaks_for_an_address_any_more_once_it_is_no_longer_forwarded() -> None:
    w = Layer3(3, leave=Leave(Answer.FORWARD, 30))
    task = w.task(1, "n1")
    move, _ = w.handle(ev.MoveRequested("t1", "n2", address=Addressing.CHANGE))
    w.advance(1.0)
    w.through(move, "tap-t1")
    assert _speaks(w, "n2", task.ipv4[0])  # it may still answer
    w.advance(60.0, step=0.5)
    assert not w.nva.state.left and not w.differences()
    assert not _speaks(w, "n2", task.ipv4[0])


def _speaks(w: Layer3, nve: str, address: bytes) -> bool:
    flows = w.installed(nve).values()
    return any(name == "ipv4_src" and value == address for flow in flows for name, value, _ in flow.match)


def test_what_is_forwarded_follows_its_goals_underlay_address() -> None:
    w = Layer3(3, family=4, leave=Leave(Answer.FORWARD, 500))
    task, other = w.task(1, "n1"), w.task(2, "n3")
    move, _ = w.handle(ev.MoveRequested("t1", "n2", address=Addressing.CHANGE))
    w.advance(1.0)
    w.through(move, "tap-t1")
    assert w.hops(other, task.ipv4[0]) == [("n2", "tap-t1")]
    box = w.boxes["n2"]
    box.former.add(box.nve.ipv4)
    box.nve = replace(box.nve, ipv4=ip("192.168.100.77"))
    w.handle(ev.NveSubmitted(box.nve))
    assert not w.differences()
    assert w.hops(other, task.ipv4[0]) == [("n2", "tap-t1")]


def test_what_is_known_of_an_underlay_neighbor_touches_redirects() -> None:
    w = Layer3(3, family=6)
    w.task(1, "n1"), w.task(2, "n3")
    move, _ = w.handle(ev.MoveRequested("t1", "n2"))
    w.advance(2.0)
    w.handle(ev.RedirectRequested(move.id))
    state = w.nva.state
    state.begin()
    key = next(key for key, hop in state.hops.items() if hop.nve == "n1")
    state.put("hops", key, None)
    assert ("move", move.id) in state.touched["n1"]
    state.undo()


def test_what_is_found_out_at_the_end_of_a_step_is_programmed_with_it() -> None:
    w = Layer3(3, family=6)
    a, b = w.task(1, "n1"), w.task(2, "n2")
    w.advance(1.0)
    assert w.hops(a, b.ipv6[1]) == [("n2", "tap-t2")]
    w.underlay.silent.add("n2")
    w.now += 60.0  # nobody answers for so long that the next hop is given up, as something else makes it ask
    w.handle(ev.NetworkSubmitted(replace(w.tasks, subnets=w.tasks.subnets[:1])))
    assert not w.differences() and not w.nva.state.touched
