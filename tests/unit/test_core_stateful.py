"""Anything may happen to the authority and its switches, in any order; watch.py says what must hold all the same."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from zlib import crc32

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reading import forgotten
from restarted import check_restart
from town import GUESTS, NVES, TIMES, VMS, key, tap
from tried import TRIED, ended, fault
from turmoil import Turmoil
from world import TUNNEL

from ryu_vmm import events as ev
from ryu_vmm.errors import VmmError
from ryu_vmm.model import Admit, Distribution, Kind, Leg, Move, MoveState, Policy, Redirect, Trust

guests, vms, nves = st.sampled_from(GUESTS), st.sampled_from(VMS), st.sampled_from(NVES)
ways = st.sampled_from(["garp", "na", "rarp", "data", "activate"])
signs = st.sampled_from(["garp", "na", "rarp", "data"])
small = st.integers(0, 12)
HOOKS = {"redirect": ev.RedirectRequested, "activate": ev.ActivationReported, "abort": ev.AbortRequested}


class Storm(RuleBasedStateMachine):
    """Requests, announcements, faults and time."""

    @initialize(
        distribution=st.sampled_from(list(Distribution)),
        trust=st.sampled_from(list(Trust)),
        meters=st.booleans(),
        family=st.sampled_from([4, 6]),
    )
    def begin(self, distribution: Distribution, trust: Trust, meters: bool, family: int) -> None:
        policy = Policy(distribution, trust, idle_timeout=5)
        self.w = Turmoil(policy, meters=meters, family=family)
        self.sent: list[ev.MoveRequested] = []
        self.sent_out: list[ev.EvacuationRequested] = []
        TRIED["examples"] += 1

    def ask(self, event: ev.Event) -> object:
        """A request, which may be refused; the watch sees what is acknowledged."""
        with contextlib.suppress(VmmError):
            return self.w.handle(event)
        return None

    def fault(self, name: str) -> None:
        fault(name, self.w.nva.state)

    def newest(self, vm: int) -> Move | None:
        moves = [m for m in self.w.nva.state.moves.values() if m.vm == f"vm{vm}"]
        return max(moves, key=lambda m: m.id, default=None)

    # --- requests -----------------------------------------------------------------------------------------------------
    @rule(vm=vms, to=nves, kind=st.sampled_from(list(Kind)))
    def move(self, vm: int, to: str, kind: Kind) -> None:
        request = ev.MoveRequested(f"vm{vm}", to, kind, request_id=f"r{len(self.sent)}")
        if self.ask(request) is not None:
            self.sent.append(request)

    @precondition(lambda self: self.sent)
    @rule(index=small)
    def move_again(self, index: int) -> None:
        """The same request once more: nothing is done twice (the watch sees to that), and it is not refused."""
        self.w.handle(self.sent[index % len(self.sent)])

    @rule(vm=vms, which=st.sampled_from(sorted(HOOKS)))
    def hook(self, vm: int, which: str) -> None:
        move = self.newest(vm)
        if which == "abort":
            self.fault("abort")
        if move is not None:
            self.ask(HOOKS[which](move.id))

    @rule(vm=vms, to=nves, steps=st.integers(1, 5), how=ways)
    def go_on(self, vm: int, to: str, steps: int, how: str) -> None:
        """What a hypervisor would do next: ask, redirect, pause, run at the destination."""
        for _ in range(steps):
            active = self.w.nva.state.active_move(f"vm{vm}/eth0")
            if active is None:
                self.move(vm, to, Kind.HOT)
            else:
                self._on_with(vm, active[0], how)

    @rule(vm=vms, to=nves, how=ways)
    def move_whole(self, vm: int, to: str, how: str) -> None:
        """All of a move that goes as it should, but for its end."""
        self.go_on(vm, to, 5, how)

    @rule(vm=vms, to=nves, then=nves, how=ways)
    def move_on_at_once(self, vm: int, to: str, then: str, how: str) -> None:
        """There and back, or there and on, while the first redirect is still needed."""
        self.go_on(vm, to, 5, how)
        self.go_on(vm, then, 5, how)

    @rule(index=small, how=ways, steps=st.integers(1, 3))
    def all_go_on(self, index: int, how: str, steps: int) -> None:
        for n in range(steps):
            self.any_goes_on(index + n, how)

    @rule(index=small, how=ways)
    def any_goes_on(self, index: int, how: str) -> None:
        """One step of a move that is open."""
        early = [move for move in self.w.nva.state.open_moves() if not move.state.steered]
        if early:
            move = early[index % len(early)]
            self._on_with(int(move.vm.removeprefix("vm")), move, how)

    def _on_with(self, vm: int, move: Move, how: str) -> None:
        if move.state is MoveState.PREPARED:
            self.ask(ev.RedirectRequested(move.id))
        elif move.redirect is Redirect.IN_FORCE:
            self._run(vm, move, how)
        else:
            self.w.advance(0.06)

    def _run(self, vm: int, move: Move, how: str) -> None:
        for leg in move.legs:
            if leg.src.port in self.w.boxes[leg.src.nve].ports:
                self.w.unplug(*leg.src)
        for leg in move.legs:
            if leg.dst.port not in self.w.boxes[leg.dst.nve].ports:
                self.w.plug(*leg.dst)
        if how == "activate":
            self.ask(ev.ActivationReported(move.id))
        else:
            self._say(move.legs[0], how)

    def _say(self, leg: Leg, how: str) -> None:
        guest = next(g for g in GUESTS if key(g) == leg.interface)
        self.w.send(*leg.dst, self.w.sign_of_life(guest, how))

    @rule(vm=vms)
    def forget(self, vm: int) -> None:
        self.fault("VM withdrawn")
        self.ask(ev.VmWithdrawn(f"vm{vm}"))

    @rule(vm=vms, at=nves)
    def register(self, vm: int, at: str) -> None:
        with contextlib.suppress(VmmError):
            self.w.register(vm, at)

    @rule(guest=guests)
    def change_address(self, guest: int) -> None:
        self.fault("VM changed")
        with contextlib.suppress(VmmError):
            self.w.change_address(guest)

    @rule(at=nves)
    def readdress(self, at: str) -> None:
        self.fault("underlay address changed")
        box = self.w.boxes[at]
        if box.nve.ipv4:
            was = box.nve
            try:
                self.w.readdress(at)
            except VmmError:
                box.nve = was

    @rule(at=nves)
    def withdraw(self, at: str) -> None:
        """An NVE is removed, and comes back at once; refused while anything depends on it."""
        self.fault("NVE withdrawn")
        if self.ask(ev.NveWithdrawn(at)) is not None:
            while at not in self.w.nva.state.nves:
                self.ask(ev.NveSubmitted(self.w.boxes[at].nve))

    @rule(
        trust=st.sampled_from(list(Trust)),
        distribution=st.sampled_from(list(Distribution)),
        admit=st.sampled_from(list(Admit)),
    )
    def policy(self, trust: Trust, distribution: Distribution, admit: Admit) -> None:
        for name, vni in (("blue", 100), ("red", 200)):
            with contextlib.suppress(VmmError):
                self.w.network(name, vni, Policy(distribution, trust, admit=admit, idle_timeout=5))

    @rule(at=nves, to=st.sets(nves, max_size=2), parallel=st.integers(1, 3))
    def evacuate(self, at: str, to: set[str], parallel: int) -> None:
        self.fault("evacuation")
        request = ev.EvacuationRequested(
            at, tuple(sorted(to)), parallel=parallel, attempts=2, request_id=f"e{len(self.sent_out)}"
        )
        if self.ask(request) is not None:
            self.sent_out.append(request)

    @precondition(lambda self: self.sent_out)
    @rule(index=small, how=st.sampled_from(["again", "cancel", "abort", "resume"]))
    def evacuation(self, index: int, how: str) -> None:
        state, request = self.w.nva.state, self.sent_out[index % len(self.sent_out)]
        number = state.by_evacuation_request[request.request_id]
        match how:
            case "again":
                self.w.handle(request)
            case "cancel" | "abort":
                self.ask(ev.EvacuationCancelled(number, abort=how == "abort"))
            case "resume":
                self.ask(ev.EvacuationResumed(number))

    # --- ports and guests ---------------------------------------------------------------------------------------------
    @rule(guest=guests, at=nves)
    def plug(self, guest: int, at: str) -> None:
        self.w.plug(at, tap(guest))

    @rule(guest=guests, at=nves, how=st.sampled_from(["unplug", "flap", "renumber", "down", "up"]))
    def port(self, guest: int, at: str, how: str) -> None:
        self.fault(f"port: {how}")
        box = self.w.boxes[at]
        if tap(guest) not in box.ports:
            return
        match how:
            case "unplug":
                self.w.unplug(at, tap(guest))
            case "flap":
                self.w.unplug(at, tap(guest))
                self.w.plug(at, tap(guest))
            case "renumber":
                del box.ports[tap(guest)]
                self.w.plug(at, tap(guest))
            case "down" | "up":
                self.w.link(at, tap(guest), how == "up")

    @rule(at=nves, there=st.booleans())
    def tunnel(self, at: str, there: bool) -> None:
        self.fault("tunnel port back" if there else "tunnel port gone")
        box = self.w.boxes[at]
        if there:
            box.ports["vxlan"] = TUNNEL
            self.w.plug(at, "vxlan")
        elif "vxlan" in box.ports:
            self.w.unplug(at, "vxlan")

    @rule(guest=guests, at=nves, how=signs)
    def announce(self, guest: int, at: str, how: str) -> None:
        self.fault("announcement")
        if tap(guest) in self.w.boxes[at].ports:
            self.w.send(at, tap(guest), self.w.sign_of_life(guest, how))

    @rule(guest=guests, by=guests, at=nves, how=signs)
    def forge(self, guest: int, by: int, at: str, how: str) -> None:
        """One guest pretends to be another one."""
        self.fault("forgery")
        if guest != by and tap(by) in self.w.boxes[at].ports:
            self.w.send(at, tap(by), self.w.sign_of_life(guest, how))

    # --- switches -----------------------------------------------------------------------------------------------------
    @rule(at=nves)
    def late(self, at: str) -> None:
        self.fault("messages to an NVE delayed")
        self.w.late.add(at)

    @rule(at=nves, count=st.one_of(st.none(), st.integers(1, 12)))
    def land(self, at: str, count: int | None) -> None:
        self.w.land(at, count)

    @rule(at=nves)
    def deaf(self, at: str) -> None:
        self.fault("messages from an NVE delayed")
        self.w.deaf.add(at)

    @rule(at=nves, index=st.one_of(st.none(), small), again=st.booleans())
    def hear(self, at: str, index: int | None, again: bool) -> None:
        self.w.listen_to(at, index, again)

    @rule(index=st.integers(0, 15))
    def hear_again(self, index: int) -> None:
        self.fault("packet handed over twice")
        self.w.hear_again(index)

    @rule(at=nves, hold=st.booleans())
    def barriers(self, at: str, hold: bool) -> None:
        if hold:
            self.w.hold_barriers.add(at)
        else:
            self.w.release(at)

    @rule(at=nves)
    def disconnect(self, at: str) -> None:
        self.fault("control channel lost")
        self.w.disconnect(at)

    @rule(at=nves, tables=st.sampled_from(["kept", "kept", "part", "empty", "other"]), seed=small)
    def connect(self, at: str, tables: str, seed: int) -> None:
        self.w.connect(at, tables, seed)

    @rule(at=nves, back=st.integers(0, 6))
    def refuse(self, at: str, back: int) -> None:
        """A switch answers a change with an error: the last one, or one before."""
        self.fault("flow refused")
        box = self.w.boxes[at]
        generation = max(0, self.w.nva.state.generation - back)
        self.w._reply(box, ev.FlowRefused(box.nve.dpid, generation, 5, 1))
        self.w._pump()

    @rule(at=nves, which=small, says=st.booleans())
    def refuse_for_good(self, at: str, which: int, says: bool) -> None:
        """A switch takes some flows no more, whenever they are tried; whether it says which flow it means."""
        self.fault("flows refused")
        (self.w.vague.discard if says else self.w.vague.add)(at)
        self.w.boxes[at].tables.refuses = lambda flow: (5, 4) if crc32(repr(flow.key).encode()) % 13 == which else None

    @rule(at=nves, room=small)
    def fill(self, at: str, room: int) -> None:
        """Tables have room for a few more flows, and then for none."""
        self.fault("table full")
        tables = self.w.boxes[at].tables
        held = Counter(flow.table for flow in tables.flows)
        tables.room = {table: held[table] + room for table in (10, 20, 30, 40, 50)}

    @rule(at=nves)
    def idle(self, at: str) -> None:
        box = self.w.boxes[at]
        for entry, _ in box.tables.expire(self.w.now + 5):
            self.w._reply(box, ev.FlowExpired(box.nve.dpid, entry.flow))
        self.w._pump()

    @rule(a=nves, b=nves, cut=st.booleans())
    def path(self, a: str, b: str, cut: bool) -> None:
        self.fault("path cut" if cut else "path back")
        (self.w.cut.add if cut else self.w.cut.discard)((a, b))

    @rule(at=nves)
    def verify(self, at: str) -> None:
        """What the comparison of an NVE's flows says is so."""
        if not self._quick() or at not in self.w.nva.state.sessions or self.w.tainted:
            return
        self.w.answers.pop("verify:1", None)
        outcome = self.w.nva.verify(at, "verify:1", self.w.now)
        for effect in outcome.effects:
            self.w._carry_out(effect)
        self.w._pump()
        answer = self.w.answers.get("verify:1")
        assert isinstance(answer, dict) and answer["in_sync"], answer

    @rule()
    def whatever_is_read_touches(self) -> None:
        """A change of anything that flows are computed from would be noticed; see reading.py."""
        assert not forgotten(self.w.nva.state)

    # --- the authority ------------------------------------------------------------------------------------------------
    @rule(lost=st.sampled_from([0, 0, 1, 2, 5]), landed=small)
    def restart(self, lost: int, landed: int) -> None:
        self.fault("NVA killed" if not lost else "power cut")
        self.w.restart(lost, landed)
        self.sent = [r for r in self.sent if r.request_id in self.w.nva.state.by_request]

    @rule(lost=st.sampled_from([0, 0, 1]), landed=small)
    def restart_and_all_return(self, lost: int, landed: int) -> None:
        self.restart(lost, landed)
        for name in NVES:
            self.w.connect(name)

    @rule()
    def restart_would_change_nothing(self) -> None:
        """One that is started now from the records comes to the same flows, answers and timers."""
        check_restart(self.w)

    @rule(commits=st.integers(1, 3))
    def disk_full(self, commits: int) -> None:
        self.fault("store full")
        self.w.store.failing = commits

    @rule()
    def all_is_well(self) -> None:
        """Nothing is wrong for some seconds: no move waits for anything but its hypervisor, or for silence."""
        self.mend(False)
        if not self._quick() or self.w.nva.state.faults:
            return
        self.w.skip(3)  # whoever has only just come back has had time, too
        for move in self.w.nva.state.open_moves():
            assert move.state not in (MoveState.PREPARING, MoveState.STEERING), f"move {move.id} is {move.state}"
            stuck = move.state is MoveState.REDIRECTING and move.redirect is not Redirect.IN_FORCE
            assert not stuck, f"move {move.id}: redirect {move.redirect}"

    @rule(quickly=st.booleans())
    def mend(self, quickly: bool) -> None:
        """What was wrong with the connections is no more."""
        for name, box in self.w.boxes.items():
            self.w.land(name)
            self.w.listen_to(name)
            self.w.release(name)
            if not box.connected:
                self.w.connect(name)
            box.tables.refuses, box.tables.room = (lambda flow: None), {}
        self.w.cut.clear()
        self.w.advance(0.3 if quickly else 3.0, step=0.1)

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.3, 1.0, 2.0, 6.0, 12.0, 65.0]))
    def wait(self, seconds: float) -> None:
        if seconds < 1:
            self.w.advance(seconds, step=0.03)
        else:
            self.w.skip(seconds)

    # --- what must hold -----------------------------------------------------------------------------------------------
    def _quick(self) -> bool:
        w = self.w
        return not (w.late or w.deaf or w.hold_barriers or w.stuck) and w.settled()

    @rule()
    def everybody_sends(self) -> None:
        """Frames reach whom they are for, or nobody."""
        if self.w.tainted and (self.w.late or self.w.deaf or self.w.stuck or not self.w.settled()):
            return
        self.w.tainted.clear()
        self.w.tunnels = 0
        self.w.everybody_sends()
        if self._quick():
            assert self.w.tunnels <= 2, "a redirect is redirected"
            assert self.w.differences() == []
            if not self.w.cut and not self.w.nva.state.refusals:
                self.w.reach_each_other()

    @invariant()
    def holds(self) -> None:
        TRIED["steps"] += 1
        self.w.watch.check()

    def teardown(self) -> None:
        if not hasattr(self, "w") or sys.exc_info()[0] is not None:
            return  # it has failed already
        w = self.w
        w.store.failing = 0
        for number in list(w.nva.state.evacuations):
            self.ask(ev.EvacuationCancelled(number))
        w.calm()
        TRIED["events"] += w.watch.steps
        ended(w.nva.state)
        w.watch.check()
        w.watch.at_rest()
        w.tunnels = 0
        w.everybody_sends()
        w.reach_each_other()
        assert w.tunnels <= 1, "a redirect without a move"


TestStorm = Storm.TestCase
TestStorm.settings = settings(
    max_examples=120 * TIMES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
