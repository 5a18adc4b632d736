"""What names stand for follows from the directory, whoever changes it, and in the end name servers know."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from l3town import Layer3
from world import ip

from ryu_vmm import events as ev
from ryu_vmm.effects import Effect, Publish
from ryu_vmm.errors import Conflict, StoreUnavailable, VmmError
from ryu_vmm.model import Addressing, Interface, Network, Published

WEB, MAIL = "web.example.org", "mail.example.org"


class NameWorld(Layer3):
    """A world with a publisher that keeps the newest value of each name, and a name server behind it.

    Attributes:
        under_way: what is to be published, by name.
        served: what the name server gives out.
        asked: every Publish effect so far.
    """

    def __init__(self, nves: int = 3) -> None:
        self.under_way: dict[str, tuple[bytes, ...]] = {}
        self.served: dict[str, tuple[bytes, ...]] = {}
        self.asked: list[Publish] = []
        super().__init__(nves)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Publish):
            self.asked.append(effect)
            self.under_way[effect.name] = effect.addresses
        super()._carry_out(effect)

    def named(self, n: int, nve: str, dns: str | None = WEB, tenant: str | None = None) -> Interface:
        """A task with a name."""
        interface = replace(self.task(n, nve), dns=dns)
        self.handle(ev.VmSubmitted(interface.vm, (interface,), tenant))
        return interface

    def rename(self, n: int, dns: str | None) -> None:
        interface = replace(self.nva.state.interfaces[f"t{n}/eth0"], dns=dns)
        self.handle(ev.VmSubmitted(f"t{n}", (interface,), self.nva.state.vms[f"t{n}"].tenant))

    def arrive(self, name: str, heard: bool = True) -> None:
        """The server carries out what is under way for a name; its answer may be lost."""
        value = self.under_way.pop(name)
        self.served[name] = value
        if heard:
            self.handle(ev.NamePublished(name, value))

    def settle(self) -> None:
        for name in list(self.under_way):
            self.arrive(name)

    def fail(self, name: str, why: str = "192.0.2.1:53: timeout", retry: float | None = 1.0) -> None:
        self.handle(ev.NameFailed(name, self.under_way[name], why, retry))

    def told(self, kind: str) -> list[dict[str, object]]:
        return [fields for what, fields in self.reports if what == kind]

    def expected(self) -> dict[str, tuple[bytes, ...]]:
        """By the directory."""
        found: dict[str, set[bytes]] = {}
        for interface in self.nva.state.interfaces.values():
            if interface.dns is not None:
                found.setdefault(interface.dns, set()).update(interface.ipv4, interface.ipv6)
        return {name: tuple(sorted(some, key=lambda a: (len(a), a))) for name, some in found.items()}

    def row(self, name: str = WEB) -> Published:
        return self.nva.state.names[name]


@pytest.fixture
def world() -> NameWorld:
    return NameWorld()


def test_a_name_lives_as_long_as_its_interface(world: NameWorld) -> None:
    one = world.named(1, "n1")
    wanted = (one.ipv4[0], *sorted(one.ipv6))
    assert world.asked == [Publish(WEB, wanted)]
    assert world.row() == Published(wanted, None, world.now)
    world.advance(0.25)
    world.arrive(WEB)
    assert world.row().told == wanted
    [entry] = world.told("name.published")
    assert entry["seconds"] == 0.25 and entry["addresses"] == ["10.1.1.1", "2001:db8:1:1::1", "2001:db8:5::1"]
    world.handle(ev.VmWithdrawn("t1"))
    assert world.asked[-1] == Publish(WEB, ()) and world.row().wanted == ()
    world.arrive(WEB)
    assert not world.nva.state.names and world.served == {WEB: ()}
    assert world.told("name.published")[-1]["addresses"] == []
    assert not [key for key in world.store.rows if key[0] == "names"]


def test_nothing_is_said_twice(world: NameWorld) -> None:
    one = world.named(1, "n1")
    world.settle()
    world.handle(ev.VmSubmitted("t1", (one,)))
    world.unplug("n1", "tap-t1")
    world.plug("n1", "tap-t1")
    world.advance(1.0)
    assert len(world.asked) == 1
    world.handle(ev.NamePublished(WEB, world.row().wanted))  # said again by the publisher, for reasons of its own
    assert len(world.told("name.published")) == 1


def test_a_name_without_addresses_is_none(world: NameWorld) -> None:
    one = replace(world.task(1, "n1"), ipv4=(), ipv6=(), dns=WEB)
    world.handle(ev.VmSubmitted("t1", (one,)))
    assert not world.asked and not world.nva.state.names
    world.handle(ev.VmSubmitted("t1", (replace(one, ipv4=(ip("10.1.1.7"),)),)))
    world.settle()
    world.handle(ev.VmSubmitted("t1", (one,)))
    world.settle()
    world.rename(1, None)
    assert [publish.addresses for publish in world.asked] == [(ip("10.1.1.7"),), ()]
    assert not world.nva.state.names


def test_two_interfaces_share_a_name(world: NameWorld) -> None:
    one, two = world.named(1, "n1"), world.named(2, "n2")
    assert set(world.row().wanted) == {*one.ipv4, *one.ipv6, *two.ipv4, *two.ipv6}
    assert [len(a) for a in world.row().wanted] == [4, 4, 16, 16, 16, 16]
    world.handle(ev.VmWithdrawn("t1"))
    assert set(world.row().wanted) == {*two.ipv4, *two.ipv6}
    world.rename(2, MAIL)
    assert world.asked[-2:] == [Publish(WEB, ()), Publish(MAIL, world.row(MAIL).wanted)]
    world.rename(2, None)
    world.settle()
    assert world.served == {WEB: (), MAIL: ()} and not world.nva.state.names


def test_a_move_in_which_addresses_change(world: NameWorld) -> None:
    one = world.named(1, "n1")
    world.settle()
    move, _ = world.handle(ev.MoveRequested("t1", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    world.advance(0.5)
    world.handle(ev.RedirectRequested(move.id))
    world.advance(0.1)
    world.plug("n2", "tap-t1")
    assert len(world.asked) == 1, "told before the task runs at its destination"
    world.handle(ev.ActivationReported(move.id))
    now = world.nva.state.interfaces[one.id]
    assert set(one.ipv4).isdisjoint(now.ipv4) and world.expected()[WEB] == world.asked[-1].addresses
    assert len(world.asked) == 2
    at = world.now
    world.advance(0.05)
    world.settle()
    assert world.row() == Published(world.expected()[WEB], world.expected()[WEB], at)


def test_a_move_with_its_addresses_says_nothing(world: NameWorld) -> None:
    world.named(1, "n1")
    world.settle()
    move = world.move("t1", "n2")
    world.advance(0.5)
    world.through(move, "tap-t1")
    assert world.nva.state.interfaces["t1/eth0"].location.nve == "n2"
    assert len(world.asked) == 1


def test_an_address_that_a_name_still_leads_to_is_nobody_elses(world: NameWorld) -> None:
    """The time for which the old address is dealt with is over, but the name server is away."""
    world.named(1, "n2")
    world.settle()
    world.handle(ev.VmWithdrawn("t1"))
    world.named(2, "n1", MAIL)
    interface = replace(world.task(101, "n1"), ipv4=(ip("10.1.1.1"),))  # whose like at n2 was t1's
    world.handle(ev.VmSubmitted("t101", (interface,)))
    move, _ = world.handle(ev.MoveRequested("t101", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    new = {change.new for change in world.current(move).changes}
    assert ip("10.1.2.1") not in new and ip("10.1.2.2") in new
    world.handle(ev.AbortRequested(move.id))
    world.settle()
    move, _ = world.handle(ev.MoveRequested("t101", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    assert ip("10.1.2.1") in {change.new for change in world.current(move).changes}


def test_a_task_may_have_its_own_address_back_whatever_its_name_says(world: NameWorld) -> None:
    world.named(1, "n1")
    world.settle()
    move, _ = world.handle(ev.MoveRequested("t1", "n2", address=Addressing.CHANGE))  # type: ignore[misc]
    world.advance(0.5)
    world.through(move, "tap-t1")
    assert world.row().told != world.row().wanted
    back, _ = world.handle(ev.MoveRequested("t1", "n1", address=Addressing.CHANGE))  # type: ignore[misc]
    assert ip("10.1.1.1") in {change.new for change in world.current(back).changes}


def test_an_older_value_that_is_confirmed_is_not_taken_for_the_newest(world: NameWorld) -> None:
    one = world.named(1, "n1")
    first = world.row().wanted
    world.handle(ev.VmSubmitted("t1", (replace(one, ipv6=()),)))
    world.handle(ev.NamePublished(WEB, first))
    assert world.row().told == first != world.row().wanted
    assert not world.told("name.published")
    world.settle()
    assert world.row().told == one.ipv4 and len(world.told("name.published")) == 1


def test_a_value_that_comes_back_is_in_doubt(world: NameWorld) -> None:
    """What was wanted in between may be on its way: a restart in that moment has to say the value again."""
    one = world.named(1, "n1")
    world.settle()
    world.handle(ev.VmSubmitted("t1", (replace(one, ipv6=()),)))
    world.arrive(WEB, heard=False)
    world.handle(ev.VmSubmitted("t1", (one,)))
    assert world.row().told is None
    world.under_way.clear()
    world.kill()
    world.start()
    world.settle()
    assert world.served[WEB] == world.expected()[WEB]


def test_a_restart_says_again_what_was_not_confirmed_and_nothing_else(world: NameWorld) -> None:
    world.named(1, "n1")
    world.named(2, "n2", MAIL)
    world.named(3, "n3", "gone.example.org")
    world.settle()
    world.handle(ev.VmWithdrawn("t3"))
    world.handle(ev.VmSubmitted("t2", (replace(world.nva.state.interfaces["t2/eth0"], ipv6=()),)))
    world.under_way.clear()
    world.asked.clear()
    world.kill()
    world.start()
    assert world.asked == [Publish("gone.example.org", ()), Publish(MAIL, (ip("10.1.2.2"),))]
    world.settle()
    assert set(world.nva.state.names) == {WEB, MAIL}


def test_failures_are_kept_until_they_are_over_and_not_all_told(world: NameWorld) -> None:
    world.named(1, "n1")
    for _ in range(9):
        world.fail(WEB)
    kept = world.nva.state.unpublished[WEB]
    assert (kept.times, kept.why, kept.retry) == (9, "192.0.2.1:53: timeout", world.now + 1.0)
    assert [entry["times"] for entry in world.told("name.failed")] == [1, 8]
    world.fail(WEB, "192.0.2.1:53: REFUSED")
    assert world.told("name.failed")[-1]["why"] == "192.0.2.1:53: REFUSED"
    assert world.nva.counters["name.failed"] == 10
    world.arrive(WEB)
    assert WEB not in world.nva.state.unpublished and world.nva.counters["name.published"] == 1


def test_a_failure_of_what_is_wanted_no_more_is_not_the_names(world: NameWorld) -> None:
    one = world.named(1, "n1")
    old = world.under_way[WEB]
    world.fail(WEB)
    world.handle(ev.VmSubmitted("t1", (replace(one, ipv6=()),)))
    assert WEB not in world.nva.state.unpublished  # the new value has not failed yet
    world.handle(ev.NameFailed(WEB, old, "late", 1.0))
    assert WEB not in world.nva.state.unpublished
    world.handle(ev.NameFailed("nobody.example.org", old, "late", 1.0))
    world.handle(ev.NamePublished("nobody.example.org", old))
    assert "nobody.example.org" not in world.nva.state.names


def test_a_name_that_is_not_ours_to_publish_is_forgotten_with_its_interface(world: NameWorld) -> None:
    world.named(1, "n1", "web.example.net")
    world.fail("web.example.net", "not ours to publish", None)
    assert world.nva.state.unpublished["web.example.net"].retry is None
    world.handle(ev.VmWithdrawn("t1"))
    world.fail("web.example.net", "not ours to publish", None)
    assert not world.nva.state.names and not world.nva.state.unpublished


def test_a_name_belongs_to_one_tenant(world: NameWorld) -> None:
    world.named(1, "n1", WEB, "acme")
    assert world.row().tenant == "acme"
    with pytest.raises(Conflict) as caught:
        world.named(2, "n2", WEB, "blue")
    assert caught.value.details["interface"] == "t1/eth0" and caught.value.details["field"] == "interfaces.0.dns"
    assert world.nva.state.interfaces["t2/eth0"].dns is None, "the registration before"
    world.handle(ev.VmSubmitted("t2", (replace(world.nva.state.interfaces["t2/eth0"], dns=WEB),), "acme"))
    world.settle()
    assert world.told("name.published")[-1]["tenant"] == "acme"
    for n in (1, 2):
        world.handle(ev.VmWithdrawn(f"t{n}"))
    assert world.row().tenant == "acme", "until it is gone"
    world.named(3, "n3", WEB, "blue")
    assert world.row().tenant == "blue"


def test_a_network_that_changes_hands_takes_names_along_or_is_refused(world: NameWorld) -> None:
    red = Network("red", 100)
    world.handle(ev.NetworkSubmitted(red))
    inside = replace(world.vm(9, "n1"), dns=WEB)
    world.handle(ev.VmSubmitted("vm9", (inside,)))
    world.handle(ev.NetworkSubmitted(replace(red, tenant="acme")))
    assert world.row().tenant == "acme"
    world.handle(ev.NetworkSubmitted(red))
    world.named(1, "n1", WEB)
    with pytest.raises(Conflict):
        world.handle(ev.NetworkSubmitted(replace(red, tenant="acme")))
    assert world.row().tenant is None and world.nva.state.networks[100].tenant is None


def test_a_step_that_cannot_be_committed_says_nothing(world: NameWorld) -> None:
    one = world.task(1, "n1")
    outcome = world.nva.handle(ev.VmSubmitted("t1", (replace(one, dns=WEB),)), world.now)
    assert any(isinstance(effect, Publish) for effect in outcome.effects)
    world.nva.rollback()
    assert not world.nva.state.names and not list(world.nva.state.named(WEB))


# --- any history --------------------------------------------------------------------------------------------------
_task, _nve = st.sampled_from([1, 2, 3]), st.sampled_from(["n1", "n2", "n3"])
_name = st.sampled_from([WEB, MAIL, None])
_action = st.one_of(
    st.tuples(st.just("add"), _task, _nve, _name),
    st.tuples(st.just("remove"), _task),
    st.tuples(st.just("rename"), _task, _name),
    st.tuples(st.just("readdress"), _task, st.integers(1, 3)),
    st.tuples(st.just("move"), _task, _nve, st.sampled_from(Addressing)),
    st.tuples(st.sampled_from(["redirect", "activate", "abort"]), _task),
    st.tuples(st.just("plug"), _task, _nve),
    st.tuples(st.just("time"), st.sampled_from([0.05, 0.5, 6.0])),
    st.tuples(st.sampled_from(["arrive", "unheard", "fail", "dropped"]), st.sampled_from([WEB, MAIL])),
    st.tuples(st.just("kill")),
    st.tuples(st.just("undone"), _task, _name),
)


def _number(w: NameWorld, n: int) -> int:
    return max((m.id for m in w.nva.state.open_moves() if m.vm == f"t{n}"), default=0)


def act(w: NameWorld, action: tuple) -> None:  # type: ignore[type-arg]
    """Do one thing; a refusal is an answer too."""
    match action:
        case ("add", n, nve, name):
            w.named(n, nve, name)
        case ("remove", n):
            w.handle(ev.VmWithdrawn(f"t{n}"))
        case ("rename", n, name) if f"t{n}" in w.nva.state.vms:
            w.rename(n, name)
        case ("readdress", n, last) if f"t{n}" in w.nva.state.vms:
            interface = w.nva.state.interfaces[f"t{n}/eth0"]
            at = interface.location.nve[1:]
            w.handle(ev.VmSubmitted(f"t{n}", (replace(interface, ipv4=(ip(f"10.1.{at}.{100 + 10 * n + last}"),)),)))
        case ("move", n, nve, address):
            w.handle(ev.MoveRequested(f"t{n}", nve, address=address))
        case ("redirect", n):
            w.handle(ev.RedirectRequested(_number(w, n)))
        case ("activate", n):
            w.handle(ev.ActivationReported(_number(w, n)))
        case ("abort", n):
            w.handle(ev.AbortRequested(_number(w, n)))
        case ("plug", n, nve):
            w.plug(nve, f"tap-t{n}")
        case ("time", seconds):
            w.advance(seconds, step=seconds)
        case ("arrive" | "unheard" as how, name) if name in w.under_way:
            w.arrive(name, heard=how == "arrive")
            if how == "unheard":  # the publisher tries again
                w.under_way[name] = w.served[name]
        case ("fail", name) if name in w.under_way:
            w.fail(name)
        case ("kill",):
            w.kill()
            w.under_way.clear()
            w.start()
        case ("undone", n, name) if f"t{n}" in w.nva.state.vms:
            interface = replace(w.nva.state.interfaces[f"t{n}/eth0"], dns=name)
            w.nva.handle(ev.VmSubmitted(f"t{n}", (interface,)), w.now)
            w.nva.rollback()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_action, max_size=40))
def test_after_any_history_servers_give_out_what_the_directory_says(history: list[tuple]) -> None:  # type: ignore[type-arg]
    w = NameWorld()
    for n in (1, 2):
        w.named(n, f"n{n}", WEB)
    for action in history:
        with contextlib.suppress(VmmError, StoreUnavailable):
            act(w, action)
        wanted = {name: row.wanted for name, row in w.nva.state.names.items() if row.wanted}
        assert wanted == {name: addresses for name, addresses in w.expected().items() if addresses}
        for name, row in w.nva.state.names.items():
            if row.told != row.wanted:
                assert w.under_way.get(name) == row.wanted, "nobody is about to say it"
    w.settle()
    assert {name: value for name, value in w.served.items() if value} == {
        name: addresses for name, addresses in w.expected().items() if addresses
    }
    assert all(row.told == row.wanted for row in w.nva.state.names.values())
    assert not w.nva.state.unpublished
