"""Which meters are whose: a slot for each port of an NVE, that no other of its ports has.

A port whose OpenFlow number is that of a slot has that one, if nobody else does: almost all have, and nothing needs to
be remembered of them. Open vSwitch counts port numbers on, up to 65,279, so on a host with churn there are others: they
have the highest slot that is free. That is recorded (table ``slots``), so that a restart changes no flow, and ends
with the port. Should an NVE have more ports than there are slots, those that found none share one, and that is told.
"""

from __future__ import annotations

from collections.abc import Collection

from .limits import SHARED_SLOT
from .state import State, slot_key

__all__ = ["keep_only", "release", "slot_for"]


def slot_for(state: State, nve: str, port: str, number: int) -> int:
    """Give a port of an NVE a slot, 1 to limits.SHARED_SLOT; the one that it has if it has any."""
    key = slot_key(nve, port)
    recorded = state.slots.get(key)
    if recorded not in (None, SHARED_SLOT) and state.slot_user(nve, recorded) == port:
        return recorded
    if 0 < number < SHARED_SLOT and state.slot_user(nve, number) in (None, port):
        state.put("slots", key, None)
        return number
    slot = next((n for n in range(SHARED_SLOT - 1, 0, -1) if state.slot_user(nve, n) is None), SHARED_SLOT)
    state.put("slots", key, slot)
    return slot


def release(state: State, nve: str, port: str) -> None:
    """A port is no more."""
    state.put("slots", slot_key(nve, port), None)


def keep_only(state: State, nve: str, ports: Collection[str]) -> None:
    """An NVE has shown all its ports: what others of it had is free again."""
    for port in state.slots_recorded(nve):
        if port not in ports:
            release(state, nve, port)
