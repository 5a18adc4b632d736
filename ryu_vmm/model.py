"""The things the NVA knows: NVEs, networks, VMs, interfaces, ports, moves.

All are immutable values; a change replaces one. Addresses are network-order bytes (6 for MAC, 4 for IPv4, 16 for
IPv6): what a packet carries is what is looked up. ``ryu_vmm.addresses`` converts text at the borders.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

#: VNIs from here on are the NVA's own: redirect marks and probes. Networks use 1 .. VNI_RESERVED - 1.
VNI_RESERVED = 0xFFE000
#: The VNI that path probes travel under.
PROBE_VNI = 0xFFEFFF
#: Each mark has so many meters at the source: slot 0 for the source's own VMs, then one for each correspondent NVE, the
#: last for all further ones. Behind those come others; see limits.py.
METER_SLOTS = 64
#: Redirected packets travel under MARK_BASE + n, one n per open move, so that both ends count exactly them.
MARK_BASE = 0xFFF000
MARKS = 0xF00


class Distribution(enum.StrEnum):
    """How an NVE learns locations (section 4.1 and RFC 8014 section 4.3): pushed to it, or pulled on first use."""

    PUSH = "push"
    PULL = "pull"


class Trust(enum.StrEnum):
    """Whose announcement moves a VM without a request: a port bound to that VM, or any port of the network."""

    BOUND = "bound"
    ANY = "any"


class Unknown(enum.StrEnum):
    """What becomes of a resolution request for an address nobody registered."""

    FLOOD = "flood"
    DROP = "drop"


class Admit(enum.StrEnum):
    """What a port's frames are checked against: MAC and addresses, or the MAC alone."""

    ADDRESSES = "addresses"
    MAC = "mac"


class Allowed(enum.StrEnum):
    """What a port may do beyond speaking for itself."""

    ROUTER = "router"  # send router advertisements and redirects
    DHCP_SERVER = "dhcp-server"  # send what DHCP servers and relays send
    FORWARD = "forward"  # send IP packets of others; ARP and neighbor discovery stay its own


class Answer(enum.StrEnum):
    """What becomes of packets for an address, or a locator, that a task has left (section 4.2 of the draft)."""

    DROP = "drop"
    UNREACHABLE = "unreachable"  # ICMP or ICMPv6 destination unreachable to the sender
    FORWARD = "forward"  # to where the task is now


@dataclass(frozen=True, slots=True)
class Leave:
    """What an NVE does with packets for what a task has left: how, and for so many seconds (1..86400)."""

    answer: Answer = Answer.UNREACHABLE
    seconds: int = 60


@dataclass(frozen=True, slots=True)
class Policy:
    """Policy of a network. ``mtu`` in bytes of IP packet (576..9000), ``idle_timeout`` of pulled entries in seconds.

    ``allow``: what each of its interfaces may do; see Allowed. ``leave``: see Leave.
    """

    distribution: Distribution = Distribution.PUSH
    announcements: Trust = Trust.BOUND
    unknown: Unknown = Unknown.FLOOD
    admit: Admit = Admit.ADDRESSES
    mtu: int = 1450
    idle_timeout: int = 30
    allow: tuple[Allowed, ...] = ()
    leave: Leave = Leave()


class NetworkKind(enum.StrEnum):
    """What a network carries: Ethernet frames between its guests, or IP packets by way of the NVE (section 4.2)."""

    L2 = "l2"
    L3 = "l3"


class Gateway(NamedTuple):
    """The router that every NVE is to the guests of a network: the same MAC and addresses at all of them."""

    mac: bytes = b"\x02vm\0\0\x01"
    ipv4: bytes | None = None
    ipv6: bytes | None = None


class Subnet(NamedTuple):
    """Addresses of a layer 3 network that belong to an NVE: those of tasks there, as long as they have not moved."""

    prefix: bytes  # 4 or 16 bytes, zero beyond ``length``
    length: int
    nve: str

    def __contains__(self, address: object) -> bool:
        """Whether an address (bytes) is in it."""
        if not isinstance(address, bytes) or len(address) != len(self.prefix):
            return False
        rest = 8 * len(address) - self.length
        return int.from_bytes(address, "big") >> rest == int.from_bytes(self.prefix, "big") >> rest


@dataclass(frozen=True, slots=True)
class Network:
    """A virtual network (VN). ``vni``: 1 .. VNI_RESERVED - 1. ``tenant``: who it belongs to, None: to the operator.

    ``router``: networks of one tenant with the same router are routed between. ``sir``: the upper 64 bits of the IPv6
    addresses that keep their identifier wherever they are (ILA, draft-herbert-nvo3-ila).
    """

    name: str
    vni: int
    policy: Policy = Policy()
    tenant: str | None = None
    kind: NetworkKind = NetworkKind.L2
    gateway: Gateway | None = None
    subnets: tuple[Subnet, ...] = ()
    sir: bytes | None = None
    router: str | None = None


@dataclass(frozen=True, slots=True)
class Nve:
    """A network virtualization edge: one bridge. At least one of ``ipv4``, ``ipv6`` is its underlay address.

    ``certificate``: the name in the certificate of its switch, None: the NVE's own. See :meth:`is_of`.
    ``routed_port``: its port for tunnels without an Ethernet header. ``locator``: the upper 64 bits of the underlay
    addresses by which ILA reaches its tasks, ``ila_port`` the port that leads there and ``next_hop`` the underlay's
    router on the way to other locators (None: each NVE's own ``ipv6``).
    """

    name: str
    dpid: int
    ipv4: bytes | None = None
    ipv6: bytes | None = None
    tunnel_port: str | None = None
    certificate: str | None = None
    routed_port: str | None = None
    locator: bytes | None = None
    ila_port: str | None = None
    next_hop: bytes | None = None

    def is_of(self, names: tuple[str, ...] | None) -> bool:
        """Whether a connection may be this NVE's switch: its certificate has these names (None: it came without TLS).

        Where TLS is not in use nobody has a certificate; an NVE that was registered with one is never without.
        """
        if names is None:
            return self.certificate is None
        return (self.certificate or self.name) in names


class Place(NamedTuple):
    """An attachment point: NVE name and OpenFlow port name."""

    nve: str
    port: str


@dataclass(frozen=True, slots=True)
class Interface:
    """A guest's interface and where it is: its location and the epoch of that location."""

    id: str  # "<vm>/<name>"
    vm: str
    name: str
    vni: int
    mac: bytes
    ipv4: tuple[bytes, ...]
    ipv6: tuple[bytes, ...]
    location: Place
    epoch: int = 1
    since: float = 0.0  # Unix time
    attachments: tuple[Place, ...] = ()
    allow: tuple[Allowed, ...] = ()  # beyond what its network allows
    dns: str | None = None  # name whose address records hold its addresses; lower case, no final dot


@dataclass(frozen=True, slots=True)
class Vm:
    """A guest: its name, its interfaces' ids, and the tenant it belongs to (None: the operator).

    ``leave``: what becomes of packets for an address that it has left; None: what its networks say.
    """

    name: str
    interfaces: tuple[str, ...]
    tenant: str | None = None
    leave: Leave | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """A port as its switch reports it. ``up`` is false when the link or the administrator is down."""

    nve: str
    name: str
    number: int
    up: bool = True


@dataclass(frozen=True, slots=True)
class Session:
    """A connected NVE. ``synced`` turns true once its flows have been read back and corrected."""

    nve: str
    tunnel: int | None  # port number of the tunnel port, None while it has none
    synced: bool = False
    meters: int = 0  # highest meter number of the switch, 0: it has none
    names: tuple[str, ...] | None = None  # in the switch's certificate; None: without TLS
    routed: int | None = None  # port number of the tunnel port without Ethernet header
    ila: int | None = None  # port number of the port to the underlay


@dataclass(frozen=True, slots=True)
class Fault:
    """An NVE refused a flow: OpenFlow error type and code, when (Unix time), and how often in a row."""

    type: int
    code: int
    at: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Frozen:
    """An interface that flapped: announcements move it no more. Unix times; ``until`` 0: until somebody thaws it."""

    since: float
    until: float
    moves: int


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
class Ledger:
    """The account of a move, from switch counters.

    redirected: left the source by the redirect; arrived: of these counted at the destination; lost: reached the
    source while the VM was gone and no destination was known; held, held_lost: waited in the NVA for the
    destination's port, and what found the waiting room full; late: redirected after every correspondent had
    confirmed; exact: counted by meters, not by flow counters, which are blurred around changes, and by switches that
    have kept their counters. ``forgetful``: NVEs that have not. ``barriers``: seconds from the trigger to each NVE's
    barrier reply. ``probes``: seconds until a probe had crossed, by path.
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
    trigger: str  # "request" or "announcement"
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
    triggered: float = 0.0
    error: str | None = None
    activated_by: str | None = None
    ledger: Ledger = Ledger()
    tenant: str | None = None  # of the VM when the move began: its name may be another's by now
    connections: Connections = Connections.KEEP
    changes: tuple[Change, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the move has not ended yet."""
        return not self.state.closed

    @property
    def ends(self) -> tuple[str, ...]:
        """The NVEs without which it cannot go on; a VM that is off leaves nothing at its source to be told first."""
        return (self.destination,) if self.kind is Kind.COLD else (self.source, self.destination)


class EvacuationState(enum.StrEnum):
    """States of an evacuation. All but the first two have ended; ``resume`` leads back to running."""

    RUNNING = "running"
    CANCELLING = "cancelling"  # no further move is opened; those that are open go on
    DONE = "done"  # every VM has left, and every redirect with it
    INCOMPLETE = "incomplete"  # some VMs could not be moved
    CANCELLED = "cancelled"

    @property
    def open(self) -> bool:
        """Whether the evacuation has not ended yet."""
        return self in (EvacuationState.RUNNING, EvacuationState.CANCELLING)


class EvacueeState(enum.StrEnum):
    """What has become of a VM in an evacuation."""

    WAITING = "waiting"  # for its turn
    MOVING = "moving"  # its move is open and holds one of the places: preparing to steering
    DRAINING = "draining"  # it is served elsewhere; the redirect waits for silence
    MOVED = "moved"
    FAILED = "failed"  # as often as allowed, or there is nowhere to go
    LEFT = "left"  # cancelled before its turn came, or while its move was open
    GONE = "gone"  # removed, or moved by somebody else


@dataclass(frozen=True, slots=True)
class Evacuee:
    """A VM of an evacuation. ``move``, ``to``: its newest move and where that goes; ``failed_at``: where earlier ones
    failed, tried last from now on."""

    evacuation: int
    vm: str
    state: EvacueeState = EvacueeState.WAITING
    move: int | None = None
    to: str | None = None
    attempts: int = 0
    failed_at: tuple[str, ...] = ()
    why: str = ""

    @property
    def key(self) -> str:
        """Its key in the table: evacuation and VM."""
        return f"{self.evacuation}/{self.vm}"


@dataclass(frozen=True, slots=True)
class Evacuation:
    """All VMs of an NVE moving elsewhere.

    ``to``: where they may go (empty: every other NVE); ``parallel``: moves that may be open at once, draining ones
    aside; ``attempts``: moves for a VM before it counts as failed; ``why``: what holds up all of them now.
    """

    id: int
    nve: str
    to: tuple[str, ...]
    kind: Kind
    parallel: int
    attempts: int
    state: EvacuationState
    created: float
    history: tuple[Step, ...]
    ended: float | None = None
    request_id: str | None = None
    requested_by: str | None = None
    why: str = ""


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
