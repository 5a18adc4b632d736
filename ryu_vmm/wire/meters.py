"""Meters of OpenFlow 1.3 (section 5.7), used to count and never to limit: see flows.Meter."""

from __future__ import annotations

import struct

from ..errors import DecodeError
from .base import (
    METER_MOD,
    MP_METER,
    MP_METER_CONFIG,
    MP_METER_FEATURES,
    MULTIPART_REQUEST,
    message,
)
from .openflow import decode_multipart

_METER_MOD = struct.Struct("!HHI")
_BAND_DROP = struct.Struct("!HHII4x")
_REQUEST = struct.Struct("!HH4x")
_REQUEST_ONE = struct.Struct("!HH4xI4x")
_STATS = struct.Struct("!IH6xIQQII")
_CONFIG = struct.Struct("!HHI")
_FEATURES = struct.Struct("!III")

_ADD, _MODIFY, _DELETE = 0, 1, 2
_FLAGS = 2 | 4 | 8  # packets per second, with burst, with statistics
_ALL = 0xFFFFFFFF
_NO_LIMIT = 0xFFFFFFFF
_PACKETS_PER_SECOND, _STATISTICS = 2, 8


def encode_meter_add(meter: int, xid: int, again: bool = False) -> bytes:
    """Make a counting meter; ``again``: one of that number is there, and is to count from zero."""
    band = _BAND_DROP.pack(1, 16, _NO_LIMIT, _NO_LIMIT)
    return message(METER_MOD, xid, _METER_MOD.pack(_MODIFY if again else _ADD, _FLAGS, meter) + band)


def encode_meter_delete(meter: int, xid: int) -> bytes:
    """Remove a meter. A switch removes the flows that use it as well, so these must go first."""
    return message(METER_MOD, xid, _METER_MOD.pack(_DELETE, 0, meter))


def encode_meter_stats_request(xid: int) -> bytes:
    """Ask what all meters have counted."""
    return message(MULTIPART_REQUEST, xid, _REQUEST_ONE.pack(MP_METER, 0, _ALL))


def encode_meter_config_request(xid: int) -> bytes:
    """Ask which meters there are."""
    return message(MULTIPART_REQUEST, xid, _REQUEST_ONE.pack(MP_METER_CONFIG, 0, _ALL))


def encode_meter_features_request(xid: int) -> bytes:
    """Ask what meters the switch could have."""
    return message(MULTIPART_REQUEST, xid, _REQUEST.pack(MP_METER_FEATURES, 0))


def decode_meter_stats(buf: bytes) -> tuple[dict[int, tuple[int, int]], bool]:
    """One part of a meter statistics reply: meter -> (packets, bytes), and whether more follow.

    Raises:
        DecodeError: cause ``of-type``, ``of-truncated`` or ``of-length``.
    """
    body, more = _body(buf, MP_METER)
    found = {}
    position = 0
    while position < len(body):
        if len(body) - position < _STATS.size:
            raise DecodeError("meter statistics are cut short", "of-truncated")
        meter, length, _, packets, size, _, _ = _STATS.unpack_from(body, position)
        if length < _STATS.size or position + length > len(body):
            raise DecodeError("meter statistics entry has a wrong length", "of-length", length=length)
        found[meter] = (packets, size)
        position += length
    return found, more


def decode_meter_config(buf: bytes) -> tuple[set[int], bool]:
    """One part of a meter configuration reply: the meters there are, and whether more follow. Raises DecodeError."""
    body, more = _body(buf, MP_METER_CONFIG)
    found = set()
    position = 0
    while position < len(body):
        if len(body) - position < _CONFIG.size:
            raise DecodeError("meter configuration is cut short", "of-truncated")
        length, _, meter = _CONFIG.unpack_from(body, position)
        if length < _CONFIG.size or position + length > len(body):
            raise DecodeError("meter configuration entry has a wrong length", "of-length", length=length)
        found.add(meter)
        position += length
    return found, more


def decode_meter_features(buf: bytes) -> int:
    """The highest number a counting meter may have; 0: the switch cannot count with meters. Raises DecodeError."""
    body, _ = _body(buf, MP_METER_FEATURES)
    if len(body) < _FEATURES.size:
        raise DecodeError("meter features are cut short", "of-truncated")
    highest, bands, capabilities = _FEATURES.unpack_from(body)
    able = bands & 2 and capabilities & _PACKETS_PER_SECOND and capabilities & _STATISTICS
    return int(highest) if able else 0


def _body(buf: bytes, wanted: int) -> tuple[bytes, bool]:
    kind, more, _ = decode_multipart(buf)
    if kind != wanted:
        raise DecodeError("multipart reply of another type", "of-type", type=kind)
    return buf[16:], more
