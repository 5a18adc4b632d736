"""Evacuations: all VMs of an NVE move elsewhere, so many at a time.

An evacuation opens moves as a request does, and whoever carries moves out carries these out: the NVA touches no
hypervisor. What has become of a VM is read off the directory and the moves after every step
(:meth:`Evacuations.follow`), whoever changed them, so nothing is remembered that a restart could lose.

Where a VM goes says placement.py. One that is off is steered there without waiting for anybody: nobody could carry out
a move of it, and whoever starts it finds it served there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .effects import Report
from .errors import Conflict, InvalidInput, NotFound, TooManyMoves
from .events import EvacuationCancelled, EvacuationRequested, EvacuationResumed, MoveRequested
from .mobility import MoveEvent
from .model import (
    Evacuation,
    EvacuationAsked,
    EvacuationState,
    Evacuee,
    EvacueeState,
    Kind,
    Move,
    MoveState,
    Place,
    Step,
)
from .moves import Moves
from .placement import Targets, fits, in_order, rest, some, targets
from .shutoff import ShutOff, how
from .work import Work

__all__ = ["KEEP", "Evacuations"]

#: So many evacuations are kept on record.
KEEP = 100
_PENDING = (EvacueeState.WAITING, EvacueeState.MOVING, EvacueeState.DRAINING)
_OFF = (EvacueeState.MOVED, EvacueeState.GONE)
_BEHIND = (EvacueeState.FAILED, EvacueeState.LEFT)


class Evacuations:
    """Handlers of requests about evacuations, and what follows for them from every step."""

    def __init__(self, work: Work, moves: Moves) -> None:
        self._work = work
        self._moves = moves
        self.shut_off = ShutOff(work, moves)

    # --- requests -----------------------------------------------------------------------------------------------------
    def requested(self, event: EvacuationRequested) -> tuple[Evacuation, bool]:
        """Begin an evacuation. Raises NotFound, InvalidInput, Conflict."""
        state, now = self._work.state, self._work.now
        if event.request_id is not None and event.request_id in state.by_evacuation_request:
            return _repeated(state.evacuations[state.by_evacuation_request[event.request_id]], event), False
        if event.nve not in state.nves:
            raise NotFound(f"there is no NVE {event.nve}", nve=event.nve, field="nve")
        self._check_targets(event.nve, event.to)
        self._check_parallel(event.parallel)
        if event.attempts < 1:
            raise InvalidInput("at least one attempt is needed", field="attempts")
        self._check_alone(event.nve)
        number = max(state.evacuations, default=0) + 1
        evacuation = Evacuation(
            id=number,
            nve=event.nve,
            to=event.to,
            kind=event.kind,
            parallel=event.parallel,
            attempts=event.attempts,
            state=EvacuationState.RUNNING,
            created=now,
            history=(Step(EvacuationState.RUNNING.value, now, "request"),),
            request_id=event.request_id,
            requested_by=event.requested_by,
            asked_with=EvacuationAsked(event.to, event.parallel, event.attempts),
        )
        self._forget_old()
        state.put("evacuations", number, evacuation)
        for vm in sorted(state.guests(event.nve)):
            row = Evacuee(number, vm)
            state.put("evacuees", row.key, row)
        self._tell("started", evacuation)
        return evacuation, True

    def cancelled(self, event: EvacuationCancelled) -> Evacuation:
        """Open no further moves; abort those that are open if asked to. Raises NotFound, Conflict."""
        state = self._work.state
        evacuation = self._found(event.evacuation)
        if not evacuation.state.open:
            if evacuation.state is EvacuationState.CANCELLED:
                return evacuation
            message = f"evacuation {evacuation.id} has ended: {evacuation.state}"
            raise Conflict(message, evacuation=evacuation.id, state=evacuation.state.value)
        if evacuation.state is EvacuationState.RUNNING:
            self._enter(evacuation, EvacuationState.CANCELLING, event.why)
            self._tell("cancelled", evacuation, why=event.why)
        for row in state.evacuees_in(evacuation.id, EvacueeState.WAITING):
            self._put(row, replace(row, state=EvacueeState.LEFT, why=event.why))
        for row in state.evacuees_in(evacuation.id, EvacueeState.MOVING) if event.abort else ():
            if row.move in state.moves:
                self._moves.fire(row.move, MoveEvent.ABORT, f"evacuation {evacuation.id} cancelled: {event.why}")
        return state.evacuations[evacuation.id]

    def resumed(self, event: EvacuationResumed) -> Evacuation:
        """Try again what failed, was left or has come since. Raises NotFound, InvalidInput, Conflict."""
        state = self._work.state
        evacuation = self._found(event.evacuation)
        if evacuation.nve not in state.nves:
            raise Conflict(f"there is no NVE {evacuation.nve} any more", nve=evacuation.nve)
        if event.to is not None:
            self._check_targets(evacuation.nve, event.to)
            evacuation = replace(evacuation, to=event.to)
        if event.parallel is not None:
            self._check_parallel(event.parallel)
            evacuation = replace(evacuation, parallel=event.parallel)
        self._check_alone(evacuation.nve, evacuation.id)
        self._enter(replace(evacuation, ended=None, why=""), EvacuationState.RUNNING, "resumed")
        for row in state.evacuees_in(evacuation.id, *_BEHIND):
            again = replace(row, state=EvacueeState.WAITING, attempts=0, failed_at=(), why="")
            self._put(row, again)
        evacuation = state.evacuations[evacuation.id]
        known = {row.vm for row in state.evacuees_in(evacuation.id)}
        for vm in sorted(known | set(state.guests(evacuation.nve))):
            self._look(evacuation, vm)
        self._tell("resumed", evacuation)
        return evacuation

    def admit(self, nves: Iterable[str]) -> None:
        """Raise Conflict if one of these NVEs, to which a VM is to be added, is being evacuated."""
        for nve in nves:
            number = self._work.state.evacuating.get(nve)
            if number is not None:
                message = f"NVE {nve} is being evacuated and takes no VMs (evacuation {number})"
                raise Conflict(message, nve=nve, evacuation=number)

    def _found(self, number: int) -> Evacuation:
        evacuation = self._work.state.evacuations.get(number)
        if evacuation is None:
            raise NotFound(f"there is no evacuation {number}", evacuation=number)
        return evacuation

    def _check_targets(self, nve: str, to: tuple[str, ...]) -> None:
        for n, name in enumerate(to):
            if name == nve:
                raise InvalidInput(f"{nve} cannot take the VMs that leave it", field=f"to[{n}]", nve=nve)
            if name not in self._work.state.nves:
                raise NotFound(f"there is no NVE {name}", nve=name, field=f"to[{n}]")
            self.admit([name])

    def _check_parallel(self, parallel: int) -> None:
        if parallel < 1:
            raise InvalidInput("at least one move must be allowed at a time", field="parallel")

    def _check_alone(self, nve: str, but: int | None = None) -> None:
        other = self._work.state.unfinished.get(nve)
        if other not in (None, but):
            raise Conflict(f"NVE {nve} is being evacuated (evacuation {other})", nve=nve, evacuation=other)

    def _forget_old(self) -> None:
        state = self._work.state
        ended = [number for number in sorted(state.evacuations) if not state.evacuations[number].state.open]
        for number in ended[: max(0, len(state.evacuations) - KEEP + 1)]:
            for row in state.evacuees_in(number):
                state.put("evacuees", row.key, None)
            state.put("evacuations", number, None)

    # --- what follows from a step -------------------------------------------------------------------------------------
    def follow(self, mark: int) -> int:
        """Take in what the step has changed since ``mark``, open moves, end; returns the mark for the next time."""
        state = self._work.state
        if not state.unfinished:
            return state.mark()
        changed: set[str] = set()
        stirred = False
        for table, key, old, new in state.since(mark):
            match table:
                case "moves":
                    if old is None or new is None or old.state is not new.state:
                        changed.add((new or old).vm)
                    if new is not None and new.departed and not (old is not None and old.departed):
                        self.shut_off.left(new)
                case "interfaces":
                    if old is None or new is None or old.location != new.location:
                        changed.add((new or old).vm)
                case "ports":
                    self.shut_off.changed(Place(*key))
                case "sessions":
                    stirred = True
                    if new is None:
                        self._missing(old.nve)
                case "nves" | "evacuations":
                    stirred = True
        if changed or stirred:
            for number in sorted(state.unfinished.values()):
                evacuation = state.evacuations[number]
                for vm in sorted(changed):
                    self._look(evacuation, vm)
                if evacuation.state is EvacuationState.RUNNING:
                    self._go_on(evacuation)
                self._conclude(number)
        return state.mark()

    def _missing(self, nve: str) -> None:
        """An NVE has gone that VMs are on their way to: they may soon have to go elsewhere."""
        state = self._work.state
        for number in state.unfinished.values():
            if any(row.to == nve for row in state.evacuees_in(number, EvacueeState.MOVING)):
                due = self._work.now + self._work.settings.reconnect_grace
                state.put("clock", ("evacuation", number), due)

    def replan(self, number: int) -> None:
        """NVEs have had time to come back: who is to go to one that has not goes elsewhere, if it can still choose."""
        state = self._work.state
        if state.evacuations[number].state is not EvacuationState.RUNNING:
            return  # what is open goes on as any other move
        for row in state.evacuees_in(number, EvacueeState.MOVING):
            move = None if row.move is None else state.moves.get(row.move)
            if move is None or self._work.session(move.destination) is not None:
                continue
            if move.state in (MoveState.PREPARING, MoveState.PREPARED):
                self._moves.fire(move.id, MoveEvent.ABORT, f"NVE {move.destination} is not connected and in sync")

    def resume(self) -> None:
        """After a restart every NVE has to come back."""
        state = self._work.state
        due = self._work.now + self._work.settings.reconnect_grace
        for number in state.unfinished.values():
            state.put("clock", ("evacuation", number), due)
        self.shut_off.resume(due)

    def _look(self, evacuation: Evacuation, vm: str) -> None:
        """Bring a VM's row up to date, and take in a VM that has come."""
        row = self._work.state.evacuee(evacuation.id, vm)
        if row is not None:
            self._put(row, self._as_is(evacuation, row))
        elif evacuation.state is EvacuationState.RUNNING and self._work.state.is_guest(vm, evacuation.nve):
            self._put(None, Evacuee(evacuation.id, vm, why="has come since"))

    def _as_is(self, evacuation: Evacuation, row: Evacuee) -> Evacuee:
        """A row as the directory and the moves have it."""
        state = self._work.state
        vm = state.vms.get(row.vm)
        if vm is None:
            # What has moved has moved, whatever became of it later.
            gone = replace(row, state=EvacueeState.GONE, why="the VM has been removed")
            return row if row.state in _OFF else gone
        own = None if row.move is None else state.moves.get(row.move)
        if state.is_guest(row.vm, evacuation.nve):
            if own is not None and own.open and not own.state.steered:
                return replace(row, state=EvacueeState.MOVING, why="")
            if row.state in (EvacueeState.WAITING, *_BEHIND):
                return row
            return self._again(evacuation, row, own)
        leaving = {m.id: m for i in vm.interfaces for m, _ in state.moves_of(i) if m.source == evacuation.nve}
        if own is not None and own.id in leaving and own.state is MoveState.STEERING:
            return replace(row, state=EvacueeState.MOVING, why=how(own))
        if leaving:
            newest = leaving[max(leaving)]
            why = how(own) if newest is own else f"by move {newest.id} to {newest.destination}, not of this evacuation"
            return replace(row, state=EvacueeState.DRAINING, why=why)
        if row.state in _OFF:
            return row
        if own is not None and any(step.state == MoveState.STEERING.value for step in own.history):
            return replace(row, state=EvacueeState.MOVED, why=own.error or row.why or how(own))
        homes = sorted({state.interfaces[i].location.nve for i in vm.interfaces})
        return replace(row, state=EvacueeState.GONE, why=f"is on {', '.join(homes)}, not by this evacuation")

    def _again(self, evacuation: Evacuation, row: Evacuee, own: Move | None) -> Evacuee:
        """The row of a VM whose move came to nothing, or that has come back: its turn comes again, or not."""
        if own is None or any(step.state == MoveState.STEERING.value for step in own.history):
            why, failed_at = "has come back", row.failed_at
        else:
            why = f"move {own.id} to {own.destination} {own.state}: {own.history[-1].why}"
            failed_at = tuple(dict.fromkeys((*row.failed_at, own.destination)))
        to = EvacueeState.WAITING
        if evacuation.state is not EvacuationState.RUNNING:
            to = EvacueeState.LEFT
        elif row.attempts >= evacuation.attempts:
            to = EvacueeState.FAILED
        return replace(row, state=to, failed_at=failed_at, why=why)

    def _conclude(self, number: int) -> None:
        state = self._work.state
        evacuation, counts = state.evacuations[number], state.evacuee_counts(number)
        if not evacuation.state.open or any(counts[pending] for pending in _PENDING):
            return
        to = EvacuationState.CANCELLED
        if evacuation.state is EvacuationState.RUNNING:
            behind = sum(counts[state] for state in _BEHIND)
            to = EvacuationState.INCOMPLETE if behind else EvacuationState.DONE
        why = evacuation.history[-1].why if to is EvacuationState.CANCELLED else ""
        self._enter(replace(evacuation, ended=self._work.now, why=""), to, why)
        self._tell("ended", state.evacuations[number])

    # --- opening moves ------------------------------------------------------------------------------------------------
    def _go_on(self, evacuation: Evacuation) -> None:
        """Open as many moves as there are places."""
        state = self._work.state
        waiting = state.evacuees_in(evacuation.id, EvacueeState.WAITING)
        free = evacuation.parallel - state.evacuee_counts(evacuation.id)[EvacueeState.MOVING]
        why = ""
        if waiting and evacuation.kind is Kind.HOT and self._work.session(evacuation.nve) is None:
            why = f"NVE {evacuation.nve} is not connected and in sync"
        elif waiting and free > 0:
            where = targets(self._work, evacuation)
            if not where.ready and where.away:
                why = f"not connected and in sync: {some(where.away)}"
            try:
                for row in sorted(waiting, key=lambda row: (row.attempts, row.vm)) if not why else ():
                    free -= self._send_off(evacuation, row, where)
                    if free <= 0:
                        break
            except TooManyMoves as error:
                why = error.message  # the next that ends makes room
        if why != evacuation.why:
            state.put("evacuations", evacuation.id, replace(evacuation, why=why))

    def _send_off(self, evacuation: Evacuation, row: Evacuee, where: Targets) -> bool:
        """Open a move for what a waiting VM has there; False if none can be opened now. Raises TooManyMoves."""
        state = self._work.state
        whole = [state.interfaces[i] for i in state.vms[row.vm].interfaces]
        interfaces = [i for i in whole if i.location.nve == evacuation.nve]
        for interface in interfaces:
            active = state.active_move(interface.id)
            if active is not None:
                other = active[0]
                words = f"move {other.id} to {other.destination} is open, not of this evacuation"
                self._put(row, replace(row, why=words))
                return False
        reasons: list[str] = []
        away = [name for name in where.away if fits(state, interfaces, evacuation.nve, name, reasons)]
        off = self.shut_off.is_off(whole)
        kind = Kind.COLD if off else evacuation.kind
        ready = [name for name in where.ready if fits(state, interfaces, evacuation.nve, name, reasons)]
        by = f"evacuation {evacuation.id}"
        for name in in_order(row, where, ready, rest(state, whole, evacuation.nve)):
            request = MoveRequested(row.vm, name, kind, source=evacuation.nve, requested_by=by)
            try:
                move, _ = self._moves.requested(request)
            except TooManyMoves:
                raise
            except (Conflict, InvalidInput) as error:
                reasons.append(f"{name}: {error.message}")
                continue
            where.loads[name] += 1
            attempts = row.attempts + 1
            changes = replace(row, state=EvacueeState.MOVING, move=move.id, to=name, attempts=attempts, why="")
            self._put(row, changes)
            if off:
                self.shut_off.steer(move)
            return True
        reasons += where.closed
        if away:
            self._put(row, replace(row, why=some([f"not connected and in sync: {some(away)}", *reasons], "; ")))
        else:
            words = some(reasons, "; ") or "there is no other NVE"
            self._put(row, replace(row, state=EvacueeState.FAILED, why=words))
        return False

    # --- records ------------------------------------------------------------------------------------------------------
    def _enter(self, evacuation: Evacuation, to: EvacuationState, why: str) -> None:
        step = Step(to.value, self._work.now, why)
        entered = replace(evacuation, state=to, history=(*evacuation.history, step))
        self._work.state.put("evacuations", evacuation.id, entered)
        if not to.open:
            self._work.state.put("clock", ("evacuation", evacuation.id), None)

    def _put(self, old: Evacuee | None, new: Evacuee) -> None:
        if old == new:
            return
        self._work.state.put("evacuees", new.key, new)
        if old is None or (old.state, old.move) != (new.state, new.move):
            before = None if old is None else old.state.value
            evacuation = self._work.state.evacuations[new.evacuation]
            self._tell(
                "progress", evacuation, vm=new.vm, before=before, state=new.state.value, move=new.move, to=new.to,
                why=new.why,
            )  # fmt: skip

    def _tell(self, what: str, evacuation: Evacuation, **fields: object) -> None:
        counts = {state.value: n for state, n in self._work.state.evacuee_counts(evacuation.id).items() if n}
        told: dict[str, object] = {"evacuation": evacuation.id, "nve": evacuation.nve, "state": evacuation.state.value}
        # Not by report(), which marks an entry as the VM's tenant's: sums and reasons are about others too.
        self._work.do(Report(f"evacuation.{what}", {**told, **fields, "counts": counts}))


def _repeated(found: Evacuation, event: EvacuationRequested) -> Evacuation:
    """The evacuation of a request id that comes again. Conflict: what is asked for is another one."""
    kept = found.asked_with in (None, EvacuationAsked(event.to, event.parallel, event.attempts))
    if not kept or (found.nve, found.kind) != (event.nve, event.kind):
        message = f"this request_id was used for another evacuation, {found.id}"
        raise Conflict(message, evacuation=found.id, field="request_id")
    return found
