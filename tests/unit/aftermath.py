"""What must be so in a layer 3 network whatever has happened there, and what in the end, when all faults are over."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from l3town import SIR, VNI, Layer3
from outside import GATEWAY, packet, ports_of
from tried import ended
from world import ILA, ROUTED, TUNNEL, Box

from ryu_vmm import events as ev
from ryu_vmm.errors import VmmError
from ryu_vmm.model import Distribution, Interface, Network, Nve
from ryu_vmm.paths import path
from ryu_vmm.pipeline import desired

OFFICE = 200
UNDERLAY = {"vxlan": TUNNEL, "gre": ROUTED, "ila": ILA}


class Aftermath:
    """A layer 3 network and one of Ethernet in which something has happened.

    Attributes:
        registered: the edges as they were registered at first.
        tasks, office: the networks as they were registered last.
    """

    w: Layer3
    registered: dict[str, Nve]
    tasks: Network
    office: Network

    def ask(self, event: ev.Event) -> bool:
        """Whether a request is taken."""
        with contextlib.suppress(VmmError):
            self.w.handle(event)
            return True
        return False

    def submit(self, nve: Nve) -> None:
        box = self.w.boxes[nve.name]
        was, box.nve = box.nve, nve
        box.former |= {address for address in (was.ipv4, was.ipv6) if address is not None}
        if not self.ask(ev.NveSubmitted(nve)):
            box.nve = was

    def plug(self, box: Box, port: str) -> None:
        if port in UNDERLAY:
            box.ports.setdefault(port, UNDERLAY[port])
        self.w.plug(box.nve.name, port)

    def _network(self, network: Network) -> None:
        if self.ask(ev.NetworkSubmitted(network)):
            if network.vni == VNI:
                self.tasks = network
            else:
                self.office = network

    # --- what always holds --------------------------------------------------------------------------------------------
    def holds(self) -> None:
        """Switches hold what the directory says, nobody's address is another's, nothing names an edge that is none."""
        state = self.w.nva.state
        whose: dict[tuple[int, bytes], str] = {}
        for i in state.interfaces.values():
            for address in (*i.ipv4, *i.ipv6):
                other = whose.setdefault((state.domain(i.vni)[0], address), i.id)
                assert other == i.id, f"{address.hex()} is of {i.id} and of {other}"
        for left in state.left.values():
            assert left.ila or state.owner(left.vni, left.address) is None, f"{left} is somebody's"
            assert left.interface in state.interfaces, f"{left} is nobody's"
        for what, nves in self._named():
            assert nves <= state.nves.keys(), f"{what} names {sorted(nves - state.nves.keys())}"
        assert not (wrong := self.w.differences()), wrong[:3]
        assert not state.touched, f"touched after all was programmed: {dict(state.touched)}"

    def _named(self) -> list[tuple[str, set[str]]]:
        """What names edges that have to be registered."""
        state = self.w.nva.state
        moves = list(state.open_moves())
        return [
            ("an interface", {i.location.nve for i in state.interfaces.values()}),
            ("what was left", {left.nve for left in state.left.values()}),
            ("an open move", {place.nve for m in moves for leg in m.legs for place in (leg.src, leg.dst)}),
            ("what is unconfirmed", {nve for move in moves for nve in move.unconfirmed}),
            ("what a move waits for", {nve for waits in state.waits.values() for nve in waits}),
            ("membership", {nve for vni in state.networks for nve in state.members(vni)}),
            ("an evacuation", set(state.unfinished)),
        ]

    # --- the end ------------------------------------------------------------------------------------------------------
    def calm(self) -> None:
        """All faults are over: edges are as they were registered at first, moves and evacuations are called off."""
        self.w.underlay.silent.clear()
        for nve in self.registered.values():
            self.submit(nve)
        for name, box in self.w.boxes.items():
            self.w.release(name)
            if not box.connected:
                self.w.connect(name)
            for port in ports_of(box.nve):
                self.plug(box, port)
        for number in list(self.w.nva.state.unfinished.values()):
            self.ask(ev.EvacuationCancelled(number, abort=True))
        for move in list(self.w.nva.state.open_moves()):
            self.ask(ev.AbortRequested(move.id))
        for _ in range(2):  # what was refused while moves were open
            self.w.storm = -(10**9)
            self.w.advance(1500, step=5.0)
            for nve in self.registered.values():
                self.submit(nve)
        for i in self.w.nva.state.interfaces.values():
            if i.location.port not in self.w.boxes[i.location.nve].ports:
                self.w.plug(*i.location)
        self.w.advance(130, step=1.0)
        ended(self.w.nva.state)

    def over(self) -> None:
        """Nothing is under way any more."""
        state = self.w.nva.state
        still = [(move.id, move.state.value, move.unconfirmed) for move in state.open_moves()]
        assert not still, f"moves are open: {still}"
        assert not state.waits and not state.returning, f"waits {state.waits}, returning {state.returning}"
        self.holds()

    def same_after_restart(self) -> None:
        """The records alone say what the flows are, but for what edges have asked and may ask again."""
        pushed = replace(self.office.policy, distribution=Distribution.PUSH)
        self._network(replace(self.office, policy=pushed))
        before = {name: desired(self.w.nva.state, name) for name in self.w.nva.state.sessions}
        self.w.kill()
        self.w.start()
        after = {name: desired(self.w.nva.state, name) for name in self.w.nva.state.sessions}
        assert before.keys() == after.keys()
        for name, flows in before.items():
            lost = [flow for key, flow in flows.items() if after[name].get(key) != flow]
            new = [flow for key, flow in after[name].items() if flows.get(key) != flow]
            assert not lost and not new, f"{name} after a restart: without {lost[:2]}, with {new[:2]}"

    def everybody_reaches_everybody(self) -> None:
        """Each by all its addresses each address of all others, as long as there is a way between their edges."""
        state = self.w.nva.state
        for a in list(state.interfaces.values()):
            for b in list(state.interfaces.values()):
                if a.id == b.id or b.vni not in state.domain(a.vni) or not self._way(a, b):
                    continue
                for src in (*a.ipv4, *a.ipv6):
                    for dst in (*b.ipv4, *b.ipv6):
                        if len(src) == len(dst) and (src[:8] == SIR) == (dst[:8] == SIR):
                            self._reaches(a, src, b, dst)

    def _way(self, a: Interface, b: Interface) -> bool:
        here, there = a.location.nve, b.location.nve
        return here == there or path(self.w.nva.state, here, there) is not None

    def _reaches(self, a: Interface, src: bytes, b: Interface, dst: bytes) -> None:
        """A network that is pulled may lose the first one to ask."""
        to = b.mac if a.vni == b.vni == OFFICE else GATEWAY.mac
        for _ in range(2):
            got = self.w.send(*a.location, packet(src, dst, a.mac, to))
            if got == [tuple(b.location)]:
                return
        raise AssertionError(f"{a.id} at {a.location} to {b.id} at {b.location}, {src.hex()} to {dst.hex()}: {got}")
