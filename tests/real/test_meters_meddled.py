"""A VM goes to and fro while all that counts is read all the time; then somebody removes its edges' meters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proof.hot import made
from proof.lab import Lab

from topologies.errors import ApiError
from topologies.rundir import wait_until

MOVES = 4


@contextmanager
def read_all_the_time(lab: Lab) -> Iterator[None]:
    """Somebody has all flows of both NVEs read and compared, one after the other."""
    over = threading.Event()
    failed: list[str] = []

    def ask() -> None:
        while not over.wait(0.01):
            for nve in lab.net.nves:
                try:
                    lab.post(f"/nves/{nve.name}/verify")
                except ApiError as error:
                    failed.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
    assert not failed


def moved(lab: Lab) -> dict[str, Any]:
    """VM 1 goes to the other NVE under load; its record."""
    vm = lab.vm("vm1")
    to = lab.next_nve(vm)
    _, document, traffic = made(lab, vm, [lab.vm("vm2")], 4, to, read_all_the_time(lab))
    assert (document["state"], traffic.lost, traffic.duplicated) == ("settled", 0, 0), document
    assert lab.verify() == []
    return document


def whole(lab: Lab) -> bool:
    """Whether all NVEs are in sync and hold what they should."""
    try:
        return lab.verify() == []
    except ApiError:  # one of them is being read back
        return False


def test_a_vm_that_goes_to_and_fro_and_meters_that_are_taken_away() -> None:
    with Lab(nves=2, vms=2, quiet_time=1.0, poll_interval=0.05) as lab:
        for _ in range(MOVES):
            assert moved(lab)["ledger"]["exact"]
        assert lab.nva.events(kind="nve.refused") == []
        for nve in lab.net.nves:
            nve.ofctl("del-meters")
        assert lab.verify() != []
        # Nobody asks for anything that would be refused: it is noticed when drops are counted next.
        wait_until(lambda: whole(lab), 30, "the NVEs to be whole again", 0.5)
        for _ in range(2):
            moved(lab)
