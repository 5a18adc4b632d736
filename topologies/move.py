"""Moving a VM as a hypervisor does it, with or without the NVA being asked first."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from topologies import frames
from topologies.errors import ApiError, TopologyError
from topologies.rest import Rest

if TYPE_CHECKING:
    from topologies.net import OverlayNet
    from topologies.nve import NVE
    from topologies.vm import VM

# The states a move is in from `prepared` on: who asks too late must not wait for a state that has passed
_PREPARED = ("prepared", "redirecting", "steering", "draining", "settled")


@dataclass
class MoveReport:
    """What happened in one move, as the hypervisors saw it. Times are CLOCK_MONOTONIC seconds."""

    vm: str
    source: str
    destination: str
    planned: bool
    kind: str
    announce: str
    move: str | None = None  # the NVA's id of the move, when it was asked
    times: dict[str, float] = field(default_factory=dict)
    drained: int = 0  # frames still delivered from the source's queue at the moment of the pause
    left: int = 0  # frames in the source's queue after the pause: lost, as in a hypervisor
    queued: int = 0  # frames that waited in the destination's queue and were delivered on resume
    addresses: list[tuple[str, str]] = field(default_factory=list)  # (old, new) where the move changed them

    def mark(self, step: str, at: float | None = None) -> None:
        """Note when a step was done."""
        self.times[step] = time.monotonic() if at is None else at

    @property
    def downtime(self) -> float:
        """Seconds from the pause to the resume."""
        return self.times["resumed"] - self.times["paused"]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {**asdict(self), "downtime": self.downtime}


def move(
    net: OverlayNet, vm: VM, to: NVE | str, *, announce: str = "garp-request", planned: bool | None = None,
    pause: float = 0.05, kind: str = "hot", quiet: float = 0.02, tap_first: bool = False, deadline: float = 15.0,
    settle: float | None = None, opened: str | None = None, rest: Rest | None = None, **request: Any,
) -> MoveReport:
    """Move a VM to another NVE and say what happened when.

    announce: garp-request, garp-reply, na, rarp, both (garp-request and na) or none; with `none` a planned
    move is activated over REST instead, as an orchestrator does it. planned: the NVA is asked first, tells
    when the destination is prepared, and is told of the pause before it happens; otherwise the port goes,
    comes up elsewhere, and announces itself. Default: whether the net has a `rest`. pause: least time in
    seconds between pause and resume. quiet: once the redirect is in force the guest runs on at the source
    until nothing has reached it for so many seconds (1 s at most), so that what was under way to the source
    is not lost. Open vSwitch may go on forwarding the old way for some milliseconds after it has confirmed a
    change. kind: hot or cold; a cold VM is off between the NVEs, with a port nowhere. tap_first: the
    destination's tap is there before the move is asked for, else after; in an unplanned move, before the
    source's port goes, else after. deadline: for each answer of the NVA, in seconds. settle: also wait so
    long for `settled`. opened: the id of a move that the NVA has opened by itself (in an evacuation), so that
    none is asked for. rest: another client than the net's. Whatever else is given goes into the request for
    the move (request_id, requested_by, address, connections).

    Raises TopologyError where the move makes no sense, ApiError where the NVA refuses, NotReady when it is
    late. The VM runs afterwards in any case: at the source if the pause had not come yet, else at the
    destination.

    A task whose address changes (address="change") gets its new one, as the NVA has allotted it, while it is paused.
    """
    dst = net.nve(to)
    src = vm.nve
    if dst is src:
        raise TopologyError(f"{vm.name} is at {src.name} already")
    planned = net.rest is not None if planned is None else planned
    frames.announcement(announce, vm.spec)  # refuses what cannot be announced before anything has happened
    report = MoveReport(vm.name, src.name, dst.name, planned, kind, announce)
    rest = (rest or net.need_rest()) if planned else None
    with contextlib.ExitStack() as undo:
        if rest is not None:
            _ask(rest, report, vm, dst, tap_first, deadline, opened, request, undo)
            if kind == "hot":
                vm.attachment.await_quiet(quiet, deadline=1.0)
                report.mark("quiet")
        elif kind == "hot" and tap_first:
            _prepare(report, vm, dst, undo)
        undo.pop_all()  # past this line there is no way back to the source
        _switch_over(report, vm, dst, announce, pause)
    if rest is not None and report.move is not None:
        if announce == "none":
            rest.hook(report.move, "activate")
            report.mark("activated")
        if settle is not None:
            rest.await_move(report.move, lambda doc: doc["state"] == "settled", settle, "settled")
            report.mark("settled")
    return report


def _prepare(report: MoveReport, vm: VM, dst: NVE, undo: contextlib.ExitStack) -> None:
    if "port_ready" not in report.times:
        report.mark("port_ready", vm.attachment.prepare(dst))
        undo.callback(vm.attachment.unprepare, dst)


def _ask(
    rest: Rest, report: MoveReport, vm: VM, dst: NVE, tap_first: bool, deadline: float, opened: str | None,
    request: dict[str, Any], undo: contextlib.ExitStack,
) -> None:
    """Request the move, prepare the destination, announce the pause and wait until the redirect is in force."""
    hot = report.kind == "hot"
    if tap_first and hot:
        _prepare(report, vm, dst, undo)
    report.mark("requested")
    report.move = opened or str(rest.start_move(vm.name, dst.name, report.kind, vm.spec.port, **request)["id"])
    undo.callback(_abort, rest, report.move)
    document = rest.await_move(report.move, lambda doc: doc["state"] in _PREPARED, deadline, "prepared")
    report.addresses = [(change["old"], change["new"]) for change in document.get("addresses") or ()]
    report.mark("prepared")
    if not hot:
        return
    _prepare(report, vm, dst, undo)
    report.mark("asked")
    rest.hook(report.move, "redirect")
    report.mark("notified")
    rest.await_move(report.move, lambda doc: doc["redirect_in_force"], deadline, "redirecting")
    report.mark("redirect_in_force")


def _abort(rest: Rest, move_id: str) -> None:
    with contextlib.suppress(ApiError):  # it may have ended by itself; the first error is the one to report
        rest.hook(move_id, "abort")


def _switch_over(report: MoveReport, vm: VM, dst: NVE, announce: str, pause: float) -> None:
    answer = vm.attachment.pause()
    report.mark("paused", answer["at"])
    report.drained = answer["drained"]
    answer = vm.attachment.leave()
    report.mark("port_gone", answer["at"])
    report.left = answer["left"]
    for old, new in report.addresses:
        vm.readdress(old, new)
    announcement = frames.announcement(announce, vm.spec)
    if report.kind == "cold":
        time.sleep(max(0.0, report.times["paused"] + pause - time.monotonic()))  # the VM is off
    if "port_ready" not in report.times:
        report.mark("port_ready", vm.attachment.prepare(dst))
    time.sleep(max(0.0, report.times["paused"] + pause - time.monotonic()))  # the rest of the VM's downtime
    answer = vm.attachment.resume(dst, announcement)
    report.mark("resumed", answer["at"])
    report.queued = answer["queued"]
    if announcement:
        report.mark("announced", answer["announced"])
