"""A restart: everything that the NVA holds has a fate, and nothing changes but by the restart's own doing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_core_properties as layer2
import test_layer3_properties as layer3
from held import held
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from restarted import check_restart
from town import TIMES
from world import World, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.audit import AuditTrail
from ryu_vmm.effects import Record
from ryu_vmm.fates import HELD, RECORDED, TABLES, TIMERS, Fate
from ryu_vmm.journal import PERSISTENT
from ryu_vmm.model import Frozen, Place
from ryu_vmm.nva import Nva, Settings
from ryu_vmm.rest.authentication import Access
from ryu_vmm.runtime import Runtime
from ryu_vmm.store import _ADAPTERS, MemoryStore, SqliteStore
from ryu_vmm.wire import frames


# --- the list ---------------------------------------------------------------------------------------------------------
def test_everything_that_is_held_has_a_fate() -> None:
    """Whoever adds an attribute says what becomes of it."""
    found = set(held(Runtime(MemoryStore()), AuditTrail(":memory:"), Access()))
    listed = {*HELD, *(f"State.{table}" for table in TABLES)}
    assert found - listed == set(), "what becomes of these at a restart? (ryu_vmm/fates.py)"
    assert listed - found == set(), "these are no more"


def test_what_is_recorded_can_be() -> None:
    assert PERSISTENT == RECORDED
    assert set(_ADAPTERS) == set(RECORDED)


def test_every_timer_has_a_fate() -> None:
    assert Nva()._timers._handlers.keys() == TIMERS.keys()


def test_every_fate_says_why() -> None:
    for name, kept in {**TABLES, **TIMERS, **HELD}.items():
        assert kept.why or kept.fate is Fate.RECORDED, name


# --- random histories -------------------------------------------------------------------------------------------------
_EVERY = settings(max_examples=30 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))


@_EVERY
@given(st.lists(layer2.ACTIONS, max_size=20))
def test_a_restart_after_any_step_changes_nothing(actions: list[Any]) -> None:
    w = World(3)
    w.network()
    for n in layer2.VMS:
        w.vm(n, f"n{n % 3 + 1}")
    for action in actions:
        layer2.act(w, action)
        check_restart(w)


@_EVERY
@given(st.lists(layer3._action, max_size=15))
def test_a_restart_of_layer_3_after_any_step_changes_nothing(actions: list[tuple[object, ...]]) -> None:
    story = layer3.Story()
    for action in actions:
        story.do(action)
        check_restart(story.world)


def test_the_comparison_sees_what_differs() -> None:
    w = frozen()
    assert check_restart(w) is not None
    del w.store.rows["frozen", "vm1/eth0"]
    with pytest.raises(AssertionError, match="frozen"):
        check_restart(w)


# --- what people forgave, and what they suffer ------------------------------------------------------------------------
GARP = frames.build_garp(mac(1), ip("10.0.0.1"))


def frozen() -> World:
    """vm1 flaps between n1 and n2 until it is frozen."""
    w = World(3)
    w.network()
    places = tuple(Place(f"n{n}", "tap-vm1") for n in (1, 2, 3))
    w.vm(1, "n1", attachments=places)
    for n in (2, 3):
        w.plug(f"n{n}", "tap-vm1")
    for k in range(8):
        w.send(("n2", "n1")[k % 2], "tap-vm1", GARP)
        w.advance(4)
    assert "vm1/eth0" in w.nva.state.frozen
    return w


def restart(w: World) -> None:
    w.kill()
    w.start()
    w.advance(0.1)


def test_a_freeze_lasts_over_a_restart_and_no_longer_than_it_would_have() -> None:
    w = frozen()
    before = w.nva.state.frozen["vm1/eth0"]
    w.advance(200, step=1)
    restart(w)
    assert w.nva.state.frozen["vm1/eth0"] == before
    w.send("n3", "tap-vm1", GARP)
    assert w.nva.state.interfaces["vm1/eth0"].location.nve != "n3"
    w.advance(before.until - w.now + 1, step=1)
    assert w.nva.state.frozen == {}
    w.send("n3", "tap-vm1", GARP)
    assert w.nva.state.interfaces["vm1/eth0"].location.nve == "n3"


def test_a_freeze_without_end_has_none_after_a_restart_either() -> None:
    w = World(1)
    w.network()
    w.vm(1, "n1")
    row = Frozen(w.now, 0.0, 5)
    w.store.commit([Record("frozen", "vm1/eth0", row)])
    restart(w)
    w.advance(2000, step=10)
    assert w.nva.state.frozen == {"vm1/eth0": row}


def test_a_thaw_is_remembered() -> None:
    w = frozen()
    w.handle(ev.ThawRequested("vm1"))
    restart(w)
    w.send("n3", "tap-vm1", GARP)
    assert w.nva.state.interfaces["vm1/eth0"].location.nve == "n3"
    assert w.nva.state.frozen == {}


def test_what_a_watched_source_has_said_counts_after_a_restart() -> None:
    """The VM is taken back when it is heard there again, as it would have been."""
    w = World(3)
    w.network()
    w.vm(1, "n1", attachments=(Place("n2", "tap-vm1"),))
    w.vm(2, "n3")
    w.plug("n2", "tap-vm1")
    w.send("n2", "tap-vm1", GARP)
    assert w.nva.state.interfaces["vm1/eth0"].location.nve == "n2"
    w.send("n1", "tap-vm1", unicast(1, 2))
    assert w.nva.state.overheard
    w.kill()
    w.start()
    w.advance(0.3)
    w.send("n1", "tap-vm1", unicast(1, 2))
    assert w.nva.state.interfaces["vm1/eth0"].location.nve == "n1"
    w.advance(3)
    assert w.differences() == []


def forger() -> World:
    """vm1's port on n1 forges until it is silenced."""
    w = World(2, settings=Settings(offender_rate=0.3, silence_time=60.0))
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n2")
    for _ in range(6):
        w.send("n1", "tap-vm1", frames.build_garp(mac(1), ip("10.0.0.2")))
        w.advance(0.1)
    assert Place("n1", "tap-vm1") in w.nva.state.silenced
    return w


def test_a_silenced_port_stays_silenced_for_the_rest_of_its_time() -> None:
    w = forger()
    place = Place("n1", "tap-vm1")
    until, flows = w.nva.state.silenced[place], w.installed("n1")
    w.advance(30, step=1)
    restart(w)
    assert w.nva.state.silenced == {place: until}
    assert w.installed("n1") == flows
    w.advance(until - w.now + 1, step=1)
    assert w.nva.state.silenced == {}
    assert w.installed("n1") != flows


@pytest.mark.parametrize("how", ["removed", "registered elsewhere"])
def test_a_port_that_another_vm_gets_is_not_silent(how: str) -> None:
    w = forger()
    place = Place("n1", "tap-vm1")
    w.nva.state.put("muted", place, w.now + 60)
    if how == "removed":
        w.handle(ev.VmWithdrawn("vm1"))
    else:
        w.plug("n2", "other")
        w.unplug("n1", "tap-vm1")
        mine = w.nva.state.interfaces["vm1/eth0"]
        w.handle(ev.VmSubmitted("vm1", (replace(mine, location=Place("n2", "other")),)))
    assert w.nva.state.silenced == {}
    assert w.nva.state.muted == {}
    assert not {kind for kind, _ in w.nva.state.clock} & {"silence", "mute"}
    assert w.differences() == []


def test_another_mac_is_another_guest() -> None:
    """It may ask for its address by RARP, as one that was never heard."""
    w = World(2)
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n2")
    w.send("n1", "tap-vm1", unicast(1, 2))
    w.send("n1", "tap-vm1", frames.build_arp_request(mac(1), ip("10.0.0.1"), ip("10.0.0.2")))
    state = w.nva.state
    state.put("heard", "vm1/eth0", True)
    w.handle(ev.VmSubmitted("vm1", (replace(state.interfaces["vm1/eth0"], mac=mac(9)),)))
    assert "vm1/eth0" not in state.heard


def test_records_of_ports_are_read_as_they_were_written(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.sqlite")
    rows = [
        ("silenced", Place("n1", "tap"), 5.0), ("muted", Place("n2", "vnet-0.1"), 6.5), ("thawed", "vm1/eth0", 7.25),
        ("frozen", "vm1/eth0", Frozen(1.0, 2.0, 5)),
    ]  # fmt: skip
    store.commit([Record(*row) for row in rows])
    assert sorted(store.load(), key=str) == sorted(rows, key=str)
    store.commit([Record("silenced", Place("n1", "tap"), None)])
    assert len(list(store.load())) == 3
    store.close()


def test_what_a_port_that_has_gone_loses_goes_on_being_counted() -> None:
    w = World(2)
    w.network()
    w.vm(1, "n1")
    w.vm(2, "n2")
    w.unplug("n1", "tap-vm1")
    slots, flows = dict(w.nva.state.gone), w.installed("n1")
    assert slots
    restart(w)
    assert w.nva.state.gone == slots
    assert w.installed("n1") == flows
    w.plug("n1", "tap-vm1")
    assert w.nva.state.gone == {}
    assert w.differences() == []
