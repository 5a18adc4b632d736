"""What replaces parts of the `mn` program while an overlay runs in it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from mininet.cli import CLI
from mininet.log import error, output, warn
from mininet.net import Mininet

from topologies import harmless
from topologies.errors import NotReady, TopologyError
from topologies.net import OverlayNet
from topologies.topo import OverlayTopo

_P = ParamSpec("_P")
_T = TypeVar("_T")


def ending(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The same, where an exception ends the process with a message and status 1, and never reaches `mn`."""

    @functools.wraps(function, updated=())
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except Exception as exc:
            harmless.fail(exc)

    return call


def ending_each(topos: dict[str, Any]) -> dict[str, Any]:
    """Topologies by name, each of which ends the process where it cannot be made."""
    return {name: ending(made) for name, made in topos.items()}


class RunnerNet(OverlayNet):
    """An OverlayNet as `mn` builds it: it registers itself with the NVA and waits until the NVEs are connected."""

    @ending
    def stop(self) -> None:
        super().stop()

    @ending
    def start(self) -> None:
        super().start()
        if not self.controllers:
            self.rest = None  # nobody to register with
        if self.rest is None or not self.try_register():
            return
        try:
            self.wait_for_nva()
        except NotReady as exc:
            warn(f"*** {exc}\n")


@ending
def mininet(topo: Any = None, **params: Any) -> Any:
    """`mn` calls this as `Mininet(...)`. Topologies of other kinds get Mininet's own class."""
    if not isinstance(topo, OverlayTopo):
        return Mininet(topo=topo, **params)
    for ours in ("switch", "host", "link", "ipBase", "inNamespace"):  # the topology decides these
        params.pop(ours, None)
    rest = str(topo.rest or "auto")
    return RunnerNet(topo, rest=None if rest.lower() in ("none", "no", "0") else rest, **params)


class OverlayCLI(CLI):  # type: ignore[misc]
    """Mininet's CLI, with moves."""

    @ending
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def do_move(self, line: str) -> None:
        """Move a VM: move VM NVE [announcement] [unplanned]"""
        words = line.split()
        if len(words) < 2:
            error("usage: move VM NVE [garp-request|garp-reply|na|rarp|both|none] [unplanned]\n")
            return
        options: dict[str, Any] = {}
        for word in words[2:]:
            if word == "unplanned":
                options["planned"] = False
            else:
                options["announce"] = word
        try:
            report = self.mn.vm(words[0]).move(words[1], **options)
        except TopologyError as exc:
            error(f"{exc}\n")
            return
        output(f"{report.vm}: {report.source} -> {report.destination}, down for {report.downtime * 1e3:.0f} ms, ")
        output(f"{report.queued} frames waited at the destination, {report.left} were left at the source\n")

    def do_where(self, _line: str) -> None:
        """Say where every VM is."""
        for vm in self.mn.vms:
            output(f"{vm.name:12} {vm.spec.vn:8} {vm.nve.name:8} {vm.spec.mac} {vm.spec.ipv4} {vm.spec.ipv6}\n")
