"""What a switch says it holds is older than what was sent to it meanwhile, and nobody believes it for longer."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings
from town import TIMES
from wired import Wired

from ryu_vmm import events as ev
from ryu_vmm.flows import Flow

#: What happens to the wires: all arrives, or so many messages.
_MANY = st.sampled_from([1, 3, 10, 1000])
_HAPPENS = st.one_of(
    st.tuples(st.just("come-or-go"), st.integers(1, 2)),
    st.tuples(st.just("come-or-go"), st.integers(1, 2)),
    st.tuples(st.just("come-or-go"), st.just(1)),
    st.tuples(st.just("link"), st.integers(1, 2)),
    st.tuples(st.just("read"), st.just(0)),
    st.tuples(st.just("read-back"), st.just(0)),
    st.tuples(st.just("read-back"), st.just(0)),
    st.tuples(st.just("look"), st.just(0)),
    st.tuples(st.just("believe"), st.integers(0, 3)),
    st.tuples(st.just("believe"), st.integers(0, 3)),
    st.tuples(st.just("send"), _MANY),
    st.tuples(st.just("send"), _MANY),
    st.tuples(st.just("hear"), _MANY),
    st.tuples(st.just("hear"), _MANY),
    st.tuples(st.just("advance"), st.sampled_from([0, 1, 20])),
)
_MEDDLES = st.one_of(
    st.tuples(st.just("remove-meter"), st.integers(0, 5)),
    st.tuples(st.just("remove-flows"), st.integers(1, 5)),
)


class Story:
    """VMs come to an edge and go; readings of it are asked, answered and heard at any moment."""

    def __init__(self) -> None:
        self.w = Wired()
        self.wire = self.w.wires["n1"]
        self.seen: list[list[Flow]] = []
        self.up = {1: True, 2: True}

    def happens(self, what: str, how: int) -> None:
        w, wire = self.w, self.wire
        match what:
            case "come-or-go" if f"vm{how}" in w.nva.state.vms:
                w.event(ev.VmWithdrawn(f"vm{how}"))
            case "come-or-go":
                w.register(how)
            case "link":
                self.up[how] = not self.up[how]
                w.plug("n1", how, self.up[how])
            case "read":
                w.read("n1")
            case "read-back":
                w.read_back("n1")
            case "look":
                self.seen.append(list(wire.flows().values()))
            case "believe" if self.seen:
                wire.path._meters.adopt(self.seen[how % len(self.seen)])
            case "send":
                wire.send(how, w.now)
            case "hear":
                wire.hear(how)
            case "advance":
                w.advance(how)
            case "remove-meter":
                made = sorted(wire.meters._made)
                wire.meters._remove(made[how % len(made)] if made else 0)
            case "remove-flows":
                for flow in list(wire.flows().values())[::how]:
                    wire.switch.tables.delete(flow.match, flow.table, flow.priority)

    def ends(self) -> None:
        """All arrives, and time passes, as much as it takes to look after what a switch has refused."""
        self.w.settle()
        for _ in range(8):
            self.w.advance(20.0)
            self.w.settle()
        assert all(session.synced for session in self.w.nva.state.sessions.values())


@settings(report_multiple_bugs=False, max_examples=60 * TIMES)
@given(st.lists(_HAPPENS, min_size=20, max_size=60))
def test_no_reading_however_late_leads_the_books_astray(what: list[tuple[str, int]]) -> None:
    story = Story()
    for step in what:
        story.happens(*step)
    story.ends()
    assert not story.w.refused
    assert not story.wire.unfit
    assert not story.w.differences()


@settings(report_multiple_bugs=False, max_examples=40 * TIMES)
@given(st.lists(st.one_of(_HAPPENS, _HAPPENS, _HAPPENS, _HAPPENS, _MEDDLES), min_size=20, max_size=60))
def test_a_switch_that_somebody_meddles_with_heals(what: list[tuple[str, int]]) -> None:
    story = Story()
    for step in what:
        story.happens(*step)
    story.ends()
    story.w.read_back("n1")  # for what nothing has run into yet
    story.w.settle()
    assert not story.wire.unfit
    assert not story.w.differences()


def test_meters_that_are_gone_are_missed_when_drops_are_counted() -> None:
    story = Story()
    w, meters = story.w, story.wire.meters
    for remove in ("remove-meter", "remove-flows"):
        for meter in list(meters._made) if remove == "remove-meter" else []:
            meters._remove(meter)
        if remove == "remove-flows":
            story.happens(remove, 1)
        assert w.differences()
        w.read("n1")
        w.settle()
        assert not w.differences()
    assert not w.refused


def test_what_a_change_explains_is_not_missed() -> None:
    """A reading finds a meter gone that was removed, or not yet made, by a change on its way."""
    story = Story()
    w = story.w
    for _ in range(4):
        w.read("n1")
        story.happens("come-or-go", 1)
        w.read("n1")
        w.settle()
    assert w.nva.counters.get("reading.overtaken", 0) == 0
    assert w.reports.count("nve.synchronised") == len(w.wires)
