"""Options about layer 3, for the verbs that register networks, NVEs and VMs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .. import model
from .context import among

__all__ = ["leave", "leave_option", "network", "network_options", "nve_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


def _options(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def decorate(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class _Leave(click.ParamType[tuple[str, int | None]]):
    """``ANSWER[:SECONDS]``."""

    name = "leave"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """How it is written."""
        return f"[{'|'.join(model.Answer)}][:SECONDS]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int | None]:
        """Split it."""
        answer, colon, seconds = str(value).partition(":")
        if answer not in list(model.Answer) or (colon and not seconds.isdecimal()):
            self.fail(f"{value!r} is not one of {', '.join(model.Answer)}, with or without :SECONDS", param, ctx)
        return answer, int(seconds) if colon else None


leave_option = click.option(
    "--leave", type=_Leave(), help="What the old NVE does with packets for an address that a task has left."
)

network_options = _options(
    click.option("--kind", type=among(model.NetworkKind), help="l2, or l3: IP by way of the NVE."),
    click.option("--gateway", "gateways", multiple=True, help="Address of the guests' router; one IPv4, one IPv6."),
    click.option("--gateway-mac", help="The router's MAC."),
    click.option("--subnet", "subnets", multiple=True, metavar="PREFIX=NVE", help="Addresses of an NVE's tasks."),
    click.option("--sir", metavar="PREFIX/64", help="IPv6 addresses that ILA moves."),
    click.option("--router", help="Networks of one tenant with the same router are routed between."),
    leave_option,
)

nve_options = _options(
    click.option("--routed-port", help="Name of the port of tunnels without Ethernet headers."),
    click.option("--locator", metavar="PREFIX/64", help="Underlay addresses by which ILA reaches its tasks."),
    click.option("--ila-port", help="Name of the patch port to the underlay's bridge, for ILA."),
    click.option("--next-hop", help="Underlay router on the way to other NVEs' locators."),
)


def leave(given: tuple[str, int | None] | None) -> dict[str, Any]:
    """The field that says it; nothing where nothing was said."""
    if given is None:
        return {}
    answer, seconds = given
    return {"leave": {"answer": answer, **({} if seconds is None else {"seconds": seconds})}}


def network(
    kind: str | None,
    gateways: tuple[str, ...],
    gateway_mac: str | None,
    subnets: tuple[str, ...],
    sir: str | None,
    router: str | None,
) -> dict[str, Any]:
    """The fields of a network that its layer 3 options come to. UsageError: they do not go together."""
    body: dict[str, Any] = {key: value for key, value in (("kind", kind), ("sir", sir), ("router", router)) if value}
    gateway: dict[str, str] = {}
    for address in gateways:
        family = "ipv6" if ":" in address else "ipv4"
        if family in gateway:
            raise click.UsageError(f"two {'IPv6' if family == 'ipv6' else 'IPv4'} addresses of one --gateway")
        gateway[family] = address
    if gateway_mac is not None:
        gateway["mac"] = gateway_mac
    if gateway:
        body["gateway"] = gateway
    for subnet in subnets:
        prefix, equals, nve = subnet.partition("=")
        if not (prefix and equals and nve):
            raise click.UsageError(f"--subnet {subnet!r} is not of the form PREFIX=NVE")
        body.setdefault("subnets", []).append({"prefix": prefix, "nve": nve})
    return body
