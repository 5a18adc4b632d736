"""Verbs about inventory files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from .context import Context, Group, passing

#: POST bodies are limited to 1 MiB by the server; this leaves room.
PART = 900_000


@click.group(cls=Group, name="inventory")
def inventory_() -> None:
    """Inventory files: NVEs, networks and VMs in YAML or JSON.

    Example: vmm inventory apply lab.yaml
    """


@inventory_.command("apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@passing
def inventory_apply(context: Context, file: Path) -> None:
    """Create or replace everything in FILE, or nothing if anything in it is wrong.

    A file that comes to more than 1 MiB is checked whole and then sent in parts: NVEs and networks first.

    Example: vmm inventory apply lab.yaml
    """
    apply(context, load(file))


@inventory_.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@passing
def inventory_check(context: Context, file: Path) -> None:
    """Check FILE without an NVA: exit code 6 and a line for each fault if it is wrong.

    Example: vmm inventory check lab.yaml
    """
    counts = {what: len(items) for what, items in load(file).items()}
    context.done(counts, f"{file} is good: " + ", ".join(f"{n} {what}" for what, n in counts.items()))


def load(file: Path) -> dict[str, Any]:
    """An inventory file's content, checked. Raises what `inventory.load` raises."""
    from .. import inventory  # loads pydantic, which no other verb should wait for

    return inventory.load(file).model_dump(mode="json")


def apply(context: Context, whole: dict[str, Any]) -> None:
    """Send an inventory, in parts if it is large, and say what came of it."""
    total = {"created": 0, "updated": 0, "unchanged": 0}
    parts = list(divided(whole))
    for number, part in enumerate(parts, 1):
        try:
            counts = context.client.call("POST", "/v1/inventory", part)
        except Exception:
            if number > 1:
                click.echo(f"vmm: part {number} of {len(parts)} failed; {total} before it", err=True)
            raise
        for what, count in counts.items():
            total[what] += count
    context.done(total, ", ".join(f"{count} {what}" for what, count in total.items()))


def divided(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An inventory as inventories that each fit one request, in an order in which they can be taken."""
    part: dict[str, list[Any]] = {}
    room = PART
    for what in ("nves", "networks", "vms"):
        for item in whole[what]:
            size = len(json.dumps(item)) + 2
            if size > room and part:
                yield part
                part, room = {}, PART
            part.setdefault(what, []).append(item)
            room -= size
    yield part
