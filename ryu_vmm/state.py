"""Everything the NVA knows, in tables of immutable values, with a journal.

Every change goes through :meth:`State.put`. The journal makes three things possible: a step whose record cannot be
committed is undone whole; the records of a step are read off it; and the flows that a switch has *now* need not be
remembered, because undoing the step, asking the pipeline, and redoing it tells what they were.

Indexes are kept by the same call, so undo and redo keep them too. What a change touches is noted as units of the
pipeline, (NVE, unit); see pipeline.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from .model import Fault, Held, Interface, Leg, Move, Network, Nve, Place, Port, Session, Trust, Vm

#: Tables that survive a restart.
PERSISTENT = ("nves", "networks", "vms", "interfaces", "moves")

_ANSWERED_FROM = ("nves", "interfaces", "ports")

#: A part of an NVE's flows that is computed as one: ("base",), ("vn", vni), ("if", id), ("port", name), ("move", id).
Unit = tuple[Any, ...]


class State:
    """The directory, the open moves, and what the switches reported.

    Tables (read freely, write with :meth:`put` only): ``nves`` by name, ``networks`` by VNI, ``vms`` by name,
    ``interfaces`` by id, ``moves`` by id, ``ports`` by (NVE, name), ``sessions`` by NVE, ``pulled`` by (NVE,
    interface id), ``gone`` by interface id (the slot of the meter that counts what is lost while its port is gone),
    ``held`` by interface id: packets that wait for its port, ``faults`` by NVE: what it refused, ``generations`` by
    NVE: (programmed, realised), ``waits`` and ``probes`` by move id, ``clock`` by (kind, key).
    """

    def __init__(self) -> None:
        self.nves: dict[str, Nve] = {}
        self.networks: dict[int, Network] = {}
        self.vms: dict[str, Vm] = {}
        self.interfaces: dict[str, Interface] = {}
        self.moves: dict[int, Move] = {}
        self.ports: dict[tuple[str, str], Port] = {}
        self.sessions: dict[str, Session] = {}
        self.pulled: dict[tuple[str, str], bool] = {}
        self.generations: dict[str, tuple[int, int]] = {}
        self.waits: dict[int, dict[str, int]] = {}
        self.clock: dict[tuple[str, int], float] = {}
        self.probes: dict[int, Any] = {}
        self.meta: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        self.held: dict[str, Held] = {}
        self.faults: dict[str, Fault] = {}

        self.by_dpid: dict[int, str] = {}
        self.by_mac: dict[tuple[int, bytes], str] = {}
        self.by_ip: dict[tuple[int, bytes], str] = {}
        self.by_place: dict[Place, str] = {}
        self.by_number: dict[tuple[str, int], str] = {}
        self.by_request: dict[str, int] = {}
        self.attached: dict[Place, set[str]] = defaultdict(set)
        self._vni_of: dict[str, int] = {}
        self._in_network: dict[int, dict[str, None]] = defaultdict(dict)
        self._located: dict[tuple[int, str], dict[str, None]] = defaultdict(dict)
        self._members: dict[int, Counter[str]] = defaultdict(Counter)
        self._networks_of: dict[str, set[int]] = defaultdict(set)
        self._ports_of: dict[str, set[str]] = defaultdict(set)
        self._open: dict[int, None] = {}
        self._moves_of: dict[str, tuple[int, ...]] = {}
        self._moves_of_vm: dict[str, set[int]] = defaultdict(set)
        self._trusting = 0
        self._expecting: Counter[str] = Counter()

        #: Counts changes of what questions about addresses are answered from.
        self.version = 0
        self._journal: list[tuple[str, Any, Any, Any]] = []
        self._quiet = False
        self.touched: dict[str, set[Unit]] = defaultdict(set)
        #: (VNI, NVE) that joined in this step
        self.joined: list[tuple[int, str]] = []

    # --- reading ----------------------------------------------------------------------------------------------------
    @property
    def generation(self) -> int:
        """Counts the steps that programmed any switch."""
        return self.meta.get("generation", 0)

    def network_named(self, name: str) -> Network | None:
        """The network of that name, or None."""
        vni = self._vni_of.get(name)
        return None if vni is None else self.networks[vni]

    def members(self, vni: int) -> Iterable[str]:
        """The NVEs that hold state for a network: its correspondents."""
        return self._members[vni].keys() if vni in self._members else ()

    def networks_of(self, nve: str) -> Iterable[int]:
        """The VNIs that an NVE holds state for."""
        return self._networks_of.get(nve, ())

    def in_network(self, vni: int) -> Iterable[str]:
        """The ids of a network's interfaces."""
        return self._in_network.get(vni, ())

    def located(self, vni: int, nve: str) -> Iterable[str]:
        """The ids of a network's interfaces whose location is that NVE."""
        return self._located.get((vni, nve), ())

    def ports_of(self, nve: str) -> Iterable[str]:
        """Names of the ports that an NVE has shown."""
        return self._ports_of.get(nve, ())

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

    def port_at(self, place: Place) -> Port | None:
        """The port at an attachment point, if it is there and up."""
        port = self.ports.get(place)
        return port if port is not None and port.up else None

    def expecting(self, nve: str) -> bool:
        """Whether a VM may show up at a port of an NVE that is not there yet."""
        return self._trusting > 0 or self._expecting[nve] > 0

    def _expect(self, nve: str, by: int) -> None:
        before = self._expecting[nve]
        self._expecting[nve] = before + by
        if not self._expecting[nve]:
            del self._expecting[nve]
        if not before or not before + by:
            self.touch(nve, ("base",))

    @property
    def trusting(self) -> bool:
        """Whether any network believes announcements from any port."""
        return self._trusting > 0

    # --- journal ----------------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """Start a step: forget the previous journal and what it touched."""
        self._journal.clear()
        self.touched.clear()
        self.joined.clear()

    def mark(self) -> int:
        """A position in the journal, for :meth:`rewind`."""
        return len(self._journal)

    def rewind(self, mark: int) -> None:
        """Undo the step back to ``mark`` without forgetting it; :meth:`replay` brings it back."""
        self._quiet = True
        for table, key, old, new in reversed(self._journal[mark:]):
            self._apply(table, key, new, old)
        self._quiet = False

    def replay(self, mark: int) -> None:
        """Redo what :meth:`rewind` undid."""
        self._quiet = True
        for table, key, old, new in self._journal[mark:]:
            self._apply(table, key, old, new)
        self._quiet = False

    def undo(self) -> None:
        """Undo the whole step for good."""
        self.rewind(0)
        self.begin()

    def changes(self) -> dict[tuple[str, Any], Any]:
        """The step's net change of persistent tables: (table, key) -> value, None for deleted."""
        return {(table, key): new for table, key, _, new in self._journal if table in PERSISTENT}

    def put(self, table: str, key: Any, value: Any) -> None:
        """Set ``table[key]`` (None deletes), journal it, keep the indexes, note what is touched."""
        old = getattr(self, table).get(key)
        if old == value:
            return
        self._journal.append((table, key, old, value))
        self._apply(table, key, old, value)

    def _apply(self, table: str, key: Any, old: Any, new: Any) -> None:
        if table in _ANSWERED_FROM:
            self.version += 1
        hook = getattr(self, "_index_" + table, None)
        content = getattr(self, table)
        if new is None:
            content.pop(key, None)
        else:
            content[key] = new
        if hook is not None:
            hook(key, old, new)

    # --- what a change touches ---------------------------------------------------------------------------------------
    def touch(self, nve: str, *units: Unit) -> None:
        """Note that these units of an NVE may have changed (all of them if none is named)."""
        if not self._quiet:
            self.touched[nve].update(units or (("all",),))

    def _touch_everywhere(self, vni: int, *units: Unit) -> None:
        if not self._quiet:
            for nve in self.members(vni):
                self.touched[nve].update(units)

    def _touch_place(self, place: Place) -> None:
        self.touch(place.nve, ("port", place.port))

    # --- indexes ------------------------------------------------------------------------------------------------------
    def _index_nves(self, name: str, old: Nve | None, new: Nve | None) -> None:
        if old is not None:
            self.by_dpid.pop(old.dpid, None)
        if new is not None:
            self.by_dpid[new.dpid] = name
        self.touch(name)
        if self._quiet:
            return
        for vni in tuple(self.networks_of(name)):
            self._touch_network(vni)

    def _index_networks(self, vni: int, old: Network | None, new: Network | None) -> None:
        if old is not None:
            self._vni_of.pop(old.name, None)
        if new is not None:
            self._vni_of[new.name] = vni
        before = self._trusting
        self._trusting += sum(n.policy.announcements is Trust.ANY for n in (new,) if n)
        self._trusting -= sum(n.policy.announcements is Trust.ANY for n in (old,) if n)
        if self._quiet:
            return
        self._touch_network(vni)
        if bool(before) != bool(self._trusting):
            for nve, names in self._ports_of.items():
                self.touch(nve, ("base",), *(("port", name) for name in names))

    def _touch_network(self, vni: int) -> None:
        """Everything about a network, on every NVE that has it: for rare changes."""
        units: list[Unit] = [("vn", vni)]
        units += [("if", i) for i in self.in_network(vni)]
        units += [("move", m.id) for m in self.open_moves() if any(leg.vni == vni for leg in m.legs)]
        self._touch_everywhere(vni, *units)
        for i in self.in_network(vni):
            interface = self.interfaces[i]
            for place in (interface.location, *interface.attachments):
                self._touch_place(place)

    def _index_interfaces(self, key: str, old: Interface | None, new: Interface | None) -> None:
        if old is not None:
            if self.by_mac.get((old.vni, old.mac)) == key:
                del self.by_mac[(old.vni, old.mac)]
            for ip in old.ipv4 + old.ipv6:
                if self.by_ip.get((old.vni, ip)) == key:
                    del self.by_ip[(old.vni, ip)]
            if self.by_place.get(old.location) == key:
                del self.by_place[old.location]
            self._in_network[old.vni].pop(key, None)
            self._located[(old.vni, old.location.nve)].pop(key, None)
            for place in old.attachments:
                self.attached[place].discard(key)
                if not self.attached[place]:
                    del self.attached[place]
        if new is not None:
            self.by_mac[(new.vni, new.mac)] = key
            for ip in new.ipv4 + new.ipv6:
                self.by_ip[(new.vni, ip)] = key
            self.by_place[new.location] = key
            self._in_network[new.vni][key] = None
            self._located[(new.vni, new.location.nve)][key] = None
            for place in new.attachments:
                self.attached[place].add(key)
        # Joining before leaving keeps the members that both name from being torn down and set up again.
        for interface, by in ((new, 1), (old, -1)):
            if interface is None:
                continue
            self._member(interface.vni, interface.location.nve, by)
            for place in interface.attachments:
                self._expect(place.nve, by)
                if place in self.ports:
                    self._member(interface.vni, place.nve, by)
        for interface in (old, new):
            if interface is None or self._quiet:
                continue
            self._touch_everywhere(interface.vni, ("if", key))
            self.touch(interface.location.nve, ("if", key), ("vn", interface.vni))
            for place in (interface.location, *interface.attachments):
                self._touch_place(place)
            for move, _ in self.moves_of(key):
                self._touch_everywhere(interface.vni, ("move", move.id))

    def _index_moves(self, key: int, old: Move | None, new: Move | None) -> None:
        vm = (new or old).vm  # type: ignore[union-attr]
        if new is None:
            self._moves_of_vm[vm].discard(key)
        else:
            self._moves_of_vm[vm].add(key)
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
        if new is not None and new.open:
            self._open[key] = None
            for leg in new.legs:
                self._moves_of[leg.interface] = tuple(sorted({*self._moves_of.get(leg.interface, ()), key}))
        if self._quiet or _shape(old) == _shape(new):
            return
        for leg in {*(old.legs if old else ()), *(new.legs if new else ())}:
            units: list[Unit] = [("if", leg.interface), ("move", key)]
            units += [("move", move.id) for move, _ in self.moves_of(leg.interface)]
            self._touch_everywhere(leg.vni, *units)
            for place in (leg.src, leg.dst):
                self._touch_place(place)
                self.touch(place.nve, ("vn", leg.vni), *units)

    def _index_ports(self, key: tuple[str, str], old: Port | None, new: Port | None) -> None:
        place = Place(*key)
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
        if self._quiet:
            return
        self._touch_place(place)
        here = set(self.attached.get(place, ()))
        if place in self.by_place:
            here.add(self.by_place[place])
        for move in self.open_moves():
            for leg in move.legs:
                if place in (leg.src, leg.dst):
                    here.add(leg.interface)
                    self.touch(place.nve, ("move", move.id))
        for i in here:
            self.touch(place.nve, ("if", i), ("vn", self.interfaces[i].vni))

    def _index_sessions(self, nve: str, old: Session | None, new: Session | None) -> None:
        self.touch(nve)

    def _index_pulled(self, key: tuple[str, str], old: bool | None, new: bool | None) -> None:
        self.touch(key[0], ("if", key[1]))

    def _index_gone(self, key: str, old: int | None, new: int | None) -> None:
        interface = self.interfaces.get(key)
        if interface is not None:
            self._touch_everywhere(interface.vni, ("if", key))

    def _member(self, vni: int, nve: str, by: int) -> None:
        """Count a reason for an NVE to hold a network's state; the first and the last one touch the network."""
        counts = self._members[vni]
        before = counts[nve]
        after = before + by
        if after:
            counts[nve] = after
        else:
            del counts[nve]
            if not counts:
                del self._members[vni]
        if bool(before) == bool(after):
            return
        if after:
            self._networks_of[nve].add(vni)
        else:
            self._networks_of[nve].discard(vni)
        if self._quiet:
            return
        if after:
            self.joined.append((vni, nve))
        moves = [("move", m.id) for m in self.open_moves() if any(leg.vni == vni for leg in m.legs)]
        self._touch_everywhere(vni, ("vn", vni), *moves)
        self.touch(nve, ("vn", vni), *moves, *(("if", i) for i in self.in_network(vni)))


def _shape(move: Move | None) -> object:
    """What of a move the pipeline looks at: a ledger entry touches no flow."""
    if move is None:
        return None
    return (move.state, move.redirect, move.sampling, move.legs)
