"""Verbs about moves."""

from __future__ import annotations

from typing import Any

import click

from .. import model
from . import moved
from .context import Context, Group, among, passing
from .registering import Attachment
from .watch import watch

__all__ = ["move"]


@click.group(cls=Group)
def move() -> None:
    """Moves of VMs from one NVE to another.

    Example: vmm move start web-1 --to nve2 --watch
    """


@move.command("start")
@click.argument("vm")
@click.option("--to", required=True, help="Destination NVE.")
@click.option("--from", "source", help="Source NVE, where the VM has interfaces on several: those there are moved.")
@click.option("--kind", type=click.Choice(["hot", "cold"]), default="hot", show_default=True)
@click.option(
    "--port",
    "ports",
    type=Attachment("INTERFACE", "PORT"),
    multiple=True,
    help="Port of an interface at the destination, if it is named otherwise there. May be repeated.",
)
@click.option(
    "--address",
    type=among(model.Addressing),
    help="Keep the addresses, or change to those of the destination's subnet.",
)
@click.option(
    "--connections", type=among(model.Connections), help="What the task's agents do with its connections."
)
@click.option("--request-id", help="The same id again is answered with the same move.")
@click.option("--requested-by", help="Kept in the move's record.")
@click.option("--watch", "watching", is_flag=True, help="Show progress until the move has ended.")
@passing
def move_start(
    context: Context,
    vm: str,
    to: str,
    source: str | None,
    kind: str,
    ports: tuple[tuple[str, str], ...],
    address: str | None,
    connections: str | None,
    request_id: str | None,
    requested_by: str | None,
    watching: bool,
) -> None:
    """Ask for a move of VM: paths are proven and the destination is prepared.

    With --watch, exit code 1 unless the move settles.

    Example: vmm move start web-1 --to nve2 --watch
    """
    body: dict[str, Any] = {"vm": vm, "to": to, "kind": kind, "ports": dict(ports)}
    more = {
        "address": address, "connections": connections, "request_id": request_id, "requested_by": requested_by,
        "source": source,
    }
    body.update({key: value for key, value in more.items() if value is not None})
    document = context.client.call("POST", "/v1/moves", body)
    if watching:
        watch(context, document)
    else:
        context.done(document, f"move {document['id']} of {vm} to {to} is {document['state']}")


@move.command("list")
@click.option("--vm", "of", help="Only moves of this VM.")
@click.option("--nve", "at", help="Only moves from or to this NVE.")
@click.option("--state", help="Only moves in this state; also: open, closed.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@passing
def move_list(context: Context, of: str | None, at: str | None, state: str | None, limit: int) -> None:
    """List moves, newest first.

    Example: vmm move list --state open
    """
    items = list(context.client.items("/v1/moves", most=limit, vm=of, nve=at, state=state))
    context.show({"items": items, "next": None}, lambda d: moved.moves(d["items"]))


@move.command("show")
@click.argument("number", type=int)
@passing
def move_show(context: Context, number: int) -> None:
    """Show a move with its history and ledger.

    Example: vmm move show 17
    """
    context.show(context.client.get(f"/v1/moves/{number}"), moved.move)


@move.command("amend")
@click.argument("number", type=int)
@click.option(
    "--port",
    "ports",
    type=Attachment("INTERFACE", "PORT"),
    multiple=True,
    required=True,
    help="Port of an interface at the destination. May be repeated.",
)
@passing
def move_amend(context: Context, number: int, ports: tuple[tuple[str, str], ...]) -> None:
    """Name other ports at the destination, as long as the VM does not run there.

    Example: vmm move amend 17 --port eth0=vnet7
    """
    document = context.client.call("PATCH", f"/v1/moves/{number}", {"ports": dict(ports)})
    named = ", ".join(f"{leg['interface']} at {leg['destination']['port']}" for leg in document["legs"])
    context.done(document, f"move {number} is {document['state']}: {named} on {document['destination']}")


def _hook(context: Context, number: int, name: str, body: Any = None) -> None:
    document = context.client.call("POST", f"/v1/moves/{number}/{name}", body)
    after = f" (after move {number})" if document["id"] != number else ""
    context.done(document, f"move {document['id']}{after} is {document['state']}")


@move.command("redirect")
@click.argument("number", type=int)
@passing
def move_redirect(context: Context, number: int) -> None:
    """Tell the NVA that the VM is about to be paused: what is in flight goes to the destination from now on.

    Example: vmm move redirect 17
    """
    _hook(context, number, "redirect")


@move.command("activate")
@click.argument("number", type=int)
@passing
def move_activate(context: Context, number: int) -> None:
    """Tell the NVA that the VM runs at the destination, where it does not announce that itself.

    If the move has failed or was aborted, a further move takes the VM there at once.

    Example: vmm move activate 17
    """
    _hook(context, number, "activate")


@move.command("abort")
@click.argument("number", type=int)
@click.option("--why", help="Kept in the move's history.")
@passing
def move_abort(context: Context, number: int, why: str | None) -> None:
    """Abandon a move; the source serves again.

    Example: vmm move abort 17 --why "host is full"
    """
    _hook(context, number, "abort", None if why is None else {"why": why})


@move.command("watch")
@click.argument("number", type=int)
@passing
def move_watch(context: Context, number: int) -> None:
    """Show a move's progress until it has ended: states, barriers, ledger. Exit code 1 unless it settles.

    Example: vmm move watch 17
    """
    watch(context, context.client.get(f"/v1/moves/{number}"))
