"""What tells packet-ins apart where they wait: the port they came in on, or the move they are about.

Packets that come out of a tunnel all come in on the tunnel's port. Those that the NVA is handed are about a move or a
probe, and their cookie says which: a move's packets do not wait behind another's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .tables import COOKIE_OURS, Why

# Offsets in an ofp_packet_in (section 7.4.1 of OpenFlow 1.3): its cookie, and the first field of its match.
COOKIE, WHY, COOKIE_END, FIELD, FIELD_END = 16, 18, 24, 28, 36
_IN_PORT = b"\x80\0\0\4"
_OURS = (COOKIE_OURS >> 48).to_bytes(2, "big")
#: So many packets of one port that come at once wait for their turn.
MANY = 128
#: What packets are for that are about a move or a probe (tables.Why).
OWN = frozenset(map(int, (Why.PROBE, Why.HOLD, Why.STALE, Why.REDIRECT, Why.MARK)))


def lane_of(message: bytes) -> bytes:
    """Where a packet-in waits. Any bytes will do: a switch that makes nonsense of this harms its own lanes only."""
    try:
        if message[WHY] in OWN and message[COOKIE:WHY] == _OURS:
            return message[COOKIE:COOKIE_END]
    except IndexError:
        pass  # too short to be any packet-in; whoever decodes it will say so
    return message[FIELD:FIELD_END]


def of_port(port: int) -> bytes:
    """The lane of a port."""
    return _IN_PORT + struct.pack("!I", port)


def port_of(lane: bytes) -> int | None:
    """The port of a lane; None: it is about a move or a probe."""
    if is_own(lane):
        return None
    return int.from_bytes(lane[4:], "big")


def is_own(lane: bytes) -> bool:
    """Whether a lane is about the NVA's own work."""
    return lane[:2] == _OURS


def is_flood(messages: Sequence[bytes]) -> bool:
    """Whether so many packet-ins that came together are, as a look at three of them says, of one port."""
    if len(messages) <= MANY:
        return False
    return (
        messages[0][FIELD:FIELD_END]
        == messages[len(messages) // 2][FIELD:FIELD_END]
        == messages[-1][FIELD:FIELD_END]
    )
