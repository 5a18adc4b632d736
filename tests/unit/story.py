"""A story of planned moves: hypervisors that do as they should, guests that talk all the time, and all that goes wrong.

Each frame has a number, so that it is known of each whether it arrived where its receiver runs, or will run, exactly
once. What may be missing is only what went with a fault: what an authority held that was killed, what a switch wanted
to hand over while nobody was there to take it, what came from an edge that a switch out of reach could not be told of,
and what a hypervisor's queue held when a move was aborted.
"""

from __future__ import annotations

from collections import Counter

from town import GUESTS, HOME, NVES, OF_VM, VM_OF, VMS, VNI, said, tap
from tried import TRIED, ended, fault
from turmoil import Turmoil
from world import Box

from ryu_vmm import events as ev
from ryu_vmm.effects import SendPacket
from ryu_vmm.emulation.tables import Dropped, ToNva
from ryu_vmm.errors import VmmError
from ryu_vmm.model import Leg, Move, MoveState, Policy, Redirect
from ryu_vmm.nva import Settings
from ryu_vmm.tables import Drop, Why, cookie

PATIENT = Settings(
    prepare_deadline=1e6, prepared_deadline=1e6, redirect_deadline=1e6, steer_deadline=1e6, drain_cap=1e6
)


UNKNOWN_SOURCE = Dropped(cookie(Why.DROP, Drop.UNKNOWN_TUNNEL_SOURCE))
FAULTS = {
    "restart": "NVA killed",
    "away": "control channel lost",
    "cut off": "control channel lost for long",
    "late": "messages to an NVE delayed",
    "abort": "abort",
    "evacuate": "evacuation",
}


class Country(Turmoil):
    """A turmoil that keeps what is lost with a connection or with the authority itself.

    Attributes:
        lost: such frames.
    """

    def __init__(self, policy: Policy, settings: Settings, **more: object) -> None:
        self.lost: list[bytes] = []
        super().__init__(policy, settings=settings, **more)

    def _emit(
        self, box: Box, results: list[object], in_port: int = 0, crossed: tuple[tuple[str, str], ...] = ()
    ) -> None:
        session = self.nva.state.sessions.get(box.nve.name)
        if not box.connected:
            self.lost += [result.frame for result in results if isinstance(result, ToNva)]
        if crossed and (session is None or not session.synced) and UNKNOWN_SOURCE in results:
            self.lost.append(self.carried)  # it could not be told who has joined the network
        super()._emit(box, results, in_port, crossed)

    def _forget_connection(self, name: str) -> None:
        waiting = self.boxes[name].inbox
        self.lost += [effect.frame for effect in waiting if isinstance(effect, SendPacket)]
        super()._forget_connection(name)

    def restart(self, lost: int = 0, landed: int = 0) -> None:
        for held in self.nva.state.held.values():
            self.lost += held.frames
        self.lost += [event.frame for event in self._events if isinstance(event, ev.PacketSeen)]
        super().restart(lost, landed)

    def quick(self) -> bool:
        """Whether all switches have heard what they were told."""
        return not self.late and self.settled()


class Story:
    """Hypervisors that do as they should, guests that talk all the time, switches that hear of things late.

    Attributes:
        at: where each VM runs, or waits to.
        paused: VMs that do not run at the moment.
        queued: (NVE, VM) -> frames in the queues of ports behind which nobody runs yet.
        excused: frames that went with such a port when the move was aborted.
        heard: broadcast -> guests that got it, or will when they run at their destination.
    """

    def __init__(self, policy: Policy, settings: Settings = PATIENT, country: type[Country] = Country) -> None:
        TRIED["examples"] += 1
        self.w = country(policy, settings)
        self.at = dict(HOME)
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
        TRIED["steps"] += 1
        if action[0] in FAULTS:
            fault(FAULTS[action[0]], self.w.nva.state)
        match action:
            case ("late", name):
                self.w.late.add(name)
            case ("land", name, count):
                self.w.land(name, count)
            case ("land any", name, indexes):
                for index in indexes:
                    self.w.land_any(name, index)
            case ("wait", seconds):
                self.w.advance(seconds, step=seconds / 2)
            case ("restart", landed, back):
                self.w.restart(landed=landed)
                for name in back:
                    self.w.connect(name)
            case ("away", name):
                self.w.disconnect(name)
            case ("cut off", name):
                self.w.disconnect(name)
                self.w.skip(200)
            case ("go far", n, to, how):
                for _ in range(7):
                    self.do(("go on", n, to, how))
                    self.do(("wait", 0.03))
            case ("back", name):
                if not self.w.boxes[name].connected:
                    self.w.connect(name)
            case ("evacuate", name, parallel):
                self.ask(ev.EvacuationRequested(name, parallel=parallel))
            case (what, n, *more):
                active = self.move_of(n)
                if active is not None:
                    self.go_on(what, n, active[0], *more[1:])
                elif what == "go on":
                    self.ask(ev.MoveRequested(f"vm{n}", more[0]))
        self.follow()

    def ask(self, event: ev.Event) -> bool:
        """Whether a request was acknowledged."""
        try:
            self.w.handle(event)
        except VmmError:
            return False
        return True

    def follow(self) -> None:
        """A VM whose move has ended before it ran at the destination goes on at its source."""
        for n in VMS:
            if n in self.paused and self.move_of(n) is None:
                move = max((m for m in self.w.nva.state.moves.values() if m.vm == f"vm{n}"), key=lambda m: m.id)
                self.back_to_source(n, move.destination)

    def back_to_source(self, n: int, there: str) -> None:
        """What the ports at the destination have queued goes with them."""
        self.plug(self.at[n], n)
        self.paused.discard(n)
        self.excused.update(self.queued.pop((there, n), []))
        self.aborted.append((there, n))

    def go_on(self, what: str, n: int, move: Move, how: str = "") -> None:
        w, there = self.w, move.destination
        gone = tap(n) not in w.boxes[self.at[n]].ports
        if what == "plug":
            self.plug(there, n)
        elif what == "abort" and not gone:
            if self.ask(ev.AbortRequested(move.id)):
                self.back_to_source(n, there)
        elif what == "abort":
            return
        elif move.state is MoveState.PREPARED:
            self.ask(ev.RedirectRequested(move.id))
        elif n not in self.paused and move.redirect is Redirect.IN_FORCE:
            self.paused.add(n)
        elif n in self.paused and not gone:
            for each in OF_VM[n]:
                w.unplug(self.at[n], tap(each))
        elif n in self.paused and w.nva.state.sessions.get(there) and w.nva.state.sessions[there].synced:
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
                assert not self.w.quick() or here <= heard, f"{here - heard} did not hear {a}"
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
            self.do(("back", name))
        for evacuation in list(w.nva.state.evacuations.values()):
            self.ask(ev.EvacuationCancelled(evacuation.id))
        for n in VMS:
            active = self.move_of(n)
            if active is not None and n in self.paused:
                self.run(n, active[0].destination, active[0].id, "garp")
            elif active is not None:
                self.go_on("abort", n, active[0])
        self.listen()
        w.advance(20, step=0.25)
        self.listen()
        w.watch.check()
        w.watch.at_rest()
        ended(w.nva.state)
        self.talk()
        for frame in w.lost:
            words = said(frame)
            if words is not None:
                self.excused.add(words[3])
        assert [n for n in self.sent if not self.got[n] and n not in self.excused] == []
        assert [n for n in self.got if self.got[n] > 1] == []
