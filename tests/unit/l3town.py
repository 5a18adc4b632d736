"""A layer 3 network with a subnet for each NVE, and an identifier for each task that ILA moves with it."""

from __future__ import annotations

from dataclasses import replace

from outside import GATEWAY, packet
from world import World, ip, mac

from ryu_vmm import events as ev
from ryu_vmm.model import Interface, Leave, Move, Network, NetworkKind, Place, Policy, Subnet
from ryu_vmm.wire.ip import parse_ip

VNI = 300
SIR = ip("2001:db8:5::")[:8]


def subnets(count: int) -> tuple[Subnet, ...]:
    """10.1.<n>.0/24 and 2001:db8:1:<n>::/64 of n<n>."""
    four = [Subnet(ip(f"10.1.{n}.0"), 24, f"n{n}") for n in range(1, count + 1)]
    six = [Subnet(ip(f"2001:db8:1:{n}::"), 64, f"n{n}") for n in range(1, count + 1)]
    return (*four, *six)


class Layer3(World):
    """Task <n> at NVE a has 10.1.<a>.<n>, 2001:db8:1:<a>::<n> and the identifier ::<n>."""

    def __init__(self, nves: int = 3, leave: Leave | None = None, **more: object) -> None:
        more = {"family": 46, "layer3": True, **more}
        super().__init__(nves, **more)  # type: ignore[arg-type]
        policy = Policy() if leave is None else Policy(leave=leave)
        self.tasks = Network(
            "tasks", VNI, policy, kind=NetworkKind.L3, gateway=GATEWAY, subnets=subnets(nves), sir=SIR
        )
        self.handle(ev.NetworkSubmitted(self.tasks))

    def task(self, n: int, nve: str, leave: Leave | None = None) -> Interface:
        """Register a task and plug it in."""
        at, name = int(nve[1:]), f"t{n}"
        interface = Interface(
            f"{name}/eth0",
            name,
            "eth0",
            VNI,
            mac(n),
            (ip(f"10.1.{at}.{n}"),),
            (ip(f"2001:db8:1:{at}::{n}"), SIR + n.to_bytes(8, "big")),
            Place(nve, f"tap-{name}"),
        )
        self.handle(ev.VmSubmitted(name, (interface,), leave=leave))
        self.plug(nve, f"tap-{name}")
        return interface

    def sent(self, sender: Interface, dst: bytes, which: int | None = None, ttl: int = 64, size: int = 20) -> bytes:
        """A packet of a task to an address: from its own of that kind, ILA's to ILA's."""
        state = self.nva.state
        sender = state.interfaces.get(sender.id, sender)
        pool = sender.ipv4 if len(dst) == 4 else sender.ipv6
        at = which if which is not None else (-1 if dst[:8] == SIR else 0)
        return packet(pool[at], dst, sender.mac, ttl=ttl, payload=b"x" * size)

    def hops(self, sender: Interface, dst: bytes, **more: int) -> list[tuple[str, str]]:
        """Where a packet of a task comes out."""
        place = self.nva.state.interfaces[sender.id].location
        return self.send(place.nve, place.port, self.sent(sender, dst, **more))

    def last(self) -> bytes:
        """The frame that came out of a port last."""
        return self.out[-1][2]

    def through(self, move: Move, port: str) -> Move:
        """Take a move to its end."""
        self.handle(ev.RedirectRequested(move.id))
        self.advance(0.1)
        self.plug(move.destination, port)
        self.handle(ev.ActivationReported(move.id))
        self.advance(5.0)
        return self.current(move)


def well_formed(frame: bytes) -> bool:
    """Whether a frame's checksums are right, by a second implementation."""
    found = parse_ip(frame)
    payload = frame[found.start : found.end]
    pseudo = found.src + found.dst + len(payload).to_bytes(4, "big") + (found.proto or 0).to_bytes(4, "big")
    if found.version == 4:
        if _sum(frame[14 : found.start]):
            return False
        if found.proto == 1:
            pseudo = b""
    return not _sum(pseudo + payload + bytes(len(payload) & 1))


def _sum(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def only(interface: Interface, **fields: object) -> Interface:
    """The same interface with other fields."""
    return replace(interface, **fields)  # type: ignore[arg-type]
