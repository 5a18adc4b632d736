"""One emulated OpenFlow 1.3 switch: bytes from a controller in, bytes and frames out. No sockets, no clock.

A :class:`Switch` has ports, flow tables and one :class:`Session` for each controller it is connected to. Its answers
wait in ``Session.out`` until whoever owns the socket takes them; frames that leave it go to ``Switch.emit``.
:class:`Faults` makes it misbehave on order.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..events import PortInfo
from ..flows import FlowStats
from ..wire import agent, ports
from ..wire import base as of
from .entries import Entry
from .faults import Faults
from .meters import Meters
from .rules import BAD_REQUEST, FLOW_MOD_FAILED, Refused
from .session import Session
from .tables import Out, Result, Tables, ToNva


class Switch:
    """A switch: an NVE's bridge.

    Args:
        dpid: datapath id.
        ports: names of its ports; numbers are given from 1 on.
        tunnel: name of the tunnel port.
        routed: name of the tunnel port without Ethernet headers, if there is one.
        ila: name of the patch port to the outer bridge, if there is one.
        addresses: underlay addresses, 4 or 16 bytes each.
        locator: upper 64 bits of the addresses that the outer bridge hands over (None: none).
        eager: look into each flow mod when it comes, and refuse what a switch refuses. Otherwise additions are taken
            for good and their instructions read when first needed, which a thousand switches do faster.
        meters: it has meters.
        nd: its datapath can make neighbor advertisements; an ``eager`` one refuses them otherwise.
        tls: how it speaks TLS with the controller (None: it does not); for whoever owns the socket.
    """

    def __init__(
        self,
        dpid: int,
        ports: Iterable[str] = ("vxlan",),
        tunnel: str = "vxlan",
        addresses: tuple[bytes, ...] = (),
        eager: bool = True,
        meters: bool = True,
        tls: ssl.SSLContext | None = None,
        routed: str = "gre",
        ila: str = "ila",
        locator: bytes | None = None,
        nd: bool = True,
    ) -> None:
        self.dpid = dpid
        self.locator = locator
        self.tls = tls
        self.addresses = addresses
        self.eager = eager
        self.ports = {n: PortInfo(n, name, True) for n, name in enumerate(ports, 1)}
        numbers = {port.name: n for n, port in self.ports.items()}
        self.tunnel, self.routed, self.ila = numbers.get(tunnel), numbers.get(routed), numbers.get(ila)
        self.faults = Faults()
        self.sessions: list[Session] = []
        self.generation: int | None = None  # of the master election
        self.counts: Counter[str] = Counter()
        self.received: Counter[int] = Counter()  # messages by type
        self.emit: Callable[[Switch, list[Out], float], None] = lambda switch, outs, now: None
        self.wake: Callable[[Session], None] = lambda session: None
        self.expiring = False  # there have been flows with a timeout: ``expire`` is to be called now and then
        self.tables = Tables(tunnel=self.tunnel, ports=self.ports, routed=self.routed, nd=nd)
        self.meters = Meters(self.tables) if meters else None
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
    def flow_mod(self, message: bytes, now: float) -> None:
        """Carry out an ofp_flow_mod. Raises Refused or DecodeError, for an addition only if ``eager``."""
        if message[26:30] != b"\0\0\0\0":
            self.expiring = True
        if self.eager or message[25] != of.FC_ADD:
            self._apply(message, now)
        else:
            self.tables.put(Entry.unread(message, now))

    def _apply(self, message: bytes, now: float) -> None:
        mod = agent.decode_flow_mod(message)
        flow = mod.flow
        tables = self.tables
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
        self.tables.traffic.forget(port.number)
        message = agent.encode_port_status(of.PORT_DELETE, replace(port, up=False))
        self._tell(of.PORT_STATUS, of.PORT_DELETE, message, now)

    def _tell(self, kind: int, reason: int, message: bytes, now: float) -> None:
        for session in self.sessions:
            if session.wants(kind, reason):
                session.send(message, now)

    def port_stats(self, message: bytes) -> bytes:
        """The answer to a request for ports' statistics. Raises Refused or DecodeError."""
        wanted = ports.decode_port_stats_request(message)
        xid = int.from_bytes(message[4:8], "big")
        if wanted not in (of.ANY, *self.ports):
            raise Refused(f"port {wanted} is not there", BAD_REQUEST, 11)  # OFPBRC_BAD_PORT
        found = self.tables.traffic.read(self.ports, None if wanted == of.ANY else wanted)
        return agent.encode_port_stats_reply(xid, found)

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
        results = self.tables.execute(packet.actions, packet.frame, packet.in_port, now)
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
        reg0=context.get("reg0", 0),
    )
