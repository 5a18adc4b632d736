"""The NVA as a Mininet controller: `--controller nva`, or `OverlayNet(controller=NVA)`."""
# ruff: noqa: N802 (Mininet's names)

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from topologies.errors import ApiError, TopologyError
from topologies.helper import ROOT
from topologies.rest import Rest
from topologies.rundir import wait_until

if TYPE_CHECKING:
    from topologies.lab import Lab


class ControllerAddress:
    """Where the NVA listens, for NVEs that only need to know that. Nothing is started or stopped."""

    # What Mininet's command line asks of every node
    waiting = False
    pid = None

    def __init__(self, name: str, ip: str = "127.0.0.1", port: int = 6653) -> None:
        self.name, self._ip, self.port = name, ip, port

    def intfList(self) -> list[object]:
        """It has no interfaces of Mininet's."""
        return []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self._ip}:{self.port}>"

    def IP(self) -> str:
        """The address."""
        return self._ip

    def start(self) -> None:
        """It runs, or it does not; that is not ours."""

    def stop(self) -> None:
        """Not ours to stop."""


def ryu_manager() -> str:
    """The `ryu-manager` beside this Python, in the project's virtual environment, or on the PATH.

    Raises TopologyError where there is none.
    """
    for folder in (os.path.dirname(sys.executable), f"{ROOT}/.venv/bin"):
        if os.access(f"{folder}/ryu-manager", os.X_OK):
            return f"{folder}/ryu-manager"
    found = shutil.which("ryu-manager")
    if found is None:
        raise TopologyError("there is no ryu-manager; tools/setup makes the project's virtual environment")
    return found


class NVA(ControllerAddress):
    """Runs `ryu-manager ryu_vmm` on loopback with a store and a log of its own, and ends it with the
    topology.

    port: OpenFlow. rest_port: REST. options: more lines for the [vmm] section of its configuration, as a
    dict.
    """

    def __init__(
        self, name: str, lab: Lab | None = None, port: int = 6653, rest_port: int = 8080,
        options: dict[str, object] | None = None, ip: str = "127.0.0.1",
    ) -> None:
        if lab is None:
            raise TopologyError("this controller is built by OverlayNet, not by a bare Mininet")
        super().__init__(name, ip, int(port))
        self.rest_port = int(rest_port)
        self.rest = f"http://{ip}:{self.rest_port}"
        self._lab = lab
        self._options = options or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """The path of its log."""
        return f"{self._lab.run.path}/{self.name}.log"

    def start(self) -> None:
        """Start it and wait until its REST interface answers. Raises TopologyError with the end of its log."""
        folder = self._lab.run.folder(self.name)
        config = f"{folder}/nva.conf"
        with open(config, "w", encoding="utf-8") as file:
            file.write("[vmm]\n")
            for key, value in {"store": f"{folder}/nva.db", **self._options}.items():
                file.write(f"{key} = {value}\n")
        self._process = self._lab.run.spawn(
            [ryu_manager(), "--config-file", config, "--ofp-listen-host", self.IP(),
             "--ofp-tcp-listen-port", str(self.port), "--wsapi-host", self.IP(), "--wsapi-port", str(self.rest_port),
             "ryu_vmm"],
            log=f"{self.name}.log",
        )
        client = Rest(self.rest)
        wait_until(lambda: self._answers(client), 30, f"{self.name}: the NVA's REST interface at {self.rest}", 0.05)

    def _answers(self, client: Rest) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                tail = "".join(file.readlines()[-15:])
            raise TopologyError(f"{self.name}: ryu-manager ended with {self._process.returncode}:\n{tail}")
        try:
            client.call("GET", "/health")
        except ApiError as exc:
            return exc.status > 0  # it answers; how well it feels is not the question
        return True

    def stop(self) -> None:
        """End it by SIGTERM."""
        if self._process is not None:
            self._lab.run.end(self._process, grace=10)
            self._process = None

    def __repr__(self) -> str:
        return f"<NVA {self.name}: {self.IP()}:{self.port}, REST {self.rest}, log {self.log}>"
