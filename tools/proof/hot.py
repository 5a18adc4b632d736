"""A planned hot move under load, of a VM or of a task: how it is made, and what must be so after each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from topologies import VM, MoveReport
from topologies.traffic.session import Family, Outcome, UdpSession, both_ways

from .lab import Lab

RATE = 2000.0  # datagrams per second in each direction
_BEFORE, _AFTER = 0.4, 0.2  # seconds of traffic before a move and after it has settled
_SETTLED = 20.0
_ENOUGH = 1000  # datagrams of a flow; fewer show little


class Findings:
    """What should not be so, in words."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.words = list(words)

    def want(self, what: str, is_: object, wanted: object) -> None:
        """Note `what` unless it is as wanted."""
        if is_ != wanted:
            self.words.append(f"{what} is {is_}, not {wanted}")

    def move(self, report: MoveReport, document: dict[str, Any], traffic: Outcome, octets: bool) -> None:
        """Whatever moves, and however it is reached: nothing lost, nothing doubled, and a ledger that says so.

        octets: compare bytes, too. Switches count packets from a tunnel without Ethernet without its 14 bytes.
        """
        ledger = document["ledger"]
        for flow in traffic.flows:
            self.want(f"lost, {flow.name}, {flow.count.lost_runs}", flow.count.lost, 0)
            self.want(f"duplicated, {flow.name}", flow.count.duplicated, 0)
            if flow.count.sent < _ENOUGH:
                self.words.append(f"{flow.name}: only {flow.count.sent} datagrams were sent")
        self.want("foreign", traffic.foreign, 0)
        self.want("dropped by the receivers", traffic.dropped, 0)
        self.want("state", document["state"], "settled")
        self.want("left in the source's queue", report.left, 0)
        self.want("unaccounted", ledger["unaccounted"], 0)
        for unit in ("packets", "bytes")[: 1 + octets]:
            self.want(f"{unit} arrived", ledger["arrived"][unit], ledger["redirected"][unit])
        self.want("lost in the ledger", ledger["lost"]["packets"], 0)
        self.want("held and lost", ledger["held"]["lost"], 0)
        self.want("dropped by ports", ledger["dropped"]["packets"], 0)
        self.want("exact", ledger["exact"], True)
        if not ledger["redirected"]["packets"]:
            self.words.append("nothing was redirected: this has shown nothing")


def made(
    lab: Lab, vm: VM, others: Sequence[VM], inside: Family, to: str,
    during: AbstractContextManager[object] | None = None, **options: Any,
) -> tuple[MoveReport, dict[str, Any], Outcome]:
    """Move to an NVE under load from and to the others: the hypervisors' report, the move's document, the traffic.

    during: what is open meanwhile. `options` as for `topologies.move.move`.
    """
    session = UdpSession([pair for other in others for pair in both_ways(vm, other, inside, RATE)], quiet=0.3)
    with session, during or nullcontext():
        time.sleep(_BEFORE)  # the load itself is what is waited for
        report = vm.move(to, settle=_SETTLED, **options)
        document = lab.await_closed(report.move)
        time.sleep(_AFTER)
        return report, document, session.stop()
