"""The Network Virtualization Authority, without any I/O. READ THIS FIRST.

:class:`Nva` takes one event at a time and says what is to be done (``Outcome``): records to commit, programs for
switches, packets to send, entries for the event stream. It imports neither Ryu nor eventlet nor webob, knows no clock
but the one it is given, and never waits: a test can drive any interleaving in milliseconds.

    event --> dispatch --> changes in State --> flows that these touch, before and after --> Program
                                  \\--> records (committed first; if that fails, rollback() undoes the step)

Who does what: registry.py (NVEs, networks, VMs), moves.py with mobility.py (the life of a move), recovery.py (what
faults and restarts do to it), packets.py (announcements, signs of life), resolver.py and announcing.py (questions about
addresses, and telling of changed answers), switches.py (connections, ports, barriers, reading
back), probes.py, tunnels.py and ledger.py (proof and account), pipeline.py, admission.py and redirects.py (what the
flows are).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import events as ev
from . import flapping, readdressing, references, rehoming, sought, wishes
from .amending import amend
from .announcing import Announcing
from .differences import difference
from .due import handlers
from .effects import Outcome, Record
from .errors import MoveStateConflict, NotFound, VmmError
from .evacuations import Evacuations
from .ledger import Accounts
from .limits import Limits, rate
from .model import MoveState, Session
from .moves import Moves
from .names import Names
from .packets import Packets
from .pipeline import desired, flows_of
from .probes import Prober
from .quarantine import Quarantine
from .recovery import Recovery
from .registry import Registry
from .standing import Standing
from .state import State
from .switches import GENERATIONS_AHEAD, Switches
from .timers import Timers
from .tunnels import Tunnels
from .work import Settings, Work


class Nva:
    """The authority: directory, moves, and the desired flows of every NVE.

    Args:
        settings: times and limits.
        state: an empty State, or one loaded from a store.
    """

    def __init__(self, settings: Settings | None = None, state: State | None = None) -> None:
        self.state = state or State()
        self.settings = settings or Settings()
        self.state.limits = Limits(self.settings.question_rate, self.settings.forgery_rate)
        self._work = Work(self.state, self.settings)
        self._prober = Prober(self._work)
        self.tunnels = Tunnels(self._work)
        self._accounts = Accounts(self._work)
        self._registry = Registry(self._work)
        self.moves = Moves(self._work, self._prober, self._accounts)
        self.recovery = Recovery(self._work, self.moves, self._accounts)
        self.announcing = Announcing(self._work)
        self.packets = Packets(
            self._work, self.moves, self._prober, self.tunnels, self._accounts, self.announcing
        )
        self._quarantine = Quarantine(self._work, self.moves)
        self.switches = Switches(
            self._work,
            self.moves,
            self.recovery,
            self._accounts,
            self.packets,
            self._prober,
            self.tunnels,
            self._quarantine,
        )
        self.evacuations = Evacuations(self._work, self.moves)
        self.names = Names(self._work)
        self.standing = Standing(self._work, self._submitted)
        self._handlers = self._table()
        self._timers = Timers(self._work, handlers(self, self._work, self._prober, self._accounts, self._quarantine))

    @property
    def counters(self) -> dict[str, int]:
        """What has been counted so far, by name."""
        return self._work.counters

    def meter_rate(self, meter: int) -> int:
        """Packets per second that a switch's meter of some number lets pass; 0: it only counts."""
        return rate(meter, self.state.limits)

    # --- one step -----------------------------------------------------------------------------------------------------
    def handle(self, event: ev.Event, now: float) -> Outcome:
        """Take in one event at time ``now``.

        Args:
            event: what happened.
            now: seconds since the Unix epoch, never going back.

        Raises:
            VmmError: the event is a request and is refused; nothing has changed.
        """
        if isinstance(event, ev.TimePassed):
            return self._time_passed(now)
        return self._step(now, lambda: self._dispatch(event))

    def handle_all(self, requests: Sequence[ev.Request], now: float) -> Outcome:
        """Take in several requests as one step, all or nothing; ``reply`` is the list of their replies.

        Raises:
            VmmError: one was refused; ``details["index"]`` says which. Nothing has changed.
        """

        def run() -> list[object]:
            replies = []
            for index, event in enumerate(requests):
                try:
                    replies.append(self._dispatch(event))
                except VmmError as error:
                    error.details["index"] = index
                    raise
            return replies

        return self._step(now, run)

    def verify(self, nve: str, token: str, now: float) -> Outcome:
        """Start a full comparison of an NVE's flows with the desired ones; answered under ``token`` ("verify:...")."""
        if nve not in self.state.nves:
            raise NotFound(f"there is no NVE {nve}", nve=nve)
        return self._step(now, lambda: self.switches.verify(nve, token))

    def rollback(self) -> None:
        """Undo the last step: its records could not be committed, so nothing of it may be done."""
        self.state.undo()

    def next_timer(self) -> float | None:
        """When TimePassed is due next, or None."""
        return min(self.state.clock.values(), default=None)

    def _step(self, now: float, run: Any) -> Outcome:
        work = self._work
        work.begin(now)
        try:
            work.out.reply = run()
            self._settle()
        except BaseException:
            self.state.undo()
            raise
        work.out.records = self._records()
        work.out.effects = [*work.first, *work.out.effects]
        return work.out

    def _records(self) -> list[Record]:
        return [Record(table, key, value) for (table, key), value in self.state.changes().items()]

    def _settle(self) -> None:
        """Turn what the step touched into programs, and let moves wait for those; repeat until nothing moves."""
        mark = followed = rehomed = given = 0
        while True:
            rehomed = rehoming.follow(self._work, rehomed)
            given = self.packets.refusals.follow(given)
            self._program(mark)
            mark = self.state.mark()
            awaiting, self._work.awaiting = self._work.awaiting, []
            for number, concerned in awaiting:
                if number in self.state.moves:
                    self.moves.waiting_for(number, concerned)
            followed = self.evacuations.follow(followed)
            if self.state.mark() == mark and not self._work.awaiting:
                break
        self.names.follow()
        self.packets.release()
        self.packets.neighbors.follow()
        self.announcing.follow()
        self.packets.hearing.follow()
        self.packets.sharing.follow()
        self._program(mark)  # what these have changed: a next hop that does not answer is given up
        self._warm()

    def _warm(self) -> None:
        """Resolve the underlay paths of NVEs that have joined a network in this step."""
        joined: dict[str, list[int]] = {}
        for vni, nve in self.state.joined:
            joined.setdefault(nve, []).append(vni)
        for nve, networks in joined.items():
            self._prober.warm(nve, networks)
            self.tunnels.changed(nve, networks)

    def _program(self, mark: int) -> None:
        """Compare the touched units' flows before and after the journal since ``mark``, and send the difference."""
        state = self.state
        if not state.touched:
            return
        self._quarantine.changed(mark)
        touched = {nve: set(units) for nve, units in state.touched.items()}
        state.touched.clear()
        after: dict[str, dict[Any, Any]] = {}
        for nve, units in touched.items():
            session = self._work.session(nve)
            if session is not None:
                after[nve] = desired(state, nve) if ("all",) in units else flows_of(state, nve, units)
        if not after:
            return
        before: dict[str, dict[Any, Any]] = {}
        # What has been programmed whole in this step (switches.py) has all that was so by then.
        at = {nve: max(mark, self._work.whole.get(nve, mark)) for nve in after}
        for position in sorted(set(at.values()), reverse=True):
            with state.rewound(position):
                for nve in after:
                    if at[nve] == position and self._work.session(nve) is not None:
                        units = touched[nve]
                        before[nve] = desired(state, nve) if ("all",) in units else flows_of(state, nve, units)
        generation = state.generation + 1
        # Destinations first: where all is sent at once, what is redirected should not arrive before its flow.
        destinations = {move.destination for move in state.open_moves()}
        order = sorted(before, key=lambda nve: nve not in destinations)
        programs = [(nve, difference(before[nve], after[nve])) for nve in order]
        for nve, changes in programs:
            if changes:
                self.switches.program(nve, changes, generation)

    # --- dispatch -----------------------------------------------------------------------------------------------------
    def _dispatch(self, event: ev.Event) -> object:
        return self._handlers[type(event)](event)

    def _table(self) -> dict[type, Callable[[Any], object]]:
        """Who handles what: every event type, once."""
        return {
            ev.PacketSeen: self.packets.seen,
            ev.PacketsShed: self.switches.packets_shed,
            ev.BarrierReplied: self.switches.barrier,
            ev.FlowsRead: self.switches.flows_read,
            ev.MetersRead: self.switches.meters_read,
            ev.PortsRead: self.switches.ports_read,
            ev.PortChanged: self.switches.port_changed,
            ev.NveConnected: self.switches.connected,
            ev.NveDisconnected: self.switches.disconnected,
            ev.ConnectionRefused: self.switches.connection_refused,
            ev.FlowRefused: self.switches.refused,
            ev.FlowExpired: self.switches.flow_expired,
            ev.MoveRequested: self._move_requested,
            ev.MoveAmended: self._move_amended,
            ev.RedirectRequested: self.moves.hook,
            ev.ActivationReported: self._activation_reported,
            ev.AbortRequested: self.moves.hook,
            ev.ThawRequested: self.packets.thaw,
            ev.EvacuationRequested: self.evacuations.requested,
            ev.EvacuationCancelled: self.evacuations.cancelled,
            ev.EvacuationResumed: self.evacuations.resumed,
            ev.InventoryRead: self.standing.read,
            ev.NveSubmitted: self._submitted,
            ev.NveWithdrawn: self._nve_withdrawn,
            ev.NetworkSubmitted: self._submitted,
            ev.NetworkWithdrawn: self._registry.network_withdrawn,
            ev.VmSubmitted: self._submitted,
            ev.VmWithdrawn: self._vm_withdrawn,
            ev.NamePublished: self.names.published,
            ev.NameFailed: self.names.failed,
        }

    def _submitted(self, event: wishes.Submitted) -> object:
        """A registration: what of it is new is asked for, and it is its sender's last wish."""
        wanted = wishes.meant(self.state, event)
        match wanted:
            case None:
                reply: object = (wishes.registered(self.state, event), False)
            case ev.NveSubmitted():
                reply = self._nve_submitted(wanted)
            case ev.NetworkSubmitted():
                reply = self._network_submitted(wanted)
            case ev.VmSubmitted():
                reply = self._vm_submitted(wanted)
        wishes.keep(self.state, event)
        return reply

    def _nve_submitted(self, event: ev.NveSubmitted) -> object:
        name, old = event.nve.name, self.state.nves.get(event.nve.name)
        reply = self._registry.nve_submitted(event)
        self.switches.adopt(name)
        if old is not None and (old.ipv4, old.ipv6) != (event.nve.ipv4, event.nve.ipv6):
            self._prober.cool(name)
            self._prober.warm(name, tuple(self.state.networks_of(name)))
            self.tunnels.changed(name)
            self.recovery.forgot(name, "has another underlay address")
        return reply

    def _nve_withdrawn(self, event: ev.NveWithdrawn) -> object:
        self._registry.check_withdrawal(event.name)  # before anything is forgotten of its tunnels
        self.switches.let_go(event.name)
        reply = self._registry.nve_withdrawn(event)
        self.recovery.withdrawn(event.name)
        self._quarantine.withdrawn(event.name)
        return reply

    def _network_submitted(self, event: ev.NetworkSubmitted) -> object:
        reply = self._registry.network_submitted(event)
        self.names.check({self.state.interfaces[i].vm for i in self.state.in_network(event.network.vni)})
        return reply

    def _move_requested(self, event: ev.MoveRequested) -> object:
        if event.request_id not in self.state.by_request:
            self.evacuations.admit([event.to])
        return self.moves.requested(event)

    def _activation_reported(self, event: ev.ActivationReported) -> object:
        move = self.state.moves.get(event.move)
        if move is not None and move.state in (MoveState.FAILED, MoveState.ABORTED):
            if event.if_open:  # the source serves on, and may run it
                message = f"move {move.id} is {move.state}: the VM is not to be started at {move.destination}"
                raise MoveStateConflict(message, move=move.id, state=move.state.value)
            return self.packets.unasked.activated(move)
        return self.moves.hook(event)

    def _move_amended(self, event: ev.MoveAmended) -> object:
        move = amend(self._work, event)
        self._accounts.queues.amended(move)
        return self.state.moves[move.id]

    def _vm_submitted(self, event: ev.VmSubmitted) -> object:
        self.evacuations.admit(sorted(rehoming.newcomers(self.state, event)))
        reply = self._registry.vm_submitted(event)
        self.packets.unasked.registered([(self.state.interfaces[i], at) for i, at in self._registry.elsewhere])
        self.names.check([event.name])
        return reply

    def _vm_withdrawn(self, event: ev.VmWithdrawn) -> object:
        self.moves.vm_withdrawn(event.name)
        return self._registry.vm_withdrawn(event)

    def _time_passed(self, now: float) -> Outcome:
        """Tell whoever's time has come. Where what one of them brings about raises later in the step, the one that came
        first goes alone, and waits if it is the one; the others are due again at once."""
        try:
            return self._step(now, self._timers.run)
        except Exception:
            due = self._timers.due()
            if not due:
                raise
        try:
            return self._step(now, lambda: self._timers.run(due[0]))
        except Exception as error:
            raised = error
        return self._step(now, lambda: self._timers.put_off(due[0], raised))

    # --- start --------------------------------------------------------------------------------------------------------
    def restore(self, rows: Iterable[tuple[str, Any, Any]], now: float) -> Outcome:
        """Load committed records (table, key, value) into an empty state, and resume open moves; says which."""
        for table, key, value in rows:
            self.state.load(table, key, wishes.shared(self.state, value) if table == "wishes" else value)
        # A power cut may have taken the last record of these; so many further ones are not given before it is lasting.
        given = [self.state.numbers.get("generation", 0), *(move.generation for move in self.state.moves.values())]
        self.state.load("meta", "generation", max(given) + GENERATIONS_AHEAD)
        self._work.begin(now)
        references.mend(self._work)
        # What was mended is to be so at the next start, too; all else follows from the records as they are.
        self._work.out.records = self._records()
        self.recovery.resume()
        self.packets.resume()
        flapping.resume(self._work)
        sought.resume(self._work)
        self.evacuations.resume()
        readdressing.resume(self._work)
        self.names.resume()
        self.announcing.resume()
        self.packets.sharing.resume()
        self.state.begin()
        return self._work.out


__all__ = ["Nva", "Session", "Settings"]
