"""Moves, and what becomes of packets and addresses in them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from .networks import Answer
from .places import Place

#: What a move of a VM that is off is activated by.
OFF = "off"


class Kind(enum.StrEnum):
    """Section 7: hot (the VM runs on), cold (shut down here, started there)."""

    HOT = "hot"
    COLD = "cold"


class Addressing(enum.StrEnum):
    """Whether a task keeps its addresses in a move (host routes, ILA), or gets others of the destination's subnet."""

    KEEP = "keep"
    CHANGE = "change"


class Connections(enum.StrEnum):
    """What becomes of a task's connections in a move (section 4.2): its agents see to it, the NVA tells them.

    keep: the address stays, and peers notice nothing; migrate: their state is carried to the other stack; drop: both
    ends are told at once.
    """

    KEEP = "keep"
    MIGRATE = "migrate"
    DROP = "drop"


class Change(NamedTuple):
    """An address that is another one once a move has steered."""

    interface: str
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Left:
    """An address that a task has left: what an NVE does with packets for it, and until when (Unix time).

    ``address``: within the network; ``ila``: as it arrives under the NVE's locator. ``interface``: who had it.
    """

    nve: str
    vni: int
    address: bytes
    interface: str
    answer: Answer
    until: float
    ila: bool = False

    @property
    def key(self) -> str:
        """Its key in the table: NVE, VNI and address."""
        return f"{self.nve}/{self.vni}/{self.address.hex()}"


class Sought(NamedTuple):
    """A place where an interface may show up since a move there was rolled back; ``until``: Unix time."""

    interface: str
    vni: int
    place: Place
    move: int
    until: float


class MoveState(enum.StrEnum):
    """States of a move; see mobility.py for what leads from one to the next."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    REDIRECTING = "redirecting"
    STEERING = "steering"
    DRAINING = "draining"
    SETTLED = "settled"
    ABORTED = "aborted"
    FAILED = "failed"

    @property
    def closed(self) -> bool:
        """Whether the move has ended."""
        return self in (MoveState.SETTLED, MoveState.ABORTED, MoveState.FAILED)

    @property
    def steered(self) -> bool:
        """Whether the directory already names the destination."""
        return self in (MoveState.STEERING, MoveState.DRAINING, MoveState.SETTLED)


class Redirect(enum.StrEnum):
    """How far a move's redirect has come. The destination is readied first, so that nothing meets a closed door."""

    NONE = "none"
    DESTINATION = "destination"
    SOURCE = "source"
    IN_FORCE = "in-force"

    @property
    def at_source(self) -> bool:
        """Whether the source has been told to redirect."""
        return self in (Redirect.SOURCE, Redirect.IN_FORCE)


class Leg(NamedTuple):
    """One interface's part of a move. ``mark``: the VNI that its redirected packets travel under."""

    interface: str
    vni: int
    src: Place
    dst: Place
    mark: int


class Step(NamedTuple):
    """An entry of a move's history: state entered, Unix time."""

    state: str
    at: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Stale:
    """What one correspondent NVE still sent to the source after the redirect began. ``until``: Unix time last seen."""

    packets: int = 0
    bytes: int = 0
    until: float = 0.0
    corrected: int = 0


@dataclass(frozen=True, slots=True)
class PortAccount:
    """What the port of an interface at one end of a move had no room for, since the move's redirect began.

    ``number``: the port's, in OpenFlow; ``began``: packets carried to the guest and dropped when it was first read;
    ``carried``, ``dropped``: since then, carried as it was when the last was dropped, or at the end. ``final``: nothing
    is sent there any more, and it has been read since. ``whole``: no reading is missing.
    """

    interface: str
    number: int
    began: tuple[int, int] | None = None
    carried: int = 0
    dropped: int = 0
    final: bool = False
    whole: bool = True

    @property
    def known(self) -> bool:
        """Whether it was read from the beginning on, and no reading is missing."""
        return self.whole and self.began is not None

    @property
    def queue(self) -> int:
        """A length of the port's queue, in packets, that would have held all that came; in thousands."""
        return -(-(self.carried + self.dropped) // 1000) * 1000


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account of a move, from switch counters.

    redirected: left the source by the redirect; arrived: of these counted at the destination; lost: reached the
    source while the VM was gone and no destination was known; held, held_lost: waited in the NVA for the
    destination's port, and what found the waiting room full; late: redirected after every correspondent had
    confirmed; exact: counted by meters, not by flow counters, which are blurred around changes, and by switches that
    have kept their counters and could be read to the end. ``forgetful``: NVEs of which that is not so; ``ports``: those
    at the ends, as NVE/port, and what they dropped (queues.py).
    ``barriers``: seconds from the trigger to each NVE's barrier reply. ``probes``: seconds until a probe had crossed,
    by path.
    """

    redirected_packets: int = 0
    redirected_bytes: int = 0
    arrived_packets: int = 0
    arrived_bytes: int = 0
    lost_packets: int = 0
    lost_bytes: int = 0
    held_packets: int = 0
    held_lost: int = 0
    late_packets: int = 0
    exact: bool = False
    forgetful: tuple[str, ...] = ()
    stale: dict[str, Stale] = field(default_factory=dict)
    barriers: dict[str, float] = field(default_factory=dict)
    probes: dict[str, float] = field(default_factory=dict)
    closed: bool = False
    ports: dict[str, PortAccount] = field(default_factory=dict)

    @property
    def dropped_packets(self) -> int:
        """Packets that the ports at both ends had no room for."""
        return sum(account.dropped for account in self.ports.values())

    @property
    def unread(self) -> tuple[str, ...]:
        """The ports, as NVE/port, whose statistics were not read from the beginning to the end."""
        return tuple(sorted(name for name, account in self.ports.items() if not account.known))

    @property
    def unaccounted(self) -> int:
        """Redirected packets that the destination never counted."""
        return self.redirected_packets - self.arrived_packets


@dataclass(frozen=True, slots=True)
class Held:
    """Packets for an interface that wait in the NVA, in order, for a port. ``move``: the one that made them wait.

    ``lost``: how many more found the waiting room full.
    """

    move: int
    frames: tuple[bytes, ...] = ()
    lost: int = 0


class Asked(NamedTuple):
    """What a move was asked for with, beside its VM and destination: the same request id stands for this alone."""

    kind: Kind
    ports: tuple[tuple[str, str], ...]
    address: Addressing
    connections: Connections | None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A move of a VM from one NVE to another, open or closed."""

    id: int
    vm: str
    kind: Kind
    source: str
    destination: str
    legs: tuple[Leg, ...]
    state: MoveState
    trigger: str  # "request", "announcement", "registration" or "activation"
    created: float
    history: tuple[Step, ...]
    request_id: str | None = None
    requested_by: str | None = None
    redirect: Redirect = Redirect.NONE
    sampling: bool = False  # stale packets are sampled to the NVA
    peers: tuple[str, ...] = ()  # correspondents that have a meter of their own at the source, from slot 1 on
    unconfirmed: tuple[str, ...] = ()
    generation: int = 0
    departed: bool = False  # the redirect began because the VM's port at the source had gone
    watched: bool = False  # a VM that is heard at the source is taken back (watching.py)
    triggered: float = 0.0
    error: str | None = None
    activated_by: str | None = None
    ledger: Ledger = Ledger()
    tenant: str | None = None  # of the VM when the move began: its name may be another's by now
    connections: Connections = Connections.KEEP
    changes: tuple[Change, ...] = ()
    asked_with: Asked | None = None  # None: nobody asked, or an older version did not keep it
    follows: int | None = None  # the move that came to nothing before its VM ran at its destination all the same

    @property
    def open(self) -> bool:
        """Whether the move has not ended yet."""
        return not self.state.closed

    @property
    def requested(self) -> bool:
        """Whether somebody asked for it, so that it was prepared before the VM left its source."""
        return self.trigger == "request"

    @property
    def off(self) -> bool:
        """Whether it was steered although its VM runs nowhere: nothing waits for the port at its destination."""
        return self.activated_by == OFF

    @property
    def asked(self) -> bool:
        """Whether a hypervisor has said that it is about to pause the VM."""
        return self.redirect is not Redirect.NONE and not self.departed

    @property
    def rounds(self) -> int:
        """How often it was prepared: again when its source's port had only flapped, or an end had lost its tables."""
        return sum(entry.state == MoveState.PREPARING for entry in self.history)

    @property
    def ends(self) -> tuple[str, ...]:
        """The NVEs without which it cannot go on; a VM that is off leaves nothing at its source to be told first."""
        return (self.destination,) if self.kind is Kind.COLD else (self.source, self.destination)
