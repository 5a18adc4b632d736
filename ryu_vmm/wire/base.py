"""What all OpenFlow 1.3 messages share: framing, the header and the numbers (OpenFlow 1.3.5, section 7)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..errors import DecodeError

VERSION = 4
#: Largest message: the header's length field has 16 bits.
MAX_MESSAGE = 0xFFFF

# Message types, ofp_type
HELLO = 0
ERROR = 1
ECHO_REQUEST = 2
ECHO_REPLY = 3
EXPERIMENTER = 4
FEATURES_REQUEST = 5
FEATURES_REPLY = 6
GET_CONFIG_REQUEST = 7
GET_CONFIG_REPLY = 8
SET_CONFIG = 9
PACKET_IN = 10
FLOW_REMOVED = 11
PORT_STATUS = 12
PACKET_OUT = 13
FLOW_MOD = 14
MULTIPART_REQUEST = 18
MULTIPART_REPLY = 19
BARRIER_REQUEST = 20
BARRIER_REPLY = 21
ROLE_REQUEST = 24
ROLE_REPLY = 25
SET_ASYNC = 28
METER_MOD = 29

# Multipart types, ofp_multipart_type
MP_DESC = 0
MP_FLOW = 1
MP_PORT_STATS = 4
MP_METER = 9
MP_METER_CONFIG = 10
MP_METER_FEATURES = 11
MP_PORT_DESC = 13

# Flow mod commands and flags
FC_ADD = 0
FC_MODIFY = 1
FC_MODIFY_STRICT = 2
FC_DELETE = 3
FC_DELETE_STRICT = 4
FF_SEND_FLOW_REM = 1

# Reasons
PORT_ADD, PORT_DELETE, PORT_MODIFY = 0, 1, 2
REMOVED_IDLE, REMOVED_HARD, REMOVED_DELETE = 0, 1, 2
REASON_NO_MATCH, REASON_ACTION = 0, 1

# Reserved ports
PORT_CONTROLLER = 0xFFFFFFFD
PORT_LOCAL = 0xFFFFFFFE
ANY = 0xFFFFFFFF
NO_BUFFER = 0xFFFFFFFF

HEADER = struct.Struct("!BBHI")


class Header(NamedTuple):
    """ofp_header: protocol version, ofp_type, length in bytes with the header, transaction id."""

    version: int
    type: int
    length: int
    xid: int


def decode_header(buf: bytes | bytearray | memoryview, offset: int = 0) -> Header:
    """The header at ``offset``; the message itself may not have arrived in full.

    Raises:
        DecodeError: fewer than 8 bytes (``of-truncated``), or a length below 8: framing is lost
            (``of-framing``).
    """
    try:
        header = Header._make(HEADER.unpack_from(buf, offset))
    except struct.error:
        raise DecodeError("OpenFlow header is cut short", "of-truncated") from None
    if header.length < 8:
        raise DecodeError("OpenFlow message claims to be shorter than its header", "of-framing")
    return header


def check(buf: bytes, kind: int, least: int) -> int:
    """Verify that ``buf`` is one whole 1.3 message of type ``kind`` and ``least`` bytes or more; its xid.

    Raises:
        DecodeError: with cause ``of-truncated``, ``of-version``, ``of-type`` or ``of-length``.
    """
    if len(buf) < least:
        raise DecodeError("OpenFlow message is cut short", "of-truncated", type=kind)
    version, found, length, xid = HEADER.unpack_from(buf)
    if version != VERSION:
        raise DecodeError("OpenFlow message is not of version 1.3", "of-version", version=version)
    if found != kind:
        raise DecodeError("OpenFlow message is of another type", "of-type", type=found)
    if length != len(buf):
        raise DecodeError("OpenFlow message's length field is wrong", "of-length", length=length)
    return int(xid)


def message(kind: int, xid: int, body: bytes = b"") -> bytes:
    """A message from its body.

    Raises:
        ValueError: it would exceed :data:`MAX_MESSAGE` bytes.
    """
    length = 8 + len(body)
    if length > MAX_MESSAGE:
        raise ValueError(f"OpenFlow message of {length} bytes")
    return HEADER.pack(VERSION, kind, length, xid) + body
