"""Chapter 4: tasks whose addresses change. Their names follow; clients that are told are back at once, others wait."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from proof.errors import UNREACHABLE, Sender, Told
from rich.table import Table
from rich.text import Text

from topologies.namewatch import Watch
from topologies.rundir import wait_until
from topologies.tasking.task import PORT
from topologies.traffic.session import Family

from ..account import table
from ..narrator import Narrator
from . import cast
from .claims import Claims
from .follower import Broken, Follower, Service
from .stage import Stage

CHAPTER = "names"
PATIENCE = 5.0  # seconds without data after which the clients believe in nothing any more
_STEADY = 0.6  # seconds of undisturbed streams before the moves
_BACK = 15.0  # seconds that a client that was told may take at the very most
_SILENT = 0.5  # seconds in which an address that says nothing would have said something
_ANSWERED = 5.0  # seconds in which an address that is answered for is, on a machine that is very busy
_CLOSED = 20.0
_RETRIES = 15  # net.ipv4.tcp_retries2 as kernels have it: 924 s at the least
_FAMILIES: tuple[Family, ...] = (4, 6)


@dataclass
class Renamed:
    """One task's change of addresses.

    named: seconds from activation until the name server said so. answers: what the old addresses answer, and how many
    seconds it took. agent: the report of the agent that carried the task out, where one did.
    """

    name: str
    move: str
    told: bool  # whether its clients were
    addresses: list[tuple[str, str]]
    document: dict[str, Any] = field(default_factory=dict)
    named: float = 0.0
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    answers: dict[str, tuple[Told | None, float]] = field(default_factory=dict)
    clients: dict[str, Broken] = field(default_factory=dict)
    agent: dict[str, Any] | None = None

    @property
    def old(self) -> list[str]:
        """The addresses that it had."""
        return [old for old, _ in self.addresses]

    @property
    def new(self) -> list[str]:
        """The addresses that it has."""
        return [new for _, new in self.addresses]


def run(stage: Stage, narrator: Narrator, claims: Claims) -> list[Renamed]:
    """Clients on, both tasks move, clients back. Raises TopologyError, AgentError."""
    net = stage.net
    with ExitStack() as stack:
        stack.enter_context(Service(net.vm(cast.MUTE), PORT))
        followers = {
            name: [Follower(net.vm(vm), stage.names, cast.fqdn(name), family, PORT, PATIENCE)
                   for vm in cast.DESKS for family in _FAMILIES]
            for name in (cast.WEB, cast.MUTE)
        }
        all_ = [one for ones in followers.values() for one in ones]
        for one in all_:
            one.start()
            stack.callback(one.stop)
        for one in all_:
            one.await_connected()
        narrator.show()
        narrator.say("4  Two tasks move and get other addresses: their names follow", "bold blue")
        narrator.add(f"{len(all_)} clients at {' and '.join(cast.DESKS)} know names only: they ask the name server, "
                     f"connect, and exchange checked records; after {PATIENCE:g} s without data they begin anew")
        for name in followers:
            narrator.detail("name server", f"{cast.fqdn(name)} is {' and '.join(stage.names.resolve(cast.fqdn(name)))}")
        time.sleep(_STEADY)
        with Watch(stage.names, cast.fqdn(cast.MUTE)) as watch:
            mute = _move_mute(stage, narrator)
            _follow(stage, narrator, mute, watch)
        with Watch(stage.names, cast.fqdn(cast.WEB)) as watch:
            web = _move_web(stage, narrator)
            _follow(stage, narrator, web, watch)
        for changed in (web, mute):
            for one in followers[changed.name]:
                changed.clients[one.label] = one.await_back(_BACK)
            _tell_clients(narrator, changed)
        time.sleep(_STEADY)
        for one in all_:
            one.stop()
        found = [web, mute]
        for changed in found:
            changed.document = wait_until(
                lambda move=changed.move: _closed(stage, move), _CLOSED, f"the end of move {changed.move}"
            )
        _claim(found, followers, claims)
    return found


def _closed(stage: Stage, move: str) -> dict[str, Any] | None:
    document = stage.net.need_rest().move(move)
    return document if not document["open"] and document["ledger"]["closed"] else None


# --- the moves --------------------------------------------------------------------------------------------------------
def _move_mute(stage: Stage, narrator: Narrator) -> Renamed:
    narrator.show()
    narrator.say(f"{cast.MUTE} moves nve1 -> nve2; its clients are not told", "bold")
    report = stage.net.vm(cast.MUTE).move("nve2", announce="none", address="change")
    return Renamed(cast.MUTE, str(report.move), False, report.addresses)


def _move_web(stage: Stage, narrator: Narrator) -> Renamed:
    narrator.show()
    narrator.say(f"{cast.WEB} moves nve1 -> nve2; its agent closes its connections: clients are told (RST)", "bold")
    report = stage.tasks[cast.WEB].moved("nve1", "nve2", address="change", connections="drop")
    stage.note(cast.WEB, "nve2")
    move = str(report["move"])
    changes = stage.net.need_rest().move(move)["addresses"]
    return Renamed(cast.WEB, move, True, [(row["old"], row["new"]) for row in changes], agent=report)


def _follow(stage: Stage, narrator: Narrator, changed: Renamed, watch: Watch) -> None:
    """The name server's word, and what the old addresses answer."""
    for old, new in changed.addresses:
        narrator.detail("address", f"{old} -> {new}")
    at = watch.changed_to(*changed.new)
    changed.before, changed.after = watch.seen[0][1], watch.seen[-1][1]
    document = stage.net.need_rest().move(changed.move)
    changed.named = at - next(step["at"] for step in document["history"] if step["state"] == "steering")
    narrator.detail("name server", f"{cast.fqdn(changed.name)} is {' and '.join(changed.after)}, "
                    f"{changed.named * 1e3:,.1f} ms after the task was activated there")
    for old in changed.old:
        changed.answers[old] = _ask(stage, old, changed.told)
        narrator.detail("old address", f"{old} {_says(*changed.answers[old])}")


def _ask(stage: Stage, address: str, answered: bool) -> tuple[Told | None, float]:
    """What an address says, and after how many seconds. `answered`: it ought to, so it has longer."""
    with Sender(stage.net.vm(cast.DESKS[1]), address) as sender:
        started, found = time.monotonic(), None
        end = started + (_ANSWERED if answered else _SILENT)
        while found is None and time.monotonic() < end:
            with suppress(OSError):  # an answer has come just now
                sender.send()
            found = sender.told(_SILENT)
        return found, time.monotonic() - started


def _says(answer: Told | None, seconds: float) -> str:
    if answer is None:
        return "says nothing"
    kind = "ICMP" if answer.family == 4 else "ICMPv6"
    return f"is answered for by {answer.router}: {kind} destination unreachable, after {seconds * 1e3:,.1f} ms"


def _tell_clients(narrator: Narrator, changed: Renamed) -> None:
    clients = changed.clients.values()
    outages = [one.outage for one in clients]
    span = f"{min(outages) * 1e3:,.0f} to {max(outages) * 1e3:,.0f} ms"
    if changed.told:
        again = max(one.reconnecting for one in clients)
        words = f"were reset, and connected again at most {again * 1e3:,.0f} ms after that: without it for {span}"
    else:
        retries = max(one.retries for one in clients)
        words = (f"waited until their patience was over: without it for {span}. Clients that leave this to their "
                 f"kernels wait longer: these had retransmitted {retries} times by then, and give up after {_RETRIES}, "
                 "which takes some 15 minutes")
    narrator.show()
    narrator.say(f"The {len(outages)} clients of {changed.name} {words}")


# --- what came of it --------------------------------------------------------------------------------------------------
def _claim(found: list[Renamed], followers: dict[str, list[Follower]], claims: Claims) -> None:
    for changed in found:
        name = changed.name
        ended = changed.document["state"]
        claims.want(CHAPTER, f"the move of {name} has settled", ended == "settled", ended)
        claims.want(CHAPTER, f"{name} has addresses of its new NVE's subnets",
                    all(new.startswith(("10.1.2.", "2001:db8:1:2:")) for new in changed.new) and len(changed.new) == 2,
                    ", ".join(changed.new))
        claims.want(CHAPTER, f"the name of {name} stood for its old addresses, and stands for the new ones",
                    set(changed.before) == set(changed.old) and set(changed.after) == set(changed.new),
                    f"{', '.join(changed.before)}; {', '.join(changed.after)}")
        claims.want(CHAPTER, f"the name server knew of {name} within a second", changed.named < 1.0,
                    f"{changed.named * 1e3:,.1f} ms")
        for old, (answer, _) in changed.answers.items():
            wanted = UNREACHABLE[":" in old] if changed.told else None
            words = "is answered for as the policy says" if changed.told else "is not answered for, as the policy says"
            got = None if answer is None else (answer.family, answer.type)
            claims.want(CHAPTER, f"{old}, which {name} has left, {words}", got == wanted, got)
        how = "reset" if changed.told else "silence"
        for one in followers[name]:
            broken = changed.clients[one.label]
            claims.want(CHAPTER, f"{one.label} lost {name} by {how} once, and is back at its new address",
                        len(one.broken) == 1 and broken.how == how and one.address in changed.new, one.broken)
            claims.want(CHAPTER, f"what {one.label} and {name} exchanged was right", not one.errors and one.records > 5,
                        "; ".join(one.errors) or f"{one.records} records")
    told, untold = ([one.outage for one in changed.clients.values()] for changed in found)
    claims.want(CHAPTER, "every client that was told was back before every one that was not", max(told) < min(untold),
                f"{max(told):.3f} s, {min(untold):.3f} s")
    claims.measured["names"] = [
        {
            "task": one.name, "told": one.told, "addresses": one.addresses, "before": one.before, "after": one.after,
            "named_seconds": one.named, "nva": one.document, "agent": one.agent,
            "answers": {
                old: answer and {**asdict(answer), "seconds": took} for old, (answer, took) in one.answers.items()
            },
            "clients": {
                label: {**asdict(broken), "outage": broken.outage, "reconnecting": broken.reconnecting}
                for label, broken in one.clients.items()
            },
        }
        for one in found
    ]


def tables(found: list[Renamed]) -> Table:
    """Who was how long without the task."""
    made = table("Clients whose server's address changed", "", "heard of it by", "back after that", "without it for")
    for changed in found:
        for label, one in changed.clients.items():
            how = Text("RST", style="green") if one.how == "reset" else Text("its own patience", style="yellow")
            times = (f"{seconds * 1e3:,.0f} ms" for seconds in (one.reconnecting, one.outage))
            made.add_row(f"{changed.name} from {label}", how, *times)
    return made
