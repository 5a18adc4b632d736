"""Proving the tunnels between NVEs all the time, moves or not: nothing is believed because it was set up once.

A tunnel that has stopped to carry shows nowhere else: both switches are connected, hold exactly the flows that they
should, and count what they send. So the NVA has probes of the networks' full MTU sent from each NVE to each other one
that it shares a network with, by every way that is in use between them, pair after pair, at a rate that does not depend
on their number; soon after a change, else in turn. A probe's nonce is good once, for that pair; it counts only where
it was to arrive, from the underlay address of its sender.

A path is not working after TRIES probes in a row that were not answered, while both ends were connected and in sync.
Probes are lost, too, where the NVA itself is late: then nothing is concluded from that. Of a path one of whose ends is
away nothing is known, so nothing is said.

What is remembered is about paths that wait for an answer, at most MOST of them: a thousand NVEs have a million paths.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from .limits import PROBE_METER
from .model import BrokenPath, Lacking
from .paths import path
from .probes import send_probe
from .redirects import By, Crossing, ways
from .tables import metered
from .work import Work

#: Seconds in which a probe is answered; after that it is sent again.
TIMEOUT = 0.6
#: Seconds between two probes of a path that does not work, at least: those of all such paths take no more than half the
#: rate, so that the others are proven all the same.
RETRY = 2.0
#: Probes in a row without an answer after which a path does not work.
TRIES = 3
#: Seconds between two looks while there is more to send.
TICK = 0.1
#: Seconds that the NVA may be behind its own timer before it believes that its answers are behind, too.
LATE = 0.25
#: Paths that are looked at in one step, at most: many may be in no use, and each costs some microseconds.
LOOKS = 256
#: Paths that may wait for an answer, or be known not to work. Others wait for their turn.
MOST = 4096
#: Paths that wait to be proven out of turn; more are proven in turn.
MOST_URGENT = 16_384
#: MTU of the probe that tells a path that carries nothing from one that carries no large packets.
SMALL = 128


@dataclass(slots=True)
class _Try:
    """A path that waits for an answer. ``due``: when it is probed again; ``nonces`` of its probes: whether small."""

    first: float
    due: float = 0.0
    probes: int = 0
    small: bool = False
    nonces: dict[bytes, bool] = field(default_factory=dict)


class Tunnels:
    """Sends the probes, and tells which paths do not work."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._secret = secrets.token_bytes(16)
        self._sent = 0
        self._tries: dict[Crossing, _Try] = {}
        self._nonces: dict[bytes, Crossing] = {}
        self._due: list[tuple[float, Crossing]] = []  # a heap; what its path's own ``due`` differs from is out of date
        self._urgent: dict[Crossing, None] = {}
        self._round: deque[Crossing] = deque()
        self._senders: deque[str] = deque()
        self._round_began = float("-inf")
        self._looked = self._wanted_at = 0.0
        self._allowed = 0.0

    # --- what happens -------------------------------------------------------------------------------------------------
    def changed(self, nve: str, networks: Iterable[int] | None = None) -> None:
        """An NVE has joined networks (None: it has come, or changed altogether): prove its paths soon, both ways."""
        if not self._work.settings.tunnel_rate or self._work.session(nve) is None:
            return  # it is told of again when it is in sync
        for pair in self._paths(nve, networks) if len(self._urgent) < MOST_URGENT else ():
            if len(self._urgent) >= MOST_URGENT:
                break
            self._urgent[pair] = None
            for back in self._ways(pair.there, pair.here):
                self._urgent[back] = None
        self._wake(TICK)

    def ports_are(self, nve: str) -> None:
        """Say which ports to the underlay an NVE ought to have and does not show, or that it has them now."""
        state = self._work.state
        own, session, before = state.nves[nve], state.sessions[nve], state.lacking.get(nve)
        names = (own.tunnel_port or "vxlan*", own.routed_port, own.ila_port)
        wanted = zip(names, (session.tunnel, session.routed, session.ila), strict=True)
        missing = tuple(name for name, number in wanted if name is not None and number is None)
        if missing == (() if before is None else before.ports):
            return
        if missing:
            state.put("lacking", nve, Lacking(missing, before.since if before else self._work.now))
            self._work.report("tunnel.missing", nve=nve, ports=list(missing))
        else:
            state.put("lacking", nve, None)
            self._work.report("tunnel.found", nve=nve)

    def gone(self, nve: str) -> None:
        """An NVE's connection has ended."""
        self._work.state.put("lacking", nve, None)
        self.away(nve)

    def away(self, nve: str) -> None:
        """Nothing can be known of an NVE's paths: it is not connected and in sync."""
        for pair in [pair for pair in self._tries if nve in (pair.here, pair.there)]:
            self._drop(pair, f"{nve} is away")

    def time(self) -> None:
        """Send what is due: again what was not answered, then what is urgent, then what is next in turn."""
        work, now = self._work, self._work.now
        rate = work.settings.tunnel_rate
        if not rate:
            return
        since, self._looked = now - self._looked, now
        late = now > self._wanted_at + LATE
        self._allowed = min(self._allowed + since * rate, max(1.0, rate * TICK * 2))
        while self._due and self._due[0][0] <= now and self._allowed >= 1:
            due, pair = heappop(self._due)
            found = self._tries.get(pair)
            if found is not None and found.due == due:
                self._unanswered(pair, found, late)
        for _ in range(LOOKS):
            pair_next = self._next() if self._allowed >= 1 and len(self._tries) < MOST else None
            if pair_next is None:
                break
            waits = self._tries.get(pair_next)
            if waits is not None and waits.due > now - RETRY:
                continue
            if waits is None and self._is_wanted(pair_next):
                self._probe(pair_next, _Try(now))
            elif waits is not None:  # a step that was to probe it again was undone
                self._probe(pair_next, waits)
        self._wake(self._pause())

    def returned(self, nve: str, nonce: bytes, source: bytes | None) -> bool:
        """A probe arrived at ``nve`` from an underlay address (None: it came by no tunnel). False: none of ours."""
        pair = self._nonces.get(nonce)
        if pair is None:
            return False
        way = path(self._work.state, pair.there, pair.here)
        if pair.there != nve or way is None or (pair.by is not By.ILA and source != way.there):
            self._work.count("tunnel.misled")
            return True
        found = self._tries[pair]
        if found.nonces[nonce]:
            found.small = True
            return True
        self._work.count("tunnel.answered")
        self._forget(pair)
        broken = self._work.state.broken.get(pair)
        if broken is not None:
            self._work.state.put("broken", pair, None)
            seconds = round(self._work.now - broken.since, 3)
            self._work.report("tunnel.restored", **_told(pair, broken), seconds=seconds)
        return True

    # --- paths --------------------------------------------------------------------------------------------------------
    def _paths(self, nve: str, networks: Iterable[int] | None = None) -> Iterator[Crossing]:
        """The ways from an NVE to all that it shares a network with."""
        state = self._work.state
        peers: set[str] = set()
        for vni in tuple(state.networks_of(nve)) if networks is None else networks:
            peers.update(state.members(vni))
        for peer in sorted(peers - {nve}):
            if self._work.session(peer) is not None:
                yield from self._ways(nve, peer)

    def _shared(self, here: str, there: str) -> set[int]:
        state = self._work.state
        return set(state.networks_of(here)).intersection(state.networks_of(there))

    def _ways(self, here: str, there: str) -> list[Crossing]:
        """The ways that packets take from one NVE to another; none if they share no network."""
        shared = self._shared(here, there)
        return ways(self._work.state, here, there, shared) if shared else []

    def _is_wanted(self, pair: Crossing) -> bool:
        """Whether a path is in use, and both its ends can be asked: the one to send, the other to hand probes over."""
        state, here, there = self._work.state, self._work.session(pair.here), self._work.session(pair.there)
        if here is None or there is None or not metered(state, pair.there, PROBE_METER):
            return False
        if pair.by is By.ILA:
            known = state.hop(pair.here, pair.there) is not None
        else:
            known = None not in ((here.routed, there.routed) if pair.by is By.ROUTED else (here.tunnel, there.tunnel))
        return known and pair in self._ways(pair.here, pair.there)

    def _next(self) -> Crossing | None:
        """What to prove next; None: nothing is due before the next round."""
        if self._urgent:
            pair = next(iter(self._urgent))
            del self._urgent[pair]
            return pair
        while not self._round:
            if not self._senders:
                if self._work.now < self._round_began + self._work.settings.tunnel_interval:
                    return None
                self._round_began = self._work.now
                self._senders.extend(sorted(self._work.state.sessions))
                if not self._senders:
                    return None
            self._round.extend(self._paths(self._senders.popleft()))
        return self._round.popleft()

    # --- probes -------------------------------------------------------------------------------------------------------
    def _probe(self, pair: Crossing, found: _Try) -> None:
        """Send a probe of a path; where earlier ones were not answered a small one, too."""
        work = self._work
        self._tries[pair] = found
        for small in (False, True) if found.probes == TRIES - 1 or pair in work.state.broken else (False,):
            self._sent += 1
            nonce = hashlib.blake2b(f"{self._sent} {pair}".encode(), digest_size=16, key=self._secret).digest()
            found.nonces[nonce] = small
            self._nonces[nonce] = pair
            self._allowed -= 1
            work.count("tunnel.probes")
            send_probe(work, pair, nonce, SMALL if small else self._mtu(pair))
        while len(found.nonces) > 2 * TRIES:  # an answer that comes later than that is none
            oldest = next(iter(found.nonces))
            del found.nonces[oldest], self._nonces[oldest]
        found.probes += 1
        found.due = work.now + (self._retry() if pair in work.state.broken else TIMEOUT)
        heappush(self._due, (found.due, pair))

    def _retry(self) -> float:
        """Seconds until a path that does not work is probed again, with two probes."""
        return max(RETRY, 4 * len(self._work.state.broken) / self._work.settings.tunnel_rate)

    def _mtu(self, pair: Crossing) -> int:
        """The largest MTU of the networks that two NVEs share, in bytes."""
        networks = self._work.state.networks
        return max((networks[vni].policy.mtu for vni in self._shared(pair.here, pair.there)), default=SMALL)

    def _unanswered(self, pair: Crossing, found: _Try, late: bool) -> None:
        """The time for an answer is over."""
        if not self._is_wanted(pair):
            self._drop(pair, "it is not in use, or one of its ends is away")
            return
        broken = self._work.state.broken.get(pair)
        if late and broken is None:
            found.probes, found.first = 0, self._work.now
        else:
            self._work.count("tunnel.unanswered")
        if broken is not None or found.probes >= TRIES:
            told = BrokenPath(broken.since if broken else found.first, self._mtu(pair), found.probes, found.small)
            self._work.state.put("broken", pair, told)
            if broken is None:
                self._work.report("tunnel.failed", **_told(pair, told))
        self._probe(pair, found)

    def _drop(self, pair: Crossing, why: str) -> None:
        """Nothing more will be known of a path for now."""
        self._forget(pair)
        broken = self._work.state.broken.get(pair)
        if broken is not None:
            self._work.state.put("broken", pair, None)
            self._work.report("tunnel.unknown", **_told(pair, broken), why=why)

    def _forget(self, pair: Crossing) -> None:
        for nonce in self._tries.pop(pair).nonces:
            del self._nonces[nonce]

    # --- when ---------------------------------------------------------------------------------------------------------
    def _pause(self) -> float:
        """Seconds until there is something to do."""
        if self._urgent or self._round or self._senders:
            return TICK
        now = self._work.now
        ahead = self._round_began + self._work.settings.tunnel_interval - now
        return max(TICK, min([ahead, *([self._due[0][0] - now] if self._due else [])]))

    def _wake(self, pause: float) -> None:
        """Look again after so many seconds, unless that is sooner anyway; never while nobody is connected."""
        state, due = self._work.state, self._work.now + pause
        if state.clock.get(("tunnels", ""), float("inf")) > due and len(state.sessions) > 1:
            state.put("clock", ("tunnels", ""), due)
            self._wanted_at = due


def _told(pair: Crossing, broken: BrokenPath) -> dict[str, object]:
    return {
        "source": pair.here,
        "destination": pair.there,
        "way": str(pair.by).strip() or "by VXLAN",
        "since": broken.since,
        "mtu": broken.mtu,
        "probes": broken.probes,
        "small_cross": broken.small,
    }
