"""Where frames go, whatever happened before and in whatever order the switches heard of it; see town.py."""

from __future__ import annotations

import contextlib

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from story import PATIENT, Story
from town import GUESTS, NVES, TIMES, VMS, Town, key, tap
from tried import TRIED, ended
from world import TUNNEL

from ryu_vmm import events as ev
from ryu_vmm.errors import VmmError
from ryu_vmm.model import Admit, Distribution, Kind, Policy, Trust
from ryu_vmm.nva import Settings

guest = st.sampled_from(GUESTS)
vm = st.sampled_from(VMS)
nve = st.sampled_from(NVES)
some = st.one_of(st.none(), st.integers(1, 12))

# --- any history ------------------------------------------------------------------------------------------------------
HISTORY = st.one_of(
    st.tuples(st.just("move"), vm, nve, st.sampled_from(list(Kind))),
    st.tuples(st.just("hook"), guest, st.sampled_from(["redirect", "activate", "abort"])),
    st.tuples(st.just("plug"), guest, nve),
    st.tuples(st.just("unplug"), guest, nve),
    st.tuples(st.just("announce"), guest, nve, st.sampled_from(["garp", "na", "rarp", "data"])),
    st.tuples(st.just("wait"), st.sampled_from([0.02, 0.3, 2.0, 12.0])),
    st.tuples(st.just("late"), nve),
    st.tuples(st.just("land"), nve, some),
    st.tuples(st.just("hold"), nve),
    st.tuples(st.just("release"), nve),
    st.tuples(st.just("disconnect"), nve),
    st.tuples(st.just("connect"), nve),
    st.tuples(st.just("policy"), *(st.sampled_from(list(kind)) for kind in (Trust, Distribution, Admit))),
    st.tuples(st.just("forget"), vm),
    st.tuples(st.just("register"), vm, nve),
    st.tuples(st.just("change address"), guest),
    st.tuples(st.just("readdress"), nve),
    st.tuples(st.just("withdraw"), nve),
    st.tuples(st.just("refuse"), nve),
    st.tuples(st.just("tunnel"), nve, st.booleans()),
    st.tuples(st.just("renumber"), guest, nve),
    st.tuples(st.just("idle"), nve),
)
HOOKS = {"redirect": ev.RedirectRequested, "activate": ev.ActivationReported, "abort": ev.AbortRequested}


def happen(w: Town, action: tuple) -> None:  # type: ignore[type-arg]
    """One thing happens; a refusal is an answer too."""
    state = w.nva.state
    with contextlib.suppress(VmmError):
        match action:
            case ("move", n, to, kind):
                w.handle(ev.MoveRequested(f"vm{n}", to, kind))
            case ("hook", n, which):
                for move, _ in list(state.moves_of(key(n)))[-1:]:
                    w.handle(HOOKS[which](move.id))
            case ("plug", n, at):
                w.plug(at, tap(n))
            case ("unplug", n, at):
                if tap(n) in w.boxes[at].ports:
                    w.unplug(at, tap(n))
            case ("announce", n, at, how):
                if tap(n) in w.boxes[at].ports:
                    w.send(at, tap(n), w.sign_of_life(n, how))
            case ("wait", seconds):
                w.advance(seconds, step=0.25)
            case ("late", at):
                w.late.add(at)
            case ("land", at, count):
                w.land(at, count)
            case ("hold", at):
                w.hold_barriers.add(at)
            case ("release", at):
                w.release(at)
            case ("disconnect", at):
                w.disconnect(at)
            case ("connect", at):
                w.boxes[at].held_barriers.clear()
                w.boxes[at].inbox.clear()
                w.connect(at)
            case ("policy", trust, distribution, admit):
                for name, vni in (("blue", 100), ("red", 200)):
                    w.network(name, vni, Policy(distribution, trust, admit=admit, idle_timeout=5))
            case ("forget", n):
                w.handle(ev.VmWithdrawn(f"vm{n}"))
            case ("register", n, at):
                w.register(n, at)
            case ("change address", n):
                w.change_address(n)
            case ("readdress", at):
                w.readdress(at)
            case ("withdraw", at):
                w.handle(ev.NveWithdrawn(at))
                w.handle(ev.NveSubmitted(w.boxes[at].nve))
            case ("refuse", at):
                w.handle(ev.FlowRefused(w.boxes[at].nve.dpid, state.generation, 5, 1))
            case ("tunnel", at, there):
                dpid = w.boxes[at].nve.dpid
                w.handle(ev.PortChanged(dpid, ev.PortInfo(TUNNEL, "vxlan", True), gone=not there))
            case ("renumber", n, at):
                if w.boxes[at].ports.pop(tap(n), None):
                    w.plug(at, tap(n))
            case ("idle", at):
                for entry, _ in w.boxes[at].tables.expire(w.now + 5):
                    w.handle(ev.FlowExpired(w.boxes[at].nve.dpid, entry.flow))


def lived(history: list[tuple], distribution: Distribution) -> None:  # type: ignore[type-arg]
    """A history, and what is left when all is well again."""
    TRIED["examples"] += 1
    w = Town(Policy(distribution, idle_timeout=5))
    for action in history:
        TRIED["steps"] += 1
        happen(w, action)
        w.everybody_sends()
        if w.settled():
            assert w.differences() == []
            w.reach_each_other()
    for name in NVES:
        w.land(name)
        w.release(name)
        if not w.boxes[name].connected:
            w.connect(name)
        happen(w, ("tunnel", name, True))
    w.advance(1000, step=5)
    assert w.settled()
    state = w.nva.state
    assert not list(state.open_moves()) and not state.waits and not state.returning and not state.held
    assert w.differences() == []
    w.everybody_sends()
    w.reach_each_other()
    ended(state)


@settings(max_examples=50 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(HISTORY, max_size=30), st.sampled_from(list(Distribution)))
def test_frames_reach_their_receiver_or_nobody(history: list[tuple], distribution: Distribution) -> None:  # type: ignore[type-arg]
    lived(history, distribution)


# --- planned moves lose nothing ---------------------------------------------------------------------------------------
mover = st.sampled_from([1, 3, 4])
how_heard = st.sampled_from(["garp", "na", "rarp", "data", "activate"])
STORY = st.one_of(
    # Most of a story is moves going on, one step of a move at a time.
    *[st.tuples(st.just("go on"), mover, nve, how_heard)] * 5,
    st.tuples(st.just("go far"), mover, nve, how_heard),
    *[st.tuples(st.just("land"), nve, some)] * 2,
    st.tuples(st.just("land any"), nve, st.lists(st.integers(0, 40), min_size=1, max_size=8)),
    st.tuples(st.just("late"), nve),
    st.tuples(st.just("plug"), mover),
    st.tuples(st.just("abort"), mover),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.05, 0.3, 2.0])),
)


FAULTS = st.one_of(
    STORY,
    STORY,
    st.tuples(st.just("restart"), st.integers(0, 12), st.permutations(NVES).map(lambda names: names[:3])),
    st.tuples(st.just("restart"), st.just(0), st.permutations(NVES)),
    st.tuples(st.just("away"), nve),
    *[st.tuples(st.just("back"), nve)] * 2,
    st.tuples(st.just("evacuate"), nve, st.integers(1, 4)),
)


#: Long after any deadline but that of a move that is prepared.
LATER = st.one_of(
    *[FAULTS] * 3,
    st.tuples(st.just("wait"), st.sampled_from([6.0, 12.0, 65.0])),
    st.tuples(st.just("cut off"), nve),
)


def told(story: list[tuple], distribution: Distribution, times: Settings = PATIENT) -> None:  # type: ignore[type-arg]
    """A story, from its beginning to its end."""
    s = Story(Policy(distribution, idle_timeout=1000), times)
    for action in story:
        s.do(action)
        s.talk()
    s.end()


@settings(max_examples=40 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STORY, max_size=40), st.sampled_from(list(Distribution)))
def test_planned_moves_lose_and_double_nothing(story: list[tuple], distribution: Distribution) -> None:  # type: ignore[type-arg]
    told(story, distribution)


@settings(max_examples=40 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(FAULTS, max_size=40), st.sampled_from(list(Distribution)))
def test_faults_cost_no_frame_but_what_they_drop(story: list[tuple], distribution: Distribution) -> None:  # type: ignore[type-arg]
    """The authority killed and started again, connections lost and back, edges evacuated, at any moment."""
    told(story, distribution)


@settings(max_examples=40 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(LATER, max_size=40), st.sampled_from(list(Distribution)))
def test_deadlines_cost_no_frame(story: list[tuple], distribution: Distribution) -> None:  # type: ignore[type-arg]
    """Whatever stays away longer than a deadline: the redirect stays where somebody may still need it."""
    told(story, distribution, Settings())
