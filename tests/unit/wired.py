"""A core, its connections and emulated switches: every message waits on its wire until a test lets it arrive.

Nothing is left out but sockets: what a switch says is bytes, taken in by the connection that a real one has, and what
it refuses it refuses as Open vSwitch does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from datapaths import Nowhere, ready, speaks_13
from ryu.controller.handler import MAIN_DISPATCHER
from world import ip, mac

from ryu_vmm import events as ev
from ryu_vmm.effects import Answer, ReadFlows, ReadMeters, Report
from ryu_vmm.emulation.meters import Meters as SwitchMeters
from ryu_vmm.emulation.switch import Switch
from ryu_vmm.flows import Flow, FlowKey, Meter
from ryu_vmm.model import Interface, Network, Nve, Place, Policy
from ryu_vmm.nva import Nva, Settings
from ryu_vmm.pipeline import desired
from ryu_vmm.southbound.board import Switchboard
from ryu_vmm.southbound.datapath import VmmDatapath
from ryu_vmm.tables import COOKIE_MASK, COOKIE_OURS, COOKIE_WHY_MASK, Why, cookie
from ryu_vmm.wire import agent, base
from ryu_vmm.wire.openflow import PacketIn

TUNNEL = "vxlan"


def messages(buf: bytes) -> list[bytes]:
    """The OpenFlow messages in some bytes."""
    found, at = [], 0
    while at < len(buf):
        size = buf[at + 2] << 8 | buf[at + 3]
        found.append(buf[at : at + size])
        at += size
    return found


def meter_of(flow: Flow) -> int | None:
    """The meter that a flow uses."""
    return flow.actions[0].id if flow.actions and isinstance(flow.actions[0], Meter) else None


class Wire:
    """A switch, its connection, and what is on its way between them.

    Attributes:
        down, up: messages to the switch and from it.
        unfit: deletions of meters that flows used at that moment, and meters and flows that were made although they
            were there.
    """

    def __init__(self, board: Switchboard, nve: Nve) -> None:
        self.nve = nve
        self.switch = Switch(nve.dpid, ports=(TUNNEL,))
        self.session = self.switch.connect()
        self.session.ready = True
        self.down: deque[bytes] = deque()
        self.up: deque[bytes] = deque()
        self.unfit: list[str] = []
        ready()
        kind = type("Wired", (VmmDatapath,), {"board": board})
        self.path: VmmDatapath = kind(Nowhere(), ("192.0.2.1", 6653))
        self.path.id = nve.dpid
        self.path._ports_told = list(self.switch.ports.values())
        speaks_13(self.path)
        self.path.set_state(MAIN_DISPATCHER)
        self.session.out.clear()

    @property
    def meters(self) -> SwitchMeters:
        assert self.switch.meters is not None
        return self.switch.meters

    def flows(self) -> dict[FlowKey, Flow]:
        """Our flows that the switch holds."""
        ours = self.switch.tables.select(cookie=COOKIE_OURS, cookie_mask=COOKIE_MASK)
        return {entry.flow.key: entry.flow for entry in ours}

    def send(self, count: int, now: float) -> bool:
        """Let so many messages arrive at the switch; whether any did."""
        while data := self.path._outbox.take():
            self.down.extend(messages(data))
        arrived = [self.down.popleft() for _ in range(min(count, len(self.down)))]
        for message in arrived:
            if message[1] == base.METER_MOD:
                self._look(message)
            elif message[1] == base.FLOW_MOD:
                self._compare(message)
            self.session.receive(message, now)
        for data in self.session.out:
            self.up.extend(messages(data))
        self.session.out.clear()
        return bool(arrived)

    def _look(self, message: bytes) -> None:
        command, meter = message[9], int.from_bytes(message[12:16], "big")
        used = [flow for flow in self.flows().values() if meter_of(flow) == meter]
        if command == 2 and used:
            self.unfit.append(f"meter {meter} is removed while it is used by {used}")
        if command == 0 and meter in self.meters._made:
            self.unfit.append(f"meter {meter} is made though it is there")

    def _compare(self, message: bytes) -> None:
        mod = agent.decode_flow_mod(message)
        if mod.command == base.FC_ADD and self.flows().get(mod.flow.key) == mod.flow:
            self.unfit.append(f"{mod.flow} is added again")

    def hear(self, count: int) -> bool:
        """Let so many messages of the switch arrive; whether any did."""
        arrived = [self.up.popleft() for _ in range(min(count, len(self.up)))]
        for message in arrived:
            self.path.take_in(message)
        return bool(arrived)


class Wired:
    """VMs vm1 and so on, each with a port on both of two NVEs, and the wires to these.

    Attributes:
        refused: refusals that the core has heard of; reports: kinds of what it has reported.
    """

    def __init__(self, vms: int = 2, settings: Settings | None = None) -> None:
        self.now = 1000.0
        self.nva = Nva(settings or Settings(flap_moves=1 << 30))
        self.refused: list[ev.FlowRefused] = []
        self.answers: dict[str, object] = {}
        self.reports: list[str] = []
        self.board = Switchboard(self, meter_rate=self.nva.meter_rate)
        self.wires: dict[str, Wire] = {}
        for n in (1, 2):
            nve = Nve(f"n{n}", n, ip(f"192.168.100.{n}"))
            self.event(ev.NveSubmitted(nve))
            self.wires[nve.name] = Wire(self.board, nve)
        self.event(ev.NetworkSubmitted(Network("blue", 100, Policy())))
        self.settle()
        for n in range(1, vms + 1):
            self.register(n)
            for name in self.wires:
                self.plug(name, n)
        self.settle()

    # --- the sink of the switchboard ----------------------------------------------------------------------------------
    def event(self, event: ev.Event) -> None:
        if isinstance(event, ev.FlowRefused):
            self.refused.append(event)
        self._carry_out(self.nva.handle(event, self.now).effects)

    def packets(self, dpid: int, batch: Sequence[PacketIn]) -> list[bytes]:
        for packet in batch:
            self.event(ev.PacketSeen(dpid, packet.in_port, packet.cookie, packet.frame, packet.tun_src))
        return []

    def shed(self, dpid: int, packets: dict[int | None, int]) -> None:
        raise AssertionError(f"{packets} shed")

    def admits(self, dpid: int, names: tuple[str, ...] | None) -> bool:
        return True

    def _carry_out(self, effects: Sequence[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Answer):
                self.answers[effect.token] = effect.value
            elif isinstance(effect, Report):
                self.reports.append(effect.kind)
            else:
                self.board.execute(effect)

    # --- what happens -------------------------------------------------------------------------------------------------
    def plug(self, name: str, vm: int, up: bool = True) -> None:
        """A VM's port appears, or its link goes up or down."""
        self.wires[name].switch.set_port(f"tap-vm{vm}", up, self.now)
        self.wires[name].send(0, self.now)

    def register(self, vm: int, name: str = "n1") -> None:
        """A VM is at its port of an NVE."""
        at = (ip(f"10.0.0.{vm}"),), (), Place(name, f"tap-vm{vm}")
        self.event(ev.VmSubmitted(f"vm{vm}", (Interface(f"vm{vm}/eth0", f"vm{vm}", "eth0", 100, mac(vm), *at),)))

    def read(self, name: str) -> None:
        """Read our flows for whoever asks, and what was dropped and counted, as is done while all is well."""
        dpid = self.wires[name].nve.dpid
        self.board.execute(ReadFlows(dpid, "flows:1", COOKIE_OURS, COOKIE_MASK))
        self.board.execute(ReadFlows(dpid, f"drops:{name}", cookie(Why.DROP), COOKIE_WHY_MASK, audit=True))
        self.board.execute(ReadMeters(dpid, "ledger:1:redirect@n1"))

    def read_back(self, name: str) -> None:
        """Read all our flows of an NVE that stays in sync meanwhile."""
        self._carry_out(self.nva._step(self.now, lambda: self.nva._work.read_back(name)).effects)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.event(ev.TimePassed())

    def settle(self) -> None:
        """Let all messages arrive."""
        moved = True
        while moved:
            moved = False
            for wire in self.wires.values():
                moved |= wire.send(1 << 20, self.now)
                moved |= wire.hear(1 << 20)

    # --- what holds ---------------------------------------------------------------------------------------------------
    def differences(self) -> list[str]:
        """What a switch holds that it should not, the other way round, and where the books say otherwise."""
        found = []
        for name, wire in self.wires.items():
            if not self.nva.state.sessions[name].synced:
                found.append(f"{name} is not in sync")
                continue
            wanted, have = desired(self.nva.state, name), wire.flows()
            found += [f"{name} lacks {flow}" for key, flow in wanted.items() if have.get(key) != flow]
            found += [f"{name} has {flow}" for key, flow in have.items() if key not in wanted]
            books = wire.path._meters
            used = {key: meter_of(flow) for key, flow in have.items() if meter_of(flow) is not None}
            if books._used != used:
                found.append(f"{name}: users {books._used}, on the switch {used}")
            if set(books._there) != set(wire.meters._made):
                found.append(f"{name}: meters {sorted(books._there)}, on the switch {sorted(wire.meters._made)}")
        return found
