"""What must hold whatever happens: incremental flows equal a full recompute, and a failed commit leaves no trace."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import World, arp, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.errors import VmmError
from ryu_vmm.mobility import TABLE, MoveEvent
from ryu_vmm.model import Distribution, Kind, Move, MoveState, Nve, Place, Policy, Trust
from ryu_vmm.nva import Nva
from ryu_vmm.pipeline import desired
from ryu_vmm.wire import frames

HOOKS = (ev.RedirectRequested, ev.ActivationReported, ev.AbortRequested)
NVES = ["n1", "n2", "n3"]
VMS = [1, 2, 3, 4]
number = st.sampled_from(VMS)
nve = st.sampled_from(NVES)
ACTIONS = st.one_of(
    st.tuples(st.just("move"), number, nve, st.sampled_from(list(Kind))),
    st.tuples(st.just("hook"), st.sampled_from(["redirect", "activate", "abort"])),
    st.tuples(st.just("plug"), number, nve),
    st.tuples(st.just("unplug"), number, nve),
    st.tuples(st.just("announce"), number, nve, st.sampled_from(["garp", "na", "rarp"])),
    st.tuples(st.just("send"), number, number),
    st.tuples(st.just("arp"), number, number),
    st.tuples(st.just("wait"), st.sampled_from([0.02, 0.3, 2.0, 12.0])),
    st.tuples(st.just("hold"), nve),
    st.tuples(st.just("release"), nve),
    st.tuples(st.just("disconnect"), nve),
    st.tuples(st.just("connect"), nve),
    st.tuples(st.just("policy"), st.sampled_from(list(Trust)), st.sampled_from(list(Distribution))),
    st.tuples(st.just("forget"), number),
    st.tuples(st.just("register"), number, nve),
    st.tuples(st.just("refuse"), nve),
    st.tuples(st.just("share"), number, st.booleans()),
    st.tuples(st.just("take"), number, nve, st.booleans()),
    st.tuples(st.just("change mac"), number, number),
)
VIP, VMAC = ip("10.0.0.100"), bytes.fromhex("00005e000101")


def act(w: World, action: tuple) -> None:  # type: ignore[type-arg]
    """Do one thing to the world; a refusal is an answer too."""
    try:
        match action:
            case ("move", n, to, kind):
                w.handle(ev.MoveRequested(f"vm{n}", to, kind))
            case ("hook", which):
                for move in w.nva.state.open_moves():
                    event = {
                        "redirect": ev.RedirectRequested,
                        "activate": ev.ActivationReported,
                        "abort": ev.AbortRequested,
                    }[which]
                    w.handle(event(move.id))
                    break
            case ("plug", n, at):
                w.plug(at, f"tap-vm{n}")
            case ("unplug", n, at):
                if f"tap-vm{n}" in w.boxes[at].ports:
                    w.unplug(at, f"tap-vm{n}")
            case ("announce", n, at, how):
                if f"tap-vm{n}" in w.boxes[at].ports:
                    frame = {
                        "garp": frames.build_garp(mac(n), ip(f"10.0.0.{n}")),
                        "na": frames.build_unsolicited_na(mac(n), ip(f"2001:db8::{n}")),
                        "rarp": frames.build_rarp_request(mac(n)),
                    }[how]
                    w.send(at, f"tap-vm{n}", frame)
            case ("send" | "arp", a, b):
                for name, box in w.boxes.items():
                    if f"tap-vm{a}" in box.ports:
                        w.send(name, f"tap-vm{a}", (unicast if action[0] == "send" else arp)(a, b))
            case ("wait", seconds):
                w.advance(seconds, step=0.25)
            case ("hold", at):
                w.hold_barriers.add(at)
            case ("release", at):
                w.release(at)
            case ("disconnect", at):
                w.disconnect(at)
            case ("connect", at):
                w.boxes[at].held_barriers.clear()
                w.connect(at)
            case ("policy", trust, distribution):
                w.network(policy=Policy(announcements=trust, distribution=distribution, idle_timeout=5))
            case ("forget", n):
                w.handle(ev.VmWithdrawn(f"vm{n}"))
            case ("register", n, at):
                elsewhere = tuple(Place(other, f"tap-vm{n}") for other in NVES if other != at)[: n % 3]
                w.vm(n, at, port=False, attachments=elsewhere)
            case ("share", n, shares):
                known = w.nva.state.interfaces.get(f"vm{n}/eth0") or w.vm(n, "n1", port=False)
                both = {"shared": (VIP,) * shares, "shared_macs": (VMAC,) * shares}
                w.handle(ev.VmSubmitted(f"vm{n}", (dataclasses.replace(known, **both),)))
            case ("take", n, at, virtual):
                if f"tap-vm{n}" in w.boxes[at].ports:
                    w.send(at, f"tap-vm{n}", frames.build_garp(VMAC if virtual else mac(n), VIP))
            case ("change mac", n, other):
                known = w.nva.state.interfaces.get(f"vm{n}/eth0")
                if known is not None:
                    w.handle(ev.VmSubmitted(f"vm{n}", (dataclasses.replace(known, mac=mac(10 * other + n)),)))
            case ("refuse", at):
                w.handle(ev.FlowRefused(w.boxes[at].nve.dpid, w.nva.state.generation, 5, 1))
    except VmmError:
        pass


def check(w: World) -> None:
    state = w.nva.state
    assert w.differences() == []
    for vni in state.networks:
        expected = {state.interfaces[i].location.nve for i in state.in_network(vni)}
        assert expected <= set(state.members(vni))
    for row in state.holders.values():
        found = state.interfaces[row.interface]
        assert row.address in (*found.shared, *found.shared_macs) and row.mac in (found.mac, *found.shared_macs)
    for i, interface in state.interfaces.items():
        assert state.by_mac[(interface.vni, interface.mac)] == i
        assert len([m for m, _ in state.moves_of(i) if not m.state.steered]) <= 1
    for move in state.moves.values():
        if move.open:
            assert ("deadline", move.id) in state.clock


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, max_size=30))
def test_incremental_flows_equal_a_full_recompute(actions: list[tuple]) -> None:  # type: ignore[type-arg]
    w = World(3)
    w.network()
    for n in VMS:
        w.vm(n, NVES[n % 3], attachments=(Place(NVES[(n + 1) % 3], f"tap-vm{n}"),))
    epochs: dict[str, int] = {}
    for action in actions:
        act(w, action)
        check(w)
        for i, interface in w.nva.state.interfaces.items():
            known = epochs.get(i, 0)
            assert interface.epoch >= known or interface.epoch == 1
            epochs[i] = interface.epoch
    # Every open move ends, whatever was going on.
    for name in NVES:
        w.release(name)
    w.advance(1000, step=5)
    assert not list(w.nva.state.open_moves())
    check(w)


def copied(value: object) -> object:
    """Tables and indexes copied; what is in them never changes."""
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    return set(value) if isinstance(value, set) else value


@settings(max_examples=50, deadline=None)
@given(st.lists(ACTIONS, max_size=20), ACTIONS)
def test_a_step_that_cannot_be_committed_leaves_no_trace(before: list[tuple], action: tuple) -> None:  # type: ignore[type-arg]
    w = World(3)
    w.network()
    for n in VMS:
        w.vm(n, NVES[n % 3])
    for earlier in before:
        act(w, earlier)
    state = w.nva.state
    #: What says nothing about the world: the journal itself, counts of what was ever used, what can be computed again.
    aside = {"version", "touched", "joined", "_journal", "floods", "_free_slots", "_slots_used"}

    def snapshot() -> object:
        said = {name: copied(value) for name, value in vars(state).items() if name not in aside}
        return said, {n: desired(state, n) for n in state.sessions}

    for event in (
        ev.MoveRequested("vm1", "n1"),
        ev.VmWithdrawn("vm2"),
        ev.NveWithdrawn("n3"),
        ev.PortChanged(1, ev.PortInfo(77, "tap-vm3", True)),
        *(ev.PortChanged(n, ev.PortInfo(10, "tap-vm1", True), gone=True) for n in (1, 2, 3)),
        *(hook(move.id) for move in state.open_moves() for hook in HOOKS),
        ev.VmSubmitted("vm1", tuple(dataclasses.replace(i, mac=mac(40)) for i in state.interfaces.values())[:1]),
        ev.NveSubmitted(Nve("n1", 1, ip("192.168.100.201"))),
        ev.NveConnected(2, (ev.PortInfo(1, "vxlan", True),)),
        ev.NveConnected(99, ()),
        ev.FlowRefused(3, state.generation, 5, 1),
        ev.NveDisconnected(2),
        ev.TimePassed(),
    ):
        was = snapshot()
        with contextlib.suppress(VmmError):
            w.nva.handle(event, w.now)
        w.nva.rollback()
        assert snapshot() == was


def test_restart_restores_the_same_flows() -> None:
    w = World(3)
    w.network()
    for n in VMS:
        w.vm(n, NVES[n % 3])
    w.handle(ev.ActivationReported(w.move("vm1", "n1").id))
    again = Nva()
    again.restore(list(w.store.load()), w.now)
    assert again.state.interfaces == w.nva.state.interfaces
    assert {m.id for m in again.state.open_moves()} == {m.id for m in w.nva.state.open_moves()}
    for box in w.boxes.values():
        ports = tuple(ev.PortInfo(number, port, True) for port, number in box.ports.items())
        again.handle(ev.NveConnected(box.nve.dpid, ports, meters=262144), w.now)
    for name, box in w.boxes.items():
        stats = tuple(e.stats(w.now) for e in box.tables.select())
        outcome = again.handle(ev.FlowsRead(box.nve.dpid, "sync", stats), w.now)
        changes = [c for e in outcome.effects for c in getattr(e, "changes", ())]
        assert changes == [], name


@pytest.mark.parametrize("state", list(MoveState))
@pytest.mark.parametrize("event", list(MoveEvent))
def test_the_transition_table_is_complete(state: MoveState, event: MoveEvent) -> None:
    transition = TABLE[state][event]
    if state.closed:
        assert transition.to is None and not transition.do
    if transition.refuse:
        assert event in (MoveEvent.REDIRECT, MoveEvent.ABORT) and transition.to is None
    if state.steered and transition.to is not None:
        assert transition.to.steered  # what the directory says is never taken back


def test_the_core_imports_no_ryu_eventlet_or_webob() -> None:
    program = (
        "import sys\n"
        "for name in ('ryu', 'eventlet', 'webob', 'sqlite3', 'socket'):\n"
        "    sys.modules[name] = None\n"
        "import ryu_vmm.nva\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_move_is_a_value() -> None:
    assert Move.__dataclass_params__.frozen  # type: ignore[attr-defined]
