"""Layer 3: how many bytes a packet takes on the underlay, and that nothing is lost when tasks move.

Four networks behind two routers (topologies/layer3.py). nve1 and nve2 have ports for tunnels without Ethernet headers,
nve3 has none: what is routed to it is carried by VXLAN. Addresses of a SIR prefix are translated, and not carried in
anything.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from topologies import VM, netns
from topologies.layer3 import Layer3Topo
from topologies.traffic.session import Family

from .capture import Capture, Carried
from .lab import Lab

SIZES = (64, 512, 1400)  # bytes of UDP payload
PACKETS = 20  # of each size
_PORT = 6001
_ARRIVING = 5.0
#: (source, destination): from nve1 to an NVE with such a port, to one without, and under ILA
GRE, VXLAN, ILA = ("cli1", "cli2"), ("cli1", "cli3"), ("far1", "far2")


def laboratory(underlay: str, tasks: int = 1, **more: Any) -> Lab:
    """An overlay of the four networks. `more`: of Layer3Topo, or of the Lab."""
    given: dict[str, Any] = {"routed": ["nve1", "nve2"]}
    known = ("routing", "policies", "leave", "attach", "routed", "nves")
    given.update({name: more.pop(name) for name in known if name in more})
    return Lab(topo=Layer3Topo(underlay=underlay, tasks=tasks, **given), **more)


# --- bytes per packet -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Size:
    """Datagrams of one size by one way. `packet`: bytes of the IP packet; `frame`: of the frame on the underlay.

    `sent` of them left the source's NVE and `arrived` at the receiver's socket as they had been sent. `wrong`:
    checksums found wrong in frames of the underlay, by name; `refused`: datagrams that the receiving kernel discarded
    for a wrong checksum.
    """

    underlay: str
    inside: Family
    how: str
    payload: int
    packet: int
    frame: int
    sent: int
    arrived: int
    wrong: tuple[str, ...]
    refused: int
    expected: str

    @property
    def overhead(self) -> int:
        """Bytes besides the IP packet and the frame's own Ethernet header."""
        return self.frame - self.packet - 14

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.payload} bytes in IPv{self.inside} by {self.expected} over {self.underlay}"

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = []
        if self.how != self.expected:
            found.append(f"carried by {self.how}")
        if self.sent != PACKETS or self.arrived != PACKETS:
            found.append(f"of {PACKETS} datagrams {self.sent} were on the underlay and {self.arrived} arrived")
        if self.wrong or self.refused:
            found.append(f"checksums: {', '.join(self.wrong)}; {self.refused} refused by the kernel")
        return [f"{self.name}: {words}" for words in found]


def ways(underlay: str) -> Iterator[tuple[str, Family, tuple[str, str]]]:
    """(how, inside, (source, destination)) of all ways that there are over such an underlay."""
    families: tuple[Family, ...] = (4, 6)
    for inside in families:
        yield "vxlan", inside, VXLAN
        yield "gre", inside, GRE
    if underlay != "ipv4":
        yield "plain", 6, ILA


def sizes(lab: Lab, payloads: Sequence[int] = SIZES) -> list[Size]:
    """Every way and size."""
    return [
        one(lab, expected, inside, lab.vm(source), lab.vm(target), payload)
        for expected, inside, (source, target) in ways(lab.underlay)
        for payload in payloads
    ]


def one(lab: Lab, expected: str, inside: Family, source: VM, target: VM, payload: int) -> Size:
    """Send datagrams of one size from one task to another, and look at the underlay meanwhile, at both ends."""
    here, there = (vm.spec.ip if inside == 4 else vm.spec.ip6 for vm in (source, target))
    family = socket.AF_INET if inside == 4 else socket.AF_INET6
    contents = [bytes([n]) * payload for n in range(1, PACKETS + 1)]
    refused = _refused(target)
    with Capture(source.nve) as leaving, Capture(target.nve) as arriving:
        with netns.entered(target.namespace):
            receiver = socket.socket(family, socket.SOCK_DGRAM)
        with netns.entered(source.namespace):
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind((there, _PORT))
            sender.bind((here, _PORT))
            got = []
            for content in contents:
                sender.sendto(content, (there, _PORT))
                got += _take(receiver, 1)
            got += _take(receiver, PACKETS - len(got))
        left = [one for one in leaving.stop() if one.sent and _ours(one, contents)]
        came = [one for one in arriving.stop() if not one.sent and _ours(one, contents)]
    frames = {(one.how, one.length, one.inner.length if one.inner else 0) for one in (*left, *came)}
    if len(frames) != 1:
        raise AssertionError(f"{payload} bytes in IPv{inside}, {source.name} to {target.name}: not all alike: {frames}")
    how, frame, packet = frames.pop()
    wrong = tuple(sorted({words for one in (*left, *came) for words in one.wrong}))
    return Size(
        lab.underlay, inside, how, payload, packet, frame, min(len(left), len(came)),
        sum(content in got for content in contents), wrong, _refused(target) - refused, expected,
    )


def _take(receiver: socket.socket, count: int) -> list[bytes]:
    got: list[bytes] = []
    deadline = time.monotonic() + _ARRIVING
    while len(got) < count and select.select([receiver], [], [], max(0.0, deadline - time.monotonic()))[0]:
        got.append(receiver.recv(2048))
    return got


def _ours(one: Carried, contents: Sequence[bytes]) -> bool:
    return one.inner is not None and one.inner.ports == (_PORT, _PORT) and one.inner.payload in contents


def _refused(vm: VM) -> int:
    """Datagrams and segments that a guest's kernel has discarded for a wrong checksum, so far."""
    text = vm.cmd("nstat -asz '*CsumErrors'")
    return sum(int(number) for number in re.findall(r"CsumErrors +(\d+)", text))
