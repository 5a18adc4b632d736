"""The story of planned moves, told of tasks: networks of layer 3, every way that packets have, addresses that stay.

Guests are those of town.py, with addresses of the subnets of the NVEs where they are at first and one of ILA each; what
they say is sent by all three in turn, to the one neighbor that they know.
"""

from __future__ import annotations

from dataclasses import replace

from outside import GATEWAY, packet
from story import PATIENT, Country, Story
from town import BLUE, GUESTS, HOME, NVES, VM_OF, VNI, key, said, tap
from world import ip, mac

from ryu_vmm import events as ev
from ryu_vmm.model import Addressing, Interface, Network, NetworkKind, Place, Policy, Subnet
from ryu_vmm.nva import Settings
from ryu_vmm.wire import frames
from ryu_vmm.wire.ip import parse_ip

#: VNI -> the prefix of its tasks' identifiers.
SIR = {VNI[1]: ip("2001:db8:5::")[:8], VNI[4]: ip("2001:db8:6::")[:8]}


def subnets() -> tuple[Subnet, ...]:
    """Two for each NVE: 10.1.<n>.0/24 and 2001:db8:1:<n>::/64 of n<n>."""
    four = [Subnet(ip(f"10.1.{n[1:]}.0"), 24, n) for n in NVES]
    return (*four, *(Subnet(ip(f"2001:db8:1:{n[1:]}::"), 64, n) for n in NVES))


class TaskCountry(Country):
    """A country whose networks are of layer 3, with the same addresses in both but for those of ILA."""

    def __init__(self, policy: Policy, settings: Settings) -> None:
        super().__init__(policy, settings, family=46, layer3=True)

    def network(self, name: str = "blue", vni: int = 100, policy: Policy | None = None) -> Network:
        kind, ours = NetworkKind.L3, subnets()
        network = Network(name, vni, policy or Policy(), kind=kind, gateway=GATEWAY, subnets=ours, sir=SIR[vni])
        self.handle(ev.NetworkSubmitted(network))
        return network

    def addresses(self, guest: int) -> tuple[bytes, bytes, bytes]:
        """A guest's: of IPv4, of IPv6, and the one that ILA moves."""
        at, host = HOME[VM_OF[guest]][1:], self.host[guest]
        identifier = (VNI[guest] << 16 | host).to_bytes(8, "big")  # nobody else's, in whichever network
        return ip(f"10.1.{at}.{host}"), ip(f"2001:db8:1:{at}::{host}"), SIR[VNI[guest]] + identifier

    def _interface(self, guest: int, nve: str) -> Interface:
        found = super()._interface(guest, nve)
        four, six, sir = self.addresses(guest)
        return Interface(
            found.id, found.vm, found.name, found.vni, found.mac, (four,), (six, sir), found.location,
            attachments=found.attachments,
        )  # fmt: skip

    def present(self, guest: int) -> tuple[bytes, ...]:
        """The addresses that a guest has by now, or will have where its move takes it."""
        state = self.nva.state
        found = state.interfaces[key(guest)]
        active = state.active_move(found.id)
        new = {c.old: c.new for c in active[0].changes if c.interface == found.id} if active is not None else {}
        moved = active is not None and self.moved(guest)
        return tuple(new.get(a, a) if moved else a for a in (*found.ipv4, *found.ipv6))

    def moved(self, guest: int) -> bool:
        """Whether a guest knows that it is somewhere else by now; see the story."""
        return False

    def frame(self, a: int, b: int, number: int = 0) -> bytes:
        """By way of the gateway, in one of three ways by its number, to an address that the receiver has always had."""
        text = f"{VNI[a]:03}{a}{b}{number:015}".encode()
        way = number % 3
        return packet(self.present(a)[way], self.addresses(b)[way], mac(self.host[a]), payload=text)

    def sign_of_life(self, guest: int, how: str) -> bytes:
        own, (four, six, sir) = mac(self.host[guest]), self.present(guest)
        return {
            "garp": frames.build_garp(own, four),
            "na": frames.build_unsolicited_na(own, six),
            "rarp": frames.build_rarp_request(own),
            "data": packet(sir, SIR[VNI[guest]] + bytes(7) + b"\x63", own),
        }[how]

    def at_destination(self, guest: int) -> Place:
        """Where a guest's interface is, by the directory."""
        return self.nva.state.interfaces[key(guest)].location


class TaskStory(Story):
    """Nobody hears what is said to all in a network of layer 3; every packet has one hop behind it."""

    def __init__(self, policy: Policy, settings: Settings = PATIENT) -> None:
        super().__init__(policy, settings, country=TaskCountry)
        self.w.moved = lambda guest: self.at[VM_OF[guest]] != self.w.at_destination(guest).nve  # type: ignore[attr-defined]

    def do(self, action: tuple) -> None:  # type: ignore[type-arg]
        match action:
            case ("fall silent", name):
                self.w.underlay.silent.add(name)
            case ("answer again", name):
                self.w.underlay.silent.discard(name)
            case _:
                super().do(action)

    def talk(self) -> None:
        """Every guest that runs sends a packet of each kind to every other of its network."""
        for a in GUESTS:
            for b in BLUE if a in BLUE else [b for b in GUESTS if b not in BLUE]:
                for _ in range(3 if a != b and VM_OF[a] not in self.paused else 0):
                    self.number += 1
                    self.sent[self.number] = b
                    self.w.send(self.at[VM_OF[a]], tap(a), self.w.frame(a, b, self.number))
        self.listen()

    def listen(self) -> None:
        for _, port, sent in self.w.out:
            if said(sent) is not None:
                found = parse_ip(sent)
                assert found.ttl == 63, (port, found)
                assert sent[6:12] == GATEWAY.mac, (port, found)
        super().listen()


class Readdressed(TaskStory):
    """Tasks that take addresses of their destination's subnets, and go on to be reached at the ones that they had."""

    def ask(self, event: ev.Event) -> bool:
        if isinstance(event, ev.MoveRequested):
            event = replace(event, address=Addressing.CHANGE)
        return super().ask(event)
