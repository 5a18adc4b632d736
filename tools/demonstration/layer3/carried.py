"""Chapter 1: one datagram by each of three ways, as it lies on the underlay."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass
from typing import Any

from proof.capture import ETHERNET, Capture, Carried
from rich.table import Table
from rich.text import Text

from topologies import VM, OverlayNet, netns
from topologies.rundir import wait_until
from topologies.traffic.session import Family

from ..account import table
from ..narrator import Narrator
from . import cast
from .claims import Claims
from .frames import Layer, layers

CHAPTER = "ways"
_PORT = 6001
_PAYLOAD = b"A task may move; who talks to it need not know where it is now. "
assert len(_PAYLOAD) == 64
_ARRIVING = 5.0  # seconds
#: what `proof.capture` calls it, for people, (source, destination), what to say about it
_WAYS = (
    ("vxlan", "VXLAN", (cast.MUTE, cast.DESKS[1]), "an Ethernet frame in UDP: what every NVE can do"),
    ("gre", "GRE", (cast.MUTE, cast.DESKS[0]), "no Ethernet inside: between NVEs that both have such a port"),
    ("plain", "ILA", (cast.CAMERA, cast.PHONES[1]), "no tunnel: the guest's own packet, its identifier at a locator"),
)
_WIDE = 98  # columns of a window in which rows of 16 bytes and what they say fit side by side
_OVERHEAD, _OWN = "yellow", "bright_blue"


@dataclass(frozen=True)
class Way:
    """One datagram and how it was carried. `arrived`: the receiver's socket got it as it was sent."""

    expected: str
    name: str
    inside: Family
    source: VM
    target: VM
    seen: Carried
    arrived: bool

    @property
    def packet(self) -> int:
        """Bytes of the guest's IP packet."""
        return self.seen.inner.length if self.seen.inner else 0

    @property
    def overhead(self) -> int:
        """Bytes besides that and the frame's own Ethernet header."""
        return self.seen.length - self.packet - ETHERNET

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "way": self.name, "carried": self.seen.how, "inside": f"ipv{self.inside}",
            "underlay": f"ipv{self.seen.outer.family}", "from": self.source.name, "to": self.target.name,
            "payload": len(_PAYLOAD), "packet": self.packet, "frame": self.seen.length, "overhead": self.overhead,
            "wrong_checksums": list(self.seen.wrong), "arrived": self.arrived, "bytes": self.seen.data.hex(),
        }


def run(net: OverlayNet, narrator: Narrator, claims: Claims) -> list[Way]:
    """Send, capture, show. Raises TopologyError."""
    narrator.show()
    narrator.say("1  One packet by three ways: its bytes on the underlay, as captured", "bold blue")
    narrator.add(f"A datagram of {len(_PAYLOAD)} bytes. Yellow: what only the underlay is concerned with; blue: what "
                 "the guest has sent")
    found = []
    for expected, name, (source, target), words in _WAYS:
        own = [_one(net, expected, name, inside, source, target) for inside in _families(expected)]
        found += own
        _tell(narrator, own[-1], words)
    for way in found:
        words = f"IPv{way.inside} from {way.source.name} to {way.target.name}"
        claims.want(CHAPTER, f"{words} is carried by {way.name}", way.seen.how == way.expected, way.seen.how)
        claims.want(CHAPTER, f"{words} arrives as it was sent", way.arrived)
        claims.none(CHAPTER, f"wrong checksums, {words}", len(way.seen.wrong))
    sizes = {(way.expected, way.inside): way.overhead for way in found}
    claims.want(CHAPTER, "ILA adds nothing", sizes["plain", 6] == 0, sizes["plain", 6])
    fewer = all(sizes["gre", inside] < sizes["vxlan", inside] for inside in (4, 6))
    claims.want(CHAPTER, "a tunnel without Ethernet adds less than VXLAN", fewer)
    claims.measured["ways"] = [way.document() for way in found]
    return found


def _families(expected: str) -> tuple[Family, ...]:
    return (6,) if expected == "plain" else (4, 6)


def _one(net: OverlayNet, expected: str, name: str, inside: Family, source_: str, target_: str) -> Way:
    source, target = net.vm(source_), net.vm(target_)
    here, there = ((vm.spec.ip if inside == 4 else vm.spec.ip6) for vm in (source, target))
    family = socket.AF_INET if inside == 4 else socket.AF_INET6
    with Capture(target.nve) as capture:
        with netns.entered(target.namespace):
            receiver = socket.socket(family, socket.SOCK_DGRAM)
        with netns.entered(source.namespace):
            sender = socket.socket(family, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind((there, _PORT))
            sender.bind((here, _PORT))
            sender.sendto(_PAYLOAD, (there, _PORT))
            arrived = _arrived(receiver, str(here))
        seen = wait_until(lambda: _ours(capture), _ARRIVING, f"a datagram from {source.name} on the underlay")
    return Way(expected, name, inside, source, target, seen, arrived)


def _arrived(receiver: socket.socket, source: str) -> bool:
    deadline = time.monotonic() + _ARRIVING
    while select.select([receiver], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data, sender = receiver.recvfrom(2048)
        if data == _PAYLOAD and sender[0] == source:
            return True
    return False


def _ours(capture: Capture) -> Carried | None:
    for one in capture.seen():
        if not one.sent and one.inner and one.inner.ports == (_PORT, _PORT) and one.inner.payload == _PAYLOAD:
            return one
    return None


# --- for people -------------------------------------------------------------------------------------------------------
def _tell(narrator: Narrator, way: Way, words: str) -> None:
    narrator.show()
    narrator.detail(way.name, words, "bold")
    added = f"{way.overhead} of them for the tunnel" if way.overhead else "none for a tunnel"
    narrator.add(f"IPv{way.inside} from {way.source.name} at {way.source.nve.name} to {way.target.name} at "
                 f"{way.target.nve.name}: {way.seen.length} bytes, {added}")
    for layer in layers(way.seen.data):
        for line in _lines(layer, way, 16 if narrator.console.width >= _WIDE else 8):
            narrator.show(line)


def _lines(layer: Layer, way: Way, size: int) -> list[Text]:
    """A header in rows of `size` bytes, and what they say."""
    style = _OWN if layer.inner else _OVERHEAD
    data = layer.data[:size] if layer.name == "payload" else layer.data
    rows = [data[at : at + size] for at in range(0, len(data), size)]
    says = list(layer.meaning)
    if way.expected == "plain" and layer.name == "IPv6":
        says.insert(2, f"(sent to {way.target.spec.ip6})")
    lines = []
    for n in range(max(len(rows), len(says))):
        row = rows[n].hex(" ", -4) if n < len(rows) else ""
        row += " ..." if layer.name == "payload" else ""
        head = f"{layer.name:<10}{len(layer.data):>3}  " if n == 0 else " " * 15
        lines.append(Text.assemble(
            " " * 4, (head, style), (f"{row:<{size * 9 // 4 + 5}}", style), (says[n] if n < len(says) else "", "dim"),
        ))
    return lines


def tables(ways: list[Way]) -> Table:
    """How many bytes one datagram takes."""
    outer = sorted({way.seen.outer.family for way in ways if way.expected != "plain"})
    underlay = " and ".join(f"IPv{family}" for family in outer)
    made = table(f"One datagram of {len(_PAYLOAD)} bytes, tunnels over {underlay}", "", "IP packet", "on the underlay",
                 "added", "checksums")
    for way in ways:
        sums = Text("wrong", style="red") if way.seen.wrong else Text("right", style="green")
        made.add_row(f"IPv{way.inside}, {way.name}", f"{way.packet}", f"{way.seen.length}", f"{way.overhead}", sums)
    return made
