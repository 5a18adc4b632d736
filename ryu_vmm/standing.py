"""The inventory file as it is read at every start: each entry by itself, so that one that cannot be keeps nobody away.

Entries that say what the file said the last time ask for nothing (wishes.py). What conflicts with what is there by now
is reported and tried again at the next start; all others are taken, in whatever order they can be.
"""

from __future__ import annotations

from collections.abc import Callable

from . import wishes
from .errors import Conflict, VmmError
from .events import InventoryRead, NetworkSubmitted
from .wishes import Submitted
from .work import Work

__all__ = ["Standing"]


class Standing:
    """Takes in a file's entries; ``submit`` handles one of them, and raises VmmError."""

    def __init__(self, work: Work, submit: Callable[[Submitted], object]) -> None:
        self._work = work
        self._submit = submit

    def read(self, event: InventoryRead) -> list[str | VmmError]:
        """What came of each entry: created, updated, unchanged, or why it was refused."""
        state = self._work.state
        wishes.only(state, event.entries)
        found: list[str | VmmError] = ["unchanged"] * len(event.requests)
        waiting = list(range(len(event.requests)))
        vnis = {r.network.name: r.network.vni for r in event.requests if isinstance(r, NetworkSubmitted)}
        while waiting:
            refused = []
            for n in waiting:
                try:
                    self._check_networks(event, n, vnis)
                    found[n] = self._take(event.requests[n])
                except VmmError as error:
                    found[n] = error
                    refused.append(n)
            if len(refused) == len(waiting):
                break  # none makes room for another any more
            waiting = refused
        for n, result in enumerate(found):
            if isinstance(result, VmmError):
                self._work.report("inventory.refused", item=event.items[n], why=result.message)
        for item, why in event.faults:
            self._work.report("inventory.refused", item=item, why=why)
        return found

    def _check_networks(self, event: InventoryRead, n: int, vnis: dict[str, int]) -> None:
        """Conflict: an entry that asks for something names a network of the file that was refused. Its VNI may be that
        of another network, which guests would be taken to."""
        state = self._work.state
        for name in event.networks[n] if event.networks else ():
            there = state.network_named(name)
            if name in vnis and (there is None or there.vni != vnis[name]):
                if wishes.meant(state, event.requests[n]) is None:
                    return
                known = f"there is no network {name}" if there is None else f"network {name} has VNI {there.vni}"
                message = f"{known}: what the file says of it, with VNI {vnis[name]}, was not taken"
                raise Conflict(message, network=name)

    def _take(self, request: Submitted) -> str:
        """Created, updated or unchanged. VmmError: refused, and all is as it was."""
        mark, before = self._work.mark(), self._work.state.mark()
        try:
            reply = self._submit(request)
        except VmmError:
            self._work.undo_to(mark)
            raise
        if isinstance(reply, tuple) and reply[1]:
            return "created"
        changed = any(table != "wishes" for table, *_ in self._work.state.since(before))
        return "updated" if changed else "unchanged"
