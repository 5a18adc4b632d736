"""A world for the core: switches made of tables, an underlay that delivers at once, a clock that tests move.

What the NVA asks for is carried out on our emulated tables, so a test injects a frame at a port and asks at which
ports of which NVEs it comes out, whatever messages made it so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from outside import ILA, ROUTED, ROUTER, ROUTER_MAC, TUNNEL, ip, mac, ports_of, tables, with_layer3
from tried import TRIED

from ryu_vmm import events as ev
from ryu_vmm.effects import Answer, Effect, Program, ReadFlows, ReadMeters, ReadPorts, Report, SendPacket
from ryu_vmm.emulation.fabric import outer_mac
from ryu_vmm.emulation.rules import Refused
from ryu_vmm.emulation.tables import Out, Tables
from ryu_vmm.emulation.tables import ToNva as Handed
from ryu_vmm.emulation.underlay import Underlay
from ryu_vmm.flows import Flow
from ryu_vmm.model import PROBE_PROTOCOL, Interface, Kind, Move, Network, Nve, Place, Policy
from ryu_vmm.nva import Nva, Settings
from ryu_vmm.pipeline import desired
from ryu_vmm.store import MemoryStore
from ryu_vmm.tables import COOKIE_MASK, COOKIE_OURS
from ryu_vmm.wire import frames

_PROBE = bytes([PROBE_PROTOCOL])


@dataclass
class Box:
    """One emulated switch."""

    nve: Nve
    tables: Tables = field(default_factory=tables)
    ports: dict[str, int] = field(default_factory=dict)
    connected: bool = False
    held_barriers: list[int] = field(default_factory=list)
    inbox: deque[Effect] = field(default_factory=deque)
    next_number: int = 10
    former: set[bytes] = field(default_factory=set)  # underlay addresses that it had

    def number(self, port: str) -> int:
        """The number of a port, given when it first appears and never to another one."""
        if port not in self.ports:
            self.ports[port] = self.next_number
            self.next_number += 1
        return self.ports[port]


class World:
    """NVEs n1..nN on one underlay, driven by a real Nva.

    ``family``: underlay addresses that they have, 4, 6 or 46 for both; a tuple has one for each. ``layer3``: they have
    ports for tunnels without Ethernet headers and, where the underlay is of IPv6, locators and a port for ILA, which
    lead by way of a router if there is a ``router``.

    Attributes:
        out: (NVE, port name, frame) of every frame that left by a port, in order.
        hold_barriers: NVEs whose barrier replies wait until ``release`` is called.
        vague: NVEs whose errors do not say which flow they are about.
        late: NVEs that what is sent to does not reach yet; ``land`` lets it arrive, in order.
        underlay: what is outside of the NVEs' ports for ILA, by their names.
    """

    def __init__(
        self,
        nves: int = 3,
        family: int | tuple[int, ...] = 4,
        settings: Settings | None = None,
        meters: bool = True,
        layer3: bool = False,
        router: bool = False,
    ) -> None:
        self.now = 1000.0
        self.underlay: Underlay[str] = Underlay()
        self.underlay.reaches = lambda a, b: (a, b) not in self.cut
        if router:
            self.underlay.route("router", ROUTER_MAC, ROUTER)
        self.meters = meters
        self.nva = Nva(settings)
        self.store = MemoryStore()
        self.boxes: dict[str, Box] = {}
        self.out: list[tuple[str, str, bytes]] = []
        self.reports: list[tuple[str, dict[str, object]]] = []
        self.answers: dict[str, object] = {}
        self.hold_barriers: set[str] = set()
        self.late: set[str] = set()
        self.vague: set[str] = set()
        self.cut: set[tuple[str, str]] = set()  # (from, to) pairs whose underlay path is down
        self.storm = 0
        self.carried = b""  # the frame that came out of a tunnel last
        self.tunnels = 0  # the most that any frame has crossed so far
        self._events: deque[ev.Event] = deque()
        self._running = False
        for n in range(1, nves + 1):
            only = family if isinstance(family, int) else family[n - 1]
            nve = Nve(
                f"n{n}",
                n,
                ip(f"192.168.100.{n}") if only != 6 else None,
                ip(f"fd00:100::{n}") if only != 4 else None,
            )
            if layer3:
                nve = with_layer3(nve, router)
            self.boxes[nve.name] = Box(nve, ports=ports_of(nve))
            if nve.locator is not None and nve.ipv6 is not None:
                self.underlay.join(nve.name, outer_mac(n), nve.ipv6, nve.locator)
            self.boxes[nve.name].tables.meter_rate = self.nva.meter_rate
            self.handle(ev.NveSubmitted(nve))
            self.connect(nve.name)

    # --- set-up -------------------------------------------------------------------------------------------------------
    def connect(self, name: str) -> None:
        box = self.boxes[name]
        box.connected = True
        ports = tuple(ev.PortInfo(number, port, True) for port, number in box.ports.items())
        self.handle(ev.NveConnected(box.nve.dpid, ports, meters=262144 if self.meters else 0))

    def disconnect(self, name: str) -> None:
        self.boxes[name].connected = False
        self.boxes[name].inbox.clear()
        self.handle(ev.NveDisconnected(self.boxes[name].nve.dpid))

    def kill(self) -> None:
        """The NVA dies: nobody answers, and switches forward as last told. What was under way to them is lost."""
        for box in self.boxes.values():
            box.connected = False
            box.inbox.clear()
            box.held_barriers.clear()
        self._events.clear()

    def start(self, *nves: str) -> None:
        """The NVA starts again from its records, and NVEs come back in this order (default: all)."""
        self.nva = Nva(self.nva.settings)
        for effect in self.nva.restore(list(self.store.load()), self.now).effects:
            self._carry_out(effect)
        for name in nves or tuple(self.boxes):
            self.connect(name)

    def lose_tables(self, name: str) -> None:
        """A switch restarts: its flows and meters are gone, and its connection with them."""
        self.disconnect(name)
        self.boxes[name].tables = tables()

    def network(self, name: str = "blue", vni: int = 100, policy: Policy | None = None) -> Network:
        network = Network(name, vni, policy or Policy())
        self.handle(ev.NetworkSubmitted(network))
        return network

    def vm(
        self, n: int, nve: str, vni: int = 100, port: bool = True, name: str = "", attachments: tuple[Place, ...] = ()
    ) -> Interface:
        """VM vm<n> with MAC 02::n, 10.0.0.n and 2001:db8::n on an NVE; its port is there unless told otherwise."""
        name = name or f"vm{n}"
        interface = Interface(
            f"{name}/eth0",
            name,
            "eth0",
            vni,
            mac(n),
            (ip(f"10.0.0.{n}"),),
            (ip(f"2001:db8::{n}"),),
            Place(nve, f"tap-{name}"),
            attachments=attachments,
        )
        self.handle(ev.VmSubmitted(name, (interface,)))
        if port:
            self.plug(nve, f"tap-{name}")
        return interface

    def plug(self, nve: str, port: str) -> None:
        box = self.boxes[nve]
        number = box.number(port)
        self.handle(ev.PortChanged(box.nve.dpid, ev.PortInfo(number, port, True)))

    def unplug(self, nve: str, port: str) -> None:
        box = self.boxes[nve]
        number = box.ports.pop(port)
        self.handle(ev.PortChanged(box.nve.dpid, ev.PortInfo(number, port, True), gone=True))

    # --- the loop -----------------------------------------------------------------------------------------------------
    def handle(self, event: ev.Event) -> object:
        """Give the core an event and carry out all that follows."""
        reply = self._step(event)
        self._pump()
        return reply

    def _pump(self) -> None:
        """Let the core have all that switches have said meanwhile."""
        if not self._running:
            self._running = True
            try:
                while self._events:
                    self._step(self._events.popleft())
            finally:
                self._running = False

    def _step(self, event: ev.Event) -> object:
        outcome = self.nva.handle(event, self.now)
        self.store.commit(outcome.records)
        for effect in outcome.effects:
            self._carry_out(effect)
        return outcome.reply

    def _reply(self, box: Box, event: ev.Event) -> None:
        """A switch has something to say to the NVA."""
        self._events.append(event)

    def _box(self, dpid: int) -> Box:
        return next(b for b in self.boxes.values() if b.nve.dpid == dpid)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Report(kind, fields):
                self.reports.append((kind, fields))
            case Answer(token, value):
                self.answers[token] = value
            case Program() | ReadFlows() | ReadMeters() | ReadPorts() | SendPacket():
                box = self._box(effect.dpid)
                if box.nve.name in self.late:
                    box.inbox += self._pieces(effect)
                else:
                    self._at_switch(effect)

    def _pieces(self, effect: Effect) -> list[Effect]:
        """A program is many messages, each of which may be the last to have arrived when a packet comes."""
        if not isinstance(effect, Program):
            return [effect]
        single: list[Effect] = [Program(effect.dpid, 0, (change,)) for change in effect.changes]
        return [*single, Program(effect.dpid, effect.generation, ())]

    def _at_switch(self, effect: Effect) -> None:
        match effect:
            case Program(dpid, generation, changes):
                box = self._box(dpid)
                for change in changes:
                    try:
                        box.tables.change(change, self.now)
                    except Refused as error:
                        about = () if box.nve.name in self.vague else (change.flow.cookie, change)
                        self._reply(box, ev.FlowRefused(dpid, generation, error.type, error.code, *about))
                if not generation:
                    return
                if box.nve.name in self.hold_barriers:
                    box.held_barriers.append(generation)
                elif box.connected:
                    self._reply(box, ev.BarrierReplied(dpid, generation))
            case ReadFlows(dpid, token, cookie, mask, _, generation):
                box = self._box(dpid)
                found = tuple(e.stats(self.now) for e in box.tables.select(cookie=cookie, cookie_mask=mask))
                if box.connected:
                    self._reply(box, ev.FlowsRead(dpid, token, found, generation))
            case ReadMeters(dpid, token):
                box = self._box(dpid)
                if box.connected:
                    self._reply(box, ev.MetersRead(dpid, token, dict(box.tables.meters)))
            case ReadPorts(dpid, token, port):
                box = self._box(dpid)
                if box.connected:
                    self._reply(box, ev.PortsRead(dpid, token, box.tables.traffic.read(box.ports.values(), port)))
            case SendPacket(dpid, actions, frame, in_port):
                box = self._box(dpid)
                self._emit(box, box.tables.execute(actions, frame, in_port=in_port, now=self.now))

    def release(self, name: str) -> None:
        """Let an NVE's held barrier replies come."""
        box = self.boxes[name]
        self.hold_barriers.discard(name)
        held, box.held_barriers = box.held_barriers, []
        for generation in held:
            self.handle(ev.BarrierReplied(box.nve.dpid, generation))

    def land(self, name: str, count: int | None = None) -> None:
        """Let the first ``count`` messages to an NVE arrive there (None: all, and from now on at once)."""
        box = self.boxes[name]
        if count is None:
            self.late.discard(name)
        for _ in range(len(box.inbox) if count is None else min(count, len(box.inbox))):
            if box.inbox:  # what arrives may make the NVA send more, or the connection end
                self._at_switch(box.inbox.popleft())
        self._pump()

    def land_any(self, name: str, index: int) -> None:
        """Let a message to an NVE arrive before others: a switch may, up to the next barrier (section 6.1.3)."""
        inbox = self.boxes[name].inbox
        barrier = next((n for n, e in enumerate(inbox) if isinstance(e, Program) and not e.changes), len(inbox))
        if inbox:
            at = index % barrier if barrier else 0
            effect = inbox[at]
            del inbox[at]
            self._at_switch(effect)
        self._pump()

    def advance(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass, with every deadline on the way."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            self.storm = 0
            self.handle(ev.TimePassed())

    # --- traffic ------------------------------------------------------------------------------------------------------
    def send(self, nve: str, port: str, frame: bytes) -> list[tuple[str, str]]:
        """Inject a frame at a VM's port; where it came out, as (NVE, port name)."""
        TRIED["frames"] += 1
        before = len(self.out)
        box = self.boxes[nve]
        self.storm = 0
        self._emit(box, box.tables.run(frame, in_port=box.ports[port], now=self.now), box.ports[port])
        self._pump()
        return [(n, p) for n, p, _ in self.out[before:]]

    def _emit(
        self, box: Box, results: list[object], in_port: int = 0, crossed: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """What comes out of a switch goes on; ``crossed``: the tunnels that it came by, as (from, to)."""
        names = {number: port for port, number in box.ports.items()}
        for result in results:
            if isinstance(result, Out) and result.port == ILA:
                for name, frame in self.underlay.send(box.nve.name, result.frame):
                    more = ((box.nve.name, name),) if name != box.nve.name else ()  # else an answer to itself
                    self._come_in(self.boxes[name], ILA, result, frame, crossed + more)
            elif isinstance(result, Out) and result.port not in (TUNNEL, ROUTED):
                if result.port in names:  # else it has gone, and the switch's flows do not know yet
                    self.out.append((box.nve.name, names[result.port], result.frame))
            elif isinstance(result, Out):
                peer = next((b for b in self.boxes.values() if result.tun_dst in (b.nve.ipv4, b.nve.ipv6)), None)
                former = {address for b in self.boxes.values() for address in b.former}
                if peer is None or result.tun_src not in (box.nve.ipv4, box.nve.ipv6):
                    assert {result.tun_src, result.tun_dst} & former, f"tunnel from or to nowhere: {result}"
                    continue
                pair = (box.nve.name, peer.nve.name)
                if pair not in self.cut:
                    self._come_in(peer, result.port, result, result.frame, (*crossed, pair))
            elif isinstance(result, Handed) and box.connected:
                source = None
                for field_name, width in (("tun_ipv4_src", 4), ("tun_ipv6_src", 16)):
                    if field_name in result.context:
                        source = result.context[field_name].to_bytes(width, "big")
                handed = ev.PacketSeen(
                    box.nve.dpid, result.in_port or in_port, result.cookie or 0, result.frame, source
                )
                self._reply(box, handed)

    def _come_in(self, box: Box, port: int, sent: Out, frame: bytes, crossed: tuple[tuple[str, str], ...]) -> None:
        """A frame comes out of the underlay by a port of a switch, if it is there."""
        if port != TUNNEL and port not in box.ports.values():
            return
        self.storm += not _is_probe(frame)
        assert self.storm < 1000 and len(set(crossed)) == len(crossed), f"packets go round: {crossed}"
        self.tunnels = max(self.tunnels, len(crossed))
        self.carried = frame
        told = (None, None, None) if port == ILA else (sent.tun_id, sent.tun_src, sent.tun_dst)
        self._emit(box, box.tables.run(frame, port, *told, now=self.now), port, crossed)

    # --- asking -------------------------------------------------------------------------------------------------------
    def installed(self, name: str) -> dict[object, Flow]:
        """Our flows of an NVE, by key."""
        flows = self.boxes[name].tables.flows
        return {flow.key: flow for flow in flows if flow.cookie & COOKIE_MASK == COOKIE_OURS}

    @property
    def deadlines(self) -> dict[tuple[str, object], float]:
        """What the NVA waits for, but for the next turn of proving tunnels, which never ends."""
        return {key: at for key, at in self.nva.state.clock.items() if key[0] != "tunnels"}

    def differences(self) -> list[str]:
        """What any connected, synced NVE holds that it should not, or the other way round."""
        found = []
        for name, session in self.nva.state.sessions.items():
            if not session.synced:
                continue
            wanted, have = desired(self.nva.state, name), self.installed(name)
            found += [f"{name} lacks {wanted[k]}" for k in wanted if have.get(k) != wanted[k]]
            found += [f"{name} has {have[k]}" for k in have if k not in wanted]
        return found

    def move(self, vm: str, to: str, kind: Kind = Kind.HOT) -> Move:
        move, _ = self.handle(ev.MoveRequested(vm, to, kind))  # type: ignore[misc]
        return self.nva.state.moves[move.id]

    def current(self, move: Move) -> Move:
        return self.nva.state.moves[move.id]


def unicast(src: int, dst: int, payload: bytes = b"x" * 20) -> bytes:
    """An IPv4/UDP frame from vm<src> to vm<dst>."""
    udp = b"\x10\0\x10\0" + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
    head = b"\x45\0" + (20 + len(udp)).to_bytes(2, "big") + b"\0\0\0\0\x40\x11\0\0"
    return mac(dst) + mac(src) + b"\x08\0" + head + ip(f"10.0.0.{src}") + ip(f"10.0.0.{dst}") + udp


def _is_probe(frame: bytes) -> bool:
    """Whether a frame proves a path: there are ever more of these as time passes."""
    return frame[12:14] == frames.ETH_PROBE or (frame[12:14] == frames.ETH_IPV6 and frame[20:21] == _PROBE)


def broadcast(src: int) -> bytes:
    """A broadcast IPv4/UDP frame from vm<src>."""
    return b"\xff" * 6 + unicast(src, 255)[6:]


def arp(src: int, dst: int) -> bytes:
    return frames.build_arp_request(mac(src), ip(f"10.0.0.{src}"), ip(f"10.0.0.{dst}"))


__all__ = ["COOKIE_MASK", "ILA", "ROUTED", "TUNNEL", "World", "arp", "broadcast", "ip", "mac", "unicast"]
