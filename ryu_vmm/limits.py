"""What a port may send to the NVA, and the meters that hold it to that.

A switch has 262,144 meters at the most (Open vSwitch); these are their numbers:

* from 1: redirects, METER_SLOTS for each mark (tables.redirect_meter); they count and never limit;
* then GONE_METERS for ports that have gone (gone_meter), which count as well;
* then that of the probes which come in by tunnels, whoever sends them; this limits, and so do
* PORT_METERS for the questions and signs of life of ports, and as many for what ports forge.

A port's meters follow from its slot, which no other port of its NVE has (slots.py); slot 0 is that of the NVE as a
whole.
"""

from __future__ import annotations

from typing import NamedTuple

from .model import MARKS, METER_SLOTS

GONE_METERS = 8191
PORT_METERS = 4096
_GONE = 1 + MARKS * METER_SLOTS
PROBE_METER = _GONE + GONE_METERS
_QUESTIONS = PROBE_METER + 1
_FORGERIES = _QUESTIONS + PORT_METERS
#: That of all ports together that found no other one free.
SHARED_SLOT = PORT_METERS - 1
#: The highest meter that is ever asked for.
HIGHEST = _FORGERIES + PORT_METERS - 1
#: Packets per second that PROBE_METER lets pass: more than an NVE is ever sent for the NVA.
PROBES = 500
#: Above what any switch has.
_NONE = 1 << 31


class Limits(NamedTuple):
    """Packets per second that a port may send to the NVA, with as many at once.

    ``questions``: ARP, neighbor solicitations, RARP and announcements with content of its own; 0 is no limit.
    ``forgeries``: such packets with foreign content, handed over to be reported; 0 hands none over.
    """

    questions: int = 1000
    forgeries: int = 20


def gone_meter(slot: int) -> int:
    """The number of the meter of the ``slot``-th port that has gone; one that no switch has if there are too many."""
    return _GONE + slot if slot < GONE_METERS else _NONE


def gone_slot(meter: int) -> int | None:
    """The inverse of :func:`gone_meter`; None: it is no such meter."""
    return meter - _GONE if _GONE <= meter < _GONE + GONE_METERS else None


def question_meter(slot: int) -> int:
    """The meter of what the port with a slot (0 to SHARED_SLOT) asks and announces; 0: of what the router is asked."""
    return _QUESTIONS + slot


def forgery_meter(slot: int) -> int:
    """The meter of what the port with a slot (0 to SHARED_SLOT) forges; 0: of what no port may say, of all."""
    return _FORGERIES + slot


def rate(meter: int, limits: Limits) -> int:
    """Packets per second that a meter lets pass; 0: it counts and limits nothing."""
    if meter == PROBE_METER:
        return PROBES
    if meter > HIGHEST or meter < _QUESTIONS:
        return 0
    return limits.questions if meter < _FORGERIES else limits.forgeries
