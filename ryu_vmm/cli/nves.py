"""Verbs about NVEs."""

from __future__ import annotations

import click

from . import edges, render, routed
from .client import FAILED, at
from .context import Context, Group, passing
from .registering import removing, replace_option, submit

__all__ = ["nve"]


@click.group(cls=Group)
def nve() -> None:
    """NVEs: the Open vSwitch bridges of the hypervisors.

    Example: vmm nve list
    """


@nve.command("list")
@passing
def nve_list(context: Context) -> None:
    """List all NVEs.

    Example: vmm nve list
    """
    items = list(context.client.items("/v1/nves"))
    context.show({"items": items, "next": None}, lambda d: render.nves(d["items"]))


@nve.command("show")
@click.argument("name")
@passing
def nve_show(context: Context, name: str) -> None:
    """Show an NVE and its ports.

    Example: vmm nve show nve1
    """
    context.show(context.client.get(at("nves", name)), render.nve)


@nve.command("add")
@click.argument("name")
@click.option("--dpid", required=True, help="OpenFlow datapath id, in hexadecimal.")
@click.option("--ipv4", help="Underlay IPv4 address.")
@click.option("--ipv6", help="Underlay IPv6 address.")
@click.option("--tunnel-port", help="Name of the VXLAN port; found by itself if there is one such port.")
@click.option("--certificate", help="Name in its switch's TLS certificate; default: the NVE's own.")
@routed.nve_options
@replace_option
@passing
def nve_add(
    context: Context,
    /,
    name: str,
    dpid: str,
    ipv4: str | None,
    ipv6: str | None,
    tunnel_port: str | None,
    certificate: str | None,
    replace: bool,
    **underlay: str | None,
) -> None:
    """Register an NVE.

    Example: vmm nve add nve1 --dpid 0000000000000001 --ipv4 192.168.100.1
    """
    body = {"name": name, "dpid": dpid, "ipv4": ipv4, "ipv6": ipv6, "tunnel_port": tunnel_port}
    if certificate is not None:
        body["certificate"] = certificate
    body.update({key: value for key, value in underlay.items() if value is not None})
    submit(context, "nves", body, replace)


@nve.command("remove")
@click.argument("name")
@passing
def nve_remove(context: Context, name: str) -> None:
    """Remove an NVE on which no VM is located.

    Example: vmm nve remove nve1
    """
    removing("nves", "NVE")(context, name)


@nve.command("verify")
@click.argument("names", nargs=-1)
@passing
def nve_verify(context: Context, names: tuple[str, ...]) -> None:
    """Compare every flow of NVEs with the desired state; all connected NVEs if none is named.

    Exit code 1 if there is a difference.

    Example: vmm nve verify nve1 nve2
    """
    chosen = list(names) or [n["name"] for n in context.client.items("/v1/nves") if n["connected"]]
    found = [context.client.call("POST", at("nves", name, "verify")) for name in chosen]
    document = found[0] if len(names) == 1 else {"items": found, "next": None}
    context.show(document, lambda _: [line for one in found for line in render.verified(one)])
    if not all(one["in_sync"] for one in found):
        raise click.exceptions.Exit(FAILED)


nve.add_command(edges.setup, "setup")
nve.add_command(edges.check, "check")
