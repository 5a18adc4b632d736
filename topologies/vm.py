"""The VM: a Mininet host whose processes and sockets stay while its network card moves from NVE to NVE."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from mininet.node import Host

from topologies import frames, netns
from topologies.errors import TopologyError
from topologies.node import NamespaceNode
from topologies.specs import VMSpec, VNSpec, routes

if TYPE_CHECKING:
    from topologies.links import AttachLink
    from topologies.move import MoveReport
    from topologies.net import OverlayNet
    from topologies.nve import NVE


class VM(NamespaceNode, Host):  # type: ignore[misc]
    """A guest. `spec` says what it is, `vn` in which network; `nve` where it is now."""

    net: OverlayNet
    attachment: AttachLink

    def __init__(self, name: str, spec: VMSpec, vn: VNSpec, **params: Any) -> None:
        self.spec, self.vn = spec, vn
        super().__init__(name, **params)

    def sysctls(self) -> dict[str, object]:
        # Addresses are given, not negotiated: no duplicate detection (it costs a second), no routers to ask
        return {
            "net/ipv6/conf/all/disable_ipv6": 0,
            "net/ipv6/conf/default/disable_ipv6": 0,
            "net/ipv6/conf/default/accept_dad": 0,
            "net/ipv6/conf/default/accept_ra": 0,
        }

    @property
    def nve(self) -> NVE:
        """The NVE where the VM is now."""
        return self.attachment.nve

    def config(self, **_params: Any) -> dict[str, Any]:
        """Give `eth0` its addresses and routes (Mininet calls this once all links are there)."""
        lines = routes(self.vn, self.spec.ipv4, self.spec.ipv6)
        if lines:
            netns.ip_batch(self.namespace, *lines)
        return {}

    def readdress(self, old: str, new: str) -> None:
        """Replace one of the addresses by another of its family, in the guest and in `spec`; prefix lengths stay.

        Raises TopologyError where it does not have the old one.
        """
        family = "ipv6" if ":" in old else "ipv4"
        held = getattr(self.spec, family)
        if held is None or ip_interface(held).ip != ip_address(old):
            raise TopologyError(f"{self.name} has the address {held}, not {old}")
        wanted = f"{ip_address(new)}/{held.partition('/')[2]}"
        lines = routes(self.vn, wanted if family == "ipv4" else None, wanted if family == "ipv6" else None)
        # The routes once more: they may have gone with the address
        netns.ip_batch(self.namespace, *lines, f"addr del {held} dev eth0", *lines)
        changed: dict[str, Any] = {family: wanted}
        self.spec = replace(self.spec, **changed)

    def move(
        self, to: NVE | str, announce: str = "garp-request", planned: bool | None = None, pause: float = 0.05,
        **options: Any,
    ) -> MoveReport:
        """Move to another NVE; see `topologies.move.move` for the options and what it returns."""
        from topologies.move import move

        return move(self.net, self, to, announce=announce, planned=planned, pause=pause, **options)

    def announce(self, kind: str = "garp-request") -> float:
        """Announce the VM where it is; returns the time (monotonic seconds) of the first frame."""
        return self.attachment.announce(frames.announcement(kind, self.spec))
