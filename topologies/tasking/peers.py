"""Clients of a task, in VMs of the overlay."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topologies import VM, netns
from topologies.errors import TopologyError
from topologies.helper import ROOT
from topologies.tasking.task import PORT


class Clients:
    """Streams from VMs to a task: `start`, whatever is to be survived, `stop`; also a context manager.

    Args:
        vms: where they are; `count` connections from each to each of `to`.
        to: the task's addresses.
        reconnect: open connections again that are reset.
    """

    def __init__(
        self, vms: Sequence[VM], to: Sequence[str], count: int, rate: float = 20.0, size: int = 256,
        reconnect: bool = False,
    ) -> None:
        self._vms = list(vms)
        self._config = {
            "to": list(to), "port": PORT, "count": count, "rate": rate, "size": size, "reconnect": reconnect,
        }  # fmt: skip
        self._run = vms[0].lab.run
        self._folder = tempfile.TemporaryDirectory(prefix="clients-", dir=self._run.path)
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> Clients:
        """Open all connections. Raises TopologyError."""
        path = Path(self._folder.name, "config.json")
        path.write_text(json.dumps(self._config))
        words = [sys.executable, "-S", "-m", "topologies.tasking.client", str(path)]
        for vm in self._vms:
            with Path(self._folder.name, f"{vm.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    netns.inside(vm.namespace, words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                    text=True, env={"PYTHONPATH": ROOT, "PATH": "/usr/bin:/bin"}, start_new_session=True,
                )  # fmt: skip
            self._processes.append(process)
        for vm, process in zip(self._vms, self._processes, strict=True):
            assert process.stdout is not None
            if "ready" not in process.stdout.readline():
                words_ = Path(self._folder.name, f"{vm.name}.log").read_text()[-800:]
                raise TopologyError(f"the clients in {vm.name} are not ready: {words_}")
        return self

    def stop(self) -> list[dict[str, Any]]:
        """End all streams; what the clients of each VM saw."""
        found = []
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            out, _ = process.communicate(timeout=120)
            found.append(json.loads(out.splitlines()[-1]))
        self._processes = []
        self._folder.cleanup()
        return found

    def __enter__(self) -> Clients:
        return self.start()

    def __exit__(self, *_details: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._folder.cleanup()
