"""Where a move that was rolled back was going: its VM may show up there after all.

A migration may take longer than any deadline, or be aborted too late. Once packets were redirected, the hypervisor may
have been about to run the VM at the destination; and nobody tells one that calls no hooks, or copies a disk, that the
time is over. So that place stays known for a while, like an attachment: announcements there are believed, and anything
the VM sends once its port at the source has gone.
"""

from __future__ import annotations

from .model import Move, Sought
from .state import State
from .work import Work

__all__ = ["SECONDS", "forget", "remember", "resume"]

#: So long, or until the next move of the VM.
SECONDS = 3600.0


def remember(work: Work, move: Move) -> None:
    """A move is rolled back that may be carried out all the same."""
    state, until = work.state, work.now + SECONDS
    for leg in move.legs:
        interface = state.interfaces.get(leg.interface)
        if interface is not None and interface.location == leg.src:
            state.put("sought", leg.interface, Sought(leg.interface, leg.vni, leg.dst, move.id, until))
            state.put("clock", ("sought", leg.interface), until)
    places = {leg.interface.partition("/")[2]: leg.dst.port for leg in move.legs}
    work.report("move.sought", move=move.id, vm=move.vm, nve=move.destination, ports=places, until=until)


def forget(state: State, interface: str) -> None:
    """An interface moves again, or is no more, or the time is over."""
    state.put("sought", interface, None)
    state.put("clock", ("sought", interface), None)


def resume(work: Work) -> None:
    """After a restart: each for the rest of its time."""
    for key, sought in work.state.sought.items():
        work.state.put("clock", ("sought", key), sought.until)
