"""Who is told of what is due: every kind of timer, once. What becomes of each at a restart: fates.TIMERS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import flapping, readdressing, sought
from .ledger import Accounts
from .mobility import MoveEvent
from .probes import Prober
from .quarantine import Quarantine
from .work import Work

if TYPE_CHECKING:
    from .nva import Nva

__all__ = ["handlers"]

Handler = Callable[[Any], object]


def handlers(nva: Nva, work: Work, prober: Prober, accounts: Accounts, quarantine: Quarantine) -> dict[str, Handler]:
    """Who is told, by kind of timer, with what the timer is about."""
    state, packets = work.state, nva.packets

    def deadline(number: int) -> None:
        missing = prober.missing(number)
        nva.moves.expired(number, f": no probe crossed from {missing}" if missing else "")

    def probe(number: int) -> None:
        if prober.send(state.moves[number]):
            nva.moves.fire(number, MoveEvent.READY, "destination ready, every path there is proven")

    def account(number: int) -> None:
        accounts.give_up(number)
        nva.switches.account_closes(number)

    def while_open(handler: Handler) -> Handler:
        """A timer of a move means something while the move is open."""

        def due(number: int) -> None:
            if number in state.moves and state.moves[number].open:
                handler(number)

        return due

    of_moves: dict[str, Handler] = {
        "deadline": deadline,
        "probe": probe,
        "poll": lambda move: accounts.poll(move),
        "guard": lambda move: nva.moves.guard_over(move),
        "sample": lambda move: nva.moves.sample(move, True),
        "regroup": lambda move: nva.recovery.regroup(move),
        "off": lambda move: nva.evacuations.shut_off.time(move),
        "watch": lambda move: packets.watch(move),
        "rewatch": lambda move: packets.watch(move),
    }
    return {
        **{kind: while_open(handler) for kind, handler in of_moves.items()},
        "refusals": lambda _: packets.refusals.interval_over(),
        "mute": lambda place: packets.refusals.samples.mute_over(place),
        "silence": lambda place: packets.refusals.silence_over(place),
        "freeze": lambda interface: flapping.thaw(work, interface, "time"),
        "resync": lambda nve: nva.switches.resync(nve),
        "retry": lambda nve: quarantine.due(nve),
        "account": account,
        "tunnels": lambda _: nva.tunnels.time(),
        "left": lambda key: readdressing.forget(work, key),
        "sought": lambda key: sought.forget(state, key),
        "hops": lambda nve: packets.neighbors.solicit(nve),
        "tell": lambda key: nva.announcing.time("tell", key),
        "told": lambda key: nva.announcing.time("told", key),
        "holder": lambda key: packets.sharing.time(key),
        "doubt": lambda key: packets.sharing.ask(key),
        "evacuation": lambda number: nva.evacuations.replan(number),
    }
