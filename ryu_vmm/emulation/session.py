"""An emulated switch's side of one connection to a controller: OpenFlow 1.3 as bytes in, bytes out."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import DecodeError
from ..wire import agent
from ..wire import base as of
from .rules import BAD_REQUEST, Refused

if TYPE_CHECKING:
    from .flood import Flood
    from .switch import Switch

EQUAL, MASTER, SLAVE = 1, 2, 3
_MADE_BY = "ryu_vmm emulation"
_NO_GENERATION = (1 << 64) - 1


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
        self.flood: Flood | None = None
        self.barrier = Barrier()
        self.on_barrier: Callable[[Session, float], None] | None = None
        self._delayed: deque[tuple[float, bytes]] = deque()
        self._held: list[bytes] = []
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
            message = data[at : at + size]
            if self.flood is None or not self.flood.is_answer(message):
                self.message(kind, message, now)
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
        if faults.ignore and faults.ignores(kind):
            return
        if faults.refuse_nth and faults.refuses(kind):
            self._error(*faults.error, message, now)
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
        """Queue a message for the controller; ``Switch.wake`` is told when the first of them waits."""
        if self.switch.faults.spoils:
            for message in self.switch.faults.spoil(data, self._held):
                self._queue(message, now)
        else:
            self._queue(data, now)

    def _queue(self, data: bytes, now: float) -> None:
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
        claimed = self.switch.faults.claims
        self.send(agent.encode_features_reply(xid, self.switch.dpid if claimed is None else claimed), now)
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
        elif kind == of.MP_PORT_STATS:
            self.send(self.switch.port_stats(message), now)
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
