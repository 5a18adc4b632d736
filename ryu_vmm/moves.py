"""Moves: requests for them, and what the transition table (mobility.py) asks to be done."""

from __future__ import annotations

from dataclasses import replace

from . import prepull, proposals, readdressing, sought
from .errors import MoveStateConflict, NotFound
from .events import AbortRequested, ActivationReported, MoveRequested, RedirectRequested
from .flapping import thaw
from .hindered import may_begin
from .ledger import Accounts
from .mobility import Do, MoveEvent, step
from .model import (
    METER_SLOTS,
    Kind,
    Move,
    MoveState,
    Place,
    Redirect,
    Step,
)
from .probes import Prober
from .work import Work

#: So often a move may be prepared: its deadlines begin anew each time.
ROUNDS = 8


class Moves:
    """Carries moves through their states."""

    def __init__(self, work: Work, prober: Prober, accounts: Accounts) -> None:
        self._work = work
        self._prober = prober
        self._accounts = accounts

    # --- requests ----------------------------------------------------------------------------------------------------
    def requested(self, event: MoveRequested) -> tuple[Move, bool]:
        """Open a move. Raises NotFound, Conflict, InvalidInput."""
        state = self._work.state
        if event.request_id is not None and event.request_id in state.by_request:
            return proposals.repeated(state.moves[state.by_request[event.request_id]], event), False
        interfaces = proposals.movable(self._work, event)
        legs = proposals.legs(state, interfaces, event)
        changes = readdressing.changes(self._work, interfaces, event)
        connections = readdressing.connections(self._work, interfaces, event, bool(changes))
        for i in interfaces:
            thaw(self._work, i.id, "move")  # whoever asks knows where the VM is
        proposed = proposals.asked_for(self._work, event, legs, changes, connections)
        may_begin(self._work.state, proposed)
        move = self._open(proposed)
        self._await(move)
        return move, True

    def begin(self, move: Move, by: str) -> Move:
        """Open a move that nobody asked for (unasked.py): straight to steering."""
        self._open(move)
        self._steer(move.id, by)
        return self._work.state.moves[move.id]

    def hook(self, event: RedirectRequested | ActivationReported | AbortRequested) -> Move:
        """A hook from the hypervisor or the orchestrator. Raises NotFound, MoveStateConflict."""
        move = self._work.state.moves.get(event.move)
        if move is None:
            raise NotFound(f"there is no move {event.move}", move=event.move)
        match event:
            case RedirectRequested():
                self.fire(move.id, MoveEvent.REDIRECT, "redirect requested", asked=True)
                move = self._work.state.moves[move.id]
                if move.departed:  # whatever the source's port does now, the hypervisor means it
                    self._work.state.put("moves", move.id, replace(move, departed=False))
            case ActivationReported():
                if not move.open:
                    return move  # settled: of others a further move is made (unasked.py)
                self.fire(move.id, MoveEvent.ALIVE, "activate")
                move = self._work.state.moves[move.id]
                if move.watched:  # whatever its source has said, the hypervisor knows
                    self._work.state.put("moves", move.id, replace(move, watched=False))
            case AbortRequested():
                self.fire(move.id, MoveEvent.ABORT, event.why, asked=True)
        return self._work.state.moves[move.id]

    # --- transitions -------------------------------------------------------------------------------------------------
    def fire(self, number: int, event: MoveEvent, why: str = "", asked: bool = False) -> None:
        """Apply an event to a move; ``asked`` makes a refusal an error (MoveStateConflict) instead of a no-op."""
        state = self._work.state
        move = state.moves[number]
        transition = step(move.state, event)
        if transition.refuse is not None:
            if asked:
                message = f"move {number} is {move.state}: {transition.refuse}"
                raise MoveStateConflict(message, move=number, state=move.state.value)
            return
        if transition.to is MoveState.PREPARING and move.rounds >= ROUNDS:
            self.fire(number, MoveEvent.EXPIRED, f"{why}, and it has been prepared {ROUNDS} times")
            return
        if transition.to is not None:
            self._enter(move, transition.to, why or event.value, _may_run_there(move, event))
        for action in transition.do:
            self._act(number, action, event, why)

    def _enter(self, move: Move, to: MoveState, why: str, there: bool = False) -> None:
        now = self._work.now
        error = why if to is MoveState.FAILED else move.error
        if to is MoveState.FAILED and there:
            error = f"{why}; if {move.vm} runs on {move.destination} after all: POST /v1/moves/{move.id}/activate"
        if to is MoveState.SETTLED and move.error is not None:
            to = MoveState.FAILED  # the VM is served at its destination, yet not all that was asked was done
        entered = replace(move, state=to, error=error, history=(*move.history, Step(to.value, now, why)))
        self._work.state.put("moves", move.id, entered)
        if to is MoveState.PREPARED:
            self._work.out.promise = True
            prepull.follow(self._work.state, entered)
        if move.state is MoveState.PREPARING:
            self._prober.forget(move.id)
        self._deadline(entered)
        self._tell(move, entered, why)

    def _tell(self, old: Move | None, new: Move, why: str) -> None:
        self._work.report(
            "move.state",
            move=new.id,
            vm=new.vm,
            source=new.source,
            destination=new.destination,
            before=old.state.value if old else None,
            state=new.state.value,
            why=why,
            error=new.error,
        )

    def _deadline(self, move: Move) -> None:
        self.set_deadline(move, 0.0)

    def set_deadline(self, move: Move, more: float) -> None:
        """Give a move the time that its state allows, and ``more`` seconds."""
        times = self._work.settings
        allowed = {
            MoveState.PREPARING: times.prepare_deadline,
            MoveState.PREPARED: times.prepared_deadline,
            MoveState.REDIRECTING: times.redirect_deadline,
            MoveState.STEERING: times.steer_deadline,
            MoveState.DRAINING: times.drain_cap,
        }.get(move.state)
        due = None if allowed is None else self._work.now + allowed + more
        self._work.state.put("clock", ("deadline", move.id), due)

    def _act(self, number: int, action: Do, event: MoveEvent, why: str) -> None:
        state, now = self._work.state, self._work.now
        move = state.moves[number]
        match action:
            case Do.READY_DESTINATION:
                self._redirect(move, Redirect.DESTINATION)
            case Do.REDIRECT_SOURCE:
                self._redirect(move, Redirect.SOURCE)
            case Do.REDIRECT_NOW:
                if move.redirect in (Redirect.NONE, Redirect.DESTINATION):
                    self._redirect(replace(move, departed=move.redirect is Redirect.NONE), Redirect.SOURCE)
            case Do.IN_FORCE:
                if move.redirect is Redirect.SOURCE:
                    state.put("clock", ("guard", number), now + self._work.settings.redirect_guard)
            case Do.PROVE_AGAIN:
                state.put("clock", ("guard", number), None)
                if move.redirect is not Redirect.NONE:
                    move = self._accounts.queues.begin_again(replace(move, redirect=Redirect.NONE, departed=False))
                    state.put("moves", number, move)
                    self._work.report("move.redirect", move=number, phase=Redirect.NONE.value)
                self._await(move)
            case Do.STEER:
                self._steer(number, why)
            case Do.DRAIN:
                self._record_barriers(number)
                state.put("clock", ("poll", number), now)
                state.put("clock", ("sample", number), now + self._work.settings.sample_pause)
            case Do.DRAIN_ON:
                state.put("clock", ("deadline", number), now + self._work.settings.drain_cap)
            case Do.WAIT_ON:
                state.put("clock", ("deadline", number), None)
                self._work.report("move.overdue", move=number, vm=move.vm, unconfirmed=", ".join(self.laggards(move)))
            case Do.NAME_UNCONFIRMED:
                late = tuple(sorted({*move.unconfirmed, *state.waits.get(number, ())}))
                state.put("moves", number, replace(move, unconfirmed=late))
            case Do.NOTE_ERROR:
                state.put("moves", number, replace(move, error=why))
            case Do.NOTE_LOSS:
                self._work.report("move.nve-lost", move=number, why=why)
            case Do.ROLL_BACK | Do.CLOSE:
                if action is Do.ROLL_BACK and _may_run_there(move, event):
                    sought.remember(self._work, move)
                if move.redirect.at_source:
                    state.put("returning", number, True)  # until the source has heard that nothing is redirected
                self._close(number)
                if action is Do.CLOSE:
                    self._accounts.closing(state.moves[number])
                    readdressing.settled(self._work, move)

    def _redirect(self, move: Move, phase: Redirect) -> None:
        changed = replace(
            move, redirect=phase, triggered=move.triggered or self._work.now, peers=move.peers or self._peers(move)
        )
        self._work.state.put("moves", move.id, changed)
        prepull.follow(self._work.state, changed)  # what was there as it was prepared may have timed out
        self._accounts.queues.watch(changed)
        self._work.state.put("clock", ("guard", move.id), None)
        self._work.report("move.redirect", move=move.id, phase=phase.value)
        self._await(move, ends_only=True)

    def _peers(self, move: Move) -> tuple[str, ...]:
        """The correspondents that get a meter of their own; fixed when packets may first be redirected."""
        others = self._work.state.correspondents(move) - {move.source}
        return tuple(sorted(others)[: METER_SLOTS - 2])

    def guard_over(self, number: int) -> None:
        """The guard time after a barrier is over: the destination's, or the source's, and the redirect is in force."""
        move = self._work.state.moves[number]
        self._work.state.put("clock", ("guard", number), None)
        if move.redirect is Redirect.DESTINATION:
            if self._work.session(move.destination) is None:  # it has gone since it was ready: what else it may be told
                self._await(move, ends_only=True)  # of the move, it must hear before anything is sent there
            else:
                self.fire(number, MoveEvent.READIED)
            return
        if move.redirect is Redirect.SOURCE and move.open:
            self._work.state.put("moves", number, replace(move, redirect=Redirect.IN_FORCE))
            self._work.out.promise = True
            self._work.report("move.redirect", move=number, phase=Redirect.IN_FORCE.value)
            self._accounts.queues.in_force(move)

    def _steer(self, number: int, by: str) -> None:
        state, now = self._work.state, self._work.now
        move = state.moves[number]
        ledger = replace(move.ledger, barriers={})
        state.put("barriers", number, None)
        peers = move.peers or self._peers(move)
        prepull.follow(state, move)
        state.put("moves", number, replace(move, triggered=now, activated_by=by, ledger=ledger, peers=peers))
        for leg in move.legs:
            interface = state.interfaces[leg.interface]
            placed = readdressing.arrived(self._work, move, interface, leg.dst)
            state.put("interfaces", interface.id, placed)
        absent = tuple(sorted(n for n in state.correspondents(move) if self._work.session(n) is None))
        state.put("moves", number, replace(state.moves[number], unconfirmed=absent))
        self._accounts.start(number)
        self._accounts.queues.watch(state.moves[number])
        self._await(state.moves[number])

    def _close(self, number: int) -> None:
        """Remove what the move has put up. A rolled-back move leaves the directory as it was."""
        state = self._work.state
        for kind in ("guard", "poll", "sample", "regroup", "watch", "rewatch", "off"):
            state.put("clock", (kind, number), None)
        state.put("overheard", number, None)
        state.put("waits", number, None)
        self._await(state.moves[number])

    # --- what comes back ---------------------------------------------------------------------------------------------
    def stage_done(self, number: int) -> None:
        """Every barrier that the move's last stage waited for has replied."""
        state = self._work.state
        move = state.moves[number]
        if move.state is MoveState.PREPARING:
            if self._prober.start(move):
                self.fire(number, MoveEvent.READY, "destination ready, no path to prove")
        elif move.state is MoveState.REDIRECTING:
            pause = self._work.settings.ready_guard
            if move.redirect is not Redirect.DESTINATION:
                self.fire(number, MoveEvent.INSTALLED)
            elif pause:
                state.put("clock", ("guard", number), self._work.now + pause)
            else:
                self.fire(number, MoveEvent.READIED)
        elif move.state is MoveState.STEERING and not move.unconfirmed:
            self.fire(number, MoveEvent.CONFIRMED, "all correspondents confirmed")
        elif not move.open and not move.ledger.closed and self._accounts.is_read(number):
            for leg in move.legs:
                interface = state.interfaces.get(leg.interface)
                if interface is not None and state.port_at(interface.location) is not None:
                    state.put("gone", leg.interface, None)
            state.put("returning", number, None)
            state.put("needs", number, None)
            self._accounts.close(number)
            move = state.moves[number]
            state.put("moves", number, replace(move, ledger=replace(move.ledger, closed=True)))
            self._work.report("move.closed", move=number, state=move.state.value)

    def departed(self, place: Place) -> bool:
        """The port at a place has gone. True if a move was waiting for just that.

        In a cold move the VM is off, and what is sent to it meanwhile has no receiver: no redirect.
        """
        found = False
        for move, leg in self._work.state.moves_at(place):
            if leg.src == place and not move.state.steered:
                if move.kind is not Kind.COLD:
                    self.fire(move.id, MoveEvent.DEPARTED, f"port {place.port} on {place.nve} has gone")
                found = True
        return found

    def returned(self, place: Place) -> None:
        """The port at a place is there again: whoever took its going for a departure was wrong."""
        for move, leg in self._work.state.moves_at(place):
            if leg.src == place and move.departed:
                self.fire(move.id, MoveEvent.RETURNED, f"port {place.port} on {place.nve} is there again")

    def sample(self, number: int, on: bool) -> None:
        """Turn sampling of stale packets on, or off for the sample pause while a correspondent is corrected."""
        state = self._work.state
        move = state.moves[number]
        state.put("moves", number, replace(move, sampling=on))
        pause = None if on else self._work.now + self._work.settings.sample_pause
        state.put("clock", ("sample", number), pause)

    def late_redirect(self, number: int) -> None:
        """A cold move needed a redirect after all: a packet has shown up at the source."""
        move = self._work.state.moves[number]
        self._work.state.put("moves", number, replace(move, redirect=Redirect.SOURCE))

    def vm_withdrawn(self, vm: str) -> None:
        """The VM is being removed: its open moves end, whatever their state."""
        for move in list(self._work.state.open_moves()):
            if move.vm == vm:
                self._enter(move, MoveState.ABORTED, "VM withdrawn")
                self._close(move.id)

    # --- waiting -----------------------------------------------------------------------------------------------------
    def _await(self, move: Move, ends_only: bool = False) -> None:
        """Wait for the barriers of every NVE concerned, once this step's programs are known.

        ``ends_only``: the step concerns the source and the destination, whatever else a correspondent has to do.
        """
        concerned = {move.source, move.destination}
        if not ends_only:
            concerned |= self._work.state.correspondents(move)
        self._work.awaiting.append((move.id, frozenset(concerned)))

    def laggards(self, move: Move) -> list[str]:
        """Correspondents that have not confirmed and may still send to the source; not the source itself, whose
        redirect nobody could remove, nor the NVE where the VM is."""
        state = self._work.state
        homes = {state.interfaces[leg.interface].location.nve for leg in move.legs if leg.interface in state.interfaces}
        return sorted({*move.unconfirmed, *state.waits.get(move.id, ())} - {move.source} - homes)

    def expired(self, number: int, detail: str) -> None:
        """A state's deadline has passed."""
        move = self._work.state.moves[number]
        away = [nve for nve in move.ends if self._work.session(nve) is None]
        if away:
            detail = f": {' and '.join(away)} not connected and in sync"
        late = move.state is MoveState.DRAINING and self.laggards(move)
        self.fire(number, MoveEvent.OVERDUE if late else MoveEvent.EXPIRED, f"deadline in state {move.state}{detail}")

    def waiting_for(self, number: int, concerned: frozenset[str]) -> None:
        """Note what the move waits for; go on at once if that is nothing."""
        state = self._work.state
        move = state.moves[number]
        waits = {}
        for nve in concerned & state.nves.keys():
            programmed, realised = state.generations.get(nve, (0, 0))
            if self._work.session(nve) is None:
                if nve in move.ends:
                    waits[nve] = self.when_back(nve)
            elif realised < programmed:
                waits[nve] = programmed
        if waits:
            state.put("moves", number, replace(move, generation=max(waits.values())))
            needs = {(nve, at) for nve, at in waits.items() if self._work.session(nve) is not None}
            state.put("needs", number, state.needs.get(number, frozenset()) | needs)
        self.waited(number, waits)

    def when_back(self, nve: str) -> int:
        """A generation that an NVE out of sync reaches by being synchronised."""
        return self._work.state.generations.get(nve, (0, 0))[0] + 1

    def waited(self, number: int, waits: dict[str, int]) -> None:
        """Set what a move still waits for."""
        self._work.state.put("waits", number, waits or None)
        if not waits:
            self.stage_done(number)

    def no_longer_waits(self, number: int, nve: str) -> None:
        """One NVE less that a move waits for."""
        self.waited(number, {n: g for n, g in self._work.state.waits[number].items() if n != nve})

    def doubt(self, number: int, nve: str) -> None:
        """What an NVE holds of a move is not known: it confirms nothing before it is in sync."""
        move = self._work.state.moves[number]
        unconfirmed = tuple(sorted({*move.unconfirmed, nve}))
        self._work.state.put("moves", number, replace(move, unconfirmed=unconfirmed))

    def realised(self, nve: str, generation: int) -> None:
        """An NVE's barrier for ``generation`` has replied."""
        state, now = self._work.state, self._work.now
        for number, waits in list(state.waits.items()):
            if waits.get(nve, generation + 1) > generation:
                continue
            move = state.moves[number]
            if move.state.steered and move.open:
                # Not into the record yet: a commit for each of a thousand replies would be what they wait for.
                state.put("barriers", number, {**state.barriers.get(number, {}), nve: now - move.triggered})
                if move.state is MoveState.DRAINING:
                    self._record_barriers(number)
            self.no_longer_waits(number, nve)

    def _record_barriers(self, number: int) -> None:
        state = self._work.state
        move, barriers = state.moves[number], state.barriers.get(number)
        if barriers:
            state.put("moves", number, replace(move, ledger=replace(move.ledger, barriers=barriers)))

    # --- birth -------------------------------------------------------------------------------------------------------
    def _open(self, move: Move) -> Move:
        self._work.state.put("moves", move.id, move)
        for leg in move.legs:
            sought.forget(self._work.state, leg.interface)
        self._deadline(move)
        self._tell(None, move, move.trigger)
        proposals.make_room(self._work)
        return move


def _may_run_there(move: Move, event: MoveEvent) -> bool:
    """Whether a move that an event rolls back may be carried out all the same: by somebody who was about to, or by one
    who has never been told that the time is over."""
    return not move.state.steered and (move.redirect is not Redirect.NONE or event is MoveEvent.EXPIRED)
