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


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a shared address (4 or 16 bytes) or a shared MAC (6 bytes) of a network now, since when (Unix time).

    ``mac``: what questions for the address are answered with. ``recent``: when it changed hands last (Unix times).
    ``waiting``: interface and MAC of a claim that waits, since it changes hands too often; ``told``: when that was
    reported last.
    """

    vni: int
    address: bytes
    interface: str
    mac: bytes
    since: float
    recent: tuple[float, ...] = ()
    waiting: tuple[str, bytes] | None = None
    told: float = 0.0

    @property
    def key(self) -> str:
        """Its key in the table."""
        return answer_key(self.vni, self.address)


def answer_key(vni: int, address: bytes) -> str:
    """The key of what is known of the answer for an address of a network."""
    return f"{vni}/{address.hex()}"
