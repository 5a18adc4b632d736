"""Orchestrators that ask for nonsense, VMs that vanish, ports that flap: at every state of a move."""

from __future__ import annotations

import time

from topologies import NVE, frames
from topologies.rundir import wait_until

from .faults import Fault
from .ground import Ground
from .losses import Outage
from .staged import STATES, Staged

#: Seconds from a VM's (or its port's) being there again until Open vSwitch surely forwards to it.
BACK = 0.5
_KINDS = ("garp-request", "garp-reply", "na", "rarp")
_UNDECIDED = ("preparing", "prepared", "redirecting")
_FLAPS = 3


def refused(ground: Ground, method: str, path: str, body: object = None) -> None:
    """Ask for what must be refused as a conflict. Raises AssertionError if it is not."""
    error = ground.refused(method, path, body)
    if error.status != 409:
        raise AssertionError(f"{method} {path} was refused with {error.status}: {error}")


def own_flows(ground: Ground, staged: Staged) -> frozenset[str]:
    """The names of the moving VM's flows."""
    return frozenset(pair.name for pair in ground.traffic(staged) if staged.vm in (pair.source, pair.target))


# --- at every state --------------------------------------------------------------------------------------------------
def _asked_twice(ground: Ground, staged: Staged, _nve: NVE | None) -> list[Outage]:
    """While it has not been decided where the VM runs another move is refused, and to where it is going later, too."""
    to = (staged.correspondent if staged.state in _UNDECIDED else staged.destination).name
    refused(ground, "POST", "/moves", {"vm": staged.vm.name, "to": to})
    refused(ground, "POST", "/moves", {"vm": staged.vm.name, "to": staged.destination.name})
    return []


def _removed_nve(ground: Ground, staged: Staged, _nve: NVE | None) -> list[Outage]:
    for nve in (staged.source, staged.destination, staged.correspondent):
        refused(ground, "DELETE", f"/nves/{nve.name}")
    return []


def _announced(ground: Ground, staged: Staged, _nve: NVE | None) -> list[Outage]:
    """Doubled where the VM is; and from ports where it has no business, its old one once the move has ended."""
    moves, vnic, vm = ground.newest_move(), staged.vm.lab.vnic, staged.vm
    here = staged.source if staged.state in _UNDECIDED else staged.destination
    strange = [staged.correspondent, staged.source] if staged.state == "settled" else [staged.correspondent]
    for nve in strange:
        nve.plug(vm.spec.port)
    try:
        ground.await_all_synced(but=staged.stalled)
        for kind in (*_KINDS, *_KINDS):
            for nve in (here, *strange):
                what = [(0.0, frame) for _, frame in frames.announcement(kind, vm.spec)]
                vnic.ask("announce", vm=vm.name, nve=nve.name, frames=what)
    finally:
        for nve in strange:
            nve.unplug(vm.spec.port)
            vnic.ask("empty", vm=vm.name, nve=nve.name)
    ground.await_all_synced(but=staged.stalled)
    if ground.newest_move() != moves:
        raise AssertionError(f"an announcement while {staged.state} began move {ground.newest_move()}")
    if ground.directory(vm.name)[0] != here.name:
        raise AssertionError(f"an announcement while {staged.state} moved the VM to {ground.directory(vm.name)}")
    return []


def _flapped(ground: Ground, staged: Staged, _nve: NVE | None) -> list[Outage]:
    here = staged.source if staged.state in _UNDECIDED else staged.destination
    began = time.monotonic()
    for _ in range(_FLAPS):
        here.unplug(staged.vm.spec.port)
        here.plug(staged.vm.spec.port, here.ports_wanted.get(staged.vm.spec.port))
    ground.await_all_synced(but=staged.stalled)
    return [Outage("port flaps", began, time.monotonic() + BACK, own_flows(ground, staged))]


def _deleted(ground: Ground, staged: Staged, _nve: NVE | None) -> list[Outage]:
    """The VM is withdrawn and, since it runs on all the same, registered anew where it is."""
    began = time.monotonic()
    ground.nva.rest.call("DELETE", f"/vms/{staged.vm.name}")
    state = staged.document()["state"]
    if state != ("settled" if staged.state == "settled" else "aborted"):
        raise AssertionError(f"the VM is withdrawn and its move is {state}")
    if staged.state in _UNDECIDED:
        staged.stay()
    ground.await_all_synced(but=staged.stalled)
    ground.post("/vms", ground.body(staged.vm.spec, nve=staged.vm.nve.name))
    ground.await_all_synced(but=staged.stalled)
    return [Outage("not registered", began, time.monotonic() + BACK, own_flows(ground, staged))]


def _dies(ground: Ground, staged: Staged, _nve: NVE | None) -> list[Outage]:
    """The VM ends where it runs and is started at the source again, as by an orchestrator that gives up the move.

    Until it was heard at the destination that is an abort. While the move is open it is enough that the VM announces
    itself at the source, to which it stays bound; afterwards another move has to be asked for.
    """
    flows, began, vm = own_flows(ground, staged), time.monotonic(), staged.vm
    if staged.state in _UNDECIDED:
        staged.pause()
        ground.post(f"/moves/{staged.number}/abort", {"why": "the VM has died"})
        staged.stay()
        return [Outage("the VM is dead", began, time.monotonic() + BACK, flows)]
    moves = ground.newest_move()
    vm.attachment.pause()
    vm.attachment.leave()
    if staged.state == "settled":
        again = ground.post("/moves", {"vm": vm.name, "to": staged.source.name, "kind": "cold"})["id"]
        ground.await_state(again, "prepared")
    vm.attachment.prepare(staged.source)
    vm.attachment.resume(staged.source, frames.announcement("both", vm.spec))
    wait_until(lambda: ground.newest_move() > moves, 10, "a move back")
    ground.await_state(moves + 1, "steering", "draining", "settled")
    ground.await_all_synced(but=staged.stalled)
    return [Outage("the VM is dead", began, time.monotonic() + BACK, flows)]


_ABORTED = dict.fromkeys(_UNDECIDED, frozenset({"aborted"}))

AT_EVERY_STATE = (
    Fault("same VM asked to move twice", "", _asked_twice),
    Fault("NVE removed while it hosts VMs", "", _removed_nve),
    Fault("announcements doubled, late, strange", "", _announced),
    Fault("port flaps", "", _flapped, drops=True),
    Fault("VM deleted", "", _deleted, ends=dict.fromkeys(STATES[:-1], frozenset({"aborted"})), drops=True),
    Fault("VM dies, resumes at the source", "", _dies, ends=_ABORTED, drops=True),
)

