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

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from .counting import NONE, Account, Count, Counted, Counter, added
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
#: Seconds after which the last readings of a move that has ended are missed.
LAST_WITHIN = 5.0


#: Before the name of a reading that is the last of its counters.
_LAST = "last:"


def _parsed(reading: str) -> tuple[str, bool]:
    """The name of a reading, and whether it is the last."""
    return reading.removeprefix(_LAST), reading.startswith(_LAST)


def _flows(why: Why, about: int) -> Ask:
    return partial(ReadFlows, cookie=cookie(why, about), cookie_mask=COOKIE_EXACT)


class Accounts:
    """Reads counters of open moves and keeps their ledgers."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._accounts: dict[int, Account] = {}
        self.queues = Queues(work)

    def start(self, number: int) -> None:
        """Open the account of a move that steers now."""
        self._accounts[number] = Account(self._work.now)

    def close(self, number: int) -> None:
        """Forget the readings of a closed move; the ledger stays in its record."""
        account = self._accounts.pop(number, None)
        self._work.state.put("clock", ("account", number), None)
        if account is not None:
            move = self._work.state.moves[number]
            self._work.state.put("moves", number, replace(move, ledger=self._ledger(move.ledger, account)))
            if account.unknown:
                self._not_exact(self._work.state.moves[number], account.unknown)
        self.queues.close(self._work.state.moves[number])

    def is_read(self, number: int) -> bool:
        """Whether no reading of a move that has ended is waited for any more."""
        account = self._accounts.get(number)
        return account is None or not account.last

    def ended_unread(self, move: Move) -> None:
        """A move had ended as an earlier life of the NVA did: its last readings were asked for, and nobody has them."""
        if move.activated_by is not None:
            self._not_exact(move, {nve for nve, _ in self._readings(move).values()})

    def give_up(self, number: int) -> None:
        """The time for the last readings of a move is over."""
        account = self._accounts.get(number)
        if account is not None:
            account.give_up()

    def lose(self, nve: str) -> list[int]:
        """An NVE's connection has ended: what it was asked it does not answer any more. Returns the open accounts."""
        state = self._work.state
        for number, account in self._accounts.items():
            move = state.moves[number]
            mine = {name for name, (where, _) in self._readings(move).items() if where == nve} if move.open else set()
            account.lose(nve, mine)
        return list(self._accounts)

    # --- asking -------------------------------------------------------------------------------------------------------
    def _readings(self, move: Move) -> dict[str, tuple[str, Ask]]:
        """What is to be read: name -> (NVE, what asks for it)."""
        readings: dict[str, tuple[str, Ask]] = {}
        for leg in move.legs:
            src = leg.src.nve
            exact = self._exact(move, leg)
            readings[f"redirect@{src}"] = (src, ReadMeters if exact else _flows(Why.REDIRECT, move.id))
            interface = self._work.state.interfaces.get(leg.interface)
            newest = leg.dst if interface is None else target(self._work.state, interface)
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
        kind, nve = _parsed(name)[0].split("@", 1)
        found: dict[Counter, Counted] = {}
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
            found[sender, stats.flow.key] = Counted((stats.packets, stats.bytes), stats.age)
        if kind != "arrived" and move.id in self._accounts and any(counted.value[0] for counted in found.values()):
            self._accounts[move.id].blurred = True
        return self._take(move, name, found)

    def not_read(self, number: int, reading: str) -> None:
        """A reading has failed: nothing is known that was not known before."""
        account, (name, last) = self._accounts.get(number), _parsed(reading)
        if account is None:
            return
        account.asked_at.pop(name, None)
        if last and name in account.last:
            account.unknown.add(account.last.pop(name))

    def read_meters(self, number: int, name: str, meters: dict[int, Count]) -> bool:
        """Take meters into the ledger. True once the move has been quiet for the quiet time.

        An answer without any meter changes no count: what was counted stays counted.
        """
        move = self._work.state.moves.get(number)
        if move is None:
            return False
        kind, nve = _parsed(name)[0].split("@", 1)
        found: dict[Counter, Counted] = {}

        def add(sender: str, meter: int) -> None:
            if meter in meters:
                found[sender, meter] = Counted(meters[meter])

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

    def read_ports(self, number: int, reading: str, ports: dict[int, PortCounts]) -> bool:
        """Take statistics of ports into the ledger. True once the move has been quiet for the quiet time."""
        move = self._work.state.moves.get(number)
        if move is None or move.ledger.closed:
            return False
        name, last = _parsed(reading)
        if not ports and not last:
            self.not_read(number, reading)
        self.queues.read(move, name, ports)
        move = self._work.state.moves[number]
        return name.startswith("port@") and bool(ports or last) and self._take(move, reading, {})

    def _take(self, move: Move, reading: str, found: dict[Counter, Counted]) -> bool:
        account, (name, last) = self._accounts.get(move.id), _parsed(reading)
        if account is None or not (move.open or (last and name in account.last)):
            return False
        now = self._work.now
        if last and account.lacks(name, found):
            account.unknown.add(account.last[name])
        account.take(name, found, now)
        account.last.pop(name, None)
        ledger = self._ledger(move.ledger, account)
        total = (
            (ledger.redirected_packets, ledger.redirected_bytes),
            (ledger.arrived_packets, ledger.arrived_bytes),
            (ledger.lost_packets, ledger.lost_bytes),
            (ledger.dropped_packets, 0),
        )
        if account.total and total != account.total:
            account.changed = now
            # Who knows what has come since, before the redirect had ended. What has arrived of packets sent before is
            # only known later: switches refresh flow counters now and then. A port drops what anybody sends to it.
            sent, sent_before = ((each[0], each[2]) for each in (total, account.total))
            if last and (sent != sent_before or total[1][0] > total[0][0]):
                account.blurred = True
                ledger = replace(ledger, exact=False)
        account.total = total
        if last:
            self._work.state.put("moves", move.id, replace(move, ledger=ledger))
            return False
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

    def _ledger(self, old: Ledger, account: Account) -> Ledger:
        sums = {"redirect": NONE, "arrived": NONE, "lost": NONE}
        stale = dict(old.stale)
        senders: dict[str, Count] = {}
        for kind, sender, count in account.counts():
            sums[kind] = added(sums[kind], count)
            if kind == "redirect":
                senders[sender] = added(senders.get(sender, NONE), count)
        for sender, (packets, size) in senders.items():
            before = stale.get(sender, Stale())
            if before.packets < packets:
                stale[sender] = replace(before, packets=packets, bytes=size, until=self._work.now)
        # What an earlier life of the NVA has read stays counted, until as much is read again.
        had = {
            "redirect": (old.redirected_packets, old.redirected_bytes),
            "arrived": (old.arrived_packets, old.arrived_bytes),
            "lost": (old.lost_packets, old.lost_bytes),
        }
        sums = {kind: max(count, had[kind]) for kind, count in sums.items()}
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
        """A steered move ends: all its counters are read once more, ahead of what ends it.

        What an NVE that is away, or no more, has counted since it was last read stays unknown.
        """
        work, readings = self._work, self._readings(move)
        unread = {nve for nve, _ in readings.values() if work.session(nve) is None}
        if unread:
            self._not_exact(move, unread)
        account = self._accounts.setdefault(move.id, Account(work.now))
        for name, (nve, ask) in readings.items():
            if nve not in unread:
                account.asked_at[name], account.last[name] = work.now, nve
                work.first.append(ask(work.dpid(nve), f"ledger:{move.id}:{_LAST}{name}"))
        work.state.put("clock", ("account", move.id), work.now + LAST_WITHIN if account.last else None)

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
