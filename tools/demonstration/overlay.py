"""Three NVEs, three VMs and the NVA: `topologies` with the parameters of the demonstration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import permutations
from typing import Any

from topologies import VM, OverlayNet, TopologyError
from topologies.cleanup import survey
from topologies.controller import NVA
from topologies.netns import NAMED
from topologies.rundir import wait_until

from .machine import Port, ovs_version
from .narrator import Narrator
from .options import Options

OPENFLOW, REST = 6653, 8080
_REACHING = 10.0  # seconds


def nva_at(openflow: Port, rest: Port, options: dict[str, object] | None = None) -> type[NVA]:
    """The NVA's controller class on these ports. `options` of its configuration, read when it starts."""

    class OwnPortsNVA(NVA):
        """The NVA on ports of its own."""

        def __init__(self, name: str, **params: Any) -> None:
            super().__init__(name, port=openflow.number, rest_port=rest.number, options=options, **params)

    return OwnPortsNVA


@contextmanager
def overlay(options: Options, narrator: Narrator) -> Iterator[OverlayNet]:
    """The overlay, connected and registered with its NVA, and nobody knowing yet where anybody is.

    Raises TopologyError where something does not start.
    """
    openflow, rest = Port(OPENFLOW), Port(REST)
    net = None
    try:
        family = "IPv4" if options.underlay == "ipv4" else "IPv6"
        narrator.say(f"Building an overlay: 3 edges (NVEs), VXLAN over {family} between them, one VM at each")
        net = OverlayNet(nves=3, vms=3, underlay=options.underlay, controller=nva_at(openflow, rest))
        net.start()
        kind = "userspace" if net.nves[0].datapath == "netdev" else "kernel"
        narrator.say(f"It is up: real Open vSwitch {ovs_version()} ({kind} datapath), a network namespace for each NVE "
                     "and VM")
        for nve, vm in zip(net.nves, net.vms, strict=True):
            address = (nve.ipv4 if options.underlay == "ipv4" else nve.ipv6).partition("/")[0]
            narrator.detail(nve.name, f"{address:<15}  {vm.name} {vm.spec.ip} {vm.spec.ip6} {vm.spec.mac}")
        net.wait_for_nva()
        net.register()
        net.need_rest().await_synced(nve.name for nve in net.nves)
        narrator.say("NVA up (ryu-manager ryu_vmm): all NVEs connected; NVEs, network and VMs registered over REST")
        narrator.detail("OpenFlow", f"127.0.0.1:{openflow.number}{taken(openflow, OPENFLOW)}")
        narrator.detail("REST", f"{net.need_rest().base}/v1{taken(rest, REST)}")
        yield net
    finally:
        if net is not None:
            net.stop()
        openflow.release()
        rest.release()


def taken(port: Port, wish: int) -> str:
    """A remark where the port is not the one that was wished for."""
    return "" if port.number == wish else f"  ({wish} is taken)"


def left_behind(net: OverlayNet) -> list[str]:
    """What of a stopped overlay is still there: namespaces, and its folder with the processes it records."""
    with suppress(FileNotFoundError):
        names = [name for name in os.listdir(NAMED) if name.startswith(f"{net.lab.run.tag}-")]
        return [f"namespace {name}" for name in names] + [str(run) for run in survey() if run.path == net.run_dir]
    return []


def everybody_reaches_everybody(net: OverlayNet) -> int:
    """Ping from each VM to each other, IPv4 and IPv6; returns how many pings. Raises TopologyError if one fails.

    Before that, each is asked until it answers: whoever sends a first packet has to find its neighbors.
    """
    ways = [(one, other, address) for one, other in permutations(net.vms, 2)
            for address in (other.spec.ip, other.spec.ip6)]
    for one, other, address in ways:
        wait_until(lambda one=one, address=address: not _ping(one, address, 1)[1], _REACHING,
                   f"{one.name} to reach {other.name} at {address}, where nothing has moved yet", 0.1)
    for one, other, address in ways:
        words, code = _ping(one, address, _REACHING)
        if code:
            raise TopologyError(f"{one.name} does not reach {other.name} at {address}, and nothing has moved yet:\n"
                                f"{words}")
    return len(ways)


def _ping(vm: VM, address: str, seconds: float) -> tuple[str, int]:
    """One ping that waits for so long: (what it says, its exit code)."""
    words, _, code = vm.pexec(["ping", "-c", "1", "-W", f"{seconds:g}", address])
    return words, code
