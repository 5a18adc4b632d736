"""The tables of what was answered for addresses and who was heard, and their indexes: a part of State (state.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from .journal import Journal
from .model import Changed, Holder, Interface, Vanished, answer_key

__all__ = ["AnswerTables"]


class AnswerTables(Journal):
    """Answers that have changed, and the last ones for addresses that nobody has any more.

    Tables: ``changed`` and ``vanished`` by answers.answer_key, ``telling``: how often guests were told so far, by what
    is told or who is (announcing.py), ``holders`` by answers.answer_key: who holds shared addresses and MACs
    (sharing.py), ``doubted``: those whose holder is being asked for, and how often it was so far, ``heard`` by
    interface id: that it was, since it was registered (hearing.py).
    No flow depends on any but holders.

    Attributes:
        sharing: (VNI, shared address or MAC) -> ids of the interfaces that may hold it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed: dict[str, Changed] = {}
        self.vanished: dict[str, Vanished] = {}
        self.telling: dict[tuple[str, ...], int] = {}
        self.heard: dict[str, bool] = {}
        self.holders: dict[str, Holder] = {}
        self.doubted: dict[str, int] = {}
        self.sharing: dict[tuple[int, bytes], dict[str, None]] = defaultdict(dict)
        self._held_by: dict[str, dict[str, None]] = defaultdict(dict)
        # Keys by VNI, the oldest first
        self._changed_in: dict[int, dict[str, None]] = defaultdict(dict)
        self._vanished_in: dict[int, dict[str, None]] = defaultdict(dict)

    def changed_in(self, vni: int) -> Collection[str]:
        """Keys of a network's changed answers, the oldest first."""
        return self._changed_in.get(vni, ())

    def vanished_in(self, vni: int) -> Collection[str]:
        """Keys of a network's vanished addresses, the oldest first."""
        return self._vanished_in.get(vni, ())

    def holder_of(self, vni: int, address: bytes) -> Holder | None:
        """Who holds a shared address, or a shared MAC, of a network now."""
        return self.holders.get(answer_key(vni, address))

    def held_by(self, interface: str) -> list[Holder]:
        """What an interface holds now."""
        return [self.holders[key] for key in self._held_by.get(interface, ())]

    def macs(self, interface: Interface) -> tuple[bytes, ...]:
        """The MACs at which an interface is reached: its own, and the shared ones that it holds."""
        return (interface.mac, *(row.address for row in self.held_by(interface.id) if len(row.address) == 6))

    def faces(self, interface: Interface) -> Iterator[Interface]:
        """An interface as it is reached at each of its MACs."""
        for mac in self.macs(interface):
            yield interface if mac == interface.mac else replace(interface, mac=mac)

    def mac_owner(self, vni: int, mac: bytes) -> str | None:
        """The id of the interface of a network that is reached at a MAC."""
        found = self.by_mac.get((vni, mac))
        held = self.holder_of(vni, mac) if found is None else None
        return found if held is None else held.interface

    by_mac: dict[tuple[int, bytes], str]

    def _index_sharing(self, key: str, old: Interface | None, new: Interface | None) -> None:
        for question in _shared(old):
            self.sharing[question].pop(key, None)
            if not self.sharing[question]:
                del self.sharing[question]
        for question in _shared(new):
            self.sharing[question][key] = None

    def _keep_holder(self, key: str, old: Holder | None, new: Holder | None) -> None:
        if old is not None:
            self._held_by[old.interface].pop(key, None)
            if not self._held_by[old.interface]:
                del self._held_by[old.interface]
        if new is not None:
            self._held_by[new.interface][key] = None

    def _index_changed(self, key: str, old: Changed | None, new: Changed | None) -> None:
        _keep(self._changed_in, key, old, new)

    def _index_vanished(self, key: str, old: Vanished | None, new: Vanished | None) -> None:
        _keep(self._vanished_in, key, old, new)


def _shared(interface: Interface | None) -> list[tuple[int, bytes]]:
    both = () if interface is None else (*interface.shared, *interface.shared_macs)
    return [] if interface is None else [(interface.vni, address) for address in both]


def _keep(index: dict[int, dict[str, None]], key: str, old: Any, new: Any) -> None:
    vni = (new or old).vni
    if new is None or old is None or old.since != new.since:
        index[vni].pop(key, None)
        if new is not None:
            index[vni][key] = None
        elif not index[vni]:
            del index[vni]
