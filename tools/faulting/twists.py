"""Moves that are overtaken: by another move, by a dead NVA, by an NVE that is away longer than every deadline."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from ryu_vmm.tables import Why, cookie
from topologies import netns
from topologies.errors import NotReady

from .cells import Cell, aftermath
from .faults import SHORT
from .ground import MOVER, TRUSTING, Ground, await_true, neighbors
from .losses import account
from .staged import Staged

_BEFORE, _AFTER = 0.3, 0.4
_DEAD = 12.0
#: Seconds within which a move must get past an NVE that is dead: the deadlines of preparing and of steering, and a bit.
_PAST_DEAD = SHORT["prepare_deadline"] + SHORT["steer_deadline"] + 2.0


@dataclass(frozen=True)
class Twist:
    """One story. short: it needs deadlines that pass quickly. ends: how its moves may end."""

    name: str
    play: Callable[[Ground, Staged], list[Staged]]
    short: bool = False
    ends: frozenset[str] = frozenset({"settled"})

    @property
    def key(self) -> str:
        """For command lines and test names."""
        return self.name.replace(", ", "-").replace(" ", "-")


def run(ground: Ground, twist: Twist) -> Cell:
    """Play it under traffic. Nothing here drops a packet by itself, so nothing may be lost. Raises TopologyError."""
    first = Staged(ground, ground.vm(MOVER))
    source = first.source
    with ground.session(ground.traffic(first)) as session:
        time.sleep(_BEFORE)  # the load itself is what is waited for
        try:
            moves = [first, *twist.play(ground, first)]
            ends = [move.finish()["state"] for move in moves]
        finally:
            for nve in ground.net.nves:
                nve.restore()
            first.release()
        ground.await_all_synced()
        left = [move["id"] for move in ground.await_ended()]
        time.sleep(_AFTER)
        outcome = session.stop()
    others = aftermath(ground, outcome, [MOVER])
    if not twist.ends >= set(ends):
        others.append(f"the moves are {ends}")
    losses = account(outcome, [], sum(move.thrown for move in moves), MOVER)
    name = f"{twist.name} (from {source.name})"
    return Cell(twist.name, "twist", ", ".join(ends), losses, outcome.sent, outcome.duplicated, [], left,
                ground.verify(), others, {"name": name})


# --- the stories -----------------------------------------------------------------------------------------------------
def _back_at_once(ground: Ground, first: Staged) -> list[Staged]:
    """A to B to A, the second asked for the moment the VM is heard at B."""
    first.reach("redirecting")
    first.switch_over()
    ground.await_state(first.number, "steering", "draining")
    second = Staged(ground, first.vm, first.source.name)
    second.reach("settled")
    return [second]


def _onwards(ground: Ground, first: Staged) -> list[Staged]:
    """A to B to C before B settled, while an NVE that cannot be told still sends to A: A sends on straight to C."""
    first.reach("redirecting")
    first.holder.cut("close")
    ground.await_nve(first.holder.name, False)
    first.switch_over()
    ground.await_state(first.number, "steering", "draining")
    second = Staged(ground, first.vm, first.correspondent.name)
    second.reach("redirecting")
    second.switch_over()
    ground.await_state(second.number, "steering", "draining")
    ground.await_all_synced(but=[first.holder.name])
    targets = redirect_targets(ground, first)
    if targets != {second.destination.name}:
        raise AssertionError(f"{first.source.name} sends on to {targets}, not straight to {second.destination.name}")
    first.holder.restore()
    return [second]


def redirect_targets(ground: Ground, staged: Staged) -> set[str]:
    """The NVEs to which a move's source sends on, by the switch's own word."""
    text = staged.source.ofctl("dump-flows", f"cookie={cookie(Why.REDIRECT, staged.number):#x}/-1")
    addresses = {nve.name: str(nve.ipv4 or nve.ipv6).partition("/")[0] for nve in ground.net.nves}
    return {name for name, address in addresses.items() if re.search(rf":{re.escape(address)}->tun_(ipv6_)?dst", text)}


def _dead_at_switch_over(ground: Ground, first: Staged) -> list[Staged]:
    """The NVA dies with the redirect in force; the VM is resumed and announces itself to nobody."""
    first.reach("redirecting")
    ground.nva.kill()
    first.switch_over()
    time.sleep(0.5)  # the VM runs at its destination, and no authority knows
    ground.nva.start()
    ground.await_all_synced()
    return []


def _dead_for_long(ground: Ground, first: Staged) -> list[Staged]:
    """The NVA stays dead for several times as long as guests trust what they know of their neighbors.

    They ask again for whom they talk to, also for a VM that has just moved: edges must do without the NVA.
    """
    first.reach("draining")
    for vm in ground.net.vms:
        netns.sysctl(vm.namespace, neighbors(1500, 1))
    ground.nva.kill()
    time.sleep(_DEAD)  # the length of the absence
    ground.nva.start()
    ground.await_all_synced()
    for vm in ground.net.vms:
        netns.sysctl(vm.namespace, TRUSTING)
    return []


def _stale_for_long(ground: Ground, first: Staged) -> list[Staged]:
    """A correspondent is away before the VM is heard at its destination, until every deadline has long passed.

    It goes on sending to the source, so the redirect must stay, the move stay open and say whom it waits for.
    """
    first.reach("redirecting")
    first.holder.cut("close")
    ground.await_nve(first.holder.name, False)
    first.switch_over()
    ground.await_state(first.number, "draining")
    time.sleep(SHORT["drain_cap"] + 1.0)  # the cap itself is what has to pass
    document = first.document()
    if not document["open"] or first.holder.name not in document["unconfirmed"]:
        raise AssertionError(f"the move is {document['state']} and waits for {document['unconfirmed']}, although "
                             f"{first.holder.name} may still send to the source")
    first.holder.restore()
    ground.await_nve(first.holder.name, True)
    return []


def _away_before(ground: Ground, first: Staged) -> list[Staged]:
    """An NVE is dead already when a move is asked for: the move goes on without it, and ends when it is back."""
    first.holder.cut("close")
    ground.await_nve(first.holder.name, False)
    began = time.monotonic()
    first.reach("redirecting")
    first.switch_over()
    ground.await_state(first.number, "draining")
    seconds = time.monotonic() - began
    if seconds > _PAST_DEAD:
        raise NotReady(f"a dead NVE held the move up for {seconds:.1f} s")
    if not await_true(lambda: first.document()["unconfirmed"] == [first.holder.name], 1.0):
        raise AssertionError(f"the move does not say whom it waits for: {first.document()['unconfirmed']}")
    first.holder.restore()
    ground.await_nve(first.holder.name, True)
    return []


def _others(ground: Ground, first: Staged) -> list[Staged]:
    """A move waits for a destination that is dead; another VM moves there and back meanwhile."""
    first.reach("prepared")
    first.destination.cut("close")
    ground.await_nve(first.destination.name, False)
    found, other = [], ground.staying(first.correspondent)
    for to in (first.holder, first.correspondent):
        began = time.monotonic()
        found.append(Staged(ground, other, to.name))
        found[-1].reach("draining")
        if time.monotonic() - began > _PAST_DEAD:
            raise NotReady(f"a dead NVE held the move of {other.name} up for {time.monotonic() - began:.1f} s")
    first.destination.restore()
    ground.await_nve(first.destination.name, True)
    return found


TWISTS = (
    Twist("A to B to A at once", _back_at_once),
    Twist("A to B to C before B settled", _onwards),
    Twist("NVA dead while the VM switches over", _dead_at_switch_over),
    Twist("NVA dead for long", _dead_for_long),
    Twist("correspondent away beyond every deadline", _stale_for_long, short=True),
    Twist("an NVE is dead before the move is asked for", _away_before, short=True),
    Twist("another VM moves while a destination is dead", _others, True, frozenset({"settled", "failed"})),
)
