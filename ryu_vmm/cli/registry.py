"""Verbs about NVEs, networks and VMs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from .. import model
from . import render, routed
from .client import FAILED, at
from .context import Context, Group, among, passing

__all__ = ["inventory_", "network", "nve", "vm"]

#: POST bodies are limited to 1 MiB by the server; this leaves room.
PART = 900_000


class Attachment(click.ParamType[tuple[str, str]]):
    """``LEFT=RIGHT``."""

    name = "pair"

    def __init__(self, left: str, right: str) -> None:
        self.left, self.right = left, right

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """How it is written."""
        return f"{self.left}={self.right}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split it."""
        left, equals, right = str(value).partition("=")
        if not (left and equals and right):
            self.fail(f"{value!r} is not of the form {self.left}={self.right}", param, ctx)
        return left, right


def submit(context: Context, what: str, body: dict[str, Any], replace: bool) -> None:
    """POST an object, or PUT it with --replace, and say what came of it."""
    name = body["name"]
    known = {"nves": "NVE", "networks": "network", "vms": "VM"}[what]
    if replace:
        document = context.client.call("PUT", at(what, name), body)
    else:
        document = context.client.call("POST", f"/v1/{what}", body)
    context.done(document, f"{known} {name} is registered")


def removing(what: str, noun: str) -> Callable[[Context, str], None]:
    """The body of a ``remove`` verb."""

    def remove(context: Context, name: str) -> None:
        context.client.call("DELETE", at(what, name))
        context.done(None, f"{noun} {name} is removed")

    return remove


replace_option = click.option("--replace", is_flag=True, help="Change it if it exists with other content.")


# --- nve ------------------------------------------------------------------------------------------------------
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


# --- network --------------------------------------------------------------------------------------------------
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


# --- vm -------------------------------------------------------------------------------------------------------
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
    context.show(context.client.get(at("vms", name)), lambda document: render.vms([document]))


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
    apply(context, {"nves": [], "networks": [], "vms": _load(file)["vms"]})


# --- inventory ------------------------------------------------------------------------------------------------
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
    apply(context, _load(file))


@inventory_.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@passing
def inventory_check(context: Context, file: Path) -> None:
    """Check FILE without an NVA: exit code 6 and a line for each fault if it is wrong.

    Example: vmm inventory check lab.yaml
    """
    counts = {what: len(items) for what, items in _load(file).items()}
    context.done(counts, f"{file} is good: " + ", ".join(f"{n} {what}" for what, n in counts.items()))


def _load(file: Path) -> dict[str, Any]:
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
