"""The underlay between emulated switches: what one sends through a tunnel port comes in at the one it names, by the
same kind of port; what one sends to its outer bridge crosses as it is (:mod:`.underlay`).

No I/O: frames cross at once, in order. What leaves by another port is counted and shown to ``on_frame``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

from .switch import Switch
from .tables import Out
from .underlay import Underlay

_Crossing = tuple[Switch, Out, float]


class Fabric:
    """An overlay of switches that reach each other by their underlay addresses.

    ``delivered``: frames that left by each (dpid, port number) other than those that lead to the underlay. ``lost``:
    frames lost in the underlay, by cause. ``storm``: more crossings than this caused by one frame are a loop and
    are cut off. ``underlay``: the outer bridges of switches with a patch port and an IPv6 address, by dpid.
    """

    def __init__(self, switches: Iterable[Switch] = (), storm: int = 100_000) -> None:
        self.switches: dict[int, Switch] = {}
        self.storm = storm
        self.delivered: Counter[tuple[int, int]] = Counter()
        self.underlay: Underlay[int] = Underlay()
        self.lost: Counter[str] = self.underlay.lost
        self.on_frame: Callable[[Switch, int, bytes, float], None] | None = None
        self._by_address: dict[bytes, Switch] = {}
        self._met: set[tuple[int, bytes]] = set()  # underlay neighbors resolved: (dpid, address)
        self._queue: deque[_Crossing] = deque()
        self._draining = False
        for switch in switches:
            self.add(switch)

    def add(self, switch: Switch) -> None:
        """Connect a switch to the underlay.

        Raises:
            ValueError: another switch has its dpid or one of its addresses.
        """
        if switch.dpid in self.switches:
            raise ValueError(f"there is a switch {switch.dpid:016x} already")
        if taken := [a.hex() for a in switch.addresses if a in self._by_address]:
            raise ValueError(f"underlay address {taken[0]} is taken")
        self.switches[switch.dpid] = switch
        for address in switch.addresses:
            self._by_address[address] = switch
            if len(address) == 16 and switch.ila is not None:
                self.underlay.join(switch.dpid, outer_mac(switch.dpid), address, switch.locator)
        switch.emit = self._emit

    def _emit(self, switch: Switch, outs: list[Out], now: float) -> None:
        self._queue.extend((switch, out, now) for out in outs)
        if self._draining:
            return
        self._draining = True
        try:
            crossings = 0
            while self._queue:
                crossings += 1
                if crossings > self.storm:
                    self.lost["storm"] += len(self._queue)
                    self._queue.clear()
                    break
                self._cross(*self._queue.popleft())
        finally:
            self._draining = False

    def _cross(self, switch: Switch, out: Out, now: float) -> None:
        if out.port == switch.ila:
            self._cross_outside(switch, out, now)
            return
        if out.port not in (switch.tunnel, switch.routed):
            self.delivered[switch.dpid, out.port] += 1
            if self.on_frame is not None:
                self.on_frame(switch, out.port, out.frame, now)
            return
        if out.tun_dst is None:
            self.lost["no destination"] += 1
            return
        peer = self._by_address.get(out.tun_dst)
        by_vxlan = out.port == switch.tunnel
        port = None if peer is None else peer.tunnel if by_vxlan else peer.routed
        if out.tun_src not in switch.addresses:
            self.lost["foreign source"] += 1
        elif peer is None or port is None or len(out.tun_src) != len(out.tun_dst):
            self.lost["no such peer"] += 1
        elif switch.faults.lose_first and (switch.dpid, out.tun_dst) not in self._met:
            self._met.add((switch.dpid, out.tun_dst))
            self.lost["unresolved"] += 1
        else:
            self._met.add((switch.dpid, out.tun_dst))
            key = (out.tun_id or 0) & (0xFFFFFF if by_vxlan else 0xFFFFFFFF)  # the bits that VXLAN and GRE carry
            peer.inject(out.frame, port, now, key, out.tun_src, out.tun_dst)

    def _cross_outside(self, switch: Switch, out: Out, now: float) -> None:
        for dpid, frame in self.underlay.send(switch.dpid, out.frame):
            there = self.switches[dpid]
            assert there.ila is not None
            there.inject(frame, there.ila, now)


def outer_mac(dpid: int) -> bytes:
    """The MAC of an NVE's outer bridge and host."""
    return b"\x02\xbe" + (dpid & 0xFFFFFFFF).to_bytes(4, "big")
