"""What tests of evacuations share: a world with VMs to be moved off n1, and hypervisors that carry moves out."""

from __future__ import annotations

from collections import Counter

from world import World, mac

from ryu_vmm import events as ev
from ryu_vmm.model import Evacuation, EvacueeState, Move, MoveState
from ryu_vmm.nva import Nva
from ryu_vmm.wire import frames


def house(vms: int, nves: int = 3, **options: object) -> World:
    """VMs vm1.. on n1, all in network blue."""
    w = World(nves, **options)  # type: ignore[arg-type]
    w.network()
    for n in range(1, vms + 1):
        w.vm(n, "n1")
    return w


def evacuate(w: World, nve: str = "n1", **options: object) -> Evacuation:
    evacuation, _ = w.handle(ev.EvacuationRequested(nve, **options))  # type: ignore[misc, arg-type]
    return w.nva.state.evacuations[evacuation.id]


def now(w: World, number: int = 1) -> Evacuation:
    return w.nva.state.evacuations[number]


def rows(w: World, number: int = 1) -> dict[str, EvacueeState]:
    return {row.vm: row.state for row in w.nva.state.evacuees_in(number)}


def states(w: World, number: int = 1) -> dict[str, int]:
    return {state.value: n for state, n in w.nva.state.evacuee_counts(number).items() if n}


def moves(w: World, *within: MoveState) -> list[Move]:
    return [move for move in w.nva.state.open_moves() if not within or move.state in within]


def carry(w: World, move: Move) -> None:
    """What the hypervisors do for a move that is prepared, up to the announcement."""
    leg = move.legs[0]
    n = w.nva.state.interfaces[leg.interface].mac[-1]
    w.handle(ev.RedirectRequested(move.id))
    w.advance(0.05)
    assert w.current(move).redirect == "in-force"
    w.unplug(*leg.src)
    w.plug(*leg.dst)
    w.send(*leg.dst, frames.build_garp(mac(n), bytes([10, 0, 0, n])))


def carry_all(w: World, number: int = 1, seconds: float = 60.0) -> None:
    """Carry out whatever is prepared until the evacuation has ended."""
    end = w.now + seconds
    while now(w, number).state.open and w.now < end:
        w.advance(0.1)
        for move in moves(w, MoveState.PREPARED):
            carry(w, move)
    assert not now(w, number).state.open


def homes(w: World) -> Counter[str]:
    return Counter(interface.location.nve for interface in w.nva.state.interfaces.values())


def restart(w: World) -> None:
    """The NVA ends at once and is started again from its store; switches connect anew, and keep what they hold."""
    w.nva = Nva(w.nva.settings)
    w._events.clear()
    w.nva.restore(list(w.store.load()), w.now)
    for name, box in w.boxes.items():
        if box.connected:
            w.connect(name)
