"""VMs that are off, of an NVE that is evacuated: nobody can carry out a move of one, so nobody is waited for.

Off is a VM none of whose ports is there, on an NVE that is connected and in sync. One that goes off while its hot move
waits is told from one that leaves without a word by time: a hypervisor that runs it elsewhere has its port there soon.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .mobility import MoveEvent
from .model import OFF, Interface, Kind, Move, Place
from .moves import Moves
from .work import Work

__all__ = ["OFF_AFTER", "ShutOff", "how"]

#: Seconds that a VM's ports must have been gone, at both ends of its move, until it is taken for off.
OFF_AFTER = 2.0


def how(own: Move | None) -> str:
    """What is said of a move that nobody carried out."""
    return "was off: moved cold, and at once" if own is not None and own.off else ""


class ShutOff:
    """Finds VMs that are off and has their moves steered."""

    def __init__(self, work: Work, moves: Moves) -> None:
        self._work = work
        self._moves = moves

    def is_off(self, interfaces: Iterable[Interface]) -> bool:
        """Whether none of a VM's ports is there, as far as its NVE can say."""
        state = self._work.state
        here = [interface.location for interface in interfaces]
        known = all(self._work.session(place.nve) is not None for place in here)
        return known and all(state.port_at(place) is None for place in here)

    def steer(self, move: Move) -> None:
        """Have an open move's VM served at its destination, as soon as it is started there."""
        self._moves.fire(move.id, MoveEvent.ALIVE, OFF)

    def changed(self, place: Place) -> None:
        """A port has come or gone: if a move from there began to redirect because it had gone, look again later."""
        for move, leg in self._work.state.moves_at(place):
            if leg.src == place and move.departed:
                self.left(move)

    def left(self, move: Move) -> None:
        """A move redirects because the VM's port has gone, however long before: look whether it was shut off."""
        if self._evacuates(move):
            self._work.state.put("clock", ("off", move.id), self._work.now + OFF_AFTER)

    def time(self, number: int) -> None:
        """The ports of a VM have been gone for a while, and nobody has carried its move out: it was shut off."""
        state = self._work.state
        move = state.moves[number]
        vm = state.vms.get(move.vm)
        interfaces = [] if vm is None else [state.interfaces[i] for i in vm.interfaces]
        expected = any(state.port_at(leg.dst) is not None for leg in move.legs)  # by a hypervisor that runs it soon
        if move.departed and not move.state.steered and not expected and self.is_off(interfaces):
            state.put("moves", number, replace(move, kind=Kind.COLD))
            self.steer(move)

    def resume(self, due: float) -> None:
        """After a restart: look at ``due``, when NVEs have had time to come back."""
        for move in self._work.state.open_moves():
            if move.departed and self._evacuates(move):
                self._work.state.put("clock", ("off", move.id), due + OFF_AFTER)

    def _evacuates(self, move: Move) -> bool:
        """Whether a move is one of an evacuation that has not ended."""
        number = self._work.state.unfinished.get(move.source)
        row = None if number is None else self._work.state.evacuee(number, move.vm)
        return row is not None and row.move == move.id
