"""The meters of an emulated switch (OpenFlow 1.3.5 section 5.7). They count; none of them limits."""

from __future__ import annotations

import struct

from ..errors import DecodeError
from ..flows import Meter
from ..wire import base as of
from .rules import Refused
from .tables import Tables

#: OFPET_METER_MOD_FAILED and its codes.
METER_MOD_FAILED = 12
METER_EXISTS, INVALID_METER, UNKNOWN_METER, OUT_OF_METERS = 1, 2, 3, 10
#: As Open vSwitch's userspace datapath has it.
HIGHEST = 262_144
ALL = 0xFFFFFFFF
_ADD, _MODIFY, _DELETE = 0, 1, 2
_MOD = struct.Struct("!HHI")
_STATS = struct.Struct("!IH6xIQQII")
_MULTIPART = struct.Struct("!HH4x")


class Meters:
    """Which meters there are, each with its configuration as it came; ``tables.meters`` has what they counted."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._made: dict[int, tuple[float, int, bytes]] = {}  # meter -> when, flags, bands
        #: so many meters it has room for
        self.room = HIGHEST

    def modify(self, message: bytes, now: float) -> None:
        """Carry out an ofp_meter_mod. Raises Refused."""
        if len(message) < 16:
            raise DecodeError("meter mod is cut short", "of-truncated")
        command, flags, meter = _MOD.unpack_from(message, 8)
        known = meter in self._made
        if command == _DELETE:
            for number in list(self._made) if meter == ALL else [meter]:
                self._remove(number)
            return
        if not 1 <= meter <= HIGHEST:
            raise Refused(f"no meter {meter}", METER_MOD_FAILED, INVALID_METER)
        if command == _ADD and known:
            raise Refused(f"meter {meter} is there", METER_MOD_FAILED, METER_EXISTS)
        if command == _MODIFY and not known:
            raise Refused(f"meter {meter} is not there", METER_MOD_FAILED, UNKNOWN_METER)
        if not known and len(self._made) >= self.room:
            raise Refused("no meter is left", METER_MOD_FAILED, OUT_OF_METERS)
        self._made[meter] = (now, flags, message[16:])
        self._tables.meters[meter] = (0, 0)

    def _remove(self, meter: int) -> None:
        if self._made.pop(meter, None) is None:
            return
        self._tables.meters.pop(meter, None)
        for entry in list(self._tables.select()):
            if entry.uses(meter):
                self._tables.delete(entry.match, entry.table, entry.priority)

    def needs(self, actions: tuple[object, ...]) -> None:
        """Refuse actions that name a meter which is not there."""
        for action in actions:
            if isinstance(action, Meter) and action.id not in self._made:
                raise Refused(f"meter {action.id} is not there", METER_MOD_FAILED, INVALID_METER)

    def reply(self, kind: int, message: bytes, now: float) -> bytes:
        """The multipart reply to a request about meters."""
        xid = int.from_bytes(message[4:8], "big")
        if kind == of.MP_METER_FEATURES:
            # drop bands; kilobits, packets, burst, statistics; as Open vSwitch's userspace datapath has it
            body = struct.pack("!IIIBB2x", HIGHEST, 1 << 1, 0b1111, 1, 0)
            return of.message(of.MULTIPART_REPLY, xid, _MULTIPART.pack(kind, 0) + body)
        wanted = int.from_bytes(message[16:20], "big") if len(message) >= 20 else ALL
        chosen = sorted(self._made) if wanted == ALL else [wanted] if wanted in self._made else []
        if wanted not in (ALL, *chosen):
            raise Refused(f"meter {wanted} is not there", METER_MOD_FAILED, UNKNOWN_METER)
        entries = [self._stats(m, now) if kind == of.MP_METER else self._config(m) for m in chosen]
        return b"".join(_parts(xid, kind, entries))

    def _stats(self, meter: int, now: float) -> bytes:
        packets, size = self._tables.meters.get(meter, (0, 0))
        age = now - self._made[meter][0]
        used = sum(entry.uses(meter) for entry in self._tables.select())
        bands = bytes(16) * (len(self._made[meter][2]) // 16)  # no band has ever been hit
        nanoseconds = int(age % 1 * 1e9)
        return _STATS.pack(meter, 40 + len(bands), used, packets, size, int(age), nanoseconds) + bands

    def _config(self, meter: int) -> bytes:
        _, flags, bands = self._made[meter]
        return _MOD.pack(8 + len(bands), flags, meter) + bands


def _parts(xid: int, kind: int, entries: list[bytes]) -> list[bytes]:
    """Multipart replies that hold ``entries``, none divided; one at least."""
    parts: list[list[bytes]] = [[]]
    size = 16
    for entry in entries:
        if size + len(entry) > of.MAX_MESSAGE:
            parts.append([])
            size = 16
        parts[-1].append(entry)
        size += len(entry)
    last = len(parts) - 1
    return [
        of.message(of.MULTIPART_REPLY, xid, _MULTIPART.pack(kind, int(n < last)) + b"".join(part))
        for n, part in enumerate(parts)
    ]
