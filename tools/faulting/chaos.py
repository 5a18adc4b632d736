"""Everything at random for minutes: kill, restart, partition, flap, abort and move; then the same checks, and ledgers.

The seed fixes what is broken, where, in what order and for how long; how that falls together with the moves is up to
the machine.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.report import Part, number

from topologies import NVE, netns
from topologies.errors import ApiError
from topologies.traffic.session import Outcome, Pair, both_ways

from .cells import aftermath
from .faults import RECOVERY, await_underlay, whole_at
from .ground import Ground, await_true
from .losses import UNDER_WAY, Losses, Outage, account, span
from .roamer import Roamer

MOVERS = 2
#: Deadlines short enough that some pass.
TIMES: dict[str, Any] = {
    "prepare_deadline": 6.0, "prepared_deadline": 10.0, "redirect_deadline": 8.0, "steer_deadline": 4.0,
    "drain_cap": 8.0, "quiet_time": 1.5, "flap_moves": 100_000,
}
_PATIENCE = 90.0
CHAOS_RATE = 100.0
_AFTER = 0.4
_CALM = 1.5  # seconds of traffic that must be without any loss in the end

Step = tuple[float, str, int, float]  # after so many seconds, what, on which NVE (index), for how long


@dataclass(frozen=True)
class Chaos:
    """What came of it."""

    seed: int
    seconds: float
    done: dict[str, int]
    asked: dict[str, int]
    losses: Losses
    sent: int
    doubled: int
    moves: dict[str, int]
    ledgers: dict[str, int]
    left: list[int]
    calm: Outcome
    late: int  # frames that reached a source after its VM had been paused there, in planned moves
    wrong: list[str] = field(default_factory=list)
    plan: list[Step] = field(default_factory=list)
    story: list[tuple[float, float, str]] = field(default_factory=list)

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = list(self.wrong)
        if self.left:
            found.append(f"moves left open: {self.left}")
        if self.losses.beyond > self.late:
            found.append(f"{self.losses.beyond} lost outside of any outage ({'; '.join(self.losses.where)})")
        if self.doubled:
            found.append(f"{self.doubled} doubled")
        calm = self.calm
        if calm.lost or calm.duplicated or calm.foreign:
            found.append(f"afterwards {calm.lost} lost, {calm.duplicated} doubled, {calm.foreign} foreign")
        return [f"chaos {self.seed}: {words}" for words in found]


def plan(seed: int, seconds: float) -> list[Step]:
    """What is broken when, where and for how long."""
    rng = random.Random(seed)
    steps: list[Step] = []
    at = rng.uniform(0.5, 1.5)
    kinds = ["kill", "channel", "channel", "stall", "restart", "link", "flap"]
    while at < seconds:
        kind = rng.choice(kinds)
        lasting = {"kill": (0.0, 2.0), "channel": (0.2, 6.0), "stall": (0.2, 3.0), "link": (0.2, 1.5)}.get(kind, (0, 0))
        steps.append((round(at, 3), kind, rng.randrange(4), round(rng.uniform(*lasting), 3)))
        at += rng.uniform(0.8, 3.0)
    return steps


@dataclass(frozen=True)
class _Empty:
    """An NVE that the NVA has to tell of flows: since when (monotonic seconds), of which, and whether the NVA knows."""

    nve: str
    began: float
    flows: frozenset[str]
    noticed: Callable[[], bool]

    def outage(self) -> Outage:
        """What cannot be delivered until now."""
        return Outage(f"{self.nve} waits for the NVA", self.began, whole_at(self.began), self.flows)


class Breaker:
    """Carries out a plan, and mends everything in the end."""

    def __init__(self, ground: Ground, pairs: list[Pair], hands: threading.RLock) -> None:
        self._ground, self._pairs, self._hands = ground, pairs, hands
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._cut: set[str] = set()
        self._dead = False
        self.outages: list[Outage] = []
        self.done: Counter[str] = Counter()
        self._empty: list[_Empty] = []
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._await_whole, daemon=True)
        self._movers = {ground.vm(name) for name in ground.movers}

    def carry_out(self, steps: list[Step], seconds: float) -> None:
        """Until the time is over; everything is mended then."""
        began = time.monotonic()
        for at, kind, index, lasting in steps:
            self._until(began + at)
            getattr(self, f"_{kind}")(self._ground.net.nves[index], lasting)
        self._until(began + seconds)
        self.mend()

    def mend(self) -> None:
        """All that is still broken."""
        while self._due:
            self._due.pop(0)[1]()

    def _until(self, moment: float) -> None:
        while self._due and self._due[0][0] <= moment:
            at, mended = self._due.pop(0)
            time.sleep(max(0.0, at - time.monotonic()))
            mended()
        time.sleep(max(0.0, moment - time.monotonic()))

    def _later(self, seconds: float, mended: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, mended))
        self._due.sort(key=lambda entry: entry[0])

    def _crossing(self, nve: NVE) -> frozenset[str]:
        """The flows that may cross an NVE: of the VM that stays there, and of those that move."""
        vms = {self._ground.staying(nve), *self._movers}
        return frozenset(pair.name for pair in self._pairs if vms & {pair.source, pair.target})

    # --- what can be broken -------------------------------------------------------------------------------------------
    def _kill(self, _nve: NVE, lasting: float) -> None:
        if self._dead:
            return
        self._dead = True
        self.done["NVA killed"] += 1
        self._ground.nva.kill()

        def again() -> None:
            self._ground.nva.start()
            self._dead = False

        self._later(lasting, again)

    def _channel(self, nve: NVE, lasting: float) -> None:
        self._disturb(nve, "close", lasting, "control channel cut")

    def _stall(self, nve: NVE, lasting: float) -> None:
        self._disturb(nve, "stall", lasting, "control channel stalled")

    def _disturb(self, nve: NVE, how: str, lasting: float, name: str) -> None:
        if nve.name in self._cut:
            return
        self._cut.add(nve.name)
        self.done[name] += 1
        nve.cut(how)

        def again() -> None:
            nve.restore()
            self._cut.discard(nve.name)

        self._later(lasting, again)

    def _restart(self, nve: NVE, _lasting: float) -> None:
        self.done["NVE restarted empty"] += 1
        began = time.monotonic()
        with self._hands:
            nve.crash()
            crashed = time.time()
            nve.restart()
        self._empty.append(_Empty(nve.name, began, self._crossing(nve), lambda: self._synchronised(nve, crashed)))

    def _link(self, nve: NVE, lasting: float) -> None:
        fabric = self._ground.net.underlay.namespace
        self.done["underlay cut"] += 1
        began = time.monotonic()
        netns.ip_batch(fabric, f"link set {nve.name} down")
        time.sleep(lasting)  # the length of the cut
        netns.ip_batch(fabric, f"link set {nve.name} up")
        await_underlay(self._ground, nve)
        self.outages.append(Outage(f"{nve.name} cut off", began, time.monotonic() + RECOVERY, self._crossing(nve)))

    def _flap(self, nve: NVE, _lasting: float) -> None:
        vm = self._ground.staying(nve)
        self.done["port flapped"] += 1
        began = time.monotonic()
        with self._hands:
            for _ in range(3):
                nve.unplug(vm.spec.port)
                number = nve.plug(vm.spec.port)
        flows = frozenset(pair.name for pair in self._pairs if vm in (pair.source, pair.target))
        self._empty.append(_Empty(nve.name, began, flows, lambda: self._has_port(nve, vm.spec.port, number)))

    # --- empty switches are whole again once the NVA has been able to tell them what to do ---------------------------
    def watch(self) -> None:
        """Begin to look out for that."""
        self._watch.start()

    def unwatch(self) -> None:
        """End that: all is whole by now."""
        self._ended.set()
        self._watch.join(30)
        self.outages += [one.outage() for one in self._empty]

    def _synchronised(self, nve: NVE, since: float) -> bool:
        """Whether the NVA has met an NVE anew, and has told it all, since then (Unix time)."""
        kinds = [event["kind"] for event in self._ground.nva.events(kind="nve.")
                 if event["at"] >= since and event["fields"].get("nve") == nve.name]
        return "nve.connected" in kinds and "nve.synchronised" in kinds[kinds.index("nve.connected") :]

    def _has_port(self, nve: NVE, port: str, number: int) -> bool:
        """Whether the NVA knows a port by this number, or by one that it was given still later."""
        ports = self._ground.get(f"/nves/{nve.name}")["ports"]
        return any(one["name"] == port and one["number"] >= number for one in ports)

    def _await_whole(self) -> None:
        while not self._ended.wait(0.05):
            if not self._empty:
                continue
            with contextlib.suppress(ApiError):
                noticed = [one for one in self._empty if one.noticed()]
                known = {nve["name"]: nve for nve in self._ground.get("/nves")["items"]}
                for one in noticed:
                    nve = known[one.nve]
                    if nve["in_sync"] and nve["generation"]["programmed"] == nve["generation"]["realised"]:
                        self._empty.remove(one)
                        self.outages.append(one.outage())


def run(ground: Ground, seed: int, seconds: float, say: Callable[[str], None], least: int = 0) -> Chaos:
    """Break things for so many seconds, and wait until at least so many moves have settled.

    Raises TopologyError, AssertionError where something comes to no end.
    """
    steps, hands, stop = plan(seed, seconds), threading.RLock(), threading.Event()
    pairs = traffic(ground)
    breaker = Breaker(ground, pairs, hands)
    roamers = [Roamer(ground, ground.vm(name), seed * 10 + n, stop, hands) for n, name in enumerate(ground.movers)]
    with ground.session(pairs) as session:
        breaker.watch()
        for roamer in roamers:
            roamer.start()
        try:
            breaker.carry_out(steps, seconds)
            await_true(lambda: _settled(ground) >= least, _PATIENCE)
        finally:
            stop.set()
            breaker.mend()
        say(f"{sum(breaker.done.values())} things broken and mended; waiting for what was begun")
        for roamer in roamers:
            roamer.join(_PATIENCE)
        failed = [f"{roamer.name}: {roamer.error or 'no end'}" for roamer in roamers
                  if roamer.error is not None or roamer.is_alive()]
        ground.await_all_synced()
        left = [move["id"] for move in ground.await_ended()]
        breaker.unwatch()
        time.sleep(_AFTER)
        outcome = session.stop()
    with ground.session(pairs) as session:
        time.sleep(_CALM)  # the load itself is what is waited for
        calm = session.stop()
    moves = ground.get("/moves?limit=1000")["items"]
    gaps = [Outage(f"{roamer.vm.name} on its own", began, ended + RECOVERY, _of(pairs, roamer.vm.name))
            for roamer in roamers for began, ended in roamer.gaps]
    outages = [*breaker.outages, *gaps, *_unheard(pairs, moves)]
    outages += [late for roamer in roamers for late in _delayed(outages, roamer, pairs)]
    wrong = [*failed, *ground.verify(), *aftermath(ground, calm, ground.movers)]
    asked = Counter[str]()
    for roamer in roamers:
        asked += roamer.asked
    wrong += [f"the ledger of move {move['id']} is not closed" for move in moves if not move["ledger"]["closed"]]
    return Chaos(
        seed, seconds, dict(breaker.done), dict(asked), account(outcome, outages, 0, ""),
        outcome.sent, outcome.duplicated, dict(Counter(move["state"] for move in moves)), _ledgers(moves), left, calm,
        sum(roamer.left for roamer in roamers), wrong, steps, _story(span(outcome)[0], outages, moves),
    )


def _settled(ground: Ground) -> int:
    moves = ground.insist("GET", "/moves?limit=1000")["items"]
    return sum(move["state"] == "settled" for move in moves)


def _of(pairs: list[Pair], vm: str) -> frozenset[str]:
    return frozenset(pair.name for pair in pairs if vm in (pair.source.name, pair.target.name))


def _unheard(pairs: list[Pair], moves: list[dict[str, Any]]) -> list[Outage]:
    """Unplanned moves: an NVE that is away sends to where the VM was, until it is back and told better."""
    found, offset = [], time.time() - time.monotonic()
    for move in moves:
        if move["trigger"] == "announcement":
            steps = move["history"]
            ended = next((step["at"] for step in steps if step["state"] != "steering"), steps[-1]["at"])
            if any("deadline" in step["why"] for step in steps):  # it drained before every NVE had confirmed
                ended = steps[-1]["at"]
            found.append(Outage(f"move {move['id']} of {move['vm']} was not asked for",
                                steps[0]["at"] - offset, ended - offset + RECOVERY, _of(pairs, move["vm"])))
    return found


def _delayed(outages: list[Outage], roamer: Roamer, pairs: list[Pair]) -> list[Outage]:
    """What a paused VM had sent before an outage, and what left it only during the outage."""
    own = frozenset(pair.name for pair in pairs if pair.source is roamer.vm)
    return [
        Outage(f"{outage.why}, sent by the paused {roamer.vm.name}", began, outage.ended, outage.flows & own)
        for outage in outages for began, ended in roamer.pauses if began < outage.began < ended + UNDER_WAY
    ]


def _story(origin: float, outages: list[Outage], moves: list[dict[str, Any]]) -> list[tuple[float, float, str]]:
    """(from, to, what) in seconds since the first datagram: outages, and the states of all moves."""
    found = [(outage.began - origin, outage.ended - origin, outage.why) for outage in outages]
    offset = time.time() - time.monotonic() + origin
    for move in moves:
        name = f"move {move['id']} ({move['trigger']}) {move['vm']} {move['source']} to {move['destination']}"
        for step in move["history"]:
            end = step["at"] + (step["seconds"] or 0.0)
            found.append((step["at"] - offset, end - offset, f"{name}: {step['state']} ({step['why']})"))
    return sorted((round(began, 3), round(ended, 3), what) for began, ended, what in found)


def traffic(ground: Ground) -> list[Pair]:
    """Every VM that moves with every one that stays, in turn over IPv4 and IPv6; and those that stay in a ring."""
    staying = [ground.staying(nve) for nve in ground.net.nves]
    found = []
    for n, name in enumerate(ground.movers):
        for m, other in enumerate(staying):
            found += both_ways(ground.vm(name), other, 4 if (n + m) % 2 else 6, CHAOS_RATE)
    for m, one in enumerate(staying):
        found += both_ways(one, staying[(m + 1) % len(staying)], 6 if m % 2 else 4, CHAOS_RATE)
    return found


def _ledgers(moves: list[dict[str, Any]]) -> dict[str, int]:
    ledgers = [move["ledger"] for move in moves]
    return {
        "redirected": sum(ledger["redirected"]["packets"] for ledger in ledgers),
        "arrived": sum(ledger["arrived"]["packets"] for ledger in ledgers),
        "lost": sum(ledger["lost"]["packets"] for ledger in ledgers),
        "held": sum(ledger["held"]["packets"] for ledger in ledgers),
        "late": sum(ledger["late_packets"] for ledger in ledgers),
        "closed": sum(ledger["closed"] for ledger in ledgers),
        "exact": sum(ledger["exact"] for ledger in ledgers),
    }


def part(found: list[Chaos]) -> Part:
    """As a table."""
    rows = [[
        str(one.seed), f"{one.seconds:.0f}", number(sum(one.done.values())), number(sum(one.moves.values())),
        ", ".join(f"{count} {state}" for state, count in sorted(one.moves.items())), number(one.sent),
        number(one.losses.exposed), number(one.losses.lost), number(one.losses.beyond), number(one.late),
        number(one.doubled), number(len(one.left)),
        number(len(one.wrong)), f"{one.ledgers['closed']} of {sum(one.moves.values())}", number(one.calm.lost),
    ] for one in found]
    columns = [
        "seed", "seconds", "things broken", "moves", "ended", "datagrams sent", "of these not in an outage", "lost",
        "lost outside of any outage", "came to a paused VM", "doubled", "open moves left",
        "differences and other faults left", "ledgers closed", "lost when all was calm",
    ]
    done = Counter[str]()
    for one in found:
        done.update(one.done)
    notes = [
        "At random moments: " + ", ".join(f"{what} ({count})" for what, count in sorted(done.items())) + "; meanwhile "
        f"{MOVERS} VMs move on and on, asked for, called off or only announced.",
        "An outage: from a switch's end until it holds its flows again (later, if the NVA is dead), a cut underlay, a "
        "port that flaps, an unplanned move until the NVA has heard of it, a rollback that throws a queue away.",
        "Came to a paused VM: frames that reached the source of a planned move after its hypervisor, having waited for "
        "20 ms of silence, had paused the VM; so many of the losses outside of an outage may be these.",
    ]
    data = {"runs": [{**{k: v for k, v in vars(one).items() if k not in ("calm", "losses")},
                      "losses": vars(one.losses), "problems": one.problems()} for one in found]}
    return Part("chaos", "Chaos", columns, rows, notes, data)
