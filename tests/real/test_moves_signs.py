"""What comes from a VM's destination while it still runs at its source, on real switches and with a real guest."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from proof.lab import Lab

from ryu_vmm import addresses
from ryu_vmm.wire import frames
from topologies.rundir import wait_until


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(nves=3, vms=3, quiet_time=1.0) as made:
        made.vm("vm1").attachment.prepare(made.net.nve("nve2"))
        yield made


def pings(lab: Lab, count: int) -> int:
    """How many pings of vm1 come back to vm3."""
    command = ["ping", "-n", "-q", "-i", "0.05", "-c", str(count), "-W", "1", lab.vm("vm1").spec.ip]
    found = re.search(r"(\d+) received", lab.vm("vm3").pexec(command)[0])
    return 0 if found is None else int(found[1])


def says(lab: Lab, *sent: bytes) -> int:
    """A move of vm1 to nve2 is prepared; then frames come out of its port there, which is plugged already."""
    number: int = lab.post("/moves", {"vm": "vm1", "to": "nve2"})["id"]
    lab.await_state(number, "prepared")
    lab.vm("vm1").lab.vnic.ask("announce", vm="vm1", nve="nve2", frames=[(0.0, frame.hex()) for frame in sent])
    return number


def test_what_a_port_s_own_kernel_says_moves_nobody(lab: Lab) -> None:
    """Duplicate address detection, an ARP probe: the VM goes on where it is, and the move can be aborted."""
    spec = lab.vm("vm1").spec
    own = addresses.parse_mac(spec.mac)
    number = says(
        lab,
        frames.build_ns(own, bytes(16), addresses.parse_ipv6(spec.ip6 or "")),
        frames.build_arp_request(own, bytes(4), addresses.parse_ipv4(spec.ip)),
    )
    assert pings(lab, 10) == 10
    assert lab.move(number)["state"] == "prepared"
    assert lab.post(f"/moves/{number}/abort")["state"] == "aborted"


def test_a_vm_that_still_runs_at_its_source_is_taken_back(lab: Lab) -> None:
    """Its kernel answers the question that comes out of its port there."""
    spec = lab.vm("vm1").spec
    after = lab.nva.last_event()
    number = says(lab, frames.build_garp(addresses.parse_mac(spec.mac), addresses.parse_ipv4(spec.ip)))
    wait_until(lambda: lab.nva.events(after, "move.taken-back"), 10, "the VM to be taken back", 0.02)
    assert pings(lab, 10) == 10
    assert "heard at its source" in lab.await_state(number, "failed")["error"]
    assert lab.get("/vms/vm1")["interfaces"][0]["nve"] == "nve1"
