"""A restart changes no flow, no answer and no timer but by its own doing.

:func:`check_restart` takes a world as it is, starts a second authority from its records, lets every switch that is
connected come back to that with the ports and flows that it has, and compares. The world itself goes on untouched.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from world import World

from ryu_vmm import events as ev
from ryu_vmm.effects import Effect, Program, ReadFlows
from ryu_vmm.fates import RECORDED, TIMERS, Fate
from ryu_vmm.flows import Flow, FlowStats
from ryu_vmm.model import Move
from ryu_vmm.nva import Nva
from ryu_vmm.pipeline import desired
from ryu_vmm.resolution import answering
from ryu_vmm.rest import views
from ryu_vmm.state import State
from ryu_vmm.tables import COOKIE_MASK, COOKIE_OURS


def check_restart(world: World) -> Nva | None:
    """Compare an authority with one that is started from its records now; the latter, None: not comparable now.

    Compared with only where every switch is connected and in sync, and holds what it should: else what a restart brings
    in sync would count as a difference.
    """
    old = world.nva
    _same_records(world)
    if not _at_rest(world):
        return None
    new = Nva(old.settings)
    effects = deque(new.restore(list(world.store.load()), world.now).effects)
    held = {name: {f.key: f for f in box.tables.flows} for name, box in world.boxes.items()}
    for name, session in old.state.sessions.items():
        ports = (old.state.ports[name, port] for port in old.state.ports_of(name))
        told = tuple(ev.PortInfo(port.number, port.name, port.up) for port in ports)
        event = ev.NveConnected(old.state.nves[name].dpid, told, session.meters, session.names)
        effects += new.handle(event, world.now).effects
        _carry_out(world, new, effects, held)
    _same_timers(old.state, new.state)
    _same_answers(old.state, new.state)
    _same_flows(old.state, new.state)
    return new


def _at_rest(world: World) -> bool:
    state = world.nva.state
    if world.late or world.hold_barriers or getattr(world, "deaf", ()) or getattr(world, "stuck", False):
        return False
    if set(state.sessions) != set(state.nves) or not all(session.synced for session in state.sessions.values()):
        return False
    settled = all(programmed == realised for programmed, realised in state.generations.values())
    sound = not state.faults and not state.refusals and not getattr(world, "tainted", ())
    return settled and sound and not world.differences()


def _carry_out(world: World, nva: Nva, effects: deque[Effect], held: dict[str, dict[Any, Flow]]) -> None:
    """What the second authority asks of switches happens to copies of what they hold; its packets go nowhere."""
    while effects:
        effect = effects.popleft()
        name = nva.state.by_dpid.get(getattr(effect, "dpid", -1))
        if name is None:
            continue
        event: ev.Event
        match effect:
            case ReadFlows(dpid, token, _, _, _, generation):
                ours = (flow for flow in held[name].values() if flow.cookie & COOKIE_MASK == COOKIE_OURS)
                event = ev.FlowsRead(dpid, token, tuple(FlowStats(flow, 0, 0, 0.0) for flow in ours), generation)
            case Program(dpid, generation, changes):
                for change in changes:
                    if change.op == "add":
                        held[name][change.flow.key] = change.flow
                    else:
                        held[name].pop(change.flow.key, None)
                event = ev.BarrierReplied(dpid, generation)
            case _:
                continue
        effects += nva.handle(event, world.now).effects


#: Moves go on, what was told may have to be told again, and numbers that may have been given out are not given again.
_GO_ON = ("moves", "changed", "vanished", "numbers")


# --- what is compared -------------------------------------------------------------------------------------------------
def _same_records(world: World) -> None:
    """The store has what the tables have that are to survive."""
    state, stored = world.nva.state, world.store.rows
    for table in RECORDED:
        content = getattr(state, table)
        kept = {key: value for (kind, key), value in stored.items() if kind == table}
        if table == "moves":  # what a restart of before has begun anew need not be recorded for the next one
            kept, content = ({n: _told(move) for n, move in moves.items()} for moves in (kept, content))
        assert kept == content, f"{table}: {_differing(kept, content)}"


def _differing(a: dict[Any, Any], b: dict[Any, Any]) -> dict[Any, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in {*a, *b} if a.get(key) != b.get(key)}


def _same_timers(old: State, new: State) -> None:
    """Timers that follow from records are due when they were."""
    kinds = {kind for kind, kept in TIMERS.items() if kept.fate is Fate.DERIVED}
    before, after = ({k: at for k, at in state.clock.items() if k[0] in kinds} for state in (old, new))
    assert before == after, _differing(before, after)


def _same_answers(old: State, new: State) -> None:
    """Who is where, who answers for what, and what has become of every move."""
    for interface in old.interfaces.values():
        assert new.interfaces[interface.id] == interface
        for address in (*interface.ipv4, *interface.ipv6, *interface.shared):
            assert answering(old, interface.vni, address) == answering(new, interface.vni, address)
    for name in old.vms:
        assert _shown(old, name) == _shown(new, name)
    for number, move in old.moves.items():
        assert _told(move) == _told(new.moves[number]), f"move {number}"
    for table in RECORDED:
        if table not in _GO_ON:
            before, after = getattr(old, table), getattr(new, table)
            assert before == after, f"{table}: {_differing(before, after)}"


def _shown(state: State, name: str) -> dict[str, Any]:
    """What is said of a VM, but for samples of what it was not admitted to send: these are taken again."""
    document = views.vm(state, state.vms[name])
    for interface in document["interfaces"]:
        del interface["unadmitted"]
    return document


def _told(move: Move) -> Move:
    """A move without what begins anew: who has confirmed, the account, and whether stale packets are sampled."""
    return replace(move, unconfirmed=(), sampling=False, generation=0, ledger=move.ledger.__class__())


def _same_flows(old: State, new: State) -> None:
    """But for what the destination of an open move is told unasked of whom its VM may talk to: as it connects, too."""
    for name in old.sessions:
        before, after = desired(old, name), desired(new, name)
        after = {key: flow for key, flow in after.items() if key in before or not flow.idle_timeout}
        assert before == after, f"{name}: {_differing(before, after)}"
