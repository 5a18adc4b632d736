"""Tunnels that stop to carry while every switch is connected and in sync: told soon, in the right direction, by way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from proof.lab import Lab

from topologies import netns
from topologies.rundir import wait_until

_SOON = 20.0
BOTH = {("nve1", "nve2"), ("nve2", "nve1"), ("nve2", "nve3"), ("nve3", "nve2")}
TO = {pair for pair in BOTH if pair[1] == "nve2"}
FROM = BOTH - TO


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(nves=3, vms=3, quiet_time=1.0) as made:
        yield made


def option(lab: Lab, *words: str) -> None:
    """Set options of nve2's tunnel port; a name alone is removed."""
    for word in words:
        how = ["set", "Interface", "vxlan", f"options:{word}"] if "=" in word else [
            "remove", "Interface", "vxlan", "options", word]
        lab.net.nve("nve2").vsctl(*how)


def drop(lab: Lab, rule: str) -> None:
    """Have the underlay drop what nve2 sends, as far as the rule fits."""
    chain = "{ type filter hook ingress device nve2 priority 0 ; }"
    for command in ("add table netdev t", f"add chain netdev t c {chain}", f"add rule netdev t c {rule} drop"):
        netns.run(netns.inside(lab.net.get("und").namespace, ["nft", command]))


def undrop(lab: Lab) -> None:
    netns.run(netns.inside(lab.net.get("und").namespace, ["nft", "delete table netdev t"]))


CASES = {
    # name: (break, mend, which paths fail, whether small probes cross)
    "no key": (lambda lab: option(lab, "key"), lambda lab: option(lab, "key=flow"), BOTH, False),
    "another UDP port": (
        lambda lab: option(lab, "dst_port=4790"), lambda lab: option(lab, "dst_port"), BOTH, False,
    ),
    "another address": (
        lambda lab: option(lab, "local_ip=192.168.100.77"), lambda lab: option(lab, "local_ip=flow"), TO, False,
    ),
    "a path that drops large packets": (
        lambda lab: drop(lab, "meta length > 1000 udp dport 4789"), undrop, FROM, True,
    ),
}  # fmt: skip


def failing(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.get("/health")["tunnels"]["paths"]
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_broken_tunnel_is_told_with_its_pairs_and_when_it_is_mended(lab: Lab, name: str) -> None:
    break_, mend, wanted, small = CASES[name]
    break_(lab)
    try:
        wait_until(lambda: {(p["source"], p["destination"]) for p in failing(lab)} >= wanted, _SOON, f"{name}: told")
        paths = [p for p in failing(lab) if (p["source"], p["destination"]) in wanted]
        assert {p["small"] for p in paths} == {small} and {p["mtu"] for p in paths} == {1450}
        assert lab.get("/health")["status"] == "degraded"
        assert lab.get("/nves/nve2")["broken"] and lab.get("/nves/nve2")["in_sync"]
        assert all("nve2" in (p["source"], p["destination"]) for p in failing(lab))
    finally:
        mend(lab)
    wait_until(lambda: lab.get("/health")["status"] == "ok", _SOON, f"{name}: mended")


def test_an_edge_without_a_tunnel_port_says_so(lab: Lab) -> None:
    nve = lab.net.nve("nve2")
    nve.vsctl("del-port", "br-int", "vxlan")
    wait_until(lambda: lab.get("/nves/nve2")["lacking"], _SOON, "the port is missed")
    assert lab.get("/nves/nve2")["lacking"]["ports"] == ["vxlan*"]
    assert (lab.get("/health")["status"], lab.get("/health")["nves"]["lacking"]) == ("degraded", ["nve2"])
    nve.vsctl(
        "add-port", "br-int", "vxlan", "--", "set", "Interface", "vxlan", "type=vxlan", "options:remote_ip=flow",
        "options:local_ip=flow", "options:key=flow",
    )
    wait_until(lambda: lab.get("/health")["status"] == "ok", _SOON, "the port is back")
    lab.net.await_pings(seconds=_SOON)
