"""Layer 3 in a real ryu-manager, over OpenFlow and REST, with emulated switches: every way, every answer, moves."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from nva_lab import Nva, nva  # isort: skip

from ryu_vmm.emulation import packets
from ryu_vmm.emulation.client import Emulation
from ryu_vmm.wire import frames
from ryu_vmm.wire.ip import parse_ip

__all__ = ["nva"]  # fixture

COUNT = 3
GATEWAY = bytes.fromhex("02766d000001")
GATEWAYS = {"ipv4": "169.254.1.1", "ipv6": "fe80::1"}
VXLAN, GRE, ILA = 1, 2, 3
Delivered = list[tuple[int, str, bytes]]


def mac(n: int) -> bytes:
    return b"\x02\0\0\0\0" + bytes([n])


def packed(text: str) -> bytes:
    return ip_address(text).packed


def four(n: int, at: int) -> str:
    return f"10.1.{at}.{n}"


def six(n: int, at: int) -> str:
    return f"2001:db8:1:{at}::{n}"


def sir(n: int) -> str:
    return f"2001:db8:5::{n}"


class Lab:
    """Three NVEs with all ways, and a task of each: task n is t<n>, at nve<n> at first."""

    def __init__(self, nva: Nva) -> None:
        self.nva = nva
        for n in range(1, COUNT + 1):
            nva.post(
                "/nves",
                {
                    "name": f"nve{n}",
                    "dpid": f"{n:016x}",
                    "ipv4": f"192.168.100.{n}",
                    "ipv6": f"fd00:100::{n}",
                    "tunnel_port": "vxlan",
                    "routed_port": "gre",
                    "locator": f"fd00:1:0:{n}::/64",
                    "ila_port": "ila",
                },
            )
        subnets = [
            {"prefix": prefix, "nve": f"nve{n}"}
            for n in range(1, COUNT + 1)
            for prefix in (f"10.1.{n}.0/24", f"2001:db8:1:{n}::/64")
        ]
        network = {"name": "tasks", "vni": 300, "kind": "l3", "gateway": GATEWAYS, "subnets": subnets}
        policy = {"leave": {"answer": "unreachable", "seconds": 60}}
        nva.post("/networks", {**network, "sir": "2001:db8:5::/64", "policy": policy})
        for n in range(1, COUNT + 1):
            self._task(n)
        self.switches: Emulation = nva.emulation()
        self.switches.add([self._switch(n) for n in range(1, COUNT + 1)])
        nva.synchronised(*range(1, COUNT + 1))
        pairs = {(f"nve{a}", f"fd00:100::{b}") for a in range(1, COUNT + 1) for b in range(1, COUNT + 1) if a != b}
        nva.wait(lambda: pairs <= self._neighbors(), "underlay neighbors")
        nva.synchronised(*range(1, COUNT + 1))

    def _task(self, n: int) -> None:
        interface = {"name": "eth0", "network": "tasks", "mac": mac(n).hex(":"), "nve": f"nve{n}", "port": f"tap-t{n}"}
        self.nva.post(
            "/vms",
            {"name": f"t{n}", "interfaces": [{**interface, "ipv4": [four(n, n)], "ipv6": [six(n, n), sir(n)]}]},
        )

    @staticmethod
    def _switch(n: int) -> dict[str, Any]:
        return {
            "dpid": n,
            "ports": ["vxlan", "gre", "ila", *(f"tap-t{m}" for m in range(1, COUNT + 1) if m == n)],
            "addresses": [f"192.168.100.{n}", f"fd00:100::{n}"],
            "locator": f"fd00:1:0:{n}::/64",
        }

    def _neighbors(self) -> set[tuple[str, str]]:
        events = [event["fields"] for event in self.nva.events("underlay.neighbor")]
        return {(fields["nve"], fields["address"]) for fields in events if fields["mac"] is not None}

    def send(self, n: int, frame: bytes, at: int | None = None, expected: int = 1) -> Delivered:
        """Where a frame of a task comes out, and what is answered."""
        answer = self.switches.call(
            "send", dpid=at or n, port=f"tap-t{n}", frames=[frame.hex()], expected=expected, timeout=10.0
        )
        return [(dpid, port, bytes.fromhex(found)) for dpid, port, found in answer["delivered"]]

    def nothing(self, n: int, frame: bytes, at: int | None = None) -> None:
        """A frame of a task comes out nowhere, nor does what was sent before something that does."""
        beacon = frames.build_arp_request(mac(n), packed(four(n, at or n)), packed(GATEWAYS["ipv4"]))
        answer = self.switches.call(
            "send", dpid=at or n, port=f"tap-t{n}", frames=[frame.hex(), beacon.hex()], expected=1, timeout=10.0
        )
        assert [bytes.fromhex(found)[12:14] for _, _, found in answer["delivered"]] == [b"\x08\x06"]

    def way(self, n: int, frame: bytes) -> int | None:
        """By which port a frame leaves the first switch."""
        results = self.switches.call("inject", dpid=n, port=f"tap-t{n}", frame=frame.hex())["results"]
        return next((result["out"] for result in results if "out" in result), None)


def packet(n: int, src: str, dst: str, ttl: int = 64, size: int = 30) -> bytes:
    """A task's packet to its gateway."""
    family = 4 if "." in src else 6
    ends = {f"ipv{family}_src": packed(src), f"ipv{family}_dst": packed(dst)}
    return packets.build(
        {"eth_dst": GATEWAY, "eth_src": mac(n), **ends, "udp_src": 7, "udp_dst": 9, "ip_ttl": ttl}, bytes(size)
    )


def kinds(a: int, b: int) -> dict[int, bytes]:
    """Packets from one task to another, by the port that leads there from another NVE."""
    return {GRE: packet(a, four(a, a), four(b, b)), ILA: packet(a, sir(a), sir(b))}


def routed(frame: bytes, to: int) -> bytes:
    """A packet after its hop."""
    after = packets.rewrite(frame, "ip_ttl", packets.parse(frame)["ip_ttl"] - 1)
    return mac(to) + GATEWAY + after[12:]


@pytest.fixture
def lab(nva: Callable[..., Nva]) -> Lab:
    return Lab(nva(redirect_guard=0.05, quiet_time=1))


def test_ways_and_answers(lab: Lab) -> None:
    for a, b in ((1, 2), (2, 3), (3, 1)):
        frames_ = {**kinds(a, b), 0: packet(a, six(a, a), six(b, b))}
        for way, frame in frames_.items():
            assert lab.send(a, frame) == [(b, f"tap-t{b}", routed(frame, b))]
            assert lab.way(a, frame) == (way or GRE)
    # Who the gateway is, by both protocols
    (answer,) = lab.send(1, frames.build_arp_request(mac(1), packed(four(1, 1)), packed(GATEWAYS["ipv4"])))
    assert (answer[:2], frames.parse_arp(answer[2]).sha) == ((1, "tap-t1"), GATEWAY)
    (answer,) = lab.send(1, frames.build_ns(mac(1), packed(six(1, 1)), packed(GATEWAYS["ipv6"])))
    assert (answer[:2], frames.parse_nd(answer[2]).lladdr) == ((1, "tap-t1"), GATEWAY)
    # What cannot go on is answered by the router, whichever NVE it is that knows
    for src, dst, ttl, said in (
        (four(1, 1), four(2, 2), 1, (1, 11, 0)),
        (six(1, 1), six(2, 2), 1, (58, 3, 0)),
        (four(1, 1), four(99, 2), 64, (1, 3, 1)),
        (six(1, 1), six(99, 1), 64, (58, 1, 3)),
        (four(1, 1), "203.0.113.9", 64, (1, 3, 0)),
    ):
        ((dpid, port, frame),) = lab.send(1, packet(1, src, dst, ttl))
        found = parse_ip(frame)
        assert (dpid, port, found.dst) == (1, "tap-t1", packed(src))
        assert (found.proto, *frame[found.start : found.start + 2]) == said
    # Nobody may speak for others, and nothing is said to all
    lab.nothing(1, packet(1, four(2, 2), four(3, 3)))
    lab.nothing(1, b"\xff" * 6 + packet(1, four(1, 1), "255.255.255.255")[6:])
    assert "Traceback" not in lab.nva.manager.text


@pytest.mark.parametrize("address", ["keep", "change"])
def test_a_task_moves(lab: Lab, address: str) -> None:
    nva = lab.nva
    opened = nva.post("/moves", {"vm": "t1", "to": "nve3", "address": address})
    number = opened["id"]
    nva.wait(lambda: nva.get(f"/moves/{number}")["state"] == "prepared", "the move prepared")
    before = kinds(2, 1)
    for frame in before.values():
        assert lab.send(2, frame) == [(1, "tap-t1", routed(frame, 1))]
    # Before the redirect: what finds no port yet is dropped.
    lab.switches.call("port", dpid=3, name="tap-t1", state="up")
    nva.wait(lambda: any(port["name"] == "tap-t1" for port in nva.get("/nves/nve3")["ports"]), "the port seen")
    nva.synchronised(3)
    nva.post(f"/moves/{number}/redirect")
    nva.wait(lambda: (found := lab.send(2, before[ILA])) and found[0][0] == 3, "the redirect")
    for frame in before.values():
        assert lab.send(2, frame) == [(3, "tap-t1", routed(frame, 1))]
    nva.post(f"/moves/{number}/activate")
    nva.wait(lambda: nva.get(f"/moves/{number}")["state"] == "settled", "the move settled")
    changed = {change["old"]: change["new"] for change in nva.get(f"/moves/{number}")["addresses"]}
    assert set(changed) == ({four(1, 1), six(1, 1)} if address == "change" else set())
    nva.synchronised(1, 2, 3)
    # ILA has taken the identifier along; what is of a subnet goes by host route, or is another address now
    assert lab.send(2, before[ILA]) == [(3, "tap-t1", routed(before[ILA], 1))]
    if address == "keep":
        assert lab.send(2, before[GRE]) == [(3, "tap-t1", routed(before[GRE], 1))]
        return
    new = packet(2, four(2, 2), changed[four(1, 1)])
    assert changed[four(1, 1)] == four(1, 3)
    assert lab.send(2, new) == [(3, "tap-t1", routed(new, 1))]
    ((dpid, _, frame),) = lab.send(2, before[GRE])
    found = parse_ip(frame)
    assert (dpid, found.dst, *frame[found.start : found.start + 2]) == (2, packed(four(2, 2)), 3, 1)
