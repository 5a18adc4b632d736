"""Verbs about VMs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .. import model
from ..addresses import is_mac
from . import render, routed
from .client import at
from .context import Context, Group, among, passing
from .inventories import apply, load
from .registering import Attachment, removing, replace_option, submit

__all__ = ["vm"]


@click.group(cls=Group)
def vm() -> None:
    """VMs and their interfaces.

    Example: vmm vm list --nve nve1
    """


@vm.command("list")
@click.option("--nve", "on", help="Only VMs on this NVE.")
@click.option("--network", "within", help="Only VMs in this network.")
@passing
def vm_list(context: Context, on: str | None, within: str | None) -> None:
    """List VMs, a line for each interface.

    Example: vmm vm list --nve nve1
    """
    items = list(context.client.items("/v1/vms", nve=on, network=within))
    context.show({"items": items, "next": None}, lambda d: render.vms(d["items"]))


@vm.command("show")
@click.argument("name")
@passing
def vm_show(context: Context, name: str) -> None:
    """Show a VM.

    Example: vmm vm show web-1
    """
    context.show(context.client.get(at("vms", name)), render.vm)


@vm.command("add")
@click.argument("name")
@click.option("--network", "within", required=True, help="Network of the interface.")
@click.option("--mac", required=True)
@click.option("--ip", "ips", multiple=True, help="IPv4 or IPv6 address; may be repeated.")
@click.option("--nve", "on", required=True, help="Where the VM is now.")
@click.option("--port", required=True, help="Name of its port there.")
@click.option("--interface", default="eth0", show_default=True, help="Name of the interface.")
@click.option(
    "--attach",
    type=Attachment("NVE", "PORT"),
    multiple=True,
    help="Where else it may be attached: its announcements are believed there. May be repeated.",
)
@click.option("--allow", type=among(model.Allowed), multiple=True, help="What it may do. May be repeated.")
@click.option("--dns", help="Name whose address records are to be its addresses.")
@click.option(
    "--shared", "shared", multiple=True, help="IP address or MAC that it holds in turn with others. May be repeated."
)
@click.option("--tenant", help="Whose VM it is. Default: of the tenant that the network belongs to.")
@routed.leave_option
@replace_option
@passing
def vm_add(
    context: Context,
    name: str,
    within: str,
    mac: str,
    ips: tuple[str, ...],
    on: str,
    port: str,
    interface: str,
    attach: tuple[tuple[str, str], ...],
    allow: tuple[str, ...],
    dns: str | None,
    shared: tuple[str, ...],
    tenant: str | None,
    leave: tuple[str, int | None] | None,
    replace: bool,
) -> None:
    """Register a VM with one interface (vmm vm apply takes more).

    Example: vmm vm add web-1 --network blue --mac 02:00:00:00:00:01 --ip 10.0.0.1 --nve nve1 --port tap-web-1
    """
    body: dict[str, Any] = {
        "name": name,
        "interfaces": [
            {
                "name": interface,
                "network": within,
                "mac": mac,
                "ipv4": [ip for ip in ips if ":" not in ip],
                "ipv6": [ip for ip in ips if ":" in ip],
                "nve": on,
                "port": port,
                "attachments": [{"nve": there, "port": that} for there, that in attach],
                "allow": list(allow),
                "shared": [one for one in shared if not is_mac(one)],
                "shared_macs": [one for one in shared if is_mac(one)],
                **({} if dns is None else {"dns": dns}),
            }
        ],
    }
    if tenant is not None:
        body["tenant"] = tenant
    submit(context, "vms", body | routed.leave(leave), replace)


@vm.command("remove")
@click.argument("name")
@passing
def vm_remove(context: Context, name: str) -> None:
    """Remove a VM; an open move of it is aborted.

    Example: vmm vm remove web-1
    """
    removing("vms", "VM")(context, name)


@vm.command("thaw")
@click.argument("name")
@passing
def vm_thaw(context: Context, name: str) -> None:
    """Let announcements move a VM again whose interfaces were frozen because they flapped.

    Example: vmm vm thaw web-1
    """
    context.show(context.client.call("POST", at("vms", name, "thaw")), lambda document: render.vms([document]))


@vm.command("apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@passing
def vm_apply(context: Context, file: Path) -> None:
    """Create or replace the VMs of an inventory FILE (YAML or JSON), and nothing else of it.

    Example: vmm vm apply vms.yaml
    """
    apply(context, {"nves": [], "networks": [], "vms": load(file)["vms"]})
