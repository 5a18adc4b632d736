"""The tables of what switches have refused, and their indexes: a part of State (state.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from .journal import Journal, Unit
from .model import Fault, Refusal

__all__ = ["RefusalTables"]


class RefusalTables(Journal):
    """What NVEs go without.

    Tables: ``refusals`` by (NVE, unit): units of flows of which the switch has refused one (quarantine.py), ``faults``
    by NVE: the last error that its switch has answered with, until nothing is wrong any more, ``certain`` by NVE: the
    generation from whose acknowledgement on it holds what it should, ``needs`` by move id: the (NVE, generation) pairs
    that it has waited for, ``numbers`` by name: a number that none has reached, over all starts of the NVA.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusals: dict[tuple[str, Unit], Refusal] = {}
        self.faults: dict[str, Fault] = {}
        self.certain: dict[str, int] = {}
        self.needs: dict[int, frozenset[tuple[str, int]]] = {}
        self.numbers: dict[str, int] = {}
        #: NVE -> units of which it has no flows.
        self.withheld: dict[str, set[Unit]] = {}
        self._refused_by: dict[str, dict[Unit, None]] = defaultdict(dict)
        self._on_trial: dict[str, dict[Unit, None]] = defaultdict(dict)

    def refused_by(self, nve: str) -> Iterable[Unit]:
        """The units of an NVE of which its switch has refused a flow, those that are tried again among them."""
        return tuple(self._refused_by.get(nve, ()))

    def on_trial(self, nve: str) -> Iterable[Unit]:
        """Those of them that are tried again, and not acknowledged yet: few, however many are refused."""
        return tuple(self._on_trial.get(nve, ()))

    def _index_refusals(self, key: tuple[str, Unit], old: Refusal | None, new: Refusal | None) -> None:
        nve, unit = key
        if new is None:
            self._refused_by[nve].pop(unit, None)
            if not self._refused_by[nve]:
                del self._refused_by[nve]
        else:
            self._refused_by[nve][unit] = None
        if new is not None and new.trial:
            self._on_trial[nve][unit] = None
        elif old is not None and old.trial:
            self._on_trial[nve].pop(unit, None)
            if not self._on_trial[nve]:
                del self._on_trial[nve]
        before, after = (row is not None and row.withheld for row in (old, new))
        if before == after:
            return
        if after:
            self.withheld.setdefault(nve, set()).add(unit)
        else:
            self.withheld[nve].discard(unit)
            if not self.withheld[nve]:
                del self.withheld[nve]
