"""The underlay: one Linux bridge or router in a namespace of its own, and its links to the NVEs."""
# ruff: noqa: N802, N803 (Mininet's names)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mininet.link import Intf, Link
from mininet.node import Switch

from topologies import netns
from topologies.node import NamespaceNode

if TYPE_CHECKING:
    from topologies.nve import NVE

MTU = 1600  # room for a 1450-byte guest packet inside VXLAN over IPv6, with some to spare
BRIDGE = "br0"


class Underlay(NamespaceNode, Switch):  # type: ignore[misc]
    """The network between the hypervisors, as a Mininet switch without a controller.

    routing: it is a router, with an address of each NVE's subnet (`NVE.router`) and routes to their locators; else it
    is a bridge, and the NVEs are neighbors.
    """

    def __init__(self, name: str, routing: bool = False, **params: Any) -> None:
        self.controlIntf = None
        self.routing = routing
        params.setdefault("dpid", "f" * 16)  # unused: a plain bridge has none
        super().__init__(name, **params)
        if not routing:
            netns.ip_batch(self.namespace, f"link add {BRIDGE} type bridge", f"link set {BRIDGE} mtu {MTU} up")

    def sysctls(self) -> dict[str, object]:
        if not self.routing:
            return {"net/ipv6/conf/default/disable_ipv6": 1}
        return {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1, "net/ipv6/conf/default/accept_dad": 0}

    def lead_to(self, nve: NVE, port: str) -> None:
        """Forward between an NVE's link, whose end here is `port`, and the others."""
        if not self.routing:
            netns.ip_batch(self.namespace, f"link set {port} master {BRIDGE} up")
            return
        lines = [f"link set {port} up"]
        for router in nve.router:
            nodad, own = (" nodad", nve.ipv6) if ":" in router else ("", nve.ipv4)
            assert own is not None
            lines.append(f"addr add {router}/{own.partition('/')[2]} dev {port}{nodad}")
        if nve.locator and nve.ipv6:
            lines.append(f"route add {nve.locator} via {nve.ipv6.partition('/')[0]} dev {port}")
        netns.ip_batch(self.namespace, *lines)

    def start(self, _controllers: list[Any]) -> None:
        """Nothing to start: the bridge forwards from the moment a link is in it."""

    def stop(self, deleteIntfs: bool = True) -> None:
        """Nothing to stop; the interfaces go with the namespace."""


class QuietIntf(Intf):  # type: ignore[misc]
    """An interface that its link has created in the right namespace and configured."""

    def __init__(self, name: str, **params: Any) -> None:
        super().__init__(name, moveIntfFn=lambda *_args: None, **params)

    def config(self, **_params: Any) -> dict[str, Any]:
        return {}

    def updateIP(self) -> Any:
        return self.ip

    def updateMAC(self) -> Any:
        return self.mac

    def updateAddr(self) -> Any:
        return self.ip, self.mac


class UnderlayLink(Link):  # type: ignore[misc]
    """A veth pair from an NVE's `und0` to the underlay's bridge or router.

    Both ends are born in their namespaces, with transmit checksum offload off: the userspace datapath
    forwards what it reads, and would send half-made checksums on.
    """

    def __init__(self, node1: Any, node2: Any, **_params: Any) -> None:
        underlay, nve = (node1, node2) if isinstance(node1, Underlay) else (node2, node1)
        port = nve.name
        netns.ip_batch(
            nve.namespace,
            f"link add und0 mtu {MTU} type veth peer name {port} mtu {MTU} netns {underlay.namespace}",
            "link set und0 up",
        )
        underlay.lead_to(nve, port)
        netns.run(netns.inside(nve.namespace, ["ethtool", "-K", "und0", "tx", "off"]))
        self.intf1 = QuietIntf("und0", node=nve, link=self)
        self.intf2 = QuietIntf(port, node=underlay, link=self)

    def delete(self) -> None:
        """Remove the pair."""
        netns.run(["ip", "-n", self.intf1.node.namespace, "link", "del", "und0"], check=False)
        self.intf1.node.delIntf(self.intf1)
        self.intf2.node.delIntf(self.intf2)

    def stop(self) -> None:
        """Nothing: the pair goes with the namespaces, and removing it one by one is slow."""
