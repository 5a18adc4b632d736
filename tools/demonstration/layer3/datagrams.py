"""Chapter 2: a task moves and keeps its addresses, under datagrams both ways: IPv4 by host routes, IPv6 by ILA."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from proof.capture import Capture

from topologies.traffic.packet import PORT
from topologies.traffic.session import Pair, UdpSession, both_ways

from ..account import Account, Moved
from ..main_job import make_move
from ..narrator import Narrator
from ..options import Options
from . import cast
from .claims import Claims
from .stage import Stage

CHAPTER = "datagrams"
TRIP = ("nve2", "nve3")
_STEADY = 0.6  # seconds of undisturbed traffic before and after each move, for the picture
_LOOK = 0.2  # seconds for which the underlay is looked at


def run(stage: Stage, options: Options, narrator: Narrator, claims: Claims) -> Account:
    """Traffic on, two moves, traffic off. Raises TopologyError."""
    net = stage.net
    camera, peers = net.vm(cast.CAMERA), [net.vm(name) for name in cast.PHONES]
    pairs: list[Pair] = []
    for peer in peers:
        pairs += both_ways(camera, peer, 4, options.rate / 2) + both_ways(camera, peer, 6, options.rate / 2)
    narrator.show()
    narrator.say("2  A task moves and keeps its addresses: IPv4 by host routes, IPv6 by ILA", "bold blue")
    narrator.add(f"{camera.name} ({camera.spec.ip} and {camera.spec.ip6}) exchanges {options.rate:,.0f} "
                 f"datagrams/s in each direction with each of {' and '.join(cast.PHONES)}, half of them IPv6")
    clock = time.time() - time.monotonic()
    moved: list[Moved] = []
    looks = []
    with UdpSession(pairs, quiet=0.3) as session:
        time.sleep(_STEADY)
        for destination in TRIP:
            moved.append(make_move(net, narrator, camera.name, destination, "none", options.pause))
            looks.append(_look(stage, destination))
            _tell(narrator, destination, looks[-1])
            time.sleep(_STEADY)
        outcome = session.stop()
    narrator.show()
    narrator.say(f"Traffic off: {outcome.sent:,} datagrams sent, {outcome.lost:,} lost, {outcome.duplicated:,} doubled")
    found = Account(moved, outcome, [], [], clock)
    _claim(found, looks, claims)
    claims.measured["datagrams"] = {
        "sent": outcome.sent, "lost": outcome.lost, "duplicated": outcome.duplicated,
        "flows": found.document()["flows"], "moves": found.document()["moves"], "carried": looks,
    }
    return found


def _look(stage: Stage, nve: str) -> dict[str, int]:
    """How the traffic is carried to and from an NVE, in packets by family and way; "wrong": with a wrong checksum."""
    with Capture(stage.net.nve(nve)) as capture:
        time.sleep(_LOOK)
        seen = [one for one in capture.stop() if one.inner and one.inner.ports and PORT in one.inner.ports]
    found = Counter(f"IPv{one.inner.family} {one.how}" for one in seen if one.inner)
    found["wrong"] = sum(bool(one.wrong) for one in seen)
    return dict(found)


def _tell(narrator: Narrator, nve: str, look: dict[str, int]) -> None:
    words = {"plain": "in no tunnel (ILA)", "gre": "in GRE", "vxlan": "in VXLAN"}
    kinds = sorted(kind for kind, count in look.items() if kind != "wrong" and count)
    said = ", ".join(f"{family} {words[how]}" for family, how in map(str.split, kinds))
    narrator.detail("carried", f"to and from {nve} now: {said}; {look['wrong']} wrong checksums")


def _claim(found: Account, looks: list[dict[str, int]], claims: Claims) -> None:
    out = found.outcome
    claims.none(CHAPTER, "datagrams lost", out.lost)
    claims.none(CHAPTER, "datagrams doubled", out.duplicated)
    claims.none(CHAPTER, "datagrams that were nobody's", out.foreign)
    claims.want(CHAPTER, "every flow was busy all the time", all(one.count.sent > 100 for one in out.flows),
                min(one.count.sent for one in out.flows))
    for move, look in zip(found.moved, looks, strict=True):
        ledger: dict[str, Any] = move.document["ledger"]
        redirected, arrived = ledger["redirected"]["packets"], ledger["arrived"]["packets"]
        claims.want(CHAPTER, f"{move.name} has settled", move.document["state"] == "settled", move.document["state"])
        claims.want(CHAPTER, f"{move.name}: what was redirected has arrived", redirected == arrived > 0,
                    f"{redirected:,} and {arrived:,}")
        claims.none(CHAPTER, f"{move.name}: packets that the ledger misses", move.losses)
        ways = {kind for kind, count in look.items() if count and kind.startswith("IPv6")}
        claims.want(CHAPTER, f"{move.name}: IPv6 goes by ILA", ways == {"IPv6 plain"}, ", ".join(ways))
        ways = {kind for kind, count in look.items() if count and kind.startswith("IPv4")}
        claims.want(CHAPTER, f"{move.name}: IPv4 goes by host routes, in tunnels",
                    bool(ways) and ways <= {"IPv4 gre", "IPv4 vxlan"}, ", ".join(ways))
        claims.none(CHAPTER, f"{move.name}: wrong checksums on the underlay", look["wrong"])
