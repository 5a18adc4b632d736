"""What an emulated switch does wrong, on order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..wire import base as of
from .rules import FLOW_MOD_FAILED

#: What a switch says because it was asked, not by itself.
_ANSWERS = frozenset({of.ECHO_REPLY, of.BARRIER_REPLY, of.MULTIPART_REPLY, of.FEATURES_REPLY, of.ERROR})


@dataclass(slots=True)
class Faults:
    """What a switch does wrong from now on. The counts run down to zero."""

    #: Seconds that everything sent to the controller waits; order is kept.
    reply_delay: float = 0.0
    #: So many barrier requests stay without an answer.
    drop_barriers: int = 0
    #: Barrier replies are held back until there are so many, then sent in the opposite order.
    reorder_barriers: int = 0
    #: So many flow mods are answered with ``error`` (OpenFlow type, code) and not carried out.
    refuse_flow_mods: int = 0
    error: tuple[int, int] = (FLOW_MOD_FAILED, 1)  # table full
    #: Message type -> n: the n-th such message from now on (1: the next) is answered with ``error``, not carried out.
    refuse_nth: dict[int, int] = field(default_factory=dict)
    #: Message type -> n: the next n such messages are as if they had never come.
    ignore: dict[int, int] = field(default_factory=dict)
    #: So many answers have a transaction id that nobody asked with.
    wrong_xid: int = 0
    #: So many answers end after their header and half of what follows, and say so in their length.
    cut_short: int = 0
    #: So many answers have 64 KiB of nonsense behind them, and say so in their length.
    too_long: int = 0
    #: The datapath id it claims to have, from its next connection on (None: its own).
    claims: int | None = None
    #: It reads nothing any more; the connection stays open.
    deaf: bool = False
    #: It sends nothing any more; the connection stays open.
    mute: bool = False
    #: The connection is closed once so many more messages have been read (None: it is not).
    close_after: int | None = None
    #: The first packet through the tunnel to each peer is lost, as while its link address is unresolved.
    lose_first: bool = False

    def ignores(self, kind: int) -> bool:
        """Whether a message of this type is lost now."""
        left = self.ignore.get(kind, 0)
        if left:
            self.ignore[kind] = left - 1
        return left > 0

    def refuses(self, kind: int) -> bool:
        """Whether a message of this type is refused now."""
        left = self.refuse_nth.get(kind, 0)
        if left:
            self.refuse_nth[kind] = left - 1
        return left == 1

    @property
    def spoils(self) -> bool:
        """Whether any answer is not sent as it is."""
        return bool(self.wrong_xid or self.cut_short or self.too_long or self.reorder_barriers)

    def spoil(self, message: bytes, held: list[bytes]) -> Iterator[bytes]:
        """What is sent in place of a message; ``held``: barrier replies held back on this connection."""
        if message[1] not in _ANSWERS:
            yield message
            return
        if self.wrong_xid:
            self.wrong_xid -= 1
            message = message[:4] + bytes(b ^ 0xA5 for b in message[4:8]) + message[8:]
        if self.cut_short:
            self.cut_short -= 1
            message = _resized(message[: 8 + (len(message) - 8) // 2])
        if self.too_long:
            self.too_long -= 1
            message = _resized((message + b"\xa5" * 0xFFFF)[:0xFFFF])
        if message[1] != of.BARRIER_REPLY or self.reorder_barriers < 2:
            yield message
            return
        held.append(message)
        if len(held) >= self.reorder_barriers:
            yield from reversed(held)
            held.clear()


def _resized(message: bytes) -> bytes:
    return message[:2] + len(message).to_bytes(2, "big") + message[4:]
