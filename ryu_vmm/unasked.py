"""Moves that nobody asked for: a VM showed up somewhere, was registered elsewhere, or is back where it was.

They begin with the steering.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from . import proposals
from .errors import Conflict, MoveStateConflict
from .flapping import Flapping, thaw
from .mobility import MoveEvent
from .model import Change, Interface, Move, MoveState, Place
from .moves import Moves
from .work import Work

__all__ = ["Unasked"]


class Unasked:
    """Opens them."""

    def __init__(self, work: Work, moves: Moves) -> None:
        self._work = work
        self._moves = moves
        self._flapping = Flapping(work)

    def announced(self, interface: Interface, place: Place, by: str) -> Move | None:
        """A VM announced itself at a place it may be at. None: its interface flaps, and is not believed.

        Raises Conflict, before anything has changed, if too many moves are open.
        """
        if self._flapping.freezes(interface, place):
            return None
        sought = self._work.state.sought.get(interface.id)
        failed = self._work.state.moves.get(sought.move) if sought is not None and sought.place == place else None
        if failed is not None:
            with contextlib.suppress(Conflict):  # else this interface alone
                return self._moves.begin(proposals.after(self._work, failed, "announcement"), by)
        return self._begin([(interface, place)], by)

    def activated(self, failed: Move) -> Move:
        """The VM of a move that was rolled back runs at its destination all the same, whoever says so. Again: the same.

        Raises Conflict, MoveStateConflict.
        """
        state, work = self._work.state, self._work
        done = [m for m in state.moves.values() if m.follows == failed.id and (m.open or m.state is MoveState.SETTLED)]
        if done:
            return max(done, key=lambda move: move.id)
        if any(step.state == MoveState.STEERING.value for step in failed.history):
            message = f"move {failed.id} has {failed.state} after its VM was steered: ask for a move to where it runs"
            raise MoveStateConflict(message, move=failed.id, state=failed.state.value)
        if work.session(failed.destination) is None:
            message = f"NVE {failed.destination} is not connected and in sync"
            raise Conflict(message, nve=failed.destination)
        move = proposals.after(work, failed, "activation")
        for leg in failed.legs:
            thaw(work, leg.interface, "move")
        return self._moves.begin(move, "activate")

    def taken_back(self, move: Move, heard: Interface, by: str) -> None:
        """The VM of a move was heard at its source after all: it is served there again, with all its interfaces.

        Nothing happens to an interface that flaps: two guests speak in turns.
        """
        state = self._work.state
        going = [
            (interface, leg.src)
            for leg in move.legs
            if (interface := state.interfaces.get(leg.interface)) is not None
            and interface.location == leg.dst
            and state.port_at(leg.src) is not None
        ]
        source = next(leg.src for leg in move.legs if leg.interface == heard.id)
        if not going or self._flapping.freezes(heard, source):
            return
        error = f"the VM was heard at its source, {source.port} on {source.nve}, again ({by}), and is served there"
        ids = {interface.id for interface, _ in going}
        vnis = {leg.interface: leg.vni for leg in move.legs}
        back = tuple(
            Change(c.interface, c.new, c.old)
            for c in move.changes
            if c.interface in ids and all(i == c.interface for i, _ in state.claims(vnis[c.interface], c.old))
        )
        try:
            self._begin(going, by, back)
        except Conflict:
            return  # too many moves are open: whoever is heard next may find room
        state.put("moves", move.id, replace(state.moves[move.id], error=error, watched=False))
        self._work.report("move.taken-back", move=move.id, vm=move.vm, nve=source.nve, port=source.port, by=by)

    def registered(self, going: list[tuple[Interface, Place]]) -> None:
        """A VM was registered anew, at another NVE, after its ports had gone where it was. Raises Conflict."""
        by_nve: dict[str, list[tuple[Interface, Place]]] = {}
        for interface, place in going:
            by_nve.setdefault(place.nve, []).append((interface, place))
            thaw(self._work, interface.id, "request")  # whoever registers it knows where it is
        for together in by_nve.values():
            self._begin(together, "registration", trigger="registration")

    def _begin(
        self,
        going: list[tuple[Interface, Place]],
        by: str,
        changes: tuple[Change, ...] = (),
        trigger: str = "announcement",
    ) -> Move:
        state = self._work.state
        proposals.free_marks(state, 0, len(going))
        for interface, place in going:
            active = state.active_move(interface.id)
            if active is not None:
                self._moves.fire(active[0].id, MoveEvent.ABORT, f"announced at {place.nve} instead")
        return self._moves.begin(proposals.unasked(self._work, going, trigger, changes), by)
