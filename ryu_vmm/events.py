"""What has happened: the only way anything enters the NVA's core.

Requests come from REST, the inventory file or the command line and are answered (``Outcome.reply``) or refused with a
:class:`ryu_vmm.errors.VmmError`. Switch events come from an NVE. Names are in the past tense: an event is a fact.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .flows import Flow, FlowChange, FlowStats, PortCounts
from .model import Addressing, Connections, Interface, Kind, Leave, Network, Nve, Place


# --- requests -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class NveSubmitted:
    """An NVE was registered, or registered again with changed content. Reply: ``(Nve, created: bool)``.

    Like the other registrations it asks for what differs from the last one of its sender (wishes.py). ``standing``: it
    is from the file that is read at every start, else a request.
    """

    nve: Nve
    standing: bool = False


@dataclass(frozen=True, slots=True)
class NveWithdrawn:
    """An NVE was removed. Refused (Conflict) while interfaces are located there or a move involves it."""

    name: str


@dataclass(frozen=True, slots=True)
class NetworkSubmitted:
    """A network was registered or its policy changed (the VNI of a name is fixed). Reply: ``(Network, created)``."""

    network: Network
    standing: bool = False


@dataclass(frozen=True, slots=True)
class NetworkWithdrawn:
    """A network was removed. Refused (Conflict) while interfaces are in it."""

    name: str


@dataclass(frozen=True, slots=True)
class VmSubmitted:
    """A VM was registered, or its interfaces changed. ``epoch`` and ``since`` of the interfaces are ignored.

    The location of an interface that is already known changes if another one is named than the last time and it is in
    no move (rehoming.py); else it stays, and only moves change it. ``standing``: from the file that is read at every
    start: it takes no interface to another NVE.
    ``tenant``: who it belongs to; None: to the tenant that all its networks belong to, else to the operator.
    ``leave``: what becomes of packets for addresses that it leaves; None: what its networks say.
    Reply: ``(Vm, created)``.
    """

    name: str
    interfaces: tuple[Interface, ...]
    tenant: str | None = None
    leave: Leave | None = None
    standing: bool = False


@dataclass(frozen=True, slots=True)
class VmWithdrawn:
    """A VM was removed; an open move of it is closed as aborted."""

    name: str


@dataclass(frozen=True, slots=True)
class MoveRequested:
    """A move was asked for by an orchestrator or by the source NVE's side (revision -01).

    ``ports``: interface name -> port name at the destination (default: the interface's attachment there, else the
    same port name as at the source).
    ``address``: whether addresses of the source's subnet become addresses of the destination's. ``connections``: for
    the task's agents; None: keep, or drop where an address changes. ``source``: of a VM with interfaces on several
    NVEs, those on this one are moved; None: all that are not at the destination yet, if they are on one NVE.
    Same ``request_id`` again: the same move is the reply. Reply: ``(Move, created)``.
    """

    vm: str
    to: str
    kind: Kind = Kind.HOT
    ports: dict[str, str] = field(default_factory=dict)
    request_id: str | None = None
    requested_by: str | None = None
    address: Addressing = Addressing.KEEP
    connections: Connections | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class MoveAmended:
    """The ports of an open move at its destination are named anew: interface name -> port name. Reply: Move.

    Refused once the VM runs there.
    """

    move: int
    ports: dict[str, str]


@dataclass(frozen=True, slots=True)
class RedirectRequested:
    """The hypervisor is about to pause the VM: packets in flight go to the destination from now on. Reply: Move."""

    move: int


@dataclass(frozen=True, slots=True)
class ActivationReported:
    """The hypervisor says that the VM runs at the destination (where it announces nothing itself). Reply: Move.

    ``if_open``: it asks before it starts the VM, so this is refused once the move has failed or was aborted.
    """

    move: int
    if_open: bool = False


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """Whoever asked for the move has changed their mind. Reply: Move. Refused once the VM runs at the destination."""

    move: int
    why: str = "abort requested"


@dataclass(frozen=True, slots=True)
class EvacuationRequested:
    """All VMs of an NVE are to move elsewhere, ``parallel`` at a time. Reply: ``(Evacuation, created)``.

    ``to``: NVEs that may take them (empty: every other one). ``attempts``: moves to open for a VM before it counts as
    failed. Same ``request_id`` again: the same evacuation is the reply.
    """

    nve: str
    to: tuple[str, ...] = ()
    kind: Kind = Kind.HOT
    parallel: int = 4
    attempts: int = 3
    request_id: str | None = None
    requested_by: str | None = None


@dataclass(frozen=True, slots=True)
class EvacuationCancelled:
    """No further VM is to leave. ``abort``: moves that are open and not steered are aborted, else they go on.

    Reply: Evacuation. Refused (Conflict) once it has ended.
    """

    evacuation: int
    why: str = "cancelled"
    abort: bool = False


@dataclass(frozen=True, slots=True)
class EvacuationResumed:
    """VMs that failed, were left behind, or have come since are to be tried (again). Reply: Evacuation.

    ``to``, ``parallel``: from now on; None: as before.
    """

    evacuation: int
    to: tuple[str, ...] | None = None
    parallel: int | None = None


@dataclass(frozen=True, slots=True)
class ThawRequested:
    """Somebody has looked after a VM whose interfaces flapped: announcements may move them again. Reply: Vm."""

    vm: str


@dataclass(frozen=True, slots=True)
class InventoryRead:
    """The inventory file was read at start. Each entry is taken or refused by itself.

    ``entries``: the kind ("nves", "networks", "vms") and name of all that the file has; ``items``: how each request's
    entry is called; ``faults``: entries that refer to what is not there, or come twice, and why; ``networks``: the
    names by which each request's entry knows its networks.
    Reply: what came of each entry, "created", "updated", "unchanged" or the VmmError that refused it.
    """

    requests: tuple[NveSubmitted | NetworkSubmitted | VmSubmitted, ...]
    entries: tuple[tuple[str, str], ...]
    items: tuple[str, ...]
    faults: tuple[tuple[str, str], ...] = ()
    networks: tuple[tuple[str, ...], ...] = ()


# --- switches -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PortInfo:
    """A port as OpenFlow reports it."""

    number: int
    name: str
    up: bool


@dataclass(frozen=True, slots=True)
class NveConnected:
    """A switch finished its handshake, with the ports it reported."""

    dpid: int
    ports: tuple[PortInfo, ...]
    meters: int = 0  # highest meter number, 0: none
    names: tuple[str, ...] | None = None  # in its certificate; None: it came without TLS


@dataclass(frozen=True, slots=True)
class ConnectionRefused:
    """A connection was not taken for the switch it says it is, and closed.

    Attributes:
        dpid: the datapath id that it claims.
        why: "impostor": its certificate is not that of the NVE with this datapath id; "duplicate": the connection
            that is there is alive.
        names: those in its certificate; None: it came without TLS.
        peer: address and port that it came from.
        times: so many since the last report of the same.
    """

    dpid: int
    why: str
    names: tuple[str, ...] | None = None
    peer: str = ""
    times: int = 1


@dataclass(frozen=True, slots=True)
class NveDisconnected:
    """The control channel of a switch is gone. Its flows stay in force (fail static)."""

    dpid: int


@dataclass(frozen=True, slots=True)
class PortChanged:
    """A port appeared, changed, or (``gone``) disappeared."""

    dpid: int
    port: PortInfo
    gone: bool = False


@dataclass(frozen=True, slots=True)
class BarrierReplied:
    """The switch has processed everything up to and including ``generation``."""

    dpid: int
    generation: int


@dataclass(frozen=True, slots=True)
class FlowRefused:
    """The switch answered a change of ``generation`` with an error of OpenFlow ``type`` and ``code``.

    ``cookie``: that of the flow; None if the switch has not said which it was. ``change``: the one that was refused,
    None: it is not known, or was no flow (a meter, a barrier).
    """

    dpid: int
    generation: int
    type: int
    code: int
    cookie: int | None = None
    change: FlowChange | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FlowsRead:
    """The answer to a ReadFlows effect with the same ``token`` and ``generation`` (None: nobody has noted any).

    ``lacks``: what was made is not all there, and no change sent meanwhile explains it.
    """

    dpid: int
    token: str
    flows: tuple[FlowStats, ...]
    generation: int | None = field(default=None, repr=False)
    lacks: bool = field(default=False, repr=False)


@dataclass(frozen=True, slots=True)
class MetersRead:
    """The answer to a ReadMeters effect with the same ``token``: meter -> (packets, bytes).

    ``failed``: there is none, and there are no counts.
    """

    dpid: int
    token: str
    meters: dict[int, tuple[int, int]]
    failed: bool = field(default=False, repr=False)


@dataclass(frozen=True, slots=True)
class PortsRead:
    """The answer to a ReadPorts effect with the same ``token``: port number -> counters.

    A port that is not in it could not be read.
    """

    dpid: int
    token: str
    ports: dict[int, PortCounts]


@dataclass(frozen=True, slots=True)
class FlowExpired:
    """A flow with an idle timeout has left the switch: a pulled entry is no longer held there."""

    dpid: int
    flow: Flow


@dataclass(frozen=True, slots=True)
class PacketSeen:
    """A switch handed over a packet. ``cookie`` is that of the flow that did; it says why (see tables.Why)."""

    dpid: int
    in_port: int
    cookie: int
    frame: bytes
    tun_src: bytes | None = None
    tun_id: int | None = None


@dataclass(frozen=True, slots=True)
class PacketsShed:
    """So many packets that a switch handed over were dropped unseen: too many waited already.

    ``port``: the number of the port they came in on; None: they were about the NVA's own work (probes, moves).
    """

    dpid: int
    port: int | None
    packets: int


# --- name servers ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class NamePublished:
    """A name server has confirmed that these (4 or 16 bytes each) are all address records of a name."""

    name: str
    addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NameFailed:
    """No name server has taken these addresses for a name.

    ``why``: their answers. ``retry``: seconds until the next attempt; None: there is none, since nothing would change.
    """

    name: str
    addresses: tuple[bytes, ...]
    why: str
    retry: float | None


@dataclass(frozen=True, slots=True)
class TimePassed:
    """A deadline may have been reached; carries no more than the fact."""


Request = (
    NveSubmitted
    | NveWithdrawn
    | NetworkSubmitted
    | NetworkWithdrawn
    | VmSubmitted
    | VmWithdrawn
    | MoveRequested
    | MoveAmended
    | RedirectRequested
    | ActivationReported
    | AbortRequested
    | ThawRequested
    | InventoryRead
    | EvacuationRequested
    | EvacuationCancelled
    | EvacuationResumed
)
SwitchEvent = (
    NveConnected
    | NveDisconnected
    | ConnectionRefused
    | PortChanged
    | BarrierReplied
    | FlowRefused
    | FlowsRead
    | MetersRead
    | PortsRead
    | FlowExpired
    | PacketSeen
    | PacketsShed
)
Event = Request | SwitchEvent | NamePublished | NameFailed | TimePassed

__all__ = [
    "AbortRequested",
    "ActivationReported",
    "BarrierReplied",
    "ConnectionRefused",
    "EvacuationCancelled",
    "EvacuationRequested",
    "EvacuationResumed",
    "Event",
    "FlowExpired",
    "FlowRefused",
    "FlowsRead",
    "InventoryRead",
    "MetersRead",
    "MoveRequested",
    "NameFailed",
    "NamePublished",
    "NetworkSubmitted",
    "NetworkWithdrawn",
    "NveConnected",
    "NveDisconnected",
    "NveSubmitted",
    "NveWithdrawn",
    "PacketSeen",
    "PacketsShed",
    "Place",
    "PortChanged",
    "PortInfo",
    "PortsRead",
    "RedirectRequested",
    "Request",
    "SwitchEvent",
    "ThawRequested",
    "TimePassed",
    "VmSubmitted",
    "VmWithdrawn",
]
