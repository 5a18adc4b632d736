"""What ports had no room for: a move's ledger reads the statistics of the ports at both ends of each of its legs.

A guest that is paused reads nothing: what is sent to it waits in its port's queue, and what finds that full is dropped
by the port, behind everything that meters and flows count. Open vSwitch reports that (OpenFlow 1.3 section 7.3.5.6).

* The first reading is asked for in the step that begins the redirect, or that steers where there was none, ahead of the
  flows of that step: a port that appears later is first read ahead of the flows that send anything to it.
* A source's port is read for the last time once its redirect is in force: nothing is sent to it from then on, and its
  end is no loss. A destination's port is read until the move is quiet.
* A port whose first or last reading is missing, or whose counters began anew, makes the ledger not exact, and is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .effects import ReadPorts
from .flows import PortCounts
from .model import Leg, Move, Place, PortAccount, Redirect
from .work import Work


class Queues:
    """Keeps the accounts of ports in the ledgers of moves."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._seen: dict[tuple[int, str], int] = {}  # move and port -> packets that it has carried, as last read

    def watch(self, move: Move) -> None:
        """Begin the accounts of the ports at a move's ends that have none yet; called again it changes nothing."""
        state = self._work.state
        accounts = dict(move.ledger.ports)
        for name in accounts.keys() - {_name(place) for _, place in _ends(move)}:
            if not accounts[name].final:  # the move was amended: nobody reads that port any more
                accounts[name] = replace(accounts[name], final=True, whole=False)
        for leg, place in _ends(move):
            port = state.ports.get(place)
            known = accounts.get(_name(place))
            if port is None or (known is not None and (known.number == port.number or (known.final and known.whole))):
                continue
            if known is None:
                accounts[_name(place)] = PortAccount(leg.interface, port.number)
            else:  # another one of that name: what the first had counted last, nobody has read
                began = (0, -known.dropped)
                accounts[_name(place)] = replace(known, number=port.number, began=began, whole=False)
            self._ask(move, place, "base")
        if accounts != move.ledger.ports:
            self._put(move, accounts)

    def begin_again(self, move: Move) -> Move:
        """The redirect is withdrawn: what ports drop before the next one is none of the move's."""
        self.forget(move.id)
        return replace(move, ledger=replace(move.ledger, ports={}))

    def appeared(self, place: Place) -> None:
        """A port is there: if anything may be sent to it for a move, its account begins."""
        for move, _ in self._work.state.moves_at(place):
            if move.redirect is not Redirect.NONE or move.state.steered:
                self.watch(self._work.state.moves[move.id])

    def amended(self, move: Move) -> None:
        """A move goes to another port: if anything may be sent there by now, its account begins."""
        if move.redirect is not Redirect.NONE or move.state.steered:
            self.watch(move)

    def gone(self, place: Place) -> None:
        """A port is no more: what it had counted since it was last read, nobody will know.

        One that has not been read yet may have gone before it was asked: the answer will tell.
        """
        for found, _ in self._work.state.moves_at(place):
            move = self._work.state.moves[found.id]
            account = move.ledger.ports.get(_name(place))
            if account is not None and not account.final and account.whole and account.began is not None:
                self._put(move, {**move.ledger.ports, _name(place): replace(account, whole=False)})

    def in_force(self, move: Move) -> None:
        """Nothing is sent to the ports at a move's source any more: read them for the last time."""
        for _, place in _ends(move):
            if place.nve == move.source and _name(place) in move.ledger.ports:
                self._ask(move, place, "last")

    def readings(self, move: Move) -> Iterator[tuple[str, str, int]]:
        """What is to be read while a move is draining: name of the reading, NVE, port number."""
        for _, place in _ends(move):
            account, port = move.ledger.ports.get(_name(place)), self._work.state.ports.get(place)
            if account is None or (account.final and account.whole):
                continue
            if port is not None and port.number == account.number:
                yield f"port@{_name(place)}", place.nve, port.number

    def read(self, move: Move, reading: str, ports: dict[int, PortCounts]) -> None:
        """Take in the answer to a reading: the first, a later one, or the last of a source's port."""
        kind, _, name = reading.partition("@")
        account = move.ledger.ports.get(name)
        if account is None or (account.final and account.whole):
            return  # nothing has been sent there since: its end is no loss
        counts = ports.get(account.number)
        there = self._work.state.ports.get(Place(*name.split("/", 1)))
        gone = there is None or there.number != account.number
        if counts is None and kind == "base" and account.began is None and gone:
            # It had gone when it was asked, ahead of what the move has changed: the move has sent nothing to it.
            self._put(move, {port: each for port, each in move.ledger.ports.items() if port != name})
            return
        if counts is None or counts.tx_dropped is None or counts.tx_packets is None:
            self._put(move, {**move.ledger.ports, name: replace(account, whole=False)})
            return
        carried, dropped = counts.tx_packets, counts.tx_dropped + (counts.tx_errors or 0)
        if account.began is None:
            account = replace(account, began=(carried, dropped), whole=account.whole and kind == "base" and not gone)
        elif carried < self._seen.get((move.id, name), 0) or dropped < account.began[1] + account.dropped:
            account = replace(account, began=(0, -account.dropped), whole=False)  # it counts from zero again
        self._seen[move.id, name] = carried
        began = account.began or (0, 0)
        if dropped - began[1] != account.dropped:
            account = replace(account, dropped=dropped - began[1], carried=carried - began[0])
        if kind == "last" or (kind == "port" and name.startswith(f"{move.source}/")):
            account = replace(account, final=True)
        if account != move.ledger.ports[name]:
            self._put(move, {**move.ledger.ports, name: account})

    def close(self, move: Move) -> None:
        """Note what else a port that dropped something has carried, so that it is known how long its queue has to be,
        and report it."""
        accounts = dict(move.ledger.ports)
        for name, account in accounts.items():
            if not account.dropped:
                continue
            carried = self._seen.get((move.id, name), 0) - (account.began or (0, 0))[0]
            accounts[name] = account = replace(account, carried=max(account.carried, carried))
            nve, _, port = name.partition("/")
            self._work.report(
                "move.dropped",
                move=move.id,
                vm=move.vm,
                interface=account.interface,
                nve=nve,
                port=port,
                packets=account.dropped,
                queue=account.queue,
            )
        if accounts != move.ledger.ports:
            self._put(move, accounts)
        self.forget(move.id)

    def forget(self, number: int) -> None:
        """Forget what only an open account needs."""
        for key in [key for key in self._seen if key[0] == number]:
            del self._seen[key]

    def _ask(self, move: Move, place: Place, kind: str) -> None:
        port = self._work.state.ports.get(place)
        if port is not None and place.nve in self._work.state.sessions:
            token = f"ledger:{move.id}:{kind}@{_name(place)}"
            effect = ReadPorts(self._work.dpid(place.nve), token, port.number)
            if kind == "base":
                self._work.first.append(effect)
            else:
                self._work.do(effect)

    def _put(self, move: Move, accounts: dict[str, PortAccount]) -> None:
        ledger = replace(move.ledger, ports=accounts)
        ledger = replace(ledger, exact=ledger.exact and not ledger.unread)
        self._work.state.put("moves", move.id, replace(move, ledger=ledger))


def _ends(move: Move) -> Iterator[tuple[Leg, Place]]:
    return ((leg, place) for leg in move.legs for place in (leg.src, leg.dst))


def _name(place: Place) -> str:
    return "/".join(place)
