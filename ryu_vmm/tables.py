"""The words that flows are made of: tables, what flows are for, why packets are dropped, cookies and meters."""

from __future__ import annotations

import enum
from typing import NamedTuple

from .flows import Action, Flow, Match, Meter, ToNva
from .limits import forgery_meter, question_meter
from .model import MARK_BASE, METER_SLOTS, Leg, Move
from .state import State


class Table(NamedTuple):
    """A table: its number, its name, and the question it answers."""

    number: int
    name: str
    question: str


TABLES = (
    Table(0, "classify", "which VN is this packet of?"),
    Table(10, "admit", "may this port send with this MAC and these addresses?"),
    Table(15, "guard", "does it say what only routers or DHCP servers may say, or hide what it says?"),
    Table(20, "resolve", "is it a question about an address? who answers?"),
    Table(25, "advertise", "a neighbor solicitation, turned round: what does the answer say?"),
    Table(30, "route", "where is the guest with this address, and may the packet go there?"),
    Table(40, "deliver", "(VN, destination) -> local port, tunnel, redirect, or hold"),
    Table(50, "flood", "broadcast and multicast inside the VN: local members, one copy per remote NVE"),
    Table(51, "flood-on", "the rest of those who are too many for one flow; the tables after it: their rest"),
)
CLASSIFY, ADMIT, GUARD, RESOLVE, ADVERTISE, ROUTE, DELIVER, FLOOD, _ = (table.number for table in TABLES)
#: Actions of one flow of the lists of those who get a broadcast, which go on in the next table: an OpenFlow message has
#: 64 KiB, and the copy for a peer takes two actions of 32 bytes together, over IPv6 40.
FLOOD_ACTIONS = 2048


class Why(enum.IntEnum):
    """What a flow is for: part of its cookie, so that a packet or a counter that comes back says what it is about."""

    BASE = 1
    DROP = 2  # object: a Drop
    NETWORK = 3  # object: VNI
    INTERFACE = 4  # object: VNI
    RESOLVE = 5  # to the NVA: ARP request or neighbor solicitation
    ANNOUNCE = 6  # to the NVA: RARP, or an announcement on a port of nobody
    LIFE = 7  # to the NVA: the VM has been heard at a port where it is expected
    MISS = 8  # to the NVA: a pulled location is wanted
    PROBE = 9  # to the NVA: a probe has crossed; object: move
    HOLD = 10  # to the NVA: wait for the destination's port; object: see about_leg
    STALE = 11  # to the NVA: a packet for a VM that has left; object: see about_leg
    REDIRECT = 12  # object: move
    MARK = 13  # redirected packets arriving; object: move
    GONE = 14  # the VM's port is gone and nobody said where to; object: VNI
    ROUTER = 15  # to the NVA: for the gateway itself; object: VNI of its network
    EXPIRED_TTL = 16  # to the NVA: its TTL does not allow another hop; object: name of the domain
    TOO_BIG = 17  # to the NVA: larger than the networks it is routed in allow; object: name of the domain
    UNREACHABLE = 18  # to the NVA: nobody has its destination here; object: VNI
    HOP = 19  # to the NVA: a neighbor advertisement of the underlay
    ANSWER = 20  # to the NVA, too: a question that is answered by ARP here and now; object: VNI
    ADVERTISE = 21  # the same by neighbor discovery; object: VNI, or 0 for the half that all have in common


class Drop(enum.IntEnum):
    """Why a packet is dropped: each cause has its own counter."""

    UNKNOWN_PORT = 1
    UNKNOWN_VNI = 2
    UNKNOWN_TUNNEL_SOURCE = 3
    VLAN_TAGGED = 4
    SPOOFED_MAC = 5
    SPOOFED_ADDRESS = 6
    SPOOFED_ND = 7
    UNKNOWN_DESTINATION = 8
    MISDELIVERED = 9
    NO_FLOOD = 10
    LINK_LOCAL_CONTROL = 11
    SPOOFED_ARP = 12  # and RARP
    ROUTER_ADVERTISEMENT = 13
    ICMP_REDIRECT = 14
    DHCP_SERVER = 15
    FRAGMENTED_ND = 16
    BROKEN_HEADERS = 17
    NOT_ROUTED = 18
    LEFT = 19  # for an address, or a locator, that a task has left
    UNKNOWN_LOCATOR = 20


def name_of(cause: int) -> str:
    """How a cause is called where people read it."""
    return Drop(cause).name.lower().replace("_", "-")


_MAGIC = 0x766D
#: Every flow of ours matches this cookie under this mask; nothing else is ever touched.
COOKIE_OURS = _MAGIC << 48
COOKIE_MASK = 0xFFFF << 48
#: The mask that selects a Why and its object.
COOKIE_EXACT = (1 << 64) - 1
COOKIE_WHY_MASK = 0xFFFFFF << 40

#: Bytes of a frame that are enough for any announcement (VLAN tag, IPv6 and option included).
HEAD = 128

FROM_TUNNEL = 1
REDIRECTED = 2
LOCAL = (0, FROM_TUNNEL)
REMOTE = (FROM_TUNNEL, FROM_TUNNEL)
#: A VLAN tag of whatever number.
TAGGED = (0x1000, 0x1000)
MULTICAST = (b"\x01\0\0\0\0\0", b"\x01\0\0\0\0\0")

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_RARP = 0x8035
ETH_IPV6 = 0x86DD
ETH_PROBE = 0x88B5


def cookie(why: Why, about: int = 0) -> int:
    """The cookie of a flow that is there for ``why`` and concerns ``about`` (0 .. 2**40 - 1)."""
    return COOKIE_OURS | why << 40 | about


def about_leg(move: Move, interface: str) -> int:
    """A move and which of its interfaces, as an object of a cookie: two may have one MAC, in different networks."""
    return next(n for n, leg in enumerate(move.legs) if leg.interface == interface) << 32 | move.id


def move_of(about: int) -> int:
    """The move that a cookie's object names."""
    return about & 0xFFFFFFFF


def why_of(value: int) -> tuple[Why, int] | None:
    """The inverse of :func:`cookie`; None for a flow that is not ours."""
    if value >> 48 != _MAGIC:
        return None
    try:
        return Why((value >> 40) & 0xFF), value & 0xFFFFFFFFFF
    except ValueError:
        return None


def drop(table: int, priority: int, on: Match, cause: Drop, actions: tuple[Action, ...] = ()) -> Flow:
    """A flow that drops and counts under ``cause``; ``actions``: see :func:`forgeries`."""
    return Flow(table, priority, on, actions, cookie=cookie(Why.DROP, cause))


def redirect_meter(leg: Leg, slot: int) -> int:
    """The number of a redirect's meter; see model.METER_SLOTS."""
    return 1 + (leg.mark - MARK_BASE) * METER_SLOTS + slot


def questions(state: State, nve: str, slot: int) -> tuple[Action, ...]:
    """The action that limits what the port with a slot asks and announces, if there is a limit and a meter."""
    return metered(state, nve, question_meter(slot)) if state.limits.questions else ()


def forgeries(state: State, nve: str, slot: int) -> tuple[Action, ...]:
    """The actions that hand what the port with a slot forges to the NVA, limited; none where nothing can limit them."""
    counted = metered(state, nve, forgery_meter(slot)) if state.limits.forgeries else ()
    return (*counted, ToNva(HEAD)) if counted else ()


def metered(state: State, nve: str, meter: int) -> tuple[Action, ...]:
    """The action that counts by a meter, if the switch has one of that number."""
    return (Meter(meter),) if meter <= state.sessions[nve].meters else ()
