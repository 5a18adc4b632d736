"""The NVA killed at moments spread over one move after the other, from the request to the end: no moment is special."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.report import Part, number

from .cells import Cell, aftermath
from .ground import MOVER, Ground
from .losses import account
from .staged import Staged

#: Seconds from the request within which a move is decided, and until it has ended, NVA alive.
DECIDED, ENDED = 0.4, 2.8
_BEFORE, _AFTER = 0.2, 0.4
_PATIENCE = 60.0


def moments(count: int) -> list[float]:
    """So many seconds after the request: four fifths while it is decided where the VM runs, the rest until the end."""
    late = max(1, count // 5)
    early = count - late
    return [DECIDED * n / max(1, early) for n in range(early)] + [
        DECIDED + (ENDED - DECIDED) * n / late for n in range(late)
    ]


class _Killer(threading.Thread):
    """Kills the NVA at its moment, notes what the move was then, and starts the NVA again."""

    def __init__(self, ground: Ground, staged: Staged, after: float) -> None:
        super().__init__(daemon=True)
        self._ground, self._staged, self._after = ground, staged, after
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            time.sleep(self._after)  # the moment that is wanted
            self._ground.nva.kill()
            self._ground.nva.start()
        except BaseException as error:  # told by whoever joins
            self.error = error


def run(ground: Ground, after: float) -> Cell:
    """Kill the NVA so many seconds after a move was asked for. Raises TopologyError, AssertionError."""
    staged = Staged(ground, ground.vm(MOVER))
    with ground.session(ground.traffic(staged)) as session:
        time.sleep(_BEFORE)  # the load itself is what is waited for
        killer = _Killer(ground, staged, after)
        killer.start()
        asked = time.time()
        body = {"vm": MOVER, "to": staged.destination.name, "request_id": f"{asked:.6f}"}
        staged.number = int(ground.insist("POST", "/moves", body)["id"])
        document = staged.finish(_PATIENCE)
        killer.join(_PATIENCE)
        if killer.error is not None:
            raise AssertionError(f"the NVA did not start again: {killer.error}") from killer.error
        ground.await_all_synced()
        left = [move["id"] for move in ground.await_ended()]
        time.sleep(_AFTER)
        outcome = session.stop()
    others = aftermath(ground, outcome, [MOVER])
    if document["state"] != "settled":
        others.append(f"the move is {document['state']}: {document['error']}")
    losses = account(outcome, [], staged.thrown, MOVER)
    entered = [step["state"] for step in document["history"] if step["at"] <= asked + after]
    state = entered[-1] if entered else "not yet there"
    return Cell(f"NVA killed after {after * 1e3:.0f} ms", state, document["state"], losses, outcome.sent,
                outcome.duplicated, [], left, ground.verify(), others, document)


def part(found: Sequence[Cell]) -> Part:
    """As a table: one row for each state in which the kill met the move."""
    states = Counter(cell.state for cell in found)
    groups = {state: [cell for cell in found if cell.state == state] for state in states}
    rows = [[state, *_row(cells)] for state, cells in groups.items()] + [["all", *_row(found)]]
    columns = ["the move was", "kills", "datagrams sent", "lost", "doubled", "open moves left",
               "flow differences left", "moves settled"]
    notes = ["SIGKILL at moments spread over the time from a move's request to its end; the hypervisor asks again "
             "while nobody answers, and goes on by itself where it need not ask."]
    data: dict[str, Any] = {"runs": [
        {"name": cell.name, "state": cell.state, "losses": vars(cell.losses), "problems": cell.problems(),
         "history": [(step["state"], step["at"], step["why"]) for step in cell.document["history"]]}
        for cell in found
    ]}
    return Part("sweep", "The NVA killed at any moment of a move", columns, rows, notes, data)


def _row(cells: Sequence[Cell]) -> list[str]:
    return [
        number(len(cells)), number(sum(cell.sent for cell in cells)), number(sum(cell.losses.lost for cell in cells)),
        number(sum(cell.doubled for cell in cells)), number(sum(len(cell.left) for cell in cells)),
        number(sum(len(cell.wrong) for cell in cells)), number(sum(cell.end == "settled" for cell in cells)),
    ]
