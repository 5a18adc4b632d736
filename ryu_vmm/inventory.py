"""The inventory file: NVEs, networks and VMs in YAML or JSON, taken whole or refused whole.

The file holds the same documents as the REST API under the keys ``nves``, ``networks`` and ``vms``, and is
checked by the same models. A refusal names file, line and field of everything that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from . import events, model
from .checking import check, refuse
from .errors import InvalidInput, VmmError
from .located import LineOf, fault, from_json, from_yaml
from .schema import InventoryInput, duplicates

__all__ = ["Names", "Submitter", "apply", "apply_file", "load", "parse", "requests", "unchanged"]

#: Larger files are refused before they are read: 100,000 VMs take some 30 MiB.
MAX_BYTES = 128 << 20


class _StateView(Protocol):
    """What of the state is read here; ``state.State`` has it."""

    @property
    def nves(self) -> dict[str, model.Nve]: ...
    @property
    def networks(self) -> dict[int, model.Network]: ...
    @property
    def vms(self) -> dict[str, model.Vm]: ...
    @property
    def interfaces(self) -> dict[str, model.Interface]: ...
    def network_named(self, name: str) -> model.Network | None: ...


class Submitter(Protocol):
    """What takes an inventory; ``runtime.Runtime`` is one."""

    @property
    def state(self) -> Any: ...
    def handle_all(self, requests: Sequence[events.Request]) -> list[Any]:
        """Handle all of them or none; a refusal carries the index of the culprit in ``details["index"]``."""


class Names:
    """What names in a document refer to: to what the same inventory brings, else to what is registered."""

    def __init__(self, state: _StateView, inventory: InventoryInput | None = None) -> None:
        self._state = state
        self._nves = {nve.name for nve in inventory.nves} if inventory else set()
        self._networks = {network.name: network.vni for network in inventory.networks} if inventory else {}

    def vni(self, network: str) -> int | None:
        """VNI of a network, None if there is none of that name."""
        if network in self._networks:
            return self._networks[network]
        found = self._state.network_named(network)
        return None if found is None else found.vni

    def has_nve(self, name: str) -> bool:
        """Whether an NVE of that name is registered or about to be."""
        return name in self._nves or name in self._state.nves


def load(path: str | Path) -> InventoryInput:
    """Read and check a file; ``.json`` is JSON, anything else YAML.

    InvalidInput: its message has one line of text for each fault, starting with file and line number;
    ``details["errors"]`` lists field, line and reason of each. OSError if the file cannot be read.
    """
    return _parse(*_read(path))[0]


def parse(text: str, name: str = "inventory", *, yaml_syntax: bool = True) -> InventoryInput:
    """Check the text of an inventory; errors as in :func:`load`, with ``name`` for the file."""
    return _parse(text, name, yaml_syntax)[0]


def apply_file(runtime: Submitter, path: str | Path) -> dict[str, int]:
    """:func:`load` and :func:`apply`: the state is as the file says, or as it was and a VmmError says why."""
    text, name, yaml_syntax = _read(path)
    inventory, line_of = _parse(text, name, yaml_syntax)
    try:
        return apply(runtime, inventory, standing=True)
    except InvalidInput as e:
        if "errors" in e.details:
            raise _located(e, name, line_of) from None
        raise _at_item(e, name, line_of) from None
    except VmmError as e:
        raise _at_item(e, name, line_of) from None


def requests(inventory: InventoryInput, state: _StateView) -> list[events.Request]:
    """The core's events in the order in which it can take them. InvalidInput: unknown networks or NVEs."""
    found: list[events.Request] = [events.NveSubmitted(nve.value()) for nve in inventory.nves]
    found += [events.NetworkSubmitted(network.value()) for network in inventory.networks]
    names = Names(state, inventory)
    faults: list[dict[str, str]] = []
    for n, vm in enumerate(inventory.vms):
        try:
            found.append(vm.value(names, f"vms[{n}]"))
        except InvalidInput as e:
            faults += e.details["errors"]  # type: ignore[arg-type]
    if faults:
        refuse(faults)
    return found


def apply(runtime: Submitter, inventory: InventoryInput, standing: bool = False) -> dict[str, int]:
    """Submit all of an inventory in one step and count what was ``created``, ``updated`` and ``unchanged``.

    ``standing``: it is a file that is applied at every start, so where it has VMs may be out of date.
    Whatever VmmError refuses it leaves everything as it was; its ``details["item"]`` names the culprit.
    """
    submitted = [
        replace(request, standing=standing) if isinstance(request, events.VmSubmitted) else request
        for request in requests(inventory, runtime.state)
    ]
    same = [unchanged(runtime.state, request) for request in submitted]
    try:
        replies = runtime.handle_all(submitted)
    except VmmError as e:
        index = e.details.pop("index", None)
        if isinstance(index, int):
            e.details["item"] = _item(inventory, index)
        raise
    count = {"created": 0, "updated": 0, "unchanged": 0}
    for (_, created), was_same in zip(replies, same, strict=True):
        count["created" if created else "unchanged" if was_same else "updated"] += 1
    return count


def unchanged(state: _StateView, request: events.Request) -> bool:
    """Whether a submission says what is registered already (an interface's location aside, which moves, unless
    another one than before is named)."""
    match request:
        case events.NveSubmitted(nve):
            return state.nves.get(nve.name) == nve
        case events.NetworkSubmitted(network):
            return state.networks.get(network.vni) == network
        case events.VmSubmitted(name, interfaces, tenant, leave, standing):
            vm = state.vms.get(name)
            if vm is None or tenant not in (None, vm.tenant) or leave != vm.leave:
                return False
            known = state.interfaces
            there = [(i.location, known[i.id]) for i in interfaces if i.id in known]
            if any(i.names_anew(at) and not (standing and at.nve != i.location.nve) for at, i in there):
                return False
            return {_lasting(i) for i in interfaces} == {_lasting(state.interfaces[i]) for i in vm.interfaces}
    return False


def _lasting(i: model.Interface) -> tuple[object, ...]:
    return (i.id, i.vni, i.mac, i.ipv4, i.ipv6, i.attachments, i.allow, i.dns, i.shared, i.shared_macs)


def _item(inventory: InventoryInput, index: int) -> str:
    for key in ("nves", "networks", "vms"):
        items = getattr(inventory, key)
        if index < len(items):
            return f"{key}[{index}]"
        index -= len(items)
    return ""


# --- where in the file -------------------------------------------------------------------------------------
def _read(path: str | Path) -> tuple[str, str, bool]:
    path = Path(path)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"{path}: larger than {MAX_BYTES >> 20} MiB", file=str(path))
    try:
        text = content.decode()
    except UnicodeDecodeError as e:
        fault(str(path), content[: e.start].count(b"\n") + 1, "not UTF-8")
    return text, str(path), path.suffix.lower() != ".json"


def _parse(text: str, name: str, yaml_syntax: bool) -> tuple[InventoryInput, LineOf]:
    document, line_of = from_yaml(text, name) if yaml_syntax else from_json(text, name)
    try:
        inventory = check(InventoryInput, {} if document is None else document, text=yaml_syntax)
        if faults := list(duplicates(inventory)):
            refuse(faults)
    except InvalidInput as e:
        raise _located(e, name, line_of) from None
    return inventory, line_of


def _at_item(refusal: VmmError, name: str, line_of: LineOf) -> VmmError:
    """A refusal by the core, with file and line of the item it is about put before its message."""
    item = refusal.details.get("item")
    if isinstance(item, str):
        refusal.message = f"{name}:{line_of(_path(item))}: {item}: {refusal.message}"
        refusal.args = (refusal.message,)
        refusal.details["file"] = name
    return refusal


def _located(refusal: InvalidInput, name: str, line_of: LineOf) -> InvalidInput:
    """The same refusal with the file's name, and a line for each fault."""
    listed: Any = refusal.details["errors"]
    faults = [{**wrong, "line": line_of(_path(wrong["field"]))} for wrong in listed]
    lines = []
    for wrong in faults:
        where = f"{name}:{wrong['line']}" if wrong["line"] else name
        lines.append(
            f"{where}: {wrong['field']}: {wrong['why']}" if wrong["field"] else f"{where}: {wrong['why']}"
        )
    return InvalidInput("\n".join(lines), field=refusal.field, file=name, errors=faults)


def _path(field: str) -> list[str | int]:
    """The inverse of :func:`checking.field_path`."""
    parts: list[str | int] = []
    for number, key in re.findall(r"\[(\d+)\]|([^.\[\]]+)", field):
        parts.append(int(number) if number else key)
    return parts
