"""What a tap's queue has no room for while its VM is paused: as the receivers count it, and as the ledger tells it.

The kernel gives a tap a queue of 1,000 frames. A VM that is paused for longer than that many frames take to arrive
loses the rest: in the port, behind everything that the switch counts with flows and meters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from topologies import MoveReport
from topologies.traffic.session import Outcome

from . import hot
from .lab import Lab

#: Seconds for which the VM is paused.
PAUSE = 0.9
MOVER, CORRESPONDENTS = "vm1", ("vm2", "vm3")
#: Frames that are no datagrams and may be dropped with them: what kernels ask of their neighbors.
ASIDE = 10


@dataclass
class Paused:
    """A planned move with a long pause. `lost`: datagrams to the VM that did not arrive."""

    queue: int
    report: MoveReport
    document: dict[str, Any]
    traffic: Outcome

    @property
    def lost(self) -> int:
        """Datagrams lost, in all directions."""
        return self.traffic.lost

    @property
    def told(self) -> int:
        """Packets that the ledger says were lost, wherever."""
        ledger = self.document["ledger"]
        lost = ledger["lost"]["packets"] + ledger["held"]["lost"] + ledger["dropped"]["packets"]
        return int(lost + max(0, ledger["unaccounted"]))

    @property
    def remedies(self) -> list[str]:
        """The commands that the ledger names, with the NVE of each."""
        ports = self.document["ledger"]["ports"]
        return [f"{port['nve']}: {port['remedy']}" for port in ports if port["remedy"]]

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = hot.Findings()
        found.want("state", self.document["state"], "settled")
        found.want("exact", self.document["ledger"]["exact"], True)
        found.want("duplicated", self.traffic.duplicated, 0)
        if not self.lost <= self.told <= self.lost + ASIDE:
            found.words.append(f"{self.lost} datagrams were lost, and the ledger tells of {self.told}")
        found.want("something was lost, and a remedy named", bool(self.remedies), bool(self.told))
        return [f"queue of {self.queue}: {word}" for word in found.words]


def one(lab: Lab, queue: int) -> Paused:
    """Move under 2 x 2,000 datagrams/s each way, with a pause of 0.9 s. queue: what the lab was made with."""
    vm = lab.vm(MOVER)
    others = [lab.vm(name) for name in CORRESPONDENTS]
    report, document, traffic = hot.made(lab, vm, others, 4, lab.next_nve(vm), pause=PAUSE, quiet=0.1)
    return Paused(queue, report, document, traffic)
