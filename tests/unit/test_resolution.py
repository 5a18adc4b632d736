"""Who answers for an address: what admission lets a guest speak for, questions find."""

from __future__ import annotations

from dataclasses import replace

import pytest
from l3town import Layer3
from outside import GATEWAY
from world import World, ip, mac

from ryu_vmm import events as ev
from ryu_vmm.addresses import is_link_local, link_local, mac_of_link_local
from ryu_vmm.model import Addressing, Admit, Answer, Distribution, Kind, Leave, Policy, Unknown
from ryu_vmm.resolution import answering
from ryu_vmm.wire import frames


def three(policy: Policy | None = None) -> World:
    w = World(3)
    w.network(policy=policy)
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    return w


def ask(w: World, nve: str, n: int, target: bytes, src: bytes | None = None) -> list[tuple[str, str]]:
    """VM n asks for an address; where its question, or the answer, came out."""
    own = link_local(mac(n)) if len(target) == 16 else ip(f"10.0.0.{n}")
    source = own if src is None else src
    build = frames.build_ns if len(target) == 16 else frames.build_arp_request
    return w.send(nve, f"tap-vm{n}", build(mac(n), source, target))


@pytest.mark.parametrize("unknown", list(Unknown))
@pytest.mark.parametrize("distribution", list(Distribution))
@pytest.mark.parametrize("admit", list(Admit))
def test_link_local_addresses_are_answered(unknown: Unknown, distribution: Distribution, admit: Admit) -> None:
    w = three(Policy(unknown=unknown, distribution=distribution, admit=admit))
    for _ in range(2):
        for n, nve in ((1, "n1"), (3, "n3")):
            assert ask(w, nve, n, link_local(mac(2))) == [(nve, f"tap-vm{n}")]
            answer = frames.parse_nd(w.out[-1][2])
            assert (answer.target, answer.lladdr) == (link_local(mac(2)), mac(2))
        if not list(w.nva.state.open_moves()):
            move = w.move("vm2", "n3", Kind.HOT)
            w.advance(0.5)
            w.handle(ev.RedirectRequested(move.id))
            w.plug("n3", "tap-vm2")
            w.handle(ev.ActivationReported(move.id))
    w.kill()
    w.start()
    assert ask(w, "n1", 1, link_local(mac(2))) == [("n1", "tap-vm1")]
    w.handle(ev.VmSubmitted("vm2", (replace(w.nva.state.interfaces["vm2/eth0"], mac=mac(22)),)))
    assert answering(w.nva.state, 100, link_local(mac(2))) is None
    assert answering(w.nva.state, 100, link_local(mac(22))) == mac(22)
    assert answering(w.nva.state, 101, link_local(mac(22))) is None


def test_a_registered_address_goes_before_what_a_mac_makes() -> None:
    w = three()
    one = w.nva.state.interfaces["vm1/eth0"]
    w.handle(ev.VmSubmitted("vm1", (replace(one, ipv6=(ip("fe80::7"), link_local(mac(9)))),)))
    assert answering(w.nva.state, 100, ip("fe80::7")) == mac(1)
    w.vm(9, "n1")
    assert answering(w.nva.state, 100, link_local(mac(9))) == mac(1)


def test_nobody_is_told_that_his_own_address_is_taken() -> None:
    w = three(Policy(unknown=Unknown.DROP))
    everybody = [("n2", "tap-vm2"), ("n3", "tap-vm3")]
    for own in (ip("2001:db8::1"), link_local(mac(1))):
        assert sorted(ask(w, "n1", 1, own, bytes(16))) == everybody
    assert ask(w, "n1", 1, link_local(mac(2)), bytes(16)) == [("n1", "tap-vm1")]
    task = Layer3(leave=Leave(Answer.FORWARD, 60))
    here = task.task(1, "n1")
    move, _ = task.handle(ev.MoveRequested("t1", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    task.advance(1.0)
    (new,) = {change.new for change in move.changes if len(change.new) == 16}
    assert task.send("n1", "tap-t1", frames.build_ns(here.mac, bytes(16), new)) == []
    task.through(move, "tap-t1")
    left = here.ipv6[0]
    assert left not in task.nva.state.interfaces["t1/eth0"].ipv6
    assert task.send("n2", "tap-t1", frames.build_ns(here.mac, bytes(16), left)) == []


@pytest.mark.parametrize("target", ["fe80::1234", "169.254.7.7"])
def test_link_local_addresses_that_cannot_be_known_are_asked_for(target: str) -> None:
    everybody = [("n2", "tap-vm2"), ("n3", "tap-vm3")]
    w = three(Policy(unknown=Unknown.DROP, admit=Admit.MAC))
    assert sorted(ask(w, "n1", 1, ip(target))) == everybody
    other = "2001:db8::77" if ":" in target else "10.0.0.77"
    assert ask(w, "n1", 1, ip(other)) == []
    w = three(Policy(unknown=Unknown.DROP))
    assert ask(w, "n1", 1, ip(target)) == []


def test_the_gateway_answers_for_a_layer_3_network() -> None:
    w = Layer3()
    w.task(1, "n1")
    for target, mac_ in (
        ("10.1.1.1", GATEWAY.mac), ("10.1.3.77", GATEWAY.mac), ("192.0.2.1", None),
    ):  # fmt: skip
        assert answering(w.nva.state, w.tasks.vni, ip(target)) == mac_
    assert answering(w.nva.state, w.tasks.vni, link_local(mac(1))) is None


@pytest.mark.parametrize(
    ("address", "found"),
    [("fe80::ff:fe00:1", mac(1)), ("fe80::1", None), ("fe80:1::ff:fe00:1", None), ("10.0.0.1", None)],
)
def test_a_mac_is_read_off_the_address_it_makes(address: str, found: bytes | None) -> None:
    assert mac_of_link_local(ip(address)) == found


@pytest.mark.parametrize(
    ("address", "link"), [("fe80::1", True), ("febf::1", True), ("fec0::1", False), ("2001:db8::1", False),
                          ("169.254.0.1", True), ("169.253.0.1", False)],
)  # fmt: skip
def test_link_local_addresses_are_known_as_such(address: str, link: bool) -> None:
    assert is_link_local(ip(address)) is link
