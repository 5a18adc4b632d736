"""Shared addresses are answered by edges as well: with their present holder's MAC, and nobody's with none."""

from __future__ import annotations

from test_sharing import VIP, VIP6, VMAC, asked, change, holder, take, three
from world import World, ip, mac

from ryu_vmm.addresses import link_local
from ryu_vmm.nva import Settings
from ryu_vmm.wire import frames


def by_flow(w: World, address: bytes) -> bytes | None:
    """The MAC that VM 3 is told by its own edge; None: the edge leaves it to the NVA."""
    before = w.nva.counters.get("packet_in.resolve", 0)
    found = asked(w, address)
    return found if w.nva.counters.get("packet_in.resolve", 0) == before else None


def test_edges_answer_with_the_present_holder() -> None:
    w = three()
    assert by_flow(w, VIP) is None, "nobody holds it"
    for n in (1, 2, 1):
        take(w, n)
        take(w, n, how="unsolicited advertisement")
        assert (by_flow(w, VIP), by_flow(w, VIP6)) == (mac(n), mac(n))
        assert w.differences() == []
    w.kill()
    assert asked(w, VIP) == mac(1)
    w.start()
    assert by_flow(w, VIP) == mac(1) and w.differences() == []


def test_one_with_a_shared_mac_is_found_at_it() -> None:
    w = three()
    take(w, 1, as_mac=VMAC)
    assert (by_flow(w, VIP), by_flow(w, link_local(VMAC))) == (VMAC, VMAC)


def test_who_may_hold_an_address_is_heard_when_it_takes_it() -> None:
    """Its own edge answers it nothing about that address, whoever holds it now."""
    w = three()
    take(w, 1)
    before = len(w.out)
    w.send("n2", "tap-vm2", frames.build_garp(mac(2), VIP))
    assert ("n2", "tap-vm2") not in [(nve, port) for nve, port, _ in w.out[before:]]
    assert by_flow(w, VIP) == mac(2)


def test_a_link_local_address_that_nobody_holds_is_that_of_its_mac_again() -> None:
    w = three()
    address = link_local(mac(1))
    change(w, 2, shared=(address,))
    assert by_flow(w, address) == mac(1)
    w.send("n2", "tap-vm2", frames.build_unsolicited_na(mac(2), address))
    assert by_flow(w, address) == mac(2) and w.differences() == []
    change(w, 2, shared=())
    assert by_flow(w, address) == mac(1) and w.differences() == []


def test_no_guest_drowns_anothers_announcement() -> None:
    """Each port has a limit of its own, and one guest that reaches its own leaves the others theirs."""
    w = World(1, settings=Settings(question_rate=10))
    w.network()
    for n in (1, 2):
        w.vm(n, "n1")
    change(w, 2, shared=(VIP, VIP6))
    for _ in range(50):
        w.send("n1", "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.1")))
    take(w, 2, "n1")
    assert holder(w) == "vm2/eth0"
