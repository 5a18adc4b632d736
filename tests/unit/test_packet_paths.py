"""Where frames go, whatever happened before and in whatever order the switches heard of it; see town.py."""

from __future__ import annotations

import contextlib
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from town import GUESTS, NVES, OF_VM, TIMES, VM_OF, VMS, VNI, Town, key, said, tap
from world import TUNNEL

from ryu_vmm import events as ev
from ryu_vmm.errors import VmmError
from ryu_vmm.model import Admit, Distribution, Kind, Leg, Move, MoveState, Policy, Redirect, Trust
from ryu_vmm.nva import Settings

PATIENT = Settings(
    prepare_deadline=1e6, prepared_deadline=1e6, redirect_deadline=1e6, steer_deadline=1e6, drain_cap=1e6
)
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


@settings(max_examples=50 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(HISTORY, max_size=30), st.sampled_from(list(Distribution)))
def test_frames_reach_their_receiver_or_nobody(history: list[tuple], distribution: Distribution) -> None:  # type: ignore[type-arg]
    w = Town(Policy(distribution, idle_timeout=5))
    for action in history:
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


# --- planned moves lose nothing ---------------------------------------------------------------------------------------
mover = st.sampled_from([1, 3, 4])
how_heard = st.sampled_from(["garp", "na", "rarp", "data", "activate"])
STORY = st.one_of(
    # Most of a story is moves going on, one step of a move at a time.
    *[st.tuples(st.just("go on"), mover, nve, how_heard)] * 5,
    *[st.tuples(st.just("land"), nve, some)] * 2,
    st.tuples(st.just("late"), nve),
    st.tuples(st.just("plug"), mover),
    st.tuples(st.just("abort"), mover),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.05, 0.3, 2.0])),
)


class Story:
    """Hypervisors that do as they should, guests that talk all the time, switches that hear of things late.

    Attributes:
        at: where each VM runs, or waits to.
        paused: VMs that do not run at the moment.
        queued: (NVE, VM) -> frames in the queues of ports behind which nobody runs yet.
        excused: frames that went with such a port when the move was aborted.
        heard: broadcast -> guests that got it, or will when they run at their destination.
    """

    def __init__(self, policy: Policy) -> None:
        self.w = Town(policy, settings=PATIENT)
        self.at = {n: NVES[n % 4] for n in VMS}
        self.paused: set[int] = set()
        self.queued: dict[tuple[str, int], list[int]] = {}
        self.sent: dict[int, int] = {}
        self.got: Counter[int] = Counter()
        self.heard: dict[int, set[int]] = {}
        self.excused: set[int] = set()
        self.aborted: list[tuple[str, int]] = []
        self.number = 0

    def move_of(self, n: int) -> tuple[Move, Leg] | None:
        return self.w.nva.state.active_move(f"vm{n}/eth0")

    def do(self, action: tuple) -> None:  # type: ignore[type-arg]
        match action:
            case ("late", name):
                self.w.late.add(name)
            case ("land", name, count):
                self.w.land(name, count)
            case ("wait", seconds):
                self.w.advance(seconds, step=seconds / 2)
            case (what, n, *more):
                active = self.move_of(n)
                if active is not None:
                    self.go_on(what, n, active[0], *more[1:])
                elif what == "go on":
                    with contextlib.suppress(VmmError):
                        self.w.handle(ev.MoveRequested(f"vm{n}", more[0]))

    def go_on(self, what: str, n: int, move: Move, how: str = "") -> None:
        w, there = self.w, move.destination
        gone = tap(n) not in w.boxes[self.at[n]].ports
        if what == "plug":
            self.plug(there, n)
        elif what == "abort" and not gone:
            w.handle(ev.AbortRequested(move.id))
            self.paused.discard(n)
            # What its ports at the destination have queued goes with them.
            self.excused.update(self.queued.pop((there, n), []))
            self.aborted.append((there, n))
        elif what == "abort":
            return
        elif move.state is MoveState.PREPARED:
            w.handle(ev.RedirectRequested(move.id))
        elif n not in self.paused and move.redirect is Redirect.IN_FORCE:
            self.paused.add(n)
        elif n in self.paused and not gone:
            for each in OF_VM[n]:
                w.unplug(self.at[n], tap(each))
        elif n in self.paused:
            self.run(n, there, move.id, how)

    def plug(self, name: str, n: int) -> None:
        for each in OF_VM[n]:
            if tap(each) not in self.w.boxes[name].ports:
                self.w.plug(name, tap(each))

    def run(self, n: int, there: str, number: int, how: str) -> None:
        """The VM goes on at the destination, whose ports take packets in and out by now, as a hypervisor checks."""
        w = self.w
        self.plug(there, n)
        w.land(there)
        self.listen()
        self.paused.discard(n)
        self.at[n] = there
        self.got.update(self.queued.pop((there, n), []))
        if how == "activate":
            w.handle(ev.ActivationReported(number))
        else:
            w.send(there, tap(n), w.sign_of_life(n, how))

    def talk(self) -> None:
        """Every guest that runs sends a frame to every other of its network, and one to all."""
        for a in GUESTS:
            for b in GUESTS:
                if a != b and VNI[a] == VNI[b] and VM_OF[a] not in self.paused:
                    self.number += 1
                    self.sent[self.number] = b
                    self.w.send(self.at[VM_OF[a]], tap(a), self.w.frame(a, b, self.number))
            if VM_OF[a] not in self.paused:
                self.number += 1
                self.heard[self.number] = set()
                self.w.send(self.at[VM_OF[a]], tap(a), self.w.to_all(a, self.number))
                self.listen()
                others = {b for b in GUESTS if b != a and VNI[b] == VNI[a]}
                here = {b for b in others if VM_OF[b] not in self.paused}
                heard = self.heard[self.number]
                assert heard <= others, f"{a} heard itself"
                assert self.w.late or here <= heard, f"{here - heard} did not hear {a}"
        self.listen()

    def listen(self) -> None:
        for where, port, sent in self.w.out:
            words = said(sent)
            if words is None:
                continue
            vni, a, b, number = words
            if sent[0] & 1:
                assert VNI[int(port.removeprefix("tap-vm"))] == vni
                self.heard[number].add(int(port.removeprefix("tap-vm")))
                continue
            assert port == tap(b) and VNI[b] == vni, (where, port, a, b)
            n = VM_OF[b]
            if where == self.at[n] and n not in self.paused:
                self.got[number] += 1
                continue
            assert where != self.at[n], f"{a} to {b}: delivered at the source, where the guest is paused"
            if (where, n) in self.aborted:
                self.excused.add(number)
            self.queued.setdefault((where, n), []).append(number)
        self.w.out.clear()

    def end(self) -> None:
        """All moves come to their end, all messages arrive."""
        w = self.w
        for name in NVES:
            w.land(name)
        for n in VMS:
            active = self.move_of(n)
            if active is not None and n in self.paused:
                self.run(n, active[0].destination, active[0].id, "garp")
            elif active is not None:
                self.go_on("abort", n, active[0])
        self.listen()
        w.advance(20, step=0.25)
        self.listen()
        assert not list(w.nva.state.open_moves())
        assert w.differences() == []
        self.talk()


@settings(max_examples=40 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STORY, max_size=40), st.sampled_from(list(Distribution)))
def test_planned_moves_lose_and_double_nothing(story: list[tuple], distribution: Distribution) -> None:  # type: ignore[type-arg]
    s = Story(Policy(distribution, idle_timeout=1000))
    for action in story:
        s.do(action)
        s.talk()
    s.end()
    assert [n for n in s.sent if not s.got[n] and n not in s.excused] == []
    assert [n for n in s.got if s.got[n] > 1] == []
