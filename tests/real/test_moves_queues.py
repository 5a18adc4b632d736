"""A pause that outlasts the queue of a VM's tap: what the tap drops is in the ledger, exactly."""

from __future__ import annotations

from proof import queues
from proof.lab import Lab

from topologies.tap import KERNEL_QUEUE


def test_what_the_port_drops_is_in_the_ledger_and_the_queue_is_named() -> None:
    """4,000 datagrams/s to a VM that is paused for 0.9 s, and a tap with the kernel's queue."""
    with Lab(nves=3, vms=3, queue=KERNEL_QUEUE, quiet_time=1.0) as lab:
        move = queues.one(lab, KERNEL_QUEUE)
    assert move.problems() == []
    assert move.lost
    (remedy,) = move.remedies
    assert remedy.startswith(f"{move.report.destination}: ip link set tap-vm1 txqueuelen ")
    assert int(remedy.split()[-1]) >= move.lost + KERNEL_QUEUE
