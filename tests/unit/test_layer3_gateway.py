"""The gateway is a neighbor like any other: it answers who pings it, from whatever address that is done."""

from __future__ import annotations

import struct

import pytest
from l3town import Layer3
from outside import packet
from world import World, ip, mac

from ryu_vmm import events as ev
from ryu_vmm.addresses import link_local
from ryu_vmm.model import Addressing, Admit, Answer, Gateway, Interface, Leave, Network, NetworkKind, Place, Policy
from ryu_vmm.wire.ip import checksum

GATEWAY = Gateway(ipv4=ip("169.254.1.1"), ipv6=ip("fe80::1"))


def echo_request(src: bytes, sender: int = 1) -> bytes:
    """An ICMPv6 echo request from a VM's MAC to fe80::1."""
    body = struct.pack("!BBHHH", 128, 0, 0, 7, 1) + b"payload!"
    assert GATEWAY.ipv6 is not None
    pseudo = src + GATEWAY.ipv6 + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 0x60000000, len(body), 58, 64) + src + GATEWAY.ipv6
    return GATEWAY.mac + mac(sender) + b"\x86\xdd" + head + body


@pytest.mark.parametrize(("src", "answered"), [
    (ip("2001:db8::1"), True), (link_local(mac(1)), True), (link_local(mac(2)), False), (ip("fe80::5"), False),
])  # fmt: skip
def test_a_link_local_gateway_is_pinged_from_ones_own_addresses(src: bytes, answered: bool) -> None:
    w = World(2)
    w.handle(ev.NetworkSubmitted(Network("blue", 100, kind=NetworkKind.L3, gateway=GATEWAY)))
    w.vm(1, "n1")
    w.vm(2, "n2")
    assert w.send("n1", "tap-vm1", echo_request(src)) == ([("n1", "tap-vm1")] if answered else [])


@pytest.mark.parametrize("answer", list(Answer))
def test_nobody_reaches_another_networks_task_by_an_address_that_it_has_left(answer: Answer) -> None:
    w = Layer3(leave=Leave(answer, 60))
    w.task(1, "n1")
    move, _ = w.handle(ev.MoveRequested("t1", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    w.advance(0.5)
    w.through(move, "tap-t1")
    assert w.nva.state.left
    gateway = Gateway(mac(250), ip("172.16.0.1"))
    w.handle(ev.NetworkSubmitted(Network("other", 666, Policy(admit=Admit.MAC), gateway=gateway)))
    guest = Interface("vm6/eth0", "vm6", "eth0", 666, mac(6), (ip("172.16.0.6"),), (), Place("n3", "tap-vm6"))
    w.handle(ev.VmSubmitted("vm6", (guest,)))
    w.plug("n3", "tap-vm6")
    for src, answered in ((ip("10.1.1.1"), []), (guest.ipv4[0], [("n3", "tap-vm6")])):
        frame = gateway.mac + packet(src, ip("198.51.100.1"), guest.mac)[6:]
        assert w.send("n3", "tap-vm6", frame) == answered
    frame = gateway.mac + packet(guest.ipv4[0], ip("10.1.1.1"), guest.mac)[6:]
    assert w.send("n3", "tap-vm6", frame) == [("n3", "tap-vm6")]
    assert w.out[-1][2][34:36] == b"\3\0"  # an unreachable network: there is no such host in this one
