"""The gateway is a neighbor like any other: it answers who pings it, from whatever address that is done."""

from __future__ import annotations

import struct

import pytest
from world import World, ip, mac

from ryu_vmm import events as ev
from ryu_vmm.addresses import link_local
from ryu_vmm.model import Gateway, Network, NetworkKind
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
