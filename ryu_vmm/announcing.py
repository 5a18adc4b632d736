"""Telling guests of changed answers: whoever answers questions about addresses does that, too.

The NVA and the edges answer for everybody, so the broadcasts that would repair a guest's neighbor table are not to be
seen. What a question would be answered with is therefore compared before and after each step, whatever changed it, and
an answer that has become another one is announced (gratuitous ARP, RFC 5227; unsolicited neighbor advertisement,
RFC 4861 section 7.2.6). No announcement is believed to have arrived: each is repeated, NVEs that were away are told
when they are back, and guests that come up are told what has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from . import addresses
from .flows import Output
from .model import Changed, Interface, Network, Place, Port, Session, Vanished, answer_key
from .pipeline import flood_ports
from .resolution import answering, holder
from .wire import frames
from .work import Work

#: Seconds between the rounds in which something is told.
PAUSES = (1.0, 3.0, 9.0)
#: Seconds for which a changed answer is told to guests that come up.
KEPT = 3600.0
#: So many changed answers, and last answers of vanished addresses, are kept for each network; the oldest are forgotten.
CHANGED_KEPT, VANISHED_KEPT = 1024, 4096

Question = tuple[int, bytes]
_ANSWERED_FROM = ("interfaces", "networks", "holders")


class Announcing:
    """Finds changed answers and sends announcements."""

    def __init__(self, work: Work) -> None:
        self._work = work

    # --- what has changed ---------------------------------------------------------------------------------------------
    def follow(self) -> None:
        """Announce the answers that the step in hand has changed; called once in each step, at its end."""
        state = self._work.state
        journal = state.since(0)
        asked: dict[Question, None] = {}
        up: dict[Place, None] = {}
        back: dict[str, None] = {}
        for table, key, old, new in journal:
            match table:
                case "interfaces":
                    asked.update(dict.fromkeys(_of_interface(old, new)))
                    if new is not None and (old is None or old.location != new.location):
                        up[new.location] = None
                case "networks":
                    asked.update(dict.fromkeys(self._of_network(old, new)))
                    if new is None:
                        self._forget_network(key)
                case "holders":
                    row = new or old
                    if len(row.address) != 6:
                        asked[row.vni, row.address] = None
                case "ports" if _came_up(old, new):
                    up[Place(*key)] = None
                case "sessions" if _came_back(old, new):
                    back[key] = None
                case "nves" if new is None:
                    self._no_longer_owed(key, list(state.changed))
        before: dict[Question, bytes | None] = {}
        if any(old is not None and table in _ANSWERED_FROM for table, _, old, _ in journal):
            with state.rewound(0):
                before = {question: answering(state, *question) for question in asked}
        for question in asked:  # of what is new alone nobody has been told anything
            self._compare(question, before.get(question), answering(state, *question))
        for place in up:
            interface = state.by_place.get(place)
            vni = 0 if interface is None else state.interfaces[interface].vni
            if state.changed_in(vni) and state.port_at(place) is not None:
                self._start(("port", *place))
        for nve in back:
            if any(nve in row.owed for row in state.changed.values()):
                self._start(("nve", nve))

    def _of_network(self, old: Network | None, new: Network | None) -> Iterator[Question]:
        """The addresses whose answers a change of a network's gateway may have changed."""
        network = new or old
        gateways = [n.gateway for n in (old, new) if n is not None and n.gateway is not None]
        if network is None or not gateways or (old is not None and new is not None and old.gateway == new.gateway):
            return
        state = self._work.state
        for gateway in gateways:
            yield from ((network.vni, a) for a in (gateway.ipv4, gateway.ipv6) if a is not None)
        if old is not None and state.is_l3(network.vni):  # where the gateway answers for everybody
            for vni in state.domain(network.vni):
                for i in state.in_network(vni):
                    held = (row.address for row in state.held_by(i) if len(row.address) != 6)
                    yield from ((network.vni, a) for a in (*_addresses(state.interfaces[i]), *held))

    def _compare(self, question: Question, before: bytes | None, after: bytes | None) -> None:
        work, state, now = self._work, self._work.state, self._work.now
        vni, key = question[0], answer_key(*question)
        changed, vanished = state.changed.get(key), state.vanished.get(key)
        if after is None:
            if before is not None and vni in state.networks:
                self._make_room("vanished", state.vanished_in(vni), VANISHED_KEPT)
                state.put("vanished", key, Vanished(*question, None if changed else before, now))
                self._drop(key)
            return
        if vanished is not None:
            state.put("vanished", key, None)
        if after == before or (before is None and (vanished is None or vanished.mac == after)):
            return  # nobody had it, so nobody holds anything else to be right
        if changed is None:
            self._make_room("changed", state.changed_in(vni), CHANGED_KEPT)
        state.put("changed", key, Changed(*question, after, now))
        state.put("clock", ("told", key), now + KEPT)
        work.report(
            "address.changed",
            network=state.networks[vni].name,
            interface=holder(state, *question),
            address=addresses.format_ip(question[1]),
            mac=addresses.format_mac(after),
        )
        self._start(("address", key))

    def _make_room(self, table: str, keys: Collection[str], limit: int) -> None:
        for key in list(islice(keys, max(0, len(keys) - limit + 1))):
            self._drop(key) if table == "changed" else self._work.state.put(table, key, None)

    def _drop(self, key: str) -> None:
        """A changed answer is told no more."""
        state = self._work.state
        state.put("changed", key, None)
        state.put("telling", ("address", key), None)
        for kind in (("told", key), ("tell", ("address", key))):
            state.put("clock", kind, None)

    def _forget_network(self, vni: int) -> None:
        for key in list(self._work.state.changed_in(vni)):
            self._drop(key)
        for key in list(self._work.state.vanished_in(vni)):
            self._work.state.put("vanished", key, None)

    def _no_longer_owed(self, nve: str, keys: Iterable[str]) -> None:
        state = self._work.state
        for key in keys:
            row = state.changed[key]
            if nve in row.owed:
                state.put("changed", key, replace(row, owed=tuple(name for name in row.owed if name != nve)))

    # --- time ---------------------------------------------------------------------------------------------------------
    def time(self, kind: str, key: str | tuple[str, ...]) -> None:
        """A round is due, or the time is over for which a changed answer is kept."""
        if isinstance(key, tuple):
            self._round(key)
            return
        row = self._work.state.changed.get(key)
        if row is not None and row.owed:
            self._work.state.put("clock", (kind, key), self._work.now + KEPT)
        else:
            self._drop(key)

    def resume(self) -> None:
        """After a restart: what was not told often enough is told again, as every NVE comes back."""
        state, now = self._work.state, self._work.now
        for table in ("changed", "vanished"):
            rows = sorted(getattr(state, table).values(), key=lambda row: row.since)
            for row in rows:  # in their order, of which the store knows nothing
                state.put(table, row.key, None)
                state.put(table, row.key, row)
        for key, row in list(state.changed.items()):
            if now < row.since + 2 * sum(PAUSES):
                state.put("changed", key, replace(row, owed=tuple(sorted({*row.owed, *state.hosts(row.vni)}))))
            state.put("clock", ("told", key), max(now, row.since + KEPT))

    def _start(self, target: tuple[str, ...]) -> None:
        self._work.state.put("telling", target, 0)
        self._round(target)

    def _round(self, target: tuple[str, ...]) -> None:
        """Tell something, or somebody, once more: an answer to all, or all changed answers to an NVE or a port."""
        state = self._work.state
        done = state.telling.get(target)
        last = done == len(PAUSES)
        if done is None or not self._tell(target, last) or last:
            state.put("telling", target, None)
            state.put("clock", ("tell", target), None)
            return
        state.put("telling", target, done + 1)
        state.put("clock", ("tell", target), self._work.now + PAUSES[done])

    def _tell(self, target: tuple[str, ...], last: bool) -> bool:
        """Whether there was somebody to tell something."""
        state = self._work.state
        match target:
            case ("address", key):
                row = state.changed.get(key)
                if row is None:
                    return False
                away = {nve for nve in state.hosts(row.vni) if not self._tell_guests(nve, row)}
                state.put("changed", key, replace(row, owed=tuple(sorted({*row.owed, *away}))))
                return True
            case ("nve", nve):
                owed = [row for row in state.changed.values() if nve in row.owed]
                if self._work.session(nve) is None:
                    return False  # it is told all when it is back
                for row in owed:
                    self._tell_guests(nve, row)
                if last:
                    self._no_longer_owed(nve, [row.key for row in owed])
                return bool(owed)
            case (_, nve, name):
                interface = state.by_place.get(Place(nve, name))
                port = state.port_at(Place(nve, name))
                if interface is None or port is None or self._work.session(nve) is None:
                    return False  # it comes up again, or its NVE comes back
                for key in state.changed_in(state.interfaces[interface].vni):
                    self._tell_guests(nve, state.changed[key], only=port.number)
                return True
        raise AssertionError(target)

    # --- packets ------------------------------------------------------------------------------------------------------
    def _tell_guests(self, nve: str, row: Changed, only: int | None = None) -> bool:
        """Announce an answer at an NVE's ports in its network; False: it takes nothing now.

        Not at those of the VM that has the address: its own kernel could take that for a duplicate (RFC 5227).
        """
        state = self._work.state
        if self._work.session(nve) is None:
            return False
        gateway = state.gateway(row.vni)
        if len(row.address) == 4:
            packet = frames.build_garp(row.mac, row.address)
        else:
            router = gateway is not None and row.address == gateway.ipv6
            packet = frames.build_unsolicited_na(row.mac, row.address, router)
        ports = {only} if only is not None else set(flood_ports(state, nve, row.vni))
        told = sorted(ports - self._ports_of(nve, holder(state, row.vni, row.address)))
        self._work.send(nve, tuple(Output(port) for port in told), packet)
        return True

    def _ports_of(self, nve: str, interface: str | None) -> set[int]:
        """Numbers of the ports at which the VM of an interface is, or may be."""
        state = self._work.state
        vm = None if interface is None else state.vms.get(state.interfaces[interface].vm)
        places: set[Place] = set()
        for i in () if vm is None else vm.interfaces:
            places |= {state.interfaces[i].location}
            places |= {place for _, leg in state.moves_of(i) for place in (leg.src, leg.dst)}
        ports = (state.port_at(place) for place in places if place.nve == nve)
        return {port.number for port in ports if port is not None}

    def announce(self, interface: Interface) -> None:
        """Tell the guests of a network where an interface's addresses are, in the interface's name.

        For hypervisors that announce by RARP alone, which says nothing of IP addresses. In a layer 3 network all are
        the gateway's neighbors only, and it says nothing new.
        """
        state = self._work.state
        if state.is_l3(interface.vni):
            return
        own = _addresses(interface)
        for nve in state.members(interface.vni):
            for address in own:
                self._tell_guests(nve, Changed(interface.vni, address, interface.mac, self._work.now))
        self._work.report("interface.announced", interface=interface.id, packets=len(own))


def _addresses(interface: Interface) -> tuple[bytes, ...]:
    return (*interface.ipv4, *interface.ipv6)


def _of_interface(old: Interface | None, new: Interface | None) -> Iterator[Question]:
    """The addresses whose answers a change of an interface may have changed.

    Not the link-local one that its MAC makes: that is answered with this MAC or not at all, unless it is somebody's
    registered address, too.
    """
    if old is not None and new is not None and (old.vni, old.mac) == (new.vni, new.mac):
        for address in {*_addresses(old)} ^ {*_addresses(new)}:
            yield new.vni, address
        return
    for interface in (old, new):
        if interface is not None:
            yield from ((interface.vni, address) for address in _addresses(interface))


def _came_up(old: Port | None, new: Port | None) -> bool:
    return new is not None and new.up and (old is None or not old.up or old.number != new.number)


def _came_back(old: Session | None, new: Session | None) -> bool:
    return new is not None and new.synced and (old is None or not old.synced)
