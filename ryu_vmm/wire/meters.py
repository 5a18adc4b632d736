"""Meters of OpenFlow 1.3 (section 5.7): those that only count (flows.Meter), and those that limit (limits.py)."""

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
METER_MOD_FAILED, METER_EXISTS = 12, 1
_ALL = 0xFFFFFFFF
_NO_LIMIT = 0xFFFFFFFF
_PACKETS_PER_SECOND, _STATISTICS = 2, 8


def encode_meter_add(meter: int, xid: int, again: bool = False, rate: int = 0) -> bytes:
    """Make a meter; ``again``: one of that number is there, and is to count from zero.

    ``rate``: packets per second that it lets pass, and as many at once; what is more is dropped. 0: it only counts.
    """
    limit = rate or _NO_LIMIT
    band = _BAND_DROP.pack(1, 16, limit, limit)
    return message(METER_MOD, xid, _METER_MOD.pack(_MODIFY if again else _ADD, _FLAGS, meter) + band)


def decode_refused(message: bytes) -> int | None:
    """The meter that a change with these first bytes was to make or modify; None: it was no such change."""
    if len(message) < 16 or message[1] != METER_MOD:
        return None
    command, _, meter = _METER_MOD.unpack_from(message, 8)
    return None if command == _DELETE else int(meter)


def encode_meter_delete(meter: int, xid: int) -> bytes:
    """Remove a meter. A switch removes the flows that use it as well, so these must go first."""
    return message(METER_MOD, xid, _METER_MOD.pack(_DELETE, 0, meter))


def encode_meter_stats_request(xid: int, meter: int = _ALL) -> bytes:
    """Ask what a meter has counted, or all of them."""
    return message(MULTIPART_REQUEST, xid, _REQUEST_ONE.pack(MP_METER, 0, meter))


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


def decode_meter_config(buf: bytes) -> tuple[dict[int, int | None], bool]:
    """One part of a meter configuration reply: meter -> rate, and whether more follow.

    The rate is as in :func:`encode_meter_add`, None for a meter that is none of those. Raises DecodeError.
    """
    body, more = _body(buf, MP_METER_CONFIG)
    found: dict[int, int | None] = {}
    position = 0
    while position < len(body):
        if len(body) - position < _CONFIG.size:
            raise DecodeError("meter configuration is cut short", "of-truncated")
        length, flags, meter = _CONFIG.unpack_from(body, position)
        if length < _CONFIG.size or position + length > len(body):
            raise DecodeError("meter configuration entry has a wrong length", "of-length", length=length)
        found[meter] = _rate(flags, body[position + _CONFIG.size : position + length])
        position += length
    return found, more


def _rate(flags: int, bands: bytes) -> int | None:
    if len(bands) != _BAND_DROP.size or flags & 7 != _FLAGS & 7:
        return None
    kind, _, rate, burst = _BAND_DROP.unpack(bands)
    if kind != 1 or rate != burst:
        return None
    return 0 if rate == _NO_LIMIT else int(rate)


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
