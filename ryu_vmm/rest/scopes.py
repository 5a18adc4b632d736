"""What a principal sees of the state: admins and readers the whole, tenants and hypervisors what is theirs.

What is outside a scope does not exist for whoever has it: it is not in lists, asking for it is answered as if nobody
had registered it, and refusals that would name it name nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from .. import events, model
from ..checking import error, refuse
from ..credentials import Principal
from ..errors import Conflict, NotFound, VmmError
from ..inventory import Names
from ..schema import VmInput
from ..state import State
from ..wishes import names_anew
from .roles import Role

__all__ = ["HypervisorScope", "Nothing", "Scope", "TenantScope", "scope_of"]

Doc = dict[str, Any]


class Scope:
    """The whole. Derived scopes see less.

    Attributes:
        whole: nothing is left out, so lists need not be gone through.
    """

    whole = True

    def __init__(self, principal: Principal | None, state: State) -> None:
        self.principal = principal
        self.state = state

    # --- what is seen -----------------------------------------------------------------------------------------------
    def nve(self, name: str) -> bool:
        """Whether an NVE is."""
        return True

    def network(self, network: model.Network) -> bool:
        """Whether a network is."""
        return True

    def vm(self, vm: model.Vm) -> bool:
        """Whether a VM is."""
        return True

    def interface(self, interface: model.Interface) -> bool:
        """Whether an entry of the directory is."""
        return True

    def move(self, move: model.Move) -> bool:
        """Whether a move is."""
        return True

    def name(self, row: model.Published) -> bool:
        """Whether a name in the domain name system is."""
        return True

    def entry(self, fields: Mapping[str, object]) -> bool:
        """Whether an entry of the event stream is."""
        return True

    def vms(self) -> Iterable[str]:
        """Names of all VMs that are."""
        return self.state.vms

    def interfaces(self) -> Iterable[str]:
        """Ids of all interfaces that are."""
        return self.state.interfaces

    # --- what may be said -------------------------------------------------------------------------------------------
    def submitted(self, body: VmInput, at: str = "") -> events.VmSubmitted:
        """The core's event for a VM. InvalidInput: it refers to what is not there."""
        return body.value(Names(self.state), at)

    def moving(self, vm: str, to: str, ports: Mapping[str, str], source: str | None = None) -> None:
        """Check a request for a move. InvalidInput, NotFound."""

    def amending(self, move: model.Move, ports: Mapping[str, str]) -> None:
        """Check a request for other ports of a move that is seen. InvalidInput."""

    def request_id(self, given: str | None) -> str | None:
        """How the core knows a request by the id that its sender gave it."""
        return given

    # --- what is shown ----------------------------------------------------------------------------------------------
    def shown_move(self, document: Doc) -> Doc:
        """A move's document."""
        return document

    def shown_entry(self, document: Doc) -> Doc:
        """A directory entry's document."""
        return document

    def refusal(self, given: VmmError) -> VmmError:
        """A refusal, without what is not seen."""
        return given


class Nothing(Scope):
    """What somebody sees who has not said who they are; what derived scopes see is said there."""

    whole = False

    def nve(self, name: str) -> bool:
        """None."""
        return False

    def network(self, network: model.Network) -> bool:
        """None."""
        return False

    def vm(self, vm: model.Vm) -> bool:
        """None."""
        return False

    def interface(self, interface: model.Interface) -> bool:
        """None."""
        return False

    def move(self, move: model.Move) -> bool:
        """None."""
        return False

    def name(self, row: model.Published) -> bool:
        """None."""
        return False

    def entry(self, fields: Mapping[str, object]) -> bool:
        """None."""
        return False

    def vms(self) -> Iterable[str]:
        """None."""
        return ()

    def interfaces(self) -> Iterable[str]:
        """None."""
        return ()

    def refusal(self, given: VmmError) -> VmmError:
        """The same kind of refusal in general terms, if it names anything unseen. What is not found names nothing:
        it is said of what is not there and of what is not seen in the same words."""
        if isinstance(given, NotFound) or not any(self._unseen(what, value) for what, value in given.details.items()):
            return given
        field = given.details.get("field")
        details = {"field": field} if field else {}
        return type(given)("this conflicts with what others have registered", **details)

    def _unseen(self, what: str, value: object) -> bool:
        if isinstance(value, list | tuple | set):
            return any(self._unseen(what.removesuffix("s"), item) for item in value)
        state = self.state
        match what:
            case "vm":
                vm = state.vms.get(str(value))
                return vm is not None and not self.vm(vm)
            case "interface":
                interface = state.interfaces.get(str(value))
                return interface is not None and not self.interface(interface)
            case "network":
                network = state.network_named(str(value))
                return network is not None and not self.network(network)
            case "move":
                move = state.moves.get(value) if isinstance(value, int) else None
                return move is not None and not self.move(move)
        return False


class TenantScope(Nothing):
    """What belongs to a tenant, and the NVEs by name where its networks are."""

    def __init__(self, principal: Principal, state: State) -> None:
        super().__init__(principal, state)
        self.tenant = str(principal.tenant)
        self._ports = principal.ports
        self._names = principal.dns

    def nve(self, name: str) -> bool:
        """Those that hold state of its networks."""
        networks = self.state.networks
        return any(networks[vni].tenant == self.tenant for vni in self.state.networks_of(name) if vni in networks)

    def network(self, network: model.Network) -> bool:
        """Its own."""
        return network.tenant == self.tenant

    def vm(self, vm: model.Vm) -> bool:
        """Its own, whatever network they are in."""
        return vm.tenant == self.tenant

    def interface(self, interface: model.Interface) -> bool:
        """Those of its own VMs."""
        vm = self.state.vms.get(interface.vm)
        return vm is not None and self.vm(vm)

    def move(self, move: model.Move) -> bool:
        """Those of VMs that were its own."""
        return move.tenant == self.tenant

    def name(self, row: model.Published) -> bool:
        """Its own."""
        return row.tenant == self.tenant

    def entry(self, fields: Mapping[str, object]) -> bool:
        """Those that are marked as its own."""
        return fields.get("tenant") == self.tenant

    def vms(self) -> Iterable[str]:
        """Its own."""
        return self.state.vms_of(self.tenant)

    def interfaces(self) -> Iterable[str]:
        """Those of its VMs."""
        return (i for name in self.state.vms_of(self.tenant) for i in self.state.vms[name].interfaces)

    def submitted(self, body: VmInput, at: str = "") -> events.VmSubmitted:
        """A VM of its own, in networks of its own, at ports that are open to it. InvalidInput, Conflict."""
        prefix = f"{at}." if at else ""
        faults = []
        if body.tenant not in (None, self.tenant):
            faults.append(error(f"{prefix}tenant", f"is not {self.tenant}"))
        for n, interface in enumerate(body.interfaces):
            path = f"{prefix}interfaces[{n}]"
            places = {f"{path}.attachments[{m}].port": place.value() for m, place in enumerate(interface.attachments)}
            known = self.state.interfaces.get(f"{body.name}/{interface.name}")
            place = model.Place(interface.nve, interface.port)
            if known is None or not self.interface(known) or names_anew(self.state, known, place):
                places[f"{path}.port"] = place
            granted = set() if known is None or not self.interface(known) else {known.location, *known.attachments}
            faults += [
                error(field, f"port {place.port} on NVE {place.nve} is not open to tenant {self.tenant}")
                for field, place in places.items()
                if place not in granted and not self._granted(place.nve, place.port)
            ]
            usual = None if known is None or not self.interface(known) else known.dns
            if interface.dns not in (None, usual) and not self._may_name(interface.dns):
                faults.append(error(f"{path}.dns", f"name {interface.dns} is not open to tenant {self.tenant}"))
        if faults:
            refuse(faults)
        event = body.value(_OwnNames(self), at)
        there = self.state.vms.get(body.name)
        if there is not None and not self.vm(there):
            raise Conflict(f"the name {body.name} is taken")
        return replace(event, tenant=self.tenant)

    def moving(self, vm: str, to: str, ports: Mapping[str, str], source: str | None = None) -> None:
        """Ports that are named must be open to the tenant; those that follow from what is registered are."""
        found = self.state.vms.get(vm)
        faults = []
        for name, port in ports.items():
            interface = self.state.interfaces.get(f"{vm}/{name}") if found is not None and self.vm(found) else None
            usual = {model.Place(to, interface.location.port), *interface.attachments} if interface else set()
            if model.Place(to, port) not in usual and not self._granted(to, port):
                faults.append(error(f"ports.{name}", f"port {port} on NVE {to} is not open to tenant {self.tenant}"))
        if faults:
            refuse(faults)

    def amending(self, move: model.Move, ports: Mapping[str, str]) -> None:
        """As for the move itself."""
        self.moving(move.vm, move.destination, ports)

    def _granted(self, nve: str, port: str) -> bool:
        return any(fnmatchcase(f"{nve}/{port}", pattern) for pattern in self._ports)

    def _may_name(self, name: str | None) -> bool:
        return any(fnmatchcase(str(name), pattern) for pattern in self._names)

    def request_id(self, given: str | None) -> str | None:
        """Ids are the tenant's own: nobody else's request is found by one."""
        return None if given is None else f"{self.tenant}:{given}"

    def shown_move(self, document: Doc) -> Doc:
        """With the request id as the tenant gave it, and without the underlay's addresses."""
        document["underlay"] = {}
        given = document["request_id"]
        document["request_id"] = None if given is None else given.removeprefix(f"{self.tenant}:")
        return document

    def shown_entry(self, document: Doc) -> Doc:
        """Without the underlay's addresses."""
        return {**document, "nve_ipv4": None, "nve_ipv6": None}


class _OwnNames:
    """Names as a tenant knows them: networks of others are not there."""

    def __init__(self, scope: TenantScope) -> None:
        self._names, self._scope = Names(scope.state), scope

    def vni(self, network: str) -> int | None:
        found = self._scope.state.network_named(network)
        return found.vni if found is not None and self._scope.network(found) else None

    def has_nve(self, name: str, vm: str) -> bool:
        return self._names.has_nve(name, vm)


class HypervisorScope(Nothing):
    """The NVEs it speaks for, the networks they hold, the VMs and moves that are or may come there."""

    def __init__(self, principal: Principal, state: State) -> None:
        super().__init__(principal, state)
        self._name, self._own = principal.name, principal.nves

    def nve(self, name: str) -> bool:
        """Its own."""
        return name in self._own

    def network(self, network: model.Network) -> bool:
        """Those that its NVEs hold state of."""
        return not self._own.isdisjoint(self.state.members(network.vni))

    def vm(self, vm: model.Vm) -> bool:
        """Those that are on its NVEs, may show up there, or move from or to there."""
        return any(self._near(self.state.interfaces[i]) for i in vm.interfaces)

    def _near(self, interface: model.Interface) -> bool:
        places = (interface.location, *interface.attachments)
        if any(place.nve in self._own for place in places):
            return True
        return any(self.move(move) for move, _ in self.state.moves_of(interface.id))

    def interface(self, interface: model.Interface) -> bool:
        """Those of the networks that its NVEs hold: that is what their tables are made of."""
        network = self.state.networks.get(interface.vni)
        return network is not None and self.network(network)

    def move(self, move: model.Move) -> bool:
        """Those from or to its NVEs."""
        return move.source in self._own or move.destination in self._own

    def entry(self, fields: Mapping[str, object]) -> bool:
        """Those about its NVEs, and about moves from or to them."""
        number = fields.get("move")
        move = self.state.moves.get(number) if isinstance(number, int) else None
        if move is not None:
            return self.move(move)
        return any(fields.get(name) in self._own for name in ("nve", "source", "destination"))

    def vms(self) -> Iterable[str]:
        """All that are near."""
        state, own = self.state, self._own
        here = {i for nve in own for vni in state.networks_of(nve) for i in state.located(vni, nve)}
        expected = {i for place, ids in state.attached.items() if place.nve in own for i in ids}
        moving = {leg.interface for move in state.open_moves() if self.move(move) for leg in move.legs}
        return {i.partition("/")[0] for i in here | expected | moving if i in state.interfaces}

    def interfaces(self) -> Iterable[str]:
        """All of its networks."""
        vnis = {vni for nve in self._own for vni in self.state.networks_of(nve)}
        return (i for vni in vnis for i in self.state.in_network(vni))

    def moving(self, vm: str, to: str, ports: Mapping[str, str], source: str | None = None) -> None:
        """It may ask for moves of VMs away from its NVEs (revision -01: the source's side asks)."""
        found = self.state.vms.get(vm)
        nves = {self.state.interfaces[i].location.nve for i in found.interfaces} if found is not None else set()
        if not (nves if source is None else {source}) <= self._own:
            raise Conflict(f"VM {vm} is not on an NVE of {self._name}", vm=vm)


def scope_of(principal: Principal | None, state: State) -> Scope:
    """The scope of a principal; None: of somebody who shows nothing."""
    if principal is None:
        return Nothing(None, state)
    kinds: dict[Role, Callable[[Principal, State], Scope]] = {
        Role.ADMIN: Scope,
        Role.READER: Scope,
        Role.TENANT: TenantScope,
        Role.HYPERVISOR: HypervisorScope,
    }
    return kinds[principal.role](principal, state)
