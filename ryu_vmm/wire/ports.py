"""Statistics of ports, OpenFlow 1.3 section 7.3.5.6: what they carried, and what they had no room for."""

from __future__ import annotations

import struct

from ..errors import DecodeError
from ..flows import PortCounts
from .base import ANY, MP_PORT_STATS, MULTIPART_REQUEST, message
from .openflow import decode_multipart

_REQUEST = struct.Struct("!HH4xI4x")
_STATS = struct.Struct("!I4x12QII")
_FIELDS = 14  # behind the number; the last four counters and the age are nothing we ask for
_NOT_KEPT = (1 << 64) - 1


def encode_port_stats_request(xid: int, port: int = ANY) -> bytes:
    """Ask what a port has counted, or all of them."""
    return message(MULTIPART_REQUEST, xid, _REQUEST.pack(MP_PORT_STATS, 0, port))


def decode_port_stats(buf: bytes) -> tuple[dict[int, PortCounts], bool]:
    """One part of a port statistics reply: port -> counters, and whether more follow.

    Raises:
        DecodeError: cause ``of-type`` or ``of-length``.
    """
    kind, more, _ = decode_multipart(buf)
    if kind != MP_PORT_STATS:
        raise DecodeError("multipart reply is not of ports' statistics", "of-type", type=kind)
    if (len(buf) - 16) % _STATS.size:
        raise DecodeError("port statistics have a wrong length", "of-length", length=len(buf))
    found: dict[int, PortCounts] = {}
    for number, *values in _STATS.iter_unpack(buf[16:]):
        found[number] = PortCounts(*(None if value == _NOT_KEPT else value for value in values[:8]))
    return found, more


def encode_port_stats(port: int, counts: PortCounts) -> bytes:
    """An ofp_port_stats; what is None is not kept."""
    values = [_NOT_KEPT if value is None else value for value in counts]
    return _STATS.pack(port, *values, *[0] * (_FIELDS - len(values)))


def decode_port_stats_request(buf: bytes) -> int:
    """The port whose statistics are asked for, ANY for all. Raises DecodeError."""
    if len(buf) < 8 + _REQUEST.size:
        raise DecodeError("port statistics request is cut short", "of-truncated")
    return int(_REQUEST.unpack_from(buf, 8)[2])
