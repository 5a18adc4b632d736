"""The account of a move, read from the switches' own counters.

The source counts what its redirect sent on, one counter for each correspondent NVE that was still sending to it; the
destination counts what arrived under the move's mark. The two are different switches' counters for the same packets:
their difference is what the underlay lost. Counters are read until they have stood still for the quiet time, which is
also what ends a move.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .effects import ReadFlows
from .flows import FlowStats
from .model import Ledger, Move, Place, Stale
from .pipeline import COOKIE_EXACT, Why, cookie, target
from .work import Work

#: (packets, bytes)
Count = tuple[int, int]


@dataclass(slots=True)
class _Account:
    """Readings of one move. ``expected``: reading name -> (NVE, cookie)."""

    expected: dict[str, tuple[str, int]]
    changed: float
    total: tuple[Count, ...] = ()
    read_at: dict[str, float] = field(default_factory=dict)
    values: dict[str, dict[str, Count]] = field(default_factory=dict)


class Accounts:
    """Reads counters of open moves and keeps their ledgers."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._accounts: dict[int, _Account] = {}

    def start(self, number: int) -> None:
        """Open the account of a move that steers now."""
        move = self._work.state.moves[number]
        self._accounts[number] = _Account(self._readings(move), self._work.now)

    def close(self, number: int) -> None:
        """Forget the readings of a closed move; the ledger stays in its record."""
        self._accounts.pop(number, None)

    def _readings(self, move: Move) -> dict[str, tuple[str, int]]:
        readings = {}
        for leg in move.legs:
            readings[f"redirect@{leg.src.nve}"] = (leg.src.nve, cookie(Why.REDIRECT, move.id))
            goals: set[Place] = {leg.dst, target(self._work.state, self._work.state.interfaces[leg.interface])}
            for nve in {place.nve for place in goals} - {leg.src.nve}:
                readings[f"arrived@{nve}"] = (nve, cookie(Why.MARK, move.id))
            if move.trigger == "announcement":
                readings[f"lost@{leg.src.nve}"] = (leg.src.nve, cookie(Why.GONE, leg.vni))
        return readings

    def poll(self, number: int) -> None:
        """Ask for fresh counters of a draining move, and ask again after the poll interval."""
        move = self._work.state.moves[number]
        account = self._accounts.get(number)
        if account is None:
            self.start(number)
            account = self._accounts[number]
        account.expected = self._readings(move)
        asked = False
        for name, (nve, wanted) in account.expected.items():
            if self._work.session(nve) is not None:
                asked = True
                self._work.do(ReadFlows(self._work.dpid(nve), f"ledger:{number}:{name}", wanted, COOKIE_EXACT))
        if not asked:
            self._work.report("move.blind", move=number, nves=sorted({n for n, _ in account.expected.values()}))
        self._work.state.put("clock", ("poll", number), self._work.now + self._work.settings.poll_interval)

    def read(self, number: int, name: str, flows: tuple[FlowStats, ...]) -> bool:
        """Take a reading into the ledger. True once the move has been quiet for the quiet time."""
        account, move = self._accounts.get(number), self._work.state.moves.get(number)
        if account is None or move is None or not move.open:
            return False
        now = self._work.now
        kind, nve = name.split("@", 1)
        found: dict[str, Count] = {}
        macs = {self._work.state.interfaces[leg.interface].mac for leg in move.legs}
        for stats in flows:
            fields = {item[0]: item[1] for item in stats.flow.match}
            if kind == "lost" and fields.get("eth_dst") not in macs:
                continue
            sender = self._sender(fields, nve) if kind == "redirect" else ""
            packets, size = found.get(sender, (0, 0))
            found[sender] = (packets + stats.packets, size + stats.bytes)
        account.values[name] = found
        account.read_at[name] = now
        ledger = self._ledger(move.ledger, account)
        total = (
            (ledger.redirected_packets, ledger.redirected_bytes),
            (ledger.arrived_packets, ledger.arrived_bytes),
            (ledger.lost_packets, ledger.lost_bytes),
        )
        if account.total and total != account.total:
            account.changed = now
        account.total = total
        if ledger != move.ledger:
            self._work.state.put("moves", number, replace(move, ledger=ledger))
        pending = [n for n, (where, _) in account.expected.items() if self._work.session(where) and n not in account.read_at]
        fresh = min(account.read_at.values())
        return not pending and fresh - account.changed >= self._work.settings.quiet_time

    def corrected(self, number: int, correspondent: str) -> None:
        """Note that a stale correspondent was found by its packets and is being corrected."""
        move = self._work.state.moves[number]
        old = move.ledger.stale.get(correspondent, Stale())
        stale = {**move.ledger.stale, correspondent: replace(old, corrected=old.corrected + 1, until=self._work.now)}
        self._work.state.put("moves", number, replace(move, ledger=replace(move.ledger, stale=stale)))

    def held(self, number: int, packets: int, lost: int) -> None:
        """Note packets that waited in the NVA for the destination's port, and those it had no room for."""
        move = self._work.state.moves[number]
        ledger = replace(
            move.ledger,
            held_packets=move.ledger.held_packets + packets,
            held_lost=move.ledger.held_lost + lost,
        )
        self._work.state.put("moves", number, replace(move, ledger=ledger))

    def _ledger(self, old: Ledger, account: _Account) -> Ledger:
        sums = {"redirect": (0, 0), "arrived": (0, 0), "lost": (0, 0)}
        stale = dict(old.stale)
        for name, found in account.values.items():
            kind = name.split("@", 1)[0]
            for sender, (packets, size) in found.items():
                sums[kind] = (sums[kind][0] + packets, sums[kind][1] + size)
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
        )

    def _sender(self, fields: dict[str, bytes], source: str) -> str:
        """Which NVE's packets a redirect flow counts: a peer's, by its underlay address, or the source's own."""
        address = fields.get("tun_ipv4_src") or fields.get("tun_ipv6_src")
        if address is None:
            return source
        for nve in self._work.state.nves.values():
            if address in (nve.ipv4, nve.ipv6):
                return nve.name
        return "unknown"
