"""Who may name what: one list, by which things are withdrawn and stores taken in; nothing dangles."""

from __future__ import annotations

import enum
import types
import typing
from dataclasses import fields, is_dataclass, replace

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from l3town import SIR, VNI, Layer3
from live import LiveRuntime
from outside import GATEWAY
from test_layer3_properties import NVES, Story, _action
from town import TIMES
from world import World, ip, mac

from ryu_vmm import events as ev
from ryu_vmm.domains import Hop
from ryu_vmm.effects import Record
from ryu_vmm.errors import Conflict, VmmError
from ryu_vmm.journal import PERSISTENT
from ryu_vmm.model import (
    Addressing,
    Answer,
    EvacuationState,
    Interface,
    Kind,
    Leave,
    Left,
    Move,
    MoveState,
    Network,
    Place,
    Sought,
)
from ryu_vmm.references import NVES as NVE
from ryu_vmm.references import PLAIN, REFERENCES, SAID, Fate, dangling
from ryu_vmm.rest import make_app
from ryu_vmm.store import _ADAPTERS, MemoryStore


# --- the list ---------------------------------------------------------------------------------------------------------
def leaves(kind: object, path: str = "") -> set[str]:
    """The paths of all texts and numbers within a type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return set().union(*(leaves(each, path) for each in inner))
    if origin is tuple and inner[1:] == (Ellipsis,):
        return leaves(inner[0], f"{path}[]")
    if origin is tuple:
        return set().union(*(leaves(each, f"{path}[{n}]") for n, each in enumerate(inner)))
    if origin is dict:
        return leaves(inner[0], path + "{}") | leaves(inner[1], path + "{}")
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return set()
    if isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "_fields")):
        hints = typing.get_type_hints(kind)
        names = [each.name for each in fields(kind)] if is_dataclass(kind) else kind._fields
        return set().union(*(leaves(hints[name], f"{path}.{name}" if path else name) for name in names))
    return {path or "row"} if kind in (str, int) else set()


@pytest.mark.parametrize("table", sorted(set(PERSISTENT) - set(SAID)))
def test_every_field_that_is_kept_is_known_to_name_something_or_nothing(table: str) -> None:
    (kind,) = typing.get_args(_ADAPTERS[table]._type)
    named = {each.path.rstrip("/") for each in REFERENCES if each.table == table and not each.path.startswith("key")}
    plain = set(PLAIN.get(table, "").split())
    assert leaves(kind) == named | plain
    assert not named & plain


def test_every_reference_leads_from_a_table_to_a_table() -> None:
    state = World(1).nva.state
    for each in REFERENCES:
        assert isinstance(getattr(state, each.table), dict)
        assert isinstance(getattr(state, each.to), dict)


def found(value: object, name: str, path: str, seen: set[int]) -> set[str]:
    """Where a name occurs in a value, however deep."""
    if isinstance(value, str):
        return {path} if name in value.split("/") else set()
    if id(value) in seen:
        return set()
    seen.add(id(value))
    if isinstance(value, dict):
        parts = [(each, path) for each in value] + [(each, path) for each in value.values()]
    elif is_dataclass(value):
        parts = [(getattr(value, each.name), f"{path}.{each.name}") for each in fields(value)]
    elif hasattr(value, "_fields"):
        parts = [(each, f"{path}.{key}") for key, each in value._asdict().items()]
    elif isinstance(value, (tuple, list, set, frozenset)):
        parts = [(each, path) for each in value]
    else:
        return set()
    return set().union(*(found(part, name, at, seen) for part, at in parts))


# --- withdrawing ------------------------------------------------------------------------------------------------------
def eventful() -> Layer3:
    """A world in which n1 is named wherever it may be: a task was there, and left one of its addresses."""
    w = Layer3(4, leave=Leave(Answer.FORWARD, 3600))
    w.task(7, "n1")
    w.task(9, "n4")
    more = Interface("t8/eth0", "t8", "eth0", VNI, mac(8), (ip("10.1.3.8"),), (), Place("n3", "tap-t8"))
    w.handle(ev.VmSubmitted("t8", (replace(more, attachments=(Place("n1", "tap-x"), Place("n2", "tap-x"))),)))
    w.plug("n3", "tap-t8")
    w.plug("n1", "tap-x")
    w.handle(ev.EvacuationRequested("n3", to=("n1",)))
    failed = next(m for m in w.nva.state.open_moves() if m.vm == "t8")
    w.advance(1)
    w.handle(ev.RedirectRequested(failed.id))
    w.handle(ev.AbortRequested(failed.id))  # sought at n1
    w.handle(ev.EvacuationCancelled(1, abort=True))
    w.advance(1)
    move, _ = w.handle(ev.MoveRequested("t7", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    w.advance(0.5)
    assert w.through(w.current(move), "tap-t7").state is MoveState.SETTLED
    return w


def test_what_is_left_of_an_nve_is_history_and_what_sleeps() -> None:
    w = eventful()
    assert {left.nve for left in w.nva.state.left.values()} == {"n1"}
    for move in list(w.nva.state.open_moves()):
        w.handle(ev.AbortRequested(move.id))
    w.advance(1)
    w.handle(ev.NveWithdrawn("n1"))
    state = w.nva.state
    tables = {name: value for name, value in vars(state).items() if name[0] != "_" and name not in (*SAID, "attached")}
    at = {where for name, value in tables.items() for where in found(value, "n1", name, set())}
    kept = {
        f"{each.table}.{each.path}".replace("[]", "").replace("{}", "").rstrip("./")
        for each in REFERENCES
        if each.to == NVE and (each.fate in (Fate.KEPT, Fate.SLEEPS) or each.unless is not None)
    }
    said = {"moves.history.why", "moves.error", "moves.ledger.probes", "evacuees.why", "evacuations.why"}
    assert at <= kept | said | {"moves.ledger.ports"}
    assert not list(dangling(state))
    assert w.differences() == []


def test_what_sleeps_is_there_again_with_its_nve() -> None:
    w = eventful()
    for move in list(w.nva.state.open_moves()):
        w.handle(ev.AbortRequested(move.id))
    nve = w.nva.state.nves["n1"]
    w.advance(1)
    w.handle(ev.NveWithdrawn("n1"))
    t8 = w.nva.state.interfaces["t8/eth0"]
    w.handle(ev.VmSubmitted("t8", (t8,)))  # as it is shown
    w.handle(ev.NetworkSubmitted(replace(w.nva.state.networks[VNI], sir=SIR)))
    assert w.nva.state.interfaces["t8/eth0"].attachments == t8.attachments
    with pytest.raises(VmmError, match="there is no NVE n1"):
        w.handle(ev.VmSubmitted("t9", (replace(w.nva.state.interfaces["t9/eth0"], attachments=t8.attachments),)))
    w.handle(ev.MoveRequested("t8", "n2"))  # which has an attachment, too
    w.handle(ev.AbortRequested(max(w.nva.state.moves)))
    w.handle(ev.NveSubmitted(nve))
    w.disconnect("n1")
    w.connect("n1")
    w.handle(ev.MoveRequested("t9", "n1", address=Addressing.CHANGE))
    w.advance(1)
    assert ip("10.1.1.9") in [change.new for change in w.nva.state.moves[max(w.nva.state.moves)].changes]
    assert w.differences() == []


def test_an_attachment_at_an_nve_that_is_gone_keeps_no_vm_from_being_evacuated() -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1", attachments=(Place("n3", "tap-x"),))
    w.handle(ev.NveWithdrawn("n3"))
    w.handle(ev.EvacuationRequested("n1"))
    assert [move.destination for move in w.nva.state.open_moves()] == ["n2"]


def test_an_nve_that_an_evacuation_may_need_is_not_withdrawn_and_is_when_it_has_ended() -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1")
    w.handle(ev.EvacuationRequested("n1", to=("n2", "n3")))
    with pytest.raises(Conflict, match="POST /v1/evacuations/1/resume") as caught:
        w.handle(ev.NveWithdrawn("n3"))
    assert caught.value.details == {"nve": "n3", "evacuation": 1}
    w.handle(ev.EvacuationResumed(1, to=("n2",)))
    w.handle(ev.NveWithdrawn("n3"))
    w.handle(ev.EvacuationCancelled(1, abort=True))
    w.advance(5)
    assert w.nva.state.evacuations[1].state is EvacuationState.CANCELLED
    w.handle(ev.NveWithdrawn("n2"))
    assert not list(dangling(w.nva.state))


def test_the_record_of_a_move_outlives_its_nve() -> None:
    w = eventful()
    for move in list(w.nva.state.open_moves()):
        w.handle(ev.AbortRequested(move.id))
    w.advance(1)
    w.handle(ev.NveWithdrawn("n1"))
    transport = httpx.WSGITransport(app=make_app(LiveRuntime(w.store)))
    with httpx.Client(transport=transport, base_url="http://nva") as client:
        shown = client.get("/v1/moves").json()["items"]
        assert {"n1"} & {name for each in shown for name in (each["source"], each["destination"])}
        assert client.get("/v1/evacuations/1").json()["to"] == ["n1"]
        assert [each["nve"] for each in client.get("/v1/networks/tasks").json()["subnets"]].count("n1") == 2


# --- taking in a store ------------------------------------------------------------------------------------------------
def broken_store() -> World:
    """A world whose store names what is not there, in every way that an older version may have left."""
    w = Layer3(3)
    w.task(7, "n2")
    w.task(9, "n3")
    w.handle(ev.MoveRequested("t7", "n3"))
    w.handle(ev.MoveRequested("t9", "n2"))
    w.advance(1)
    here = Interface("t5/eth0", "t5", "eth0", VNI, mac(5), (ip("10.1.1.5"),), (), Place("n1", "tap-t5"))
    w.handle(ev.VmSubmitted("t5", (here,)))
    w.plug("n1", "tap-t5")
    w.handle(ev.EvacuationRequested("n1", to=("n2",)))
    rows = w.store.rows
    left = Left("n9", VNI, ip("10.1.1.7"), "t7/eth0", Answer.FORWARD, w.now + 1000)
    nobody = Left("n2", VNI, ip("10.1.2.7"), "t99/eth0", Answer.FORWARD, w.now + 1000)
    hop, network = Hop("n9", ip("fd00::1"), mac(1)), Left("n2", 999, ip("10.1.2.9"), "t7/eth0", Answer.DROP, w.now + 9)
    rows |= {("left", each.key): each for each in (left, nobody, network)}
    rows["hops", hop.key] = hop
    rows["sought", "t9/eth0"] = Sought("t9/eth0", VNI, Place("n9", "tap"), 1, w.now + 1000)
    rows["offers", "n9"] = w.nva.state.offers["n2"]
    rows["heard", "t99/eth0"] = True
    rows["moves", 1] = replace(rows["moves", 1], destination="n9", legs=tuple(
        leg._replace(dst=Place("n9", "tap")) for leg in rows["moves", 1].legs
    ))  # fmt: skip
    gone = replace(here, id="t6/eth0", vm="t6", mac=mac(6), ipv4=(ip("10.1.1.6"),), location=Place("n9", "tap-t6"))
    rows["interfaces", gone.id] = gone
    rows["vms", "t6"] = replace(rows["vms", "t5"], name="t6", interfaces=(gone.id,))
    rows["vms", "t4"] = replace(rows["vms", "t5"], name="t4", interfaces=("t4/eth0",))
    return w


def test_a_store_that_names_what_is_not_there_is_mended_and_says_so() -> None:
    w = broken_store()
    w.kill()
    w.start()
    state = w.nva.state
    assert not list(dangling(state))
    assert w.differences() == []
    assert state.moves[1].state is MoveState.FAILED
    assert state.moves[1].error == "nves has no n9 any more"
    assert set(state.vms) == {"t5", "t7", "t9"}
    told = {(each["what"], each["named"]) for kind, each in w.reports if kind == "reference.mended"}
    assert {("left", "n9"), ("left", "t99/eth0"), ("left", "999"), ("moves", "n9"), ("interfaces", "n9")} <= told
    w.handle(ev.MoveRequested("t7", "n3"))
    w.advance(300, step=0.5)
    assert w.differences() == []


def test_what_was_mended_stays_so() -> None:
    store = MemoryStore()
    store.commit([Record(table, key, value) for (table, key), value in broken_store().store.rows.items()])
    LiveRuntime(store)
    again = World(0)
    again.store = store
    again.start()
    assert not [each for kind, each in again.reports if kind == "reference.mended"]


def test_a_move_of_which_both_ends_were_withdrawn_is_closed_after_a_restart() -> None:
    w = World(4)
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n4")
    move = w.move("vm1", "n2")
    w.handle(ev.RedirectRequested(move.id))
    w.advance(1)
    w.disconnect("n1")
    w.disconnect("n2")
    w.handle(ev.AbortRequested(move.id))
    w.handle(ev.VmWithdrawn("vm1"))
    for name in ("n1", "n2"):
        w.handle(ev.NveWithdrawn(name))
    w.kill()
    w.start("n4")
    assert w.current(move).ledger.closed
    assert not w.nva.state.returning


# --- always -----------------------------------------------------------------------------------------------------------
class Withdrawing(Story):
    """A story in which NVEs and networks come and go, and are evacuated."""

    def __init__(self) -> None:
        super().__init__()
        self.nves = dict(self.world.nva.state.nves)

    def _withdraw(self, nve: str) -> None:
        self.world.handle(ev.NveWithdrawn(nve))

    def _submit(self, nve: str) -> None:
        self.world.handle(ev.NveSubmitted(self.nves[nve]))
        self.world.boxes[nve].nve = self.nves[nve]

    def _down(self, nve: str) -> None:
        if self.world.boxes[nve].connected:
            super()._down(nve)

    def _locator(self, nve: str) -> None:
        if nve in self.world.nva.state.nves:
            super()._locator(nve)

    def _evacuate(self, nve: str, to: str) -> None:
        self.world.handle(ev.EvacuationRequested(nve, (to,) if to != nve else ()))

    def _give_up(self) -> None:
        self.world.handle(ev.EvacuationCancelled(max(self.world.nva.state.evacuations, default=0), abort=True))

    def _attach(self, n: int, nve: str) -> None:
        known = self.world.nva.state.interfaces.get(f"t{n}/eth0")
        if known is not None:
            self.world.handle(ev.VmSubmitted(known.vm, (replace(known, attachments=(Place(nve, f"tap-t{n}"),)),)))

    def _empty(self) -> None:
        for n in (1, 2, 3, "d"):
            if f"t{n}" in self.world.nva.state.vms:
                self.world.handle(ev.VmWithdrawn(f"t{n}"))
        self.world.handle(ev.NetworkWithdrawn("tasks"))
        self.world.handle(ev.NetworkSubmitted(Network("tasks", VNI, kind=self.world.tasks.kind, gateway=GATEWAY)))


_nve = st.sampled_from(NVES)
_more = st.one_of(
    st.tuples(st.sampled_from(["withdraw", "submit", "withdraw"]), _nve),
    st.tuples(st.just("evacuate"), _nve, _nve),
    st.tuples(st.just("attach"), st.integers(1, 3), _nve),
    st.tuples(st.sampled_from(["give_up", "empty", "kill"])),
    st.tuples(st.just("move"), st.integers(1, 3), _nve, st.sampled_from(Addressing), st.just(Kind.COLD)),
)


@settings(max_examples=50 * TIMES, deadline=None)
@given(st.lists(st.one_of(_action, _more, _more), max_size=30))
def test_nothing_dangles_whatever_happens(actions: list[tuple[object, ...]]) -> None:
    story = Withdrawing()
    for action in actions:
        story.do(action)
        story.holds()
        assert not list(dangling(story.world.nva.state))
        assert not [each for kind, each in story.world.reports if kind == "reference.mended"]
    moves: list[Move] = list(story.world.nva.state.open_moves())
    assert all(set(move.unconfirmed) <= story.world.nva.state.nves.keys() for move in moves)
