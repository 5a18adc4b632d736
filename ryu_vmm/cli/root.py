"""The command ``vmm`` itself, and its verbs about the NVA as a whole."""

from __future__ import annotations

from typing import Any

import click

from .. import __version__
from ..results import Result
from . import people, render
from .client import FAILED, NOT_FOUND, Unreachable, at
from .context import Context, Group, among, console, passing, print_json
from .credentials import credentials
from .evacuations import evacuate, evacuation
from .inventories import inventory_
from .moves import move
from .networks import network
from .nves import nve
from .vms import vm

__all__ = ["vmm"]


@click.group(cls=Group, envvar="VMM_URL", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="ryu-vmm", prog_name="vmm")
def vmm() -> None:
    """Drive a Network Virtualization Authority: register NVEs, networks and VMs, and move VMs between NVEs.

    \b
    Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3 the NVA cannot be
    reached, 4 not found, 5 conflict with the present state, 6 invalid input, 7 not allowed.

    \b
    Where the NVA asks who comes: --token-file, $VMM_TOKEN_FILE or $VMM_TOKEN, or
    --cert and --key ($VMM_CERT, $VMM_KEY). --cacert ($VMM_CACERT) names the
    authority of the NVA's own certificate.

    Example: vmm move start web-1 --to nve2 --watch
    """


for _group in (nve, network, vm, move, evacuate, evacuation, inventory_, credentials):
    vmm.add_command(_group)


@vmm.command()
@click.option("--network", "within", help="Name of a network.")
@click.option("--mac")
@click.option("--ip", help="IPv4 or IPv6 address.")
@click.option("--vm", "of", help="Name of a VM.")
@passing
def directory(context: Context, within: str | None, mac: str | None, ip: str | None, of: str | None) -> None:
    """Look up where interfaces are; all that is given must fit. Exit code 4 if nothing does.

    Example: vmm directory --network blue --ip 10.0.0.1
    """
    items = list(context.client.items("/v1/directory", network=within, mac=mac, ip=ip, vm=of))
    if context.as_json or items:
        context.show({"items": items, "next": None}, lambda d: render.directory(d["items"]))
    if not items and any((within, mac, ip, of)):
        if not context.as_json:
            click.echo("vmm: the directory holds nothing of the kind", err=True)
        raise click.exceptions.Exit(NOT_FOUND)


@vmm.command()
@click.option("--waiting", is_flag=True, help="Only those that name servers have yet to confirm. Exit code 1 if any.")
@passing
def names(context: Context, waiting: bool) -> None:
    """Show names, the addresses they stand for, and whether name servers have been told.

    Example: vmm names --waiting
    """
    items = [item for item in context.client.items("/v1/names") if not (waiting and item["published"])]
    context.show({"items": items, "next": None}, lambda d: render.names(d["items"]))
    if waiting and items:
        raise click.exceptions.Exit(FAILED)


@vmm.command()
@click.argument("name", metavar="VM")
@passing
def explain(context: Context, name: str) -> None:
    """Where VM is, since when, and which flow on which NVE carries its packets now.

    Example: vmm explain web-1
    """
    context.show(context.client.get(at("vms", name, "explain")), render.explained)


@vmm.command()
@click.option("--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option("--kind", help="Only kinds that start with this, e.g. move.")
@click.option("--after", help="Only what came after the event with this id.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most the last so many.")
@passing
def events(context: Context, follow: bool, kind: str | None, after: str | None, limit: int) -> None:
    """Show what has happened, and with --follow what happens; with --json a document a line.

    Example: vmm events --follow --kind move.
    """
    past = list(context.client.items("/v1/events", follow="0", kind=kind, after=after))
    for document in past[-limit:]:
        _tell(context, document)
    if not follow:
        return
    last = past[-1]["id"] if past else after
    for document in context.client.events(last, kind):
        _tell(context, document)
    raise Unreachable("the NVA has ended the stream")


def _tell(context: Context, document: dict[str, Any]) -> None:
    if context.as_json:
        import json

        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        console().print(render.event(document), soft_wrap=True)


@vmm.command()
@click.option("--principal", help="Only what this principal did or tried.")
@click.option("--result", type=among(Result), help="Only what came to this.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@passing
def audit(context: Context, principal: str | None, result: str | None, limit: int) -> None:
    """Show who changed what, or was refused, newest first.

    Example: vmm audit --result denied
    """
    items = list(context.client.items("/v1/audit", most=limit, principal=principal, result=result))
    context.show({"items": items, "next": None}, lambda d: people.audit(d["items"]))


@vmm.command()
@passing
def status(context: Context) -> None:
    """How the NVA is. Exit code 1 if it does not take requests.

    Example: vmm status
    """
    document = context.client.get("/v1/health")
    if context.as_json:
        print_json(document)
    else:
        console().print(*render.status(document))
    if document["status"] == "failing":
        raise click.exceptions.Exit(FAILED)
