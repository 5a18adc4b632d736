"""Who is a member of a layer 3 network, and what that means for the routes of all others."""

from __future__ import annotations

import pytest
from world import World, ip

from ryu_vmm import events as ev
from ryu_vmm.flows import DecTtl
from ryu_vmm.model import Gateway, Network, NetworkKind, Subnet
from ryu_vmm.tables import ROUTE

GATEWAY = Gateway(ipv4=ip("169.254.1.1"), ipv6=ip("fe80::1"))


def to_subnets(w: World, nve: str) -> int:
    """How many routes to other NVEs' subnets an NVE has."""
    routes = [f for f in w.installed(nve).values() if f.table == ROUTE and 101 <= f.priority <= 228]
    return sum(isinstance(flow.actions[0], DecTtl) for flow in routes)


@pytest.mark.parametrize("router", [None, "one"])
def test_an_nve_that_joins_later_has_its_subnet_led_to_and_one_that_leaves_has_not(router: str | None) -> None:
    w = World(3)
    subnets = tuple(Subnet(ip(f"10.0.{n}.0"), 24, f"n{n}") for n in (1, 2, 3))
    for name, vni, own in (("blue", 100, subnets), ("red", 200, ())):
        network = Network(name, vni, kind=NetworkKind.L3, gateway=GATEWAY, subnets=own, router=router)
        w.handle(ev.NetworkSubmitted(network))
    w.vm(1, "n1")
    assert to_subnets(w, "n1") == 0
    w.vm(2, "n2")
    assert (to_subnets(w, "n1"), to_subnets(w, "n2")) == (1, 1)
    w.vm(3, "n3", vni=200)  # a member of the router's networks, all of them
    joined = 2 if router else 1
    assert (to_subnets(w, "n1"), to_subnets(w, "n2")) == (joined, joined)
    assert w.differences() == []
    w.handle(ev.VmWithdrawn("vm3"))
    w.handle(ev.VmWithdrawn("vm2"))
    assert to_subnets(w, "n1") == 0
    assert w.differences() == []
