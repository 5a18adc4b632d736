"""What becomes of flows that a switch refuses: it goes without the unit that they are of, and with all others.

A unit is the smallest thing that makes sense alone: a port, the way to an interface, a network's broadcasts. Without
one of its flows it could let through what it is to keep out, so the NVE has all of a unit's flows or none: it fails
closed. What it had of it before is removed, since it may be of a guest that is no longer there.

Which unit it was follows from the flow that the switch has refused. One that does not say which is read back, and
what is lacking is sent once more unit by unit: then the generation says it.

A unit is tried again when its flows change, when its NVE connects, and from time to time, after ever longer pauses. It
is in force once a barrier behind it has been answered. A move fails, or is not begun, that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping

from .events import FlowRefused
from .flows import Flow, FlowKey
from .hindered import concerns, needs
from .mobility import MoveEvent
from .model import Fault, Refusal
from .moves import Moves
from .ovstext import describe
from .pipeline import units_of, wanted
from .state import Unit
from .whose import error, unit_of, words
from .work import Work

__all__ = ["Quarantine"]

#: Seconds for which a unit that is refused again and again is left alone at the most.
PAUSE_MAX = 60.0
#: Units that are tried again in one step, each by a program of its own; and those of which something is lacking.
TRIED_AT_ONCE, SUSPECTS = 64, 4096
#: What no NVE can be without: it is out of sync as long as that is refused.
_BASE: Unit = ("base",)


class Quarantine:
    """Withholds units from NVEs that refuse them, and tries them again."""

    def __init__(self, work: Work, moves: Moves) -> None:
        self._work = work
        self._moves = moves

    # --- refused ------------------------------------------------------------------------------------------------------
    def refused(self, nve: str, event: FlowRefused) -> bool:
        """Take in an error; False if it is not known which flow of which unit it is about."""
        units = self._units(nve, event)
        if units is None:
            return False
        for unit in units:
            self._withhold(nve, unit, event)
        if not units:
            self._look_again(nve, self._work.now + self._work.settings.resync_pause)
        return True

    def _units(self, nve: str, event: FlowRefused) -> tuple[Unit, ...] | None:
        """The units that an error is about; none if nobody wants that flow any more; None: it does not say."""
        state, change = self._work.state, event.change
        if change is not None and change.op == "add" and nve in state.sessions:
            unit = unit_of(state, nve, change.flow)
            return () if unit is None else None if unit == _BASE else (unit,)
        if change is not None:
            return None
        rows = {unit: state.refusals[nve, unit] for unit in state.refused_by(nve)}
        return tuple(u for u, row in rows.items() if event.generation in (row.trial, row.generation)) or None

    def _withhold(self, nve: str, unit: Unit, event: FlowRefused) -> None:
        state, now = self._work.state, self._work.now
        old = state.refusals.get((nve, unit))
        if old is not None and (old.withheld or event.generation < old.trial):
            return
        times = 1 if old is None else old.times + 1
        flow = "" if event.change is None else describe(event.change.flow)
        row = Refusal(
            words(state, nve, unit),
            flow or (old.flow if old else ""),
            event.type,
            event.code,
            old.since if old else now,
            now,
            now + min(PAUSE_MAX, self._work.settings.resync_pause * 2 ** min(16, times - 1)),
            times,
            event.generation,
        )
        state.put("refusals", (nve, unit), row)
        before = state.faults.get(nve)
        blind = before is not None and before.blind
        most = times if before is None else max(times, before.times)
        state.put("faults", nve, Fault(event.type, event.code, now, most, blind))
        state.put("certain", nve, state.generation + 1)  # that of what removes the unit's flows
        self._look_again(nve, row.due)
        if old is None:
            self._work.report(
                "nve.without", nve=nve, what=row.what, flow=row.flow, error=error(row.type, row.code), **_about(unit)
            )
        why = f"{nve} refused a flow: OpenFlow error type {row.type} code {row.code}; it goes without {row.what}"
        for move in list(state.open_moves()):
            known = old is not None and old.times > 0 and not needs(state, move, nve, unit)
            if not known and concerns(state, move, nve, unit) and not (move.state.steered and move.error is not None):
                self._moves.fire(move.id, MoveEvent.REFUSED, f"{why} ({error(row.type, row.code)})")
                if move.state.steered:
                    self._moves.doubt(move.id, nve)  # it confirms what it has been told by the barrier after that

    # --- tried again --------------------------------------------------------------------------------------------------
    def changed(self, mark: int) -> None:
        """Try those again whose flows the step has changed; forget those that have none any more."""
        state = self._work.state
        if not state.refusals:
            return
        concerned: dict[str, list[Unit]] = {}
        for nve, touched in state.touched.items():
            if self._work.session(nve) is None:
                continue
            # Looked up in what is less: a step touches few units, and an NVE may go without thousands.
            every = ("all",) in touched
            found = state.refused_by(nve) if every else [unit for unit in touched if (nve, unit) in state.refusals]
            if found:
                concerned[nve] = list(found)
        if not concerned:
            return
        after = {(nve, unit): wanted(state, nve, (unit,)) for nve, units in concerned.items() for unit in units}
        with state.rewound(mark):
            before = {key: wanted(state, key[0], (key[1],)) for key in after if self._work.session(key[0]) is not None}
        for (nve, unit), flows in after.items():
            if not flows:
                self._forget(nve, unit)
            elif before.get((nve, unit), flows) != flows:
                row = state.refusals[nve, unit]
                state.put("refusals", (nve, unit), row._replace(trial=state.generation + 1))

    def due(self, nve: str) -> None:
        """It is time to try again: what the switch holds is read first, since it may be others who have changed it."""
        if self._work.session(nve) is not None:
            self._work.read_back(nve)

    def connected(self, nve: str) -> None:
        """An NVE is there anew: all that it ought to have is tried."""
        for unit in self._work.state.refused_by(nve):
            self._work.state.put("refusals", (nve, unit), None)
        self._work.state.put("clock", ("retry", nve), None)

    def trials(self, nve: str, installed: Mapping[FlowKey, Flow]) -> list[Unit]:
        """The units that are to be sent to an NVE one by one: those that are due, and, where it is not known what the
        switch has refused, those of which something is lacking."""
        state, now = self._work.state, self._work.now
        for unit in state.refused_by(nve):
            if not wanted(state, nve, (unit,)):
                self._forget(nve, unit)
        rows = ((state.refusals[nve, unit], unit) for unit in state.refused_by(nve))
        found = [unit for row, unit in sorted(rows, key=lambda item: item[0].due) if row.withheld and row.due <= now]
        found = found[:TRIED_AT_ONCE]
        fault = state.faults.get(nve)
        if fault is not None and fault.blind:
            for unit in units_of(state, nve):
                if len(found) >= SUSPECTS:
                    break
                if unit == _BASE or (nve, unit) in state.refusals:
                    continue
                if any(installed.get(key) != flow for key, flow in wanted(state, nve, (unit,)).items()):
                    found.append(unit)
        return found

    def tried(self, nve: str, unit: Unit, generation: int) -> None:
        """A unit has been sent by a program of its own."""
        state = self._work.state
        row, fault = state.refusals.get((nve, unit)), state.faults.get(nve)
        if row is None:
            now = self._work.now
            kind, code = (0, 0) if fault is None else (fault.type, fault.code)
            row = Refusal(words(state, nve, unit), "", kind, code, now, now, now, times=0)
        state.put("refusals", (nve, unit), row._replace(trial=generation))

    def acknowledged(self, nve: str, generation: int) -> None:
        """An NVE has acknowledged a program: what it has not refused by then, it has."""
        state = self._work.state
        for unit in state.on_trial(nve):
            row = state.refusals[nve, unit]
            if row.trial <= generation:
                self._forget(nve, unit)
                if row.times:
                    seconds = round(self._work.now - row.since, 3)
                    self._work.report("nve.with", nve=nve, what=row.what, seconds=seconds, **_about(unit))

    def withdrawn(self, nve: str) -> None:
        """An NVE is no more."""
        self.connected(nve)
        for table in ("faults", "certain"):
            self._work.state.put(table, nve, None)

    def _forget(self, nve: str, unit: Unit) -> None:
        self._work.state.put("refusals", (nve, unit), None)

    def wake(self, nve: str) -> None:
        """An NVE has been read back: note when it is next to be; of more than are tried at once, the others soon."""
        state, soon = self._work.state, self._work.now + self._work.settings.poll_interval
        rows = (state.refusals[nve, unit] for unit in state.refused_by(nve))
        state.put("clock", ("retry", nve), min((max(row.due, soon) for row in rows if row.withheld), default=None))

    def _look_again(self, nve: str, due: float) -> None:
        """Read an NVE's flows back at some time, if that is not to be done sooner anyway."""
        if self._work.state.clock.get(("retry", nve), due) >= due:
            self._work.state.put("clock", ("retry", nve), due)


def _about(unit: Unit) -> dict[str, object]:
    """What a unit is about, so that an entry of the event stream is its tenant's, too."""
    match unit:
        case ("if" | "answer", i):
            return {"interface": i}
        case ("move", number):
            return {"move": number}
    return {}
