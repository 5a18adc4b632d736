"""What a switch says, taken in: our part decoded here and told to the sink, the rest passed on to Ryu."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER
from ryu.lib import hub

from ..effects import ReadFlows
from ..errors import DecodeError
from ..events import (
    BarrierReplied,
    FlowExpired,
    FlowRefused,
    FlowsRead,
    MetersRead,
    NveConnected,
    NveDisconnected,
    PortChanged,
    PortInfo,
    PortsRead,
)
from ..flows import FlowChange
from ..lanes import FIELD, FIELD_END, OWN, WHY
from ..wire import base, meters, openflow
from ..wire.openflow import PacketIn
from .batches import Batches
from .meters import Meters
from .ports import PortReadings
from .readings import Reading
from .ryuside import RyuSide

LOG = logging.getLogger("ryu_vmm.southbound")

TURN = 0.0005
"""Seconds that an NVE's turn takes, about, while packet-ins of several wait, or many of one."""

QUICK = 0.001
"""Seconds that it may take to hand over what has just been read while nobody waits."""

PIECE = 64
"""Packet-ins of a connection that floods, after which it is looked at whether there is still room."""

MOST = 256
"""Packet-ins that are handed over at once, at most."""

#: OFPET_BAD_REQUEST, OFPBRC_BAD_LEN: what a message has no room for.
_BAD_REQUEST, _BAD_LEN = 1, 6


class VmmDatapath(RyuSide):
    """A switch; to Ryu and its applications a Datapath like any other."""

    def __init__(self, socket: Any, address: Any) -> None:
        self._ports_told: list[PortInfo] = []
        self._batches = Batches()
        self._barriers: dict[int, tuple[int, int, float]] = {}  # xid -> (generation, xid of flow mods, when)
        self._programs = 0  # sent so far
        self._readings: dict[int, Reading] = {}  # by transaction id; whole ones have two
        self._meters: Meters = Meters(self.board.meter_rate)
        self._port_readings = PortReadings(lambda *read: self.board.emit(PortsRead(self.id, *read)))
        self._counters_asked: dict[int, float] = {}  # xid of a reading of meters or ports -> when
        self._told = False  # the sink knows of the connection
        self._answered = 0.0  # when a barrier or a part of its flows came last
        self.noisy = False  # more has come lately than there was room for
        self.full: bytes | None = None  # the lane that had no room, until a turn makes some
        self.packet_cost = 1e-5  # seconds of processor time for each packet-in, lately
        self._echoes: dict[int, Any] = {}  # xid -> semaphore of who waits
        self._forward: deque[tuple[int, int, int, int, bytes]] = deque()
        self._forwarding = False
        # Each returns whether the message was an answer to us and concerns nobody else.
        self._handlers: dict[int, Callable[[bytes, int], bool]] = {
            base.ECHO_REQUEST: self._echo_request,
            base.ECHO_REPLY: self._echo_reply,
            base.BARRIER_REPLY: self._barrier_reply,
            base.ERROR: self._error,
            base.MULTIPART_REPLY: self._multipart_reply,
            base.FLOW_REMOVED: self._flow_removed,
            base.PORT_STATUS: self._port_status,
        }
        super().__init__(socket, address)

    # --- what the NVA wants -----------------------------------------------------------------------------------
    def program(self, changes: tuple[FlowChange, ...], generation: int) -> None:
        """Send flow changes and a barrier; the sink hears of errors, then of the barrier's reply."""
        # One for all meters, then one for each flow: an error says which was refused by no more than that number.
        xid, barrier = self.next_xids(1 + len(changes)), self.next_xid()
        self._programs += 1
        self._batches.add(xid, generation, changes)
        self._barriers[barrier] = (generation, xid, time.monotonic())

        def refused(change: FlowChange, error: ValueError) -> None:
            LOG.error("datapath %s: %s: %s", self.name, error, change)
            event = FlowRefused(self.id, generation, _BAD_REQUEST, _BAD_LEN, change.flow.cookie, change)
            hub.spawn(self.board.emit, event)  # not from within a call of the sink's own

        before, after = self._meters.around(changes, xid)
        if before:
            self.send(before)
        self._outbox.put_changes(changes, xid + 1, refused)
        self.send(after + openflow.encode_barrier(barrier))

    def read_flows(self, asked_for: ReadFlows) -> None:
        """Ask for flows; the sink hears of the whole answer at once."""
        self._ask(Reading(asked_for))

    def read_meters(self, token: str) -> None:
        """Ask what the meters have counted; the sink hears of the whole answer at once."""
        xid = self.next_xid()
        self._counters_asked[xid] = time.monotonic()
        self.send(self._meters.ask(xid, token))

    def read_ports(self, token: str, port: int | None) -> None:
        """Ask what a port has counted, None: all; the sink hears of the whole answer at once."""
        xid = self.next_xid()
        self._counters_asked[xid] = time.monotonic()
        self.send(self._port_readings.ask(xid, token, port))

    def _ask(self, reading: Reading) -> None:
        reading.programs = self._programs
        asked = reading.asked_for
        if (asked.whole or asked.audit) and self._meters.highest:
            # Before the flows: one that is there by then, and uses a meter, proves that the meter is.
            reading.config = self.next_xid()
            self._readings[reading.config] = reading
            self.send(meters.encode_meter_config_request(reading.config))
        xid = self.next_xid()
        self._readings[xid] = reading
        self.send(openflow.encode_flow_stats_request(xid, asked.cookie, asked.cookie_mask))

    def answers(self, within: float) -> bool:
        """Whether the switch answers an echo request within so many seconds.

        As long as it goes on talking, its answer may be behind what it has said before: then it has ten times as long.
        """
        xid = self.next_xid()
        reply = self._echoes[xid] = hub.Semaphore(0)
        self.send(openflow.encode_echo_request(xid))
        try:
            for _ in range(10):
                heard = self._progress
                if reply.acquire(timeout=within):
                    return True
                if self._progress == heard or self.state != MAIN_DISPATCHER:
                    break
            return False
        finally:
            self._echoes.pop(xid, None)

    def overdue(self, since: float) -> str:
        """See Connection. Any answer since then counts: it may have much to do."""
        if self._answered >= since:
            return ""
        if not self._told:
            return "its first barrier"
        generation, _, asked = next(iter(self._barriers.values()), (0, 0, since))
        if asked < since:
            return f"the barrier of generation {generation}"
        if any(reading.asked < since for reading in self._readings.values()):
            return "what flows it has"
        waits = any(at < since for at in self._counters_asked.values())
        return "what its meters and ports have counted" if waits else ""

    # --- state ------------------------------------------------------------------------------------------------
    def set_state(self, state: str) -> None:
        """Ryu's handlers call this as the handshake goes on; we join in where it is over, and where all is."""
        if state == self.state:
            return
        if state == MAIN_DISPATCHER and self.ofproto.OFP_VERSION == base.VERSION:
            self._enter()
            return
        super().set_state(state)
        if state == DEAD_DISPATCHER and self.board.dismiss(self) and self._told:
            LOG.info("datapath %s disconnected from %s", self.name, self.address)
            self.board.emit(NveDisconnected(self.id))

    def _enter(self) -> None:
        """The handshake is over: take the switch's place on the board, or go."""
        if not self.board.admit(self):
            self.close()
        elif self.state == DEAD_DISPATCHER:  # closed while the one before it was asked
            self.board.dismiss(self)
        else:
            super().set_state(MAIN_DISPATCHER)
            self._answered = time.monotonic()
            self.send(openflow.encode_set_config(self.next_xid()))
            LOG.info("datapath %s connected from %s", self.name, self.address)
            # What meters it can have is asked first; the barrier's reply comes after the answer, or after its lack.
            self._meters.features, self._meters.end = self.next_xid(), self.next_xid()
            self.send(meters.encode_meter_features_request(self._meters.features))
            self.send(openflow.encode_barrier(self._meters.end))

    def _tell(self) -> None:
        """What meters the switch can have is known as well as its ports: now the sink hears of it."""
        self._told = True
        self.board.emit(NveConnected(self.id, tuple(self._ports_told), self._meters.highest, self.names))

    # --- receiving --------------------------------------------------------------------------------------------
    def take_in(self, data: bytes) -> tuple[int, int]:
        """See Connection. Packet-ins wait for their turn if they have to; everything else is handled at once."""
        position, end, wanted = 0, len(data), 8
        batch: list[bytes] = []
        unpack, deliver = base.HEADER.unpack_from, self.board.deliver
        observed = self._observed(base.PACKET_IN)
        # Of a connection that floods, packets of a queue that is known to be full are not even looked at.
        noisy, self.noisy = self.noisy and not observed, False
        full, unread = None, 0
        while end - position >= 8 and self.state != DEAD_DISPATCHER:
            version, kind, length, xid = unpack(data, position)
            if length < 8:
                raise DecodeError("a message claims to be shorter than its header", "of-framing")
            stop = position + length
            if stop > end:
                wanted = length
                break
            if (
                full is not None
                and kind == base.PACKET_IN
                and data[position + FIELD : position + FIELD_END] == full
                and data[position + WHY] not in OWN
            ):
                unread += 1
                position = stop
                continue
            message = data[position:stop]
            position = stop
            if self.state != MAIN_DISPATCHER or self.ofproto.OFP_VERSION != base.VERSION:
                self._shake_hands(version, kind, length, xid, message)
                continue
            try:
                if kind == base.PACKET_IN:
                    batch.append(message)
                    if noisy and len(batch) == PIECE:
                        deliver(self, batch)
                        batch, full = [], self.full
                    if not observed:
                        continue
                else:
                    if batch:  # in order, unless there are many of them
                        deliver(self, batch)
                        batch = []
                    if self._handle(version, kind, message, xid):
                        continue
            except DecodeError as error:
                self._malformed(error)
                continue
            self._pass_on(version, kind, length, xid, message)
        if batch:
            deliver(self, batch)
        if unread and full is not None:
            self.board.shed(self, {full: unread})
        if self._outbox:
            self.flush()
        return position, wanted

    def _malformed(self, error: DecodeError) -> None:
        counter = f"malformed.{error.cause}"
        level = logging.DEBUG if counter in self.board.counters else logging.WARNING
        LOG.log(level, "datapath %s: malformed message: %s (counted as %s)", self.name, error, counter)
        self.board.counters[counter] += 1

    def decoded(self, messages: list[bytes]) -> list[PacketIn]:
        """Packet-ins as values; those that make no sense are counted and left out."""
        decode = openflow.decode_packet_in
        try:
            return [decode(message) for message in messages]
        except DecodeError:
            pass
        found = []
        for message in messages:
            try:
                found.append(decode(message))
            except DecodeError as error:
                self._malformed(error)
        return found

    @property
    def turn(self) -> int:
        """How many packet-ins are handed over in one turn: those that take about TURN, 1 to MOST."""
        return max(1, min(MOST, int(TURN / self.packet_cost)))

    def learn(self, packets: int, seconds: float) -> None:
        """So many packet-ins took so long, in seconds of processor time."""
        self.packet_cost += (min(seconds / packets, TURN) - self.packet_cost) / 4

    def _handle(self, version: int, kind: int, message: bytes, xid: int) -> bool:
        """Handle a message other than a packet-in; True if it concerns nobody but us."""
        if version != base.VERSION:
            raise DecodeError("message is not of version 1.3", "of-version", version=version)
        handler = self._handlers.get(kind)
        return handler is not None and handler(message, xid)

    def _echo_request(self, message: bytes, xid: int) -> bool:
        self.send(openflow.encode_echo_reply(xid, message[8:]))
        return False

    def _echo_reply(self, message: bytes, xid: int) -> bool:
        waiting = self._echoes.pop(xid, None)
        if waiting is not None:
            waiting.release()
        return waiting is not None

    def _barrier_reply(self, message: bytes, xid: int) -> bool:
        if xid == self._meters.end and not self._told:
            self._tell()
            return True
        barrier = self._barriers.pop(xid, None)
        if barrier is None:
            return False
        generation, batch, _ = barrier
        self._answered = time.monotonic()
        self._batches.end(batch)
        self.board.emit(BarrierReplied(self.id, generation))
        return True

    def _error(self, message: bytes, xid: int) -> bool:
        error = openflow.decode_error(message)
        if xid == self._meters.features:
            return True  # it has none
        if self._meters_unread(xid) or self._port_readings.failed(xid):
            self._counters_asked.pop(xid, None)
            return True
        self.board.counters[f"error.{error.type}.{error.code}"] += 1
        meter = self._meters.refused(error.data, error.code if error.type == meters.METER_MOD_FAILED else -1)
        barrier = self._barriers.pop(xid, None)  # then nothing is known of what went before it
        generation, change = self._batches.find(xid)
        if barrier is not None:
            generation = barrier[0]
            self._batches.end(barrier[1])
        if generation is not None:
            LOG.warning("datapath %s: flow of generation %d refused: %s", self.name, generation, error)
            refused: list[FlowChange | None] = [change]
            if meter is not None:  # then so are the flows that need it
                refused = [*self._batches.users(xid, meter)] or refused
            for each in refused:
                cookie = openflow.refused_cookie(error) if each is None else each.flow.cookie
                self.board.emit(FlowRefused(self.id, generation, error.type, error.code, cookie, each))
            return True
        reading = self._readings.get(xid)
        if reading is not None:
            self._read_again(reading, f"error of type {error.type}, code {error.code}")
        return reading is not None

    def _multipart_reply(self, message: bytes, xid: int) -> bool:
        try:
            ours = self._meters.answered(message, xid)
        except DecodeError:
            self._meters_unread(xid)
            raise
        if ours:
            if xid not in self._meters.readings:
                self._has_counted(xid)
            if xid in self._meters.complete:
                token, found = self._meters.complete.pop(xid)
                self.board.emit(MetersRead(self.id, token, found))
            return True
        if self._port_readings.answered(message, xid):
            if not self._port_readings.waits(xid):
                self._has_counted(xid)
            return True
        reading = self._readings.get(xid)
        if reading is None:
            return False
        try:
            more = reading.take(message, xid)
        except DecodeError as error:
            self._read_again(reading, error.message)
            raise
        self._answered = time.monotonic()
        if len(reading.flows) > self.board.flow_cap:
            self.fail("flows", f"it reports more than {self.board.flow_cap} flows")
        elif not more:
            del self._readings[xid]
            if reading not in self._readings.values():
                self._has_read(reading)
        return True

    def _has_read(self, reading: Reading) -> None:
        """A question is answered. Only what no later change can have overtaken takes the place of what is believed."""
        asked, lacks = reading.asked_for, False
        if reading.programs == self._programs:
            if asked.whole:
                self._meters.replace(reading.meters, (stats.flow for stats in reading.flows))
            lacks = asked.audit and (not reading.flows or self._meters.lacks(reading.meters))
        self.board.emit(FlowsRead(self.id, asked.token, tuple(reading.flows), asked.generation, lacks))

    def _has_counted(self, xid: int) -> None:
        """A reading of meters or ports has been answered to its end."""
        if self._counters_asked.pop(xid, None) is not None:
            self._answered = time.monotonic()

    def _meters_unread(self, xid: int) -> bool:
        """Whether this was a reading of meters, which has failed now: what they have counted is not known."""
        token, _, _ = self._meters.readings.pop(xid, (None, {}, 0))
        if token is None:
            return False
        self.board.emit(MetersRead(self.id, token, {}, failed=True))
        return True

    def _read_again(self, reading: Reading, why: str) -> None:
        """A reading has failed. Once more, then no more: without its flows a switch cannot be kept in sync."""
        self._readings = {xid: other for xid, other in self._readings.items() if other is not reading}
        if reading.attempt == 1:
            self._ask(reading.again())
        else:
            self.fail("unreadable", f"its flows cannot be read: {why}")

    def _flow_removed(self, message: bytes, xid: int) -> bool:
        removed = openflow.decode_flow_removed(message)
        if removed.reason != base.REMOVED_DELETE:
            self.board.emit(FlowExpired(self.id, removed.flow))
        return False

    def _port_status(self, message: bytes, xid: int) -> bool:
        reason, port = openflow.decode_port_status(message)
        self.board.settle(self, port.number)  # a packet before its port's end is one of that port
        if not self._told:
            self._ports_told = [known for known in self._ports_told if known.name != port.name]
            if reason != base.PORT_DELETE:
                self._ports_told.append(port)
            return False
        self.board.emit(PortChanged(self.id, port, gone=reason == base.PORT_DELETE))
        return False
