"""The VM: a Mininet host whose processes and sockets stay while its network card moves from NVE to NVE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mininet.node import Host

from topologies import frames, netns
from topologies.node import NamespaceNode
from topologies.specs import VMSpec

if TYPE_CHECKING:
    from topologies.links import AttachLink
    from topologies.move import MoveReport
    from topologies.net import OverlayNet
    from topologies.nve import NVE


class VM(NamespaceNode, Host):  # type: ignore[misc]
    """A guest. `spec` says what it is; `nve` where it is now."""

    net: OverlayNet
    attachment: AttachLink

    def __init__(self, name: str, spec: VMSpec, **params: Any) -> None:
        self.spec = spec
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
        """Give `eth0` its addresses (Mininet calls this once all links are there)."""
        lines = [f"addr add {self.spec.ipv4} dev eth0"] if self.spec.ipv4 else []
        if self.spec.ipv6:
            lines.append(f"addr add {self.spec.ipv6} dev eth0 nodad")
        if lines:
            netns.ip_batch(self.namespace, *lines)
        return {}

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
