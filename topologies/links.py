"""How a VM hangs on an NVE: through a pair of taps and the vnic process, or by a plain veth pair.

Both kinds are Mininet links between a VM and the NVE where it is now, and both know the steps of a move:
`prepare` (the destination's port), `pause`, `leave` (the source's port is gone), `resume` (and announce).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mininet.link import Link

from topologies import netns
from topologies.underlay import QuietIntf

if TYPE_CHECKING:
    from topologies.nve import NVE
    from topologies.vm import VM

Frames = list[tuple[float, str]]


def _sort(node1: Any, node2: Any) -> tuple[VM, NVE]:
    return (node1, node2) if hasattr(node1, "spec") else (node2, node1)


class AttachLink(Link):  # type: ignore[misc]
    """What both kinds share: the two Mininet interfaces and where the VM is."""

    def __init__(self, node1: Any, node2: Any, **_params: Any) -> None:
        vm, nve = _sort(node1, node2)
        self.vm, self.nve = vm, nve
        self.port = vm.spec.port
        self._attach()
        self.intf1 = QuietIntf("eth0", node=vm, link=self, mac=vm.spec.mac)
        self.intf1.ip, self.intf1.prefixLen = vm.spec.ip, (vm.spec.ipv4 or "/24").partition("/")[2]
        self.intf2 = QuietIntf(self.port, node=nve, link=self, port=nve.plug(self.port))
        vm.attachment = self

    def _attach(self) -> None:
        raise NotImplementedError

    def prepare(self, nve: NVE) -> float:
        """Make the port at the destination, where that is possible before the VM is there; the time it was
        up.
        """
        raise NotImplementedError

    def unprepare(self, nve: NVE) -> None:
        """Undo `prepare`."""
        raise NotImplementedError

    def pause(self) -> dict[str, Any]:
        """Stop the VM's traffic. Returns `at` and how many queued frames were still delivered (`drained`)."""
        raise NotImplementedError

    def await_quiet(self, quiet: float, deadline: float) -> None:
        """Let the VM run on until nothing has reached it for `quiet` seconds, or until `deadline` seconds are
        over.
        """
        time.sleep(quiet)

    def leave(self) -> dict[str, Any]:
        """Remove the source's port. Returns `at` and how many frames were lost with it (`left`)."""
        raise NotImplementedError

    def resume(self, nve: NVE, frames: Frames) -> dict[str, Any]:
        """Run the VM at the NVE and announce it. Returns `at`, `announced` and how many frames had `queued`."""
        raise NotImplementedError

    def announce(self, frames: Frames) -> float:
        """Send frames as the VM; returns when."""
        raise NotImplementedError

    def _now_at(self, nve: NVE) -> None:
        """Tell Mininet where the link leads now."""
        self.nve.delIntf(self.intf2)
        self.nve = nve
        self.intf2 = QuietIntf(self.port, node=nve, link=self, port=nve.ports_wanted[self.port])

    def delete(self) -> None:
        """Take the VM off the network."""
        self.nve.unplug(self.port)
        self._detach()
        self.vm.delIntf(self.intf1)
        self.nve.delIntf(self.intf2)

    def _detach(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Nothing: everything goes with the namespaces and the vnic process."""


class TapLink(AttachLink):
    """A VM's NIC as QEMU makes it: a tap at the hypervisor, whose queue holds what comes while the VM is
    paused.

    The VM's tap exists at every NVE from the start, up and promiscuous, and is plugged into `br-int` where
    the VM is. A hypervisor would make it when the VM comes and delete it when the VM has gone; but each such
    link event makes OVS (3.1, userspace datapath) read its routes anew, and a revalidation in that moment
    finds none and turns tunnel flows into drops for some milliseconds, also those of VMs that do not move.
    What OpenFlow shows is the same.
    """

    def _attach(self) -> None:
        vnic = self.vm.lab.vnic
        spec = self.vm.spec
        vnic.ask(
            "guest", vm=spec.name, namespace=self.vm.namespace, ifname="eth0", mac=spec.mac, mtu=spec.mtu
        )
        queue = self.vm.net.topo.queue
        for nve in self.vm.net.nves:
            vnic.ask("tap", vm=spec.name, nve=nve.name, namespace=nve.namespace, ifname=self.port, queue=queue)
        vnic.ask("resume", vm=spec.name, nve=self.nve.name, frames=[])

    def prepare(self, nve: NVE) -> float:
        self.vm.lab.vnic.ask("empty", vm=self.vm.name, nve=nve.name)
        nve.plug(self.port)
        return time.monotonic()

    def unprepare(self, nve: NVE) -> None:
        nve.unplug(self.port)

    def pause(self) -> dict[str, Any]:
        return self.vm.lab.vnic.ask("pause", vm=self.vm.name)

    def await_quiet(self, quiet: float, deadline: float) -> None:
        started = changed = now = time.monotonic()
        before = -1
        while now - changed < quiet and now - started < deadline:
            received = self.vm.lab.vnic.ask("counts", vm=self.vm.name)["vms"][self.vm.name]["to_guest"]
            now = time.monotonic()
            if received != before:
                before, changed = received, now
            time.sleep(min(0.002, quiet))

    def leave(self) -> dict[str, Any]:
        self.nve.unplug(self.port)
        return self.vm.lab.vnic.ask("empty", vm=self.vm.name, nve=self.nve.name)

    def resume(self, nve: NVE, frames: Frames) -> dict[str, Any]:
        answer = self.vm.lab.vnic.ask("resume", vm=self.vm.name, nve=nve.name, frames=frames)
        if nve is not self.nve:
            self._now_at(nve)
        return answer

    def announce(self, frames: Frames) -> float:
        return float(self.vm.lab.vnic.ask("announce", vm=self.vm.name, frames=frames)["at"])

    def _detach(self) -> None:
        self.vm.lab.vnic.ask("forget", vm=self.vm.name)


class VethLink(AttachLink):
    """A container's veth pair. Its hypervisor end itself moves: the carrier is lost in between, sockets live
    on.
    """

    def _attach(self) -> None:
        spec = self.vm.spec
        netns.ip_batch(
            self.vm.namespace,
            f"link add eth0 address {spec.mac} mtu {spec.mtu} type veth "
            f"peer name {self.port} mtu {spec.mtu} netns {self.nve.namespace}",
            "link set eth0 up",
        )
        netns.run(netns.inside(self.vm.namespace, ["ethtool", "-K", "eth0", "tx", "off"]))
        netns.ip_batch(self.nve.namespace, f"link set {self.port} promisc on up")

    def prepare(self, nve: NVE) -> float:
        return time.monotonic()  # the end that will be the port is still at the source

    def unprepare(self, nve: NVE) -> None:
        pass

    def pause(self) -> dict[str, Any]:
        return {"at": time.monotonic(), "drained": 0}

    def leave(self) -> dict[str, Any]:
        netns.ip_batch(self.nve.namespace, f"link set {self.port} down")
        self.nve.unplug(self.port)
        return {"at": time.monotonic(), "left": 0}

    def resume(self, nve: NVE, frames: Frames) -> dict[str, Any]:
        if nve is not self.nve:
            netns.ip_batch(self.nve.namespace, f"link set {self.port} netns {nve.namespace}")
        nve.plug(self.port)
        netns.ip_batch(nve.namespace, f"link set {self.port} up")
        at = time.monotonic()
        if nve is not self.nve:
            self._now_at(nve)
        return {"at": at, "announced": self.announce(frames), "queued": 0}

    def announce(self, frames: Frames) -> float:
        answer = self.vm.lab.vnic.ask("shout", namespace=self.vm.namespace, ifname="eth0", frames=frames)
        return float(answer["at"])

    def _detach(self) -> None:
        netns.run(["ip", "-n", self.vm.namespace, "link", "del", "eth0"], check=False)
