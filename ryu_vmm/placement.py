"""Where the VMs of an NVE that is evacuated go.

Of the NVEs that may take a VM, to the one with the fewest VMs, those on their way there included; where a move of this
VM has failed before only if nobody else takes it. A VM that has interfaces on other NVEs, too, goes where these are, or
are on their way to, if it can; else only what is to leave goes. A VM with attachments elsewhere goes to an NVE where it
has one. What any request for a move is refused for (a port that is taken, no underlay in common) makes it the next
NVE's turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .model import Evacuation, Evacuee, Interface
from .state import State
from .work import Work

__all__ = ["Targets", "fits", "in_order", "rest", "some", "targets"]

#: So many reasons are given why a VM can go nowhere.
_REASONS = 4


@dataclass(slots=True)
class Targets:
    """Where VMs of an evacuation may go now. ``away``: not connected and in sync; ``loads``: VMs there or coming."""

    ready: list[str]
    away: list[str]
    closed: list[str]  # reasons
    loads: Counter[str]


def targets(work: Work, evacuation: Evacuation) -> Targets:
    """The NVEs that an evacuation's VMs may go to, whatever VM it is."""
    state = work.state
    found = Targets([], [], [], Counter())
    for name in evacuation.to or sorted(state.nves.keys() - {evacuation.nve}):
        if name not in state.nves:
            found.closed.append(f"there is no NVE {name}")
        elif name in state.evacuating:
            found.closed.append(f"{name} is being evacuated")
        elif work.session(name) is None:
            found.away.append(name)
        else:
            found.ready.append(name)
            found.loads[name] = state.guest_count(name)
    for move in state.open_moves():
        if not move.state.steered and move.destination in found.loads:
            found.loads[move.destination] += 1
    return found


def fits(state: State, interfaces: Iterable[Interface], leaving: str, name: str, reasons: list[str]) -> bool:
    """Whether a VM's attachments let it go to an NVE; else the reason is added."""
    for interface in interfaces:
        elsewhere = {place.nve for place in interface.attachments if place.nve in state.nves} - {leaving}
        if elsewhere and name not in elsewhere:
            reasons.append(f"{interface.id} has no attachment on {name}")
            return False
    return True


def rest(state: State, interfaces: Iterable[Interface], leaving: str) -> set[str]:
    """Where a VM's interfaces are, or are on their way to, that are not to leave an NVE."""
    found = set()
    for interface in interfaces:
        if interface.location.nve != leaving:
            active = state.active_move(interface.id)
            found.add(interface.location.nve if active is None else active[0].destination)
    return found


def in_order(row: Evacuee, where: Targets, names: Iterable[str], rest: set[str]) -> list[str]:
    """NVEs that may take a VM, the best one first; ``rest``: where else it is."""
    return sorted(names, key=lambda name: (name in row.failed_at, name not in rest, where.loads[name], name))


def some(words: list[str], between: str = ", ") -> str:
    """A few of them, and how many more there are."""
    more = len(words) - _REASONS
    return between.join([*words[:_REASONS], *([f"and {more} more"] if more > 0 else [])])
