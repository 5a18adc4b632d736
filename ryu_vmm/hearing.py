"""Which interfaces have been heard: a RARP request is a question only from one that never was (section 4.1).

Hypervisors announce their guests by RARP requests that have the same bytes as a guest's question for its own address.
A guest asks that when it starts, before it says anything else; a guest that has spoken, or has moved, knows it.
"""

from __future__ import annotations

from .model import Interface, Move, Place
from .tables import Why
from .wire import frames
from .work import Work


class Hearing:
    """Keeps the table ``heard``, by interface id: what was heard of it since it was registered, or moved it."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def is_new(self, nve: str, in_port: int) -> bool:
        """Whether a port is the location of an interface that was never heard."""
        state = self._work.state
        interface = state.by_place.get(Place(nve, state.by_number.get((nve, in_port), "")))
        return interface is not None and interface not in state.heard

    def note(self, nve: str, in_port: int, why: Why, frame: bytes) -> None:
        """A frame was handed over: it says that an interface has been heard, unless it is RARP, or forged."""
        if why is not Why.DROP and frame[12:14] != frames.ETH_RARP and self.is_new(nve, in_port):
            state = self._work.state
            state.put("heard", state.by_place[Place(nve, state.by_number[nve, in_port])], True)

    def follow(self) -> None:
        """Take in the moves that the step in hand has opened, and forget interfaces that it has removed."""
        state = self._work.state
        for table, key, old, new in state.since(0):
            if table == "moves" and old is None and isinstance(new, Move):
                for leg in new.legs:
                    state.put("heard", leg.interface, True)
            elif table == "interfaces" and (new is None or _is_another(old, new)):
                state.put("heard", key, None)

    def asks(self, interface: Interface) -> bool:
        """Whether a RARP request from the location of an interface for its own MAC is a question."""
        return interface.id not in self._work.state.heard and interface.epoch == 1


def _is_another(old: Interface | None, new: Interface) -> bool:
    """Whether an interface was registered as another guest's: its MAC, or its network, is another one."""
    return old is not None and (old.vni, old.mac) != (new.vni, new.mac)
