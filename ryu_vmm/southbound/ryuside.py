"""What a connection owes Ryu: its handshake, and messages for applications beside us."""

from __future__ import annotations

import logging
from collections import deque

from ryu.controller import ofp_event
from ryu.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER
from ryu.lib import hub
from ryu.ofproto import ofproto_parser

from ..errors import DecodeError
from ..events import PortInfo
from ..wire import base, openflow
from .connection import Connection

LOG = logging.getLogger("ryu_vmm.southbound")

FORWARDED = 1024
"""Messages of one connection that may wait for Ryu applications beside us."""

# What a message becomes for Ryu's applications. A type that is not here becomes some other event.
_BECOMES: dict[int, type] = {
    base.PACKET_IN: ofp_event.EventOFPPacketIn,
    base.FLOW_REMOVED: ofp_event.EventOFPFlowRemoved,
    base.ECHO_REQUEST: ofp_event.EventOFPEchoRequest,
    base.ECHO_REPLY: ofp_event.EventOFPEchoReply,
    base.BARRIER_REPLY: ofp_event.EventOFPBarrierReply,
    base.ERROR: ofp_event.EventOFPErrorMsg,
}
#: Bytes that messages of a handshake have at least; Ryu's parser would print a traceback.
_LEAST = {base.FEATURES_REPLY: 32, base.MULTIPART_REPLY: 16, base.ERROR: 12, base.HELLO: 8}
_NOT_OTHER = frozenset(_BECOMES.values()) | {ofp_event.EventOFPStateChange, ofp_event.EventOFPPortStateChange}


class RyuSide(Connection):
    """A connection whose messages become Ryu events: in its handshake all of them, later those that somebody observes.

    Attributes that whoever inherits sets up before Connection does.
    """

    _ports_told: list[PortInfo]
    _forward: deque[tuple[int, int, int, int, bytes]]
    _forwarding: bool

    def _shake_hands(self, version: int, kind: int, length: int, xid: int, message: bytes) -> None:
        """Until the switch is ours: as Ryu does it, but nonsense ends the connection, with one line."""
        try:
            if length < _LEAST.get(kind, 8):
                raise DecodeError("a message is too short for its type", "of-length", type=kind)
            if (
                self.state == CONFIG_DISPATCHER
                and (version, kind) == (base.VERSION, base.MULTIPART_REPLY)
                and openflow.decode_multipart(message)[0] == base.MP_PORT_DESC
            ):
                self._ports_told += openflow.decode_port_desc(message)
            self._to_ryu(version, kind, length, xid, message)
        except Exception as error:
            self.fail("handshake", f"its handshake makes no sense: {error!r}")

    def _to_ryu(self, version: int, kind: int, length: int, xid: int, message: bytes, handlers: bool = True) -> None:
        """Make a Ryu event of a message, for observers and, if wanted, Ryu's own handlers."""
        parsed = ofproto_parser.msg(self, version, kind, length, xid, bytearray(message))
        if not parsed:
            self.board.counters["malformed.ryu"] += 1
            return
        event = ofp_event.ofp_msg_to_ev(parsed)
        self.ofp_brick.send_event_to_observers(event, self.state)
        for handler in self.ofp_brick.get_handlers(event) if handlers else ():
            if self.state in handler.callers[event.__class__].dispatchers:
                handler(event)

    def _observed(self, kind: int) -> bool:
        """Whether any application beside us wants such messages. Port changes: always, Ryu keeps a list too."""
        observers = self.ofp_brick.observers
        event = _BECOMES.get(kind)
        if event is not None:
            return bool(observers.get(event))
        return kind == base.PORT_STATUS or any(names for other, names in observers.items() if other not in _NOT_OTHER)

    def _pass_on(self, version: int, kind: int, length: int, xid: int, message: bytes) -> None:
        """Let the applications beside us have a message, in their own time."""
        if not self._observed(kind):
            return
        if len(self._forward) >= FORWARDED:
            self.board.counters["forward-dropped"] += 1
            return
        self._forward.append((version, kind, length, xid, message))
        if not self._forwarding:
            self._forwarding = True
            hub.spawn(self._forward_loop)

    def _forward_loop(self) -> None:
        try:
            while self._forward and self.state == MAIN_DISPATCHER:
                try:
                    message = self._forward.popleft()
                    self._to_ryu(*message, handlers=message[1] != base.ECHO_REQUEST)  # answered already
                except Exception:
                    self.board.counters["forward-failed"] += 1
                    LOG.exception("datapath %s: message not passed on to Ryu", self.name)
                hub.sleep(0)
        finally:
            self._forwarding = False
