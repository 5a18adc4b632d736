"""A VM that moves on and on, with a hypervisor that copes with whatever becomes of its moves."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from typing import Any

from topologies import NVE, VM, frames
from topologies.errors import ApiError

from .ground import Ground

_STEP = 0.03
_KINDS = ("garp-request", "garp-reply", "na", "rarp", "both")
_PATIENCE = 60.0  # for one move, faults and all


class Roamer(threading.Thread):
    """Moves a VM until told to stop, then leaves it running somewhere.

    hands: held while ports are changed, so that no switch is killed under a command to it.

    Attributes:
        gaps: (began, ended), monotonic seconds: times in which losing the VM's packets is nobody's fault (an unplanned
            move, until the NVA has heard of it; a rollback that throws a queue away).
        left: frames that came to a source after the pause of a planned move, whatever was waited for before: lost.
        pauses: (began, ended) of every pause: what the VM had sent by then left it when it was resumed.
        asked: what was done, how often.
    """

    def __init__(self, ground: Ground, vm: VM, seed: int, stop: threading.Event, hands: threading.RLock) -> None:
        super().__init__(name=f"hypervisor of {vm.name}", daemon=True)
        self._ground, self.vm, self._rng = ground, vm, random.Random(seed)
        self._stopping, self._hands = stop, hands
        self.gaps: list[tuple[float, float]] = []
        self.pauses: list[tuple[float, float]] = []
        self.left = 0
        self.asked: Counter[str] = Counter()
        self.moves: list[int] = []
        self._paused = 0.0
        self.error: BaseException | None = None

    def run(self) -> None:
        """One move after the other."""
        try:
            while not self._stopping.is_set():
                to = self._rng.choice([nve for nve in self._ground.net.nves if nve is not self.vm.nve])
                if self._rng.random() < 0.25:
                    self._unasked(to)
                else:
                    self._asked(to)
                self._stopping.wait(self._rng.uniform(0.0, 1.0))
        except BaseException as error:  # told by whoever joins
            self.error = error

    # --- moves that are only announced --------------------------------------------------------------------------------
    def _unasked(self, to: NVE) -> None:
        self.asked["unplanned"] += 1
        began = time.monotonic()
        with self._hands:
            self.vm.attachment.prepare(to)
            self._pause()
            self.vm.attachment.leave()
        self._run_at(to)
        self._heard()
        self.gaps.append((began, time.monotonic()))

    def _pause(self) -> None:
        self._paused = time.monotonic()
        self.vm.attachment.pause()

    def _run_at(self, to: NVE, silent: bool = False) -> None:
        kind = "none" if silent else self._rng.choice(_KINDS)
        self.vm.attachment.resume(to, frames.announcement(kind, self.vm.spec))
        self.pauses.append((self._paused, time.monotonic()))

    def _heard(self) -> None:
        """Wait until the NVA knows where the VM is; it announces itself again once a second, as guests do."""
        deadline = time.monotonic() + _PATIENCE
        again = time.monotonic() + 1.0
        while self._where() != self.vm.nve.name:
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.vm.name} runs at {self.vm.nve.name} and is not heard there")
            if time.monotonic() > again:
                self.vm.announce("both")
                self.asked["announced again"] += 1
                again += 1.0
            time.sleep(_STEP)

    def _where(self) -> str:
        return str(self._ground.insist("GET", f"/vms/{self.vm.name}", seconds=_PATIENCE)["interfaces"][0]["nve"])

    # --- moves that are asked for -------------------------------------------------------------------------------------
    def _asked(self, to: NVE) -> None:
        try:
            body = {"vm": self.vm.name, "to": to.name, "request_id": f"{self.vm.name}-{sum(self.asked.values())}"}
            number = int(self._ground.insist("POST", "/moves", body, seconds=_PATIENCE)["id"])
        except ApiError as error:
            if error.status != 409:
                raise
            self.asked["refused"] += 1  # an NVE is away, or the move before is still being decided
            return
        self.moves.append(number)
        self.asked["planned"] += 1
        self._carry_out(number, to, abort=self._rng.uniform(0.0, 0.6) if self._rng.random() < 0.25 else None)

    def _carry_out(self, number: int, to: NVE, abort: float | None) -> None:
        """Do a hypervisor's part until the VM runs on for good, here or there; draining is the NVA's own business."""
        plugged = paused = False
        began = time.monotonic()
        while True:
            document = self._document(number)
            state = document["state"]
            if time.monotonic() > began + _PATIENCE:
                raise AssertionError(f"move {number} is {state} after {_PATIENCE:g} s")
            if not document["open"]:
                self._roll_back(to, plugged, paused, began)
                return
            if state in ("steering", "draining"):  # heard at the destination, where it cannot be yet
                raise AssertionError(f"move {number} is {state} before {self.vm.name} runs at {to.name}")
            if abort is not None and time.monotonic() > began + abort:
                abort = None
                self._ask(number, "abort")
            elif state == "prepared":
                if not plugged:
                    with self._hands:
                        self.vm.attachment.prepare(to)
                    plugged = True
                self._ask(number, "redirect")
            elif state == "redirecting" and document["redirect_in_force"] and plugged:
                if not paused:
                    self.vm.attachment.await_quiet(0.02, 1.0)
                    self._pause()
                    paused = True
                    continue  # look once more: has it been called off meanwhile?
                with self._hands:
                    self.left += int(self.vm.attachment.leave()["left"])
                self._run_at(to)
                heard = time.monotonic()
                self._heard()
                if self._document(number)["state"] in ("aborted", "failed"):
                    self.gaps.append((heard, time.monotonic()))  # called off in that very moment
                return
            time.sleep(_STEP)

    def _roll_back(self, to: NVE, plugged: bool, paused: bool, began: float) -> None:
        self.asked["rolled back"] += 1
        if paused:
            self._run_at(self.vm.nve, silent=True)
        if plugged:
            with self._hands:
                self.vm.attachment.unprepare(to)
            self.gaps.append((began, time.monotonic()))  # with the port goes what waited in it

    def _document(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self._ground.insist("GET", f"/moves/{number}", seconds=_PATIENCE)
        return found

    def _ask(self, number: int, hook: str) -> None:
        self.asked[hook] += 1
        with contextlib.suppress(ApiError):  # the move has gone on meanwhile: the next look tells
            self._ground.insist("POST", f"/moves/{number}/{hook}", seconds=_PATIENCE)
