"""The life of a move as one table: (state, event) -> what follows.

The table is complete: every state meets every event, if only to say that nothing happens. ``ryu_vmm.moves`` carries
the actions out; the documentation's table and the exhaustive test read this one.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from .model import MoveState


class MoveEvent(enum.StrEnum):
    """What can happen to a move."""

    READY = "ready"  # destination programmed and every path proven
    REDIRECT = "redirect"  # the hypervisor is about to pause the VM
    DEPARTED = "departed"  # the VM's port at the source has gone
    RETURNED = "returned"  # that port is there again, after a redirect that began because it had gone
    READIED = "readied"  # the destination takes redirected packets: its barrier has replied
    INSTALLED = "installed"  # the source redirects: its barrier has replied
    ALIVE = "alive"  # the VM announced itself at the destination, was heard there, or the hypervisor says it runs
    CONFIRMED = "confirmed"  # every correspondent NVE has acknowledged the new location
    QUIET = "quiet"  # no packet was redirected for the quiet time
    ABORT = "abort"  # cancelled
    EXPIRED = "expired"  # the state's deadline has passed
    OVERDUE = "overdue"  # the same, while a correspondent that has not confirmed may still send to the source
    REFUSED = "refused"  # a switch answered a flow of this move with an error
    LOST = "lost"  # the control channel of the source or the destination is gone; they go on as last told
    FORGOT = "forgot"  # the source or the destination has come back with empty tables, or at another address


class Do(enum.StrEnum):
    """What a transition asks for."""

    READY_DESTINATION = "ready-destination"  # the destination queues for the VM; the source follows on its barrier
    REDIRECT_SOURCE = "redirect-source"
    REDIRECT_NOW = "redirect-now"  # both at once: waiting would only lose packets
    IN_FORCE = "in-force"
    PROVE_AGAIN = "prove-again"  # no redirect any more; the paths may have been left unproven
    WAIT_ON = "wait-on"  # the redirect stays until the missing correspondents are in sync again, or withdrawn
    DRAIN_ON = "drain-on"  # they are: from now on the redirect waits for silence as usual
    STEER = "steer"  # location and epoch, committed, to every correspondent at once
    NAME_UNCONFIRMED = "name-unconfirmed"
    NOTE_ERROR = "note-error"
    NOTE_LOSS = "note-loss"
    DRAIN = "drain"
    ROLL_BACK = "roll-back"  # the source serves again; once it does, the destination forgets the VM
    CLOSE = "close"


class Transition(NamedTuple):
    """Next state (None: stay), actions in order, and, for requests that do not fit, the reason for refusing them."""

    to: MoveState | None = None
    do: tuple[Do, ...] = ()
    refuse: str | None = None


_S, _E = MoveState, MoveEvent
STAY = Transition()
_FAIL = Transition(_S.FAILED, (Do.ROLL_BACK,))
_ABORT = Transition(_S.ABORTED, (Do.ROLL_BACK,))
_STEER = Transition(_S.STEERING, (Do.STEER,))
_REDIRECT_NOW = Transition(_S.REDIRECTING, (Do.REDIRECT_NOW,))
_NOTE_LOSS = Transition(None, (Do.NOTE_LOSS,))
_TOO_LATE = Transition(refuse="the VM already runs at the destination")
_ENDED = Transition(refuse="the move has ended")

_CLOSED: dict[MoveEvent, Transition] = dict.fromkeys(MoveEvent, STAY) | {
    _E.REDIRECT: _ENDED,
    _E.ABORT: _ENDED,
}

TABLE: dict[MoveState, dict[MoveEvent, Transition]] = {
    _S.PREPARING: {
        _E.READY: Transition(_S.PREPARED),
        _E.REDIRECT: Transition(refuse="the paths to the destination are not proven yet; wait for 'prepared'"),
        _E.DEPARTED: _REDIRECT_NOW,
        _E.RETURNED: STAY,
        _E.READIED: STAY,
        _E.INSTALLED: STAY,
        _E.ALIVE: _STEER,
        _E.CONFIRMED: STAY,
        _E.QUIET: STAY,
        _E.ABORT: _ABORT,
        _E.EXPIRED: _FAIL,
        _E.OVERDUE: STAY,
        _E.REFUSED: _FAIL,
        _E.LOST: _NOTE_LOSS,
        _E.FORGOT: Transition(None, (Do.PROVE_AGAIN,)),
    },
    _S.PREPARED: {
        _E.READY: STAY,
        _E.REDIRECT: Transition(_S.REDIRECTING, (Do.READY_DESTINATION,)),
        _E.DEPARTED: _REDIRECT_NOW,
        _E.RETURNED: STAY,
        _E.READIED: STAY,
        _E.INSTALLED: STAY,
        _E.ALIVE: _STEER,
        _E.CONFIRMED: STAY,
        _E.QUIET: STAY,
        _E.ABORT: _ABORT,
        _E.EXPIRED: _FAIL,
        _E.OVERDUE: STAY,
        _E.REFUSED: _FAIL,
        _E.LOST: _NOTE_LOSS,
        _E.FORGOT: Transition(_S.PREPARING, (Do.PROVE_AGAIN,)),
    },
    _S.REDIRECTING: {
        _E.READY: STAY,
        _E.REDIRECT: STAY,
        _E.DEPARTED: Transition(None, (Do.REDIRECT_NOW,)),
        _E.RETURNED: Transition(_S.PREPARING, (Do.PROVE_AGAIN,)),
        _E.READIED: Transition(None, (Do.REDIRECT_SOURCE,)),
        _E.INSTALLED: Transition(None, (Do.IN_FORCE,)),
        _E.ALIVE: _STEER,
        _E.CONFIRMED: STAY,
        _E.QUIET: STAY,
        _E.ABORT: _ABORT,
        _E.EXPIRED: _FAIL,
        _E.OVERDUE: STAY,
        _E.REFUSED: _FAIL,
        _E.LOST: _NOTE_LOSS,
        _E.FORGOT: _NOTE_LOSS,
    },
    _S.STEERING: {
        _E.READY: STAY,
        _E.REDIRECT: STAY,
        _E.DEPARTED: STAY,
        _E.RETURNED: STAY,
        _E.READIED: STAY,
        _E.INSTALLED: STAY,
        _E.ALIVE: STAY,
        _E.CONFIRMED: Transition(_S.DRAINING, (Do.DRAIN,)),
        _E.QUIET: STAY,
        _E.ABORT: _TOO_LATE,
        _E.EXPIRED: Transition(_S.DRAINING, (Do.NAME_UNCONFIRMED, Do.DRAIN)),
        _E.OVERDUE: STAY,
        _E.REFUSED: Transition(None, (Do.NOTE_ERROR,)),
        _E.LOST: _NOTE_LOSS,
        _E.FORGOT: _NOTE_LOSS,
    },
    _S.DRAINING: {
        _E.READY: STAY,
        _E.REDIRECT: STAY,
        _E.DEPARTED: STAY,
        _E.RETURNED: STAY,
        _E.READIED: STAY,
        _E.INSTALLED: STAY,
        _E.ALIVE: STAY,
        _E.CONFIRMED: Transition(None, (Do.DRAIN_ON,)),
        _E.QUIET: Transition(_S.SETTLED, (Do.CLOSE,)),
        _E.ABORT: _TOO_LATE,
        _E.EXPIRED: Transition(_S.SETTLED, (Do.NAME_UNCONFIRMED, Do.CLOSE)),
        _E.OVERDUE: Transition(None, (Do.NAME_UNCONFIRMED, Do.WAIT_ON)),
        _E.REFUSED: Transition(None, (Do.NOTE_ERROR,)),
        _E.LOST: _NOTE_LOSS,
        _E.FORGOT: _NOTE_LOSS,
    },
    _S.SETTLED: _CLOSED,
    _S.ABORTED: _CLOSED | {_E.ABORT: STAY},
    _S.FAILED: _CLOSED,
}


def step(state: MoveState, event: MoveEvent) -> Transition:
    """What follows from ``event`` in ``state``."""
    return TABLE[state][event]
