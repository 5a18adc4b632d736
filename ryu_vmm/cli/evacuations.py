"""Verbs about evacuations."""

from __future__ import annotations

from typing import Any

import click

from . import evacuees
from .context import Command, Context, Group, passing

__all__ = ["evacuate", "evacuation"]

_to_option = click.option("--to", "to", multiple=True, help="NVE that may take VMs. May be repeated.")


@click.command(cls=Command)
@click.argument("nve")
@_to_option
@click.option("--parallel", type=click.IntRange(min=1), default=4, show_default=True, help="So many moves at a time.")
@click.option("--kind", type=click.Choice(["hot", "cold"]), default="hot", show_default=True)
@click.option(
    "--attempts", type=click.IntRange(min=1), default=3, show_default=True, help="Moves for one VM before it is left."
)
@click.option("--request-id", help="The same id again is answered with the same evacuation.")
@click.option("--requested-by", help="Kept in the evacuation's record.")
@click.option("--watch", "watching", is_flag=True, help="Show progress until it has ended.")
@passing
def evacuate(
    context: Context,
    nve: str,
    to: tuple[str, ...],
    parallel: int,
    kind: str,
    attempts: int,
    request_id: str | None,
    requested_by: str | None,
    watching: bool,
) -> None:
    """Move all VMs off NVE; to all other NVEs unless told otherwise.

    The NVA opens the moves; the hypervisors carry them out. With --watch, exit code 1 unless every VM has left.

    Example: vmm evacuate nve1 --to nve2 --to nve3 --parallel 8 --watch
    """
    body: dict[str, Any] = {"nve": nve, "to": list(to), "parallel": parallel, "kind": kind, "attempts": attempts}
    if request_id is not None:
        body["request_id"] = request_id
    if requested_by is not None:
        body["requested_by"] = requested_by
    _show(context, context.client.call("POST", "/v1/evacuations", body), watching)


def _show(context: Context, document: dict[str, Any], watching: bool) -> None:
    if watching:
        evacuees.watch(context, document)
        return
    number, total = document["id"], document["total"]
    context.done(document, f"evacuation {number} of {document['nve']} is {document['state']}: {total} VMs")


@click.group(cls=Group)
def evacuation() -> None:
    """Evacuations: all VMs of an NVE moved elsewhere.

    Example: vmm evacuation watch 3
    """


@evacuation.command("list")
@click.option("--nve", "of", help="Only evacuations of this NVE.")
@click.option("--state", help="Only evacuations in this state; also: open, closed.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@passing
def evacuation_list(context: Context, of: str | None, state: str | None, limit: int) -> None:
    """List evacuations, newest first.

    Example: vmm evacuation list --state open
    """
    items = list(context.client.items("/v1/evacuations", most=limit, nve=of, state=state))
    context.show({"items": items, "next": None}, lambda d: evacuees.evacuations(d["items"]))


@evacuation.command("show")
@click.argument("number", type=int)
@passing
def evacuation_show(context: Context, number: int) -> None:
    """Show an evacuation and what has become of every VM.

    Example: vmm evacuation show 3
    """
    context.show(context.client.get(f"/v1/evacuations/{number}"), evacuees.evacuation)


@evacuation.command("watch")
@click.argument("number", type=int)
@passing
def evacuation_watch(context: Context, number: int) -> None:
    """Show an evacuation's progress until it has ended. Exit code 1 unless every VM has left.

    Example: vmm evacuation watch 3
    """
    evacuees.watch(context, context.client.get(f"/v1/evacuations/{number}"))


@evacuation.command("cancel")
@click.argument("number", type=int)
@click.option("--why", help="Kept in the evacuation's history.")
@click.option("--abort", is_flag=True, help="Abort the moves that are open, unless the VM runs elsewhere already.")
@passing
def evacuation_cancel(context: Context, number: int, why: str | None, abort: bool) -> None:
    """Move no further VMs. Moves that are open go on, unless they are to be aborted.

    Example: vmm evacuation cancel 3 --why "the host is well"
    """
    body: dict[str, Any] = {"abort": abort}
    if why is not None:
        body["why"] = why
    _show(context, context.client.call("POST", f"/v1/evacuations/{number}/cancel", body), False)


@evacuation.command("resume")
@click.argument("number", type=int)
@_to_option
@click.option("--parallel", type=click.IntRange(min=1), help="So many moves at a time from now on.")
@click.option("--watch", "watching", is_flag=True, help="Show progress until it has ended.")
@passing
def evacuation_resume(
    context: Context, number: int, to: tuple[str, ...], parallel: int | None, watching: bool
) -> None:
    """Try the VMs again that failed or were left, and those that have come since.

    Example: vmm evacuation resume 3 --to nve4
    """
    body: dict[str, Any] = {}
    if to:
        body["to"] = list(to)
    if parallel is not None:
        body["parallel"] = parallel
    _show(context, context.client.call("POST", f"/v1/evacuations/{number}/resume", body), watching)
