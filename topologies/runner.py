"""What replaces parts of the `mn` program while an overlay runs in it."""

from __future__ import annotations

from typing import Any

from mininet.cli import CLI
from mininet.log import error, output, warn
from mininet.net import Mininet

from topologies.errors import NotReady, TopologyError
from topologies.net import OverlayNet, stop_all
from topologies.topo import OverlayTopo


class RunnerNet(OverlayNet):
    """An OverlayNet as `mn` builds it: it registers itself with the NVA and waits until the NVEs are connected."""

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


def mininet(topo: Any = None, **params: Any) -> Any:
    """`mn` calls this as `Mininet(...)`. Topologies of other kinds get Mininet's own class."""
    if not isinstance(topo, OverlayTopo):
        return Mininet(topo=topo, **params)
    for ours in ("switch", "host", "link", "ipBase", "inNamespace"):  # the topology decides these
        params.pop(ours, None)
    rest = str(topo.rest or "auto")
    return RunnerNet(topo, rest=None if rest.lower() in ("none", "no", "0") else rest, **params)


def cleanup() -> None:
    """`mn` calls this after an error or Ctrl-C: take down what this process built, and nothing else."""
    stop_all()


class OverlayCLI(CLI):  # type: ignore[misc]
    """Mininet's CLI, with moves."""

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
