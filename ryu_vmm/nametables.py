"""The tables of names in the domain name system and their index: a part of State (state.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from .journal import Journal
from .model import Interface, Published, Unpublished

__all__ = ["NameTables"]


class NameTables(Journal):
    """Names that stand for addresses of interfaces.

    Tables: ``names`` by name, those that are to be removed included until they are; ``unpublished`` by name: why its
    addresses could not be published, until they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, Published] = {}
        self.unpublished: dict[str, Unpublished] = {}
        self._named: dict[str, dict[str, None]] = defaultdict(dict)
        self._unconfirmed: dict[str, None] = {}

    def named(self, name: str) -> Iterable[str]:
        """The ids of the interfaces whose addresses a name stands for."""
        return self._named.get(name, ())

    def unconfirmed(self) -> Iterable[str]:
        """The names that name servers may still give out other addresses for than they should."""
        return self._unconfirmed.keys()

    def still_given_out(self, but: str | None) -> set[bytes]:
        """Addresses that name servers give out, as far as is known, for names that they are no longer of.

        Args:
            but: a name that is left aside.
        """
        rows = (self.names[name] for name in self._unconfirmed if name != but)
        return {address for row in rows for address in row.told or () if address not in row.wanted}

    def _index_names(self, key: str, old: Published | None, new: Published | None) -> None:
        if new is not None and new.told != new.wanted:
            self._unconfirmed[key] = None
        else:
            self._unconfirmed.pop(key, None)

    def _index_dns(self, key: str, old: Interface | None, new: Interface | None) -> None:
        before = None if old is None else old.dns
        after = None if new is None else new.dns
        if before == after:
            return
        if before is not None:
            self._named[before].pop(key, None)
            if not self._named[before]:
                del self._named[before]
        if after is not None:
            self._named[after][key] = None
