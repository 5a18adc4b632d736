"""The resources that the nodes of one topology share: the run directory and the helper processes."""

from __future__ import annotations

import threading

from topologies.helper import Helper
from topologies.rundir import RunDir


class Lab:
    """One topology's run directory, its `vnic` and its `relay`, each started when first needed."""

    def __init__(self) -> None:
        self.run = RunDir()
        self._lock = threading.Lock()
        self._helpers: dict[str, Helper] = {}
        self.closed = False

    def _helper(self, module: str) -> Helper:
        with self._lock:
            if module not in self._helpers:
                self._helpers[module] = Helper(self.run, module)
            return self._helpers[module]

    @property
    def vnic(self) -> Helper:
        """Carries frames between VMs and hypervisors (see vnic.py)."""
        return self._helper("vnic")

    @property
    def relay(self) -> Helper:
        """Carries OpenFlow between NVEs and the NVA (see relay.py)."""
        return self._helper("relay")

    def close(self) -> None:
        """End everything the topology owns. Safe to call twice."""
        if self.closed:
            return
        for helper in self._helpers.values():
            helper.close()
        self.run.close()
        self.closed = True
