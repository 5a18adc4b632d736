"""Moves that nobody asked for, on real switches: the VM's announcement is all there is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from proof import raw, unplanned
from proof.lab import Lab

from ryu_vmm.tables import Drop
from topologies import VNSpec
from topologies.frames import garp
from topologies.traffic.session import Family


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """In vn1 any port is believed, in vn2 only those that are registered. Settings are the defaults, but for flaps."""
    vns = [VNSpec("vn1", 100, {"announcements": "any"}), VNSpec("vn2", 200)]
    with Lab(nves=3, vms=6, vns=vns, attached={"vn2"}, flap_moves=1000) as made:
        yield made


@pytest.mark.parametrize(("announce", "policy", "tap_first"), [
    (announce, policy, (number + turn) % 2 == 0)  # the port at the destination: before the source's goes, or after
    for number, announce in enumerate(unplanned.KINDS) for turn, policy in enumerate(("any", "bound"))
])  # fmt: skip
def test_nothing_is_doubled_the_ledger_is_right_and_the_redirect_goes(
    lab: Lab, announce: str, policy: str, tap_first: bool
) -> None:
    """What holds at any speed; how soon loss ends and the redirect goes, `tools/prove --only unplanned` measures."""
    name, others = ("vm1", ("vm3", "vm5")) if policy == "any" else ("vm2", ("vm4", "vm6"))
    inside: Family = 4 if tap_first else 6
    move = unplanned.one(lab, policy, lab.vm(name), [lab.vm(other) for other in others], announce, inside, tap_first)
    assert move.faults() == []
    assert move.document["activated_by"] == {
        "garp-request": "garp", "garp-reply": "garp", "na": "na-unsolicited", "rarp": "rarp-request",
    }[announce]  # fmt: skip
    assert all(loss.lost for loss in move.losses)  # else the port was never gone, and this has shown nothing


def test_a_stranger_is_not_believed_where_ports_are_bound(lab: Lab) -> None:
    """A port of vn1's VM that announces a VM of vn2: refused, counted, reported; nothing moves."""
    victim, liar = lab.vm("vm4"), lab.vm("vm3")
    before, after = lab.newest_move(), lab.nva.last_event()
    spoofed = lab.dropped(Drop.SPOOFED_ARP)
    assert victim.spec.ip is not None
    with raw.Card(liar) as card:
        card.send(garp(victim.spec.mac, victim.spec.ip))
    lab.await_dropped(Drop.SPOOFED_ARP, spoofed + 1)
    refused = lab.nva.await_event("announcement.refused", after, nve=liar.nve.name, port=liar.spec.port)
    assert refused["fields"]["claimed_ip"] == victim.spec.ip
    assert lab.newest_move() == before
    assert lab.get("/vms/vm4")["interfaces"][0]["nve"] == victim.nve.name
    assert lab.nva.events(after, "move.") == []
    assert lab.verify() == []
