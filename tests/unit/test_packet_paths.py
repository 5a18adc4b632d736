"""Where frames go, whatever happened before and in whatever order the switches heard of it.

Two networks with the same addresses in both. Guests 1, 2 and 3 are blue; 4 and 5 are red, with the addresses of 1 and
2. Every frame names its network, sender and receiver in its payload, so that each that leaves any port is checked
against whose port that is. VMM_EXAMPLES in the environment multiplies the number of examples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import TUNNEL, World, broadcast, ip, mac, unicast

from ryu_vmm import events as ev
from ryu_vmm.errors import Conflict, VmmError
from ryu_vmm.model import Admit, Distribution, Kind, Move, MoveState, Place, Policy, Redirect, Trust
from ryu_vmm.nva import Settings
from ryu_vmm.wire import frames

TIMES = int(os.environ.get("VMM_EXAMPLES", "1"))
NVES = ["n1", "n2", "n3", "n4"]
BLUE, RED = [1, 2, 3], [4, 5]
GUESTS = [*BLUE, *RED]
VNI = {**dict.fromkeys(BLUE, 100), **dict.fromkeys(RED, 200)}
#: Guest -> the number in its addresses.
HOST = {1: 1, 2: 2, 3: 3, 4: 1, 5: 2}
PATIENT = Settings(
    prepare_deadline=1e6, prepared_deadline=1e6, redirect_deadline=1e6, steer_deadline=1e6, drain_cap=1e6
)


def frame(a: int, b: int, number: int = 0) -> bytes:
    """From guest a to guest b, saying so."""
    return unicast(HOST[a], HOST[b], f"{VNI[a]:03}{a}{b}{number:015}".encode())


def said(sent: bytes) -> tuple[int, int, int, int]:
    """VNI, sender, receiver and number of a frame."""
    text = sent[42:62].decode()
    return int(text[:3]), int(text[3]), int(text[4]), int(text[5:])


def place_guests(w: World, policy: Policy | None = None) -> None:
    w.network("blue", 100, policy)
    w.network("red", 200, policy)
    for n in GUESTS:
        settle_in(w, n, NVES[n % 4])


def settle_in(w: World, n: int, nve: str, port: bool = True) -> None:
    elsewhere = tuple(Place(other, f"tap-vm{n}") for other in NVES if other != nve)[: n % 3]
    w.vm(HOST[n], nve, VNI[n], port=port, name=f"vm{n}", attachments=elsewhere)


def nobody_else_hears(w: World) -> None:
    """Every frame that left by any port so far was for that port's guest, or for all of its network."""
    for nve, port, sent in w.out:
        owner = int(port.removeprefix("tap-vm"))
        if sent[12:14] == b"\x08\0":
            vni, a, b, _ = said(sent)
            assert VNI[owner] == vni, (nve, port, a, b)
            assert sent[0] & 1 or owner == b, (nve, port, a, b)
        elif sent[12:14] == b"\x08\x06":  # an answer, or a question to all
            assert sent[0] & 1 or sent[:6] == mac(HOST[owner])
    w.out.clear()


# --- any history ------------------------------------------------------------------------------------------------------
guest = st.sampled_from(GUESTS)
nve = st.sampled_from(NVES)
some = st.one_of(st.none(), st.integers(1, 3))
HISTORY = st.one_of(
    st.tuples(st.just("move"), guest, nve, st.sampled_from(list(Kind))),
    st.tuples(st.just("hook"), guest, st.sampled_from(["redirect", "activate", "abort"])),
    st.tuples(st.just("plug"), guest, nve),
    st.tuples(st.just("unplug"), guest, nve),
    st.tuples(st.just("announce"), guest, nve, st.sampled_from(["garp", "na", "rarp", "data"])),
    st.tuples(st.just("wait"), st.sampled_from([0.02, 0.3, 2.0, 12.0])),
    st.tuples(st.just("late"), nve),
    st.tuples(st.just("land"), nve, some),
    st.tuples(st.just("hold"), nve),
    st.tuples(st.just("release"), nve),
    st.tuples(st.just("disconnect"), nve),
    st.tuples(st.just("connect"), nve),
    st.tuples(st.just("policy"), *(st.sampled_from(list(kind)) for kind in (Trust, Distribution, Admit))),
    st.tuples(st.just("forget"), guest),
    st.tuples(st.just("register"), guest, nve),
    st.tuples(st.just("refuse"), nve),
    st.tuples(st.just("tunnel"), nve, st.booleans()),
    st.tuples(st.just("renumber"), guest, nve),
    st.tuples(st.just("idle"), nve),
)


def happen(w: World, action: tuple) -> None:  # type: ignore[type-arg]
    """One thing happens; a refusal is an answer too."""
    state = w.nva.state
    try:
        match action:
            case ("move", n, to, kind):
                w.handle(ev.MoveRequested(f"vm{n}", to, kind))
            case ("hook", n, which):
                hook = {"redirect": ev.RedirectRequested, "activate": ev.ActivationReported, "abort": ev.AbortRequested}
                for move, _ in list(state.moves_of(f"vm{n}/eth0"))[-1:]:
                    w.handle(hook[which](move.id))  # type: ignore[operator]
            case ("plug", n, at):
                w.plug(at, f"tap-vm{n}")
            case ("unplug", n, at):
                if f"tap-vm{n}" in w.boxes[at].ports:
                    w.unplug(at, f"tap-vm{n}")
            case ("announce", n, at, how):
                if f"tap-vm{n}" in w.boxes[at].ports:
                    w.send(at, f"tap-vm{n}", sign_of_life(n, how))
            case ("wait", seconds):
                w.advance(seconds, step=0.25)
            case ("late", at):
                w.late.add(at)
            case ("land", at, count):
                w.land(at, count)
            case ("hold", at):
                w.hold_barriers.add(at)
            case ("release", at):
                w.release(at)
            case ("disconnect", at):
                w.disconnect(at)
            case ("connect", at):
                w.boxes[at].held_barriers.clear()
                w.boxes[at].inbox.clear()
                w.connect(at)
            case ("policy", trust, distribution, admit):
                for name, vni in (("blue", 100), ("red", 200)):
                    w.network(name, vni, Policy(distribution, trust, admit=admit, idle_timeout=5))
            case ("forget", n):
                w.handle(ev.VmWithdrawn(f"vm{n}"))
            case ("register", n, at):
                settle_in(w, n, at, port=False)
            case ("refuse", at):
                w.handle(ev.FlowRefused(w.boxes[at].nve.dpid, state.generation, 5, 1))
            case ("tunnel", at, there):
                dpid = w.boxes[at].nve.dpid
                w.handle(ev.PortChanged(dpid, ev.PortInfo(TUNNEL, "vxlan", True), gone=not there))
            case ("renumber", n, at):
                if w.boxes[at].ports.pop(f"tap-vm{n}", None):
                    w.plug(at, f"tap-vm{n}")
            case ("idle", at):
                for entry, _ in w.boxes[at].tables.expire(w.now + 5):
                    w.handle(ev.FlowExpired(w.boxes[at].nve.dpid, entry.flow))
    except VmmError:
        pass


def sign_of_life(n: int, how: str) -> bytes:
    """What guest n sends when it starts to run somewhere."""
    return {
        "garp": frames.build_garp(mac(HOST[n]), ip(f"10.0.0.{HOST[n]}")),
        "na": frames.build_unsolicited_na(mac(HOST[n]), ip(f"2001:db8::{HOST[n]}")),
        "rarp": frames.build_rarp_request(mac(HOST[n])),
        "data": unicast(HOST[n], 99),
    }[how]


def send_all(w: World) -> None:
    """Every guest sends to every other of its network, and to all, from wherever it has a port."""
    for a in GUESTS:
        for name, box in w.boxes.items():
            if f"tap-vm{a}" not in box.ports:
                continue
            for b in GUESTS:
                if a != b and VNI[a] == VNI[b]:
                    out = w.send(name, f"tap-vm{a}", frame(a, b))
                    assert len(out) <= 1, (a, b, out)
            w.send(name, f"tap-vm{a}", b"\xff" * 6 + frame(a, a)[6:])
    nobody_else_hears(w)


def settled(w: World) -> bool:
    """Whether every switch is told at once what it should do."""
    sessions = w.nva.state.sessions
    quick = not w.late and not w.hold_barriers and len(sessions) == len(NVES)
    return quick and all(s.synced and s.tunnel for s in sessions.values())


def reach_each_other(w: World) -> None:
    """Every guest at home reaches every other exactly once, where the directory and the open moves say it is."""
    state = w.nva.state
    for a in GUESTS:
        home = state.interfaces.get(f"vm{a}/eth0")
        if home is None or state.port_at(home.location) is None:
            continue
        for b in GUESTS:
            there = state.interfaces.get(f"vm{b}/eth0")
            if a == b or VNI[a] != VNI[b] or there is None:
                continue
            expected = there.location
            active = state.active_move(there.id)
            if active is not None:
                move, leg = active
                at_destination = home.location.nve == leg.dst.nve and move.redirect is Redirect.DESTINATION
                if at_destination or move.redirect in (Redirect.SOURCE, Redirect.IN_FORCE):
                    expected = leg.dst
            out = w.send(home.location.nve, home.location.port, frame(a, b))
            assert out == ([expected] if state.port_at(expected) is not None else []), (a, b)
    nobody_else_hears(w)


@settings(max_examples=60 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(HISTORY, max_size=30), st.sampled_from(list(Distribution)))
def test_frames_reach_their_receiver_or_nobody(history: list[tuple], distribution: Distribution) -> None:  # type: ignore[type-arg]
    w = World(4)
    place_guests(w, Policy(distribution, idle_timeout=5))
    for action in history:
        happen(w, action)
        send_all(w)
        if settled(w):
            assert w.differences() == []
            reach_each_other(w)
    for name in NVES:
        w.land(name)
        w.release(name)
        if not w.boxes[name].connected:
            w.connect(name)
        happen(w, ("tunnel", name, True))
    w.advance(1000, step=5)
    assert settled(w)
    assert not list(w.nva.state.open_moves())
    assert w.differences() == []
    send_all(w)
    reach_each_other(w)


# --- planned moves lose nothing ---------------------------------------------------------------------------------------
mover = st.sampled_from([1, 2, 4])
how_heard = st.sampled_from(["garp", "na", "rarp", "data", "activate"])
STORY = st.one_of(
    # Most of a story is moves going on, one step of a move at a time.
    *[st.tuples(st.just("go on"), mover, nve, how_heard)] * 5,
    *[st.tuples(st.just("land"), nve, some)] * 2,
    st.tuples(st.just("late"), nve),
    st.tuples(st.just("plug"), mover),
    st.tuples(st.just("abort"), mover),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.05, 0.3, 2.0])),
)


class Story:
    """Hypervisors that do as they should, guests that talk all the time, switches that hear of things late.

    Attributes:
        at: where each guest runs, or waits to.
        paused: guests that do not run at the moment.
        queued: (NVE, guest) -> frames in the queue of a port behind which nobody runs yet.
    """

    def __init__(self, policy: Policy) -> None:
        self.w = World(4, settings=PATIENT)
        place_guests(self.w, policy)
        self.at = {n: NVES[n % 4] for n in GUESTS}
        self.paused: set[int] = set()
        self.queued: dict[tuple[str, int], list[int]] = {}
        self.sent: dict[int, int] = {}
        self.got: Counter[int] = Counter()
        self.excused: set[int] = set()
        self.aborted: list[tuple[str, int]] = []
        self.number = 0

    def move_of(self, n: int):  # type: ignore[no-untyped-def]
        active = self.w.nva.state.active_move(f"vm{n}/eth0")
        return active if active is not None else (None, None)

    def do(self, action: tuple) -> None:  # type: ignore[type-arg]
        w = self.w
        what, who = action[0], action[1]
        match what:
            case "late":
                w.late.add(who)
                return
            case "land":
                w.land(who, action[2])
                return
            case "wait":
                w.advance(who, step=who / 2)
                return
        move, _ = self.move_of(who)
        source, there = self.at[who], None if move is None else move.destination
        tap = f"tap-vm{who}"
        if what == "go on":
            if move is None:
                with contextlib.suppress(VmmError):
                    w.handle(ev.MoveRequested(f"vm{who}", action[2]))
            elif move.state is MoveState.PREPARED:
                w.handle(ev.RedirectRequested(move.id))
            elif who not in self.paused and move.redirect is Redirect.IN_FORCE:
                self.paused.add(who)
            elif who in self.paused and tap in w.boxes[source].ports:
                w.unplug(source, tap)
            elif who in self.paused:
                self.run(who, there, move.id, action[3])
        elif what == "plug" and there is not None and tap not in w.boxes[there].ports:
            w.plug(there, tap)
        elif what == "abort" and there is not None and tap in w.boxes[source].ports:
            w.handle(ev.AbortRequested(move.id))
            self.paused.discard(who)
            # What its port at the destination has queued goes with that port.
            self.excused.update(self.queued.pop((there, who), []))
            self.aborted.append((there, who))

    def run(self, n: int, there: str, number: int, how: str) -> None:
        """The guest goes on at the destination, whose port takes packets in and out by now, as a hypervisor checks."""
        w = self.w
        if f"tap-vm{n}" not in w.boxes[there].ports:
            w.plug(there, f"tap-vm{n}")
        w.land(there)
        self.paused.discard(n)
        self.at[n] = there
        self.got.update(self.queued.pop((there, n), []))
        self.announce(n, how, number)

    def announce(self, n: int, how: str, number: int) -> None:
        w = self.w
        if how == "activate":
            w.handle(ev.ActivationReported(number))
            return
        w.send(self.at[n], f"tap-vm{n}", sign_of_life(n, how))

    def talk(self) -> None:
        """Every guest that runs sends a frame to every other of its network."""
        for a in GUESTS:
            for b in GUESTS:
                if a != b and VNI[a] == VNI[b] and a not in self.paused:
                    self.number += 1
                    self.sent[self.number] = b
                    self.w.send(self.at[a], f"tap-vm{a}", frame(a, b, self.number))
        self.listen()

    def listen(self) -> None:
        for where, port, sent in self.w.out:
            if sent[12:14] != b"\x08\0" or said_nothing(sent):
                continue
            vni, a, b, number = said(sent)
            assert port == f"tap-vm{b}" and VNI[b] == vni, (where, port, a, b)
            if where == self.at[b] and b not in self.paused:
                self.got[number] += 1
                continue
            assert where != self.at[b], f"{a} to {b}: delivered at the source, where the guest is paused"
            if (where, b) in self.aborted:
                self.excused.add(number)
            self.queued.setdefault((where, b), []).append(number)
        self.w.out.clear()

    def end(self) -> None:
        """All moves come to their end, all messages arrive."""
        w = self.w
        for name in NVES:
            w.land(name)
        for n in GUESTS:
            move, _ = self.move_of(n)
            if n in self.paused:
                self.run(n, move.destination, move.id, "garp")
            elif move is not None:
                self.do(("abort", n))
        self.listen()
        w.advance(20, step=0.25)
        self.listen()
        assert not list(w.nva.state.open_moves())
        assert w.differences() == []
        self.talk()


def said_nothing(sent: bytes) -> bool:
    return sent[42:43] not in (b"1", b"2")


@settings(max_examples=60 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STORY, max_size=40), st.sampled_from(list(Distribution)))
def test_planned_moves_lose_and_double_nothing(story: list[tuple], distribution: Distribution) -> None:  # type: ignore[type-arg]
    s = Story(Policy(distribution, idle_timeout=1000))
    for action in story:
        s.do(action)
        s.talk()
    s.end()
    assert [n for n in s.sent if not s.got[n] and n not in s.excused] == []
    assert [n for n in s.got if s.got[n] > 1] == []


# --- in whatever order switches hear of one step ----------------------------------------------------------------------
ORDERS = list(itertools.permutations(["n1", "n2", "n3"]))


def three(kind: str) -> tuple[World, Move]:
    """vm1 on n1 on its way to n2, whose port is there, watched by vm2 on n2 and vm3 on n3."""
    w = World(3)
    w.network()
    for n in (1, 2, 3):
        w.vm(n, f"n{n}")
    move = w.move("vm1", "n2")
    if kind != "no port":
        w.plug("n2", "tap-vm1")
    return w, move


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("kind", ["port", "no port"])
def test_a_redirect_all_at_once_finds_the_destination_ready(order: tuple[str, ...], kind: str) -> None:
    """The VM's port goes, or it is heard at the destination, without anybody having asked for a redirect."""
    for event in ("departed", "activated"):
        w, move = three(kind)
        w.late = {"n1", "n2", "n3"}
        if event == "departed":
            w.unplug("n1", "tap-vm1")
        else:
            w.handle(ev.ActivationReported(move.id))
        for landed, name in enumerate(order):
            w.land(name, 1)
            aware = set(order[: landed + 1])
            before = len(w.out)
            out = w.send("n3", "tap-vm3", unicast(3, 1))
            if "n1" in aware or (event == "activated" and "n3" in aware):
                if kind == "no port":
                    w.plug("n2", "tap-vm1")
                    w.land("n2")
                    out = [(nve, port) for nve, port, _ in w.out[before:]]
                    assert out == [("n2", "tap-vm1")], (event, order[: landed + 1])
                    break
                assert out == [("n2", "tap-vm1")], (event, order[: landed + 1])


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("kind", ["port", "no port"])
def test_an_abort_loses_nothing_on_its_way(order: tuple[str, ...], kind: str) -> None:
    w, move = three(kind)
    w.handle(ev.RedirectRequested(move.id))
    w.late = {"n1", "n2", "n3"}
    w.handle(ev.AbortRequested(move.id))
    sent, before = 0, len(w.out)
    for name in order:
        w.land(name)
        if "n2" not in w.late:  # until then its port there takes them
            for n in (2, 3):
                sent += 1
                w.send(f"n{n}", f"tap-vm{n}", unicast(n, 1))
    assert [(nve, port) for nve, port, _ in w.out[before:]] == [("n1", "tap-vm1")] * sent
    assert w.nva.state.returning == {} and w.differences() == []


def test_a_source_port_that_was_away_for_a_moment_gets_its_packets_again() -> None:
    w, move = three("port")
    w.unplug("n1", "tap-vm1")
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]
    w.plug("n1", "tap-vm1")
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n1", "tap-vm1")]
    assert w.current(move).state is MoveState.PREPARED and not w.current(move).departed
    w.handle(ev.RedirectRequested(move.id))
    w.unplug("n1", "tap-vm1")
    w.plug("n1", "tap-vm1")  # asked for: the hypervisor says what is to be
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]


# --- underlays of both kinds ------------------------------------------------------------------------------------------
def test_a_broadcast_reaches_peers_of_either_kind_once() -> None:
    w = World(4, family=(46, 4, 6, 46))
    w.network()
    for n in (1, 2, 3, 4):
        w.vm(n, f"n{n}")
    assert sorted(w.send("n1", "tap-vm1", broadcast(1))) == [(f"n{n}", f"tap-vm{n}") for n in (2, 3, 4)]
    assert w.send("n1", "tap-vm1", unicast(1, 2)) == [("n2", "tap-vm2")]
    assert w.send("n1", "tap-vm1", unicast(1, 3)) == [("n3", "tap-vm3")]


@pytest.mark.parametrize(("there", "peer"), [(4, 6), (6, 4)])
def test_a_redirect_from_one_kind_to_the_other(there: int, peer: int) -> None:
    """n3 still sends to n1 by one kind of underlay, n1 reaches n2 by the other only."""
    w = World(3, family=(46, 46, peer))
    w.network()
    w.vm(1, "n1")
    w.vm(3, "n3")
    move = w.move("vm1", "n2")
    assert w.current(move).state is MoveState.PREPARED
    w.plug("n2", "tap-vm1")
    w.handle(ev.RedirectRequested(move.id))
    box = w.boxes["n2"]
    narrow = dataclasses.replace(box.nve, **{"ipv6" if there == 4 else "ipv4": None})
    w.handle(ev.NveSubmitted(narrow))
    assert w.send("n3", "tap-vm3", unicast(3, 1)) == [("n2", "tap-vm1")]
    assert w.differences() == []


def test_a_move_to_where_a_correspondent_has_no_path_is_refused() -> None:
    w = World(3, family=(46, 4, 6))
    w.network()
    w.vm(1, "n1")
    w.vm(3, "n3")
    with pytest.raises(Conflict, match="n3 and n2 share no underlay"):
        w.move("vm1", "n2")
