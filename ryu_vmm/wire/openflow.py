"""The NVA's side of OpenFlow 1.3: what it sends and what it reads from a switch. Other side: :mod:`.agent`.

Decoders take exactly one message as bytes. All raise :class:`ryu_vmm.errors.DecodeError` for anything
malformed, with a cause that starts with ``of-``. Encoders raise ValueError for values OpenFlow has no room
for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import DecodeError
from ..events import PortInfo
from ..flows import Action, Flow, FlowChange, FlowStats
from .base import (
    ANY,
    BARRIER_REQUEST,
    ECHO_REPLY,
    ECHO_REQUEST,
    ERROR,
    FC_ADD,
    FC_DELETE_STRICT,
    FF_SEND_FLOW_REM,
    FLOW_MOD,
    FLOW_REMOVED,
    HEADER,
    HELLO,
    MAX_MESSAGE,
    MP_FLOW,
    MP_PORT_DESC,
    MULTIPART_REPLY,
    MULTIPART_REQUEST,
    NO_BUFFER,
    PACKET_IN,
    PACKET_OUT,
    PORT_STATUS,
    SET_ASYNC,
    SET_CONFIG,
    VERSION,
    Header,
    check,
    decode_header,
    message,
)
from .oxm import decode_instructions, decode_match, encode_actions, encode_instructions, encode_match

_FLOW_MOD = struct.Struct("!BBHIQQBBHHHIIIHxx")
_PACKET_OUT = struct.Struct("!BBHIIIH6x")
_PACKET_IN = struct.Struct("!BBHIIHBBQHHII")
_PACKET_IN_VALUE = struct.Struct("!IQ")
_PACKET_IN_TUNNEL = struct.Struct("!IQI4sI4sIQ")
_FLOW_STATS = struct.Struct("!HBxIIHHHH4xQQQ")
_FLOW_REMOVED = struct.Struct("!QHBBIIHHQQ")
_FLOW_STATS_REQUEST = struct.Struct("!HH4xB3xII4xQQ")
_MULTIPART = struct.Struct("!HH4x")
_PORT = struct.Struct("!I4x6s2x16sII24x")
_ALL_TABLES = 0xFF
_EMPTY_MATCH = encode_match(())
_PORT_DOWN = _LINK_DOWN = 1
_IN_PORT_OXM, _METADATA_OXM, _TUN_ID_OXM = 0x80000004, 0x80000408, 0x80004C08
_TUNNEL_OXMS = (_TUN_ID_OXM, 0x00013E04, 0x00014004, _METADATA_OXM)
#: Open vSwitch's OFPC_FRAG_NX_MATCH: flows see the layer 4 of a first fragment, and with it what is forged in pieces.
FIRST_FRAGMENTS = 3


# --- to the switch ------------------------------------------------------------------------------------------
def encode_flow_mods(changes: Iterable[FlowChange], xid: int) -> bytes:
    """Flow mods, one after another, with transaction ids from ``xid`` upwards, so that an error names the one refused.

    ``add`` replaces an entry of equal key; OVS keeps that entry's counters and starts its age anew.
    ``delete`` removes the entry of exactly this key, whatever its cookie. A flow with an idle timeout asks
    for a flow-removed message.
    """
    parts: list[bytes] = []
    for number, (op, flow) in enumerate(changes, xid):
        table, priority, match, actions, goto, write_metadata, cookie, idle_timeout = flow
        body = encode_match(match)
        if op == "add":
            command, flags = FC_ADD, FF_SEND_FLOW_REM if idle_timeout else 0
            body += encode_instructions(actions, goto, write_metadata)
        elif op == "delete":
            command, flags, cookie, idle_timeout = FC_DELETE_STRICT, 0, 0, 0
        else:
            raise ValueError(f"no such flow change: {op!r}")
        length = 48 + len(body)
        if length > MAX_MESSAGE:
            raise ValueError(f"flow needs {length} bytes")
        parts.append(
            _FLOW_MOD.pack(
                VERSION,
                FLOW_MOD,
                length,
                number,
                cookie,
                0,
                table,
                command,
                idle_timeout,
                0,
                priority,
                NO_BUFFER,
                ANY,
                ANY,
                flags,
            )
        )
        parts.append(body)
    return b"".join(parts)


def encode_hello(xid: int) -> bytes:
    """A hello that offers version 1.3 by version field and bitmap."""
    return message(HELLO, xid, b"\0\1\0\x08\0\0\0\x10")


def encode_barrier(xid: int) -> bytes:
    """A barrier request."""
    return HEADER.pack(VERSION, BARRIER_REQUEST, 8, xid)


def encode_echo_request(xid: int, data: bytes = b"") -> bytes:
    """An echo request; the reply returns ``data``."""
    return message(ECHO_REQUEST, xid, data)


def encode_echo_reply(xid: int, data: bytes = b"") -> bytes:
    """The answer to an echo request: its xid and its data."""
    return message(ECHO_REPLY, xid, data)


def packet_out_prefix(in_port: int, actions: tuple[Action, ...], frame_len: int, xid: int = 0) -> bytes:
    """All of a packet-out but its frame of ``frame_len`` bytes: ``prefix + frame`` is the message."""
    encoded = encode_actions(actions)
    length = 24 + len(encoded) + frame_len
    if length > MAX_MESSAGE:
        raise ValueError(f"packet-out of {length} bytes")
    return _PACKET_OUT.pack(VERSION, PACKET_OUT, length, xid, NO_BUFFER, in_port, len(encoded)) + encoded


def encode_packet_out(in_port: int, actions: tuple[Action, ...], frame: bytes, xid: int = 0) -> bytes:
    """A packet-out of ``frame`` as if it had come in on ``in_port``."""
    return packet_out_prefix(in_port, actions, len(frame), xid) + frame


def encode_flow_stats_request(xid: int, cookie: int = 0, cookie_mask: int = 0) -> bytes:
    """Ask for all flows of all tables whose cookie equals ``cookie`` under ``cookie_mask``."""
    body = _FLOW_STATS_REQUEST.pack(MP_FLOW, 0, _ALL_TABLES, ANY, ANY, cookie, cookie_mask)
    return message(MULTIPART_REQUEST, xid, body + _EMPTY_MATCH)


def encode_port_desc_request(xid: int) -> bytes:
    """Ask for all ports."""
    return message(MULTIPART_REQUEST, xid, _MULTIPART.pack(MP_PORT_DESC, 0))


def encode_set_config(xid: int, miss_send_len: int = 0xFFFF, flags: int = FIRST_FRAGMENTS) -> bytes:
    """Set how much of a packet that matches no flow is sent: 0xFFFF is all, unbuffered. ``flags``: of fragments."""
    return message(SET_CONFIG, xid, struct.pack("!HH", flags, miss_send_len))


def encode_set_async(xid: int, packet_in: int = 0b11, port_status: int = 0b111, flow_removed: int = 0b11) -> bytes:
    """Choose asynchronous messages, as bit masks of reasons, for every role but slave.

    The default leaves out flow-removed messages of deletions: those were ours to begin with.
    """
    return message(SET_ASYNC, xid, struct.pack("!6I", packet_in, 0, port_status, port_status, flow_removed, 0))


# --- from the switch ----------------------------------------------------------------------------------------
class PacketIn(NamedTuple):
    """A packet that a switch handed over.

    ``reason``: ofp_packet_in_reason. ``cookie``: that of the flow that did it (all ones: none). ``tun_id``,
    ``tun_src`` (4 or 16 bytes): tunnel key and sender's underlay address, None if it came in on no tunnel.
    ``metadata``: what the tables have written.
    """

    reason: int
    table: int
    cookie: int
    in_port: int
    tun_id: int | None
    tun_src: bytes | None
    frame: bytes
    metadata: int = 0


def decode_packet_in(buf: bytes) -> PacketIn:
    """An ofp_packet_in (section 7.4.1).

    The shapes that Open vSwitch gives the match of a packet from a port, alone or with tunnel key or metadata
    that the tables have set, and of one from a tunnel over IPv4 with metadata are sliced in place; any other is
    walked.
    """
    try:
        version, kind, length, _, _, _, reason, table, cookie, match_type, match_len, oxm, in_port = (
            _PACKET_IN.unpack_from(buf)
        )
    except struct.error:
        raise DecodeError("packet-in is cut short", "of-truncated") from None
    if kind != PACKET_IN or version != VERSION or length != len(buf):
        check(buf, PACKET_IN, 42)
    if match_type == 1 and oxm == _IN_PORT_OXM:
        if match_len == 12:
            if length < 42:
                raise DecodeError("packet-in is cut short", "of-truncated")
            return PacketIn(reason, table, cookie, in_port, None, None, buf[42:])
        if match_len == 24 and length >= 50:
            oxm, value = _PACKET_IN_VALUE.unpack_from(buf, 36)
            if oxm == _TUN_ID_OXM:
                return PacketIn(reason, table, cookie, in_port, value, None, buf[50:])
            if oxm == _METADATA_OXM:
                return PacketIn(reason, table, cookie, in_port, None, None, buf[50:], value)
        elif match_len == 52 and length >= 82:
            oxm, tun_id, src_oxm, tun_src, dst_oxm, _, last_oxm, metadata = _PACKET_IN_TUNNEL.unpack_from(buf, 36)
            if (oxm, src_oxm, dst_oxm, last_oxm) == _TUNNEL_OXMS:
                return PacketIn(reason, table, cookie, in_port, tun_id, tun_src, buf[82:], metadata)
    return _walk_packet_in(buf, reason, table, cookie)


def _walk_packet_in(buf: bytes, reason: int, table: int, cookie: int) -> PacketIn:
    match, after = decode_match(buf, 24, len(buf))
    if len(buf) < after + 2:
        raise DecodeError("packet-in is cut short", "of-truncated")
    fields = {name: value for name, value, mask in match if mask is None}
    in_port = fields.get("in_port")
    if in_port is None:
        raise DecodeError("packet-in does not say where from", "of-match")
    tun_id = fields.get("tun_id")
    tun_src = fields.get("tun_ipv4_src") or fields.get("tun_ipv6_src")
    if tun_src is not None and tun_id is None:
        tun_id = bytes(8)  # a field that is zero may be left out
    return PacketIn(
        reason,
        table,
        cookie,
        int.from_bytes(in_port, "big"),
        int.from_bytes(tun_id, "big") if tun_id is not None else None,
        tun_src,
        buf[after + 2 :],
        int.from_bytes(fields.get("metadata", b""), "big"),
    )


def decode_multipart(buf: bytes) -> tuple[int, bool, int]:
    """(ofp_multipart_type, whether more parts follow, xid) of a multipart reply."""
    xid = check(buf, MULTIPART_REPLY, 16)
    kind, flags = _MULTIPART.unpack_from(buf, 8)
    return kind, bool(flags & 1), xid


def decode_flow_stats(buf: bytes) -> tuple[list[FlowStats], bool]:
    """One part of a flow statistics reply, and whether more follow. A counter not kept is 2**64 - 1."""
    kind, more, _ = decode_multipart(buf)
    if kind != MP_FLOW:
        raise DecodeError("multipart reply is not of flows", "of-type", type=kind)
    flows: list[FlowStats] = []
    position, end = 16, len(buf)
    while position < end:
        if end - position < 56:
            raise DecodeError("flow statistics are cut short", "of-truncated")
        length, table, sec, nsec, priority, idle, _, _, cookie, packets, octets = _FLOW_STATS.unpack_from(buf, position)
        after = position + length
        if length < 56 or after > end:
            raise DecodeError("flow statistics entry has a wrong length", "of-length", length=length)
        match, body = decode_match(buf, position + 48, after)
        actions, goto, write_metadata = decode_instructions(buf[body:after])
        flow = Flow(table, priority, match, actions, goto, write_metadata, cookie, idle)
        flows.append(FlowStats(flow, packets, octets, sec + nsec / 1e9))
        position = after
    return flows, more


class FlowRemoved(NamedTuple):
    """A flow has left a switch: its key, cookie and idle timeout, ofp_flow_removed_reason, counters."""

    flow: Flow
    reason: int
    packets: int
    bytes: int
    age: float


def decode_flow_removed(buf: bytes) -> FlowRemoved:
    """An ofp_flow_removed (section 7.4.2)."""
    check(buf, FLOW_REMOVED, 56)
    cookie, priority, reason, table, sec, nsec, idle, _, packets, octets = _FLOW_REMOVED.unpack_from(buf, 8)
    match, _ = decode_match(buf, 48, len(buf))
    flow = Flow(table, priority, match, cookie=cookie, idle_timeout=idle)
    return FlowRemoved(flow, reason, packets, octets, sec + nsec / 1e9)


class ErrorReply(NamedTuple):
    """An error: ofp_error_type and code, xid, xid of what failed (None: not quoted), the quote."""

    type: int
    code: int
    xid: int
    failed_xid: int | None
    data: bytes


def decode_error(buf: bytes) -> ErrorReply:
    """An ofp_error_msg (section 7.5.4); of an experimenter's error, ``code`` is its exp_type."""
    xid = check(buf, ERROR, 12)
    kind, code = struct.unpack_from("!HH", buf, 8)
    data = buf[16:] if kind == 0xFFFF else buf[12:]
    quoted = kind != 0 and len(data) >= 8 and data[0] == VERSION  # a failed hello quotes text
    return ErrorReply(kind, code, xid, int.from_bytes(data[4:8], "big") if quoted else None, data)


def refused_cookie(error: ErrorReply) -> int | None:
    """The cookie of the flow mod that an error quotes; None if it quotes another message, or too little."""
    if len(error.data) < 16 or error.data[:2] != bytes([VERSION, FLOW_MOD]):
        return None
    return int.from_bytes(error.data[8:16], "big")


def decode_port(buf: bytes, offset: int) -> PortInfo:
    """The ofp_port at ``offset``. ``up``: neither the link nor, by the administrator, the port is down."""
    number, _, name, config, state = _PORT.unpack_from(buf, offset)
    text = name.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    return PortInfo(number, text, not (config & _PORT_DOWN or state & _LINK_DOWN))


def decode_port_desc(buf: bytes) -> list[PortInfo]:
    """One part of a port description reply."""
    kind, _, _ = decode_multipart(buf)
    if kind != MP_PORT_DESC:
        raise DecodeError("multipart reply is not of ports", "of-type", type=kind)
    if (len(buf) - 16) % 64:
        raise DecodeError("port description has a wrong length", "of-length", length=len(buf))
    return [decode_port(buf, offset) for offset in range(16, len(buf), 64)]


def decode_port_status(buf: bytes) -> tuple[int, PortInfo]:
    """(ofp_port_reason, port) of an ofp_port_status (section 7.4.3)."""
    check(buf, PORT_STATUS, 80)
    if len(buf) != 80:
        raise DecodeError("port status has a wrong length", "of-length", length=len(buf))
    return buf[8], decode_port(buf, 16)


__all__ = [
    "ErrorReply",
    "FlowRemoved",
    "Header",
    "PacketIn",
    "decode_error",
    "decode_flow_removed",
    "decode_flow_stats",
    "decode_header",
    "decode_multipart",
    "decode_packet_in",
    "decode_port",
    "decode_port_desc",
    "decode_port_status",
    "encode_barrier",
    "encode_echo_reply",
    "encode_echo_request",
    "encode_flow_mods",
    "encode_flow_stats_request",
    "encode_hello",
    "encode_packet_out",
    "encode_port_desc_request",
    "encode_set_async",
    "encode_set_config",
    "packet_out_prefix",
    "refused_cookie",
]
