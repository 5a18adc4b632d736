"""Edges answer questions for addresses by themselves, and say what the NVA would say."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from l3town import Layer3
from outside import GATEWAY
from town import TIMES
from world import World, arp, ip, mac

from ryu_vmm import events as ev
from ryu_vmm.addresses import link_local
from ryu_vmm.emulation.tables import Out, Tables
from ryu_vmm.emulation.tables import ToNva as Handed
from ryu_vmm.errors import VmmError
from ryu_vmm.flows import IN_PORT, Flow, Output, match
from ryu_vmm.model import (
    Distribution,
    Gateway,
    Interface,
    Network,
    NetworkKind,
    Place,
    Policy,
    Question,
    Session,
    Subnet,
)
from ryu_vmm.pipeline import is_tunnel_to_tunnel
from ryu_vmm.tables import CLASSIFY, FROM_TUNNEL, LOCAL, REMOTE, RESOLVE, Why, why_of
from ryu_vmm.wire import frames

PUSHED, PULLED, ROUTED, L3, L3_PULLED = 100, 200, 300, 400, 500
GATE = Gateway(b"\2\0\0\0\xaa\1", ip("10.0.0.254"), ip("2001:db8::fe"))
WITHIN = (Subnet(ip("10.0.0.0"), 30, "n1"), Subnet(ip("2001:db8::"), 126, "n1"))
NETWORKS = [
    Network("pushed", PUSHED),
    Network("pulled", PULLED, Policy(distribution=Distribution.PULL)),
    Network("routed", ROUTED, gateway=GATE, router="r"),
    Network("l3", L3, kind=NetworkKind.L3, gateway=GATE, subnets=WITHIN, router="r"),
    Network("l3-pulled", L3_PULLED, Policy(distribution=Distribution.PULL), kind=NetworkKind.L3, gateway=GATE),
]
VNIS = [network.vni for network in NETWORKS]
#: Numbers of hosts: the last one is nobody's.
HOSTS = range(1, 7)


def four(n: int, vni: int) -> bytes:
    """Networks of one router have different addresses, all others the same."""
    return ip(f"10.0.{1 if vni == ROUTED else 0}.{n}")


def six(n: int, vni: int) -> bytes:
    return ip(f"2001:db8:{1 if vni == ROUTED else 0}::{n}")


def solicit(sha: bytes, src: bytes, target: bytes, eth_dst: bytes | None = None, sll: bool = True) -> bytes:
    """A neighbor solicitation; ``sll``: it says which MAC to answer to."""
    frame = frames.build_ns(sha, src, target)
    if not sll:
        short = frames.build_ns(sha, bytes(16), target)  # whose checksum is of another source
        pseudo = int.from_bytes(src + short[38:54] + short[58:], "big") + (frames.NS << 8) + 24 + 58
        frame = short[:22] + src + short[38:56] + (-pseudo % 0xFFFF).to_bytes(2, "big") + short[58:]
    return frame if eth_dst is None else eth_dst + frame[6:]


def questions(asker: Interface, target: bytes, gateway: bytes) -> Iterator[tuple[str, bytes]]:
    """All ways in which a guest may ask for an address, by name."""
    if len(target) == 4:
        for spa in (asker.ipv4[0], bytes(4)):
            name = "probe" if not any(spa) else "arp"
            yield name, frames.build_arp_request(asker.mac, spa, target)
            yield f"{name} of the gateway", frames.build_arp_request(asker.mac, spa, target, gateway)
        return
    for src in (asker.ipv6[0], link_local(asker.mac)):
        yield "ns", solicit(asker.mac, src, target)
        yield "ns of the gateway", solicit(asker.mac, src, target, gateway)
        yield "ns without its MAC", solicit(asker.mac, src, target, sll=False)
        yield "ns without its MAC, of the gateway", solicit(asker.mac, src, target, gateway, sll=False)
    yield "dad", frames.build_ns(asker.mac, bytes(16), target)


def check(w: World) -> int:
    """Every guest asks for every address in every way: flows say what the NVA would; how many they answer."""
    state, answered = w.nva.state, 0
    assert w.differences() == []
    for asker in state.interfaces.values():
        place = asker.location
        port = state.port_at(place)
        if port is None:
            continue
        targets = {a for i in state.interfaces.values() for a in (*i.ipv4, *i.ipv6, link_local(i.mac))}
        targets |= {GATE.ipv4, GATE.ipv6, four(6, asker.vni), six(6, asker.vni), link_local(mac(66))}  # type: ignore
        for target in sorted(targets):
            for name, frame in questions(asker, target, GATE.mac):
                results = [r for r in w.boxes[place.nve].tables.run(frame, port.number, now=w.now) if not copied(r)]
                said = w.nva.packets.resolver.answer(place.nve, port.number, frame)
                outs = [r for r in results if isinstance(r, Out)]
                by_flow = [r.frame for r in outs if r.port == port.number]
                if by_flow:
                    answered += 1
                    assert (by_flow, len(results)) == ([said], 1), (asker.id, target.hex(), name)
                elif said is not None and "gateway" not in name:
                    assert [r for r in results if isinstance(r, Handed)], (asker.id, target.hex(), name)
                    assert handed_over(w, asker, target, name), (asker.id, target.hex(), name)
    return answered


def copied(result: object) -> bool:
    """Whether this is the copy for the NVA of what is answered."""
    why = why_of(result.cookie or 0) if isinstance(result, Handed) else None
    return why is not None and why[0] in (Why.ANSWER, Why.ADVERTISE)


def handed_over(w: World, asker: Interface, target: bytes, name: str) -> bool:
    """Whether a question that has an answer may be left to the NVA."""
    state = w.nva.state
    if name == "dad" or "without" in name:
        return True
    if target in (GATE.ipv4, GATE.ipv6):
        return False
    if state.is_l3(asker.vni):
        within = any(target in subnet for subnet in state.networks[asker.vni].subnets)
        mine = target in {a for i in state.in_network(asker.vni) for a in _addresses(state.interfaces[i])}
        if within or not mine:
            return not within
    return state.networks[asker.vni].policy.distribution is Distribution.PULL


def _addresses(interface: Interface) -> tuple[bytes, ...]:
    return (*interface.ipv4, *interface.ipv6)


def guest(n: int, vni: int, nve: str, address: int | None = None, link: int | None = None) -> Interface:
    at = n if address is None else address
    name = f"v{vni}-{n}"
    return Interface(
        f"{name}/eth0",
        name,
        "eth0",
        vni,
        mac(n if link is None else link),
        (four(at, vni),),
        (six(at, vni),),
        Place(nve, f"tap-{name}"),
    )


def world(**more: object) -> World:
    w = World(3, layer3=True, family=46, **more)  # type: ignore[arg-type]
    for network in NETWORKS:
        w.handle(ev.NetworkSubmitted(network))
    return w


def put(w: World, interface: Interface) -> None:
    w.handle(ev.VmSubmitted(interface.vm, (interface,)))
    w.plug(interface.location.nve, interface.location.port)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.integers(1, 3),
            st.sampled_from(VNIS),
            st.sampled_from(["n1", "n2", "n3"]),
            st.integers(1, 5),
            st.integers(1, 5),
        ),
        st.tuples(st.just("move"), st.integers(1, 3), st.sampled_from(VNIS), st.sampled_from(["n1", "n2", "n3"])),
        st.tuples(st.just("delete"), st.integers(1, 3), st.sampled_from(VNIS)),
        st.tuples(st.just("policy"), st.sampled_from([0, 1]), st.booleans()),
        st.tuples(st.just("restart")),
        st.tuples(st.just("away"), st.sampled_from(["n1", "n2", "n3"])),
    ),
    max_size=12,
)


@settings(max_examples=20 * TIMES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_flows_say_what_the_nva_would_say(steps: list[tuple[str, ...]]) -> None:
    w = world()
    for vni in VNIS:
        put(w, guest(1, vni, "n1"))
        put(w, guest(2, vni, "n2"))
    for step in steps:
        take(w, step)
        assert w.differences() == []
    check(w)


def take(w: World, step: tuple[object, ...]) -> None:
    state = w.nva.state
    match step:
        case ("put", n, vni, nve, address, link):
            name = f"v{vni}-{n}"
            at = state.interfaces[f"{name}/eth0"].location.nve if name in state.vms else nve
            with contextlib.suppress(VmmError):  # somebody else has it
                put(w, guest(n, vni, at, address, link))  # type: ignore[arg-type]
        case ("move", n, vni, to):
            name = f"v{vni}-{n}"
            if name in state.vms and state.interfaces[f"{name}/eth0"].location.nve != to:
                move = w.move(name, str(to))
                w.plug(move.destination, f"tap-{name}")
                w.handle(ev.ActivationReported(move.id))
                w.advance(5.0, 0.5)
        case ("delete", n, vni):
            if f"v{vni}-{n}" in state.vms:
                w.handle(ev.VmWithdrawn(f"v{vni}-{n}"))
        case ("policy", index, pull):
            network = NETWORKS[index]  # type: ignore[call-overload]
            how = Distribution.PULL if pull else Distribution.PUSH
            w.handle(ev.NetworkSubmitted(replace(network, policy=Policy(distribution=how))))
        case ("restart",):
            w.kill()
            w.start()
        case ("away", nve):
            w.disconnect(str(nve))
            w.connect(str(nve))


@pytest.fixture
def here() -> World:
    """Three guests in each network, one at each NVE."""
    w = world()
    for vni, n in itertools.product(VNIS, (1, 2, 3)):
        put(w, guest(n, vni, f"n{n}"))
    return w


def test_with_the_nva_away_guests_resolve_each_other_and_their_gateways(here: World) -> None:
    assert check(here) > 100
    here.kill()
    for vni in (PUSHED, ROUTED, L3):
        one = here.nva.state.interfaces[f"v{vni}-1/eth0"]
        wanted = [four(2, vni), six(2, vni)] + ([] if vni == L3 else [link_local(mac(2))])
        if vni != PUSHED:
            wanted += [GATE.ipv4 or b"", GATE.ipv6 or b""]
        for target in wanted:
            ask = solicit(one.mac, one.ipv6[0], target) if len(target) == 16 else frames.build_arp_request(
                one.mac, one.ipv4[0], target
            )
            assert here.send("n1", one.location.port, ask) == [("n1", one.location.port)], (vni, target.hex())
            told = here.out[-1][2]
            gate = vni == L3 or target in (GATE.ipv4, GATE.ipv6)
            assert told[6:12] == (GATE.mac if gate else mac(2))
            if len(target) == 16:
                assert frames.parse_nd(told).flags & frames.NA_ROUTER == (
                    frames.NA_ROUTER if target == GATE.ipv6 else 0
                )


def test_what_is_ones_own_is_never_answered_with_ones_own_mac(here: World) -> None:
    one = here.nva.state.interfaces[f"v{PUSHED}-1/eth0"]
    for frame in (
        frames.build_garp(one.mac, one.ipv4[0]),
        frames.build_arp_request(one.mac, bytes(4), one.ipv4[0]),
        frames.build_ns(one.mac, bytes(16), one.ipv6[0]),
        frames.build_ns(one.mac, one.ipv6[0], link_local(one.mac)),
    ):
        told = here.send("n1", one.location.port, frame)
        assert ("n1", one.location.port) not in told
        assert here.nva.counters["packet_in.resolve"]


def test_a_move_changes_no_answer(here: World) -> None:
    """Where a guest is, no answer says: its flows stay as they are at every NVE that has guests of the network."""
    before = {n: _answers(here, n) for n in here.boxes}
    changed = []
    apply = Tables.change

    def change(tables: Tables, step: object, now: float = 0.0) -> None:
        changed.append(step)
        apply(tables, step, now)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tables, "change", change)
        take(here, ("move", 1, PUSHED, "n2"))
        take(here, ("move", 1, L3, "n2"))
    assert here.nva.state.interfaces[f"v{PUSHED}-1/eth0"].location.nve == "n2"
    ours = [step.flow for step in changed if (why_of(step.flow.cookie) or (0,))[0] in (Why.ANSWER, Why.ADVERTISE)]
    # n1 has no guest of the two networks any more, and answers nobody for them.
    assert {flow.key for flow in ours} == before["n1"] - _answers(here, "n1")
    assert {n: _answers(here, n) for n in ("n2", "n3")} == {n: before[n] for n in ("n2", "n3")}


def _answers(w: World, nve: str) -> set[object]:
    reasons = (Why.ANSWER, Why.ADVERTISE)
    return {f.key for f in w.installed(nve).values() if (why_of(f.cookie) or (0,))[0] in reasons}


def test_one_networks_answers_are_no_others(here: World) -> None:
    """Two networks have the same addresses, with other MACs."""
    put(here, guest(2, PUSHED, "n2", link=5))
    for vni, said in ((PUSHED, mac(5)), (ROUTED, mac(2))):
        one = here.nva.state.interfaces[f"v{vni}-1/eth0"]
        here.send("n1", one.location.port, frames.build_arp_request(one.mac, one.ipv4[0], four(2, vni)))
        assert frames.parse_arp(here.out[-1][2]).sha == said


def test_nothing_that_comes_from_a_tunnel_is_answered(here: World) -> None:
    for nve, box in here.boxes.items():
        session = here.nva.state.sessions[nve]
        assert not [f for f in box.tables.flows if is_tunnel_to_tunnel(f, session)]
    box, other = here.boxes["n1"], here.boxes["n2"].nve
    for frame in (arp(2, 3), solicit(mac(2), six(2, PUSHED), six(3, PUSHED))):
        results = box.tables.run(frame, 1, PUSHED, other.ipv4, box.nve.ipv4)
        assert all(isinstance(r, Out) and r.port > 3 for r in results), results  # flooded to guests


SESSION = Session("n1", 1)
BACK = (Output(IN_PORT),)


@pytest.mark.parametrize(("flow", "found"), [
    (Flow(RESOLVE, 1, match(metadata=LOCAL), BACK), False),
    (Flow(RESOLVE, 1, match(metadata=0), BACK), False),
    (Flow(RESOLVE, 1, match(metadata=REMOTE), BACK), True),
    (Flow(RESOLVE, 1, match(metadata=(0, 2)), BACK), True),
    (Flow(RESOLVE, 1, (), BACK), True),
    (Flow(CLASSIFY, 1, match(metadata=LOCAL), BACK), True),  # where nothing is marked yet
    (Flow(CLASSIFY, 1, match(in_port=1), goto=RESOLVE), True),  # lets something by unmarked
    (Flow(CLASSIFY, 1, (), goto=RESOLVE), True),
    (Flow(CLASSIFY, 1, match(in_port=1), goto=RESOLVE, write_metadata=FROM_TUNNEL), False),
    (Flow(CLASSIFY, 1, match(in_port=5), goto=RESOLVE), False),
])  # fmt: skip
def test_what_could_send_from_tunnel_to_tunnel_is_known(flow: Flow, found: bool) -> None:
    assert is_tunnel_to_tunnel(flow, SESSION) is found


# --- switches that cannot -------------------------------------------------------------------------------------------
def refusing(w: World, nve: str) -> None:
    w.disconnect(nve)
    w.boxes[nve].tables = Tables(routed=2, nd=False)
    w.boxes[nve].tables.meter_rate = w.nva.meter_rate


def test_a_switch_that_refuses_advertisements_goes_on_without(here: World) -> None:
    refusing(here, "n1")
    here.connect("n1")
    here.advance(3.0)
    assert here.nva.state.sessions["n1"].answers == (Question.ARP,)
    assert here.nva.state.sessions["n1"].synced and "n1" not in here.nva.state.faults
    assert [fields["answers"] for kind, fields in here.reports if kind == "nve.answers"] == [["arp"]]
    before = len(here.reports)
    here.advance(200.0, 1.0)
    assert not [kind for kind, _ in here.reports[before:] if kind.startswith("nve.")], "a resync loop"
    check_without(here)
    # It is asked anew when it comes again, and by then it can.
    here.disconnect("n1")
    here.boxes["n1"].tables.nd = True
    here.connect("n1")
    here.advance(1.0)
    assert here.nva.state.sessions["n1"].answers == tuple(Question)
    check(here)


def check_without(w: World) -> None:
    one = w.nva.state.interfaces[f"v{PUSHED}-1/eth0"]
    counted = w.nva.counters.get("packet_in.resolve", 0)
    assert w.send("n1", one.location.port, frames.build_arp_request(one.mac, one.ipv4[0], four(2, PUSHED)))
    assert w.nva.counters.get("packet_in.resolve", 0) == counted
    assert w.send("n1", one.location.port, solicit(one.mac, one.ipv6[0], six(2, PUSHED)))
    assert w.nva.counters["packet_in.resolve"] == counted + 1, "the NVA answers"
    assert w.differences() == []


def test_a_move_does_not_fail_because_its_switch_cannot_answer(here: World) -> None:
    move = here.move(f"v{PUSHED}-1", "n2")
    refusing(here, "n2")
    here.connect("n2")
    here.advance(3.0)
    assert here.current(move).state.value == "prepared"
    assert here.nva.state.sessions["n2"].answers == (Question.ARP,)


def test_a_full_table_is_no_inability(here: World) -> None:
    cookie = next(f.cookie for f in here.installed("n1").values() if (why_of(f.cookie) or (0,))[0] is Why.ADVERTISE)
    here.handle(ev.FlowRefused(1, here.nva.state.generation, 5, 1, cookie))
    assert here.nva.state.sessions["n1"].answers == tuple(Question) and "n1" in here.nva.state.faults
    here.advance(3.0)
    assert here.nva.state.sessions["n1"].synced


def test_tasks_that_keep_or_change_their_addresses_are_answered_for() -> None:
    w = Layer3()
    one, two = w.task(1, "n1"), w.task(2, "n2")
    move = w.through(w.move("t1", "n2"), "tap-t1")
    assert move.state.value == "settled"
    state = w.nva.state
    for sender in (one, two):
        now = state.interfaces[sender.id]
        for target in (GATEWAY.ipv4 or b"", ip("10.1.3.77"), *(a for a in two.ipv4 if sender is one)):
            assert w.send("n2", now.location.port, frames.build_arp_request(now.mac, now.ipv4[0], target))
            assert frames.parse_arp(w.last()).sha == GATEWAY.mac
    assert not w.nva.counters.get("packet_in.resolve")
