"""One topology after another on an NVA that runs on, and switches of no topology at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proof.authority import Authority

from topologies import OverlayNet
from topologies.errors import ApiError
from topologies.rundir import wait_until


@pytest.fixture
def nva(tmp_path: Path) -> Iterator[Authority]:
    with Authority(tmp_path) as running:
        yield running


def overlay(nva: Authority, **wanted: Any) -> OverlayNet:
    return OverlayNet(controller=nva.address, rest=nva.base, **wanted)


def test_a_second_topology_takes_the_place_of_the_first(nva: Authority) -> None:
    """Other underlay, other networks, fewer guests, one of which has moved in the first."""
    with overlay(nva, nves=3, vms=4, vns=2, overlap=True) as first:
        first.wait_for_nva()
        first.register()
        nva.rest.await_synced(nve.name for nve in first.nves)
        first.vm("vm1").move("nve3")
        wait_until(lambda: not nva.rest.call("GET", "/moves?state=open")["items"], 30, "the move's end", 0.1)
    with overlay(nva, nves=2, vms=3, vns=1, underlay="ipv6") as second:
        second.wait_for_nva()
        second.register()
        second.await_pings()
        second.register()  # again: nothing changes
        assert second.ping() == 0.0
        known = {vm["name"]: vm["interfaces"][0]["nve"] for vm in nva.rest.call("GET", "/vms")["items"]}
        assert known == {vm.name: vm.nve.name for vm in second.vms}
        # A third one beside it has no place, changes nothing, and is told what to do.
        before = [nva.rest.call("GET", f"/{what}")["items"] for what in ("networks", "vms")]
        with overlay(nva, nves=1, vms=1) as third:
            with pytest.raises(ApiError, match=r"another switch is connected as nve1 .*stop that one"):
                third.register()
            assert not third.try_register()
        after = [nva.rest.call("GET", f"/{what}")["items"] for what in ("networks", "vms")]
        assert [[row["name"] for row in rows] for rows in after] == [[row["name"] for row in rows] for rows in before]
        second.await_pings()


def test_what_is_no_topologys_is_left_alone(nva: Authority) -> None:
    mine = {"name": "nve1", "dpid": "00000000000000f1", "ipv4": "192.0.2.1"}
    nva.rest.call("POST", "/nves", mine)
    with overlay(nva, nves=1, vms=1) as net:
        with pytest.raises(ApiError, match="nve1 is registered with datapath id 00000000000000f1"):
            net.register()
        nva.await_event("nve.unregistered", None, dpid="0000000000000001")
    assert nva.rest.call("GET", "/nves/nve1")["dpid"] == mine["dpid"]
