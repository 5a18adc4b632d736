"""A network's number that is corrupted on the underlay: noticed by the tunnel's checksum, with and without Ethernet."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from handmade import Routes
from proof import raw
from proof.capture import Capture, Carried

from topologies import OverlayNet, VNSpec, netns
from topologies.specs import GATEWAY_MAC, subnets, task

ONE, OTHER = 100, 101  # one bit apart
_ETH_P_ALL = 3


@pytest.fixture(params=[(under, how) for under in ("ipv4", "ipv6") for how in ("vxlan", "gre")], ids="-".join)
def net(request: pytest.FixtureRequest) -> Iterator[OverlayNet]:
    """Two edges that both serve two tenants, whose guests have the same addresses."""
    underlay, how = request.param
    nves = ["nve1", "nve2"]
    vns = [VNSpec(f"vn{vni}", vni, kind="l3", subnets=subnets(1, nves)) for vni in (ONE, OTHER)]
    vms = [
        task(f"vm{n}-{vn.vni}", vn, nve, f"10.1.{n}.1", f"2001:db8:1:{n}::1", n)
        for vn in vns for n, nve in enumerate(nves, 1)
    ]  # fmt: skip
    with OverlayNet(nves=2, vms=vms, vns=vns, underlay=underlay, routed="gre" if how == "gre" else None,
                    controller=None) as built:  # fmt: skip
        Routes(built)
        for vni in (ONE, OTHER):
            built.await_pings([built.vm(f"vm{n}-{vni}") for n in (1, 2)])
        yield built


def flipped(seen: Carried) -> bytes:
    """The frame with the last bit of its network's number wrong, and nothing else."""
    body = seen.outer.body
    inside = 14 if seen.how == "vxlan" else 11 if body[0] & 0x80 else 7  # behind UDP; behind GRE's checksum, if any
    at = seen.data.index(body) + inside
    assert seen.data[at] == ONE
    return seen.data[:at] + bytes([OTHER]) + seen.data[at + 1 :]


def datagram(net: OverlayNet, payload: bytes) -> bytes:
    here, there = net.vm(f"vm1-{ONE}"), net.vm(f"vm2-{ONE}")
    assert here.spec.ip is not None
    assert there.spec.ip is not None
    return raw.udp4(raw.mac(GATEWAY_MAC), raw.mac(here.spec.mac), raw.ip(here.spec.ip), raw.ip(there.spec.ip), payload)


def reached(net: OverlayNet, payload: bytes, unchecked: bool = False) -> list[str]:
    """The guests at nve2 that a packet reaches whose number was corrupted on its way; the packet itself follows it.

    unchecked: UDP without checksum, which Open vSwitch does not send over IPv6 whatever its port says.
    """
    with Capture(net.nve("nve1")) as capture, raw.Card(net.vm(f"vm1-{ONE}")) as sender:
        sender.send(datagram(net, payload))
        seen = capture.await_seen(lambda one: one.sent and payload in one.data)
    assert seen is not None
    with netns.entered(net.underlay.namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, _ETH_P_ALL)
    cards = {vni: raw.Card(net.vm(f"vm2-{vni}")) for vni in (ONE, OTHER)}
    got = []
    with wire, cards[ONE], cards[OTHER]:
        wire.bind(("nve2", 0))
        wrong = flipped(seen)
        if unchecked and seen.how == "vxlan":
            at = seen.data.index(seen.outer.body) + 6
            wrong = wrong[:at] + bytes(2) + wrong[at + 2 :]
        wire.send(wrong)
        wire.send(seen.data)
        assert cards[ONE].await_frame(lambda frame: payload in frame), "the packet as it was does not arrive"
        for vni, card in cards.items():
            got += [f"vm2-{vni}" for frame in card.during(0.2) if payload in frame]
    return got


def test_a_corrupted_number_reaches_nobody_and_without_checksums_the_other_tenant(net: OverlayNet) -> None:
    assert reached(net, b"with checksum") == []
    net.nve("nve1").vsctl(*_without(net))  # the control: the sender's checksum is what the receiver has to go by
    assert reached(net, b"and without", unchecked=True) == [f"vm2-{OTHER}"]


def _without(net: OverlayNet) -> list[str]:
    words: list[str] = []
    for port in ("vxlan", "gre") if net.nve("nve1").routed else ("vxlan",):
        words += ["--", "set", "Interface", port, "options:csum=false"]
    return words[1:]
