"""Layer 3 under random histories: what switches hold is what the directory says, and packets arrive at most once."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from l3town import Layer3
from outside import GATEWAY, locator
from town import TIMES
from world import ip

from ryu_vmm import events as ev
from ryu_vmm.errors import VmmError
from ryu_vmm.model import Addressing, Answer, Gateway, Interface, Kind, Leave, Network, Place
from ryu_vmm.wire.ip import parse_ip

NVES = ["n1", "n2", "n3"]
TASKS = [1, 2, 3]
_nve, _task = st.sampled_from(NVES), st.sampled_from(TASKS)
_action = st.one_of(
    st.tuples(st.just("move"), _task, _nve, st.sampled_from(Addressing), st.sampled_from(Kind)),
    st.tuples(st.sampled_from(["redirect", "activate", "abort"]), _task),
    st.tuples(st.sampled_from(["plug", "unplug"]), _task, _nve),
    st.tuples(st.sampled_from(["port-gone", "port-back"]), _nve, st.sampled_from(["gre", "ila", "vxlan"])),
    st.tuples(st.sampled_from(["down", "up", "restart"]), _nve),
    st.tuples(st.just("leave"), st.sampled_from(Answer)),
    st.tuples(st.just("router"), st.sampled_from(["r", None])),
    st.tuples(st.just("office"), _nve),
    st.tuples(st.just("locator"), _nve),
    st.tuples(st.just("subnets"), st.integers(0, 6)),
    st.tuples(st.sampled_from(["remove", "add"]), _task, _nve),
    st.tuples(st.just("time"), st.sampled_from([0.05, 0.5, 3.0, 40.0])),
    st.tuples(st.just("kill")),
)


class Story:
    """A world that is driven by actions, each of which may be refused."""

    def __init__(self) -> None:
        self.world = Layer3()
        self.tasks: dict[int, Interface] = {n: self.world.task(n, NVES[n - 1]) for n in TASKS}

    def do(self, action: tuple[object, ...]) -> None:
        with contextlib.suppress(VmmError):
            getattr(self, "_" + str(action[0]).replace("-", "_"))(*action[1:])

    def _number(self, n: int) -> int:
        moves = [m.id for m in self.world.nva.state.open_moves() if m.vm == f"t{n}"]
        return max(moves, default=0)

    def _move(self, n: int, to: str, address: Addressing, kind: Kind) -> None:
        self.world.handle(ev.MoveRequested(f"t{n}", to, kind, address=address))

    def _redirect(self, n: int) -> None:
        self.world.handle(ev.RedirectRequested(self._number(n)))

    def _activate(self, n: int) -> None:
        self.world.handle(ev.ActivationReported(self._number(n)))

    def _abort(self, n: int) -> None:
        self.world.handle(ev.AbortRequested(self._number(n)))

    def _plug(self, n: int, nve: str) -> None:
        if self.world.boxes[nve].connected:
            self.world.plug(nve, f"tap-t{n}")

    def _unplug(self, n: int, nve: str) -> None:
        if self.world.boxes[nve].connected and f"tap-t{n}" in self.world.boxes[nve].ports:
            self.world.unplug(nve, f"tap-t{n}")

    def _port_gone(self, nve: str, port: str) -> None:
        box = self.world.boxes[nve]
        if box.connected:
            self.world.handle(ev.PortChanged(box.nve.dpid, ev.PortInfo(box.ports[port], port, True), gone=True))

    def _port_back(self, nve: str, port: str) -> None:
        box = self.world.boxes[nve]
        if box.connected:
            self.world.handle(ev.PortChanged(box.nve.dpid, ev.PortInfo(box.ports[port], port, True)))

    def _down(self, nve: str) -> None:
        self.world.disconnect(nve)

    def _up(self, nve: str) -> None:
        self.world.connect(nve)

    def _restart(self, nve: str) -> None:
        self.world.lose_tables(nve)
        self.world.connect(nve)

    def _leave(self, answer: Answer) -> None:
        policy = replace(self._tasks().policy, leave=Leave(answer, 30))
        self.world.handle(ev.NetworkSubmitted(replace(self._tasks(), policy=policy)))

    def _tasks(self) -> Network:
        return self.world.nva.state.networks[300]

    def _router(self, router: str | None) -> None:
        self.world.handle(ev.NetworkSubmitted(replace(self._tasks(), router=router)))

    def _office(self, nve: str) -> None:
        gateway = Gateway(ipv4=ip("10.0.5.254"), ipv6=GATEWAY.ipv6)
        self.world.handle(ev.NetworkSubmitted(Network("office", 100, gateway=gateway, router="r")))
        desk = Interface("d/eth0", "d", "eth0", 100, b"\2\0\0\0\0\x42", (ip("10.0.5.1"),), (), Place(nve, "tap-d"))
        self.world.handle(ev.VmSubmitted("d", (desk,)))
        if self.world.boxes[nve].connected:
            self.world.plug(nve, "tap-d")

    def _locator(self, nve: str) -> None:
        known = self.world.nva.state.nves[nve]
        here = locator(known.dpid)
        there = here[:-1] + bytes([here[-1] ^ 0x80])
        self.world.handle(ev.NveSubmitted(replace(known, locator=there if known.locator == here else here)))

    def _subnets(self, count: int) -> None:
        self.world.handle(ev.NetworkSubmitted(replace(self._tasks(), subnets=self.world.tasks.subnets[:count])))

    def _remove(self, n: int, _nve: str) -> None:
        self.world.handle(ev.VmWithdrawn(f"t{n}"))

    def _add(self, n: int, nve: str) -> None:
        if f"t{n}" not in self.world.nva.state.vms and self.world.boxes[nve].connected:
            self.world.task(n, nve)

    def _time(self, seconds: float) -> None:
        self.world.advance(seconds, step=max(0.05, seconds / 20))

    def _kill(self) -> None:
        self.world.kill()
        self.world.start()

    # --- what always holds --------------------------------------------------------------------------------------------
    def holds(self) -> None:
        assert not self.world.differences()
        state = self.world.nva.state
        for gone in state.left.values():
            assert gone.interface in state.interfaces

    def everybody_sends(self) -> None:
        """A packet arrives at most once, at whom it is for, and costs one of its TTL; else its sender may be told."""
        world, state = self.world, self.world.nva.state
        for sender in list(state.interfaces.values()):
            place = sender.location
            if state.port_at(place) is None or not world.boxes[place.nve].connected:
                continue
            for receiver in list(state.interfaces.values()):
                if receiver.id == sender.id or receiver.vni != sender.vni:
                    continue
                for dst in (*receiver.ipv4, *receiver.ipv6):
                    sent = world.sent(sender, dst)
                    before = len(world.out)
                    world.send(place.nve, place.port, sent)
                    came = [(port, frame) for _, port, frame in world.out[before:]]
                    to = [frame for port, frame in came if port == f"tap-{receiver.vm}"]
                    assert len(to) <= 1
                    for port, frame in came:
                        found = parse_ip(frame)
                        if port == f"tap-{receiver.vm}":
                            assert (found.dst, found.ttl, frame[:6]) == (dst, 63, receiver.mac)
                        else:
                            assert port == f"tap-{sender.vm}"
                            assert found.proto in (1, 58)


@settings(max_examples=60 * TIMES, deadline=None)
@given(st.lists(_action, max_size=25))
def test_flows_follow_the_directory_and_packets_arrive_at_most_once(actions: list[tuple[object, ...]]) -> None:
    story = Story()
    for action in actions:
        story.do(action)
        story.holds()
    story.everybody_sends()
