"""What was, and is now, answered to questions about addresses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Changed:
    """An address (4 or 16 bytes) of a network that is answered with another MAC than before, since when (Unix time).

    ``owed``: NVEs that were away when their guests should have been told.
    """

    vni: int
    address: bytes
    mac: bytes
    since: float
    owed: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its key in the table."""
        return answer_key(self.vni, self.address)


@dataclass(frozen=True, slots=True)
class Vanished:
    """An address of a network that nobody has any more, since when (Unix time).

    ``mac``: what it was answered with last; None: guests may hold different ones to be right.
    """

    vni: int
    address: bytes
    mac: bytes | None
    since: float

    @property
    def key(self) -> str:
        """Its key in the table."""
        return answer_key(self.vni, self.address)


def answer_key(vni: int, address: bytes) -> str:
    """The key of what is known of the answer for an address of a network."""
    return f"{vni}/{address.hex()}"
