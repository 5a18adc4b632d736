"""Flow changes that a switch has been sent and has not acknowledged yet. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from ..flows import FlowChange, Meter


class Batches:
    """Which change a transaction id stands for, from when it is sent until its program's barrier has been answered."""

    def __init__(self) -> None:
        self._under_way: dict[int, tuple[int, Sequence[FlowChange]]] = {}

    def add(self, xid: int, generation: int, changes: Sequence[FlowChange]) -> None:
        """Note a program: ``xid`` is that of all its meters, and those after it are its changes', one by one."""
        self._under_way[xid] = (generation, changes)

    def end(self, xid: int) -> None:
        """Forget the program whose first transaction id this is: it has been acknowledged."""
        self._under_way.pop(xid, None)

    def find(self, xid: int) -> tuple[int | None, FlowChange | None]:
        """The generation that a transaction id is of, and the change; None, None: of no program under way."""
        for first, (generation, changes) in self._under_way.items():
            if first <= xid <= first + len(changes):
                return generation, None if xid == first else changes[xid - first - 1]
        return None, None

    def users(self, xid: int, meter: int) -> list[FlowChange]:
        """The flows of a program, by its first transaction id, that need a meter."""
        _, changes = self._under_way.get(xid, (0, ()))
        return [c for c in changes if c.op == "add" and c.flow.actions[:1] == (Meter(meter),)]
