"""What is outside of NVEs: outer bridges, hosts that answer for their addresses, a router that knows locators."""

from __future__ import annotations

import pytest
from outside import ROUTER, ROUTER_MAC, ip, locator, packet

from ryu_vmm.emulation.fabric import outer_mac
from ryu_vmm.emulation.underlay import Underlay
from ryu_vmm.wire import frames

ILA = [b"", *(b"\x02\x69\0\0\0" + bytes([n]) for n in (1, 2, 3))]
LINK = ip("fe80::69")
SENDER = ip("2001:db8:5::1")


def underlay(router: bool = False) -> Underlay[str]:
    found: Underlay[str] = Underlay()
    for n in (1, 2, 3):
        found.join(f"n{n}", outer_mac(n), host(n), locator(n))
    if router:
        found.route("r", ROUTER_MAC, ROUTER)
    return found


def host(n: int) -> bytes:
    return ip(f"fd00:100::{n}")


def located(n: int) -> bytes:
    return locator(n) + bytes(7) + b"\x05"


def ila(to: int, mac: bytes, ttl: int = 64) -> bytes:
    """From n1's inner bridge to a task of another NVE."""
    return packet(SENDER, located(to), ILA[1], mac, ttl)


def asked(target: bytes, by: int = 1) -> bytes:
    return frames.build_ns(ILA[by], LINK, target)


def test_a_packet_for_a_locator_comes_out_of_the_patch_port() -> None:
    frame = ila(2, outer_mac(2))
    assert underlay().send("n1", frame) == [("n2", frame)]


def test_the_mac_decides_which_bridge_and_the_locator_whether_it_hands_over() -> None:
    wire = underlay()
    assert wire.send("n1", ila(3, outer_mac(2))) == []  # n2's host takes nothing of the kind
    assert wire.send("n1", packet(SENDER, host(2), ILA[1], outer_mac(2))) == []
    assert wire.send("n1", packet(ip("10.0.0.1"), ip("10.0.0.2"), ILA[1], outer_mac(2))) == []


def test_a_packet_for_the_own_locator_goes_nowhere() -> None:
    """The outer bridge would send it out where it came in."""
    wire = underlay()
    assert wire.send("n1", ila(1, outer_mac(1))) == []
    assert wire.lost == {"own locator": 1}


def test_an_unknown_mac_is_flooded_and_handed_over_where_the_locator_is() -> None:
    """Bridges do not look at MACs before their flows: what is flooded reaches whose locator it is for, once."""
    frame = ila(2, b"\x02\x99\0\0\0\1")
    assert underlay().send("n1", frame) == [("n2", frame), ("n3", frame)]


def test_hosts_answer_for_their_addresses() -> None:
    wire = underlay()
    question = asked(host(2))
    heard = wire.send("n1", question)
    others = [("n2", question), ("n3", question)]
    assert heard[:-1] == others
    name, answer = heard[-1]
    found = frames.parse_nd(answer)
    assert name == "n1"
    assert (found.type, found.target, found.lladdr, found.eth_dst) == (frames.NA, host(2), outer_mac(2), ILA[1])
    assert found.flags == frames.NA_SOLICITED | frames.NA_OVERRIDE


def test_the_own_host_answers_too() -> None:
    (*_, (name, answer)) = underlay().send("n1", asked(host(1)))
    assert (name, frames.parse_nd(answer).lladdr) == ("n1", outer_mac(1))


@pytest.mark.parametrize("target", ["fd00:100::9", "fd00:1:0:2::5"])
def test_nobody_answers_for_others(target: str) -> None:
    wire = underlay()
    assert {name for name, _ in wire.send("n1", asked(ip(target)))} == {"n2", "n3"}


def test_silence_and_cuts() -> None:
    wire = underlay()
    wire.silent.add("n2")
    assert {name for name, _ in wire.send("n1", asked(host(2)))} == {"n2", "n3"}
    wire.silent.clear()
    wire.reaches = lambda a, b: (a, b) != ("n2", "n1")
    assert {name for name, _ in wire.send("n1", asked(host(2)))} == {"n2", "n3"}  # the answer is lost
    wire.reaches = lambda a, b: (a, b) != ("n1", "n2")
    assert wire.send("n1", ila(2, outer_mac(2))) == []
    assert wire.lost["cut"]


def test_an_inner_bridge_can_be_reached_by_the_mac_that_it_sends_from() -> None:
    wire = underlay()
    wire.send("n2", asked(host(1), by=2))
    frame = packet(host(1), LINK, ILA[1], ILA[2])
    assert wire.send("n1", frame) == [("n2", frame)]


def test_a_router_leads_to_locators() -> None:
    wire = underlay(router=True)
    heard = wire.send("n1", asked(ROUTER))
    assert frames.parse_nd(heard[-1][1]).lladdr == ROUTER_MAC
    expected = packet(SENDER, located(2), ROUTER_MAC, outer_mac(2), 63)
    assert wire.send("n1", ila(2, ROUTER_MAC)) == [("n2", expected)]
    back = packet(SENDER, located(1), ROUTER_MAC, outer_mac(1), 63)
    assert wire.send("n1", ila(1, ROUTER_MAC)) == []  # the own bridge has that locator
    assert wire.send("n2", packet(SENDER, located(1), ILA[2], ROUTER_MAC)) == [("n1", back)]
    assert wire.send("n1", ila(9, ROUTER_MAC)) == []
    assert wire.send("n1", ila(2, ROUTER_MAC, ttl=1)) == []
    assert wire.send("n1", packet(ip("10.0.0.1"), ip("10.0.0.2"), ILA[1], ROUTER_MAC)) == []
    assert wire.lost == {"own locator": 1, "no route": 2, "hop limit": 1}


def test_who_leaves_is_forgotten() -> None:
    wire = underlay()
    wire.leave("n2")
    assert wire.send("n1", ila(2, outer_mac(2))) == [("n3", ila(2, outer_mac(2)))]  # flooded, as nobody knows the MAC
    assert wire.send("n2", ila(1, outer_mac(1))) == []
    assert wire.lost == {"not connected": 1}
    wire.join("n2", outer_mac(2), host(2), locator(9))
    assert wire.send("n1", ila(9, outer_mac(2))) == [("n2", ila(9, outer_mac(2)))]
    with pytest.raises(ValueError, match="locator"):
        wire.join("n2", outer_mac(2), host(2), bytes(16))


def test_noise_on_the_wire() -> None:
    wire = underlay(router=True)
    for noise in (b"", b"\xff" * 3, bytes(14), ROUTER_MAC + ILA[1] + b"\x86\xdd", asked(host(2))[:60]):
        for _, frame in wire.send("n1", noise):
            assert frame == noise
