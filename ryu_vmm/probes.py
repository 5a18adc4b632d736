"""Proving tunnel paths before anything depends on them.

A probe is a full-size frame that one NVE sends through its tunnel and the other hands to the NVA. It shows that the
path exists, that it carries the network's MTU, and, not least, it resolves the underlay neighbor: a userspace
datapath drops the packet that has to wait for that.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .flows import Output
from .model import PROBE_VNI, Move
from .paths import path, tunnel_to
from .redirects import By, Crossing, crossings
from .routing import ila_mac
from .wire import frames
from .work import Work

#: NVEs with more peers than that are left to resolve their underlay neighbors by themselves.
WARM_PEERS = 128
#: The nonce of frames that only resolve underlay neighbors.
WARMING = bytes(16)
#: Seconds allowed for each probe to be sent, to cross and to be taken in, before any is repeated.
PER_PROBE = 0.002
#: Rounds of probes in which an NVE that is new to ILA may resolve its next hops.
PATIENCE = 4


@dataclass(frozen=True, slots=True)
class Proof:
    """How far the proof of a move's paths has come: path -> seconds from first sending to arrival."""

    started: float
    missing: frozenset[Crossing]
    proven: dict[Crossing, float]
    rounds: int = 0


def send_probe(work: Work, crossing: Crossing, nonce: bytes, mtu: int) -> None:
    """Have an NVE send a probe of ``mtu`` bytes over a path, if it has what it takes."""
    state, here, there = work.state, crossing.here, crossing.there
    way, session = path(state, here, there), work.session(here)
    if way is None or session is None:
        return
    if crossing.by is By.ILA:
        own, other, hop = state.nves[here].locator, state.nves[there].locator, state.hop(here, there)
        if own is not None and other is not None and hop is not None and session.ila is not None:
            macs = (hop.mac, ila_mac(state.nves[here]))
            work.send(here, (Output(session.ila),), frames.build_located_probe(nonce, mtu, macs, (other, own)))
        return
    port = session.routed if crossing.by is By.ROUTED else session.tunnel
    if port is not None:
        work.send(here, tunnel_to(way, PROBE_VNI, port), frames.build_probe(nonce, mtu))


class Prober:
    """Sends probes and recognises those that come back."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._secret = secrets.token_bytes(16)
        self._nonces: dict[bytes, tuple[int, Crossing]] = {}
        self._nonces_of: dict[int, set[bytes]] = {}
        self._warmed: dict[str, set[str]] = {}

    def start(self, move: Move) -> bool:
        """Send the first probes of a move; True if there is nothing to prove."""
        self._work.state.put("probes", move.id, Proof(self._work.now, frozenset(), {}))
        return self.send(move)

    def send(self, move: Move) -> bool:
        """Send a probe over every path that is not proven yet, and come back if that does not do.

        Which paths those are is asked anew each time: correspondents come and go. True if there is none.
        """
        state, settings = self._work.state, self._work.settings
        proof: Proof | None = state.probes.get(move.id)
        if proof is None:
            return False
        pairs = {c for c in crossings(state, move) if self._work.session(c.here) and self._work.session(c.there)}
        if proof.rounds >= PATIENCE:  # what is not resolved by now takes the tunnels
            pairs = {c for c in pairs if c.by is not By.ILA or state.hop(c.here, c.there) is not None}
        missing = frozenset(pairs - proof.proven.keys())
        proof = replace(proof, missing=missing, rounds=proof.rounds + 1)
        state.put("probes", move.id, proof)
        if not proof.missing and self._ends_here(move):
            self._note(move, proof)
            return True
        mtu = min(state.networks[leg.vni].policy.mtu for leg in move.legs)
        for pair in sorted(proof.missing):
            nonce = self._nonce(move.id, pair)
            self._nonces[nonce] = (move.id, pair)
            self._nonces_of.setdefault(move.id, set()).add(nonce)
            send_probe(self._work, pair, nonce, mtu)
        # Ever later, and not before the answers to so many can have come: repeated probes must not drown the first.
        pause = max(settings.probe_interval, PER_PROBE * len(proof.missing)) * 2 ** min(proof.rounds - 1, 4)
        state.put("clock", ("probe", move.id), self._work.now + pause)
        return False

    def _ends_here(self, move: Move) -> bool:
        """Whether the NVEs are in sync without which nothing is proven."""
        return all(self._work.session(nve) is not None for nve in move.ends)

    def warm(self, nve: str, networks: Iterable[int]) -> None:
        """Have the underlay resolve the paths between an NVE and its peers in some networks, both ways.

        A userspace datapath drops the packet that has to wait for an underlay neighbor; better a frame of ours than a
        guest's first. Nothing waits for these frames: the receiver drops them.
        """
        state = self._work.state
        peers: set[str] = set()
        for vni in networks:
            peers.update(state.members(vni))
        peers -= {nve} | self._warmed.get(nve, set())
        session = self._work.session(nve)
        if session is None or session.tunnel is None or len(peers) > WARM_PEERS:
            return
        frame = frames.build_probe(WARMING, 64)
        for peer in sorted(peers):
            other, there, back = self._work.session(peer), path(state, nve, peer), path(state, peer, nve)
            if there is None or back is None:
                continue
            if other is None or other.tunnel is None:
                # It cannot be told to send anything, yet may forward: at least it is resolved from here.
                self._work.send(nve, tunnel_to(there, PROBE_VNI, session.tunnel), frame)
                continue
            self._warmed.setdefault(nve, set()).add(peer)
            self._warmed.setdefault(peer, set()).add(nve)
            self._work.send(nve, tunnel_to(there, PROBE_VNI, session.tunnel), frame)
            self._work.send(peer, tunnel_to(back, PROBE_VNI, other.tunnel), frame)

    def cool(self, nve: str) -> None:
        """An NVE's connection is new: what it had resolved is not known."""
        for peer in self._warmed.pop(nve, set()):
            self._warmed[peer].discard(nve)

    def returned(self, nve: str, nonce: bytes) -> int | None:
        """A probe arrived at ``nve``. The move whose last missing path that was, or None."""
        state = self._work.state
        number, pair = self._nonces.get(nonce, (0, Crossing("", "")))
        proof: Proof | None = state.probes.get(number)
        if proof is None or pair.there != nve or pair not in proof.missing:
            self._work.count("probe.late" if pair.there else "probe.unknown")
            return None
        missing = proof.missing - {pair}
        proven = {**proof.proven, pair: self._work.now - proof.started}
        proof = replace(proof, missing=missing, proven=proven)
        state.put("probes", number, proof)
        if missing or not self._ends_here(state.moves[number]):
            return None
        self._note(state.moves[number], proof)
        return number

    def _note(self, move: Move, proof: Proof) -> None:
        times = {str(crossing): seconds for crossing, seconds in proof.proven.items()}
        self._work.state.put("moves", move.id, replace(move, ledger=replace(move.ledger, probes=times)))

    def missing(self, number: int) -> str:
        """The unproven paths of a move, in words; empty if there are none."""
        proof: Proof | None = self._work.state.probes.get(number)
        return "" if proof is None else ", ".join(str(c).replace("->", " to ") for c in sorted(proof.missing))

    def forget(self, number: int) -> None:
        """The paths of a move are proven, or need not be any more."""
        self._work.state.put("clock", ("probe", number), None)
        self._work.state.put("probes", number, None)
        for nonce in self._nonces_of.pop(number, ()):
            del self._nonces[nonce]

    def _nonce(self, number: int, pair: Crossing) -> bytes:
        text = f"{number} {pair}".encode()
        return hashlib.blake2b(text, digest_size=16, key=self._secret).digest()
