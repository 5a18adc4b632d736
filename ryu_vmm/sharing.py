"""Shared addresses: several interfaces may have them, and whoever announced last holds them.

Service addresses that keepalived, kube-vip or MetalLB move from guest to guest, and the virtual MACs of VRRP (RFC 5798
section 7.3), are registered with each interface that may hold them. A gratuitous ARP, an ARP reply or a neighbor
advertisement that nobody asked for makes its sender the holder. While nobody holds one, questions go to those who may,
and the answer of one of them makes it the holder as well.

Two that both believe to be the master would take it from each other with every announcement. So after MOST changes
within WINDOW seconds the next one waits until PAUSE seconds after the last, and the newest claim is taken then.

What was announced while an edge, or the NVA itself, was away is not said again. So those who share an address are asked
when an edge of theirs is back, and another one that answers holds it, unless the holder has answered meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

from . import addresses
from .errors import Conflict, InvalidInput
from .flows import Output
from .model import Gateway, Holder, Interface, Vm, answer_key
from .paths import target
from .state import State
from .wire import frames
from .wire.frames import Kind
from .work import Work

MOST, WINDOW, PAUSE = 5, 60.0, 10.0
#: Seconds between the questions to those who share an address, whose holder may have changed.
ASKED = (1.0, 3.0, 9.0)
_ARP = (Kind.GARP, Kind.ARP_REPLY)
_ND = (Kind.NA, Kind.NA_UNSOLICITED)


#: Where in an interface what it shares is listed, by what its own is.
FIELDS = {"address": "shared", "mac": "shared_macs"}


def check(state: State, interface: Interface, where: str, siblings: list[Interface], own: tuple[str, ...]) -> None:
    """Raise InvalidInput or Conflict if what an interface shares is another one's own, or the other way round.

    ``siblings``, ``own``: see Registry; an address is of all networks of a router, a MAC of one network.
    """
    domain, vni = state.domain(interface.vni), interface.vni
    mine = {interface.id, *own}
    for address in (*interface.ipv4, *interface.ipv6, interface.mac):
        vnis = (vni,) if len(address) == 6 else domain
        sharers = sorted(i for each in vnis for i in state.sharing.get((each, address), ()) if i not in mine)
        if sharers:
            what, field = _text(address)
            message = f"{what} is shared by {sharers[0]}: whoever is to hold it in turn lists it as {FIELDS[field]}"
            raise Conflict(message, interface=sharers[0], field=f"{where}.{field}")
    for address in (*interface.shared, *interface.shared_macs):
        what, field = _text(address)
        owner = state.by_mac.get((vni, address)) if len(address) == 6 else state.owner(vni, address)
        elsewhere = (i for each in domain if each != vni for i in state.sharing.get((each, address), ()))
        rival = next(elsewhere, None) if owner is None else owner
        if rival is not None and rival not in mine:
            message = f"{what} belongs to {rival}, which does not share it in this network"
            raise Conflict(message, interface=rival, field=f"{where}.{FIELDS[field]}")
    for other in siblings:
        both = {other.mac, *other.ipv4, *other.ipv6} & {*interface.shared, *interface.shared_macs}
        both |= {interface.mac, *interface.ipv4, *interface.ipv6} & {*other.shared, *other.shared_macs}
        if other.vni != vni:  # where packets are routed by address
            both |= {*interface.shared} & {*other.shared}
            both = {a for a in both if len(a) != 6 and not addresses.is_link_local(a)} if other.vni in domain else set()
        if both:
            message = f"{_text(min(both))[0]} is one interface's own and shared by another"
            if other.vni != vni:
                message = f"{_text(min(both))[0]} is in two networks of one router, and shared"
            raise InvalidInput(message, field=f"{where}.shared")


def check_tenant(state: State, vm: Vm, interfaces: list[Interface]) -> None:
    """Raise Conflict if a VM would share something with another tenant's: either could take it from the other."""
    for n, interface in enumerate(interfaces):
        for address in (*interface.shared, *interface.shared_macs):
            what, field = _text(address)
            for i in state.sharing.get((interface.vni, address), ()):
                if state.interfaces[i].vm != vm.name and state.vms[state.interfaces[i].vm].tenant != vm.tenant:
                    message = f"{what} is shared by interfaces of another tenant"
                    raise Conflict(message, field=f"interfaces.{n}.{FIELDS[field]}")


def _text(address: bytes) -> tuple[str, str]:
    """An address in words, and a key of FIELDS."""
    if len(address) == 6:
        return f"MAC {addresses.format_mac(address)}", "mac"
    return addresses.format_ip(address), "address"


def release(state: State, interface: str) -> None:
    """An interface was changed or removed: it holds no more than it still may, and under no other MAC than its own."""
    now = state.interfaces.get(interface)
    may = () if now is None else (*now.shared, *now.shared_macs)
    for row in state.held_by(interface):
        if now is None or row.vni != now.vni or row.address not in may:
            state.put("holders", row.key, None)
            state.put("clock", ("holder", row.key), None)
        elif row.mac not in (now.mac, *now.shared_macs):
            state.put("holders", row.key, replace(row, mac=now.mac))


def may_take(interface: Interface, frame: bytes) -> bool:
    """Whether a frame of an interface may make it the holder of what it shares: it is ARP, or an advertisement."""
    if not interface.shared and not interface.shared_macs:
        return False
    advertises = frame[12:14] == frames.ETH_IPV6 and frame[20:21] == b"\x3a" and frame[54:55] == b"\x88"
    return advertises or frame[12:14] == frames.ETH_ARP


def keep(state: State, before: Interface | None, interface: Interface, now: float) -> None:
    """An interface holds what was its own until it was registered as shared: its guest has it and announces nothing."""
    if before is None or before.vni != interface.vni:
        return
    for address in {*before.ipv4, *before.ipv6} & {*interface.shared}:
        if state.holder_of(interface.vni, address) is None:
            row = Holder(interface.vni, address, interface.id, interface.mac, now, (now,))
            state.put("holders", row.key, row)


class Sharing:
    """Keeps who holds shared addresses and MACs."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def heard(self, interface: Interface, frame: bytes, kind: Kind) -> None:
        """A frame from the port of an interface may say that it holds what it shares.

        Raises:
            DecodeError: the frame is malformed.
        """
        if not interface.shared and not interface.shared_macs:
            return
        unasked = kind in (Kind.GARP, Kind.NA_UNSOLICITED, Kind.RARP_REQUEST)
        if kind in _ARP:
            arp = frames.parse_arp(frame)
            address, mac = arp.spa, arp.sha
            unasked = unasked or bool(arp.eth_dst[0] & 1)
        elif kind in _ND:
            nd = frames.parse_nd(frame)
            address, mac = nd.target, nd.lladdr or nd.eth_src
        elif kind is Kind.RARP_REQUEST:
            address, mac = b"", frames.parse_rarp(frame).sha
        else:
            return
        if mac not in (interface.mac, *interface.shared_macs):
            return
        if address in interface.shared:
            self._claim(interface, address, mac, unasked)
        if mac in interface.shared_macs:
            self._claim(interface, mac, mac, unasked)

    def _claim(self, interface: Interface, address: bytes, mac: bytes, unasked: bool) -> None:
        """``unasked``: it announces; else it answers, which counts while nobody holds the address."""
        work, state, now = self._work, self._work.state, self._work.now
        held = state.holder_of(interface.vni, address)
        doubted = state.doubted.get(answer_key(interface.vni, address)) is not None
        if held is None:
            self._give(Holder(interface.vni, address, interface.id, mac, now, (now,)), None)
        elif (held.interface, held.mac) == (interface.id, mac):
            self._wait(replace(held, waiting=None), None)  # the newest claim is that all stays as it is
            self._sure(held.key)
        elif unasked or (doubted and held.interface != interface.id):
            recent = tuple(at for at in held.recent if at > now - WINDOW)
            there = state.interfaces.get(held.interface)
            alive = there is not None and state.port_at(there.location) is not None
            if len(recent) < MOST or now >= held.since + PAUSE or not alive:
                recent = (*recent, now)[-MOST:]
                self._give(replace(held, interface=interface.id, mac=mac, since=now, recent=recent, waiting=None), held)
                return
            work.count("address.contested")
            if now >= held.told + PAUSE:
                held = replace(held, told=now)
                told = {**self._named(held), "holder": held.interface, "until": held.since + PAUSE}
                work.report("address.contested", interface=interface.id, **told)
            self._wait(replace(held, waiting=(interface.id, mac)), held.since + PAUSE)

    def _wait(self, row: Holder, until: float | None) -> None:
        self._work.state.put("holders", row.key, row)
        self._work.state.put("clock", ("holder", row.key), until)

    def _give(self, row: Holder, before: Holder | None) -> None:
        self._wait(row, None)
        self._sure(row.key)
        self._work.report(
            "address.taken", interface=row.interface, before=before and before.interface, **self._named(row)
        )

    def _named(self, row: Holder) -> dict[str, str | None]:
        """What is shared, in words."""
        ip = None if len(row.address) == 6 else addresses.format_ip(row.address)
        return {"network": self._work.state.networks[row.vni].name, "address": ip, "mac": addresses.format_mac(row.mac)}

    def follow(self) -> None:
        """Doubt who holds what is shared at the edges that have come back in the step in hand."""
        state = self._work.state
        for table, nve, old, new in state.since(0):
            if table != "sessions" or new is None or not new.synced or (old is not None and old.synced):
                continue
            here = (state.interfaces[i] for vni in state.networks_of(nve) for i in state.located(vni, nve))
            for vni, address in [(i.vni, what) for i in here for what in (*i.shared, *i.shared_macs)]:
                row = state.holder_of(vni, address)
                if row is not None and len(state.sharing[vni, address]) > 1:
                    state.put("doubted", row.key, 0)
                    self.ask(row.key)

    def ask(self, key: str) -> None:
        """Ask those who share an address once more, as their router would.

        A MAC cannot be asked for: it follows from the answers for addresses.
        """
        state = self._work.state
        row, done = state.holders.get(key), state.doubted.get(key)
        if row is None or done is None or done > len(ASKED):
            self._sure(key)
            return
        for i in state.sharing.get((row.vni, row.address), ()) if len(row.address) != 6 else ():
            port = state.port_at(target(state, state.interfaces[i]))
            if port is not None and port.nve in state.sessions:
                self._work.send(port.nve, (Output(port.number),), self._question(row))
        state.put("doubted", key, done + 1)
        state.put("clock", ("doubt", key), self._work.now + (*ASKED, ASKED[0])[done])

    def _question(self, row: Holder) -> bytes:
        """The gateway's, whose address it gives where there is one: who probes for an address himself (RFC 5227) takes
        a probe for a rival."""
        gateway = self._work.state.gateway(row.vni) or Gateway()
        if len(row.address) == 4:
            return frames.build_arp_request(gateway.mac, gateway.ipv4 or bytes(4), row.address)
        return frames.build_ns(gateway.mac, addresses.link_local(gateway.mac), row.address)

    def _sure(self, key: str) -> None:
        self._work.state.put("doubted", key, None)
        self._work.state.put("clock", ("doubt", key), None)

    def time(self, key: str) -> None:
        """A claim has waited long enough."""
        state = self._work.state
        row = state.holders.get(key)
        if row is None or row.waiting is None:
            return
        name, mac = row.waiting
        interface = state.interfaces.get(name)
        self._wait(replace(row, waiting=None), None)
        if interface is not None and interface.id in state.sharing.get((row.vni, row.address), ()):
            self._claim(interface, row.address, mac, True)

    def resume(self) -> None:
        """After a restart: claims wait as before."""
        for key, row in self._work.state.holders.items():
            if row.waiting is not None:
                self._work.state.put("clock", ("holder", key), row.since + PAUSE)


def unheld(state: State, vni: int, address: bytes) -> list[Interface]:
    """The interfaces to be asked for an address that may be held by several and is by none."""
    if answer_key(vni, address) in state.holders:
        return []
    return [state.interfaces[i] for i in state.sharing.get((vni, address), ())]
