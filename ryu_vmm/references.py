"""Who may name what: every field, of every table, that can hold the name of something in another table.

This is the one list. Withdrawing an NVE, a network, a VM's interface or the record of a move goes by it, so does taking
in a store (:func:`mend`), and a test walks the fields of all that is kept and finds each of them here or among
:data:`PLAIN`, which name nothing.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .model import Move, MoveState, Step, answer_key
from .state import State
from .work import Work

__all__ = ["PLAIN", "REFERENCES", "SAID", "Fate", "Reference", "clear", "dangling", "holders", "mend", "names"]


class Fate(enum.Enum):
    """What becomes of a reference when what it names is withdrawn."""

    REFUSED = "refused"  # it is not withdrawn: 409
    REMOVED = "removed"  # the row goes too, and its timers
    CUT = "cut"  # the element that names it goes, the row stays
    TOLD = "told"  # who follows the step sees to it (recovery.py, announcing.py, packets.py, registry.py)
    SLEEPS = "sleeps"  # what somebody has registered: it means nothing until an NVE of that name is there again
    KEPT = "kept"  # history: what was so once, and readers do not look it up, or bear that it is gone


#: From the state and what is withdrawn: the keys of the rows that may name it.
Finder = Callable[[State, Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Reference:
    """A field that names something.

    ``path``: as in ``subnets[].nve``, ``stale{}`` (a dictionary's keys), ``waiting[0]``; ``key``, ``key[1]``: of the
    row's key; ``key/``: what it begins with. ``to``: the table of what it names. ``unless``: of such rows it is
    history. ``rows``: an index that finds them. ``mended``: what becomes of one that a store holds though what it names
    is not there.
    """

    table: str
    path: str
    to: str
    fate: Fate
    unless: Callable[[Any], bool] | None = None
    rows: Finder | None = None
    mended: Fate | None = None

    def fate_of(self, row: Any) -> Fate:
        """What becomes of this row's reference."""
        return Fate.KEPT if self.unless is not None and self.unless(row) else self.fate


def _ended(move: Move) -> bool:
    return not move.open


def _left_for_good(move: Move) -> bool:
    return not move.open or move.state.steered


def _same(state: State, key: Any) -> Iterable[Any]:
    return (key,)


def _holders_of(state: State, key: str) -> list[str]:
    interface = state.interfaces.get(key)
    if interface is None:
        return list(state.holders)
    return [answer_key(interface.vni, address) for address in (*interface.shared, *interface.shared_macs)]


def _ports_of(state: State, key: str) -> list[Any]:
    interface = state.interfaces.get(key)
    return list(state.unadmitted) if interface is None else [interface.location, *interface.attachments]


NVES, NETWORKS, VMS, INTERFACES, MOVES = "nves", "networks", "vms", "interfaces", "moves"
_REFUSED, _REMOVED, _CUT, _TOLD, _SLEEPS, _KEPT = Fate

REFERENCES: tuple[Reference, ...] = (
    # NVEs, by what is registered
    Reference("networks", "subnets[].nve", NVES, _SLEEPS),
    Reference("interfaces", "location.nve", NVES, _REFUSED),
    Reference("interfaces", "pending.nve", NVES, _REFUSED, mended=_CUT),  # the location's
    Reference("interfaces", "attachments[].nve", NVES, _SLEEPS),
    # by moves and evacuations
    Reference("moves", "source", NVES, _REFUSED, unless=_left_for_good),
    Reference("moves", "destination", NVES, _REFUSED, unless=_ended),
    Reference("moves", "legs[].src.nve", NVES, _REFUSED, unless=_left_for_good),
    Reference("moves", "legs[].dst.nve", NVES, _REFUSED, unless=_ended),
    Reference("moves", "unconfirmed[]", NVES, _TOLD, unless=_ended),
    Reference("moves", "peers[]", NVES, _KEPT),  # meters' slots
    Reference("moves", "ledger.forgetful[]", NVES, _KEPT),
    Reference("moves", "ledger.stale{}", NVES, _KEPT),
    Reference("moves", "ledger.barriers{}", NVES, _KEPT),
    Reference("moves", "ledger.ports{}/", NVES, _KEPT),
    Reference("evacuations", "nve", NVES, _KEPT),  # nobody is left there, so it ends
    Reference("evacuations", "to[]", NVES, _REFUSED, unless=lambda row: not row.state.open, mended=_KEPT),
    Reference("evacuations", "asked_with.to[]", NVES, _KEPT),
    Reference("moves", "asked_with.source", NVES, _KEPT),
    Reference("evacuees", "to", NVES, _KEPT),
    Reference("evacuees", "failed_at[]", NVES, _KEPT),
    Reference("sought", "place.nve", NVES, _REMOVED),
    # by what switches have said and were told
    Reference("left", "nve", NVES, _REMOVED),
    Reference("hops", "nve", NVES, _REMOVED),
    Reference("offers", "key", NVES, _REMOVED, rows=_same),
    Reference("changed", "owed[]", NVES, _TOLD),
    Reference("slots", "key/", NVES, _REMOVED),
    Reference("ports", "key[0]", NVES, _REMOVED),
    Reference("sessions", "key", NVES, _REMOVED, rows=_same),
    Reference("generations", "key", NVES, _REMOVED, rows=_same),
    Reference("faults", "key", NVES, _REMOVED, rows=_same),
    Reference("certain", "key", NVES, _REMOVED, rows=_same),
    Reference("refusals", "key[0]", NVES, _REMOVED),
    Reference("needs", "[][0]", NVES, _KEPT),  # generations of what it was told, never told again
    Reference("lacking", "key", NVES, _REMOVED, rows=_same),
    Reference("broken", "key[0]", NVES, _REMOVED),
    Reference("broken", "key[1]", NVES, _REMOVED),
    Reference("silenced", "key[0]", NVES, _REMOVED),
    Reference("muted", "key[0]", NVES, _REMOVED),
    Reference("unadmitted", "key[0]", NVES, _REMOVED),
    Reference("pulled", "key[0]", NVES, _REMOVED),
    Reference("waits", "{}", NVES, _TOLD),
    Reference("barriers", "{}", NVES, _KEPT),
    # networks
    Reference("interfaces", "vni", NETWORKS, _REFUSED),
    Reference("moves", "legs[].vni", NETWORKS, _REFUSED, unless=_ended),
    Reference("left", "vni", NETWORKS, _REMOVED),
    Reference("sought", "vni", NETWORKS, _REMOVED),
    Reference("holders", "vni", NETWORKS, _REMOVED),
    Reference("changed", "vni", NETWORKS, _TOLD, mended=_REMOVED),
    Reference("vanished", "vni", NETWORKS, _TOLD, mended=_REMOVED),
    # VMs
    Reference("interfaces", "vm", VMS, _TOLD, mended=_REMOVED),
    Reference("moves", "vm", VMS, _TOLD, unless=_ended),  # they are closed first
    Reference("evacuees", "vm", VMS, _KEPT),
    # interfaces
    Reference("vms", "interfaces[]", INTERFACES, _TOLD, mended=_CUT),
    Reference("moves", "legs[].interface", INTERFACES, _TOLD, unless=_ended),
    Reference("moves", "changes[].interface", INTERFACES, _TOLD, unless=_ended),
    Reference("moves", "ledger.ports{}.interface", INTERFACES, _KEPT),
    Reference("left", "interface", INTERFACES, _REMOVED, rows=lambda s, key: [left.key for left in s.left_by(key)]),
    Reference("sought", "interface", INTERFACES, _REMOVED, rows=_same),
    Reference("sought", "key", INTERFACES, _REMOVED, rows=_same),
    Reference("holders", "interface", INTERFACES, _REMOVED, rows=_holders_of),
    Reference("holders", "waiting[0]", INTERFACES, _CUT, rows=_holders_of),
    Reference("heard", "key", INTERFACES, _TOLD, rows=_same, mended=_REMOVED),
    Reference("gone", "key", INTERFACES, _REMOVED, rows=_same),
    Reference("held", "key", INTERFACES, _TOLD, rows=_same),
    Reference("frozen", "key", INTERFACES, _REMOVED, rows=_same),
    Reference("thawed", "key", INTERFACES, _REMOVED, rows=_same),
    Reference("pulled", "key[1]", INTERFACES, _REMOVED, rows=lambda s, key: [(nve, key) for nve in s.pulled_by(key)]),
    Reference("unadmitted", "[].interface", INTERFACES, _CUT, rows=_ports_of),
    # moves
    Reference("sought", "move", MOVES, _KEPT),
    Reference("evacuees", "move", MOVES, _KEPT),
    Reference("moves", "follows", MOVES, _KEPT),
    Reference("held", "move", MOVES, _KEPT),
    # evacuations
    Reference("evacuees", "evacuation", "evacuations", _TOLD, mended=_REMOVED),
)

#: Fields of what is kept, texts and numbers, that name nothing of another table.
PLAIN: dict[str, str] = {
    "nves": "name dpid tunnel_port certificate routed_port ila_port",
    "networks": "name vni policy.mtu policy.idle_timeout policy.leave.seconds tenant subnets[].length router",
    "vms": "name tenant leave.seconds",
    "interfaces": "id name location.port epoch attachments[].port dns pending.port",
    "moves": "id legs[].src.port legs[].dst.port legs[].mark trigger history[].state history[].why request_id "
    "requested_by generation error activated_by ledger.redirected_packets ledger.redirected_bytes "
    "ledger.arrived_packets ledger.arrived_bytes ledger.lost_packets ledger.lost_bytes ledger.held_packets "
    "ledger.held_lost ledger.late_packets ledger.stale{}.packets ledger.stale{}.bytes ledger.stale{}.corrected "
    "ledger.probes{} ledger.ports{}.number ledger.ports{}.began[0] ledger.ports{}.began[1] ledger.ports{}.carried "
    "ledger.ports{}.dropped tenant asked_with.ports[][0] asked_with.ports[][1]",
    "evacuations": "id parallel attempts asked_with.parallel asked_with.attempts history[].state history[].why "
    "request_id requested_by why",
    "evacuees": "attempts why",
    "sought": "place.port",
    "numbers": "row",
    "slots": "row",
    "frozen": "moves",
    "names": "tenant",
}

#: Tables of what somebody has said, which may name whatever there was then: nobody looks it up.
SAID = ("wishes",)

#: Timers of rows, by table: their kinds. What they are of is the row's key, or that in one text.
_TIMERS = {
    "nves": ("resync", "hops", "retry"),
    "left": ("left",),
    "sought": ("sought",),
    "holders": ("holder", "doubt"),
    "frozen": ("freeze",),
    "silenced": ("silence",),
    "muted": ("mute",),
}


# --- reading ----------------------------------------------------------------------------------------------------------
def names(path: str, key: Any, row: Any) -> Iterator[Any]:
    """What a row names by a path; None is nothing."""
    steps = _steps(path)
    found: list[Any] = [key if steps[0] == "key" else row]
    for step in steps[1:] if steps[0] == "key" else steps:
        found = [value for each in found if each is not None for value in _step(step, each)]
    return (value for value in found if value is not None)


def _look(path: str) -> Callable[[Any, Any], Iterable[Any]]:
    """:func:`names` for a path, quicker where it is a plain one: a store may have 100,000 rows."""
    match _steps(path):
        case ("key",):
            return lambda key, row: (key,)
        case (one,) if one[0].isalpha():
            return lambda key, row: (getattr(row, one),)
        case (one, "[]") if one[0].isalpha():
            return lambda key, row: getattr(row, one)
        case (one, two) if one != "key" and one[0].isalpha() and two[0].isalpha():
            return lambda key, row: () if (value := getattr(row, one)) is None else (getattr(value, two),)
    return lambda key, row: names(path, key, row)


@functools.cache
def _steps(path: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[\d*\]|\{\}|/|[a-z0-9_]+", path))


def _step(step: str, value: Any) -> Iterable[Any]:
    if step == "[]":
        return tuple(value)
    if step == "{}":
        return tuple(value)
    if step == "/":
        return (value.partition("/")[0],)
    if step[0] == "[":
        return (value[int(step[1:-1])],)
    return (getattr(value, step),)


def holders(state: State, to: str, key: Any, *fates: Fate) -> Iterator[tuple[Reference, Any, Any]]:
    """The rows that name something, with what becomes of them: (reference, row's key, row)."""
    for reference in REFERENCES:
        if reference.to != to or reference.fate not in fates:
            continue
        table: dict[Any, Any] = getattr(state, reference.table)
        for at in list(table) if reference.rows is None else reference.rows(state, key):
            row = table.get(at)
            if row is not None and reference.fate_of(row) in fates and key in names(reference.path, at, row):
                yield reference, at, row


# --- withdrawing ------------------------------------------------------------------------------------------------------
def clear(work: Work, to: str, key: Any) -> None:
    """Something is about to go: what may not outlive it goes first, and lists lose its name."""
    for reference, at, _ in list(holders(work.state, to, key, Fate.REMOVED, Fate.CUT)):
        row = getattr(work.state, reference.table).get(at)
        if row is not None:
            _act(work, reference, reference.fate, at, row, key)
    for kind in _TIMERS.get(to, ()):
        work.state.put("clock", (kind, key), None)


def _act(work: Work, reference: Reference, fate: Fate, at: Any, row: Any, named: Any) -> None:
    state = work.state
    if fate is Fate.CUT:
        state.put(reference.table, at, _without(reference, at, row, named))
        return
    state.put(reference.table, at, None)
    for kind in _TIMERS.get(reference.table, ()):
        state.put("clock", (kind, at), None)
        if isinstance(at, tuple):
            state.put("clock", (kind, "/".join(at)), None)
    if reference.table == "holders":
        state.put("doubted", at, None)


def _without(reference: Reference, at: Any, row: Any, named: Any) -> Any:
    """A row without what names something; None: nothing is left of it."""
    path = reference.path
    if path.startswith("[]"):
        return tuple(each for each in row if named not in names(path, at, (each,))) or None
    field = re.split(r"[.\[{]", path)[0]
    if "[]" not in path:
        return replace(row, **{field: None})
    kept = tuple(each for each in getattr(row, field) if named not in names("key" + path[len(field) + 2 :], each, None))
    return replace(row, **{field: kept})


# --- taking in a store ------------------------------------------------------------------------------------------------
def mend(work: Work) -> int:
    """Mend what a store holds that names what is not there, and report it; says how many rows.

    Versions before this list let such things be.
    """
    mended = 0
    while found := list(dangling(work.state)):
        for reference, at, named in found:
            row = getattr(work.state, reference.table).get(at)
            if row is not None:
                _mend(work, reference, at, row, named)
                mended += 1
    return mended


def dangling(state: State) -> Iterator[tuple[Reference, Any, Any]]:
    """What names something that is not there, though it may not: (reference, row's key, name)."""
    for reference in REFERENCES:
        if (reference.mended or reference.fate) in (Fate.KEPT, Fate.SLEEPS):
            continue
        table, there = getattr(state, reference.table), getattr(state, reference.to)
        look = _look(reference.path)
        for at, row in list(table.items()):
            for named in look(at, row):
                if named not in there and named is not None and reference.fate_of(row) is not Fate.KEPT:
                    yield reference, at, named


def _mend(work: Work, reference: Reference, at: Any, row: Any, named: Any) -> None:
    state = work.state
    if isinstance(row, Move) and reference.path != "unconfirmed[]":
        error = f"{reference.to} has no {named} any more"
        history = (*row.history, Step(MoveState.FAILED.value, work.now, error))
        ledger = replace(row.ledger, closed=True)
        state.put("moves", at, replace(row, state=MoveState.FAILED, error=error, history=history, ledger=ledger))
    else:
        fate = reference.mended or {Fate.TOLD: Fate.CUT, Fate.REFUSED: Fate.REMOVED}.get(reference.fate, reference.fate)
        _act(work, reference, fate, at, row, named)
        after = state.vms.get(at) if reference.table == "vms" else None
        if after is not None and not after.interfaces:
            state.put("vms", at, None)
    work.report("reference.mended", what=reference.table, key=str(at), field=reference.path, named=str(named))
