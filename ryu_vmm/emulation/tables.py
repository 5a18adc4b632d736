"""The flow tables of an OpenFlow 1.3 switch: inject a frame, ask where it comes out.

>>> from ryu_vmm.flows import Flow, Output, match
>>> tables = Tables([Flow(table=0, priority=1, match=match(in_port=1), actions=(Output(2),), cookie=7)])
>>> [out.port for out in tables.run({"eth_dst": 0x020000000001}, in_port=1)]
[2]
>>> tables.run({"eth_dst": 0x020000000001}, in_port=3)
[Dropped(cookie=None)]

Semantics are those of OpenFlow 1.3.5 and, where that leaves room, of Open vSwitch: matches and set-fields
are checked for their prerequisites, a packet is never sent out of the port it came in on except by
``IN_PORT``, a table without a matching flow drops, a later table sees what earlier ones rewrote. No I/O, no
clock: time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..flows import (
    IN_PORT,
    TABLE,
    Action,
    CheckLarger,
    Copy,
    DecTtl,
    Flow,
    FlowChange,
    Match,
    Meter,
    Output,
    SetField,
    set_field,
)
from ..flows import ToNva as ToNvaAction
from . import packets
from .entries import Entry, Table
from .rules import FLOW_MOD_FAILED, TABLE_FULL, Refused, check, comprises
from .traffic import Traffic

#: Reasons of a packet-in (OpenFlow 1.3.5 section 7.4.1).
NO_MATCH, ACTION = 0, 1
ALL_TABLES = 0xFF
#: "From nowhere": the in_port of a packet-out that names none.
CONTROLLER = 0xFFFFFFFD
ANY_PORT = 0xFFFFFFFF
RESET_COUNTS = 4
FLOOD, ALL = 0xFFFFFFFB, 0xFFFFFFFC
ETHERNET = 14
#: Fields that are not in the frame, but beside it.
_BESIDE = frozenset(("metadata", "reg0", "reg1"))


@dataclass(frozen=True, slots=True)
class Out:
    """The frame left through ``port``; ``tun_*`` are what the tunnel is told (None: no tunnel)."""

    port: int
    tun_id: int | None = None
    tun_src: bytes | None = None
    tun_dst: bytes | None = None
    frame: bytes = b""


@dataclass(frozen=True, slots=True)
class ToNva:
    """The frame went to the NVA. ``cookie`` is that of the flow that sent it, None for a packet-out."""

    cookie: int | None
    reason: int = ACTION
    frame: bytes = field(default=b"", compare=False, repr=False)
    in_port: int = field(default=0, compare=False, repr=False)
    table: int = field(default=0, compare=False, repr=False)
    max_len: int = field(default=0xFFFF, compare=False, repr=False)
    #: pipeline fields at that moment: metadata, registers and tun_*, where not zero
    context: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nothing came out. ``cookie`` is that of the last flow matched; None: a table had no flow for it."""

    cookie: int | None
    table: int = field(default=0, compare=False, repr=False)


Result = Out | ToNva | Dropped


class _Packet:
    """A packet on its way: the frame, its fields, and what has become of it so far."""

    __slots__ = ("fields", "frame", "in_port", "results", "uncounted")

    def __init__(self, frame: bytes, in_port: int, pipeline: Mapping[str, int], bare: bool = False) -> None:
        self.frame = frame
        self.uncounted = ETHERNET if bare else 0  # bytes of a header that the packet came without
        self.in_port = in_port
        self.fields = packets.parse(frame)
        self.fields.update(pipeline)
        self.fields["in_port"] = in_port
        self.results: list[Result] = []


class Tables:
    """All tables of a switch.

    ``tunnel`` is the number of the tunnel port: what leaves elsewhere then shows no ``tun_*`` (None: every
    ``Out`` shows what the packet carries at that moment). ``routed`` is the number of the tunnel port without Ethernet
    headers: what leaves or comes by it has addresses of zeros, and flows that it meets count its bytes without that
    header. ``ports``: those that an output to FLOOD or ALL goes out of. ``strict``: refuse what a switch refuses, and
    without ``nd`` flows that make neighbor advertisements.
    """

    def __init__(
        self,
        flows: Iterable[Flow] = (),
        tunnel: int | None = None,
        ports: Collection[int] = (),
        strict: bool = True,
        routed: int | None = None,
        nd: bool = True,
    ) -> None:
        self.nd = nd
        self.tunnel = tunnel
        self.routed = routed
        self.ports = ports
        self.strict = strict
        #: what it refuses on order: OpenFlow error type and code for a flow, None: it takes it
        self.refuses: Callable[[Flow], tuple[int, int] | None] = lambda flow: None
        #: table -> flows that it has room for
        self.room: dict[int, int] = {}
        #: meter -> (packets, bytes) that flows with that meter have passed
        self.meters: dict[int, tuple[int, int]] = {}
        #: packets per second, and at once, that a meter lets pass; 0: it only counts
        self.meter_rate: Callable[[int], int] = lambda meter: 0
        #: what its ports have counted
        self.traffic = Traffic()
        self._buckets: dict[int, tuple[float, float]] = {}  # meter -> when, packets that it would have let pass then
        self._tables: dict[int, Table] = {}
        for flow in flows:
            self.add(flow)

    # --- changing the tables --------------------------------------------------------------------------------
    def add(self, flow: Flow, now: float = 0.0, hard_timeout: int = 0, flags: int = 0) -> Entry:
        """Add a flow; one of the same table, priority and match is replaced, its age starts anew.

        The counters of the one replaced are kept unless ``flags`` say otherwise, as Open vSwitch does.

        Raises:
            Refused: the switch would not take it (prerequisites, masks, backward goto), has no room, or has its orders.
        """
        if self.strict:
            check(flow, self.nd)
        ordered = self.refuses(flow)
        if ordered is not None:
            raise Refused("on order", *ordered)
        if flow.table in self.room:
            table = self._tables.get(flow.table) or Table()
            if (flow.priority, flow.match) not in table.entries and len(table.entries) >= self.room[flow.table]:
                raise Refused(f"table {flow.table} is full", FLOW_MOD_FAILED, TABLE_FULL)
        return self.put(Entry(flow, now, hard_timeout, flags))

    def put(self, entry: Entry) -> Entry:
        """As :meth:`add`, for an entry that is there already and is taken for good."""
        table = self._tables.get(entry.table)
        if table is None:
            table = self._tables[entry.table] = Table()
        replaced = table.put(entry)
        if replaced is not None and not entry.flags & RESET_COUNTS:
            entry.packets, entry.bytes = replaced.packets, replaced.bytes
        return entry

    def modify(self, flow: Flow, strict: bool = False, cookie: int = 0, cookie_mask: int = 0) -> list[Entry]:
        """Give new instructions to the flows selected as by :meth:`delete`; all else of them stays."""
        if self.strict:
            check(flow, self.nd)
        chosen = list(self.select(flow.match, flow.table, flow.priority if strict else None, cookie, cookie_mask))
        for entry in chosen:
            entry.flow = entry.flow._replace(actions=flow.actions, goto=flow.goto, write_metadata=flow.write_metadata)
        return chosen

    def delete(
        self,
        match: Match = (),
        table: int = ALL_TABLES,
        priority: int | None = None,
        cookie: int = 0,
        cookie_mask: int = 0,
        out_port: int = ANY_PORT,
    ) -> list[Entry]:
        """Remove flows and return them: exactly that match if ``priority`` is given, else all it comprises.

        ``cookie`` and ``out_port`` narrow the choice further (section 6.4).
        """
        chosen = list(self.select(match, table, priority, cookie, cookie_mask, out_port))
        for entry in chosen:
            self._tables[entry.table].remove(entry.priority, entry.match)
        return chosen

    def change(self, change: FlowChange, now: float = 0.0) -> None:
        """Carry out one step of a difference between desired and installed flows."""
        flow = change.flow
        if change.op == "add":
            self.add(flow, now)
        elif change.op == "delete":
            self.delete(flow.match, flow.table, flow.priority)
        else:
            raise ValueError(f"unknown change {change.op}")

    def select(
        self,
        match: Match = (),
        table: int = ALL_TABLES,
        priority: int | None = None,
        cookie: int = 0,
        cookie_mask: int = 0,
        out_port: int = ANY_PORT,
    ) -> Iterator[Entry]:
        """The entries that a flow statistics request or a delete with these arguments means, by table."""
        numbers = sorted(self._tables) if table == ALL_TABLES else [table] if table in self._tables else []
        for number in numbers:
            entries = self._tables[number].entries
            if priority is not None:
                exact = entries.get((priority, match))
                candidates = [exact] if exact is not None else []
            elif match:
                candidates = [entry for entry in entries.values() if comprises(match, entry.match)]
            else:
                candidates = list(entries.values())
            for entry in candidates:
                if (entry.cookie ^ cookie) & cookie_mask:
                    continue
                if out_port == ANY_PORT or any(_goes_to(a, out_port) for a in entry.flow.actions):
                    yield entry

    def expire(self, now: float) -> list[tuple[Entry, int]]:
        """Remove the flows whose time is up; each with its reason (0: idle, 1: hard; section 7.4.2)."""
        gone = []
        for table in self._tables.values():
            for entry in list(table.entries.values()):
                if entry.hard_timeout and now - entry.created >= entry.hard_timeout:
                    gone.append((entry, 1))
                elif entry.idle_timeout and now - entry.used >= entry.idle_timeout:
                    gone.append((entry, 0))
        for entry, _ in gone:
            self._tables[entry.table].remove(entry.priority, entry.match)
        return gone

    @property
    def flows(self) -> list[Flow]:
        """All flows, by table, highest priority first."""
        found = [entry.flow for table in self._tables.values() for entry in table.entries.values()]
        return sorted(found, key=lambda flow: (flow.table, -flow.priority, flow.match))

    def packets(self, flow: Flow) -> int:
        """Packets counted by the flow of that table, priority and match (KeyError: it is not there)."""
        return self._tables[flow.table].entries[flow.priority, flow.match].packets

    def __len__(self) -> int:
        return sum(len(table.entries) for table in self._tables.values())

    # --- packets --------------------------------------------------------------------------------------------
    def run(
        self,
        packet: bytes | Mapping[str, int | bytes],
        in_port: int,
        tun_id: int | None = None,
        tun_src: bytes | None = None,
        tun_dst: bytes | None = None,
        now: float = 0.0,
    ) -> list[Result]:
        """What becomes of a packet that comes in on ``in_port``, in the order in which it happens.

        A mapping of fields is made into a frame first (:func:`ryu_vmm.emulation.packets.build`).
        """
        frame = packet if isinstance(packet, bytes) else packets.build(packet)
        bare = self.routed is not None and in_port == self.routed
        if bare:
            frame = packets.without_ethernet(frame)
        state = _Packet(frame, in_port, _tunnel_fields(tun_id, tun_src, tun_dst), bare)
        self.traffic.came(in_port, frame)
        self._traverse(state, now)
        return self._left(state)

    def execute(
        self, actions: Iterable[Action], frame: bytes, in_port: int = CONTROLLER, now: float = 0.0
    ) -> list[Result]:
        """What becomes of a packet-out; an output to ``TABLE`` runs it through the tables."""
        state = _Packet(frame, in_port, {})
        self._act(state, tuple(actions), None, None, now)
        return self._left(state)

    def _left(self, state: _Packet) -> list[Result]:
        """What became of a packet, but for those copies for which a port had no room."""
        left = [r for r in state.results if not isinstance(r, Out) or self.traffic.leaves(r.port, r.frame)]
        return left or [Dropped(None)]

    def _traverse(self, state: _Packet, now: float) -> None:
        number: int | None = 0
        cookie: int | None = None
        before = len(state.results)
        last = 0
        while number is not None:
            last = number
            table = self._tables.get(number)
            entry = table.find(state.fields) if table else None
            if entry is None:
                cookie = None
                break
            entry.packets += 1
            entry.bytes += len(state.frame) - state.uncounted
            entry.used = now
            flow = entry.flow
            cookie = flow.cookie
            if flow.actions and not self._act(state, flow.actions, cookie, flow, now):
                break
            if flow.write_metadata:
                state.fields["metadata"] = state.fields.get("metadata", 0) | flow.write_metadata
            number = flow.goto
        if len(state.results) == before:
            state.results.append(Dropped(cookie, last))

    def _act(
        self, state: _Packet, actions: tuple[Action, ...], cookie: int | None, flow: Flow | None, now: float
    ) -> bool:
        """Carry out actions; False if a meter or a TTL of 1 has dropped the packet."""
        for action in actions:
            if isinstance(action, SetField):
                self._set(state, action)
            elif isinstance(action, Meter):
                packets_, bytes_ = self.meters.get(action.id, (0, 0))
                self.meters[action.id] = (packets_ + 1, bytes_ + len(state.frame) - state.uncounted)
                if not self._passes(action.id, now):
                    return False
            elif isinstance(action, DecTtl):
                if state.fields.get("ip_ttl", 0) <= 1:
                    return False
                self._set(state, set_field("ip_ttl", state.fields["ip_ttl"] - 1))
            elif isinstance(action, Copy):
                self._set(state, set_field(action.target, state.fields.get(action.source, 0)))
            elif isinstance(action, CheckLarger):
                larger = len(state.frame) > action.length
                state.fields["reg0"] = state.fields.get("reg0", 0) & ~1 | larger
            elif isinstance(action, ToNvaAction):
                missed = flow is not None and not flow.priority and not flow.match
                state.results.append(
                    ToNva(
                        cookie,
                        NO_MATCH if missed else ACTION,
                        state.frame,
                        state.in_port,
                        flow.table if flow is not None else 0,
                        action.max_len,
                        {k: v for k, v in state.fields.items() if v and (k in _BESIDE or k[:4] == "tun_")},
                    )
                )
            elif action.port == TABLE:
                if flow is None:
                    self._traverse(state, now)
            elif action.port == IN_PORT:
                state.results.append(self._out(state, state.in_port))
            elif action.port in (FLOOD, ALL):
                state.results += [self._out(state, port) for port in self.ports if port != state.in_port]
            elif action.port != state.in_port:
                state.results.append(self._out(state, action.port))
        return True

    def _passes(self, meter: int, now: float) -> bool:
        rate = self.meter_rate(meter)
        if not rate:
            return True
        then, tokens = self._buckets.get(meter, (now, float(rate)))
        tokens = min(rate, tokens + (now - then) * rate)
        self._buckets[meter] = (now, tokens - (tokens >= 1))
        return tokens >= 1

    def _set(self, state: _Packet, action: SetField) -> None:
        value = int.from_bytes(action.value, "big")
        name = action.field
        if name in _BESIDE or name.startswith("tun_"):
            state.fields[name] = value
            return
        # what later tables match is the field as set, even where the packet has no room for it
        state.frame = packets.rewrite(state.frame, name, value)
        state.fields[name] = value

    def _out(self, state: _Packet, port: int) -> Out:
        bare = self.routed is not None and port == self.routed
        if self.tunnel is not None and port != self.tunnel and not bare:
            return Out(port, frame=state.frame)
        frame = packets.without_ethernet(state.frame) if bare else state.frame
        fields = state.fields
        # As Open vSwitch does it: where there is an IPv4 tunnel destination, no IPv6 address is looked at.
        family, width = ("tun_ipv4_", 4) if fields.get("tun_ipv4_dst") else ("tun_ipv6_", 16)
        src, dst = (
            fields[family + end].to_bytes(width, "big") if fields.get(family + end) else None for end in ("src", "dst")
        )
        return Out(port, fields.get("tun_id"), src, dst, frame)


def _goes_to(action: Action, port: int) -> bool:
    return isinstance(action, Output) and action.port == port


def _tunnel_fields(tun_id: int | None, src: bytes | None, dst: bytes | None) -> dict[str, int]:
    fields = {} if tun_id is None else {"tun_id": tun_id}
    for name, address in (("src", src), ("dst", dst)):
        if address is not None:
            fields[f"tun_ipv{4 if len(address) == 4 else 6}_{name}"] = int.from_bytes(address, "big")
    return fields


__all__ = ["Dropped", "Entry", "Out", "Refused", "Tables", "ToNva"]
