"""Chapter 3: a task moves from host to host with its TCP connections, which never notice (TCP_REPAIR)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from topologies.rundir import wait_until
from topologies.tasking import Clients

from ..account import table, zero
from ..narrator import Narrator
from . import cast
from .claims import Claims
from .stage import RATE, Stage

CHAPTER = "connections"
TRIP = ("nve2", "nve3")
EACH = 5  # connections from each client to each address
SIZE = 1000  # bytes of a record
_STEADY = 1.0  # seconds of undisturbed streams before and after each move
_CLOSED = 20.0
#: from which of the agent's marks to which, for people
_STEPS = (
    ("stopped", "packaged", "stop, package"), ("packaged", "sent", "send"), ("sent", "instantiated", "instantiate"),
    ("instantiated", "running", "activate, start"),
)


@dataclass(frozen=True)
class Carried:
    """One move: the source agent's report, and the NVA's record."""

    source: str
    destination: str
    report: dict[str, Any]
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.source} -> {self.destination}"

    def lasted(self, start: str, end: str) -> float:
        """Seconds between two of the agent's marks."""
        marks = self.report["marks"]
        return float(marks[end] - marks[start])


@dataclass(frozen=True)
class Found:
    """The moves, what the clients of each guest saw, and how often two processes of the task ran at once."""

    moves: list[Carried]
    clients: dict[str, dict[str, Any]]
    overlaps: int

    def total(self, what: str) -> int:
        """Over all clients."""
        return sum(int(one[what]) for one in self.clients.values())

    @property
    def records(self) -> int:
        """Sent and received by the clients."""
        return self.total("sent") + self.total("taken")

    @property
    def errors(self) -> list[str]:
        """What went wrong on any connection."""
        return [error for one in self.clients.values() for error in one["errors"]]


def run(stage: Stage, narrator: Narrator, claims: Claims) -> Found:
    """Streams on, two moves, streams off. Raises TopologyError, AgentError."""
    task, rest = stage.tasks[cast.CHAT], stage.net.need_rest()
    vms = [stage.net.vm(name) for name in cast.PHONES]
    wanted = len(vms) * len(task.addresses) * EACH
    narrator.show()
    narrator.say("3  A process moves from host to host, and its TCP connections with it", "bold blue")
    narrator.add(f"The agent of nve1 runs {task.name} ({' and '.join(task.addresses)}); "
                 f"{' and '.join(cast.PHONES)} have {wanted} connections to it, with checksummed records both ways")
    moves = []
    source = "nve1"
    with Clients(vms, task.addresses, EACH, RATE, SIZE) as clients:
        time.sleep(_STEADY)
        for destination in TRIP:
            narrator.show()
            words = f"{task.name} moves {source} -> {destination}: a process ends here, another goes on there"
            narrator.say(words, "bold")
            report = task.moved(source, destination, connections="keep")
            stage.note(task.name, destination)
            _tell(narrator, report, source, destination)
            moves.append((source, destination, report))
            source = destination
            time.sleep(_STEADY)
        seen = clients.stop()
    done = [
        Carried(one, other, report, wait_until(
            lambda number=report["move"]: _closed(rest.move(str(number))), _CLOSED, f"the end of move {report['move']}"
        ))
        for one, other, report in moves
    ]
    found = Found(done, dict(zip(cast.PHONES, seen, strict=True)), len(task.overlaps()))
    narrator.show()
    narrator.say(f"Streams ended: {found.total('connections')} connections, {found.records:,} records, "
                 f"{len(found.errors)} errors")
    _claim(found, wanted, claims)
    return found


def _closed(document: dict[str, Any]) -> dict[str, Any] | None:
    return document if not document["open"] and document["ledger"]["closed"] else None


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms"


def _tell(narrator: Narrator, report: dict[str, Any], source: str, destination: str) -> None:
    marks = report["marks"]
    narrator.detail("prepared", f"{destination} knows the task; the redirect is in force "
                    f"{_ms(marks['redirected'] - marks['opened'])} after the request")
    narrator.detail("stopped", f"at {source}; {report['connections']} connections and the task's state make "
                    f"{report['bytes']:,} bytes")
    narrator.detail("sent", f"to {destination} in {_ms(marks['sent'] - marks['packaged'])}, and made again there in "
                    f"{_ms(marks['instantiated'] - marks['sent'])}")
    narrator.detail("running", f"at {destination}: paused for {_ms(report['pause'])} in all")


def _claim(found: Found, wanted: int, claims: Claims) -> None:
    ended = found.total("connections")
    claims.want(CHAPTER, f"all {wanted} connections have lived to their proper end", ended == wanted, ended)
    claims.want(CHAPTER, "no record was lost, doubled, out of order or damaged", not found.errors,
                "; ".join(found.errors[:3]))
    taken = found.total("taken")
    claims.want(CHAPTER, "the streams were busy", taken > 20 * wanted, f"{taken:,} records")
    claims.none(CHAPTER, "times at which two processes of the task ran at once", found.overlaps)
    for move in found.moves:
        claims.want(CHAPTER, f"{move.name}: all connections were carried", move.report["connections"] == wanted,
                    move.report["connections"])
        ledger = move.document["ledger"]
        claims.want(CHAPTER, f"{move.name} has settled", move.document["state"] == "settled", move.document["state"])
        missing = max(0, ledger["unaccounted"]) + ledger["lost"]["packets"] + ledger["held"]["lost"]
        missing += ledger["dropped"]["packets"]
        claims.none(CHAPTER, f"{move.name}: packets that the ledger misses", missing)
    claims.measured["connections"] = {
        "clients": found.clients, "overlaps": found.overlaps,
        "moves": [{"agent": one.report, "nva": one.document} for one in found.moves],
    }


def tables(found: Found) -> tuple[Table, Table]:
    """The moves, step by step, and what the clients saw."""
    made = table("The agent's five steps", "", *(move.name for move in found.moves))
    made.add_row("connections", *(f"{move.report['connections']}" for move in found.moves))
    made.add_row("bytes sent to the other host", *(f"{move.report['bytes']:,}" for move in found.moves))
    for start, end, words in _STEPS:
        made.add_row(words, *(_ms(move.lasted(start, end)) for move in found.moves))
    made.add_row("task paused", *(_ms(move.report["pause"]) for move in found.moves))
    redirected = [move.document["ledger"]["redirected"]["packets"] for move in found.moves]
    made.add_row("packets redirected", *(f"{count:,}" for count in redirected))
    seen = table("What the clients saw", "", "connections", "sent", "received", "errors", "longest gap")
    for name, one in found.clients.items():
        seen.add_row(name, f"{one['connections']}", f"{one['sent']:,}", f"{one['taken']:,}", zero(len(one["errors"])),
                     _ms(one["stall"]))
    return made, seen
