"""Verbs about networks."""

from __future__ import annotations

from typing import Any

import click

from .. import model
from . import render, routed
from .client import at
from .context import Context, Group, among, passing
from .registering import removing, replace_option, submit

__all__ = ["network"]


@click.group(cls=Group)
def network() -> None:
    """Virtual networks.

    Example: vmm network list
    """


@network.command("list")
@passing
def network_list(context: Context) -> None:
    """List all networks.

    Example: vmm network list
    """
    items = list(context.client.items("/v1/networks"))
    context.show({"items": items, "next": None}, lambda d: render.networks(d["items"]))


@network.command("show")
@click.argument("name")
@passing
def network_show(context: Context, name: str) -> None:
    """Show a network.

    Example: vmm network show blue
    """
    context.show(context.client.get(at("networks", name)), render.network)


@network.command("add")
@click.argument("name")
@click.option("--vni", type=int, required=True, help="VXLAN network identifier.")
@click.option("--distribution", type=among(model.Distribution), help="Push locations, or let NVEs pull.")
@click.option("--announcements", type=among(model.Trust), help="Whose announcements are believed.")
@click.option("--unknown", type=among(model.Unknown), help="Flood or drop requests for unknown addresses.")
@click.option("--admit", type=among(model.Admit), help="What a port's frames are checked against.")
@click.option("--allow", type=among(model.Allowed), multiple=True, help="What its VMs may do. May be repeated.")
@click.option("--mtu", type=int, help="Bytes of an IP packet inside the network.")
@click.option("--idle-timeout", type=int, help="Seconds that a pulled location lasts without traffic.")
@click.option("--tenant", help="Whose network it is. Default: the operator's.")
@routed.network_options
@replace_option
@passing
def network_add(
    context: Context,
    /,
    name: str,
    vni: int,
    tenant: str | None,
    replace: bool,
    kind: str | None,
    gateways: tuple[str, ...],
    gateway_mac: str | None,
    subnets: tuple[str, ...],
    sir: str | None,
    router: str | None,
    leave: tuple[str, int | None] | None,
    **policy: Any,
) -> None:
    """Register a network.

    \b
    Example: vmm network add blue --vni 100 --mtu 1450
    Example: vmm network add tasks --vni 300 --kind l3 --gateway 10.1.0.1 --subnet 10.1.1.0/24=nve1
    """
    given = {key: value for key, value in policy.items() if value not in (None, ())} | routed.leave(leave)
    more: dict[str, Any] = {} if tenant is None else {"tenant": tenant}
    more |= routed.network(kind, gateways, gateway_mac, subnets, sir, router)
    submit(context, "networks", {"name": name, "vni": vni, "policy": given, **more}, replace)


@network.command("remove")
@click.argument("name")
@passing
def network_remove(context: Context, name: str) -> None:
    """Remove a network without interfaces.

    Example: vmm network remove blue
    """
    removing("networks", "network")(context, name)
