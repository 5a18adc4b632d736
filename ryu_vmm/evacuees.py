"""The tables of evacuations and their indexes: a part of State (state.py)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from .journal import Journal
from .model import Evacuation, EvacuationState, Evacuee, EvacueeState

__all__ = ["EvacuationTables"]


class EvacuationTables(Journal):
    """Evacuations, the VMs in them, and which VMs each NVE has.

    Tables: ``evacuations`` by id, ``evacuees`` by "<evacuation>/<VM>".

    Attributes:
        evacuating: NVE -> the evacuation of it that is running: it takes no further VMs.
        unfinished: NVE -> the evacuation of it that has not ended.
        by_evacuation_request: request id -> evacuation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.evacuations: dict[int, Evacuation] = {}
        self.evacuees: dict[str, Evacuee] = {}
        self.evacuating: dict[str, int] = {}
        self.unfinished: dict[str, int] = {}
        self.by_evacuation_request: dict[str, int] = {}
        self._evacuees_in: dict[tuple[int, EvacueeState], dict[str, None]] = defaultdict(dict)
        self._guests: dict[str, Counter[str]] = defaultdict(Counter)

    # --- reading ------------------------------------------------------------------------------------------------------
    def guests(self, nve: str) -> Iterable[str]:
        """Names of the VMs with an interface located on an NVE."""
        return self._guests[nve].keys() if nve in self._guests else ()

    def is_guest(self, vm: str, nve: str) -> bool:
        """Whether a VM has an interface located on an NVE."""
        return nve in self._guests and vm in self._guests[nve]

    def guest_count(self, nve: str) -> int:
        """How many VMs have an interface located on an NVE."""
        return len(self._guests[nve]) if nve in self._guests else 0

    def evacuee(self, evacuation: int, vm: str) -> Evacuee | None:
        """A VM's row in an evacuation."""
        return self.evacuees.get(f"{evacuation}/{vm}")

    def evacuees_in(self, evacuation: int, *states: EvacueeState) -> list[Evacuee]:
        """The rows of an evacuation in these states (none named: in any), by VM."""
        keys = (key for state in states or EvacueeState for key in self._evacuees_in.get((evacuation, state), ()))
        return [self.evacuees[key] for key in sorted(keys)]

    def evacuee_counts(self, evacuation: int) -> dict[EvacueeState, int]:
        """How many rows of an evacuation are in which state."""
        return {state: len(self._evacuees_in.get((evacuation, state), ())) for state in EvacueeState}

    # --- indexes ------------------------------------------------------------------------------------------------------
    def _index_evacuations(self, key: int, old: Evacuation | None, new: Evacuation | None) -> None:
        if old is not None:
            for index in (self.evacuating, self.unfinished):
                if index.get(old.nve) == key:
                    del index[old.nve]
            if old.request_id is not None:
                self.by_evacuation_request.pop(old.request_id, None)
        if new is not None:
            if new.state.open:
                self.unfinished[new.nve] = key
            if new.state is EvacuationState.RUNNING:
                self.evacuating[new.nve] = key
            if new.request_id is not None:
                self.by_evacuation_request[new.request_id] = key

    def _index_evacuees(self, key: str, old: Evacuee | None, new: Evacuee | None) -> None:
        if old is not None:
            rows = self._evacuees_in[old.evacuation, old.state]
            del rows[key]
            if not rows:
                del self._evacuees_in[old.evacuation, old.state]
        if new is not None:
            self._evacuees_in[new.evacuation, new.state][key] = None

    def _guest(self, vm: str, nve: str, by: int) -> None:
        """Count an interface of a VM that is located on an NVE, or no longer is."""
        interfaces = self._guests[nve]
        interfaces[vm] += by
        if not interfaces[vm]:
            del interfaces[vm]
            if not interfaces:
                del self._guests[nve]
