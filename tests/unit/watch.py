"""What must hold of every step of the core, by a book of its own.

It is written by what the authority promises, not by how it keeps it: places and epochs, moves that go forward only,
flows that switches were told of, promises that were given. Everything here is an assertion about the step before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ryu_vmm import events as ev
from ryu_vmm.effects import Outcome, Program
from ryu_vmm.flows import IN_PORT, Flow, FlowKey, Output, SetField
from ryu_vmm.journal import PERSISTENT
from ryu_vmm.model import Answer, EvacuationState, Interface, Move, MoveState, Place, Redirect, Trust
from ryu_vmm.paths import target
from ryu_vmm.pipeline import desired
from ryu_vmm.state import State
from ryu_vmm.tables import COOKIE_MASK, COOKIE_OURS, Why, move_of, why_of

if TYPE_CHECKING:
    from turmoil import Turmoil

#: What of State says how something came to be rather than what it is.
ASIDE = {"version", "touched", "joined", "floods", "_journal", "_quiet", "_free_slots", "_slots_used", "_slots", "meta"}
#: Tables of what somebody has asked for; all others are what came of it, or was heard.
PROMISES = ("nves", "networks", "vms", "interfaces", "moves", "evacuations")
TABLES = (
    *PERSISTENT, "ports", "sessions", "pulled", "generations", "waits", "clock", "probes", "returning", "gone",
    "broken", "lacking", "muted", "unadmitted", "refusals", "certain", "needs",
)  # fmt: skip


class Watch:
    """Looks on while the core of a world takes one step after the other.

    Attributes:
        steps: how many it has seen.
    """

    def __init__(self, world: Turmoil) -> None:
        self.world = world
        self.steps = 0
        self._born: dict[str, int] = {}  # interface -> how often it has been registered
        self._places: dict[tuple[str, int], dict[int, Place]] = {}
        self._told: dict[str, dict[FlowKey, Flow]] = {}
        self._generations: dict[str, int] = {}
        self._promised: dict[tuple[str, Any], Any] = {}
        self._requests: dict[str, int] = {}
        self._cancelled: set[int] = set()
        self._said: dict[int, set[str]] = {}  # move -> hooks that were acknowledged
        self._look()
        state = self._state
        for name in state.sessions:
            self._told[name] = dict(desired(state, name))
        for table, key, value in world.store.load():
            if table in PROMISES:
                self._promised[table, key] = value
        for interface in state.interfaces.values():
            self._note(interface)

    @property
    def _state(self) -> State:
        return self.world.nva.state

    def _look(self) -> None:
        state = self._state
        self._interfaces = dict(state.interfaces)
        self._moves = dict(state.moves)
        self._networks = dict(state.networks)
        self._synced = {name for name, session in state.sessions.items() if session.synced}

    def _note(self, interface: Interface) -> None:
        places = self._places.setdefault((interface.id, self._born.setdefault(interface.id, 0)), {})
        known = places.setdefault(interface.epoch, interface.location)
        assert known == interface.location, f"{interface.id}: epoch {interface.epoch} is of two places"

    # --- each step ----------------------------------------------------------------------------------------------------
    def undone(self) -> None:
        """A step was undone since its records could not be committed."""
        assert dict(self._state.interfaces) == self._interfaces
        assert dict(self._state.moves) == self._moves

    def step(self, event: ev.Event, outcome: Outcome) -> None:
        """The core has taken a step, which is recorded and about to be carried out."""
        self.steps += 1
        self._directory()
        self._lives(event)
        self._programs(event, outcome)
        self._answered(event, outcome)
        self._look()

    def _directory(self) -> None:
        """Places change with their epoch, which grows, and only to where the interface may be."""
        for key, now in self._state.interfaces.items():
            was = self._interfaces.get(key)
            if was is None:
                self._born[key] = self._born.get(key, -1) + 1
                assert now.epoch == 1
            elif (was.location, was.epoch) != (now.location, now.epoch):
                assert now.epoch == was.epoch + 1, f"{key}: epoch {was.epoch}, then {now.epoch}"
                legs = [(move, leg) for move in self._moves.values() for leg in move.legs if leg.interface == key]
                asked = {leg.dst for move, leg in legs if move.open and not move.state.steered}
                former = {leg.src for move, leg in legs if move.open}  # where it may resume
                # where it was going as its move failed: it may have been started there after all
                failed = {leg.dst for move, leg in legs if move.state in (MoveState.FAILED, MoveState.ABORTED)}
                trusted = self._networks[was.vni].policy.announcements is Trust.ANY
                bound = asked | former | failed | set(was.attachments)
                assert trusted or now.location in bound, f"{key} at {now.location}: who said so?"
            self._note(now)

    def _lives(self, event: ev.Event) -> None:
        """Moves have numbers of their own, go forward, and stay as they ended."""
        newest = max(self._moves, default=0)
        for number, now in self._state.moves.items():
            was = self._moves.get(number)
            if was is None:
                assert number > newest, f"move {number} after {newest}"
                continue
            if was is now:
                continue
            assert (was.legs, was.vm, was.kind, was.request_id) == (now.legs, now.vm, now.kind, now.request_id)
            assert now.history[: len(was.history)] == was.history
            if not was.open:
                assert (now.state, now.error) == (was.state, was.error), f"move {number} had {was.state}"
            elif was.state.steered and not isinstance(event, ev.VmWithdrawn):
                assert now.state.steered or now.state is MoveState.FAILED, f"move {number}: {was.state}, {now.state}"
        for key in self._state.interfaces:
            early = [move.id for move, _ in self._state.moves_of(key) if not move.state.steered]
            assert len(early) <= 1, f"moves {early} of {key} at once"

    def _programs(self, event: ev.Event, outcome: Outcome) -> None:
        """What switches are told adds up, and lets nothing from tunnel to tunnel but the redirects of open moves."""
        state = self._state
        if isinstance(event, ev.FlowsRead) and event.token == "sync":
            name = state.by_dpid.get(event.dpid)
            now = state.sessions.get(name or "")
            if name is not None and name not in self._synced and now is not None and now.synced:
                ours = [s.flow for s in event.flows if s.flow.cookie & COOKIE_MASK == COOKIE_OURS]
                self._told[name] = {flow.key: flow for flow in ours}
        for effect in outcome.effects:
            if not isinstance(effect, Program):
                continue
            name = next(box.nve.name for box in self.world.boxes.values() if box.nve.dpid == effect.dpid)
            assert effect.generation > self._generations.get(name, 0), "generations grow"
            self._generations[name] = effect.generation
            told = self._told.setdefault(name, {})
            for op, flow in effect.changes:
                assert flow.cookie & COOKIE_MASK == COOKIE_OURS, f"{name}: {op} {flow} is not ours"
                if op == "add":
                    told[flow.key] = flow
                    self._may_redirect(name, flow)
                else:
                    told.pop(flow.key, None)

    def _may_redirect(self, name: str, flow: Flow) -> None:
        if _turns_back(flow) and not self._forwards(name, flow):
            why = why_of(flow.cookie)
            assert why is not None and why[0] is Why.REDIRECT, flow
            move = self._state.moves.get(move_of(why[1]))
            assert move is not None and move.open, f"{name}: tunnel to tunnel without an open move: {flow}"
            assert move.state.steered or move.redirect is not Redirect.NONE
            assert name in {leg.src.nve for leg in move.legs}

    def _forwards(self, name: str, flow: Flow) -> bool:
        """Whether a flow forwards what is sent to an address that a task has left, straight to where the task is."""
        state, fields = self._state, {item[0]: item[1] for item in flow.match}
        dst = fields.get("ipv4_dst") or fields.get("ipv6_dst")
        for gone in state.left.values():
            under = (state.nves[name].locator or b"") + gone.address[8:] if gone.ila else gone.address
            if gone.nve != name or gone.answer is not Answer.FORWARD or dst != under:
                continue
            if not gone.ila and int.from_bytes(fields["tun_id"], "big") != gone.vni:  # another network's
                continue
            goal = state.nves[target(state, state.interfaces[gone.interface]).nve]
            to = [a.value for a in flow.actions if isinstance(a, SetField) and a.field.endswith("_dst")]
            ways = {goal.ipv4, goal.ipv6, (goal.locator or b"") + gone.address[8:]}
            assert goal.name != name
            assert {value for value in to if len(value) != 6} & ways, f"{name} forwards {gone} not to {goal.name}"
            return True
        return False

    # --- promises -----------------------------------------------------------------------------------------------------
    def _answered(self, event: ev.Event, outcome: Outcome) -> None:
        """A request was acknowledged: from now on it is so, whatever happens."""
        p = self._promised
        match event:
            case ev.NveSubmitted(nve):
                p["nves", nve.name] = nve
            case ev.NveWithdrawn(name):
                p.pop(("nves", name), None)
            case ev.NetworkSubmitted(network):
                p["networks", network.vni] = network
            case ev.VmSubmitted(name, interfaces):
                self._forget_vm(name)
                p["vms", name] = self._state.vms[name]
                for interface in interfaces:
                    p["interfaces", interface.id] = interface
            case ev.VmWithdrawn(name):
                self._forget_vm(name)
            case ev.MoveRequested():
                move, created = outcome.reply  # type: ignore[misc]
                if event.request_id is not None:
                    before = self._requests.setdefault(event.request_id, move.id)
                    assert before == move.id and created == (move.id not in self._moves)
                if created:
                    p["moves", move.id] = move
                    assert (move.vm, move.destination, move.kind) == (event.vm, event.to, event.kind)
                else:
                    assert not outcome.records and not outcome.effects, "done twice"
            case ev.EvacuationRequested():
                evacuation, created = outcome.reply  # type: ignore[misc]
                if event.request_id is not None:
                    before = self._requests.setdefault(event.request_id, evacuation.id)
                    assert before == evacuation.id
                p["evacuations", evacuation.id] = evacuation
                assert created or not outcome.records, "begun twice"
            case ev.EvacuationCancelled(number):
                self._cancelled.add(number)
            case ev.EvacuationResumed(number):
                self._cancelled.discard(number)
            case ev.RedirectRequested(number):
                self._said.setdefault(number, set()).add("redirect")
            case ev.AbortRequested(number):
                self._said.setdefault(number, set()).add("abort")
            case ev.ActivationReported(number):
                self._said.setdefault(number, set()).add("activate")

    def _forget_vm(self, name: str) -> None:
        for key, value in list(self._promised.items()):
            if key == ("vms", name) or (isinstance(value, Interface) and value.vm == name):
                del self._promised[key]

    def restarted(self, lost: bool) -> None:
        """The authority is new, and knows what the store knew; ``lost``: that is not all that it had committed."""
        state = self._state
        self._told.clear()
        self._generations.clear()
        for key, was in self._interfaces.items():
            now = state.interfaces.get(key)
            assert now is not None, f"{key} is forgotten"
            if not lost:
                assert (now.location, now.epoch) == (was.location, was.epoch)
            elif now.epoch < was.epoch:  # what nobody was promised, and no disk had, did not happen
                places = self._places[key, self._born[key]]
                for epoch in [epoch for epoch in places if epoch > now.epoch]:
                    del places[epoch]
        if not lost:
            assert {n: (m.state, m.legs) for n, m in self._moves.items()} == {
                n: (m.state, m.legs) for n, m in state.moves.items()
            }, "a restart changes no move's state"
        self._look()
        self.keeps_its_word()

    def keeps_its_word(self) -> None:
        """Every acknowledged request is in the records, and has come to no less than was said."""
        rows = self.world.store.rows
        for (table, key), value in self._promised.items():
            found = rows.get((table, key))
            assert found is not None, f"{table} {key} is lost"
            if isinstance(value, Interface):
                wish = rows["wishes", f"request/vms/{value.vm}"]
                asked = {interface.id: interface.location for interface in wish.interfaces}
                assert asked[value.id] == value.location, f"{key}: where it was wanted is forgotten"
                found = replace(found, location=value.location, epoch=value.epoch, since=value.since)
                found = replace(found, pending=value.pending)
                if changes := [c for m in self._moves.values() for c in m.changes if c.interface == found.id]:
                    given = {*value.ipv4, *value.ipv6, *(change.new for change in changes)}
                    assert {*found.ipv4, *found.ipv6} <= given, f"{key} has addresses that nobody gave it"
                    found = replace(found, ipv4=value.ipv4, ipv6=value.ipv6)
                assert replace(value, attachments=tuple(dict.fromkeys(value.attachments))) == found
            elif isinstance(value, Move):
                assert (found.vm, found.legs, found.request_id) == (value.vm, value.legs, value.request_id)
            elif table == "evacuations":
                assert (found.nve, found.kind, found.request_id) == (value.nve, value.kind, value.request_id)
            else:
                assert found == value
        for number in self._cancelled:
            assert rows["evacuations", number].state is not EvacuationState.RUNNING, f"evacuation {number} goes on"
        known = {key for key in rows if key[0] in ("nves", "networks", "vms", "interfaces")}
        promised = {key for key in self._promised if key[0] not in ("moves", "evacuations")}
        assert known == promised, "something has come back"
        for number, hooks in self._said.items():
            move: Move = rows["moves", number]
            if "abort" in hooks:
                assert move.state is MoveState.ABORTED, f"move {number} was aborted, and is {move.state}"
            if "activate" in hooks:
                assert move.state.steered or not move.open, f"move {number} was activated, and is {move.state}"
            if "redirect" in hooks:
                early = move.state in (MoveState.PREPARING, MoveState.PREPARED)
                assert not early, f"move {number} was to redirect, and is {move.state}"

    # --- between steps ------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """What must hold whenever nothing is under way in the core itself."""
        state = self._state
        for name, session in state.sessions.items():
            if session.synced:
                wanted = desired(state, name)
                wrong = [key for key in {*wanted, *self._told[name]} if wanted.get(key) != self._told[name].get(key)]
                found = [(self._told[name].get(key), wanted.get(key)) for key in wrong[:3]]
                assert not wrong, f"{name} was told, and should have been: {found}"
                self._point_straight(name, wanted)
        for kind, key in state.clock:
            if kind in ("resync", "retry"):
                assert key in state.nves
            elif kind == "evacuation":
                assert key in state.evacuations and state.evacuations[key].state.open
            elif kind == "account":
                assert not state.moves[key].open and not state.moves[key].ledger.closed, f"{kind} of {key} ticks on"
            elif isinstance(key, int):
                assert key in state.moves and state.moves[key].open, f"{kind} of {key} ticks on"
        for move in state.open_moves():
            waits_on = move.state is MoveState.DRAINING and any(n in state.nves for n in move.unconfirmed)
            assert ("deadline", move.id) in state.clock or waits_on, f"move {move.id} would never end"
        for number in {*state.probes, *state.barriers}:
            assert number in state.moves
        self._tables_are_the_records()
        self._indexes_are_the_tables()
        self.keeps_its_word()

    def _point_straight(self, name: str, wanted: dict[FlowKey, Flow]) -> None:
        """Redirects end where the VM is: they neither chain nor loop."""
        state = self._state
        for flow in wanted.values():
            if not _turns_back(flow) or self._forwards(name, flow):
                continue
            why = why_of(flow.cookie)
            assert why is not None
            fields = {item[0]: item[1] for item in flow.match}
            vni, mac = int.from_bytes(fields["tun_id"], "big"), fields["eth_dst"]
            (leg,) = [leg for leg in state.moves[why[1]].legs if state.by_mac.get((vni, mac)) == leg.interface]
            interface = state.interfaces[leg.interface]
            (to,) = [a.value for a in flow.actions if isinstance(a, SetField) and a.field.endswith("_dst")][-1:]
            goal = state.nves[target(state, interface).nve]
            assert to in (goal.ipv4, goal.ipv6), f"{name} redirects {interface.id} elsewhere than to {goal.name}"
            assert goal.name != name

    def _tables_are_the_records(self) -> None:
        rows = self.world.store.rows
        state = self._state
        for table in PERSISTENT:
            found = {key: value for (kind, key), value in rows.items() if kind == table}
            held = getattr(state, table)
            assert found.keys() == held.keys(), table
            for key, value in held.items():
                if isinstance(value, Move):
                    recorded = (found[key].state, found[key].redirect)
                    assert recorded == (value.state, value.redirect), (recorded, value)
                else:
                    assert found[key] == value

    def _indexes_are_the_tables(self) -> None:
        """Indexes, which are kept change by change, say what they would if they were made anew."""
        state, fresh = self._state, State()
        for table in TABLES:
            for key, value in getattr(state, table).items():
                fresh.load(table, key, value)
        for name, kept in vars(state).items():
            if name not in ASIDE and name not in ("barriers", "held", "faults", "strangers"):
                assert _said(kept) == _said(vars(fresh)[name]), name

    def at_rest(self) -> None:
        """All is over: no move is open, nothing of any is left, and every switch holds what it should."""
        state, world = self._state, self.world
        assert not list(state.open_moves()), [(m.id, m.state) for m in state.open_moves()]
        by_move = ("waits", "needs", "probes", "returning", "held")
        left: dict[str, Any] = {name: getattr(state, name) for name in by_move}
        left["clock"] = {(kind, key) for kind, key in state.clock if isinstance(key, int)}
        assert not any(left.values()), left
        assert not {i for i in state.gone if i not in state.interfaces}
        for name, box in world.boxes.items():
            session = state.sessions.get(name)
            assert session is not None and session.synced, f"{name} is not in sync"
            wanted, have = desired(state, name), world.installed(name)
            assert {k: f for k, f in have.items() if wanted.get(k) != f} == {}, f"{name} has"
            assert {k: f for k, f in wanted.items() if have.get(k) != f} == {}, f"{name} lacks"
            others = [flow for flow in box.tables.flows if flow.cookie & COOKIE_MASK != COOKIE_OURS]
            assert len(others) == 2, f"{name}: flows that are not ours were touched"
            for flow in have.values():
                assert not _turns_back(flow) or self._forwards(name, flow), flow


def _turns_back(flow: Flow) -> bool:
    """Whether packets leave where they came in: from tunnel to tunnel. What a guest asked goes back to it."""
    local = ("metadata", bytes(8), bytes(7) + b"\1") in flow.match and flow.table
    return not local and any(isinstance(action, Output) and action.port == IN_PORT for action in flow.actions)


def _said(value: Any) -> Any:
    """An index without what says nothing: order, and keys that stand for nothing."""
    if isinstance(value, dict):
        return {key: _said(one) for key, one in value.items() if one is None or one}
    return set(value) if isinstance(value, set) else value
