"""Matches, instructions and actions (OpenFlow 1.3.5, 7.2.3 to 7.2.5) as :mod:`ryu_vmm.flows` values.

What :mod:`ryu_vmm.flows` has no word for decodes to something comparable that encodes back to the same bytes,
so a foreign flow can be compared and even deleted:

* an unknown match field is named ``oxm_CCCC_FF`` (class and field in hexadecimal; ``oxm_ffff_FF_XXXXXXXX``
  with the experimenter's number);
* an unknown action is ``SetField("action_TTTT", body)``, an unknown instruction
  ``SetField("instruction_TTTT", body)`` at the end of the actions; ``body`` is all that follows type and
  length.

Decoding is canonical: fields in the order of ``flows.FIELDS`` (unknown ones by name behind), an all-ones mask
is no mask, an all-zeros mask no field, and value bits outside the mask are zero.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from ..errors import DecodeError
from ..flows import FIELDS, Action, CheckLarger, Copy, DecTtl, Match, MatchItem, Meter, Output, SetField, ToNva
from .base import MAX_MESSAGE, PORT_CONTROLLER

_U32 = struct.Struct("!I")
_TYPE_LEN = struct.Struct("!HH")
_OUTPUT = struct.Struct("!HHIH6x")
_GOTO = struct.Struct("!HHB3x")
_METADATA = struct.Struct("!HH4xQQ")
_METER = struct.Struct("!HHI")
_METER_INSTRUCTION = 6
_DEC_TTL = struct.pack("!HH4x", 24, 8)
# NXAST_CHECK_PKT_LARGER: type len vendor subtype, length; then bit 0 of NXM_NX_REG0
_CHECK_LARGER = struct.Struct("!HHIHH12s")
_CHECK_LARGER_HEAD = (0xFFFF, 24, 0x00002320, 49)
_INTO_REG0 = bytes.fromhex("0000 00010004") + bytes(6)
# NXAST_REG_MOVE: type len vendor subtype, bits; the first bit at the source and at the target, and their headers.
# Open vSwitch reports the fields by the numbers they had before OpenFlow 1.2, so these are sent as well.
_COPY = struct.Struct("!HHIHHHHII")
_COPY_HEAD = (0xFFFF, 24, 0x00002320, 6)

_GOTO_TABLE, _WRITE_METADATA, _APPLY_ACTIONS = 1, 2, 4
_ACTION_OUTPUT, _ACTION_SET_FIELD = 0, 25
_EXPERIMENTER = 0xFFFF


def _oxm_header(oxm_class: int, field: int, masked: bool, size: int) -> int:
    return oxm_class << 16 | field << 9 | masked << 8 | size


_RANK = {name: rank for rank, name in enumerate(FIELDS)}
_EXACT = {name: _U32.pack(_oxm_header(*spec[:2], False, spec.width)) for name, spec in FIELDS.items()}
_MASKED = {name: _U32.pack(_oxm_header(*spec[:2], True, 2 * spec.width)) for name, spec in FIELDS.items()}
#: OXM header -> (name, width if masked else 0)
_KNOWN = {
    **{_U32.unpack(header)[0]: (name, 0) for name, header in _EXACT.items()},
    **{_U32.unpack(header)[0]: (name, FIELDS[name].width) for name, header in _MASKED.items()},
}
_NAMED = {(spec.oxm_class, spec.oxm_field): name for name, spec in FIELDS.items()}
_BEFORE_OXM = {
    "eth_dst": (0, 1), "eth_src": (0, 2), "arp_op": (0, 15), "arp_spa": (0, 16), "arp_tpa": (0, 17),
    "reg0": (1, 0), "reg1": (1, 1), "arp_sha": (1, 17), "arp_tha": (1, 18), "ipv6_src": (1, 19),
    "ipv6_dst": (1, 20), "nd_target": (1, 23), "nd_sll": (1, 24), "nd_tll": (1, 25),
}  # fmt: skip
#: The fields that a copy may read or write, and the header of each.
COPIED = {name: _oxm_header(*number, False, FIELDS[name].width) for name, number in _BEFORE_OXM.items()}
_COPIED = {header: name for name, header in COPIED.items()}
_PAD = tuple(bytes(-size % 8) for size in range(8))


# --- matches ------------------------------------------------------------------------------------------------
def encode_match(match: Match) -> bytes:
    """ofp_match with its padding."""
    parts: list[bytes] = []
    for name, value, mask in match:
        exact = _EXACT.get(name)
        if exact is None:
            parts.append(_foreign_oxm(name, value, mask))
        elif mask is None:
            parts += (exact, value)
        else:
            parts += (_MASKED[name], value, mask)
    oxms = b"".join(parts)
    size = 4 + len(oxms)
    return b"\0\1" + size.to_bytes(2, "big") + oxms + _PAD[size & 7]


def decode_match(buf: bytes, offset: int, end: int) -> tuple[Match, int]:
    """The ofp_match at ``offset``, and where what follows its padding begins (at most ``end``).

    Raises:
        DecodeError: cause ``of-match``.
    """
    if end - offset < 8:
        raise DecodeError("match is cut short", "of-match")
    kind, size = _TYPE_LEN.unpack_from(buf, offset)
    after = offset + ((size + 7) & ~7)
    if kind != 1 or size < 4 or after > end:
        raise DecodeError("match is not a well-formed OXM match", "of-match", type=kind, length=size)
    return decode_oxms(buf, offset + 4, offset + size), after


def decode_oxms(buf: bytes, offset: int, end: int) -> Match:
    """The canonical match of the OXM list in ``buf[offset:end]``. Raises DecodeError (``of-match``)."""
    items: list[MatchItem] = []
    foreign = False
    position = offset
    while position < end:
        if end - position < 4:
            raise DecodeError("match field's header is cut short", "of-match")
        (header,) = _U32.unpack_from(buf, position)
        start = position + 4
        position = start + (header & 0xFF)
        if position > end:
            raise DecodeError("match field is cut short", "of-match", header=header)
        known = _KNOWN.get(header)
        if known is None:
            foreign = True
            item = _foreign_item(header, buf[start:position])
        elif not (width := known[1]):
            items.append((known[0], buf[start:position], None))
            continue
        else:
            item = _masked(known[0], buf[start : start + width], buf[start + width : position])
        if item is not None:
            items.append(item)
    if len(items) > 1:
        if foreign:
            items.sort(key=lambda item: (_RANK.get(item[0], len(_RANK)), item[0]))
        else:
            items.sort(key=_rank)
        if len({item[0] for item in items}) != len(items):
            raise DecodeError("match names a field twice", "of-match")
    return tuple(items)


def _rank(item: MatchItem) -> int:
    return _RANK[item[0]]


def _masked(name: str, value: bytes, mask: bytes) -> MatchItem | None:
    """The canonical form of a masked field; None if the mask lets anything through."""
    bits = int.from_bytes(mask, "big")
    if bits == 0:
        return None
    width = len(mask)
    if bits == (1 << (8 * width)) - 1:
        return (name, value, None)
    return (name, (int.from_bytes(value, "big") & bits).to_bytes(width, "big"), mask)


def _foreign_item(header: int, payload: bytes) -> MatchItem | None:
    oxm_class, field, masked = header >> 16, header >> 9 & 0x7F, header >> 8 & 1
    if (oxm_class, field) in _NAMED:
        raise DecodeError("match field has a wrong length", "of-match", field=_NAMED[oxm_class, field])
    name = f"oxm_{oxm_class:04x}_{field:02x}"
    if oxm_class == _EXPERIMENTER:
        if len(payload) < 4:
            raise DecodeError("experimenter match field is cut short", "of-match")
        name += f"_{payload[:4].hex()}"
        payload = payload[4:]
    if not masked:
        return (name, payload, None)
    if len(payload) % 2:
        raise DecodeError("masked match field of odd length", "of-match", field=name)
    half = len(payload) // 2
    return _masked(name, payload[:half], payload[half:])


def _foreign_oxm(name: str, value: bytes, mask: bytes | None) -> bytes:
    try:
        prefix, oxm_class, field, *experimenter = name.split("_")
        if prefix != "oxm":
            raise ValueError(name)
        payload = b"".join(bytes.fromhex(part) for part in experimenter) + value + (mask or b"")
        header = _oxm_header(int(oxm_class, 16), int(field, 16), mask is not None, len(payload))
        return _U32.pack(header) + payload
    except (ValueError, struct.error):
        raise ValueError(f"no such match field: {name}") from None


# --- actions ------------------------------------------------------------------------------------------------
def encode_actions(actions: tuple[Action, ...]) -> bytes:
    """A list of ofp_action."""
    return b"".join([_encode_action(action) for action in actions])


def _encode_action(action: Action) -> bytes:
    if isinstance(action, Output):
        return _OUTPUT.pack(_ACTION_OUTPUT, 16, action.port, 0)
    if isinstance(action, ToNva):
        return _OUTPUT.pack(_ACTION_OUTPUT, 16, PORT_CONTROLLER, action.max_len)
    if isinstance(action, Meter):
        raise ValueError("a meter is an instruction of a flow, not an action of a packet-out")
    if isinstance(action, DecTtl):
        return _DEC_TTL
    if isinstance(action, CheckLarger):
        if not 0 <= action.length <= 0xFFFF:
            raise ValueError(f"no packet is larger than {action.length} bytes")
        return _CHECK_LARGER.pack(*_CHECK_LARGER_HEAD, action.length, _INTO_REG0)
    if isinstance(action, Copy):
        return _encode_copy(action)
    name, value = action
    if name.startswith("action_"):
        return _TYPE_LEN.pack(int(name[7:], 16), 4 + len(value)) + value
    exact = _EXACT.get(name)
    oxm = exact + value if exact is not None else _foreign_oxm(name, value, None)
    size = 4 + len(oxm)
    return _TYPE_LEN.pack(_ACTION_SET_FIELD, (size + 7) & ~7) + oxm + _PAD[size & 7]


@lru_cache(maxsize=64)
def _encode_copy(action: Copy) -> bytes:
    source, target = COPIED.get(action.source), COPIED.get(action.target)
    if source is None or target is None or source & 0xFF != target & 0xFF:
        raise ValueError(f"{action.source} cannot be copied into {action.target}")
    return _COPY.pack(*_COPY_HEAD, 8 * (source & 0xFF), 0, 0, source, target)


@lru_cache(maxsize=4096)
def decode_actions(buf: bytes) -> tuple[Action, ...]:
    """The actions that ``buf`` consists of. Raises DecodeError (``of-action``)."""
    actions: list[Action] = []
    position, end = 0, len(buf)
    while position < end:
        if end - position < 8:
            raise DecodeError("action is cut short", "of-action")
        kind, size = _TYPE_LEN.unpack_from(buf, position)
        after = position + size
        if size < 8 or size % 8 or after > end:
            raise DecodeError("action has a wrong length", "of-action", type=kind, length=size)
        if kind == _ACTION_OUTPUT:
            if size != 16:
                raise DecodeError("output action has a wrong length", "of-action", length=size)
            _, _, port, max_len = _OUTPUT.unpack_from(buf, position)
            actions.append(ToNva(max_len) if port == PORT_CONTROLLER else Output(port))
        elif kind == _ACTION_SET_FIELD:
            actions.append(_decode_set_field(buf, position + 4, after))
        else:
            actions.append(_decode_other(buf[position:after]))
        position = after
    return tuple(actions)


def _decode_other(raw: bytes) -> Action:
    """Those of one shape only; anything else stays what it is."""
    if raw == _DEC_TTL:
        return DecTtl()
    if len(raw) == _CHECK_LARGER.size:
        *head, length, destination = _CHECK_LARGER.unpack(raw)
        if tuple(head) == _CHECK_LARGER_HEAD and destination == _INTO_REG0:
            return CheckLarger(length)
        *_, source, target = _COPY.unpack(raw)
        if source in _COPIED and target in _COPIED and source & 0xFF == target & 0xFF:
            copy = Copy(_COPIED[source], _COPIED[target])
            if _encode_copy(copy) == raw:  # anything but a whole field is another action
                return copy
    return SetField(f"action_{raw[:2].hex()}", raw[4:])


def _decode_set_field(buf: bytes, start: int, after: int) -> SetField:
    (header,) = _U32.unpack_from(buf, start)
    end = start + 4 + (header & 0xFF)
    if end > after or after - end > 7 or header >> 8 & 1:
        raise DecodeError("set-field action is malformed", "of-action", header=header)
    known = _KNOWN.get(header)
    if known is not None:
        return SetField(known[0], buf[start + 4 : end])
    item = _foreign_item(header, buf[start + 4 : end])
    assert item is not None  # without a mask there always is one
    return SetField(item[0], item[1])


# --- instructions -------------------------------------------------------------------------------------------
class Instructions(NamedTuple):
    """What a flow does, in the terms of :class:`ryu_vmm.flows.Flow`."""

    actions: tuple[Action, ...]
    goto: int | None
    write_metadata: int


def encode_instructions(actions: tuple[Action, ...], goto: int | None, write_metadata: int) -> bytes:
    """A list of ofp_instruction: apply-actions, write-metadata (mask = value), goto-table, as needed."""
    applied: list[bytes] = []
    extra: list[bytes] = []
    for action in actions:
        if isinstance(action, Meter):
            extra.append(_METER.pack(_METER_INSTRUCTION, 8, action.id))
        elif isinstance(action, SetField) and action.field.startswith("instruction_"):
            kind = int(action.field[12:], 16)
            extra.append(_TYPE_LEN.pack(kind, 4 + len(action.value)) + action.value)
        else:
            applied.append(_encode_action(action))
    parts: list[bytes] = []
    if applied:
        body = b"".join(applied)
        if len(body) > MAX_MESSAGE - 8:
            raise ValueError(f"actions of {len(body)} bytes")
        parts += (_TYPE_LEN.pack(_APPLY_ACTIONS, 8 + len(body)), b"\0\0\0\0", body)
    parts += extra
    if write_metadata:
        parts.append(_METADATA.pack(_WRITE_METADATA, 24, write_metadata, write_metadata))
    if goto is not None:
        parts.append(_GOTO.pack(_GOTO_TABLE, 8, goto))
    return b"".join(parts)


@lru_cache(maxsize=8192)
def decode_instructions(buf: bytes) -> Instructions:
    """The instructions that ``buf`` consists of. Raises DecodeError (``of-instruction``, ``of-action``)."""
    actions: tuple[Action, ...] = ()
    meter: tuple[Action, ...] = ()
    foreign: list[Action] = []
    goto: int | None = None
    write_metadata = 0
    seen: set[int] = set()
    position, end = 0, len(buf)
    while position < end:
        if end - position < 8:
            raise DecodeError("instruction is cut short", "of-instruction")
        kind, size = _TYPE_LEN.unpack_from(buf, position)
        after = position + size
        if size < 8 or size % 8 or after > end:
            raise DecodeError("instruction has a wrong length", "of-instruction", type=kind, length=size)
        if kind in seen:
            raise DecodeError("instruction is there twice", "of-instruction", type=kind)
        seen.add(kind)
        if kind == _APPLY_ACTIONS:
            actions = decode_actions(buf[position + 8 : after])
        elif kind == _GOTO_TABLE and size == 8:
            goto = buf[position + 4]
        elif kind == _METER_INSTRUCTION and size == 8:
            meter = (Meter(int.from_bytes(buf[position + 4 : after], "big")),)
        elif (
            kind == _WRITE_METADATA
            and size == 24
            and (
                (value := int.from_bytes(buf[position + 8 : position + 16], "big"))
                == int.from_bytes(buf[position + 16 : after], "big")
            )
        ):
            write_metadata = value
        elif kind == _GOTO_TABLE or (kind == _WRITE_METADATA and size != 24):
            raise DecodeError("instruction has a wrong length", "of-instruction", type=kind, length=size)
        else:
            foreign.append(SetField(f"instruction_{kind:04x}", buf[position + 4 : after]))
        position = after
    return Instructions((*meter, *actions, *foreign), goto, write_metadata)
