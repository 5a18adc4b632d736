"""Verbs about the edge of this host. They work on its Open vSwitch, where they are run: no NVA is asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..addresses import format_dpid, format_ip, parse_dpid, parse_ip
from ..agent.faults import HostError
from ..edge import checking, reading
from ..edge.host import Host, text
from ..edge.plan import Edge, Tls, Uplink, target
from .client import FAILED
from .context import Command, Context, passing, print_json

__all__ = ["check", "setup"]

_F = TypeVar("_F", bound=Callable[..., Any])

_STATUS = 6.0  # s; Open vSwitch writes down every 5 s whether a controller is connected


def _shared(function: _F) -> _F:
    for option in (
        click.option("--mtu", type=click.IntRange(1280, 65535), help="Of the underlay. Default: 1500, over IPv6 1520."),
        click.option("--controller", "controllers", multiple=True, metavar="tcp:ADDRESS:PORT",
                     help="Where the NVA is: tcp: or ssl:, port 6653 unless given."),
        click.option("--db", metavar="unix:FILE", help="Open vSwitch's database. Default: ovs-vsctl's own."),
        click.option("--bridge", default="br-int", show_default=True, help="The overlay's bridge."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command(cls=Command)
@click.argument("name")
@click.option("--dpid", default="", help="OpenFlow datapath id, in hexadecimal. Default: made from NAME.")
@click.option("--ipv4", help="Underlay IPv4 address; with /LENGTH where --uplink is given.")
@click.option("--ipv6", help="Underlay IPv6 address; with /LENGTH where --uplink is given.")
@_shared
@click.option("--datapath-type", type=click.Choice(["system", "netdev"]),
              help="The kernel's, or userspace. Default: as the bridge is; a new one is the kernel's.")  # fmt: skip
@click.option("--tunnel-port", default="vxlan", show_default=True, help="Name of the VXLAN port.")
@click.option("--routed-port", help="Name of a port for tunnels without Ethernet headers.")
@click.option("--locator", metavar="PREFIX/64", help="Underlay addresses by which ILA reaches its tasks.")
@click.option("--uplink", metavar="LINK", help="Link to the underlay, which a bridge is to hold, addresses and all.")
@click.option("--uplink-bridge", default="br-ext", show_default=True, help="That bridge.")
@click.option("--router", "routers", multiple=True, metavar="ADDRESS", help="Next hop of its default route.")
@click.option("--private-key", metavar="FILE", help="PEM file with the edge's key, for ssl:.")
@click.option("--certificate", metavar="FILE", help="PEM file with its certificate.")
@click.option("--authority", metavar="FILE", help="PEM file with the authority of the NVA's certificate.")
@click.option("--tap", "taps", multiple=True, metavar="LINK", help="A guest's tap, whose queue is made longer.")
@click.option("--tap-rule", is_flag=True, help="Have taps that come later made so, by a rule of udev.")
@click.option("--run", is_flag=True, help="Run the commands instead of printing them.")
@passing
def setup(
    context: Context, /, *, name: str, db: str | None, run: bool, uplink: str | None, uplink_bridge: str,
    routers: tuple[str, ...], private_key: str | None, certificate: str | None, authority: str | None, mtu: int | None,
    **given: Any,
) -> None:  # fmt: skip
    """Print the commands that make this host an edge, in order, or run them.

    Running them again changes nothing that is right and repairs what is not. What is
    printed can be run by any shell, as root.

    Example: vmm nve setup nve1 --controller tcp:192.0.2.10:6653 --ipv4 192.0.2.1
    """
    if not given["controllers"]:
        raise click.UsageError("--controller is missing: where the NVA is, as tcp:192.0.2.10:6653")
    tls = None
    if private_key or certificate or authority:
        if not (private_key and certificate and authority):
            raise click.UsageError("--private-key, --certificate and --authority go together")
        tls = Tls(private_key, certificate, authority)
    if routers and not uplink:
        raise click.UsageError("--router goes with --uplink")
    edge = Edge(
        name=name, mtu=mtu or 0, tls=tls, uplink=Uplink(uplink, uplink_bridge, routers) if uplink else None, **given
    )
    host, steps = Host(db), edge.steps()
    shown = [(step.why, host.shown(step, len(edge.controllers))) for step in steps]
    if context.as_json:
        commands = [{"command": command, "why": why} for why, command in shown]
        print_json({"commands": commands, "dpid": edge.dpid, "register": text(edge.registration), "run": run})
    for step, (why, command) in zip(steps, shown, strict=True):
        if not context.as_json:
            click.echo(f"# {why}\n{command}")
        if run:
            try:
                host.do(step)
            except HostError as e:
                click.echo(f"vmm: {e.message}", err=True)
                raise click.exceptions.Exit(FAILED) from e
    if not context.as_json:
        click.echo(f"# then, once, wherever the NVA is reached:\n#   {text(edge.registration)}")


def _address(text: str) -> str:
    return format_ip(parse_ip(text.partition("/")[0], "address"))


def _settled(host: Host, bridge: str, wanted: checking.Wanted) -> tuple[reading.Found, list[checking.Finding]]:
    """Read the edge, again while a controller that Open vSwitch calls not connected may have come meanwhile."""
    until = time.monotonic() + _STATUS
    while True:
        found = reading.read(host, bridge)
        findings = checking.findings(found, wanted)
        if found.started is None or all(one.connected for one in found.controllers) or time.monotonic() >= until:
            return found, findings
        time.sleep(0.2)


@click.command(cls=Command)
@_shared
@click.option("--dpid", help="The datapath id that it is to have.")
@click.option("--address", "addresses", multiple=True, help="An underlay address that this host is to have.")
@passing
def check(
    context: Context, /, bridge: str, db: str | None, controllers: tuple[str, ...], mtu: int | None, dpid: str | None,
    addresses: tuple[str, ...],
) -> None:  # fmt: skip
    """Say what is missing or wrong in the edge of this host, each with the command that mends it.

    Run it on the host, as root. It changes nothing. Exit code 1 if anything is wrong. It waits up to 6 s for a
    controller that is not connected: Open vSwitch writes down only every 5 s whether one is.

    Example: vmm nve check
    """
    host = Host(db)
    wanted = checking.Wanted(
        dpid and format_dpid(parse_dpid(dpid, "dpid")),
        tuple(map(_address, addresses)),
        tuple(map(target, controllers)),
        mtu,
    )
    try:
        found, findings = _settled(host, bridge, wanted)
    except HostError as e:
        click.echo(f"vmm: {e.message}", err=True)
        raise click.exceptions.Exit(FAILED) from e
    wrong = [
        (one.what, [host.shown(step, max(len(found.controllers), len(wanted.controllers))) for step in one.mend])
        for one in findings
    ]
    if context.as_json:
        print_json({"bridge": bridge, "findings": [{"what": what, "mend": mend} for what, mend in wrong]})
    else:
        for what, mend in wrong:
            click.echo(what + "".join(f"\n    {command}" for command in mend))
        if not wrong:
            click.echo(f"{bridge}: nothing is missing or wrong")
    if wrong:
        raise click.exceptions.Exit(FAILED)
