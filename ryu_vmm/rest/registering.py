"""Answers about NVEs, networks and VMs. Errors are raised, never returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .. import events, inventory, schema, wishes
from ..checking import refuse
from ..errors import Conflict, NotFound, VmmError
from . import views
from .contract import Call, Reply
from .paging import by_name

__all__ = ["NETWORKS", "NVES", "VMS", "Collection", "post_inventory", "post_vms", "thaw", "verify", "vni_of"]

#: How long a switch may take to report its flows, in seconds.
VERIFY_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Collection:
    """The handlers of one kind of registered object.

    Attributes:
        what: name of the collection, as in the path.
        noun: for messages.
        names: names of all objects that the query wants.
        find: the object of a name, or None.
        view: its document in a list.
        whole: its document on its own.
        submitted: the core's event for a body.
        withdrawn: the core's event for a name.
    """

    what: str
    noun: str
    names: Callable[[Call], Iterable[str]]
    find: Callable[[Call, str], Any]
    view: Callable[[Call, Any], dict[str, Any]]
    whole: Callable[[Call, Any], dict[str, Any]]
    submitted: Callable[[Call, Any], wishes.Submitted]
    withdrawn: Callable[[str], events.Request]

    def listing(self, call: Call) -> Reply:
        """A page of the list, by name."""
        return by_name(call, self.names(call), lambda name: self.view(call, self.find(call, name)))

    def get(self, call: Call) -> Reply:
        """One of them. NotFound."""
        return Reply(self.whole(call, self.found(call)))

    def post(self, call: Call) -> Reply:
        """Register: 201; the same again: 200; the same name with other content: Conflict."""
        name = call.body.name
        event = self.submitted(call, call.body)
        if self.find(call, name) is None:
            call.runtime.handle(event)
            return self._answer(call, name, created=True)
        if not inventory.unchanged(call.state, event):
            raise exists(self.noun, name)
        return self._answer(call, name, created=False)

    def put(self, call: Call) -> Reply:
        """Create (201) or replace (200)."""
        _, created = call.runtime.handle(self.submitted(call, call.body))
        return self._answer(call, call.body.name, created=created)

    def delete(self, call: Call) -> Reply:
        """Remove. NotFound, Conflict."""
        self.found(call)
        call.runtime.handle(self.withdrawn(call.parameters["name"]))
        return Reply(status=204)

    def found(self, call: Call) -> Any:
        """The object that the path names. NotFound."""
        name = call.parameters["name"]
        value = self.find(call, name)
        if value is None:
            raise NotFound(f"there is no {self.noun} {name}", **{self.noun.lower(): name})
        return value

    def _answer(self, call: Call, name: str, *, created: bool) -> Reply:
        location = {"Location": f"/v1/{self.what}/{quote(name)}"}
        return Reply(self.whole(call, self.find(call, name)), 201 if created else 200, location)


def exists(noun: str, name: str, **details: object) -> Conflict:
    """The refusal of a POST that would change something."""
    return Conflict(f"{noun} {name} exists with other content; PUT replaces it", **{noun.lower(): name}, **details)


def vni_of(call: Call, network: str) -> int:
    """VNI of a network that a query names. NotFound."""
    found = NETWORKS.find(call, network)
    if found is None:
        raise NotFound(f"there is no network {network}", network=network)
    vni: int = found.vni
    return vni


def _seen(value: Any, sees: Callable[[Any], bool]) -> Any:
    """What is there, unless it is outside of what the principal sees."""
    return value if value is not None and sees(value) else None


def _vm_names(call: Call) -> Iterable[str]:
    query, scope = call.query, call.scope
    if query.nve is None and query.network is None:
        return scope.vms()
    names = _vm_names_at(call)
    return names if scope.whole else [name for name in names if scope.vm(call.state.vms[name])]


def _vm_names_at(call: Call) -> Iterable[str]:
    # Interfaces' ids begin with the VM's name; looking up each interface would cost three times as much.
    state, query = call.state, call.query
    if query.nve is not None and (query.nve not in state.nves or not call.scope.nve(query.nve)):
        raise NotFound(f"there is no NVE {query.nve}", nve=query.nve)
    if query.network is not None:
        vni = vni_of(call, query.network)
        within = state.in_network(vni) if query.nve is None else state.located(vni, query.nve)
    else:
        within = (i for vni in state.networks_of(query.nve) for i in state.located(vni, query.nve))
    return {i[: i.index("/")] for i in within}


NVES = Collection(
    "nves",
    "NVE",
    lambda call: filter(call.scope.nve, call.state.nves),
    lambda call, name: call.state.nves.get(name) if call.scope.nve(name) else None,
    lambda call, nve: views.nve(call.state, nve),
    lambda call, nve: views.nve(call.state, nve, ports=True),
    lambda call, body: events.NveSubmitted(body.value()),
    events.NveWithdrawn,
)
NETWORKS = Collection(
    "networks",
    "network",
    lambda call: [network.name for network in call.state.networks.values() if call.scope.network(network)],
    lambda call, name: _seen(call.state.network_named(name), call.scope.network),
    lambda call, network: views.network(call.state, network),
    lambda call, network: views.network(call.state, network),
    lambda call, body: events.NetworkSubmitted(body.value()),
    events.NetworkWithdrawn,
)
VMS = Collection(
    "vms",
    "VM",
    _vm_names,
    lambda call, name: _seen(call.state.vms.get(name), call.scope.vm),
    lambda call, vm: views.vm(call.state, vm),
    lambda call, vm: views.vm(call.state, vm),
    lambda call, body: call.scope.submitted(body),
    events.VmWithdrawn,
)


def post_vms(call: Call) -> Reply:
    """One VM, or several of which all are registered or none is."""
    if not isinstance(call.body, list):
        return VMS.post(call)
    bodies: Sequence[schema.VmInput] = call.body
    faults = [
        {**fault, "field": fault["field"].removeprefix("vms")}
        for fault in schema.duplicates(schema.InventoryInput.model_construct(vms=list(bodies)))
    ]
    if faults:
        refuse(faults)
    new: list[int] = []
    wanted: list[events.Request] = []
    for n, body in enumerate(bodies):
        event = call.scope.submitted(body, f"[{n}]")
        if body.name not in call.state.vms:
            new.append(n)
            wanted.append(event)
        elif not inventory.unchanged(call.state, event):
            raise exists("VM", body.name, index=n)
    try:
        call.runtime.handle_all(wanted)
    except VmmError as e:
        index = e.details.get("index")
        if isinstance(index, int):
            e.details["index"] = new[index]
        raise
    created = set(new)
    results = [
        {"name": body.name, "result": "created" if n in created else "unchanged"} for n, body in enumerate(bodies)
    ]
    return Reply({"items": results}, 201 if new else 200)


def post_inventory(call: Call) -> Reply:
    """Create or replace all of it or none."""
    faults = list(schema.duplicates(call.body))
    if faults:
        refuse(faults)
    return Reply(inventory.apply(call.runtime, call.body))


def thaw(call: Call) -> Reply:
    """Let announcements move a VM's interfaces again. NotFound."""
    vm = call.runtime.handle(events.ThawRequested(call.parameters["name"]))
    return Reply(VMS.whole(call, vm))


def verify(call: Call) -> Reply:
    """Compare a switch with the desired state. NotFound, Conflict (not connected), TimeoutError."""
    nve = NVES.found(call)
    if nve.name not in call.state.sessions:
        raise Conflict(f"NVE {nve.name} is not connected", nve=nve.name)
    return Reply(dict(call.runtime.verify(nve.name, timeout=VERIFY_TIMEOUT)))
