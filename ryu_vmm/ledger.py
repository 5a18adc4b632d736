"""The account of a move, read from the switches' own counters.

The source counts what its redirect sends on, with a meter for each correspondent NVE that still sends to it; the
destination counts what arrives under the move's mark. The two are different switches' counters for the same packets:
their difference is what the underlay lost. Both are read until they have stood still for the quiet time, which is also
what ends a move.

Meters, because they count with each packet. A flow's own counter is credited by Open vSwitch when it next looks at its
datapath cache, to the flow that is there then: around a change, up to half a second of packets go to the wrong one.
The flow that counts arrivals is not affected: it is there before the first marked packet. A switch without meters is
read by its flow counters, and the ledger says that it is not exact.

What the ports at both ends had no room for is counted by the ports themselves: queues.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from .effects import Effect, ReadFlows, ReadMeters, ReadPorts
from .flows import FlowStats, PortCounts
from .limits import gone_meter
from .model import METER_SLOTS, Ledger, Leg, Move, Redirect, Stale
from .paths import target
from .queues import Queues
from .tables import COOKIE_EXACT, Why, cookie, redirect_meter
from .work import Work

#: What asks a switch, by its datapath id, for a reading under a token.
Ask = Callable[[int, str], Effect]
#: (packets, bytes)
Count = tuple[int, int]
_NONE: Count = (0, 0)


@dataclass(slots=True)
class _Account:
    """Readings of one move: name of the reading -> when, and what was found by sender."""

    changed: float
    total: tuple[Count, ...] = ()
    confirmed: int | None = None  # redirected packets when all correspondents had confirmed
    blurred: bool = False  # a flow counter had to do where a meter should have counted
    #: Of readings under way, the oldest of each name: when it was asked. Counters are not known to be newer than that.
    asked_at: dict[str, float] = field(default_factory=dict)
    read_at: dict[str, float] = field(default_factory=dict)
    values: dict[str, dict[str, Count]] = field(default_factory=dict)
    #: What counters that have gone had counted: a later move may take over, and give up, what this one counts by.
    before: dict[str, dict[str, Count]] = field(default_factory=dict)
    blind: frozenset[str] = frozenset()  # NVEs that could not be asked when it was tried last

    def take(self, name: str, found: dict[str, Count], now: float) -> None:
        """Take a reading; a counter that has become smaller is a new one."""
        last = self.values.get(name, {})
        base = self.before.setdefault(name, {})
        for sender, count in last.items():
            if found.get(sender, _NONE)[0] < count[0]:
                base[sender] = _sum(base.get(sender, _NONE), count)
        self.values[name] = found
        self.was_read(name, now)

    def was_read(self, name: str, now: float) -> None:
        """Note how old the last answer of a name is: as old as its question, for it may have waited to be heard."""
        asked = self.asked_at.pop(name, None)
        if asked is not None or name not in self.read_at:
            self.read_at[name] = now if asked is None else asked

    def counts(self) -> Iterator[tuple[str, str, Count]]:
        """(kind, sender, count) of every counter there is or was."""
        for name, found in self.values.items():
            base = self.before.get(name, {})
            for sender in {*found, *base}:
                yield name.split("@", 1)[0], sender, _sum(base.get(sender, _NONE), found.get(sender, _NONE))


def _flows(why: Why, about: int) -> Ask:
    return partial(ReadFlows, cookie=cookie(why, about), cookie_mask=COOKIE_EXACT)


def _sum(a: Count, b: Count) -> Count:
    return a[0] + b[0], a[1] + b[1]


class Accounts:
    """Reads counters of open moves and keeps their ledgers."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._accounts: dict[int, _Account] = {}
        self.queues = Queues(work)

    def start(self, number: int) -> None:
        """Open the account of a move that steers now."""
        self._accounts[number] = _Account(self._work.now)

    def close(self, number: int) -> None:
        """Forget the readings of a closed move; the ledger stays in its record."""
        self._accounts.pop(number, None)
        self.queues.close(self._work.state.moves[number])

    # --- asking -------------------------------------------------------------------------------------------------------
    def _readings(self, move: Move) -> dict[str, tuple[str, Ask]]:
        """What is to be read: name -> (NVE, what asks for it)."""
        readings: dict[str, tuple[str, Ask]] = {}
        for leg in move.legs:
            src = leg.src.nve
            exact = self._exact(move, leg)
            readings[f"redirect@{src}"] = (src, ReadMeters if exact else _flows(Why.REDIRECT, move.id))
            newest = target(self._work.state, self._work.state.interfaces[leg.interface])
            for nve in {leg.dst.nve, newest.nve} - {src}:
                readings[f"arrived@{nve}"] = (nve, _flows(Why.MARK, move.id))
            if not move.requested:
                readings[f"lost@{src}"] = (src, ReadMeters if exact else _flows(Why.GONE, leg.vni))
        for name, nve, number in self.queues.readings(move):
            readings[name] = (nve, partial(ReadPorts, port=number))
        return readings

    def _exact(self, move: Move, leg: Leg) -> bool:
        session = self._work.session(leg.src.nve)
        return session is not None and session.meters >= gone_meter(0) and not self._has_meterless_loss(move, leg)

    def _has_meterless_loss(self, move: Move, leg: Leg) -> bool:
        return not move.requested and leg.interface not in self._work.state.gone

    def poll(self, number: int) -> None:
        """Ask for fresh counters of a draining move, and ask again after the poll interval."""
        work = self._work
        move = work.state.moves[number]
        if number not in self._accounts:
            self.start(number)
        unread: set[str] = set()
        for name, (nve, ask) in self._readings(move).items():
            if work.session(nve) is None:
                unread.add(nve)
                continue
            self._accounts[number].asked_at.setdefault(name, work.now)
            work.do(ask(work.dpid(nve), f"ledger:{number}:{name}"))
        self._saw(move, frozenset(unread))
        work.state.put("clock", ("poll", number), work.now + work.settings.poll_interval)

    def _saw(self, move: Move, unread: frozenset[str]) -> None:
        """Tell which NVEs' counters cannot be read, once each, and which can be read again."""
        account = self._accounts[move.id]
        ends = {"source": move.source, "destination": move.destination}
        for nve in sorted(unread - account.blind):
            self._work.report("move.blind", move=move.id, nve=nve, **ends)
        for nve in sorted(account.blind - unread):
            self._work.report("move.sighted", move=move.id, nve=nve, **ends)
        account.blind = unread

    # --- taking in ----------------------------------------------------------------------------------------------------
    def read_flows(self, number: int, name: str, flows: tuple[FlowStats, ...]) -> bool:
        """Take flow counters into the ledger. True once the move has been quiet for the quiet time."""
        move = self._work.state.moves.get(number)
        if move is None:
            return False
        kind, nve = name.split("@", 1)
        found: dict[str, Count] = {}
        interfaces = self._work.state.interfaces
        macs = {
            mac
            for leg in move.legs
            if leg.interface in interfaces
            for mac in self._work.state.macs(interfaces[leg.interface])
        }
        for stats in flows:
            fields = {item[0]: item[1] for item in stats.flow.match}
            if kind == "lost" and fields.get("eth_dst") not in macs:
                continue
            sender = self._sender(fields, nve) if kind == "redirect" else ""
            packets, size = found.get(sender, _NONE)
            found[sender] = (packets + stats.packets, size + stats.bytes)
        if kind != "arrived" and move.id in self._accounts and any(found.values()):
            self._accounts[move.id].blurred = True
        return self._take(move, name, found)

    def not_read(self, number: int, name: str) -> None:
        """A reading has failed: nothing is known that was not known before."""
        account = self._accounts.get(number)
        if account is not None:
            account.asked_at.pop(name, None)

    def read_meters(self, number: int, name: str, meters: dict[int, Count]) -> bool:
        """Take meters into the ledger. True once the move has been quiet for the quiet time.

        An answer without any meter changes no count: what was counted stays counted.
        """
        move = self._work.state.moves.get(number)
        if move is None:
            return False
        if not meters and move.id in self._accounts:
            return self._take(move, name, self._accounts[move.id].values.get(name, {}))
        kind, nve = name.split("@", 1)
        found: dict[str, Count] = {}

        def add(sender: str, meter: int) -> None:
            packets, size = meters.get(meter, _NONE)
            before = found.get(sender, _NONE)
            found[sender] = (before[0] + packets, before[1] + size)

        for leg in move.legs:
            if leg.src.nve != nve:
                continue
            if kind == "lost":
                slot = self._work.state.gone.get(leg.interface)
                if slot is not None:
                    add("", gone_meter(slot))
                continue
            for slot, sender in enumerate((nve, *move.peers)):
                add(sender, redirect_meter(leg, slot))
            add("others", redirect_meter(leg, METER_SLOTS - 1))
        return self._take(move, name, found)

    def read_ports(self, number: int, name: str, ports: dict[int, PortCounts]) -> bool:
        """Take statistics of ports into the ledger. True once the move has been quiet for the quiet time."""
        move = self._work.state.moves.get(number)
        if move is None or not move.open:
            return False
        self.queues.read(move, name, ports)
        return name.startswith("port@") and self._take(self._work.state.moves[number], name, {})

    def _take(self, move: Move, name: str, found: dict[str, Count]) -> bool:
        account = self._accounts.get(move.id)
        if account is None or not move.open:
            return False
        now = self._work.now
        account.take(name, found, now)
        ledger = self._ledger(move.ledger, account)
        total = (
            (ledger.redirected_packets, ledger.redirected_bytes),
            (ledger.arrived_packets, ledger.arrived_bytes),
            (ledger.lost_packets, ledger.lost_bytes),
            (ledger.dropped_packets, 0),
        )
        if account.total and total != account.total:
            account.changed = now
        account.total = total
        readings = self._readings(move)
        wanted = [n for n, (nve, _) in readings.items() if self._work.session(nve) is not None]
        # A source that cannot be asked may be redirecting, and a destination has counted what nobody has read yet:
        # neither is known to be quiet.
        complete = not self._unread(readings) and all(n in account.read_at for n in wanted)
        if account.confirmed is None and complete:
            account.confirmed = ledger.redirected_packets
        if account.confirmed is not None:
            ledger = replace(ledger, late_packets=ledger.redirected_packets - account.confirmed)
        if ledger != move.ledger:
            self._work.state.put("moves", move.id, replace(move, ledger=ledger))
        return complete and min(account.read_at[n] for n in wanted) - account.changed >= self._work.settings.quiet_time

    def _ledger(self, old: Ledger, account: _Account) -> Ledger:
        sums = {"redirect": _NONE, "arrived": _NONE, "lost": _NONE}
        stale = dict(old.stale)
        for kind, sender, (packets, size) in account.counts():
            sums[kind] = _sum(sums[kind], (packets, size))
            if kind != "redirect" or not packets:
                continue
            before = stale.get(sender, Stale())
            if before.packets != packets:
                stale[sender] = replace(before, packets=packets, bytes=size, until=self._work.now)
        return replace(
            old,
            redirected_packets=sums["redirect"][0],
            redirected_bytes=sums["redirect"][1],
            arrived_packets=sums["arrived"][0],
            arrived_bytes=sums["arrived"][1],
            lost_packets=sums["lost"][0],
            lost_bytes=sums["lost"][1],
            stale=stale,
            exact=not account.blurred and not old.forgetful and not old.unread,
        )

    def _unread(self, readings: dict[str, tuple[str, Ask]]) -> set[str]:
        """NVEs of these readings that cannot be asked now, but may be again."""
        return {nve for nve, _ in readings.values() if self._work.session(nve) is None and nve in self._work.state.nves}

    def closing(self, move: Move) -> None:
        """A steered move ends: what an NVE that is away has counted since it was last read stays unknown."""
        unread = self._unread(self._readings(move))
        if unread:
            self._not_exact(move, unread)

    def forgot(self, name: str) -> None:
        """An NVE has lost its tables, or some of what is in them: what it had counted for open moves may be gone."""
        state = self._work.state
        for move in list(state.open_moves()):
            counts = {nve for leg in move.legs for nve in (leg.src.nve, leg.dst.nve)}
            counts.update(target(state, state.interfaces[leg.interface]).nve for leg in move.legs)
            if name in counts and (move.state.steered or move.redirect is not Redirect.NONE):
                self._not_exact(move, {name})

    def _not_exact(self, move: Move, because_of: set[str]) -> None:
        known = tuple(sorted({*move.ledger.forgetful, *because_of}))
        ledger = replace(move.ledger, forgetful=known, exact=False)
        self._work.state.put("moves", move.id, replace(move, ledger=ledger))

    # --- what others note ---------------------------------------------------------------------------------------------
    def corrected(self, number: int, correspondent: str) -> None:
        """Note that a stale correspondent was found by its packets and is being corrected."""
        move = self._work.state.moves[number]
        old = move.ledger.stale.get(correspondent, Stale())
        stale = {**move.ledger.stale, correspondent: replace(old, corrected=old.corrected + 1, until=self._work.now)}
        self._work.state.put("moves", number, replace(move, ledger=replace(move.ledger, stale=stale)))

    def held(self, number: int, packets: int, lost: int) -> None:
        """Note packets that waited in the NVA for the destination's port, and those it had no room for."""
        move = self._work.state.moves.get(number)
        if move is None:
            return
        ledger = replace(
            move.ledger,
            held_packets=move.ledger.held_packets + packets,
            held_lost=move.ledger.held_lost + lost,
        )
        self._work.state.put("moves", number, replace(move, ledger=ledger))

    def _sender(self, fields: dict[str, bytes], source: str) -> str:
        """Which NVE's packets a redirect flow counts: a peer's, by its underlay address, or the source's own."""
        address = fields.get("tun_ipv4_src") or fields.get("tun_ipv6_src")
        if address is None:
            return source
        for nve in self._work.state.nves.values():
            if address in (nve.ipv4, nve.ipv6):
                return nve.name
        return "unknown"
