"""The readings of one move's counters: what each counter has counted, whatever becomes of counters and of answers.

No answer is a value of its own: a counter that an answer lacks, or a reading that has failed, says nothing, and what
was counted stays counted. A counter that has become smaller is a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

#: (packets, bytes)
Count = tuple[int, int]
#: Who sent what is counted, and by which counter: a meter's number, a flow's key.
Counter = tuple[str, object]
NONE: Count = (0, 0)


class Counted(NamedTuple):
    """What a counter said. ``age``: seconds that it has been there, None: it does not say."""

    value: Count
    age: float | None = None


def added(a: Count, b: Count) -> Count:
    return a[0] + b[0], a[1] + b[1]


@dataclass(slots=True)
class Account:
    """Readings of one move, each by its name: "<kind>@<where>".

    Attributes:
        changed: when anything was last seen to have counted.
        confirmed: redirected packets when all correspondents had confirmed.
        blurred: a counter had to do that is not exact, or nobody knows whether one is the same as before.
        asked_at: of readings under way, the oldest of each name: when it was asked. read_at: of the last answer of each
            name, when it was asked: counters are not known to be newer than that.
        last: readings that were asked for as the move ended, and have not been answered: name -> NVE.
        unknown: NVEs whose last readings nobody will have.
        blind: NVEs that could not be asked when it was tried last.
    """

    changed: float
    total: tuple[Count, ...] = ()
    confirmed: int | None = None
    blurred: bool = False
    asked_at: dict[str, float] = field(default_factory=dict)
    read_at: dict[str, float] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    blind: frozenset[str] = frozenset()
    _values: dict[str, dict[Counter, Count]] = field(default_factory=dict)
    #: What counters that have gone had counted: a later move may take over, and give up, what this one counts by.
    _before: dict[str, dict[Counter, Count]] = field(default_factory=dict)
    #: Counters that the last answers lacked, and since when.
    _missing: dict[str, dict[Counter, float]] = field(default_factory=dict)

    def take(self, name: str, found: dict[Counter, Counted], now: float) -> None:
        """Take in an answer."""
        values = self._values.setdefault(name, {})
        base = self._before.setdefault(name, {})
        missing = self._missing.setdefault(name, {})
        for counter, (count, age) in found.items():
            known, since = values.get(counter, NONE), missing.pop(counter, None)
            anew = count[0] < known[0]
            if since is not None and known[0] and not anew:
                anew = age is not None and age < now - since
                self.blurred |= age is None
            if anew:
                base[counter] = added(base.get(counter, NONE), known)
            values[counter] = count
        if found:
            for counter in values.keys() - found.keys():
                missing.setdefault(counter, now)
        self.was_read(name, now)

    def lacks(self, name: str, found: dict[Counter, Counted]) -> bool:
        """Whether an answer lacks a counter that had counted, and was in the one before."""
        values, missing = self._values.get(name, {}), self._missing.get(name, {})
        return any(count[0] and counter not in found and counter not in missing for counter, count in values.items())

    def was_read(self, name: str, now: float) -> None:
        """Note how old the last answer of a name is: as old as its question, for it may have waited to be heard."""
        asked = self.asked_at.pop(name, None)
        if asked is not None or name not in self.read_at:
            self.read_at[name] = now if asked is None else asked

    def lose(self, nve: str, names: set[str]) -> None:
        """An NVE's connection has ended: whatever it was asked it will not answer any more."""
        for name in names:
            self.asked_at.pop(name, None)
        for name in [name for name, where in self.last.items() if where == nve]:
            del self.last[name]
            self.unknown.add(nve)

    def give_up(self) -> None:
        """Nobody waits for answers any longer."""
        self.unknown.update(self.last.values())
        self.last.clear()

    def counts(self) -> Iterator[tuple[str, str, Count]]:
        """(kind, sender, count) of every counter there is or was that has counted anything."""
        for name, values in self._values.items():
            kind, base = name.partition("@")[0], self._before.get(name, {})
            for counter, count in values.items():
                if counter in base:
                    yield kind, counter[0], added(base[counter], count)
                elif count != NONE:
                    yield kind, counter[0], count
