"""What layer 3 rests on, without the NVA: tunnels without Ethernet, translated addresses, and the instruments."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from handmade import Routes
from proof import layer3
from proof.capture import Capture
from proof.raw import Card

from topologies import OverlayNet
from topologies.layer3 import Layer3Topo
from topologies.netns import run


@pytest.fixture(scope="module", params=[("ipv4", False), ("ipv6", True)], ids=["ipv4", "ipv6 with a router"])
def net(request: pytest.FixtureRequest) -> Iterator[OverlayNet]:
    underlay, routing = request.param
    topo = Layer3Topo(underlay=underlay, routing=routing, routed=["nve1", "nve2"])
    with OverlayNet(topo=topo, controller=None) as built:
        Routes(built)
        yield built


def reach_each_other(net: OverlayNet, *vms: str) -> None:
    """Ping until the underlay's neighbors are resolved and nothing is lost. Raises NotReady."""
    net.await_pings([net.vm(name) for name in vms])


def test_every_way_takes_the_bytes_it_should_with_right_checksums(net: OverlayNet) -> None:
    reach_each_other(net, "cli1", "cli2", "cli3")
    reach_each_other(net, "far1", "far2", "far3")
    outer = 40 if net.topo.underlay == "ipv6" else 20
    overhead = {"vxlan": outer + 8 + 8 + 14, "gre": outer + 12, "plain": 0}
    lab = SimpleNamespace(underlay=net.topo.underlay, vm=net.vm)
    found = layer3.sizes(lab, (64, 1400))  # type: ignore[arg-type]
    assert [problem for one in found for problem in one.problems()] == []
    assert [one.overhead for one in found] == [overhead[one.how] for one in found]
    assert {one.how for one in found} == ({"vxlan", "gre"} if outer == 20 else {"vxlan", "gre", "plain"})


def test_a_locator_is_led_to_br_int_again_after_a_crash(net: OverlayNet) -> None:
    nve = net.nve("nve2")
    if nve.locator is None:
        assert net.topo.underlay == "ipv4"
        return
    nve.crash()
    nve.restart()
    assert f"ipv6_dst={nve.locator}" in run(["ovs-ofctl", "dump-flows", f"unix:{nve.folder}/br-ext.mgmt"])
    nve.ofctl("add-flows", "-", stdin="\n".join(Routes(net).flows(nve)))
    reach_each_other(net, "far1", "far2")


def test_a_frame_without_a_payload_of_ip_crosses_a_tunnel_without_ethernet(net: OverlayNet) -> None:
    """Its Ethernet type travels in the GRE header: probes of the NVA need no other way."""
    reach_each_other(net, "cli1", "cli2")
    one, two = net.nve("nve1"), net.nve("nve2")
    a, b = ((nve.ipv4 or nve.ipv6 or "").partition("/")[0] for nve in (one, two))
    field = "tun_ipv6" if ":" in a else "tun"
    two.ofctl("add-flow", f"priority=65000,in_port=2,dl_type=0x88b5,tun_id=0xffffff,{field}_src={a},"
                          f"actions=set_field:02:00:00:00:00:02->eth_dst,output:{two.ofport('tap-cli2')}")
    with Capture(one) as seen, Card(net.vm("cli2")) as card:
        one.ofctl("packet-out", f"in_port=controller packet={'ff' * 6}02000000000188b5{'5a' * 46} actions="
                                f"set_field:0xffffff->tun_id,set_field:{a}->{field}_src,set_field:{b}->{field}_dst,output:2")
        frame = card.await_frame(lambda frame: frame[12:14] == b"\x88\xb5")
        assert seen.await_seen(lambda one: one.how == "gre" and one.vni == 0xFFFFFF) is not None
    assert frame is not None
    assert (frame[6:12], frame[14:60]) == (bytes(6), b"\x5a" * 46)
