"""A move that stands still where it is wanted, and then goes on as a hypervisor would carry it on.

Nothing here waits for a while and hopes: a move is held in a state by what that state waits for.

    preparing    an NVE that is neither source nor destination (the holder) drops the probes
    prepared     the hypervisor does not ask for the redirect
    redirecting  the redirect is in force and the VM is paused, its port still at the source; nobody resumes it
    steering     what the NVA tells the holder is held up on its control channel, so it cannot confirm
    draining     a quiet time longer than a fault takes to begin
    settled      the move has ended
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from topologies import NVE, VM, frames
from topologies.errors import ApiError, NotReady
from topologies.rundir import wait_until

from .ground import PATIENCE, Ground

STATES = ("preparing", "prepared", "redirecting", "steering", "draining", "settled")
_PROBES = "table=0,priority=60000,cookie=0xbad,in_port=1,tun_id=0xffefff,actions=drop"
_FOREIGN = "cookie=0xbad/-1"
_QUIET = 0.02  # seconds without a frame to the guest after which its hypervisor pauses it
#: Seconds after the barriers in which Open vSwitch may still forward the old way.
_CACHED = 0.05


class Staged:
    """One move of a VM to the next NVE.

    Attributes:
        source, destination, correspondent, holder: the NVEs by their part in it.
        state: how far `reach` has brought it.
        thrown: frames that waited at the destination when its port was taken away again, after a rollback.
    """

    def __init__(self, ground: Ground, vm: VM, to: str | None = None, announce: str = "garp-request") -> None:
        self.ground, self.vm, self.announce = ground, vm, announce
        self.source: NVE = vm.nve
        self.destination: NVE = ground.net.nve(to or ground.next_nve(vm))
        self.correspondent, self.holder = (
            nve for nve in ground.net.nves if nve not in (self.source, self.destination)
        )
        self.number = 0
        self.state = ""
        self.thrown = 0
        self._plugged = self._paused = self._resumed = False
        self._probes_dropped = self._stalled = False

    def role(self, role: str) -> NVE:
        """The NVE with that part in the move."""
        found: NVE = getattr(self, role)
        return found

    def document(self) -> dict[str, Any]:
        """The move as it is, whoever has to start first."""
        found: dict[str, Any] = self.ground.insist("GET", f"/moves/{self.number}")
        return found

    @property
    def stalled(self) -> tuple[str, ...]:
        """NVEs that cannot be in sync because they are held up on purpose."""
        return (self.holder.name,) if self._stalled else ()

    # --- reaching a state ---------------------------------------------------------------------------------------------
    def reach(self, state: str) -> None:
        """Bring the move to a state and hold it there. Raises NotReady, ApiError."""
        for step in STATES[: STATES.index(state) + 1]:
            getattr(self, f"_{step}")(step == state)
            self.state = step
        found = self.document()["state"]
        if found != state:
            raise NotReady(f"move {self.number} did not stay {state} but is {found}")

    def _preparing(self, hold: bool) -> None:
        if hold:
            self.holder.ofctl("add-flow", _PROBES)
            self._probes_dropped = True
        self.number = int(self.ground.post("/moves", {"vm": self.vm.name, "to": self.destination.name})["id"])

        def waits_for_probes() -> bool:
            generation = self.document()["generation"]
            return bool(generation["realised"] >= generation["desired"])

        if hold:
            wait_until(waits_for_probes, PATIENCE, f"move {self.number}: all barriers of the preparation", 0.02)

    def _prepared(self, _hold: bool) -> None:
        self.ground.await_state(self.number, "prepared", seconds=PATIENCE)

    def _redirecting(self, _hold: bool) -> None:
        self.plug()
        self.ground.post(f"/moves/{self.number}/redirect")
        self.await_in_force()
        self.pause()

    def _steering(self, hold: bool) -> None:
        if hold:
            self.holder.cut("stall-switch")
            self._stalled = True
        self.switch_over()
        if hold:
            self.ground.await_state(self.number, "steering", seconds=PATIENCE)
            self.ground.await_all_synced(but=self.stalled)
            time.sleep(_CACHED)

    def _draining(self, _hold: bool) -> None:
        self.ground.await_state(self.number, "draining", seconds=PATIENCE)

    def _settled(self, _hold: bool) -> None:
        self.ground.await_closed(self.number, PATIENCE)

    # --- what a hypervisor does ---------------------------------------------------------------------------------------
    def plug(self) -> None:
        """Make the port at the destination, once."""
        if not self._plugged:
            self.vm.attachment.prepare(self.destination)
            self._plugged = True

    def await_in_force(self) -> None:
        """Wait for the redirect. Raises NotReady."""
        wait_until(
            lambda: self.document()["redirect_in_force"], PATIENCE, f"move {self.number}: the redirect in force", 0.02
        )

    def pause(self) -> None:
        """Pause the VM at the source, once nothing reaches it there any more."""
        if not self._paused:
            self.vm.attachment.await_quiet(_QUIET, deadline=1.0)
            self.vm.attachment.pause()
            self._paused = True

    def switch_over(self) -> None:
        """Take the source's port away and run the VM at the destination, where it announces itself."""
        self.pause()
        self.vm.attachment.leave()
        self.vm.attachment.resume(self.destination, frames.announcement(self.announce, self.vm.spec))
        self._resumed = True

    def stay(self) -> None:
        """After a rollback: the VM runs on at the source, and the port at the destination goes; else nothing."""
        if self._resumed:
            return
        if self._paused:
            self.vm.attachment.resume(self.source, [])
        self._paused = False
        if self._plugged:
            self.thrown += self.vm.lab.vnic.ask("empty", vm=self.vm.name, nve=self.destination.name)["left"]
            self.vm.attachment.unprepare(self.destination)
            self._plugged = False

    def release(self) -> None:
        """Let go what holds the move up."""
        if self._probes_dropped:
            self.holder.ofctl("del-flows", _FOREIGN)
            self._probes_dropped = False
        if self._stalled:
            self.holder.restore()
            self._stalled = False

    def finish(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """Carry the move on to whatever end the NVA gives it; its document. Raises NotReady."""
        self.release()
        deadline = time.monotonic() + seconds
        while (document := self.document())["open"] or not document["ledger"]["closed"]:
            self._next(document)
            if time.monotonic() > deadline:
                raise NotReady(f"move {self.number}: not ended within {seconds:g} s, but {document['state']}")
            time.sleep(0.02)
        self.stay()
        return document

    def _next(self, document: dict[str, Any]) -> None:
        if not document["open"]:
            self.stay()
        elif document["state"] == "prepared":
            self.plug()
            with contextlib.suppress(ApiError):  # it is no longer prepared: the next look tells
                self.ground.insist("POST", f"/moves/{self.number}/redirect")
        elif document["state"] == "redirecting" and not self._resumed and (
            document["redirect_in_force"] or self._paused
        ):
            self.switch_over()
