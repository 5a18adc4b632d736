"""The inventory file: NVEs, networks and VMs in YAML or JSON.

The file holds the same documents as the REST API under the keys ``nves``, ``networks`` and ``vms``, and is
checked by the same models. A refusal names file, line and field of everything that is wrong. What is submitted is taken
whole or refused whole; of the file that the NVA reads at every start, what cannot be is reported and all else is taken
(standing.py).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from . import events, wishes
from .checking import check, refuse
from .errors import InvalidInput, VmmError
from .located import LineOf, fault, from_json, from_yaml
from .schema import InventoryInput, NetworkInput, NveInput, VmInput, duplicates, named_twice
from .state import State

__all__ = ["Names", "Submitter", "apply", "apply_file", "load", "parse", "unchanged"]

LOG = logging.getLogger("ryu_vmm")
#: Larger files are refused before they are read: 100,000 VMs take some 30 MiB.
MAX_BYTES = 128 << 20


class Submitter(Protocol):
    """What takes an inventory; ``runtime.Runtime`` is one."""

    @property
    def state(self) -> Any: ...
    def handle_all(self, requests: Sequence[events.Request]) -> list[Any]:
        """Handle all of them or none; a refusal carries the index of the culprit in ``details["index"]``."""


class Reader(Protocol):
    """What takes the file that is read at every start; ``runtime.Runtime`` is one."""

    #: What of the file could not be taken: a line of text for each entry.
    refused: list[str]

    @property
    def state(self) -> Any: ...
    def handle(self, event: events.Request) -> Any:
        """Handle a request."""


class Names:
    """What names in a document refer to: to what the same inventory brings, else to what is registered."""

    def __init__(self, state: State, inventory: InventoryInput | None = None) -> None:
        self._state = state
        self._nves = {nve.name for nve in inventory.nves} if inventory else set()
        # Of two with one name the first counts.
        self._networks = {n.name: n.vni for n in reversed(inventory.networks)} if inventory else {}

    def vni(self, network: str) -> int | None:
        """VNI of a network, None if there is none of that name."""
        if network in self._networks:
            return self._networks[network]
        found = self._state.network_named(network)
        return None if found is None else found.vni

    def has_nve(self, name: str, vm: str) -> bool:
        """Whether an NVE of that name is registered or about to be, or has been named for a VM before."""
        return name in self._nves or name in self._state.nves or name in wishes.named_nves(self._state, vm)


def load(path: str | Path) -> InventoryInput:
    """Read and check a file; ``.json`` is JSON, anything else YAML.

    InvalidInput: its message has one line of text for each fault, starting with file and line number;
    ``details["errors"]`` lists field, line and reason of each. OSError if the file cannot be read.
    """
    return _parse(*_read(path))[0]


def parse(text: str, name: str = "inventory", *, yaml_syntax: bool = True) -> InventoryInput:
    """Check the text of an inventory; errors as in :func:`load`, with ``name`` for the file."""
    return _parse(text, name, yaml_syntax)[0]


def apply_file(runtime: Reader, path: str | Path) -> dict[str, int]:
    """:func:`load` the file that is read at every start and have the NVA take of it what can be.

    What the file has said before asks for nothing, whatever has happened since. Counts what was ``created``,
    ``updated`` and ``unchanged``, and, if there was any, ``refused``: ``runtime.refused`` has file, line and reason of
    each.
    """
    text, name, yaml_syntax = _read(path)
    inventory, line_of = _parse(text, name, yaml_syntax, clashes=True)
    twice = list(named_twice(inventory))
    found, faults = _requests(inventory, runtime.state, {fault["field"].partition(".")[0] for fault in twice})
    items = tuple(item for item, _ in found)
    told = tuple((fault["field"], fault["why"]) for fault in (*twice, *faults))
    whole = dict(_entries(inventory))
    networks = tuple(tuple(i.network for i in getattr(whole[item], "interfaces", ())) for item in items)
    requests = tuple(replace(request, standing=True) for _, request in found)
    entries = tuple((kind, each.name) for kind in ("nves", "networks", "vms") for each in getattr(inventory, kind))
    event = events.InventoryRead(requests, entries, items, told, networks)
    count = {"created": 0, "updated": 0, "unchanged": 0}
    refused = [_line(name, line_of, *fault) for fault in told]
    for item, result in zip(items, runtime.handle(event), strict=True):
        if isinstance(result, VmmError):
            refused.append(_line(name, line_of, item, result.message))
        else:
            count[result] += 1
    runtime.refused = refused
    for line in refused:
        LOG.warning("not taken: %s", line)
    return {**count, "refused": len(refused)} if refused else count


def _line(name: str, line_of: LineOf, field: str, why: str) -> str:
    line = line_of(_path(field))
    return f"{name}:{line}: {field}: {why}" if line else f"{name}: {field}: {why}"


def _entries(inventory: InventoryInput) -> Iterator[tuple[str, NveInput | NetworkInput | VmInput]]:
    """All entries, each with its name, in the order in which the core can take them."""
    for kind in ("nves", "networks", "vms"):
        yield from ((f"{kind}[{n}]", entry) for n, entry in enumerate(getattr(inventory, kind)))


def _requests(
    inventory: InventoryInput, state: State, without: Container[str] = ()
) -> tuple[list[tuple[str, wishes.Submitted]], list[dict[str, str]]]:
    """The core's events in the order in which it can take them, each with the name of its entry; and what is wrong
    with the others: networks or NVEs that nobody knows."""
    found: list[tuple[str, wishes.Submitted]] = []
    names = Names(state, inventory)
    faults: list[dict[str, str]] = []
    for item, entry in _entries(inventory):
        if item in without:
            continue
        match entry:
            case NveInput():
                found.append((item, events.NveSubmitted(entry.value())))
            case NetworkInput():
                found.append((item, events.NetworkSubmitted(entry.value())))
            case VmInput():
                try:
                    found.append((item, entry.value(names, item)))
                except InvalidInput as e:
                    faults += e.details["errors"]  # type: ignore[arg-type]
    return found, faults


def apply(runtime: Submitter, inventory: InventoryInput) -> dict[str, int]:
    """Submit all of an inventory in one step and count what was ``created``, ``updated`` and ``unchanged``.

    Whatever VmmError refuses it leaves everything as it was; its ``details["item"]`` names the culprit.
    """
    found, faults = _requests(inventory, runtime.state)
    if faults:
        refuse(faults)
    submitted = [request for _, request in found]
    same = [unchanged(runtime.state, request) for request in submitted]
    try:
        replies = runtime.handle_all(submitted)
    except VmmError as e:
        index = e.details.pop("index", None)
        if isinstance(index, int):
            e.details["item"] = found[index][0]
        raise
    count = {"created": 0, "updated": 0, "unchanged": 0}
    for (_, created), was_same in zip(replies, same, strict=True):
        count["created" if created else "unchanged" if was_same else "updated"] += 1
    return count


def unchanged(state: State, request: wishes.Submitted) -> bool:
    """Whether a submission asks for nothing: it says what its sender has said before, or what there is."""
    return wishes.registered(state, request) is not None and wishes.meant(state, request) is None


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


def _parse(text: str, name: str, yaml_syntax: bool, clashes: bool = False) -> tuple[InventoryInput, LineOf]:
    """Check a text; ``clashes``: its entries may contradict each other."""
    document, line_of = from_yaml(text, name) if yaml_syntax else from_json(text, name)
    try:
        inventory = check(InventoryInput, {} if document is None else document, text=yaml_syntax)
        if not clashes and (faults := list(duplicates(inventory))):
            refuse(faults)
    except InvalidInput as e:
        raise _located(e, name, line_of) from None
    return inventory, line_of


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
