"""One emulated OpenFlow 1.3 switch: bytes from a controller in, bytes and frames out. No sockets, no clock.

A :class:`Switch` has ports, flow tables and one :class:`Session` for each controller it is connected to.
Its answers wait in ``Session.out`` until whoever owns the socket takes them; frames that leave it go to
``Switch.emit``. :class:`Faults` makes it misbehave on order.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ..errors import DecodeError
from ..events import PortInfo
from ..flows import TABLE, FlowStats, Output
from ..wire import agent
from ..wire import base as of
from .meters import Meters
from .rules import BAD_REQUEST, FLOW_MOD_FAILED, Refused
from .tables import Entry, Out, Result, Tables, ToNva

EQUAL, MASTER, SLAVE = 1, 2, 3
_MADE_BY = "ryu_vmm emulation"
_NO_GENERATION = (1 << 64) - 1


@dataclass(slots=True)
class Faults:
    """What a switch does wrong from now on. The counts run down to zero."""

    #: Seconds that everything sent to the controller waits; order is kept.
    reply_delay: float = 0.0
    #: So many barrier requests stay without an answer.
    drop_barriers: int = 0
    #: So many flow mods are answered with ``error`` (OpenFlow type, code) and not carried out.
    refuse_flow_mods: int = 0
    error: tuple[int, int] = (FLOW_MOD_FAILED, 1)  # table full
    #: The connection is closed once so many more messages have been read (None: it is not).
    close_after: int | None = None
    #: The first packet through the tunnel to each peer is lost, as while its link address is unresolved.
    lose_first: bool = False


@dataclass(slots=True)
class Barrier:
    """The last barrier that was answered; times as given to ``receive``."""

    count: int = 0
    at: float = 0.0
    flow_mods: int = 0  # that preceded it since the barrier before


class Session:
    """A switch's connection to one controller."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.out: list[bytes] = []
        self.role = EQUAL
        self.ready = False  # features were asked for and answered
        self.closing = False
        self.barrier = Barrier()
        self.on_barrier: Callable[[Session, float], None] | None = None
        self._delayed: deque[tuple[float, bytes]] = deque()
        self._rest = b""
        self._flow_mods = 0
        self._config = b"\0\0\0\x80"
        # masks of reasons that are reported to a (master or equal, slave); the defaults of section 6.3.5
        self._async = {
            of.PACKET_IN: (0b111, 0),
            of.PORT_STATUS: (0b111, 0b111),
            of.FLOW_REMOVED: (0b1111, 0),
        }
        self._handlers: dict[int, Callable[[bytes, int, float], None]] = {
            of.ECHO_REQUEST: self._echo,
            of.FEATURES_REQUEST: self._features,
            of.GET_CONFIG_REQUEST: lambda _, xid, now: self._reply(of.GET_CONFIG_REPLY, xid, now, self._config),
            of.SET_CONFIG: self._set_config,
            of.FLOW_MOD: self._flow_mod,
            of.METER_MOD: self._meter_mod,
            of.PACKET_OUT: self._packet_out,
            of.MULTIPART_REQUEST: self._multipart,
            of.BARRIER_REQUEST: self._barrier,
            of.ROLE_REQUEST: self._role,
            of.SET_ASYNC: self._set_async,
        }
        self.out.append(of.message(of.HELLO, 1, b"\0\1\0\x08\0\0\0\x10"))

    # --- bytes --------------------------------------------------------------------------------------------
    def receive(self, data: bytes, now: float) -> None:
        """Take what came from the controller, in pieces of any size; ``now``: seconds on a steady clock."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 8 and not self.closing:
            kind, size = data[at + 1], data[at + 2] << 8 | data[at + 3]
            if size < 8:
                self.closing = True  # framing is lost
                break
            if end - at < size:
                break
            self.message(kind, data[at : at + size], now)
            at += size
        self._rest = data[at:]

    def message(self, kind: int, message: bytes, now: float) -> None:
        """Take one whole message of type ``kind``."""
        self.switch.received[kind] += 1
        faults = self.switch.faults
        if faults.close_after is not None:
            faults.close_after -= 1
            if faults.close_after < 0:
                faults.close_after = None
                self.closing = True
                return
        handler = self._handlers.get(kind)
        if handler is None:
            if kind not in (of.HELLO, of.ERROR, of.ECHO_REPLY):
                self._error(BAD_REQUEST, 1, message, now)  # OFPBRC_BAD_TYPE
            return
        try:
            handler(message, int.from_bytes(message[4:8], "big"), now)
        except Refused as refused:
            self._error(refused.type, refused.code, message, now)
        except (DecodeError, struct.error):
            self._error(BAD_REQUEST, 6, message, now)  # OFPBRC_BAD_LEN

    def send(self, data: bytes, now: float) -> None:
        """Queue bytes for the controller; ``Switch.wake`` is told when the first of them waits."""
        if not self.out and not self._delayed:
            self.switch.wake(self)
        delay = self.switch.faults.reply_delay
        if delay or self._delayed:
            due = max(now + delay, self._delayed[-1][0] if self._delayed else 0.0)
            self._delayed.append((due, data))
        else:
            self.out.append(data)

    def wants(self, kind: int, reason: int) -> bool:
        """Whether this controller is to be told of something of this message type and reason."""
        return self.ready and bool(self._async[kind][self.role == SLAVE] >> reason & 1)

    def due(self, now: float) -> float | None:
        """Move to ``out`` what has waited long enough; when the next is due (None: nothing waits)."""
        while self._delayed and self._delayed[0][0] <= now:
            self.out.append(self._delayed.popleft()[1])
        return self._delayed[0][0] if self._delayed else None

    def _reply(self, kind: int, xid: int, now: float, body: bytes = b"") -> None:
        self.send(of.message(kind, xid, body), now)

    def _error(self, kind: int, code: int, message: bytes, now: float) -> None:
        self.switch.counts["errors"] += 1
        self.send(agent.encode_error(int.from_bytes(message[4:8], "big"), kind, code, message[:64]), now)

    # --- messages -----------------------------------------------------------------------------------------
    def _echo(self, message: bytes, xid: int, now: float) -> None:
        self._reply(of.ECHO_REPLY, xid, now, message[8:])

    def _features(self, _: bytes, xid: int, now: float) -> None:
        self.send(agent.encode_features_reply(xid, self.switch.dpid), now)
        self.ready = True

    def _set_config(self, message: bytes, _: int, __: float) -> None:
        self._config = message[8:12]

    def _set_async(self, message: bytes, _: int, __: float) -> None:
        masks = struct.unpack_from("!6I", message, 8)
        for kind, pair in zip((of.PACKET_IN, of.PORT_STATUS, of.FLOW_REMOVED), range(0, 6, 2), strict=True):
            self._async[kind] = masks[pair], masks[pair + 1]

    def _role(self, message: bytes, xid: int, now: float) -> None:
        role, generation = agent.decode_role_request(message)
        if role in (MASTER, SLAVE):
            known = self.switch.generation
            if known is not None and (generation - known) & (1 << 63):
                raise Refused("stale generation", 11, 0)  # OFPET_ROLE_REQUEST_FAILED, OFPRRFC_STALE
            self.switch.generation = generation
        if role == MASTER:
            for other in self.switch.sessions:
                if other is not self and other.role == MASTER:
                    other.role = SLAVE
        if role:
            self.role = role
        known = self.switch.generation
        self.send(agent.encode_role_reply(xid, self.role, _NO_GENERATION if known is None else known), now)

    def _flow_mod(self, message: bytes, _: int, now: float) -> None:
        self._master()
        self._flow_mods += 1
        faults = self.switch.faults
        if faults.refuse_flow_mods:
            faults.refuse_flow_mods -= 1
            raise Refused("on order", *faults.error)
        self.switch.flow_mod(message, now)

    def _meter_mod(self, message: bytes, _: int, now: float) -> None:
        self._master()
        self.switch.meter_mod(message, now)

    def _packet_out(self, message: bytes, _: int, now: float) -> None:
        self._master()
        packet = agent.decode_packet_out(message)
        self.switch.packet_out(packet, now)

    def _barrier(self, _: bytes, xid: int, now: float) -> None:
        if self.switch.faults.drop_barriers:
            self.switch.faults.drop_barriers -= 1
            return
        self.send(agent.encode_barrier_reply(xid), now)
        self.barrier.count += 1
        self.barrier.at = now
        self.barrier.flow_mods, self._flow_mods = self._flow_mods, 0
        if self.on_barrier is not None:
            self.on_barrier(self, now)

    def _multipart(self, message: bytes, xid: int, now: float) -> None:
        kind, _ = agent.decode_multipart_request(message)
        if kind == of.MP_PORT_DESC:
            self.send(agent.encode_port_desc_reply(xid, self.switch.ports.values()), now)
        elif kind == of.MP_FLOW:
            request = agent.decode_flow_stats_request(message)
            self.send(agent.encode_flow_stats_reply(xid, self.switch.stats(request, now)), now)
        elif kind == of.MP_DESC:
            serial = f"{self.switch.dpid:016x}"
            self.send(agent.encode_desc_reply(xid, _MADE_BY, _MADE_BY, "1", serial, _MADE_BY), now)
        elif kind in (of.MP_METER, of.MP_METER_CONFIG, of.MP_METER_FEATURES) and self.switch.meters:
            self.send(self.switch.meters.reply(kind, message, now), now)
        else:
            raise Refused("multipart", BAD_REQUEST, 2)  # OFPBRC_BAD_MULTIPART

    def _master(self) -> None:
        if self.role == SLAVE:
            raise Refused("slave", BAD_REQUEST, 10)  # OFPBRC_IS_SLAVE


class Switch:
    """A switch: an NVE's bridge.

    Args:
        dpid: datapath id.
        ports: names of its ports; numbers are given from 1 on.
        tunnel: name of the tunnel port.
        addresses: underlay addresses, 4 or 16 bytes each.
        eager: look into each flow mod when it comes, so that a bad one is answered at once. Otherwise when a
            packet or a statistics request first needs the tables, which a thousand switches do faster.
        meters: it has meters.
    """

    def __init__(
        self,
        dpid: int,
        ports: Iterable[str] = ("vxlan",),
        tunnel: str = "vxlan",
        addresses: tuple[bytes, ...] = (),
        eager: bool = True,
        meters: bool = True,
    ) -> None:
        self.dpid = dpid
        self.addresses = addresses
        self.eager = eager
        self.ports = {n: PortInfo(n, name, True) for n, name in enumerate(ports, 1)}
        self.tunnel = next((n for n, port in self.ports.items() if port.name == tunnel), None)
        self.faults = Faults()
        self.sessions: list[Session] = []
        self.generation: int | None = None  # of the master election
        self.counts: Counter[str] = Counter()
        self.received: Counter[int] = Counter()  # messages by type
        self.emit: Callable[[Switch, list[Out], float], None] = lambda switch, outs, now: None
        self.wake: Callable[[Session], None] = lambda session: None
        self._tables = Tables(tunnel=self.tunnel, ports=self.ports)
        self.meters = Meters(self._tables) if meters else None
        self._kept: list[tuple[bytes, float]] = []  # flow mods not yet looked into
        self._next_port = len(self.ports) + 1

    def connect(self) -> Session:
        """A new connection to a controller; its hello waits in ``out``."""
        session = Session(self)
        self.sessions.append(session)
        return session

    def disconnect(self, session: Session) -> None:
        """The connection is gone; the flows stay."""
        if session in self.sessions:
            self.sessions.remove(session)

    # --- tables -------------------------------------------------------------------------------------------
    @property
    def tables(self) -> Tables:
        """The flow tables, with every flow mod carried out."""
        if self._kept:
            kept, self._kept = self._kept, []
            for message, now in kept:
                try:
                    self._apply(message, now)
                except (Refused, DecodeError):
                    self.counts["refused late"] += 1
        return self._tables

    def flow_mod(self, message: bytes, now: float) -> None:
        """Carry out an ofp_flow_mod. Raises Refused or DecodeError if ``eager``."""
        if self.eager:
            self._apply(message, now)
        else:
            self._kept.append((message, now))

    def _apply(self, message: bytes, now: float) -> None:
        mod = agent.decode_flow_mod(message)
        flow = mod.flow
        tables = self._tables
        if self.meters is not None and mod.command not in (of.FC_DELETE, of.FC_DELETE_STRICT):
            self.meters.needs(flow.actions)
        if mod.command == of.FC_ADD:
            tables.add(flow, now, mod.hard_timeout, mod.flags)
        elif mod.command in (of.FC_MODIFY, of.FC_MODIFY_STRICT):
            tables.modify(flow, mod.command == of.FC_MODIFY_STRICT, flow.cookie, mod.cookie_mask)
        elif mod.command in (of.FC_DELETE, of.FC_DELETE_STRICT):
            priority = flow.priority if mod.command == of.FC_DELETE_STRICT else None
            gone = tables.delete(flow.match, flow.table, priority, flow.cookie, mod.cookie_mask, mod.out_port)
            for entry in gone:
                self._removed(entry, of.REMOVED_DELETE, now)
        else:
            raise Refused("no such command", FLOW_MOD_FAILED, 6)  # OFPFMFC_BAD_COMMAND

    def meter_mod(self, message: bytes, now: float) -> None:
        """Carry out an ofp_meter_mod. Raises Refused."""
        if self.meters is None:
            raise Refused("no meters", BAD_REQUEST, 1)
        _ = self.tables  # flow mods that came before are about the meters as they were
        self.meters.modify(message, now)

    def _removed(self, entry: Entry, reason: int, now: float) -> None:
        if not entry.flags & of.FF_SEND_FLOW_REM:
            return
        age = now - entry.created
        message = agent.encode_flow_removed(entry.flow, reason, entry.packets, entry.bytes, age)
        self._tell(of.FLOW_REMOVED, reason, message, now)

    def stats(self, request: agent.FlowStatsRequest, now: float) -> list[FlowStats]:
        """Statistics of the flows that were asked for."""
        table, out_port, cookie, mask, match = request
        chosen = self.tables.select(match, table, None, cookie, mask, out_port)
        return [entry.stats(now) for entry in chosen]

    def expire(self, now: float) -> None:
        """Remove flows whose idle or hard timeout is over and say so."""
        for entry, reason in self.tables.expire(now):
            self._removed(entry, reason, now)

    # --- ports --------------------------------------------------------------------------------------------
    def port_named(self, name: str) -> PortInfo:
        """The port of that name (KeyError: there is none)."""
        for port in self.ports.values():
            if port.name == name:
                return port
        raise KeyError(name)

    def set_port(self, name: str, up: bool = True, now: float = 0.0) -> PortInfo:
        """A port comes up, goes down, or appears; the controllers are told."""
        try:
            port = replace(self.port_named(name), up=up)
            reason = of.PORT_MODIFY
        except KeyError:
            port = PortInfo(self._next_port, name, up)
            self._next_port += 1
            reason = of.PORT_ADD
        self.ports[port.number] = port
        self._tell(of.PORT_STATUS, reason, agent.encode_port_status(reason, port), now)
        return port

    def remove_port(self, name: str, now: float = 0.0) -> None:
        """A port disappears; the controllers are told."""
        port = self.ports.pop(self.port_named(name).number)
        message = agent.encode_port_status(of.PORT_DELETE, replace(port, up=False))
        self._tell(of.PORT_STATUS, of.PORT_DELETE, message, now)

    def _tell(self, kind: int, reason: int, message: bytes, now: float) -> None:
        for session in self.sessions:
            if session.wants(kind, reason):
                session.send(message, now)

    # --- packets ------------------------------------------------------------------------------------------
    def inject(
        self,
        frame: bytes,
        in_port: int,
        now: float,
        tun_id: int | None = None,
        tun_src: bytes | None = None,
        tun_dst: bytes | None = None,
    ) -> list[Result]:
        """A frame comes in on a port; what became of it has been sent on its way, and is returned too."""
        results = self.tables.run(frame, in_port, tun_id, tun_src, tun_dst, now)
        self._deliver(results, now)
        return results

    def packet_out(self, packet: agent.PacketOut, now: float) -> None:
        """Carry out a packet-out."""
        self.counts["packet-outs"] += 1
        # what is in the tables matters only to an output to TABLE, and looking into kept flow mods is costly
        tables = self.tables if Output(TABLE) in packet.actions else self._tables
        results = tables.execute(packet.actions, packet.frame, packet.in_port, now)
        self._deliver(results, now)

    def _deliver(self, results: list[Result], now: float) -> None:
        outs = []
        for result in results:
            if isinstance(result, Out):
                if result.port in self.ports:
                    outs.append(result)
                else:
                    self.counts["no such port"] += 1
            elif isinstance(result, ToNva):
                self.counts["packet-ins"] += 1
                self._tell(of.PACKET_IN, result.reason, packet_in(result), now)
            else:
                self.counts["drops"] += 1
        if outs:
            self.emit(self, outs, now)


def packet_in(result: ToNva) -> bytes:
    """The ofp_packet_in by which a switch reports ``result``: the whole packet, as Open vSwitch minds no max_len."""
    context = result.context
    src, dst = (
        context[v4].to_bytes(4, "big") if v4 in context else context[v6].to_bytes(16, "big") if v6 in context else None
        for v4, v6 in (("tun_ipv4_src", "tun_ipv6_src"), ("tun_ipv4_dst", "tun_ipv6_dst"))
    )
    return agent.encode_packet_in(
        result.in_port,
        result.frame,
        (1 << 64) - 1 if result.cookie is None else result.cookie,
        result.table,
        result.reason,
        context.get("tun_id"),
        src,
        dst,
        context.get("metadata", 0),
    )
