"""A journal of changes to tables of immutable values.

It makes three things possible: a step whose record cannot be committed is undone whole; the records of a step are read
off it; and the flows that a switch has *now* need not be remembered, because undoing the step, asking the pipeline, and
redoing it tells what they were.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from .dependencies import READ, changed
from .fates import RECORDED

#: Tables that survive a restart; fates.py says what becomes of all others.
PERSISTENT = RECORDED
_PERSISTENT = frozenset(PERSISTENT)

#: What an answer is made of, and whether it is one's own address that is asked for.
_ANSWERED_FROM = ("nves", "networks", "interfaces", "ports", "holders", "moves", "left")

#: A part of an NVE's flows that is computed as one: ("base",), ("expecting",), ("probes",), ("vn", vni), ("peer", vni,
#: NVE), ("port", name), ("if", id), ("answer", id), ("move", id).
Unit = tuple[Any, ...]


class Journal:
    """Tables, which are attributes of the derived class, and what a step has changed in them and touched.

    Where there is a method ``_index_<table>(key, old, new)``, it is called with every change, undoing and redoing
    included.

    Attributes:
        version: counts changes of what questions about addresses are answered from.
        touched: NVE -> units of its flows that the step may have changed.
        joined: (VNI, NVE) that joined in this step.
    """

    def __init__(self) -> None:
        self.version = 0
        self.touched: dict[str, set[Unit]] = defaultdict(set)
        self.joined: list[tuple[int, str]] = []
        self._journal: list[tuple[str, Any, Any, Any]] = []
        self._quiet = False

    def load(self, table: str, key: Any, value: Any) -> None:
        """Take in what survived a restart: no step of anything, and nothing is touched."""
        self._quiet = True
        self._apply(table, key, None, value)
        self._quiet = False

    def begin(self) -> None:
        """Start a step: forget the previous journal and what it touched."""
        self._journal.clear()
        self.touched.clear()
        self.joined.clear()

    def mark(self) -> int:
        """A position in the journal, for :meth:`rewound`."""
        return len(self._journal)

    def since(self, mark: int) -> list[tuple[str, Any, Any, Any]]:
        """What has changed since :meth:`mark`, in order: (table, key, old, new); None where there was or is nothing."""
        return self._journal[mark:]

    @contextlib.contextmanager
    def rewound(self, mark: int) -> Iterator[None]:
        """The state as it was at ``mark``, to be read only; afterwards it is again as it is."""
        self._rewind(mark)
        try:
            yield
        finally:
            self._quiet = True
            for table, key, old, new in self._journal[mark:]:
                self._apply(table, key, old, new)
            self._quiet = False

    def _rewind(self, mark: int) -> None:
        self._quiet = True
        for table, key, old, new in reversed(self._journal[mark:]):
            self._apply(table, key, new, old)
        self._quiet = False

    def undo_to(self, mark: int) -> None:
        """Undo for good what the step has changed since :meth:`mark`. What that touched stays touched: it is computed
        once more, and nothing differs."""
        self._rewind(mark)
        del self._journal[mark:]

    def undo(self) -> None:
        """Undo the whole step for good."""
        self._rewind(0)
        self.begin()

    def changes(self) -> dict[tuple[str, Any], Any]:
        """The step's net change of persistent tables: (table, key) -> value, None for deleted."""
        return {(table, key): new for table, key, _, new in self._journal if table in _PERSISTENT}

    def put(self, table: str, key: Any, value: Any) -> None:
        """Set ``table[key]`` (None deletes), journal it, keep the indexes, note what it touches: dependencies.py."""
        old = getattr(self, table).get(key)
        if old == value:
            return
        self._journal.append((table, key, old, value))
        if table not in READ:
            self._apply(table, key, old, value)
            return
        fields = changed(old, value)
        if old is not None:
            self.notice(table, key, old, fields)
        self._apply(table, key, old, value)
        if value is not None:
            self.notice(table, key, value, fields)

    def _apply(self, table: str, key: Any, old: Any, new: Any) -> None:
        if table in _ANSWERED_FROM:
            self.version += 1
        hook = getattr(self, "_index_" + table, None)
        content = getattr(self, table)
        if new is None:
            content.pop(key, None)
        else:
            content[key] = new
        if hook is not None:
            hook(key, old, new)

    @abstractmethod
    def notice(self, table: str, key: Any, row: Any, fields: frozenset[str]) -> None:
        """Note that the units may have changed that read a row, or these fields of it (none: all)."""
