"""What the topology's Mininet nodes have in common: a named network namespace and a place in the run
directory.
"""
# ruff: noqa: N802 (Mininet's names)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mininet.node import Node

from topologies import netns
from topologies.errors import TopologyError

if TYPE_CHECKING:
    from topologies.lab import Lab


class NamespaceNode(Node):  # type: ignore[misc]
    """A Mininet node whose namespace has a name: `ip netns exec <node.namespace> ...` works from any shell.

    Needs the `lab` that `OverlayNet` hands to every node it adds; other Mininet classes cannot build these
    nodes.
    """

    def __init__(self, name: str, lab: Lab | None = None, **params: Any) -> None:
        if lab is None:
            raise TopologyError(f"{name}: nodes of this kind are built by OverlayNet, not by a bare Mininet")
        self.lab = lab
        self.namespace = lab.run.namespace_name(name)
        params["inNamespace"] = True
        super().__init__(name, **params)

    def startShell(self, mnopts: str | None = None) -> None:
        super().startShell(mnopts)
        self.lab.run.note(pid=self.pid, started=None, command=f"mininet:{self.name}")
        self.lab.run.name_namespace(self.name, self.pid)
        netns.sysctl(self.namespace, self.sysctls())
        netns.ip_batch(self.namespace, "link set lo up")

    def sysctls(self) -> dict[str, object]:
        """Settings of the namespace, made before any interface exists in it."""
        return {}

    def terminate(self) -> None:
        super().terminate()
        self.lab.run.drop_namespace(self.namespace)
