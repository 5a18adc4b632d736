"""The switchboard: all connected switches by datapath id, and the NVA on the other side."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ryu.controller import controller
from ryu.lib import hub

from .. import lanes
from ..effects import Disconnect, Effect, Program, ReadFlows, ReadMeters, ReadPorts, SendPacket
from ..events import ConnectionRefused, SwitchEvent
from ..fairness import Backlog
from ..seldom import Seldom
from ..unread import readable
from ..wire import openflow
from ..wire.openflow import PacketIn
from .datapath import QUICK, TURN, VmmDatapath

LOG = logging.getLogger("ryu_vmm.southbound")


class Sink(Protocol):
    """Who is told what happens. Called from the connections' greenlets; must not wait for a switch."""

    def event(self, event: SwitchEvent) -> None:
        """Take in an event: any switch event but PacketSeen."""

    def packets(self, dpid: int, batch: Sequence[PacketIn]) -> list[bytes]:
        """Take in the packet-ins of one read; returns encoded packet-outs for the same switch."""

    def shed(self, dpid: int, packets: dict[int | None, int]) -> None:
        """So many packet-ins were dropped unseen, by port number; None: they were about moves and probes."""

    def admits(self, dpid: int, names: tuple[str, ...] | None) -> bool:
        """Whether a connection may have that datapath id; ``names``: in its certificate, None: it has none."""


#: Why the NVA closes a connection, in words.
_CLOSED = {
    "impostor": "its certificate is not that of the NVE with its datapath id",
    "lost": "something of what it said, or was told, is lost by a fault of ours: it is read anew",
}


class Switchboard:
    """All switches. One per process.

    Args:
        sink: who is told what happens.
        certificates: take no connection without TLS and a certificate.
        send_cap: bytes that may wait for a switch to take them; one that lets more pile up is disconnected.
        stuck_after: seconds for which a switch may take none of the bytes that wait for it.
        flow_cap: flows that the answer to one ReadFlows may have, and flow changes that may wait for a switch to take
            them; one that goes beyond is disconnected.
        echo_interval: seconds between looks at whether a connection shows progress; while it does not, it is sent
            echo requests, and after ``echo_misses`` in a row without progress it is closed.
        meter_rate: packets per second that a switch's meter of some number lets pass; 0: it only counts.
        handshake_within: seconds until a new connection must have told its features and ports.
        handshakes: connections that may be on their way there; one more ends the oldest.
        answer_within: seconds for which a switch may leave barriers and questions without any answer.
        takeover_within: seconds that a connection has to prove itself when another one claims to be the same switch.
        port_backlog: bytes of packet-ins of one port that may wait for the sink (see ryu_vmm.fairness).
        move_backlog: the same for those that are about one move (probes, packets that are held).
        nve_backlog: the same for a whole NVE.
        backlog: the same in all.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        certificates: bool = False,
        send_cap: int = 64 << 20,
        stuck_after: float = 20.0,
        flow_cap: int = 2_000_000,
        echo_interval: float = 5.0,
        echo_misses: int = 3,
        handshake_within: float = 20.0,
        handshakes: int = 4096,
        answer_within: float = 120.0,
        takeover_within: float = 1.0,
        meter_rate: Callable[[int], int] = lambda meter: 0,
        port_backlog: int = 1 << 19,
        move_backlog: int = 1 << 22,
        nve_backlog: int = 1 << 24,
        backlog: int = 1 << 27,
    ) -> None:
        self.sink = sink
        self.certificates = certificates
        self.send_cap = send_cap
        self.stuck_after = stuck_after
        self.flow_cap = flow_cap
        self.echo_interval = echo_interval
        self.echo_misses = echo_misses
        self.handshake_within = handshake_within
        self.handshakes = handshakes
        self.answer_within = answer_within
        self.takeover_within = takeover_within
        self.meter_rate = meter_rate
        #: ``malformed.<cause>``, ``error.<type>.<code>``, ``closed.<why>``, ``sink-failed``, ``forward-dropped``,
        #: ``unsent``, ``refused`` (another one is there), ``impostor``, ``plain``, ``replaced``, ``shed``
        self.counters: Counter[str] = Counter()
        self.datapaths: dict[int, VmmDatapath] = {}
        self._entering: dict[VmmDatapath, None] = {}
        self._refusals = Seldom()
        caps = {True: move_backlog, False: port_backlog}
        self._backlog = Backlog(lanes.lane_of, lambda lane: caps[lanes.is_own(lane)], nve_backlog, backlog)
        self._serving = False
        self._stock: Any = None

    def install(self) -> None:
        """Have Ryu make our datapaths from now on. Calling it again changes nothing."""
        if self._stock is None:
            ours = type("VmmDatapath", (VmmDatapath,), {"board": self})

            def connected(socket: Any, address: Any) -> None:
                if self.certificates and not isinstance(socket, ssl.SSLSocket):  # Ryu's own connections to switches
                    self.counters["plain"] += 1
                    socket.close()
                    return
                with contextlib.closing(ours(socket, address)) as datapath:
                    self._entering[datapath] = None
                    try:
                        self._crowd()
                        datapath.serve()
                    finally:
                        self._entering.pop(datapath, None)

            # Not Datapath itself: its __init__ finds its own class by that name.
            self._stock = controller.datapath_connection_factory
            controller.datapath_connection_factory = connected

    def close(self) -> None:
        """Undo :meth:`install` and close all connections. The switches keep their flows."""
        if self._stock is not None:
            controller.datapath_connection_factory, self._stock = self._stock, None
        for datapath in list(self.datapaths.values()):
            datapath.close()

    def execute(self, effect: Effect) -> None:
        """Carry out an effect that is for a switch, in order per switch. Never waits.

        For a switch that is not connected it is counted as ``unsent``: its flows are read when it comes back.
        """
        if not isinstance(effect, (Program, SendPacket, ReadFlows, ReadMeters, ReadPorts, Disconnect)):
            raise TypeError(f"not an effect on a switch: {effect!r}")
        datapath = self.datapaths.get(effect.dpid)
        if datapath is None:
            self.counters["unsent"] += 1
        elif isinstance(effect, Program):
            datapath.program(effect.changes, effect.generation)
            # Now, not when the sender's turn comes: that of the switch in hand may have many packets more to tell, and
            # while it does, packets go the old way at all others.
            datapath.flush()
        elif isinstance(effect, SendPacket):
            datapath.send(openflow.encode_packet_out(effect.in_port, effect.actions, effect.frame))
        elif isinstance(effect, ReadMeters):
            datapath.read_meters(effect.token)
        elif isinstance(effect, ReadPorts):
            datapath.read_ports(effect.token, effect.port)
        elif isinstance(effect, Disconnect):
            # Later, as the sink would hear of the end from within its own call.
            hub.spawn(datapath.fail, effect.why, _CLOSED[effect.why])
        else:
            datapath.read_flows(effect)

    def waits(self) -> bool:
        """Whether anything that switches have said waits to be taken in."""
        datapaths = {*self.datapaths.values(), *self._entering}
        return bool(self._backlog) or readable(datapath.socket for datapath in datapaths)

    # --- for the datapaths ------------------------------------------------------------------------------------
    def emit(self, event: SwitchEvent) -> None:
        """Tell the sink."""
        try:
            self.sink.event(event)
        except Exception:
            self.counters["sink-failed"] += 1
            LOG.exception("%s could not be taken in", type(event).__name__)

    def deliver(self, datapath: VmmDatapath, messages: list[bytes]) -> None:
        """Hand packet-ins to the sink: now if nobody waits and it is quickly done, else when their turn comes."""
        if self.datapaths.get(datapath.id) is not datapath:
            return  # it has come to its end, and its packets with it
        datapath.full = None
        quick = len(messages) * datapath.packet_cost <= QUICK
        if quick and not self._backlog and not datapath.congested and not lanes.is_flood(messages):
            self._hand_over(datapath, messages)
            return
        shed = self._backlog.put(datapath.id, messages)
        if shed:
            self.shed(datapath, shed)
        if not self._serving:
            self._serving = True
            hub.spawn(self._serve)

    def settle(self, datapath: VmmDatapath, port: int) -> None:
        """A port is about to change: what it has handed over so far is told before that, as far as it is not much."""
        if not self._backlog:
            return
        lane = lanes.of_port(port)
        waiting = self._backlog.drain(datapath.id, lane)
        most = datapath.turn
        if waiting:
            self._hand_over(datapath, waiting[:most])
        if waiting[most:]:
            self.shed(datapath, {lane: len(waiting) - most})
            datapath.full = None  # the lane is empty now

    def _serve(self) -> None:
        """Give each NVE with packet-ins its turn, and everything else its own between two turns."""
        try:
            while self._backlog:
                for _ in range(self._backlog.nves):
                    datapath = self.datapaths[self._backlog.next]
                    datapath.full = None
                    if not datapath.congested:  # else it takes less than it asks for: more answers would be in the way
                        self._hand_over(datapath, self._backlog.take(datapath.turn))
                        hub.sleep(0)
                        break
                    self._backlog.skip()
                else:
                    hub.sleep(TURN)
        finally:
            self._serving = False

    def _hand_over(self, datapath: VmmDatapath, messages: list[bytes]) -> None:
        began = time.thread_time()  # not the clock on the wall: other programs cost time, too
        out: list[bytes] = []
        try:
            out = self.sink.packets(datapath.id, datapath.decoded(messages))
        except Exception:
            self.counters["sink-failed"] += 1
            LOG.exception("%d packet-ins of %016x could not be taken in", len(messages), datapath.id)
        if out:
            datapath.send(out[0] if len(out) == 1 else b"".join(out))
            datapath.flush()
        datapath.learn(len(messages), time.thread_time() - began)

    def shed(self, datapath: VmmDatapath, shed: dict[bytes, int]) -> None:
        """Count and report packet-ins that were dropped, by lane."""
        datapath.noisy, datapath.full = True, max(shed, key=lambda lane: shed[lane])
        packets: dict[int | None, int] = {}
        for lane, count in shed.items():
            port = lanes.port_of(lane)
            packets[port] = packets.get(port, 0) + count
        self.counters["shed"] += sum(packets.values())
        try:
            self.sink.shed(datapath.id, packets)
        except Exception:
            self.counters["sink-failed"] += 1
            LOG.exception("shed packet-ins of %016x could not be taken in", datapath.id)

    def _crowd(self) -> None:
        """Make room for those that come to an end with their handshake: who has been at it longest goes."""
        while len(self._entering) > self.handshakes:
            oldest = next(iter(self._entering))
            del self._entering[oldest]
            oldest.fail("crowded", f"more than {self.handshakes} others are in their handshake")

    def admit(self, newcomer: VmmDatapath) -> bool:
        """Whether a connection may be the switch it says it is.

        Its certificate has to be that of the NVE with its datapath id; and if there is a connection with that id, the
        one that is there keeps the place as long as it lives: it is asked now, and has ``takeover_within`` to answer.
        """
        dpid = newcomer.id
        if not self.sink.admits(dpid, newcomer.names):
            self.counters["impostor"] += 1
            self._refused(newcomer, "impostor", f"its certificate has {_listed(newcomer.names)}")
            return False
        while (present := self.datapaths.get(dpid)) is not None:
            if present.answers(self.takeover_within):
                self.counters["refused"] += 1
                self._refused(newcomer, "duplicate", f"the connection from {present.address} lives")
                return False
            if self.datapaths.get(dpid) is present:
                self.counters["replaced"] += 1
                LOG.warning("datapath %016x: %s replaces %s", dpid, newcomer.address, present.address)
                present.close()
        if newcomer in self._entering:
            del self._entering[newcomer]
        self.datapaths[dpid] = newcomer
        return True

    def _refused(self, newcomer: VmmDatapath, why: str, text: str) -> None:
        """Report a refusal: the first at once, the same again once a minute."""
        times = self._refusals.due((why, newcomer.id, newcomer.names), time.monotonic())
        if not times:
            LOG.debug("datapath %s: %s refused", newcomer.name, newcomer.address)
            return
        LOG.error("datapath %s: %s refused, since %s", newcomer.name, newcomer.address, text)
        peer = ":".join(map(str, newcomer.address[:2]))
        self.emit(ConnectionRefused(newcomer.id, why, newcomer.names, peer, times))

    def dismiss(self, datapath: VmmDatapath) -> bool:
        """Forget a connection; False if it was none of those admitted."""
        if self.datapaths.get(datapath.id) is not datapath:
            return False
        del self.datapaths[datapath.id]
        self._backlog.drop(datapath.id)
        return True


def _listed(names: tuple[str, ...] | None) -> str:
    return "no name, as it came without TLS" if names is None else ", ".join(names) or "no name"
