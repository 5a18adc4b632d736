"""What faults do to moves: NVEs that go and come back, errors, and the NVA's own restart.

The rules, which docs/faults.md lists case by case: an edge whose control channel is gone goes on forwarding as last
told, so nothing that is in force is taken back for that; a stage waits for an edge no longer than its deadline; a
redirect stays while a correspondent that has not confirmed may still send to the source.
"""

from __future__ import annotations

from dataclasses import replace

from .ledger import Accounts
from .mobility import MoveEvent
from .model import MoveState
from .moves import Moves
from .work import Work


class Recovery:
    """Tells open moves what has happened to the NVEs that they concern."""

    def __init__(self, work: Work, moves: Moves, accounts: Accounts) -> None:
        self._work = work
        self._moves = moves
        self._accounts = accounts

    # --- NVEs ---------------------------------------------------------------------------------------------------------
    def lost(self, nve: str) -> None:
        """The control channel of an NVE is gone; what it was told and has not confirmed, it may not have heard."""
        state = self._work.state
        for number in [move.id for move in state.open_moves()]:
            if nve in (state.moves[number].source, state.moves[number].destination):
                self._moves.fire(number, MoveEvent.LOST, f"control channel of {nve} lost")
        for number, waits in list(state.waits.items()):
            if nve not in waits:
                continue
            move = state.moves[number]
            if nve in move.ends:
                state.put("waits", number, {**waits, nve: self._moves.when_back(nve)})
            else:
                self._moves.doubt(number, nve)
                self._moves.no_longer_waits(number, nve)

    def forgot(self, nve: str, why: str) -> None:
        """An NVE has empty tables, or another underlay address: what was proven of its paths is proven no longer."""
        for move in list(self._work.state.open_moves()):
            if nve in (move.source, move.destination):
                self._moves.fire(move.id, MoveEvent.FORGOT, f"{nve} {why}")

    def confirmed_by(self, nve: str) -> None:
        """An NVE is in sync: it no longer stands in a move's way."""
        state = self._work.state
        for move in list(state.open_moves()):
            if nve not in move.unconfirmed:
                continue
            before = self._moves.laggards(move)
            rest = tuple(n for n in move.unconfirmed if n != nve)
            now = replace(move, unconfirmed=rest)
            state.put("moves", move.id, now)
            done = before and not self._moves.laggards(now)
            if done if move.state is MoveState.DRAINING else not rest and not state.waits.get(move.id):
                self._moves.fire(move.id, MoveEvent.CONFIRMED, "all correspondents confirmed")

    def withdrawn(self, nve: str) -> None:
        """An NVE is no more: nothing waits for it any longer, and no redirect is left on it."""
        state = self._work.state
        for number, waits in list(state.waits.items()):
            if nve in waits:
                self._moves.no_longer_waits(number, nve)
        self.confirmed_by(nve)
        for move in list(state.open_moves()):
            while move.open and move.source == nve:  # steered, or the withdrawal would have been refused
                self._moves.fire(move.id, MoveEvent.EXPIRED, f"source {nve} withdrawn")
                move = state.moves[move.id]

    def refused(self, nve: str, generation: int, kind: int, code: int) -> None:
        """An NVE answered a change with an error, nobody knows which: every move that needs that program fails."""
        text = f"{nve} refused a flow: OpenFlow error type {kind} code {code}"
        state = self._work.state
        for move in list(state.open_moves()):
            if (nve, generation) in state.needs.get(move.id, ()):
                self._moves.fire(move.id, MoveEvent.REFUSED, text)
                if move.state.steered:
                    self._moves.doubt(move.id, nve)  # its barrier will reply all the same

    def unsure_of(self, nve: str) -> None:
        """An NVE holds nobody knows what: moves that wait for it wait until it is in sync again."""
        for number, waits in list(self._work.state.waits.items()):
            if nve in waits:
                self._work.state.put("waits", number, {**waits, nve: self._moves.when_back(nve)})

    def waits_on(self, nve: str) -> None:
        """What an NVE was sent last is part of what moves wait for there."""
        newest = self._work.state.generations[nve][0]
        for number, waits in list(self._work.state.waits.items()):
            if nve in waits:
                self._work.state.put("waits", number, {**waits, nve: newest})

    # --- the NVA ------------------------------------------------------------------------------------------------------
    def resume(self) -> None:
        """After a restart: edges have gone on as last told, and moves go on once their edges are in sync again.

        Each state's deadline begins anew, with time for the NVEs to come back.
        """
        state, grace = self._work.state, self._work.settings.reconnect_grace
        for move in list(state.moves.values()):
            if not move.open and move.ledger.closed:
                continue
            concerned = {move.source, move.destination}
            if move.open:
                concerned |= state.correspondents(move)
                self._moves.set_deadline(move, grace)
            waits = {nve: self._moves.when_back(nve) for nve in concerned & state.nves.keys()}
            if move.state.steered and move.open:
                state.put("moves", move.id, replace(move, unconfirmed=tuple(sorted(waits))))
                if move.state is MoveState.DRAINING:
                    state.put("clock", ("poll", move.id), self._work.now)
                    state.put("clock", ("sample", move.id), self._work.now + self._work.settings.sample_pause)
            elif move.state is not MoveState.PREPARED:  # which has nothing to wait for: its paths are proven
                if not move.open:
                    self._accounts.ended_unread(move)
                if not move.open and move.redirect.at_source:
                    state.put("returning", move.id, True)
                state.put("waits", move.id, waits or None)
                if not move.open and not waits:  # both ends were withdrawn
                    self._moves.stage_done(move.id)
            if move.open:
                if move.id in state.waits:
                    state.put("clock", ("regroup", move.id), self._work.now + grace)
                self._work.report("move.resumed", move=move.id, vm=move.vm, state=move.state.value)

    def regroup(self, number: int) -> None:
        """A restarted NVA has waited long enough for correspondents: the move goes on without those not here."""
        state = self._work.state
        state.put("clock", ("regroup", number), None)
        waits = state.waits.get(number)
        if waits:
            move = state.moves[number]
            here = {n: g for n, g in waits.items() if n in move.ends or self._work.session(n) is not None}
            if here != waits:
                self._moves.waited(number, here)
