"""A layer 3 network in which everything changes: who is where, with which addresses, by which edges and underlay.

An :class:`Upheaval` is a history that one number determines: one act after the other, drawn by chance, each of which
the authority may refuse. After every act :meth:`Upheaval.holds` says what must be so whatever has happened; at the end
:meth:`Upheaval.calm` lets all faults be over, and then everybody must reach everybody.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from aftermath import OFFICE, UNDERLAY, Aftermath
from l3town import SIR, VNI, Layer3
from outside import GATEWAY, ROUTER, locator, packet
from tried import TRIED, fault
from world import Box, ip, mac

from ryu_vmm import events as ev
from ryu_vmm.flows import Flow, FlowChange
from ryu_vmm.model import (
    Addressing,
    Admit,
    Allowed,
    Answer,
    Distribution,
    Interface,
    Kind,
    Leave,
    Move,
    MoveState,
    Network,
    Nve,
    Place,
    Policy,
    Subnet,
    Trust,
)
from ryu_vmm.wire import frames

EDGES, TASKS = 4, 6
VIP = ip("10.9.0.200")
#: What families the edges' underlay addresses are of: all the same, or each its own.
FAMILIES = (46, 46, 4, 6, (46, 4, 46, 46), (46, 46, 6, 6))


class Upheaval(Aftermath):
    """A history of a layer 3 network ``tasks`` and one of Ethernet, ``office``, that a router may join.

    Args:
        seed: determines all that happens.

    Attributes:
        acts: what was done so far.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        pick = self.dice.choice
        leave = Leave(pick(list(Answer)), pick([2, 60]))
        router, meters = pick([False, False, True]), pick([True, True, True, False])
        self.w = Layer3(EDGES, leave, family=pick(FAMILIES), router=router, meters=meters)
        self.registered: dict[str, Nve] = {name: box.nve for name, box in self.w.boxes.items()}
        self.tasks = self.w.tasks
        gateway = GATEWAY._replace(ipv4=ip("10.9.0.254"), ipv6=ip("2001:db8:9::fe"))
        self.office = Network("office", OFFICE, gateway=gateway, router="r")
        self.w.handle(ev.NetworkSubmitted(self.office))
        self.acts: list[str] = []
        self.chances: dict[Callable[[], None], int] = {
            self.register: 5, self.withdraw_task: 1, self.move: 5, self.go_on: 12, self.announce: 5, self.send: 4,
            self.withdraw_edge: 2, self.bring_back: 3, self.change_edge: 2, self.change_subnets: 1,
            self.change_policy: 1, self.change_office: 1, self.change_ports: 3, self.lose_connection: 2,
            self.expire: 1, self.evacuate: 1, self.end_evacuation: 1, self.restart: 1, self.pass_time: 6,
            self.hold_barriers: 1, self.fall_silent: 1,
        }  # fmt: skip
        TRIED["examples"] += 1

    def edge(self) -> str:
        return f"n{self.dice.randint(1, EDGES)}"

    def box(self) -> Box:
        return self.w.boxes[self.edge()]

    def someone(self) -> Interface | None:
        """A registered interface by chance."""
        known = sorted(self.w.nva.state.interfaces)
        return self.w.nva.state.interfaces[self.dice.choice(known)] if known else None

    def act(self) -> None:
        """Do one thing."""
        chosen = self.dice.choices(list(self.chances), list(self.chances.values()))[0]
        self.acts.append(chosen.__name__)
        self.w.storm = 0
        TRIED["steps"] += 1
        chosen()

    # --- tasks --------------------------------------------------------------------------------------------------------
    def register(self) -> None:
        """A task is registered, or once more with other addresses, places, or another place to be."""
        n, at, host = self.dice.randint(1, TASKS), self.edge(), self.dice.randint(1, 9)
        whose = self.dice.choice([at[1:], str(self.dice.randint(1, EDGES))])
        own = [ip(f"2001:db8:1:{whose}::{host}"), SIR + self.dice.randint(1, 9).to_bytes(8, "big")]
        others = self.dice.sample(range(1, EDGES + 1), self.dice.choice([0, 0, 2, EDGES]))
        task = Interface(
            f"t{n}/eth0", f"t{n}", "eth0", VNI, mac(n), (ip(f"10.1.{whose}.{host}"),),
            tuple(self.dice.sample(own, self.dice.randint(0, 2))), Place(at, f"tap-t{n}"),
            attachments=tuple(Place(f"n{k}", f"tap-t{n}") for k in others),
            dns=self.dice.choice([None, "tasks.example"]),
        )  # fmt: skip
        desk = Interface(
            f"t{n}/eth1", f"t{n}", "eth1", OFFICE, mac(100 + n), (ip(f"10.9.0.{n}"),), (ip(f"2001:db8:9::{n}"),),
            Place(at, f"tap2-t{n}"), shared=self.dice.choice([(), (VIP,)]),
        )  # fmt: skip
        both = (task, desk) if self.dice.random() < 0.3 else (task,)
        if not self.ask(ev.VmSubmitted(f"t{n}", both, leave=self.dice.choice([None, None, Leave(Answer.FORWARD, 5)]))):
            return
        state = self.w.nva.state
        for i in state.vms[f"t{n}"].interfaces:
            place = state.interfaces[i].location
            if self.w.boxes[place.nve].connected and place.port not in self.w.boxes[place.nve].ports:
                self.w.plug(*place)

    def withdraw_task(self) -> None:
        found = self.someone()
        if found is not None:
            self.ask(ev.VmWithdrawn(found.vm))

    def move(self) -> None:
        found = self.someone()
        if found is not None:
            kind, address = self.dice.choice([Kind.HOT, Kind.HOT, Kind.COLD]), self.dice.choice(list(Addressing))
            self.ask(ev.MoveRequested(found.vm, self.edge(), kind, address=address))

    def go_on(self) -> None:
        """Somebody who moves a task does the next thing, or gives up."""
        moves = list(self.w.nva.state.open_moves())
        if not moves:
            return self.move()
        move, chance = self.dice.choice(moves), self.dice.random()
        if chance < 0.1:
            fault("abort", self.w.nva.state)
            self.ask(ev.AbortRequested(move.id))
        elif move.state is MoveState.PREPARED or chance < 0.3:
            self.ask(ev.RedirectRequested(move.id))
        if chance > 0.5:
            self.w.advance(0.1)
            self.arrive(move)
        return None

    def arrive(self, move: Move) -> None:
        """The task's ports are there at its destination; mostly it runs, and they go at its source."""
        for leg in move.legs:
            box = self.w.boxes[leg.dst.nve]
            if box.connected and leg.dst.port not in box.ports:
                self.w.plug(*leg.dst)
        if self.dice.random() < 0.3 or not self.ask(ev.ActivationReported(move.id)):
            return
        for leg in move.legs if self.w.current(move).state.steered else ():
            box = self.w.boxes[leg.src.nve]
            if box.connected and leg.src.port in box.ports and leg.src not in self.w.nva.state.by_place:
                self.w.unplug(*leg.src)

    # --- packets ------------------------------------------------------------------------------------------------------
    def announce(self) -> None:
        """An announcement from a port that is a task's, wherever that is."""
        found, box = self.someone(), self.box()
        port = None if found is None else found.location.port
        if found is None or port not in box.ports:
            return
        own = [*found.ipv4, *found.ipv6, *found.shared]
        address = self.dice.choice(own) if own else None
        frame = frames.build_rarp_request(found.mac)
        if address is not None:
            build = frames.build_garp if len(address) == 4 else frames.build_unsolicited_na
            frame = build(found.mac, address)
        self.w.send(box.nve.name, found.location.port, frame)

    def send(self) -> None:
        a, b = self.someone(), self.someone()
        if a is None or b is None or a is b or a.location.port not in self.w.boxes[a.location.nve].ports:
            return
        dst = self.dice.choice([*b.ipv4, *b.ipv6, ip("10.1.1.99")])
        for src in (a.ipv4 if len(dst) == 4 else a.ipv6)[:1]:
            self.w.send(*a.location, packet(src, dst, a.mac))

    def expire(self) -> None:
        """Flows that nobody uses go by themselves."""
        for box in self.w.boxes.values():
            for flow in [f for f in box.tables.flows if f.idle_timeout and box.connected and self.dice.random() < 0.5]:
                self._gone(box, flow)

    def _gone(self, box: Box, flow: Flow) -> None:
        box.tables.change(FlowChange("delete", flow), self.w.now)
        self.w.handle(ev.FlowExpired(box.nve.dpid, flow))

    # --- edges --------------------------------------------------------------------------------------------------------
    def withdraw_edge(self) -> None:
        fault("NVE withdrawn", self.w.nva.state)
        self.ask(ev.NveWithdrawn(self.edge()))

    def bring_back(self) -> None:
        """An edge is registered as it was at first, withdrawn or not."""
        self.submit(self.registered[self.edge()])

    def change_edge(self) -> None:
        """Other underlay addresses, locator, ports, way to other locators, or one less of them."""
        nve = self.w.nva.state.nves.get(self.edge())
        if nve is None:
            return
        fault("edge changed", self.w.nva.state)
        n = nve.dpid
        other = ip(f"192.168.100.{n + self.dice.choice([0, 70, 80])}")
        changes: list[dict[str, object]] = [
            {"ipv4": other if nve.ipv4 else None}, {"ipv4": None}, {"ipv4": ip(f"192.168.100.{n}")},
            {"ipv6": ip(f"fd00:100::{n + 16:x}") if nve.ipv6 else None}, {"ila_port": None}, {"routed_port": None},
            {"routed_port": "gre"}, {"next_hop": self.dice.choice([None, ROUTER, ip("fd00:100::ee")])},
            {"locator": self.dice.choice([None, locator(n), locator(n + 20)])},
        ]  # fmt: skip
        self.submit(replace(nve, **self.dice.choice(changes)))  # type: ignore[arg-type]

    def change_ports(self) -> None:
        """A port goes or comes: to a task, or to the underlay."""
        box = self.box()
        if not box.connected:
            return
        fault("port comes or goes", self.w.nva.state)
        if box.ports and self.dice.random() < 0.5:
            self.w.unplug(box.nve.name, self.dice.choice(sorted(box.ports)))
        else:
            self.plug(box, self.dice.choice([*UNDERLAY, *(f"tap-t{n}" for n in range(1, TASKS + 1))]))

    def lose_connection(self) -> None:
        """An edge's connection goes, perhaps with its tables; or comes back."""
        box = self.box()
        fault("control channel lost or back", self.w.nva.state)
        if not box.connected:
            self.w.connect(box.nve.name)
        elif self.dice.random() < 0.4:
            self.w.lose_tables(box.nve.name)
            box.tables.meter_rate = self.w.nva.meter_rate
        else:
            self.w.disconnect(box.nve.name)

    def hold_barriers(self) -> None:
        """An edge confirms nothing for a while, or all that it has not."""
        name = self.edge()
        if name in self.w.hold_barriers:
            self.w.release(name)
        else:
            self.w.hold_barriers.add(name)

    def fall_silent(self) -> None:
        """What is behind an edge's port to the underlay does not answer, or does again."""
        self.w.underlay.silent ^= {self.edge()}

    # --- networks -----------------------------------------------------------------------------------------------------
    def change_subnets(self) -> None:
        """Other subnets; with or without the router, and ILA."""
        chosen = self.dice.sample(range(1, EDGES + 1), self.dice.randint(1, EDGES))
        four = (Subnet(ip(f"10.1.{n}.0"), 24, f"n{n}") for n in chosen)
        six = (Subnet(ip(f"2001:db8:1:{n}::"), 64, f"n{n}") for n in chosen)
        router, sir = self.dice.choice([None, None, "r"]), self.dice.choice([SIR, SIR, None])
        self._network(replace(self.tasks, subnets=(*four, *six), router=router, sir=sir))

    def change_policy(self) -> None:
        self._network(replace(self.tasks, policy=self.policy(self.tasks.policy)))  # layer 3 is never pulled

    def change_office(self) -> None:
        router, pull = self.dice.choice(["r", "r", None]), self.dice.choice(list(Distribution))
        policy = replace(self.policy(self.office.policy), distribution=pull)
        self._network(replace(self.office, policy=policy, router=router))

    def policy(self, was: Policy) -> Policy:
        pick = self.dice.choice
        return replace(
            was, announcements=pick(list(Trust)), admit=pick(list(Admit)), mtu=pick([1450, 1300]),
            allow=pick([(), (Allowed.FORWARD,)]), leave=Leave(pick(list(Answer)), pick([2, 60])),
        )  # fmt: skip

    # --- the authority ------------------------------------------------------------------------------------------------
    def evacuate(self) -> None:
        fault("evacuation", self.w.nva.state)
        to = () if self.dice.random() < 0.5 else (self.edge(),)
        self.ask(ev.EvacuationRequested(self.edge(), to, self.dice.choice([Kind.HOT, Kind.COLD]), 2, 2))

    def end_evacuation(self) -> None:
        for number in list(self.w.nva.state.unfinished.values()):
            self.ask(ev.EvacuationCancelled(number, abort=self.dice.random() < 0.5))

    def restart(self) -> None:
        fault("NVA killed", self.w.nva.state)
        self.w.kill()
        self.w.start()

    def pass_time(self) -> None:
        self.w.advance(self.dice.choice([0.1, 0.5, 3.0, 12.0, 70.0]), step=0.2)


def lived(seed: int, acts: int, after: Callable[[Upheaval], None] | None = None) -> Upheaval:
    """Live through a history of so many acts; ``after``: what is done after each of them."""
    world = Upheaval(seed)
    for _ in range(acts):
        world.act()
        world.holds()
        if after is not None:
            after(world)
    world.calm()
    world.over()
    world.everybody_reaches_everybody()
    world.same_after_restart()
    return world
