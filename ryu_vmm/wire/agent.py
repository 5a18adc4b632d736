"""The switch's side of OpenFlow 1.3, for emulated switches and tests: what :mod:`.openflow` is a peer of."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..errors import DecodeError
from ..events import PortInfo
from ..flows import Action, Flow, FlowStats, Match, PortCounts
from .base import (
    ANY,
    BARRIER_REPLY,
    ERROR,
    FEATURES_REPLY,
    FF_SEND_FLOW_REM,
    FLOW_MOD,
    FLOW_REMOVED,
    GET_CONFIG_REPLY,
    HEADER,
    MAX_MESSAGE,
    MP_DESC,
    MP_FLOW,
    MP_PORT_DESC,
    MP_PORT_STATS,
    MULTIPART_REPLY,
    MULTIPART_REQUEST,
    NO_BUFFER,
    PACKET_IN,
    PACKET_OUT,
    PORT_STATUS,
    REASON_ACTION,
    REMOVED_IDLE,
    ROLE_REPLY,
    ROLE_REQUEST,
    VERSION,
    check,
    message,
)
from .oxm import decode_actions, decode_instructions, decode_match, encode_instructions, encode_match
from .ports import encode_port_stats

_FLOW_MOD = struct.Struct("!QQBBHHHIIIHxx")
_FLOW_STATS = struct.Struct("!HBxIIHHHH4xQQQ")
_FLOW_REMOVED = struct.Struct("!QHBBIIHHQQ")
_PORT = struct.Struct("!I4x6s2x16sII24x")
_PACKET_IN = struct.Struct("!IHBBQ")
_MULTIPART = struct.Struct("!HH4x")
_DESC_SIZES = (256, 256, 256, 32, 256)
_DESC = struct.Struct("!" + "".join(f"{size}s" for size in _DESC_SIZES))
#: Flow, table, port statistics; what Open vSwitch reports too.
_CAPABILITIES = 0b111


# --- from the NVA -------------------------------------------------------------------------------------------
class FlowMod(NamedTuple):
    """ofp_flow_mod_command, the flow it is about, and what only a switch asks for.

    ``cookie_mask`` and ``out_port`` narrow a deletion or modification; ``hard_timeout`` is in seconds;
    ``flags`` are ofp_flow_mod_flags.
    """

    command: int
    flow: Flow
    cookie_mask: int = 0
    out_port: int = ANY
    hard_timeout: int = 0
    flags: int = 0


def decode_flow_mod(buf: bytes) -> FlowMod:
    """An ofp_flow_mod (section 7.3.4.1)."""
    check(buf, FLOW_MOD, 56)
    cookie, mask, table, command, idle, hard, priority, _, out_port, _, flags = _FLOW_MOD.unpack_from(buf, 8)
    match, body = decode_match(buf, 48, len(buf))
    actions, goto, write_metadata = decode_instructions(buf[body:])
    flow = Flow(table, priority, match, actions, goto, write_metadata, cookie, idle)
    return FlowMod(command, flow, mask, out_port, hard, flags)


class PacketOut(NamedTuple):
    """Send ``frame`` through ``actions`` as if it had come in on ``in_port``."""

    in_port: int
    actions: tuple[Action, ...]
    frame: bytes


def decode_packet_out(buf: bytes) -> PacketOut:
    """An ofp_packet_out (section 7.3.7) that carries its frame."""
    check(buf, PACKET_OUT, 24)
    _, in_port, size = struct.unpack_from("!IIH", buf, 8)
    if 24 + size > len(buf):
        raise DecodeError("packet-out's actions are cut short", "of-action", length=size)
    return PacketOut(in_port, decode_actions(buf[24 : 24 + size]), buf[24 + size :])


def decode_multipart_request(buf: bytes) -> tuple[int, int]:
    """(ofp_multipart_type, xid) of a multipart request."""
    xid = check(buf, MULTIPART_REQUEST, 16)
    return _MULTIPART.unpack_from(buf, 8)[0], xid


class FlowStatsRequest(NamedTuple):
    """Which flows are asked for: table (0xFF: all), output port (ANY: all), cookie under mask, match."""

    table: int
    out_port: int
    cookie: int
    cookie_mask: int
    match: Match


def decode_flow_stats_request(buf: bytes) -> FlowStatsRequest:
    """An ofp_flow_stats_request (section 7.3.5.2)."""
    if decode_multipart_request(buf)[0] != MP_FLOW:
        raise DecodeError("multipart request is not for flows", "of-type")
    if len(buf) < 56:
        raise DecodeError("flow statistics request is cut short", "of-truncated")
    table, out_port, _, cookie, mask = struct.unpack_from("!B3xII4xQQ", buf, 16)
    return FlowStatsRequest(table, out_port, cookie, mask, decode_match(buf, 48, len(buf))[0])


def decode_role_request(buf: bytes) -> tuple[int, int]:
    """(ofp_controller_role, generation id) of a role request (section 7.3.9)."""
    check(buf, ROLE_REQUEST, 24)
    role, generation = struct.unpack_from("!I4xQ", buf, 8)
    return role, generation


# --- to the NVA ---------------------------------------------------------------------------------------------
def encode_features_reply(xid: int, dpid: int, tables: int = 254, buffers: int = 0) -> bytes:
    """An ofp_switch_features."""
    return message(FEATURES_REPLY, xid, struct.pack("!QIBB2xII", dpid, buffers, tables, 0, _CAPABILITIES, 0))


def encode_packet_in(
    in_port: int,
    frame: bytes,
    cookie: int = 0,
    table: int = 0,
    reason: int = REASON_ACTION,
    tun_id: int | None = None,
    tun_src: bytes | None = None,
    tun_dst: bytes | None = None,
    metadata: int = 0,
    xid: int = 0,
    reg0: int = 0,
) -> bytes:
    """An ofp_packet_in, its match in Open vSwitch's order. ``tun_src``, ``tun_dst``: 4 or 16 bytes each."""
    oxms = struct.pack("!II", 0x80000004, in_port)
    if tun_id is not None:
        oxms += struct.pack("!IQ", 0x80004C08, tun_id)
    if tun_src is not None:
        oxms += struct.pack("!I", 0x00013E04 if len(tun_src) == 4 else 0x0001DA10) + tun_src
    if tun_dst is not None:
        oxms += struct.pack("!I", 0x00014004 if len(tun_dst) == 4 else 0x0001DC10) + tun_dst
    if reg0:
        oxms += struct.pack("!II", 0x00010004, reg0)
    if metadata:
        oxms += struct.pack("!IQ", 0x80000408, metadata)
    size = 4 + len(oxms)
    body = _PACKET_IN.pack(NO_BUFFER, len(frame), reason, table, cookie)
    body += struct.pack("!HH", 1, size) + oxms + bytes(-size % 8 + 2) + frame
    return message(PACKET_IN, xid, body)


def encode_barrier_reply(xid: int) -> bytes:
    """The answer to a barrier request."""
    return HEADER.pack(VERSION, BARRIER_REPLY, 8, xid)


def encode_role_reply(xid: int, role: int, generation: int = ANY << 32 | ANY) -> bytes:
    """The answer to a role request; ``generation`` is all ones as long as nobody has set one."""
    return message(ROLE_REPLY, xid, struct.pack("!I4xQ", role, generation))


def encode_get_config_reply(xid: int, miss_send_len: int = 128, flags: int = 0) -> bytes:
    """The answer to a get-config request."""
    return message(GET_CONFIG_REPLY, xid, struct.pack("!HH", flags, miss_send_len))


def encode_desc_reply(xid: int, *texts: str) -> bytes:
    """A description: manufacturer, hardware, software, serial number, datapath; missing ones are empty."""
    fields = [text.encode()[: size - 1] for text, size in zip(texts, _DESC_SIZES, strict=False)]
    fields += [b""] * (len(_DESC_SIZES) - len(fields))
    return message(MULTIPART_REPLY, xid, _MULTIPART.pack(MP_DESC, 0) + _DESC.pack(*fields))


def encode_error(xid: int, kind: int, code: int, data: bytes = b"") -> bytes:
    """An ofp_error_msg; ``data`` is the failed message or its first 64 bytes."""
    return message(ERROR, xid, struct.pack("!HH", kind, code) + data)


def encode_port(port: PortInfo) -> bytes:
    """An ofp_port; one that is not up has its link down. The name is cut after 15 bytes, as on a switch."""
    name = port.name.encode()[:15]
    address = b"\x02" + (port.number & 0xFFFFFFFFFF).to_bytes(5, "big")
    return _PORT.pack(port.number, address, name, 0, 0 if port.up else 1)


def encode_port_status(reason: int, port: PortInfo, xid: int = 0) -> bytes:
    """An ofp_port_status."""
    return message(PORT_STATUS, xid, struct.pack("!B7x", reason) + encode_port(port))


def encode_port_desc_reply(xid: int, ports: Iterable[PortInfo]) -> bytes:
    """A port description reply in as many parts as needed."""
    return b"".join(_parts(xid, MP_PORT_DESC, [encode_port(port) for port in ports]))


def encode_flow_removed(
    flow: Flow, reason: int = REMOVED_IDLE, packets: int = 0, octets: int = 0, age: float = 0.0, xid: int = 0
) -> bytes:
    """An ofp_flow_removed."""
    seconds = int(age)
    body = _FLOW_REMOVED.pack(
        flow.cookie,
        flow.priority,
        reason,
        flow.table,
        seconds,
        int((age - seconds) * 1e9),
        flow.idle_timeout,
        0,
        packets,
        octets,
    )
    return message(FLOW_REMOVED, xid, body + encode_match(flow.match))


def encode_flow_stats(entry: FlowStats) -> bytes:
    """An ofp_flow_stats."""
    flow = entry.flow
    body = encode_match(flow.match) + encode_instructions(flow.actions, flow.goto, flow.write_metadata)
    seconds = int(entry.age)
    return (
        _FLOW_STATS.pack(
            48 + len(body),
            flow.table,
            seconds,
            int((entry.age - seconds) * 1e9),
            flow.priority,
            flow.idle_timeout,
            0,
            FF_SEND_FLOW_REM if flow.idle_timeout else 0,
            flow.cookie,
            entry.packets,
            entry.bytes,
        )
        + body
    )


def encode_flow_stats_reply(xid: int, flows: Iterable[FlowStats], more: bool = False) -> bytes:
    """A flow statistics reply in as many parts as needed; ``more``: the last part promises more too."""
    return b"".join(_parts(xid, MP_FLOW, [encode_flow_stats(entry) for entry in flows], more))


def encode_port_stats_reply(xid: int, ports: Mapping[int, PortCounts]) -> bytes:
    """A port statistics reply in as many parts as needed."""
    return b"".join(_parts(xid, MP_PORT_STATS, [encode_port_stats(n, counts) for n, counts in ports.items()]))


def _parts(xid: int, kind: int, entries: list[bytes], more: bool = False) -> Iterator[bytes]:
    """Multipart replies that hold ``entries``, no entry divided; at least one reply."""
    part: list[bytes] = []
    size = 16
    for entry in entries:
        if size + len(entry) > MAX_MESSAGE:
            yield message(MULTIPART_REPLY, xid, _MULTIPART.pack(kind, 1) + b"".join(part))
            part, size = [], 16
        part.append(entry)
        size += len(entry)
    yield message(MULTIPART_REPLY, xid, _MULTIPART.pack(kind, int(more)) + b"".join(part))


__all__ = [
    "FlowMod",
    "FlowStatsRequest",
    "PacketOut",
    "decode_flow_mod",
    "decode_flow_stats_request",
    "decode_multipart_request",
    "decode_packet_out",
    "decode_role_request",
    "encode_barrier_reply",
    "encode_desc_reply",
    "encode_error",
    "encode_features_reply",
    "encode_flow_removed",
    "encode_flow_stats",
    "encode_flow_stats_reply",
    "encode_get_config_reply",
    "encode_packet_in",
    "encode_port",
    "encode_port_desc_reply",
    "encode_port_stats_reply",
    "encode_port_status",
    "encode_role_reply",
]
