"""Networks: what they carry, and what their policies say."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


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
