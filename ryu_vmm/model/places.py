"""NVEs, interfaces and where they are, ports, and what switches have said."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from .networks import Allowed, Leave


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


class Unadmitted(NamedTuple):
    """Packets of one sender that an interface's port was not admitted to send, as far as samples tell.

    ``cause``: a tables.Drop; ``address``: the IP address (4, 16 bytes) or MAC that they named; ``last``: Unix time.
    """

    interface: str
    cause: int
    address: bytes
    packets: int
    last: float


class Lacking(NamedTuple):
    """Ports to the underlay that an NVE ought to have, as people name them, and since when (Unix time)."""

    ports: tuple[str, ...]
    since: float


class BrokenPath(NamedTuple):
    """A path between two NVEs on which no probe arrives, though both are connected and in sync.

    ``since``: when the first of them was sent, Unix time; ``mtu``: bytes that they had, below the tunnel; ``probes``:
    how many; ``small``: one that was small has crossed.
    """

    since: float
    mtu: int
    probes: int
    small: bool


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
    shared: tuple[bytes, ...] = ()  # IP addresses that it holds in turn with other interfaces of its network
    shared_macs: tuple[bytes, ...] = ()  # likewise; virtual routers have such (RFC 5798 section 7.3)
    pending: Place | None = None  # a port of its NVE that is to serve it as soon as it is there


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
    """A port as its switch reports it. ``up`` is false when the link or the administrator is down.

    ``slot``: what its meters follow from (slots.py).
    """

    nve: str
    name: str
    number: int
    up: bool = True
    slot: int = 0


class Question(enum.Enum):
    """How a guest asks for the MAC behind an address."""

    ARP = "arp"
    ND = "nd"


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
    answers: tuple[Question, ...] = tuple(Question)  # those that the switch can answer by flows


@dataclass(frozen=True, slots=True)
class Fault:
    """An NVE refused a flow: OpenFlow error type and code, when (Unix time), and how often in a row.

    ``blind``: it is not known which, so all flows of the NVE are read back.
    """

    type: int
    code: int
    at: float
    times: int = 1
    blind: bool = False


class Refusal(NamedTuple):
    """A unit of an NVE's flows of which its switch has refused one, so that the NVE goes without the whole unit.

    ``what``: the unit in words; ``flow``: the one that was refused, as Open vSwitch writes it, empty if that is not
    known; ``type``, ``code``: OpenFlow's error. ``since``, ``at``: when it was refused first and last, ``due``: when it
    is tried again (Unix times); ``times``: how often it was refused in a row, by ``generation`` last. ``trial``: the
    generation by which it is being tried again, 0: it is not.
    """

    what: str
    flow: str
    type: int
    code: int
    since: float
    at: float
    due: float
    times: int = 1
    generation: int = 0
    trial: int = 0

    @property
    def withheld(self) -> bool:
        """Whether the NVE has no flows of the unit."""
        return not self.trial


@dataclass(frozen=True, slots=True)
class Frozen:
    """An interface that flapped: announcements move it no more. Unix times; ``until`` 0: until somebody thaws it."""

    since: float
    until: float
    moves: int
