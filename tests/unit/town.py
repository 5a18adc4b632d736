"""Guests in two networks with the same addresses in both, whose frames say what they are.

Guests 1, 2, 3 are blue; 4, 5 and 6 are red, with the addresses of 1, 2 and 3. Guest 6 is the second interface of guest
3's VM. Every frame names its network, sender and receiver in its payload, so that each that leaves any port is checked
against whose port that is.
"""

from __future__ import annotations

import dataclasses
import os

from world import World, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.model import Interface, Place, Policy, Redirect
from ryu_vmm.wire import frames

#: Multiplies the number of examples: VMM_EXAMPLES in the environment.
TIMES = int(os.environ.get("VMM_EXAMPLES", "1"))
NVES = ["n1", "n2", "n3", "n4"]
BLUE, RED = [1, 2, 3], [4, 5, 6]
GUESTS = [*BLUE, *RED]
VMS = [1, 2, 3, 4, 5]
VNI = {**dict.fromkeys(BLUE, 100), **dict.fromkeys(RED, 200)}
#: VM -> its guests: what has an interface of its own.
OF_VM = {1: [1], 2: [2], 3: [3, 6], 4: [4], 5: [5]}
#: Where VMs are at first: one NVE has guests of both networks, two of each; one has none.
HOME = {1: "n2", 2: "n3", 3: "n2", 4: "n1", 5: "n2"}
VM_OF = {guest: vm for vm, guests in OF_VM.items() for guest in guests}


def tap(guest: int) -> str:
    """The name of a guest's port, on whichever NVE."""
    return f"tap-vm{guest}"


def key(guest: int) -> str:
    """The id of a guest's interface."""
    return f"vm{VM_OF[guest]}/eth{OF_VM[VM_OF[guest]].index(guest)}"


def said(sent: bytes) -> tuple[int, int, int, int] | None:
    """VNI, sender, receiver and number of a frame; None: it says nothing."""
    text = sent[42:62] if sent[12:14] == b"\x08\0" else sent[62:82]
    if not text.isdigit():
        return None
    return int(text[:3]), int(text[3:4]), int(text[4:5]), int(text[5:])


class Town(World):
    """A world with both networks and all guests, each VM on some NVE, with all others where it may show up."""

    def __init__(self, policy: Policy | None = None, **more: object) -> None:
        #: guest -> the number in its addresses
        self.host = {1: 1, 2: 2, 3: 3, 4: 1, 5: 2, 6: 3}
        #: whether a guest may have passed for one of the other network, by its policy: see nobody_else_hears
        self.anybody = False
        super().__init__(4, **more)  # type: ignore[arg-type]
        self.network("blue", 100, policy)
        self.network("red", 200, policy)
        for vm in VMS:
            self.register(vm, HOME[vm])
            for guest in OF_VM[vm]:
                self.plug(HOME[vm], tap(guest))

    def register(self, vm: int, nve: str) -> None:
        """Register a VM, or again with other addresses; the same place as the last time says nothing new."""
        self.handle(ev.VmSubmitted(f"vm{vm}", tuple(self._interface(guest, nve) for guest in OF_VM[vm])))

    def _interface(self, guest: int, nve: str) -> Interface:
        vm, name = key(guest).split("/")
        host = self.host[guest]
        elsewhere = tuple(Place(other, tap(guest)) for other in NVES if other != nve)[: guest % 3]
        mine = ((ip(f"10.0.0.{host}"),), (ip(f"2001:db8::{host}"),))
        return Interface(
            key(guest), vm, name, VNI[guest], mac(host), *mine, Place(nve, tap(guest)), attachments=elsewhere
        )

    def change_address(self, guest: int) -> None:
        """Give a guest other addresses, or those that it had before."""
        was = self.host[guest]
        self.host[guest] = was + 20 if was < 20 else was - 20
        try:
            said = self.nva.state.wishes.get(f"request/vms/vm{VM_OF[guest]}")
            self.register(VM_OF[guest], NVES[0] if said is None else said.interfaces[0].location.nve)
        except BaseException:
            self.host[guest] = was
            raise

    def readdress(self, nve: str) -> None:
        """Give an NVE another underlay address, or the one that it had before."""
        box = self.boxes[nve]
        old = box.nve.ipv4 or b""
        new = dataclasses.replace(box.nve, ipv4=old[:3] + bytes([old[3] ^ 0x80]))
        box.former |= {old}
        box.nve = new
        self.handle(ev.NveSubmitted(new))

    def frame(self, a: int, b: int, number: int = 0) -> bytes:
        """From guest a to guest b, saying so."""
        text = f"{VNI[a]:03}{a}{b}{number:015}".encode()
        return unicast(self.host[a], self.host[b], text)

    def to_all(self, a: int, number: int = 0) -> bytes:
        """From guest a to all of its network, saying so."""
        return b"\xff" * 6 + self.frame(a, a, number)[6:]

    def sign_of_life(self, guest: int, how: str) -> bytes:
        """What a guest sends when it starts to run somewhere."""
        own, host = mac(self.host[guest]), self.host[guest]
        return {
            "garp": frames.build_garp(own, ip(f"10.0.0.{host}")),
            "na": frames.build_unsolicited_na(own, ip(f"2001:db8::{host}")),
            "rarp": frames.build_rarp_request(own),
            "data": unicast(host, 99),
        }[how]

    def nobody_else_hears(self) -> None:
        """Every frame that left by any port so far was for that port's guest, or for all of its network.

        Where a network trusts any port, a port belongs to whose MAC announces itself there, and that is what was asked
        for: with a MAC that is in one of the networks only, since a guest is not registered or has another by now, a
        guest may pass for one of the other network, and stays it when ports are trusted no more.
        """
        state = self.nva.state
        one_only = any(key(guest) not in state.interfaces for guest in GUESTS) or self._macs(BLUE) != self._macs(RED)
        self.anybody = self.anybody or (state.trusting and one_only)
        for nve, port, sent in [] if self.anybody else self.out:
            owner, words = int(port.removeprefix("tap-vm")), said(sent)
            if words is not None:
                vni, a, b, _ = words
                assert VNI[owner] == vni, (nve, port, a, b)
                assert sent[0] & 1 or owner == b, (nve, port, a, b)
        self.out.clear()

    def _macs(self, guests: list[int]) -> set[bytes]:
        known = self.nva.state.interfaces
        return {known[key(guest)].mac for guest in guests if key(guest) in known}

    def everybody_sends(self) -> None:
        """Every guest sends to every other of its network, and to all, from wherever it has a port."""
        for a in GUESTS:
            for name, box in self.boxes.items():
                if tap(a) not in box.ports:
                    continue
                for b in GUESTS:
                    if a != b and VNI[a] == VNI[b]:
                        before, frame = len(self.out), self.frame(a, b)
                        self.send(name, tap(a), frame)
                        out = [(where, port) for where, port, sent in self.out[before:] if sent == frame]
                        assert len(out) <= 1, (a, b, out)
                self.send(name, tap(a), self.to_all(a))
        self.nobody_else_hears()

    def settled(self) -> bool:
        """Whether every switch is told at once what it should do."""
        sessions = self.nva.state.sessions
        quick = not self.late and not self.hold_barriers and len(sessions) == len(NVES)
        return quick and all(s.synced and s.tunnel for s in sessions.values())

    def reach_each_other(self) -> None:
        """Every guest at home reaches every other exactly once, where the directory and the open moves say it is."""
        state = self.nva.state
        for a in GUESTS:
            home = state.interfaces.get(key(a))
            if home is None or state.port_at(home.location) is None:
                continue
            for b in GUESTS:
                there = state.interfaces.get(key(b))
                if a == b or VNI[a] != VNI[b] or there is None:
                    continue
                expected = there.location
                active = state.active_move(there.id)
                if active is not None:
                    move, leg = active
                    at_destination = home.location.nve == leg.dst.nve and move.redirect is Redirect.DESTINATION
                    if at_destination or move.redirect in (Redirect.SOURCE, Redirect.IN_FORCE):
                        expected = leg.dst
                out = self.send(home.location.nve, home.location.port, self.frame(a, b))
                assert out == ([expected] if state.port_at(expected) is not None else []), (a, b)
        self.nobody_else_hears()
