"""ARP, neighbor discovery and RARP as guests meet them, ports that come in any order, MAC addresses that change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from proof import raw
from proof.lab import Lab
from proof.raw import ARP, RARP, ArpFields, Card, ip, kind_of, mac

from topologies import VM, VNSpec, netns
from topologies.rundir import wait_until

SOLICITED = 0x40


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """vn1 floods questions for unknown addresses, vn2 drops them; same addresses in both. vm1, vm3, vm5 are vn1's."""
    vns = [VNSpec("vn1", 100, {"unknown": "flood"}), VNSpec("vn2", 200, {"unknown": "drop"})]
    with Lab(nves=3, vms=6, vns=vns, overlap=True, attached={"vn1"}, quiet_time=1.0, flap_moves=100) as made:
        yield made


def four(vm: VM) -> bytes:
    assert vm.spec.ip is not None
    return ip(vm.spec.ip)


def six(vm: VM) -> bytes:
    assert vm.spec.ip6 is not None
    return ip(vm.spec.ip6)


def asks(vm: VM, address: bytes) -> bytes:
    """A VM's ARP request."""
    return raw.arp(1, mac(vm.spec.mac), four(vm), bytes(6), address)


def is_request_for(address: bytes) -> Callable[[bytes], bool]:
    return lambda frame: kind_of(frame) == ARP and ArpFields(frame).operation == 1 and ArpFields(frame).tpa == address


def heard_once(card: Card, wanted: Callable[[bytes], bool]) -> list[bytes]:
    """What is wanted of the frames that come, however late the first is; then for as long as a second would take."""
    first = card.await_frame(wanted, 5.0)
    return [] if first is None else [first, *(f for f in card.during(0.5) if wanted(f))]


# --- questions -------------------------------------------------------------------------------------------------------
def test_arp_is_answered_from_the_directory(lab: Lab) -> None:
    """The answer is right, comes once, and the VM that was asked for never hears the question."""
    asker, wanted = lab.vm("vm3"), lab.vm("vm1")
    with Card(asker) as card, Card(wanted) as other:
        card.send(asks(asker, four(wanted)))
        found = heard_once(card, lambda f: kind_of(f) == ARP and ArpFields(f).spa == four(wanted))
        assert len(found) == 1
        reply = ArpFields(found[0])
        assert reply.operation == 2
        assert (reply.sha, reply.src) == (mac(wanted.spec.mac),) * 2
        assert (reply.tha, reply.dst, reply.tpa) == (mac(asker.spec.mac), mac(asker.spec.mac), four(asker))
        assert not [f for f in other.during(0.1) if is_request_for(four(wanted))(f)]


def test_a_solicitation_is_answered_from_the_directory(lab: Lab) -> None:
    asker, wanted = lab.vm("vm5"), lab.vm("vm1")
    with Card(asker) as card, Card(wanted) as other:
        card.send(raw.solicitation(mac(asker.spec.mac), six(asker), six(wanted)))
        frames = heard_once(card, lambda f: (raw.advertised(f) or [b""])[0] == six(wanted))
        found = [raw.advertised(f) for f in frames]
        assert len(found) == 1
        assert found[0] is not None
        assert found[0][1] == mac(wanted.spec.mac)
        assert found[0][2] & SOLICITED
        assert not [f for f in other.during(0.1) if raw.solicited(f) == six(wanted)]


def test_a_rarp_request_is_answered_with_the_ipv4_address(lab: Lab) -> None:
    """Section 4.1: the IPv4 address that the directory has for the MAC; to a guest that has said nothing yet."""
    asker, other = lab.vm("vm3"), lab.vm("vm1")
    lab.nva.rest.call("DELETE", "/vms/vm3")
    lab.post("/vms", lab.body(asker.spec, nve=asker.nve.name))
    lab.await_synced()
    with Card(asker) as card, Card(other) as bystander:
        own = mac(asker.spec.mac)
        question = raw.arp(3, own, bytes(4), own, bytes(4), kind=RARP)
        card.send(question)
        frame = card.await_frame(lambda f: kind_of(f) == RARP)
        assert frame is not None
        reply = ArpFields(frame)
        assert (reply.operation, reply.tha, reply.tpa, reply.dst) == (4, own, four(asker), own)
        assert frame[6:12] != own
        # once it has spoken, the same bytes are its hypervisor's announcement; the answer shows that they are through
        card.send(asks(asker, ip("10.0.0.250")))
        card.send(question)
        # another VM's address may be asked for as well
        card.send(raw.arp(3, own, bytes(4), mac(other.spec.mac), bytes(4), kind=RARP))
        frame = card.await_frame(lambda f: kind_of(f) == RARP)
        assert frame is not None
        assert ArpFields(frame).tpa == four(other)
        assert not [f for f in bystander.during(0.1) if kind_of(f) == RARP]


class Questions:
    """How often each card has heard the questions for an IPv4 and an IPv6 address."""

    def __init__(self, cards: dict[str, Card], four: bytes, six: bytes) -> None:
        self._cards, self._four, self._six = cards, four, six
        self._heard = dict.fromkeys(cards, (0, 0))

    def heard(self) -> dict[str, tuple[int, int]]:
        """(ARP, ND) so far, of those who heard any."""
        for name, card in self._cards.items():
            frames, (arp, nd) = card.during(0), self._heard[name]
            arp += sum(map(is_request_for(self._four), frames))
            nd += sum(raw.solicited(frame) == self._six for frame in frames)
            self._heard[name] = (arp, nd)
        return {name: count for name, count in self._heard.items() if count != (0, 0)}


@pytest.mark.parametrize(("name", "hears"), [("vm1", ("vm3", "vm5")), ("vm2", ())], ids=["flood", "drop"])
def test_questions_for_unknown_addresses_stay_in_their_network(lab: Lab, name: str, hears: tuple[str, ...]) -> None:
    """vn1 floods them, to every member once and to nobody else; vn2 drops them. Same place, same addresses."""
    vm = lab.vm(name)
    nowhere, nowhere6 = bytes((10, 0, 0, 99)), six(lab.vm("vm1"))[:15] + b"\x99"
    before = lab.nva.counters("drops").get("unknown-target", 0)
    with ExitStack() as stack:
        cards = {vm.name: stack.enter_context(Card(vm)) for vm in lab.net.vms}
        questions = Questions(cards, nowhere, nowhere6)
        cards[name].send(asks(vm, nowhere))
        cards[name].send(raw.solicitation(mac(vm.spec.mac), six(vm), nowhere6))
        if hears:
            wait_until(lambda: all(min(questions.heard().get(n, (0, 0))) for n in hears), 5, "both questions")
        else:
            wait_until(lambda: lab.nva.counters("drops").get("unknown-target", 0) == before + 2, 5, "their drops")
        time.sleep(0.5)  # no more of them, and nowhere else
        assert questions.heard() == dict.fromkeys(hears, (1, 1))


# --- announcements that the NVA makes --------------------------------------------------------------------------------
def announced(frames: list[bytes], vm: VM, link: bytes) -> tuple[int, int]:
    """How many announcements of a VM's addresses at a MAC address are among the frames: (ARP, ND)."""
    arps = [ArpFields(f) for f in frames if kind_of(f) == ARP]
    own = [a for a in arps if a.spa == a.tpa == four(vm) and a.sha == link]
    return len(own), sum(found is not None and found[:2] == (six(vm), link) for found in map(raw.advertised, frames))


@pytest.mark.parametrize("planned", [True, False])
def test_who_announces_by_rarp_alone_is_announced_by_the_nva(lab: Lab, planned: bool) -> None:
    """RARP names no IP address, so the NVA tells the correspondents' guests in ARP and ND. RARP itself goes nowhere."""
    vm = lab.vm("vm1")
    after = lab.nva.last_event()
    with ExitStack() as stack:
        cards = {name: stack.enter_context(Card(lab.vm(name))) for name in ("vm2", "vm3", "vm4", "vm5", "vm6")}
        vm.move(lab.next_nve(vm), announce="rarp", planned=planned)
        number = lab.nva.await_event("move.state", after, vm="vm1", state="draining")["fields"]["move"]
        assert lab.move(number)["activated_by"] == "rarp-request"
        lab.nva.await_event("interface.announced", after, interface="vm1/eth0")
        lab.await_closed(number)
        heard = {name: card.during(0.05) for name, card in cards.items()}
    for name in ("vm3", "vm5"):
        found = announced(heard[name], vm, mac(vm.spec.mac))
        assert min(found) >= 1, name
    for name in ("vm2", "vm4", "vm6"):  # same addresses, other network
        assert announced(heard[name], vm, mac(vm.spec.mac)) == (0, 0), name
    assert not [f for frames in heard.values() for f in frames if kind_of(f) == RARP]
    assert lab.verify() == []


def test_a_changed_mac_address_is_announced_and_used(lab: Lab) -> None:
    vm, other, twin = lab.vm("vm3"), lab.vm("vm1"), lab.vm("vm2")
    old, new = vm.spec.mac, "02:00:00:00:77:03"
    assert vm.pexec(["ping", "-c", "1", "-W", "1", other.spec.ip])[2] == 0  # both hold the old address
    try:
        netns.ip_batch(vm.namespace, f"link set eth0 address {new}")
        with Card(other) as card, Card(twin) as unconcerned:
            lab.nva.rest.call("PUT", "/vms/vm3", lab.body(vm.spec, mac=new, nve=vm.nve.name))
            assert card.await_frame(lambda f: announced([f], vm, mac(new))[0] == 1) is not None
            assert card.await_frame(lambda f: announced([f], vm, mac(new))[1] == 1) is not None
            assert announced(unconcerned.during(0.2), vm, mac(new)) == (0, 0)
        lab.await_synced()
        for address in (vm.spec.ip, vm.spec.ip6):  # the guest took the new address over, without asking
            assert other.pexec(["ping", "-c", "1", "-W", "1", address])[2] == 0
        neighbors = netns.run(["ip", "-n", other.namespace, "neigh", "show", str(vm.spec.ip)])
        assert new in neighbors
        assert lab.verify() == []
    finally:
        netns.ip_batch(vm.namespace, f"link set eth0 address {old}")
        lab.nva.rest.call("PUT", "/vms/vm3", lab.body(vm.spec, nve=vm.nve.name))
    assert lab.verify() == []


# --- ports, in any order ---------------------------------------------------------------------------------------------
def test_a_port_is_bound_whether_it_or_its_vm_comes_first(lab: Lab) -> None:
    vm, other = lab.vm("vm5"), lab.vm("vm3")
    nve = vm.nve

    def bound() -> bool:
        return bool(lab.get("/vms/vm5")["interfaces"][0]["bound"])

    def known() -> bool:
        return vm.spec.port in [port["name"] for port in lab.get(f"/nves/{nve.name}")["ports"]]

    def reached() -> bool:
        """Asked afresh: for an address it has just failed to find, a kernel asks again only when its timer says."""
        netns.ip_batch(other.namespace, "neigh flush dev eth0")
        return all(other.pexec(["ping", "-c", "1", "-W", "1", a])[2] == 0 for a in (vm.spec.ip, vm.spec.ip6))

    lab.nva.rest.call("DELETE", "/vms/vm5")
    lab.await_synced()
    assert not reached()
    # the port is there, then its VM is registered
    lab.post("/vms", lab.body(vm.spec))
    assert bound()
    lab.await_synced()
    wait_until(reached, 5, "vm5 to answer")
    # the VM is registered, then its port appears
    lab.nva.rest.call("DELETE", "/vms/vm5")
    after = lab.nva.last_event()
    nve.unplug(vm.spec.port)
    wait_until(lambda: not known(), 5, "the NVA to hear that the port is gone")
    lab.post("/vms", lab.body(vm.spec))
    assert not bound()
    assert not reached()
    nve.plug(vm.spec.port)
    lab.nva.await_event("port.up", after, nve=nve.name, port=vm.spec.port)
    wait_until(bound, 5, "the port to be bound")
    lab.await_synced()
    wait_until(reached, 5, "vm5 to answer")
    # it goes and comes back under another number
    old = nve.ofport(vm.spec.port)
    nve.unplug(vm.spec.port)
    wait_until(lambda: not bound(), 5, "the port to be gone")
    nve.plug(vm.spec.port, old + 40)
    wait_until(bound, 5, "the port to be bound again")
    assert nve.ofport(vm.spec.port) != old
    lab.await_synced()
    wait_until(reached, 5, "vm5 to answer")
    assert lab.verify() == []
