"""Last wishes: saying the same again, by request or in the file that is read at every start, undoes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from l3town import SIR, VNI, Layer3
from live import LiveRuntime
from outside import GATEWAY, locator
from rest_lab import NVES, problem, vm
from test_layer3_properties import _action
from test_references import Withdrawing, _more
from town import TIMES
from world import World, ip, mac

from ryu_vmm import events as ev
from ryu_vmm import inventory, wishes
from ryu_vmm.errors import Conflict, VmmError
from ryu_vmm.journal import PERSISTENT
from ryu_vmm.model import Addressing, Distribution, Interface, Leave, Place, Policy, Subnet
from ryu_vmm.nva import Nva
from ryu_vmm.wishes import Submitted


def told(w: World) -> dict[str, object]:
    """Everything that is recorded but the wishes, and what every switch holds."""
    kept = {table: dict(getattr(w.nva.state, table)) for table in PERSISTENT if table != "wishes"}
    return {**kept, "flows": {name: w.installed(name) for name in w.boxes}}


def read(w: World, *events: Submitted) -> list[object]:
    """The file is read at start."""
    standing = tuple(replace(event, standing=True) for event in events)
    entries = tuple(tuple(wishes._key(event, True).split("/")[1:]) for event in standing)
    items = tuple("/".join(entry) for entry in entries)
    return w.handle(ev.InventoryRead(standing, entries, items))  # type: ignore[arg-type,return-value]


def restarted(w: World, *events: Submitted) -> list[object]:
    """The NVA starts anew and reads its file before any NVE is back."""
    w.kill()
    w.nva = Nva(w.nva.settings)
    w.nva.restore(list(w.store.load()), w.now)
    before = told(w)
    found = read(w, *events)
    assert told(w) == before
    for name in w.boxes:
        if w.boxes[name].nve.name in w.nva.state.nves:
            w.connect(name)
    w.advance(1)
    assert w.differences() == []
    return found


def wish(w: World, n: int = 7) -> ev.VmSubmitted:
    """What was said of a task."""
    before = w.nva.state.wishes[f"request/vms/t{n}"]
    return ev.VmSubmitted(f"t{n}", before.interfaces)


@pytest.fixture
def w() -> Layer3:
    """A task whose address has changed in a move from n1 to n2, and another one."""
    world = Layer3(3)
    world.task(7, "n1")
    world.task(9, "n3")
    move, _ = world.handle(ev.MoveRequested("t7", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    world.advance(0.5)
    assert world.through(world.current(move), "tap-t7").state == "settled"
    world.unplug("n1", "tap-t7")
    return world


def has(w: World, n: int = 7) -> Interface:
    return w.nva.state.interfaces[f"t{n}/eth0"]


# --- the same again ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["request", "file", "file of the same content"])
def test_the_same_again_undoes_no_settled_move(w: Layer3, how: str) -> None:
    event, before = wish(w), told(w)
    if how == "request":
        reply = w.handle(event)
        assert reply == (w.nva.state.vms["t7"], False)
        assert told(w) == before
    else:
        if how == "file":
            assert read(w, event) == ["unchanged"]  # as the request said
        assert restarted(w, event) == ["unchanged"]
    assert has(w).ipv4 == (ip("10.1.2.7"),)
    assert has(w).location == Place("n2", "tap-t7")


def test_the_same_again_during_the_move_changes_nothing() -> None:
    w = Layer3(3)
    w.task(7, "n1")
    w.handle(ev.MoveRequested("t7", "n2", address=Addressing.CHANGE))
    event = wish(w)
    for action in (lambda: None, lambda: w.advance(0.5), lambda: w.handle(ev.RedirectRequested(1)),
                   lambda: w.plug("n2", "tap-t7"), lambda: w.handle(ev.ActivationReported(1))):  # fmt: skip
        action()
        before = told(w)
        w.handle(event)
        assert read(w, event) == ["unchanged"]
        assert told(w) == before


def test_of_another_wish_only_what_differs_is_asked_for(w: Layer3) -> None:
    (given_,) = wish(w).interfaces
    more = replace(given_, dns="t7.example", ipv4=(*given_.ipv4, ip("10.1.1.77")), attachments=(Place("n3", "tap-x"),))
    w.handle(ev.VmSubmitted("t7", (more,), leave=Leave()))
    assert has(w).ipv4 == (ip("10.1.2.7"), ip("10.1.1.77"))
    assert has(w).location == Place("n2", "tap-t7")
    assert (has(w).dns, has(w).attachments, w.nva.state.vms["t7"].leave) == (
        "t7.example", (Place("n3", "tap-x"),), Leave()
    )  # fmt: skip
    w.handle(ev.VmSubmitted("t7", (replace(more, ipv4=(ip("10.1.1.77"),)),), leave=Leave()))
    assert has(w).ipv4 == (ip("10.1.1.77"),)  # what had become of the other one is gone with it
    w.handle(ev.VmSubmitted("t7", (has(w),), leave=Leave()))  # as it is shown
    w.handle(ev.VmSubmitted("t7", (replace(has(w), ipv4=given_.ipv4),), leave=Leave()))
    assert has(w).ipv4 == given_.ipv4  # who wants the former one says first that he knows of the new one
    assert w.differences() == []


def test_an_interface_that_is_named_twice_is_refused_whatever_there_is(w: Layer3) -> None:
    (given_,) = wish(w).interfaces
    with pytest.raises(VmmError, match="names an interface twice"):
        w.handle(ev.VmSubmitted("t7", (given_, given_)))


# --- the file and requests --------------------------------------------------------------------------------------------
def test_a_newer_request_is_not_undone_by_a_file_that_says_what_it_said(w: Layer3) -> None:
    first = wish(w)
    n3 = ev.NveSubmitted(w.nva.state.nves["n3"])
    tasks = ev.NetworkSubmitted(w.nva.state.networks[VNI])
    read(w, n3, tasks, first)
    w.handle(ev.VmSubmitted("t7", (replace(has(w), dns="new.example"),)))
    w.handle(ev.NveSubmitted(replace(n3.nve, locator=locator(77))))
    w.handle(ev.NetworkSubmitted(replace(tasks.network, policy=Policy(mtu=1300))))
    w.boxes["n3"].nve = w.nva.state.nves["n3"]
    assert restarted(w, n3, tasks, first) == ["unchanged"] * 3
    assert has(w).dns == "new.example"
    assert w.nva.state.networks[VNI].policy.mtu == 1300
    # but what is new in the file is asked for, and that alone
    changed = replace(tasks.network, policy=Policy(idle_timeout=60), subnets=tasks.network.subnets[1:])
    assert read(w, n3, replace(tasks, network=changed), first) == ["unchanged", "updated", "unchanged"]
    policy = w.nva.state.networks[VNI].policy
    assert (policy.mtu, policy.idle_timeout) == (1300, 60)
    assert len(w.nva.state.networks[VNI].subnets) == len(tasks.network.subnets) - 1


def test_a_request_that_is_repeated_does_not_undo_what_is_new_in_the_file(w: Layer3) -> None:
    first = wish(w)
    read(w, first)
    (given_,) = first.interfaces
    assert read(w, ev.VmSubmitted("t7", (replace(given_, dns="new.example"),))) == ["updated"]
    before = told(w)
    w.handle(first)
    assert told(w) == before


def test_what_was_removed_stays_removed_until_the_file_says_something_else(w: Layer3) -> None:
    event = wish(w)
    read(w, event)
    w.handle(ev.VmWithdrawn("t7"))
    heir = replace(event.interfaces[0], id="t50/eth0", vm="t50", mac=mac(50), location=Place("n1", "tap-t7"))
    w.handle(ev.VmSubmitted("t50", (heir,)))  # has its port and its addresses
    assert restarted(w, event) == ["unchanged"]
    assert "t7" not in w.nva.state.vms
    w.handle(ev.VmWithdrawn("t50"))
    assert read(w, event) == ["unchanged"]
    assert read(w, ev.VmSubmitted("t7", (replace(event.interfaces[0], dns="back.example"),))) == ["created"]
    w.handle(ev.VmWithdrawn("t7"))
    w.handle(event)  # who asks for it again gets it again
    assert "t7" in w.nva.state.vms
    w.handle(ev.VmWithdrawn("t7"))
    read(w)  # a file that no longer has it
    assert read(w, event) == ["created"]  # and has it anew


def test_nves_and_networks_that_were_removed_stay_removed_too(w: Layer3) -> None:
    n3 = ev.NveSubmitted(w.nva.state.nves["n3"])
    spare = ev.NetworkSubmitted(replace(w.tasks, name="spare", vni=9, sir=None))
    nine = wish(w, 9)
    read(w, n3, spare, nine)
    w.handle(ev.VmWithdrawn("t9"))
    w.handle(ev.NveWithdrawn("n3"))
    w.handle(ev.NetworkWithdrawn("spare"))
    assert restarted(w, n3, spare, nine) == ["unchanged"] * 3
    assert "n3" not in w.nva.state.nves
    assert w.nva.state.network_named("spare") is None
    (refused,) = read(w, ev.VmSubmitted("t9", (replace(nine.interfaces[0], dns="x.example"),)))
    assert "there is no NVE n3" in str(refused)


def test_an_nve_that_is_evacuated_keeps_no_nva_from_starting() -> None:
    w = World(3)
    w.network()
    here = w.vm(1, "n1")
    event = ev.VmSubmitted("vm1", (here,))
    read(w, event)
    w.handle(ev.EvacuationRequested("n1"))
    assert restarted(w, event) == ["unchanged"]
    fresh = replace(here, id="vm5/eth0", vm="vm5", mac=mac(5), ipv4=(), ipv6=(), location=Place("n1", "x"))
    unchanged, refused = read(w, event, ev.VmSubmitted("vm5", (fresh,)))
    assert unchanged == "unchanged"
    assert "evacuated" in str(refused)
    assert ("inventory.refused", {"item": "vms/vm5", "why": refused.message}) in w.reports  # type: ignore[attr-defined]


def test_entries_are_taken_in_whatever_order_they_can_be() -> None:
    """The first wants the port that the second one gives up, and a third is refused for good."""
    w = World(2)
    w.network()
    one, two = w.vm(1, "n1"), w.vm(2, "n1")
    w.plug("n1", "tap-new")
    events = [
        ev.VmSubmitted("vm1", (replace(one, location=Place("n1", "tap-vm2")),)),
        ev.VmSubmitted("vm2", (replace(two, location=Place("n1", "tap-new")),)),
        ev.VmSubmitted("vm3", (replace(two, id="vm3/eth0", vm="vm3"),)),
    ]
    *taken, refused = read(w, *events)
    assert taken == ["updated", "updated"]
    assert isinstance(refused, Conflict)
    w.advance(1)
    assert [w.nva.state.interfaces[f"vm{n}/eth0"].location.port for n in (1, 2)] == ["tap-vm2", "tap-new"]
    assert "vm3" not in w.nva.state.vms
    assert w.differences() == []


def test_two_vms_swap_ports_by_way_of_a_third() -> None:
    w = World(2)
    w.network()
    one, two = w.vm(1, "n1"), w.vm(2, "n1")
    w.plug("n1", "tap-new")

    def put(interface: Interface, port: str) -> None:
        w.handle(ev.VmSubmitted(interface.vm, (replace(interface, location=Place("n1", port)),)))

    with pytest.raises(Conflict, match="belongs to vm2/eth0"):
        put(one, "tap-vm2")
    put(one, "tap-new")
    put(two, "tap-vm1")
    put(one, "tap-vm2")
    assert [w.nva.state.interfaces[f"vm{n}/eth0"].location.port for n in (1, 2)] == ["tap-vm2", "tap-vm1"]
    w.advance(1)
    assert w.differences() == []


def test_who_says_something_for_the_first_time_is_compared_with_who_did_before(w: Layer3) -> None:
    """A file with what requests have said, read for the first time; and the other way round."""
    before = told(w)
    assert read(w, wish(w), ev.NetworkSubmitted(w.tasks)) == ["unchanged", "unchanged"]
    assert told(w) == before
    event = ev.VmSubmitted("t5", (replace(has(w, 9), id="t5/eth0", vm="t5", mac=mac(5), ipv4=(ip("10.1.1.5"),), ipv6=(),
                                          location=Place("n1", "tap-t5")),))  # fmt: skip
    assert read(w, event) == ["created"]
    w.plug("n1", "tap-t5")
    move, _ = w.handle(ev.MoveRequested("t5", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    w.advance(0.5)
    w.through(w.current(move), "tap-t5")
    before = told(w)
    w.handle(event)
    assert told(w) == before
    assert has(w, 5).ipv4 == (ip("10.1.2.5"),)


# --- stores and names -------------------------------------------------------------------------------------------------
def test_a_store_of_before_is_taken_in_and_compared_with_what_there_is(w: Layer3) -> None:
    event = wish(w)
    w.store.rows = {key: value for key, value in w.store.rows.items() if key[0] != "wishes"}
    w.kill()
    w.start()
    w.handle(ev.VmSubmitted("t7", (replace(has(w), location=event.interfaces[0].location),)))
    assert has(w).location == Place("n2", "tap-t7")  # another NVE is taken for what was said before
    before = told(w)
    w.handle(ev.VmSubmitted("t7", (replace(has(w), location=event.interfaces[0].location),)))
    assert told(w) == before


@pytest.mark.parametrize("how", ["request", "file"])
def test_a_store_of_before_does_not_undo_what_moves_have_changed(w: Layer3, how: str) -> None:
    """An older version has not kept what was said, but what its moves have changed."""
    event = wish(w)
    (given_,) = event.interfaces
    move, _ = w.handle(ev.MoveRequested("t7", "n3", address=Addressing.CHANGE))  # type: ignore[misc]
    w.advance(0.5)
    assert w.through(w.current(move), "tap-t7").state == "settled"
    w.unplug("n2", "tap-t7")
    never_so = replace(given_, ipv4=(ip("10.1.2.7"),), ipv6=has(w).ipv6)
    for first, four in ((given_, "10.1.3.7"), (never_so, "10.1.2.7")):
        w.store.rows = {key: value for key, value in w.store.rows.items() if key[0] != "wishes"}
        w.kill()
        w.start()
        w.advance(1)
        asked = ev.VmSubmitted("t7", (first,))
        if how == "file":
            read(w, asked)
        else:
            w.handle(asked)
        assert has(w).ipv4 == (ip(four),)
        assert has(w).ipv6[0] == ip("2001:db8:1:3::7")


def test_what_names_an_nve_that_is_gone_may_be_said_again(w: Layer3) -> None:
    (given_,) = wish(w).interfaces
    w.handle(ev.VmSubmitted("t7", (replace(given_, attachments=(Place("n1", "tap-x"),)),)))
    event, tasks = wish(w), ev.NetworkSubmitted(w.tasks)
    read(w, event, tasks)
    w.handle(ev.NveWithdrawn("n1"))
    before = told(w)
    w.handle(event)
    w.handle(tasks)
    assert told(w) == before
    assert restarted(w, event, tasks) == ["unchanged", "unchanged"]
    with pytest.raises(VmmError, match="there is no NVE n1"):
        w.handle(ev.VmSubmitted("t7", (replace(given_, location=Place("n1", "tap-other")),)))


def client_of(runtime: LiveRuntime) -> httpx.Client:
    from ryu_vmm.rest import make_app

    return httpx.Client(transport=httpx.WSGITransport(app=make_app(runtime)), base_url="http://nva")


def test_over_rest(runtime: LiveRuntime, tmp_path: Path) -> None:
    client = client_of(runtime)
    network = {"name": "blue", "vni": 100}
    whole = {"nves": NVES, "networks": [network], "vms": [vm(1), vm(2, "nve2")]}
    path = tmp_path / "lab.json"
    path.write_text(json.dumps(whole))
    assert inventory.apply_file(runtime, path)["created"] == 6
    assert client.get("/v1/health").json()["inventory"] == []
    assert client.delete("/v1/vms/vm2").status_code == 204
    assert client.delete("/v1/nves/nve2").status_code == 204
    taken = vm(9, "nve1", ipv4=["10.0.0.2"])
    assert client.put("/v1/vms/vm9", json=taken).status_code == 201
    assert inventory.apply_file(runtime, path) == {"created": 0, "updated": 0, "unchanged": 6}
    whole["vms"][1]["interfaces"][0]["nve"] = "nve3"
    path.write_text(json.dumps(whole))
    assert inventory.apply_file(runtime, path) == {"created": 0, "updated": 0, "unchanged": 5, "refused": 1}
    (line,) = runtime.refused
    assert line == f"{path}:{line.split(':')[1]}: vms[1]: {line.split(': ', 2)[2]}"
    assert "belongs to vm9/eth0" in line
    health = client.get("/v1/health").json()
    assert health["inventory"] == [line]
    assert health["status"] == "degraded"
    # a registration that is repeated is no change, whatever it names
    one = vm(1, attachments=[{"nve": "nve3", "port": "tap-x"}])
    assert client.put("/v1/vms/vm1", json=one).status_code == 200
    assert client.delete("/v1/nves/nve3").status_code == 204
    for answer in (client.put("/v1/vms/vm1", json=one), client.post("/v1/vms", json=one)):
        assert answer.status_code == 200
        assert answer.json()["interfaces"][0]["attachments"] == [{"nve": "nve3", "port": "tap-x"}]
    assert problem(client.put("/v1/vms/vm1", json=vm(1, "nve3")), 404)["details"]["nve"] == "nve3"
    assert client.put("/v1/vms/vm9", json=vm(9, "nve3")).status_code == 422


# --- request ids ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "other",
    [{"ports": {"eth0": "x"}}, {"address": Addressing.CHANGE}, {"connections": "drop"}, {"to": "n2"}, {"kind": "cold"}],
)
def test_a_request_id_stands_for_one_request_and_no_other(other: dict[str, Any]) -> None:
    w = Layer3(3)
    w.task(7, "n1")
    request = ev.MoveRequested("t7", "n3", request_id="r")
    move, _ = w.handle(request)  # type: ignore[misc]
    w.handle(ev.MoveAmended(move.id, {"eth0": "tap-late"}))
    assert w.handle(request) == (w.current(move), False)
    with pytest.raises(Conflict, match=f"this request_id was used for another move, {move.id}"):
        w.handle(replace(request, **other))
    w.kill()
    w.start()
    assert w.handle(request) == (w.current(move), False)
    with pytest.raises(Conflict, match="another move"):
        w.handle(replace(request, **other))


@pytest.mark.parametrize("other", [{"to": ("n2",)}, {"parallel": 9}, {"attempts": 9}, {"nve": "n2"}, {"kind": "cold"}])
def test_so_it_does_for_evacuations(other: dict[str, Any]) -> None:
    w = World(3)
    w.network()
    w.vm(1, "n1")
    request = ev.EvacuationRequested("n1", ("n3",), request_id="r")
    w.handle(request)
    w.handle(ev.EvacuationResumed(1, ("n2",), 7))
    w.kill()
    w.start()
    assert w.handle(request) == (w.nva.state.evacuations[1], False)
    with pytest.raises(Conflict, match="another evacuation"):
        w.handle(replace(request, **other))


# --- always -----------------------------------------------------------------------------------------------------------
class Repeating(Withdrawing):
    """A story in which somebody says at any moment what he has said before, and the NVA reads its file again."""

    def __init__(self) -> None:
        self.said: dict[str, Submitted] = {}
        self.file: list[Submitted] = []
        super().__init__()
        handle = self.world.handle

        def noted(event: ev.Event) -> object:
            reply = handle(event)
            if isinstance(event, (ev.NveSubmitted, ev.NetworkSubmitted, ev.VmSubmitted)):
                self.said[wishes._key(event, False)] = event
            for kind, what in (("nves", ev.NveWithdrawn), ("networks", ev.NetworkWithdrawn), ("vms", ev.VmWithdrawn)):
                if isinstance(event, what):
                    self.said.pop(wishes.key_of(kind, event.name, False), None)
            return reply

        self.world.handle = noted  # type: ignore[method-assign]

    def _write(self, which: int) -> None:
        """The file has some of what was said by now, or all of it."""
        self.file = [event for n, event in enumerate(self.said.values()) if which >> n % 8 & 1]
        read(self.world, *self.file)
        taken = {key for key in self.world.nva.state.wishes if key.startswith("file/")}
        self.file = [event for event in self.file if wishes._key(event, True) in taken]
        read(self.world, *self.file)

    def _again(self, which: int, what: str) -> None:
        before = told(self.world)
        events: Iterable[Submitted] = list(self.said.values())
        if what == "file":
            assert read(self.world, *self.file) == ["unchanged"] * len(self.file)
        elif what == "start":
            assert restarted(self.world, *self.file) == ["unchanged"] * len(self.file)
            return
        for n, event in enumerate(events) if what == "request" else ():
            if n % 4 == which % 4:
                self.world.handle(event)
        assert told(self.world) == before

    def _change(self, n: int, host: int) -> None:
        known = self.world.nva.state.interfaces.get(f"t{n}/eth0")
        if known is not None:
            six = (ip(f"2001:db8:1:{n}::{host}"), SIR + host.to_bytes(8, "big"))
            self.world.handle(ev.VmSubmitted(known.vm, (replace(known, ipv4=(ip(f"10.1.{n}.{host}"),), ipv6=six),)))


_again = st.tuples(st.just("again"), st.integers(0, 3), st.sampled_from(["request", "request", "file", "start"]))
_write = st.tuples(st.just("write"), st.integers(0, 255))
_change = st.tuples(st.just("change"), st.integers(1, 3), st.integers(1, 9))
_moved = st.tuples(
    st.just("move"), st.integers(1, 3), st.sampled_from(["n1", "n2", "n3"]), st.just(Addressing.CHANGE), st.just("hot")
)
_on = st.tuples(st.sampled_from(["redirect", "activate", "abort"]), st.integers(1, 3))
_plug = st.tuples(st.just("plug"), st.integers(1, 3), st.sampled_from(["n1", "n2", "n3"]))


@settings(max_examples=60 * TIMES, deadline=None)
@given(st.lists(st.one_of(_action, _more, _again, _again, _write, _change, _moved, _on, _plug), max_size=30))
def test_saying_the_same_again_changes_nothing_whatever_has_happened(actions: list[tuple[object, ...]]) -> None:
    story = Repeating()
    for action in actions:
        story.do(action)
        story.holds()
    story._again(0, "file")
    for n in range(4):
        story._again(n, "request")
    story._again(0, "start")


@example(before=[1, 2], given_=[2], now=[2, 3])
@given(
    st.lists(st.integers(0, 6), unique=True), st.lists(st.integers(0, 6), unique=True),
    st.lists(st.integers(0, 9), unique=True),
)  # fmt: skip
def test_lists_are_merged_by_their_elements(before: list[int], given_: list[int], now: list[int]) -> None:
    """Moves change elements where they stand; what somebody has put in another one's place is not what became of it."""
    b, g, n = tuple(before), tuple(given_), tuple(now)
    made = wishes.merged(b, g, n)
    assert wishes.merged(b, b, n) == n
    assert wishes.merged(b, g, b) == g
    assert {*g} - {*b} <= {*made}
    assert len({*made}) == len(made)
    assert not ({*made} & ({*b} - {*g}))
    assert {*made} <= {*g} | {*n}
    assert {*g} & {*n} <= {*made}


def test_a_policy_is_merged_by_its_fields() -> None:
    before, given_, now = Policy(), Policy(mtu=1300), Policy(distribution=Distribution.PULL)
    assert wishes.merged(before, given_, now) == Policy(mtu=1300, distribution=Distribution.PULL)
    one, two, three = (GATEWAY._replace(**more) for more in ({}, {"ipv4": ip("10.0.0.2")}, {"ipv6": ip("fd00::3")}))
    assert wishes.merged(one, two, three) == three._replace(ipv4=two.ipv4)
    subnet = Subnet(ip("10.0.0.0"), 8, "n1")
    assert wishes.merged((), (subnet,), ()) == (subnet,)
    assert wishes.merged(None, Leave(), None) == Leave()
