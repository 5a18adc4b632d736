"""The table of slots that ports do not have by their numbers, and who has which: a part of State (state.py)."""

from __future__ import annotations

from collections import defaultdict

from .journal import Journal
from .limits import SHARED_SLOT
from .model import Port

__all__ = ["SlotTables", "slot_key"]


def slot_key(nve: str, port: str) -> str:
    """The key of a port's row in the table: no NVE has a slash in its name."""
    return f"{nve}/{port}"


class SlotTables(Journal):
    """Which meters are whose; see slots.py.

    Table: ``slots`` by NVE and port (slot_key), of ports whose slot is not their number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slots: dict[str, int] = {}
        self._slots_of: dict[str, dict[str, int]] = defaultdict(dict)
        # Who has a slot by record, whether it has been shown yet or not, and who as a port that has been shown
        self._slot_recorded: dict[tuple[str, int], str] = {}
        self._slot_shown: dict[tuple[str, int], str] = {}

    def slot_user(self, nve: str, slot: int) -> str | None:
        """The port of an NVE that has a slot."""
        return self._slot_recorded.get((nve, slot)) or self._slot_shown.get((nve, slot))

    def slots_recorded(self, nve: str) -> tuple[str, ...]:
        """The ports of an NVE that have a slot by record."""
        return tuple(self._slots_of.get(nve, ()))

    def _index_slots(self, key: str, old: int | None, new: int | None) -> None:
        nve, _, port = key.partition("/")
        self._slots_of[nve].pop(port, None)
        _keep(self._slot_recorded, nve, port, old, new)
        if new is not None:
            self._slots_of[nve][port] = new
        elif not self._slots_of[nve]:
            del self._slots_of[nve]

    def _index_shown(self, old: Port | None, new: Port | None) -> None:
        port = new or old
        if port is not None:
            slots = (None if row is None else row.slot for row in (old, new))
            _keep(self._slot_shown, port.nve, port.name, *slots)


def _keep(index: dict[tuple[str, int], str], nve: str, port: str, old: int | None, new: int | None) -> None:
    if old is not None and index.get((nve, old)) == port:
        del index[nve, old]
    if new is not None and new != SHARED_SLOT:
        index[nve, new] = port
