"""What a flow is, independent of how OpenFlow spells it.

A :class:`Flow` is a value: two flows with the same content are equal, which Ryu's own match objects are not.
Field values are network-order bytes of exactly the field's width, so encoding is concatenation and comparing
what a switch reports with what we want needs no conversion.
"""

from __future__ import annotations

import functools
from typing import NamedTuple


class FieldSpec(NamedTuple):
    """OXM/NXM identity of a match field: class, field number, width in bytes."""

    oxm_class: int
    oxm_field: int
    width: int


#: Every field that the pipeline may match or set. Order is the canonical order of a match.
FIELDS: dict[str, FieldSpec] = {
    "in_port": FieldSpec(0x8000, 0, 4),
    "metadata": FieldSpec(0x8000, 2, 8),
    "reg0": FieldSpec(0x0001, 0, 4),  # registers of Open vSwitch, zero when a packet comes in
    "reg1": FieldSpec(0x0001, 1, 4),
    "eth_dst": FieldSpec(0x8000, 3, 6),
    "eth_src": FieldSpec(0x8000, 4, 6),
    "eth_type": FieldSpec(0x8000, 5, 2),
    "vlan_vid": FieldSpec(0x8000, 6, 2),
    "ip_proto": FieldSpec(0x8000, 10, 1),
    "ip_frag": FieldSpec(0x0001, 26, 1),  # bits: 1 a fragment, 2 not the first one
    "ip_ttl": FieldSpec(0x0001, 29, 1),  # IPv4's time to live, IPv6's hop limit
    "ipv4_src": FieldSpec(0x8000, 11, 4),
    "ipv4_dst": FieldSpec(0x8000, 12, 4),
    "udp_src": FieldSpec(0x8000, 15, 2),
    "udp_dst": FieldSpec(0x8000, 16, 2),
    "icmpv4_type": FieldSpec(0x8000, 19, 1),
    "arp_op": FieldSpec(0x8000, 21, 2),
    "arp_spa": FieldSpec(0x8000, 22, 4),
    "arp_tpa": FieldSpec(0x8000, 23, 4),
    "arp_sha": FieldSpec(0x8000, 24, 6),
    "arp_tha": FieldSpec(0x8000, 25, 6),
    "ipv6_src": FieldSpec(0x8000, 26, 16),
    "ipv6_dst": FieldSpec(0x8000, 27, 16),
    "icmpv6_type": FieldSpec(0x8000, 29, 1),
    "icmpv6_code": FieldSpec(0x8000, 30, 1),
    "nd_target": FieldSpec(0x8000, 31, 16),
    "nd_reserved": FieldSpec(0x1000, 1, 4),  # the word behind the checksum: an advertisement's flags
    "nd_options_type": FieldSpec(0x1000, 2, 1),  # the type of neighbor discovery's option
    "nd_sll": FieldSpec(0x8000, 32, 6),
    "nd_tll": FieldSpec(0x8000, 33, 6),
    "tun_id": FieldSpec(0x8000, 38, 8),
    "tun_ipv4_src": FieldSpec(0x0001, 31, 4),
    "tun_ipv4_dst": FieldSpec(0x0001, 32, 4),
    "tun_ipv6_src": FieldSpec(0x0001, 109, 16),
    "tun_ipv6_dst": FieldSpec(0x0001, 110, 16),
}
_ORDER = {name: i for i, name in enumerate(FIELDS)}

#: One matched field: name, value, mask (None: exact).
MatchItem = tuple[str, bytes, bytes | None]
Match = tuple[MatchItem, ...]

#: OpenFlow's reserved port that sends a packet back where it came from (section 7.2.1 of OpenFlow 1.3.5).
IN_PORT = 0xFFFFFFF8
#: Run the packet through the tables (packet-out only).
TABLE = 0xFFFFFFF9


class Output(NamedTuple):
    """Send out of port number ``port``."""

    port: int


class ToNva(NamedTuple):
    """Hand the first ``max_len`` bytes of the packet to the NVA (0xFFFF: all of it).

    The second element never differs; it keeps a ToNva from comparing equal to an Output of the same number.
    """

    max_len: int
    port: int = 0xFFFFFFFD


class SetField(NamedTuple):
    """Write ``value`` (network order, full width) into ``field``."""

    field: str
    value: bytes


class Meter(NamedTuple):
    """Count exactly, by meter ``id``, what passes; always a flow's first action, and an instruction on the wire.

    A flow's own counter is not exact around a change: Open vSwitch credits the packets that its datapath cache
    forwarded since it last looked, up to half a second's worth, to the flow that is there when it looks next. A meter
    is executed, and counts, with each packet. Ours never limit.
    """

    id: int
    kind: str = "meter"


class DecTtl(NamedTuple):
    """Take one from the TTL or hop limit of an IP packet (the match says which); 1 or less: drop it, here and now."""

    kind: str = "dec_ttl"


class CheckLarger(NamedTuple):
    """Write into bit 0 of ``reg0`` whether the frame has more than ``length`` bytes (0..65,535), and go on.

    ``length`` counts the Ethernet header and a tag, but nothing of a tunnel: an MTU and 14. This is Open vSwitch's own
    action; its other bits of the register stay.
    """

    length: int
    kind: str = "check_larger"


class Copy(NamedTuple):
    """Write one whole field into another of the same width, by Open vSwitch's own action (NXAST_REG_MOVE)."""

    source: str
    target: str
    kind: str = "copy"


Action = Output | ToNva | SetField | Meter | DecTtl | CheckLarger | Copy
#: (table, priority, match): what makes two flows the same entry of a switch.
FlowKey = tuple[int, int, Match]


class Flow(NamedTuple):
    """One entry of one table.

    ``write_metadata`` sets the given bits (0: none); ``goto`` is the next table (None: stop);
    ``idle_timeout`` is in seconds (0: none, at most 65,535) and asks for a flow-removed message.
    """

    table: int
    priority: int
    match: Match
    actions: tuple[Action, ...] = ()
    goto: int | None = None
    write_metadata: int = 0
    cookie: int = 0
    idle_timeout: int = 0

    @property
    def key(self) -> FlowKey:
        """The identity of the entry on a switch."""
        return (self.table, self.priority, self.match)


class FlowStats(NamedTuple):
    """A flow as a switch reports it, with its counters and age in seconds."""

    flow: Flow
    packets: int
    bytes: int
    age: float


class PortCounts(NamedTuple):
    """What a port of a switch has counted; None: it does not count that.

    rx: what came in by the port; tx: what left by it. dropped: for lack of room; errors: for any other reason.
    """

    rx_packets: int | None = 0
    tx_packets: int | None = 0
    rx_bytes: int | None = 0
    tx_bytes: int | None = 0
    rx_dropped: int | None = 0
    tx_dropped: int | None = 0
    rx_errors: int | None = 0
    tx_errors: int | None = 0


class FlowChange(NamedTuple):
    """One step of a difference: ``op`` is ``add`` (also replaces an equal key, counters kept by none) or ``delete``."""

    op: str
    flow: Flow


@functools.lru_cache(maxsize=1 << 14)
def match(**fields: int | bytes | tuple[int | bytes, int | bytes]) -> Match:
    """Build a canonical match; ints are widened, a tuple is (value, mask).

    Kept: a step computes the flows before and after it, which are mostly the same, and so does the next step.

    >>> match(in_port=1)
    (('in_port', b'\\x00\\x00\\x00\\x01', None),)
    """
    items: list[MatchItem] = []
    for name, given in fields.items():
        width = FIELDS[name].width
        if isinstance(given, tuple):
            items.append((name, _wide(given[0], width), _wide(given[1], width)))
        else:
            items.append((name, _wide(given, width), None))
    items.sort(key=lambda item: _ORDER[item[0]])
    return tuple(items)


def set_field(field: str, value: int | bytes) -> SetField:
    """A :class:`SetField` with an int widened to the field's width."""
    return SetField(field, _wide(value, FIELDS[field].width))


def canonical(items: list[MatchItem]) -> Match:
    """Sort decoded match items into canonical order."""
    return tuple(sorted(items, key=lambda item: _ORDER[item[0]]))


def _wide(value: int | bytes, width: int) -> bytes:
    if isinstance(value, int):
        return value.to_bytes(width, "big")
    if len(value) != width:
        raise ValueError(f"field value of {len(value)} bytes where {width} are needed")
    return value
