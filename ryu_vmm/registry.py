"""Requests that register and withdraw NVEs, networks and VMs."""

from __future__ import annotations

from dataclasses import replace

from . import addresses, readdressing, references, routed_networks, sharing, sought
from .errors import Conflict, InvalidInput, NotFound
from .events import (
    NetworkSubmitted,
    NetworkWithdrawn,
    NveSubmitted,
    NveWithdrawn,
    VmSubmitted,
    VmWithdrawn,
)
from .model import VNI_RESERVED, Interface, Network, Nve, Place, Vm
from .references import Fate
from .rehoming import Wish, able, judge, served
from .routing import ila_mac
from .wishes import forget
from .work import Work


class Registry:
    """Handlers of registration requests. All checks come before the first change."""

    def __init__(self, work: Work) -> None:
        self._work = work
        #: Interfaces that the last vm_submitted found started on another NVE, and where: a move takes them there.
        self.elsewhere: list[tuple[str, Place]] = []

    def nve_submitted(self, event: NveSubmitted) -> tuple[Nve, bool]:
        """Register an NVE or change it. Raises InvalidInput, Conflict."""
        state, nve = self._work.state, event.nve
        if nve.ipv4 is None and nve.ipv6 is None:
            raise InvalidInput(f"NVE {nve.name} needs an underlay address, IPv4 or IPv6", field="ipv4")
        for other in state.nves.values():
            if other.name == nve.name:
                continue
            if other.dpid == nve.dpid:
                raise Conflict(f"datapath id {nve.dpid:016x} belongs to NVE {other.name}", nve=other.name)
            for ip in (nve.ipv4, nve.ipv6):
                if ip is not None and ip in (other.ipv4, other.ipv6):
                    text = addresses.format_ip(ip)
                    raise Conflict(f"underlay address {text} belongs to NVE {other.name}", nve=other.name)
            if nve.locator is not None and nve.locator == other.locator:
                text = addresses.format_half(nve.locator)
                raise Conflict(f"locator {text} belongs to NVE {other.name}", nve=other.name, field="locator")
            if nve.locator is not None and other.locator is not None and ila_mac(nve) == ila_mac(other):
                # Frames by ILA would go to both, or to the wrong one.
                mac = addresses.format_mac(ila_mac(nve))
                message = (
                    f"for ILA it would have the MAC {mac} of NVE {other.name}: the last 8 digits of their datapath ids "
                    "are the same; give the bridge another other-config:datapath-id"
                )
                raise Conflict(message, nve=other.name, field="dpid")
        for network in state.networks.values():
            if nve.locator is not None and nve.locator == network.sir:
                message = f"{addresses.format_half(nve.locator)} is the SIR prefix of network {network.name}"
                raise Conflict(message, network=network.name, field="locator")
        old = state.nves.get(nve.name)
        if old is not None and old.dpid != nve.dpid and nve.name in state.sessions:
            raise Conflict(f"NVE {nve.name} is connected as datapath {old.dpid:016x}", nve=nve.name)
        state.put("nves", nve.name, nve)
        return nve, old is None

    def check_withdrawal(self, name: str) -> None:
        """Raise NotFound or Conflict unless an NVE can be withdrawn: nothing depends on it."""
        state = self._work.state
        if name not in state.nves:
            raise NotFound(f"there is no NVE {name}", nve=name)
        keeping = list(references.holders(state, references.NVES, name, Fate.REFUSED))
        homes = sorted({row.vm for reference, _, row in keeping if reference.table == "interfaces"})
        if homes:
            message = f"{len(homes)} VMs are located on NVE {name}, {homes[0]} among them"
            raise Conflict(message, nve=name, vms=homes[:20])
        for reference, number, _ in keeping:
            if reference.table == "moves":
                raise Conflict(f"move {number} involves NVE {name}", nve=name, move=number)
            message = (
                f"evacuation {number} may take VMs to NVE {name}: resume it with other NVEs "
                f"(POST /v1/evacuations/{number}/resume), or cancel it"
            )
            raise Conflict(message, nve=name, evacuation=number)

    def nve_withdrawn(self, event: NveWithdrawn) -> Nve:
        """Remove an NVE that nothing depends on."""
        state, name = self._work.state, event.name
        references.clear(self._work, references.NVES, name)
        forget(state, "nves", name)
        nve = state.nves[name]
        state.put("nves", name, None)
        return nve

    def network_submitted(self, event: NetworkSubmitted) -> tuple[Network, bool]:
        """Register a network or change its policy."""
        state, network = self._work.state, event.network
        if not 1 <= network.vni < VNI_RESERVED:
            raise InvalidInput(f"a VNI is between 1 and {VNI_RESERVED - 1}", field="vni", vni=network.vni)
        other = state.networks.get(network.vni)
        if other is not None and other.name != network.name:
            raise Conflict(f"VNI {network.vni} belongs to network {other.name}", network=other.name)
        old = state.network_named(network.name)
        if old is not None and old.vni != network.vni:
            raise Conflict(f"network {network.name} has VNI {old.vni}, which cannot change", network=network.name)
        routed_networks.check(state, old, network)
        heirs = [] if old is None or old.tenant == network.tenant else self._heirs(old, network)
        state.put("networks", network.vni, network)
        if old is not None and (old.router, old.tenant) != (network.router, network.tenant):
            readdressing.joined(self._work)
        for vm in heirs:
            vnis = {state.interfaces[i].vni for i in vm.interfaces}
            state.put("vms", vm.name, replace(vm, tenant=state.common_tenant(vnis)))
        return network, old is None

    def _heirs(self, old: Network, new: Network) -> list[Vm]:
        """The VMs that change hands together with their network. Conflict: a VM of somebody else is in it."""
        state = self._work.state
        inside = [state.vms[name] for name in {state.interfaces[i].vm for i in state.in_network(new.vni)}]
        for vm in inside:
            if vm.tenant not in (None, old.tenant, new.tenant) and new.tenant is not None:
                message = f"VM {vm.name} of tenant {vm.tenant} is in network {new.name}"
                raise Conflict(message, vm=vm.name, network=new.name)
        return [vm for vm in inside if vm.tenant == old.tenant]

    def network_withdrawn(self, event: NetworkWithdrawn) -> Network:
        """Remove a network without interfaces."""
        state = self._work.state
        network = state.network_named(event.name)
        if network is None:
            raise NotFound(f"there is no network {event.name}", network=event.name)
        inside = len(list(state.in_network(network.vni)))
        if inside:  # and moves are of interfaces
            raise Conflict(f"network {event.name} has {inside} interfaces", network=event.name)
        references.clear(self._work, references.NETWORKS, network.vni)
        forget(state, "networks", network.name)
        state.put("networks", network.vni, None)
        return network

    def vm_submitted(self, event: VmSubmitted) -> tuple[Vm, bool]:
        """Register a VM or change its interfaces; what comes of the ports that it names says rehoming.py."""
        state, now = self._work.state, self._work.now
        old = state.vms.get(event.name)
        if not event.interfaces:
            raise InvalidInput(f"VM {event.name} needs an interface", field="interfaces")
        vm = Vm(event.name, tuple(i.id for i in event.interfaces), leave=event.leave)
        if len(set(vm.interfaces)) != len(vm.interfaces):
            raise InvalidInput(f"VM {event.name} names an interface twice", field="interfaces")
        settled: list[Interface] = []
        places: list[Interface] = []  # the same, where they are to be served
        wishes: dict[str, Wish] = {}
        for n, given in enumerate(event.interfaces):
            known = state.interfaces.get(given.id)
            if known is None:
                final = replace(given, epoch=1, since=now)
            else:
                if known.vni != given.vni and next(state.moves_of(given.id), None) is not None:
                    raise Conflict(f"{given.id} cannot change its network during a move", interface=given.id)
                if known.vni != given.vni:
                    sought.forget(state, given.id)
                final = replace(given, location=known.location, epoch=known.epoch, since=known.since)
                final = replace(final, pending=known.pending)
                wishes[given.id] = judge(self._work, known, given.location)
            final = replace(final, attachments=tuple(dict.fromkeys(final.attachments)))
            wish = wishes.get(given.id, Wish.OLD)
            wanted = final.location if wish is Wish.OLD else given.location
            checked = replace(final, location=wanted)
            self._check(checked, f"interfaces.{n}", places, () if old is None else old.interfaces)
            places.append(checked)
            settled.append(final)
        vm = replace(vm, tenant=self._owner(event, settled))
        sharing.check_tenant(state, vm, settled)
        gone = [] if old is None else [i for i in old.interfaces if i not in vm.interfaces]
        for i in gone:
            if next(state.moves_of(i), None) is not None:
                raise Conflict(f"{i} cannot be removed during a move", interface=i)
        for i in gone:
            self._forget(i)
        self.elsewhere = []
        asked = {given.id: given.location for given in event.interfaces}
        self._order(settled, wishes, asked)
        for interface in settled:
            interface = self._rehomed(interface, wishes.get(interface.id), asked[interface.id])
            before = state.interfaces.get(interface.id)
            state.put("interfaces", interface.id, interface)
            sharing.release(state, interface.id)
            sharing.keep(state, before, interface, now)
            readdressing.registered(self._work, interface)
        state.put("vms", vm.name, vm)
        return vm, old is None

    def _order(self, interfaces: list[Interface], wishes: dict[str, Wish], asked: dict[str, Place]) -> None:
        """Have those wait that are to be served where another interface still is. Conflict: a new one would be."""
        state = self._work.state
        now = {i.id: asked[i.id] for i in interfaces if wishes.get(i.id) is Wish.NOW}
        going = able(state, now)
        wishes.update(dict.fromkeys(now.keys() - going, Wish.LATER))
        for i in interfaces:
            holder = state.by_place.get(i.location)
            stays = holder is not None and holder not in going and holder in wishes
            if i.id not in wishes and stays:
                message = f"port {i.location.port} on {i.location.nve} serves {holder} until its new port is there"
                raise Conflict(message, interface=holder, field="port")

    def _rehomed(self, interface: Interface, wish: Wish | None, asked: Place) -> Interface:
        """An interface as its registration wants it."""
        if wish is None:
            return interface
        match wish:
            case Wish.NOW:
                return served(self._work, interface, asked)
            case Wish.LATER:
                return replace(interface, pending=asked)
            case Wish.ELSEWHERE:
                self.elsewhere.append((interface.id, asked))
        return replace(interface, pending=None) if asked == interface.location else interface

    def _owner(self, event: VmSubmitted, interfaces: list[Interface]) -> str | None:
        """The tenant of a VM. Conflict: it is to belong to one and be in the network of another."""
        state = self._work.state
        if event.tenant is None:
            return state.common_tenant({i.vni for i in interfaces})
        for n, interface in enumerate(interfaces):
            network = state.networks[interface.vni]
            if network.tenant not in (None, event.tenant):
                message = f"network {network.name} belongs to tenant {network.tenant}"
                raise Conflict(message, network=network.name, field=f"interfaces.{n}.network")
        return event.tenant

    def vm_withdrawn(self, event: VmWithdrawn) -> Vm:
        """Remove a VM; its open moves must have been closed before."""
        state = self._work.state
        vm = state.vms.get(event.name)
        if vm is None:
            raise NotFound(f"there is no VM {event.name}", vm=event.name)
        for i in vm.interfaces:
            self._forget(i)
        state.put("vms", vm.name, None)
        forget(state, "vms", vm.name)
        return vm

    def _forget(self, interface: str) -> None:
        references.clear(self._work, references.INTERFACES, interface)
        self._work.state.put("interfaces", interface, None)

    def _check(self, interface: Interface, where: str, siblings: list[Interface], own: tuple[str, ...]) -> None:
        """Raise InvalidInput or Conflict unless the interface can stand beside all others.

        ``siblings``: those of the same VM checked before; ``own``: those that the VM had, of which nothing remains.
        """
        state = self._work.state
        if interface.vni not in state.networks:
            raise NotFound(f"there is no network with VNI {interface.vni}", field=f"{where}.network")
        places = (interface.location, *interface.attachments)
        known = state.interfaces.get(interface.id)
        for place in places:
            # An attachment sleeps that was registered before its NVE was withdrawn.
            if place.nve not in state.nves and (known is None or place not in known.attachments):
                raise NotFound(f"there is no NVE {place.nve}", field=f"{where}.nve", nve=place.nve)
            if state.is_tunnel(place):
                raise InvalidInput(f"port {place.port} on {place.nve} is its tunnel", field=f"{where}.port")
        network = state.networks[interface.vni].name
        routed_networks.check_promised(state, interface, where)
        sharing.check(state, interface, where, siblings, own)
        rivals: list[tuple[str | None, str, str]] = [
            (state.by_mac.get((interface.vni, interface.mac)), "MAC " + addresses.format_mac(interface.mac), "mac"),
            (self._at(interface.location), f"port {interface.location.port} on {interface.location.nve}", "port"),
        ]
        for ip in (*interface.ipv4, *interface.ipv6):
            rivals += [(state.owner(interface.vni, ip), addresses.format_ip(ip), "address")]
        routed_networks.check_interface(state, interface, where)
        for holder, what, field in rivals:
            if holder is not None and holder != interface.id and holder not in own:
                message = f"{what} in network {network} belongs to {holder}"
                if field != "port":
                    message += f"; what interfaces hold in turn is registered with each as {sharing.FIELDS[field]}"
                raise Conflict(message, interface=holder, field=f"{where}.{field}")
        for move, leg in state.moves_at(interface.location):
            if leg.dst == interface.location and leg.interface != interface.id and not move.state.steered:
                message = f"port {leg.dst.port} on {leg.dst.nve} is where move {move.id} takes {leg.interface}"
                raise Conflict(message, move=move.id, interface=leg.interface, field=f"{where}.port")
        for place in interface.attachments:
            for rival in sorted(state.attached.get(place, set()) - {interface.id, *own}):
                # A port says nothing of which of them has come.
                message = f"port {place.port} on {place.nve} is an attachment of {rival}"
                raise Conflict(message, interface=rival, field=f"{where}.attachments")
        for other in siblings:
            if {*other.attachments} & {*interface.attachments}:
                raise InvalidInput("two interfaces share an attachment", field=f"{where}.attachments")
            same = other.vni == interface.vni
            if other.location == interface.location:
                raise InvalidInput("two interfaces share a port", field=f"{where}.port")
            if same and (other.mac == interface.mac or {*other.ipv4, *other.ipv6} & {*interface.ipv4, *interface.ipv6}):
                raise InvalidInput("two interfaces share an address", field=f"{where}.mac")

    def _at(self, place: Place) -> str | None:
        return self._work.state.by_place.get(place) or self._work.state.pending_at.get(place)
