"""Which NVEs hold state for a network, and what layer 3 knows beside that: routers, offers, next hops, what was left.

Networks of one router form a domain: an NVE that has a guest in one of them routes to all of them, and so holds state
for all. A network without a router is a domain of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .evacuees import EvacuationTables
from .finding import Found
from .model import Answer, Gateway, Interface, Left, Leg, Move, Network, NetworkKind, Nve

#: Tenant and router: what networks of one domain have in common.
Router = tuple[str | None, str]


class Offer(NamedTuple):
    """What an NVE's switch has shown to have, when it was last asked: other NVEs choose how to reach it by that."""

    routed: bool = False
    ila: bool = False


class Hop(NamedTuple):
    """An underlay neighbor of an NVE: its MAC, and the NVE that asked."""

    nve: str
    address: bytes
    mac: bytes

    @property
    def key(self) -> str:
        """Its key in the table."""
        return hop_key(self.nve, self.address)


def hop_key(nve: str, address: bytes) -> str:
    """The key of what an NVE knows of an underlay neighbor."""
    return f"{nve}/{address.hex()}"


class Domains(EvacuationTables):
    """Tables: ``offers`` by NVE; ``hops``: underlay neighbors that are known, by :func:`hop_key`; ``left``: addresses
    that tasks have left, by Left.key."""

    nves: dict[str, Nve]
    networks: dict[int, Network]
    interfaces: dict[str, Interface]
    pulled: dict[tuple[str, str], bool]

    def __init__(self) -> None:
        super().__init__()
        self.offers: dict[str, Offer] = {}
        self.hops: dict[str, Hop] = {}
        self.left: dict[str, Left] = {}
        # NVEs with a reason of a network's own, and those with a reason of any network of its domain, counted
        self._own: dict[int, Counter[str]] = defaultdict(Counter)
        self._members: dict[int, Counter[str]] = defaultdict(Counter)
        self._networks_of: dict[str, set[int]] = defaultdict(set)
        self._routers: dict[Router, set[int]] = defaultdict(set)
        self._left_at: dict[str, dict[str, None]] = defaultdict(dict)
        self._left_by: dict[str, dict[str, None]] = defaultdict(dict)
        self._left_of: dict[bytes, dict[str, None]] = defaultdict(dict)
        # Addresses that open moves change, old and new: (VNI, address) -> move -> interface
        self._promised: dict[tuple[int, bytes], dict[int, str]] = defaultdict(dict)
        #: What the pipeline has computed for flooding; gone when the members of a network or their addresses change.
        self.floods: dict[tuple[int, int, int, bool], tuple[dict[str, int], tuple[Any, ...]]] = {}

    @abstractmethod
    def in_network(self, vni: int) -> Iterable[str]:
        """The ids of a network's interfaces."""

    @abstractmethod
    def moves_of(self, interface: str) -> Iterator[tuple[Move, Leg]]:
        """Open moves of an interface with its leg, oldest first."""

    @abstractmethod
    def located(self, vni: int, nve: str) -> Iterable[str]:
        """The ids of a network's interfaces whose location is that NVE."""

    # --- reading ------------------------------------------------------------------------------------------------------
    def members(self, vni: int) -> Iterable[str]:
        """The NVEs that hold state for a network: its correspondents."""
        return self._members[vni].keys() if vni in self._members else ()

    def hosts(self, vni: int) -> Iterable[str]:
        """The NVEs that have, or are about to have, a guest in a network: those that flooding reaches."""
        return self._own[vni].keys() if vni in self._own else ()

    def networks_of(self, nve: str) -> Iterable[int]:
        """The VNIs that an NVE holds state for."""
        return self._networks_of.get(nve, ())

    def domain(self, vni: int) -> tuple[int, ...]:
        """The VNIs that a network is routed to, its own among them, ascending; the first one names the domain."""
        router = _router(self.networks.get(vni))
        return (vni,) if router is None else tuple(sorted(self._routers[router] | {vni}))

    def routed_like(self, network: Network) -> Iterable[int]:
        """The VNIs that a network of that router is routed to."""
        router = _router(network)
        return () if router is None else self._routers.get(router, ())

    def gateway(self, vni: int) -> Gateway | None:
        """The gateway of a network's guests, None where nothing is routed."""
        network = self.networks.get(vni)
        return None if network is None else network.gateway

    def is_l3(self, vni: int) -> bool:
        """Whether a network carries no Ethernet."""
        network = self.networks.get(vni)
        return network is not None and network.kind is NetworkKind.L3

    def owner(self, vni: int, address: bytes) -> str | None:
        """The id of the interface that has an address in a network's domain."""
        return next((i for v in self.domain(vni) if (i := self.by_ip.get((v, address))) is not None), None)

    by_ip: dict[tuple[int, bytes], str]

    def claims(self, vni: int, address: bytes) -> Iterator[tuple[str, int | None]]:
        """Who has an address in a network's domain, or had or will have it by an open move: interface, and the move."""
        for each in self.domain(vni):
            holder = self.by_ip.get((each, address))
            if holder is not None:
                yield holder, None
            for move, interface in self._promised.get((each, address), {}).items():
                yield interface, move

    def promised_in(self, vni: int) -> set[bytes]:
        """The addresses of a network that open moves change: those given up, and those to come."""
        return {address for each, address in self._promised if each == vni}

    def at_home(self, interface: Interface, address: bytes) -> bool:
        """Whether an address is in a subnet of the NVE where its interface is, so that it needs no route of its own."""
        subnets = self.networks[interface.vni].subnets
        return any(subnet.nve == interface.location.nve and address in subnet for subnet in subnets)

    def left_at(self, nve: str) -> Iterable[Left]:
        """What tasks have left at an NVE, or forwarded to it."""
        return [self.left[key] for key in self._left_at.get(nve, ())]

    def left_of(self, address: bytes) -> list[Left]:
        """Who has left an address, wherever."""
        return [self.left[key] for key in self._left_of.get(address, ())]

    def left_by(self, interface: str) -> list[Left]:
        """What an interface has left."""
        return [self.left[key] for key in self._left_by.get(interface, ())]

    def still(self, interface: Interface) -> tuple[bytes, ...]:
        """Addresses that an interface has no more, but is still reached by: what was left there is forwarded."""
        return tuple(
            left.address for left in self.left_by(interface.id) if left.answer is Answer.FORWARD and not left.ila
        )

    def next_hop(self, here: str, there: str) -> bytes | None:
        """The underlay address by which an NVE reaches another one's locator."""
        own, other = self.nves.get(here), self.nves.get(there)
        return None if own is None or other is None else own.next_hop or other.ipv6

    def hop(self, here: str, there: str) -> Hop | None:
        """The underlay neighbor by which an NVE reaches another one's locator, if it is known."""
        address = self.next_hop(here, there)
        return None if address is None else self.hops.get(hop_key(here, address))

    def routed_vnis(self, nve: str) -> set[int]:
        """The names of the domains that an NVE routes in."""
        return {self.domain(vni)[0] for vni in self.networks_of(nve) if self.gateway(vni) is not None}

    # --- what a change touches ----------------------------------------------------------------------------------------
    def notice(self, table: str, key: Any, row: Any = None, fields: frozenset[str] = frozenset()) -> None:
        if not self._quiet:
            for nves, units in self.readers(table, key, row, fields):
                for nve in nves:
                    self.touched[nve].update(units)

    @abstractmethod
    def readers(self, table: str, key: Any, row: Any, fields: frozenset[str]) -> Found:
        """The units that read a row, or what is counted of that name: see dependencies.readers."""

    # --- indexes ------------------------------------------------------------------------------------------------------
    def _promise(self, move: Move, kept: bool) -> None:
        """Both addresses of each change are owned while a move is open."""
        vnis = {leg.interface: leg.vni for leg in move.legs}
        for change in move.changes:
            for question in ((vnis[change.interface], change.old), (vnis[change.interface], change.new)):
                if kept:
                    self._promised[question][move.id] = change.interface
                else:
                    self._promised[question].pop(move.id, None)
                    if not self._promised[question]:
                        del self._promised[question]

    def _route(self, vni: int, old: Network | None, new: Network | None) -> None:
        """A network has joined or left a router, or what its guests' router is has changed."""
        before, after = _router(old), _router(new)
        if before != after or old is None or new is None:
            if before is not None:
                self._routers[before].discard(vni)
                self._merge(vni, self._routers[before], -1)
                if not self._routers[before]:
                    del self._routers[before]
            if after is not None:
                self._merge(vni, self._routers[after], 1)
                self._routers[after].add(vni)

    def _merge(self, vni: int, others: Iterable[int], by: int) -> None:
        for other in tuple(others):
            for nve, count in tuple(self._own.get(vni, Counter()).items()):
                self._count(other, nve, by * count)
            for nve, count in tuple(self._own.get(other, Counter()).items()):
                self._count(vni, nve, by * count)

    def _member(self, vni: int, nve: str, by: int) -> None:
        """Count a reason for an NVE to hold the state of a network, and of all that it is routed to."""
        own = self._own[vni]
        before = own[nve]
        own[nve] = before + by
        if not own[nve]:
            del own[nve]
            if not own:
                del self._own[vni]
        if bool(before) != bool(before + by):
            self._forget_floods(vni)
            self.notice("hosts", (vni, nve))
        for each in self.domain(vni):
            self._count(each, nve, by)

    def _forget_floods(self, vni: int) -> None:
        for key in [key for key in self.floods if key[0] == vni]:
            del self.floods[key]

    def _count(self, vni: int, nve: str, by: int) -> None:
        """The first and the last reason for an NVE to hold a network's state make it a member, or no longer one."""
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
        else:
            for i in [i for i in self.in_network(vni) if (nve, i) in self.pulled]:
                self.put("pulled", (nve, i), None)
        self.notice("members", (vni, nve))

    def _index_left(self, key: str, old: Left | None, new: Left | None) -> None:
        if old is not None:
            self._left_at[old.nve].pop(key, None)
            self._left_by[old.interface].pop(key, None)
            self._left_of[old.address].pop(key, None)
            if not self._left_of[old.address]:
                del self._left_of[old.address]
        if new is not None:
            self._left_at[new.nve][key] = None
            self._left_by[new.interface][key] = None
            self._left_of[new.address][key] = None
            self._member(new.vni, new.nve, 1)
        if old is not None:
            self._member(old.vni, old.nve, -1)


def _router(network: Network | None) -> Router | None:
    if network is None or network.router is None:
        return None
    return network.tenant, network.router
