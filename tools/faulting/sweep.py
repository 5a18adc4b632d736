"""The NVA killed at moments spread over one move after the other, from the request to the end: no moment is special."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.report import Part, number

from topologies.errors import ApiError
from topologies.rundir import wait_until

from .cells import Cell, aftermath
from .ground import MOVER, Ground
from .losses import account
from .staged import Staged

#: Seconds from the request within which a move is decided, and until it has ended, NVA alive.
DECIDED, ENDED = 0.25, 2.8
_BEFORE, _AFTER = 0.2, 0.4
_PATIENCE = 60.0


def moments(count: int) -> list[float]:
    """So many seconds after the request: four fifths while it is decided where the VM runs, the rest until the end."""
    late = max(1, count // 5)
    early = count - late
    return [DECIDED * n / max(1, early) for n in range(early)] + [
        DECIDED + (ENDED - DECIDED) * n / late for n in range(late)
    ]


def _kill(ground: Ground, after: float) -> None:
    time.sleep(after)  # the moment that is wanted
    ground.nva.kill()
    ground.nva.start()


def _ask(ground: Ground, body: dict[str, Any]) -> int:
    """Ask for a move until it is taken; an NVA that has just started refuses while its NVEs are not back."""
    number: list[int] = []

    def taken() -> bool:
        try:
            number.append(int(ground.insist("POST", "/moves", body)["id"]))
        except ApiError as error:
            if error.status != 409 or "in sync" not in str(error):
                raise
        return bool(number)

    wait_until(taken, _PATIENCE, "a move to be taken", 0.05)
    return number[0]


def run(ground: Ground, after: float) -> Cell:
    """Kill the NVA so many seconds after a move was asked for. Raises TopologyError, AssertionError."""
    staged = Staged(ground, ground.vm(MOVER))
    with ground.session(ground.traffic(staged)) as session:
        time.sleep(_BEFORE)  # the load itself is what is waited for
        killed = ground.hand.submit(_kill, ground, after)
        asked = time.time()
        body = {"vm": MOVER, "to": staged.destination.name, "request_id": f"{asked:.6f}"}
        staged.number = _ask(ground, body)
        document = staged.finish(_PATIENCE)
        killed.result(_PATIENCE)
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
