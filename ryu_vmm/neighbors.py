"""Underlay neighbors of ILA: each NVE's next hops towards the locators of others, resolved and kept.

A packet of ILA leaves an NVE as any other IPv6 packet of the underlay, so the NVE has to know the MAC of its next hop.
The NVA has it ask by neighbor solicitation (RFC 4861), from a MAC and a link-local address of its own, and takes the
answer from the flow that hands over advertisements. Until there is one, and when none has come for too long, packets
travel by tunnel.
"""

from __future__ import annotations

from .addresses import format_ip, format_mac, link_local
from .domains import Hop, hop_key
from .flows import Output
from .routing import ila_mac
from .wire import frames
from .work import Work

#: Seconds between solicitations: while there is no answer, doubling up to RETRY_MAX, and to keep an answer fresh. The
#: underlay's bridges remember the NVE's MAC by these as well.
RETRY, RETRY_MAX, REFRESH = 0.25, 8.0, 15.0
#: Seconds without an answer after which a neighbor is held to be gone.
GONE = 50.0


class Neighbors:
    """Asks for next hops, and takes in what they answer."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._heard: dict[str, float] = {}
        self._tries: dict[str, int] = {}

    def follow(self) -> None:
        """What a step has changed may be reason to ask: an NVE is there, or has joined a network of ILA."""
        state = self._work.state
        joined = any(vni in state.networks and state.networks[vni].sir is not None for vni, _ in state.joined)
        if not joined and not any(
            table in ("offers", "networks", "nves") or (table == "sessions" and new is not None and new.synced)
            for table, _, _, new in state.since(0)
        ):
            return
        for nve in state.sessions:
            session = self._work.session(nve)
            if session is not None and session.ila is not None and self._wanted(nve):
                self._tries.pop(nve, None)
                self.solicit(nve)

    def _wanted(self, nve: str) -> set[bytes]:
        """The next hops towards all NVEs that an NVE may send to by ILA."""
        state = self._work.state
        hops: set[bytes | None] = set()
        for vni in state.networks_of(nve):
            if vni in state.networks and state.networks[vni].sir is not None:
                peers = [p for p in state.members(vni) if p != nve and state.nves[p].locator is not None]
                hops.update(state.next_hop(nve, peer) for peer in peers)
        return {hop for hop in hops if hop is not None}

    def solicit(self, nve: str) -> None:
        """Ask for what is not known, or not known to be so still; and come back."""
        state, now = self._work.state, self._work.now
        session, wanted = self._work.session(nve), self._wanted(nve)
        if session is None or session.ila is None or not wanted:
            return
        missing = False
        mac = ila_mac(state.nves[nve])
        for address in sorted(wanted):
            key = hop_key(nve, address)
            if key in state.hops and now - self._heard.setdefault(key, now) > GONE:
                state.put("hops", key, None)
                self._work.report("underlay.neighbor", nve=nve, address=format_ip(address), mac=None)
            missing = missing or key not in state.hops
            self._work.send(nve, (Output(session.ila),), frames.build_ns(mac, link_local(mac), address))
        tries = self._tries.get(nve, 0)
        self._tries[nve] = tries + 1 if missing else 0
        pause = min(RETRY_MAX, RETRY * 2 ** min(tries, 8)) if missing else REFRESH
        state.put("clock", ("hops", nve), now + pause)

    def advertised(self, nve: str, frame: bytes) -> None:
        """An underlay neighbor says where it is: believed if this NVE asks for it. Raises DecodeError."""
        state = self._work.state
        nd = frames.parse_nd(frame)
        if nd.type != frames.NA or nd.lladdr is None or nd.lladdr[0] & 1 or nd.target not in self._wanted(nve):
            self._work.count("drop.unasked-advertisement")
            return
        hop = Hop(nve, nd.target, nd.lladdr)
        self._heard[hop.key] = self._work.now
        if state.hops.get(hop.key) != hop:
            state.put("hops", hop.key, hop)
            self._work.report("underlay.neighbor", nve=nve, address=format_ip(nd.target), mac=format_mac(nd.lladdr))
