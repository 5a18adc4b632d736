"""Everything the NVA knows, in tables of immutable values, with a journal (journal.py) and indexes.

Every change goes through :meth:`State.put`. Indexes are kept by the same call, so undo and redo keep them too. What a
change touches is noted as units of the pipeline, (NVE, unit); which, dependencies.py says.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from .answertables import AnswerTables
from .dependencies import readers
from .domains import Domains
from .events import NveConnected
from .finding import Found
from .journal import Unit
from .limits import Limits
from .model import (
    BrokenPath,
    Frozen,
    Held,
    Holder,
    Interface,
    Lacking,
    Leg,
    Move,
    MoveState,
    Network,
    Nve,
    Place,
    Port,
    Session,
    Sought,
    Trust,
    Unadmitted,
    Vm,
    Wish,
)
from .nametables import NameTables
from .refusaltables import RefusalTables
from .slottables import SlotTables, slot_key

__all__ = ["State", "Unit", "slot_key"]


class State(NameTables, AnswerTables, RefusalTables, SlotTables, Domains):
    """The directory, the open moves, and what the switches reported.

    Tables (read freely, write with :meth:`put` only): ``nves`` by name, ``networks`` by VNI, ``vms`` by name,
    ``interfaces`` by id, ``moves`` by id, ``ports`` by (NVE, name), ``sessions`` by NVE, ``strangers``: switches that
    connected with a datapath id nobody registered, by that id: what they said, ``pulled`` by (NVE, interface id),
    ``gone`` by interface id (the slot of the meter that counts what is lost while its port is gone), ``held`` by
    interface id: packets that wait for its port, ``broken`` by redirects.Crossing: paths that do not work; ``lacking``
    by NVE: ports to the underlay that it ought to have, ``barriers`` by move id: NVE -> seconds from trigger to barrier
    reply, ``generations`` by NVE: (programmed, realised), ``waits``, ``probes`` and ``returning`` (ended; the source
    may not know) by move id,
    ``overheard`` by move id: when its watched source was first heard, ``sought`` by interface id (sought.py),
    ``silenced``: ports whose forgeries are only counted, by place, and until when; ``muted``: those of whose other
    drops no samples are taken; ``unadmitted``: what ports were not admitted to send; ``frozen`` by interface id, and
    ``thawed``: when that ended; ``clock`` by (kind, key);
    ``wishes``: what was submitted last, by wishes.key_of; and those of nametables.py,
    answertables.py, evacuees.py, refusaltables.py, slottables.py and domains.py.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nves: dict[str, Nve] = {}
        self.networks: dict[int, Network] = {}
        self.vms: dict[str, Vm] = {}
        self.interfaces: dict[str, Interface] = {}
        self.moves: dict[int, Move] = {}
        self.ports: dict[tuple[str, str], Port] = {}
        self.sessions: dict[str, Session] = {}
        self.strangers: dict[int, NveConnected] = {}
        self.pulled: dict[tuple[str, str], bool] = {}
        self.generations: dict[str, tuple[int, int]] = {}
        self.waits: dict[int, dict[str, int]] = {}
        self.clock: dict[tuple[str, Any], float] = {}
        self.probes: dict[int, Any] = {}
        self.returning: dict[int, bool] = {}
        self.meta: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        self.barriers: dict[int, dict[str, float]] = {}
        self.held: dict[str, Held] = {}
        self.overheard: dict[int, float] = {}
        self.sought: dict[str, Sought] = {}
        self.broken: dict[tuple[str, str, str], BrokenPath] = {}
        self.lacking: dict[str, Lacking] = {}
        self.silenced: dict[Place, float] = {}
        self.muted: dict[Place, float] = {}
        self.unadmitted: dict[Place, tuple[Unadmitted, ...]] = {}
        self.frozen: dict[str, Frozen] = {}
        self.wishes: dict[str, Wish] = {}
        self.thawed: dict[str, float] = {}
        self.limits = Limits()  # set once, before anything else

        self.by_dpid: dict[int, str] = {}
        self.by_mac: dict[tuple[int, bytes], str] = {}
        self.by_ip: dict[tuple[int, bytes], str] = {}
        self.by_place: dict[Place, str] = {}
        self.by_number: dict[tuple[str, int], str] = {}
        self.by_request: dict[str, int] = {}
        self.pending_at: dict[Place, str] = {}
        self.attached: dict[Place, set[str]] = defaultdict(set)
        self.sought_at: dict[Place, dict[str, None]] = defaultdict(dict)
        self._vni_of: dict[str, int] = {}
        self._in_network: dict[int, dict[str, None]] = defaultdict(dict)
        self._located: dict[tuple[int, str], dict[str, None]] = defaultdict(dict)
        self._ports_of: dict[str, set[str]] = defaultdict(set)
        self._pulled_by: dict[str, set[str]] = defaultdict(set)
        self._pulled_at: dict[str, set[str]] = defaultdict(set)
        self._open: dict[int, None] = {}
        self._proving: Counter[tuple[str, int]] = Counter()
        # Open moves, by what they concern: an end's place, a destination's (VNI, NVE), a VNI.
        self._moves_at: dict[Place, dict[int, None]] = defaultdict(dict)
        self._moves_to: dict[tuple[int, str], dict[int, None]] = defaultdict(dict)
        self._moves_in: dict[int, dict[int, None]] = defaultdict(dict)
        self._moves_of: dict[str, tuple[int, ...]] = {}
        self._moves_of_vm: dict[str, dict[int, None]] = defaultdict(dict)
        self._vms_of_tenant: dict[str, dict[str, None]] = defaultdict(dict)
        self._slots: set[int] = set()
        self._free_slots: list[int] = []  # a heap; may hold some that are taken again
        self._slots_used = 0  # none from here on was ever taken
        self._trusting = 0
        self._expecting: Counter[str] = Counter()

    # --- reading ----------------------------------------------------------------------------------------------------
    @property
    def generation(self) -> int:
        """Counts the steps that programmed any switch."""
        return self.meta.get("generation", 0)

    def network_named(self, name: str) -> Network | None:
        """The network of that name, or None."""
        vni = self._vni_of.get(name)
        return None if vni is None else self.networks[vni]

    def common_tenant(self, vnis: Iterable[int]) -> str | None:
        """The tenant that all these networks belong to, None if there is no such."""
        owners = {self.networks[vni].tenant for vni in vnis}
        return owners.pop() if len(owners) == 1 else None

    def vms_of(self, tenant: str) -> Iterable[str]:
        """Names of a tenant's VMs."""
        return self._vms_of_tenant.get(tenant, ())

    def in_network(self, vni: int) -> Iterable[str]:
        """The ids of a network's interfaces."""
        return self._in_network.get(vni, ())

    def located(self, vni: int, nve: str) -> Iterable[str]:
        """The ids of a network's interfaces whose location is that NVE."""
        return self._located.get((vni, nve), ())

    def ports_of(self, nve: str) -> Iterable[str]:
        """Names of the ports that an NVE has shown."""
        return self._ports_of.get(nve, ())

    def correspondents(self, move: Move) -> set[str]:
        """The NVEs that hold state for a network in which a move takes place, its ends among them while it is open."""
        return {nve for leg in move.legs for nve in self.members(leg.vni)}

    def open_moves(self) -> Iterator[Move]:
        """Moves that have not ended, oldest first."""
        return (self.moves[i] for i in sorted(self._open))

    def moves_of(self, interface: str) -> Iterator[tuple[Move, Leg]]:
        """Open moves of an interface with the leg that concerns it, oldest first."""
        for number in self._moves_of.get(interface, ()):
            move = self.moves[number]
            for leg in move.legs:
                if leg.interface == interface:
                    yield move, leg

    def active_move(self, interface: str) -> tuple[Move, Leg] | None:
        """The open move of an interface that has not steered yet: at most one."""
        for move, leg in self.moves_of(interface):
            if not move.state.steered:
                return move, leg
        return None

    def recent_moves(self, interface: str) -> Iterator[Move]:
        """Moves of an interface's VM that took this interface along, newest first."""
        vm = self.interfaces[interface].vm
        for number in sorted(self._moves_of_vm.get(vm, ()), reverse=True):
            move = self.moves[number]
            if any(leg.interface == interface for leg in move.legs):
                yield move

    def moves_at(self, place: Place) -> list[tuple[Move, Leg]]:
        """Open moves from or to an attachment point, oldest first, with the leg that is."""
        found = [self.moves[i] for i in sorted(self._moves_at.get(place, ()))]
        return [(move, leg) for move in found for leg in move.legs if place in (leg.src, leg.dst)]

    def moves_to(self, vni: int, nve: str) -> Iterator[tuple[Move, Leg]]:
        """Open moves within a network whose destination is an NVE, oldest first, with each leg concerned."""
        for i in sorted(self._moves_to.get((vni, nve), ())):
            for leg in self.moves[i].legs:
                if leg.vni == vni:
                    yield self.moves[i], leg

    def moves_in(self, vni: int) -> Iterable[int]:
        """The numbers of open moves within a network."""
        return self._moves_in.get(vni, ())

    def proving(self) -> Iterable[tuple[str, int]]:
        """Destination and VNI of moves whose paths are being proven, each once."""
        return self._proving.keys()

    def pulled_by(self, interface: str) -> Iterable[str]:
        """The NVEs that have asked where an interface is."""
        return self._pulled_by.get(interface, ())

    def pulled_at(self, nve: str) -> Iterable[str]:
        """The ids of the interfaces that an NVE has asked for."""
        return self._pulled_at.get(nve, ())

    def port_at(self, place: Place) -> Port | None:
        """The port at an attachment point, if it is there and up, and not the tunnel."""
        port = self.ports.get(place)
        return port if port is not None and port.up and not self.is_tunnel(place) else None

    def has_gone(self, place: Place) -> bool:
        """Whether nothing can be at an attachment point. Of an NVE that has said nothing since the NVA was started,
        nobody knows."""
        return self.port_at(place) is None and (place.nve in self.sessions or bool(self._ports_of.get(place.nve)))

    def is_tunnel(self, place: Place) -> bool:
        """Whether a port is known to be one of an NVE's ports to the underlay: a tunnel's, or ILA's."""
        session, port = self.sessions.get(place.nve), self.ports.get(place)
        return session is not None and port is not None and port.number in (session.tunnel, session.routed, session.ila)

    def expecting(self, nve: str) -> bool:
        """Whether a VM may show up at a port of an NVE that is not there yet."""
        return self._trusting > 0 or self._expecting[nve] > 0

    def _expect(self, nve: str, by: int) -> None:
        before = self._expecting[nve]
        self._expecting[nve] = before + by
        if not self._expecting[nve]:
            del self._expecting[nve]
        if not before or not before + by:
            self.notice("expecting", nve)

    @property
    def trusting(self) -> bool:
        """Whether any network believes announcements from any port."""
        return self._trusting > 0

    def has_slot(self, slot: int) -> bool:
        """Whether a slot for a meter of a port that has gone is taken."""
        return slot in self._slots

    def free_slot(self) -> int:
        """The lowest slot for a meter of a port that has gone."""
        while self._free_slots and self._free_slots[0] in self._slots:
            heapq.heappop(self._free_slots)
        return self._free_slots[0] if self._free_slots else self._slots_used

    # --- what a change touches ---------------------------------------------------------------------------------------
    def readers(self, table: str, key: Any, row: Any = None, fields: frozenset[str] = frozenset()) -> Found:
        """The units that read a row, or what is counted of that name: see dependencies.readers."""
        return readers(self, table, key, row, fields)

    # --- indexes ------------------------------------------------------------------------------------------------------
    def _index_nves(self, name: str, old: Nve | None, new: Nve | None) -> None:
        if old is not None:
            self.by_dpid.pop(old.dpid, None)
        if new is not None:
            self.by_dpid[new.dpid] = name
        self.floods.clear()

    def _index_networks(self, vni: int, old: Network | None, new: Network | None) -> None:
        if old is not None:
            self._vni_of.pop(old.name, None)
        if new is not None:
            self._vni_of[new.name] = vni
        self._route(vni, old, new)
        before = self._trusting
        self._trusting += sum(n.policy.announcements is Trust.ANY for n in (new,) if n)
        self._trusting -= sum(n.policy.announcements is Trust.ANY for n in (old,) if n)
        if bool(before) != bool(self._trusting):
            self.notice("trusting", None)

    def _index_vms(self, key: str, old: Vm | None, new: Vm | None) -> None:
        if old is not None and old.tenant is not None:
            _drop(self._vms_of_tenant, old.tenant, key)
        if new is not None and new.tenant is not None:
            self._vms_of_tenant[new.tenant][key] = None

    def _index_interfaces(self, key: str, old: Interface | None, new: Interface | None) -> None:
        self._index_dns(key, old, new)
        self._index_sharing(key, old, new)
        if old is not None:
            if self.by_mac.get((old.vni, old.mac)) == key:
                del self.by_mac[(old.vni, old.mac)]
            for ip in old.ipv4 + old.ipv6:
                if self.by_ip.get((old.vni, ip)) == key:
                    del self.by_ip[(old.vni, ip)]
            if self.by_place.get(old.location) == key:
                del self.by_place[old.location]
            if old.pending is not None and self.pending_at.get(old.pending) == key:
                del self.pending_at[old.pending]
            _drop(self._in_network, old.vni, key)
            _drop(self._located, (old.vni, old.location.nve), key)
            for place in old.attachments:
                self.attached[place].discard(key)
                if not self.attached[place]:
                    del self.attached[place]
        if new is not None:
            self.by_mac[(new.vni, new.mac)] = key
            for ip in new.ipv4 + new.ipv6:
                self.by_ip[(new.vni, ip)] = key
            self.by_place[new.location] = key
            if new.pending is not None:
                self.pending_at[new.pending] = key
            self._in_network[new.vni][key] = None
            self._located[(new.vni, new.location.nve)][key] = None
            for place in new.attachments:
                self.attached[place].add(key)
        # Joining before leaving keeps the members that both name from being torn down and set up again.
        for interface, by in ((new, 1), (old, -1)):
            if interface is None:
                continue
            self._member(interface.vni, interface.location.nve, by)
            self._guest(interface.vm, interface.location.nve, by)
            for place in interface.attachments:
                self._expect(place.nve, by)
                if place in self.ports:
                    self._member(interface.vni, place.nve, by)

    def _index_holders(self, key: str, old: Holder | None, new: Holder | None) -> None:
        self._keep_holder(key, old, new)

    def _index_moves(self, key: int, old: Move | None, new: Move | None) -> None:
        vm = (new or old).vm  # type: ignore[union-attr]
        if new is None:
            _drop(self._moves_of_vm, vm, key)
        else:
            self._moves_of_vm[vm][key] = None
        for move, by in ((new, 1), (old, -1)):
            if move is None:
                continue
            if move.request_id is not None and by < 0 and new is None:
                self.by_request.pop(move.request_id, None)
            elif move.request_id is not None:
                self.by_request[move.request_id] = key
            if not move.open:
                continue
            if by < 0:
                self._open.pop(key, None)
                for leg in move.legs:
                    rest = tuple(m for m in self._moves_of.get(leg.interface, ()) if m != key)
                    self._moves_of[leg.interface] = rest
                    if not rest:
                        del self._moves_of[leg.interface]
            for leg in move.legs:
                self._member(leg.vni, leg.src.nve, by)
                self._member(leg.vni, leg.dst.nve, by)
                self._expect(leg.dst.nve, by)
                if move.state is MoveState.PREPARING:
                    self._proving[leg.dst.nve, leg.vni] += by
                    if not self._proving[leg.dst.nve, leg.vni]:
                        del self._proving[leg.dst.nve, leg.vni]
        if old is not None and old.open:
            self._promise(old, False)
            for leg in old.legs:
                for index, at in self._indexed(leg):
                    _drop(index, at, key)
        if new is not None and new.open:
            self._open[key] = None
            self._promise(new, True)
            for leg in new.legs:
                self._moves_of[leg.interface] = tuple(sorted({*self._moves_of.get(leg.interface, ()), key}))
                for index, at in self._indexed(leg):
                    index[at][key] = None

    def _indexed(self, leg: Leg) -> tuple[tuple[dict[Any, dict[int, None]], Any], ...]:
        """The indexes of open moves in which a leg appears, each with the key there; none twice in one of them."""
        ends = [(self._moves_at, place) for place in {leg.src, leg.dst}]
        return (*ends, (self._moves_to, (leg.vni, leg.dst.nve)), (self._moves_in, leg.vni))

    def _index_ports(self, key: tuple[str, str], old: Port | None, new: Port | None) -> None:
        place = Place(*key)
        self._index_shown(old, new)
        if old is not None:
            if self.by_number.get((old.nve, old.number)) == old.name:
                del self.by_number[(old.nve, old.number)]
            self._ports_of[old.nve].discard(old.name)
        if new is not None:
            self.by_number[(new.nve, new.number)] = new.name
            self._ports_of[new.nve].add(new.name)
        if (old is None) != (new is None):
            for i in self.attached.get(place, ()):
                self._member(self.interfaces[i].vni, place.nve, 1 if old is None else -1)
            for i in self.sought_at.get(place, ()):
                self._member(self.sought[i].vni, place.nve, 1 if old is None else -1)

    def _index_sought(self, key: str, old: Sought | None, new: Sought | None) -> None:
        for sought, by in ((new, 1), (old, -1)):
            if sought is None:
                continue
            if by > 0:
                self.sought_at[sought.place][key] = None
            elif new is None or new.place != sought.place:
                _drop(self.sought_at, sought.place, key)
            self._expect(sought.place.nve, by)
            if sought.place in self.ports:
                self._member(sought.vni, sought.place.nve, by)

    def _index_pulled(self, key: tuple[str, str], old: bool | None, new: bool | None) -> None:
        for index, at, what in ((self._pulled_by, key[1], key[0]), (self._pulled_at, *key)):
            if new:
                index[at].add(what)
                continue
            index[at].discard(what)
            if not index[at]:
                del index[at]

    def _index_gone(self, key: str, old: int | None, new: int | None) -> None:
        if old is not None:
            self._slots.discard(old)
            heapq.heappush(self._free_slots, old)
        if new is not None:
            self._slots.add(new)
            self._slots_used = max(self._slots_used, new + 1)


def _drop(index: dict[Any, dict[Any, None]], at: Any, key: Any) -> None:
    """Take a key out of an index, and with the last one its place there."""
    keys = index.get(at)
    if keys is not None:
        keys.pop(key, None)
        if not keys:
            del index[at]
