"""What units of the pipeline really read, recorded, against what dependencies.py says that they do.

A unit is computed from a state that notes every cell that is looked at: (table, key, field), or a place in an index.
Of each cell the declared dependencies are asked whether a change of it (another value, a new row, one that goes)
touches that unit. So a dependency that was forgotten is found by its being read, whether or not a history changes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ryu_vmm import admission, answertables, routing
from ryu_vmm.dependencies import readers
from ryu_vmm.domains import Hop, Offer
from ryu_vmm.model import (
    Answer,
    Holder,
    Interface,
    Kind,
    Left,
    Leg,
    Move,
    MoveState,
    Network,
    Place,
    Session,
    Sought,
    answer_key,
)
from ryu_vmm.pipeline import flows_of, units_of
from ryu_vmm.state import State, Unit

#: Table or index, key, field ("": the whole row).
Cell = tuple[str, Any, str]
#: What units of NVEs read.
Noted = dict[tuple[str, Unit], set[Cell]]
#: Stands for any NVE: who iterates over a set reads whether anybody is in it.
ANYBODY = "anybody"
#: What never changes in a row: it is named by that.
NAMES = {"id", "vm", "name"}
TABLES = (
    "nves", "networks", "interfaces", "moves", "ports", "sessions", "pulled", "gone", "sought", "silenced", "muted",
    "frozen", "offers", "hops", "left", "holders", "returning", "refusals",
)  # fmt: skip
INDEXES = (
    "by_place", "by_mac", "by_ip", "attached", "sought_at", "_located", "_moves_at", "_moves_to", "_moves_of",
    "_proving", "_routers", "_left_by", "_held_by",
)  # fmt: skip


# --- recording --------------------------------------------------------------------------------------------------------
class Recording:
    """A row that notes which of its fields are read."""


def _kind(kind: type) -> type:
    if kind not in _KINDS:
        names = {field.name for field in dataclasses.fields(kind)}

        def read(self: Any, name: str) -> Any:
            value = object.__getattribute__(self, name)
            if name not in names or name in object.__getattribute__(self, "_own"):
                return value
            note = object.__getattribute__(self, "_note")
            if name == "policy":
                return recording(value, lambda field: note(f"policy.{field}"))
            note(name)
            return value

        _KINDS[kind] = type(kind.__name__, (kind, Recording), {"__getattribute__": read, "__hash__": None})
    return _KINDS[kind]


_KINDS: dict[type, type] = {}


def recording(row: Any, note: Callable[[str], None], own: Iterable[str] = ()) -> Any:
    """A row whose fields are noted as they are read, but for its ``own``."""
    new = object.__new__(_kind(type(row)))
    for field in dataclasses.fields(row):
        object.__setattr__(new, field.name, getattr(row, field.name))
    object.__setattr__(new, "_note", note)
    object.__setattr__(new, "_own", frozenset(own))
    return new


def _replace(row: Any, **changes: Any) -> Any:
    """What dataclasses.replace does, without reading what is only copied."""
    if not isinstance(row, Recording):
        return dataclasses.replace(row, **changes)
    inside = object.__getattribute__
    kind = next(base for base in type(row).__mro__[1:] if dataclasses.is_dataclass(base))
    plain = kind(**{**{field.name: inside(row, field.name) for field in dataclasses.fields(kind)}, **changes})
    return recording(plain, inside(row, "_note"), {*inside(row, "_own"), *changes})


class Table(dict[Any, Any]):
    """A table, or an index, that notes what is looked up in it."""

    def __init__(self, name: str, content: dict[Any, Any], seen: set[Cell]) -> None:
        super().__init__(content)
        self._name, self._seen = name, seen

    def _row(self, key: Any) -> Any:
        row = super().get(key)
        if self._name in TABLES and dataclasses.is_dataclass(row):
            return recording(row, lambda field: self._seen.add((self._name, key, field)))
        self._seen.add((self._name, key, ""))
        return row

    def get(self, key: Any, default: Any = None) -> Any:
        if not super().__contains__(key):
            self._seen.add((self._name, key, ""))
            return default
        return self._row(key)

    def __getitem__(self, key: Any) -> Any:
        if not super().__contains__(key):
            raise KeyError(key)
        return self._row(key)

    def __contains__(self, key: object) -> bool:
        self._seen.add((self._name, key, ""))
        return super().__contains__(key)

    def keys(self) -> Any:
        self._seen.add((self._name, None, ""))
        return super().keys()

    def _whole(self, *_: Any) -> Any:
        raise AssertionError(f"a unit reads all of {self._name}")

    __iter__ = items = values = _whole


class Crowd:
    """NVEs, of which it is noted who is looked for."""

    def __init__(self, name: str, vni: int, nves: Iterable[str], seen: set[Cell]) -> None:
        self._name, self._vni, self._nves, self._seen = name, vni, list(nves), seen

    def __contains__(self, nve: object) -> bool:
        self._seen.add((self._name, (self._vni, nve), ""))
        return nve in self._nves

    def __iter__(self) -> Iterator[str]:
        self._seen.add((self._name, (self._vni, ANYBODY), ""))
        return iter(self._nves)


class Withheld:
    """What an NVE goes without: an index of table refusals."""

    def __init__(self, state: State, seen: set[Cell], nve: str = "") -> None:
        self._state, self._seen, self._nve = state, seen, nve

    def get(self, nve: str) -> Withheld:
        return Withheld(self._state, self._seen, nve)

    def __contains__(self, unit: Unit) -> bool:
        self._seen.add(("refusals", (self._nve, unit), ""))
        return unit in self._state.withheld.get(self._nve, ())


class Unknown:
    """What no unit is known to read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _read(self, *_: object) -> Any:
        raise AssertionError(f"a unit reads {self._name}: nothing here says what changes that")

    __contains__ = __getitem__ = __iter__ = __len__ = __bool__ = __getattr__ = _read


class Seen(State):
    """A state that notes what is read of it."""

    def __init__(self, state: State) -> None:
        self.seen: set[Cell] = set()
        self.real = state
        for name, value in vars(state).items():
            noted = Table(name, value, self.seen) if name in TABLES + INDEXES else Unknown(name)
            setattr(self, name, noted)
        self.limits = state.limits  # never changes
        self.withheld = Withheld(state, self.seen)
        self.floods = {}  # what is kept there is computed again, and so noted

    def members(self, vni: int) -> Any:
        return Crowd("members", vni, self.real.members(vni), self.seen)

    def hosts(self, vni: int) -> Any:
        return Crowd("hosts", vni, self.real.hosts(vni), self.seen)

    def is_tunnel(self, place: Place) -> bool:
        self.seen.add(("is_tunnel", place, ""))
        return self.real.is_tunnel(place)

    def expecting(self, nve: str) -> bool:
        self.seen |= {("expecting", nve, ""), ("trusting", None, "")}
        return self.real.expecting(nve)

    @property
    def trusting(self) -> bool:
        self.seen.add(("trusting", None, ""))
        return self.real.trusting

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a unit reads {name}")


@contextlib.contextmanager
def _copies_unread() -> Iterator[None]:
    modules: tuple[Any, ...] = (admission, answertables, routing)
    for module in modules:
        module.replace = _replace
    try:
        yield
    finally:
        for module in modules:
            module.replace = dataclasses.replace


def cells(state: State, nve: str, unit: Unit) -> set[Cell]:
    """What a unit of a connected NVE reads."""
    noted = Seen(state)
    with _copies_unread():
        found = flows_of(noted, nve, [unit])
    assert found == flows_of(state, nve, [unit]), (nve, unit)  # what is kept for flooding is right as well
    return {cell for cell in noted.seen if cell[2] not in NAMES}


# --- what would change a cell -----------------------------------------------------------------------------------------
ELSEWHERE = Place("n0", "nowhere")
SOMEBODY = Interface("?/eth0", "?", "eth0", 0, bytes(6), (), (), ELSEWHERE)


def _somebody(**fields: Any) -> tuple[str, Any, Any]:
    return "interfaces", SOMEBODY.id, dataclasses.replace(SOMEBODY, **fields)


def _move(state: State, key: str | None, vni: int, src: Place, dst: Place) -> Iterator[tuple[str, Any, Any]]:
    for i in [key] if key is not None else list(state.in_network(vni))[:1]:
        legs, state_of = (Leg(i, vni, src, dst, 0xFFF800),), MoveState.PREPARING
        yield "moves", 9999, Move(9999, "?", Kind.HOT, src.nve, dst.nve, legs, state_of, "request", 0.0, ())


def appearing(state: State, name: str, key: Any, nve: str) -> Iterator[tuple[str, Any, Any]]:
    """Rows that would put something into a cell where nothing is: (table, key, row)."""
    there = getattr(state, name).get(key) if name in ("by_place", "by_mac", "by_ip") else None
    match name:
        case "by_place" | "by_mac" | "by_ip" if there is not None:  # no two have one in common
            yield "interfaces", there, state.interfaces[there]
        case "by_place":
            yield _somebody(location=key)
        case "attached":
            yield _somebody(attachments=(key,))
        case "by_mac":
            yield _somebody(vni=key[0], mac=key[1])
        case "by_ip":
            kind = "ipv4" if len(key[1]) == 4 else "ipv6"
            yield _somebody(vni=key[0], **{kind: (key[1],)})
        case "_located":
            yield _somebody(vni=key[0], location=Place(key[1], "nowhere"))
        case "sought_at":
            yield "sought", SOMEBODY.id, Sought(SOMEBODY.id, 0, key, 1, 0.0)
        case "_moves_at":
            for vni in state.networks:
                yield from _move(state, None, vni, key, ELSEWHERE)
                yield from _move(state, None, vni, ELSEWHERE, key)
        case "_moves_to":
            yield from _move(state, None, key[0], ELSEWHERE, Place(key[1], "nowhere"))
        case "_moves_of":
            found = state.interfaces.get(key)
            if found is not None:
                yield from _move(state, key, found.vni, found.location, ELSEWHERE)
        case "_proving":
            for vni in state.networks:
                yield from _move(state, None, vni, ELSEWHERE, Place(nve, "nowhere"))
        case "_routers":
            yield "networks", 9999, Network("?", 9999, tenant=key[0], router=key[1])
        case "_left_by":
            vni = state.interfaces[key].vni
            yield "left", "?", Left("n0", vni, bytes(4), key, Answer.FORWARD, 0.0)
        case "_held_by":
            vni = state.interfaces[key].vni
            yield "holders", "?", Holder(vni, bytes(6), key, bytes(6), 0.0)
        case "holders":
            vni, address = int(key.split("/")[0]), bytes.fromhex(key.split("/")[1])
            for i in list(state.in_network(vni))[:1]:
                yield name, answer_key(vni, address), Holder(vni, address, i, bytes(6), 0.0)
        case "hops":
            at, address = key.split("/")
            yield name, key, Hop(at, bytes.fromhex(address), bytes(6))
        case "offers":
            yield name, key, Offer()
        case "is_tunnel":
            port = state.ports.get(key)
            if port is not None:
                yield "sessions", key.nve, Session(key.nve, port.number)
        case "interfaces" | "moves" | "networks" | "nves" | "sessions" | "left" | "sought":
            pass  # who has no such row has no such unit, but for what an index names, and that is noted as well
        case _:
            yield name, key, None


def touched(state: State, cell: Cell, nve: str) -> dict[str, set[Unit]]:
    """What a change of a cell touches, as dependencies.py says."""
    name, key, field = cell
    found: dict[str, set[Unit]] = defaultdict(set)
    row = getattr(state, name).get(key) if name in TABLES else None
    asked = [(name, key, row, frozenset({field} - {""}))]
    if row is None or not field:
        asked = [(*new, frozenset[str]()) for new in appearing(state, name, key, nve)]
        asked += [] if row is None else [(name, key, row, frozenset())]
    for question in asked:
        for nves, units in readers(state, *question):
            for each in nves:
                found[each].update(units)
    return found


def read_all(state: State) -> Noted:
    """What every unit of every NVE that is programmed reads."""
    at = [nve for nve, session in state.sessions.items() if session.synced and nve in state.nves]
    return {(nve, unit): cells(state, nve, unit) for nve in at for unit in set(units_of(state, nve))}


def forgotten(state: State, read: Noted | None = None) -> set[tuple[str, str, Cell]]:
    """(kind of unit, table or index, cell) of what is read, and would touch nothing if it changed."""
    known: dict[tuple[Cell, str], dict[str, set[Unit]]] = {}
    found = set()
    for (nve, unit), noted in (read_all(state) if read is None else read).items():
        for cell in noted:
            about = (cell, nve if cell[0] == "_proving" else "")
            if about not in known:
                known[about] = touched(state, cell, nve)
            units = known[about].get(nve, ())
            if unit not in units and ("all",) not in units and not _nothing(state, cell):
                found.add((unit[0], cell[0], cell))
    return found


def _nothing(state: State, cell: Cell) -> bool:
    """Whether nothing could ever change a cell: no row would."""
    name, key, _ = cell
    row = getattr(state, name).get(key) if name in TABLES else None
    return row is None and not list(appearing(state, name, key, "n0"))
