"""What a move waits for, on which NVEs, and until when: read from its state, so that nobody has to guess it."""

from __future__ import annotations

import enum
from typing import NamedTuple

from .model import Kind, Move, MoveState, Redirect
from .probes import Proof
from .state import State

__all__ = ["Wait", "Waiting", "waiting"]


class Wait(enum.StrEnum):
    """What a move waits for: answers of *switches*; *probes* over its paths; the hypervisor's *redirect* or *activate*
    (the VM's own sign of life at the destination does as well); a redirect to be *in-force*; *silence*, which is no
    redirected packet for the quiet time."""

    SWITCHES = "switches"
    PROBES = "probes"
    REDIRECT = "redirect"
    IN_FORCE = "in-force"
    ACTIVATE = "activate"
    SILENCE = "silence"


class Waiting(NamedTuple):
    """What is waited for. ``on``: names of the NVEs that it depends on. ``until``: Unix time of the state's deadline,
    None if it has none."""

    what: Wait
    on: tuple[str, ...] = ()
    until: float | None = None


def waiting(state: State, move: Move) -> Waiting | None:
    """Tell what a move waits for now. None: for nothing more, it has ended and its ledger is closed."""
    if not move.open:
        return None if move.ledger.closed else Waiting(Wait.SWITCHES, _named(state, move))
    what, on = _open(state, move)
    return Waiting(what, on, state.clock.get(("deadline", move.id)))


def _open(state: State, move: Move) -> tuple[Wait, tuple[str, ...]]:
    named = _named(state, move)
    match move.state:
        case MoveState.PREPARING:
            proof: Proof | None = state.probes.get(move.id)
            missing = set() if proof is None else {nve for path in proof.missing for nve in (path.here, path.there)}
            return (Wait.SWITCHES, named) if named or proof is None else (Wait.PROBES, tuple(sorted(missing)))
        case MoveState.PREPARED if move.kind is Kind.HOT:
            return Wait.REDIRECT, (move.source,)
        case MoveState.REDIRECTING if move.redirect is not Redirect.IN_FORCE:
            return (Wait.SWITCHES, named) if named else (Wait.IN_FORCE, (move.source,))
        case MoveState.STEERING:
            return Wait.SWITCHES, tuple(sorted({*named, *move.unconfirmed}))
        case MoveState.DRAINING:
            late = tuple(sorted({*named, *move.unconfirmed} - {move.source}))
            return (Wait.SWITCHES, late) if late else (Wait.SILENCE, (move.source,))
    return Wait.ACTIVATE, (move.destination,)


def _named(state: State, move: Move) -> tuple[str, ...]:
    """The NVEs whose answers the move's present stage waits for."""
    return tuple(sorted(state.waits.get(move.id, ())))
