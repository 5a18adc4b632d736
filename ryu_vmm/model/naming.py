"""Names, and what name servers know of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """A name in the domain name system and the addresses it stands for, each of 4 or 16 bytes, sorted.

    ``wanted``: those of all interfaces of that name; empty: its address records are to go. ``told``: what the name
    server has confirmed last; None: nobody knows. Only where both are the same is nothing left to do.
    ``since``: when ``wanted`` became what it is (Unix time). ``tenant``: whose name it is, None: the operator's.
    """

    wanted: tuple[bytes, ...]
    told: tuple[bytes, ...] | None = None
    since: float = 0.0
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Unpublished:
    """Why a name's addresses could not be published: the name servers' answers, when (Unix time), how often in a row.

    ``retry``: Unix time of the next attempt; None: there is none before the name or the configuration changes.
    """

    why: str
    at: float
    times: int = 1
    retry: float | None = None
