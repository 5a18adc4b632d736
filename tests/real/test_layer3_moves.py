"""Tasks that move and keep their addresses, by host routes and by ILA, at 2,000 datagrams/s each way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from proof import layer3, tasks
from proof.lab import Lab

from topologies.traffic.session import Family, UdpSession, both_ways

QUIET = 1.0  # the least that the NVA allows, for short tests


@pytest.fixture(scope="module", params=["ipv4", "ipv6"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Without ILA over IPv4; the task ends where there are no tunnels without Ethernet."""
    with layer3.laboratory(request.param, quiet_time=QUIET) as made:
        yield made


@pytest.mark.parametrize("to", ["nve2", "nve3"])
@pytest.mark.parametrize("inside", [4, 6])
def test_nothing_is_lost_or_doubled_by_host_routes(lab: Lab, inside: Family, to: str) -> None:
    moved(lab, tasks.HOST_ROUTE, inside, to)


@pytest.mark.parametrize("to", ["nve2", "nve3"])
def test_nothing_is_lost_or_doubled_by_ila(lab: Lab, to: str) -> None:
    """Over IPv4 there are no locators: addresses of the same network have host routes."""
    move = moved(lab, tasks.ILA, 6, to)
    assert move.how == ("host route" if lab.underlay == "ipv4" else "ILA")


def moved(lab: Lab, who: tasks.Who, inside: Family, to: str) -> tasks.TaskMove:
    move = tasks.one(lab, who, inside, to=to)
    assert move.problems() == []
    assert move.report.destination == to
    vm = lab.vm(who[0])
    for other in lab.net.vms:
        if other is not vm and other.vn.reaches(vm.vn):
            assert lab.net.ping([vm, other]) == 0.0, other.name
    return move


def test_tasks_with_the_same_addresses_behind_another_router_never_meet(lab: Lab) -> None:
    """alien1 has the addresses that task1 has; both move, by both families, while others send to either."""
    task, alien = lab.vm("task1"), lab.vm("alien1")
    assert (task.spec.ip, task.spec.ip6) == (alien.spec.ip, alien.spec.ip6)
    families: tuple[Family, ...] = (4, 6)
    pairs = [
        pair for family in families for one, other in ((task, lab.vm("cli2")), (alien, lab.vm("alien2")))
        for pair in both_ways(one, other, family, 1000)
    ]
    with UdpSession(pairs, quiet=0.3) as session:
        reports = [vm.move(lab.next_nve(vm), announce="none", settle=20.0) for vm in (task, alien)]
        for report in reports:
            lab.await_closed(report.move)
        out = session.stop()
    assert (out.lost, out.duplicated, out.foreign, out.dropped) == (0, 0, 0, 0)
    assert min(flow.count.sent for flow in out.flows) > 1000
    assert lab.verify() == []
