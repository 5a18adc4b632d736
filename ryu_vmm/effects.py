"""What is to be done: all that the NVA's core ever asks of the world.

The runtime carries effects out in the order given, with one exception made plain in ``Outcome``: its records are
committed before anything else happens, and if that fails nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .flows import Action, FlowChange


@dataclass(frozen=True, slots=True)
class Record:
    """Commit ``value`` under (table, key); None deletes. Tables: see fates.py."""

    table: str
    key: object
    value: object | None


@dataclass(frozen=True, slots=True)
class Program:
    """Send these changes to a switch, in order, followed by a barrier whose reply reports ``generation``."""

    dpid: int
    generation: int
    changes: tuple[FlowChange, ...]


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Have a switch send ``frame`` through ``actions`` as if it had come in on ``in_port`` (0xfffffffd: none)."""

    dpid: int
    actions: tuple[Action, ...]
    frame: bytes
    in_port: int = 0xFFFFFFFD


@dataclass(frozen=True, slots=True)
class ReadFlows:
    """Ask a switch for its flows whose cookie matches under the mask; the answer is FlowsRead with ``token``.

    ``whole``: these are all of ours, and the answer is to replace what is believed of the switch: its meters are read
    as well. ``generation``: what the switch was last programmed with; the answer says it again, so that it can be told
    whether a change has been sent since. ``audit``: its meters are read as well, and the answer says whether something
    is not there that we made.
    """

    dpid: int
    token: str
    cookie: int = 0
    cookie_mask: int = 0
    whole: bool = False
    generation: int | None = None
    audit: bool = False


@dataclass(frozen=True, slots=True)
class ReadMeters:
    """Ask a switch what all its meters have counted; the answer is MetersRead with ``token``."""

    dpid: int
    token: str


@dataclass(frozen=True, slots=True)
class ReadPorts:
    """Ask a switch what its port of a number has counted (None: all ports); the answer is PortsRead with ``token``."""

    dpid: int
    token: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection of a switch; ``why``: "impostor", it is not the NVE it was taken for, or "lost", something
    between it and the NVA is, and what it has is to be read anew."""

    dpid: int
    why: str = field(default="impostor", compare=False)


@dataclass(frozen=True, slots=True)
class Publish:
    """Have the name server replace the address records of ``name`` (lower case, no final dot) by these; none: remove
    them. Addresses of 4 or 16 bytes. The answer is NamePublished or NameFailed; a later effect for the same name takes
    an earlier one's place (RFC 2136)."""

    name: str
    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """An entry for the event stream, the log and the metrics. ``kind``: dotted, e.g. ``move.state``."""

    kind: str
    fields: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """Something of the core raised what it should not, and was undone; for the log. ``what``: in words."""

    what: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a question that took a switch to answer (``token`` as in ReadFlows)."""

    token: str
    value: object


Effect = Program | SendPacket | ReadFlows | ReadMeters | ReadPorts | Disconnect | Publish | Report | Failed | Answer


@dataclass(slots=True)
class Outcome:
    """What handling one event came to: records to commit first, effects to carry out then, and the reply.

    ``promise``: somebody will rely on it ("prepared", "in force"), so it must not be told before it is on the disk.
    """

    records: list[Record] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    reply: object = None
    promise: bool = False
