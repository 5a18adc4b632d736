"""Agents on the NVEs of an overlay: started, killed, started again; each in its NVE's namespace."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ryu_vmm.agent import control, host
from ryu_vmm.agent.faults import AgentError
from topologies import netns
from topologies.helper import ROOT
from topologies.net import OverlayNet
from topologies.nve import NVE
from topologies.rundir import wait_until

_NVA_PORT = 8080  # on an NVE's own loopback; the relay leads it to the NVA's REST interface
_AGENT_PORT = 7420


class AgentOn:
    """One NVE's agent."""

    def __init__(self, agents: Agents, nve: NVE) -> None:
        self._agents, self.nve = agents, nve
        self.run = agents.net.lab.run
        self.folder = self.run.folder(f"agent-{nve.name}")
        self._process: subprocess.Popen[bytes] | None = None
        self.config = {
            "nve": nve.name, "nva": f"http://127.0.0.1:{_NVA_PORT}", "state": f"{self.folder}/state",
            "run": f"{self.folder}/run", "ovsdb": nve.database, "listen": agents.address(nve), "port": _AGENT_PORT,
            "namespaces": f"{self.run.tag}-{nve.name}-", "secret_file": agents.secret,
            "times": {"poll": 0.2, "record": 10.0, **agents.times},
        }  # fmt: skip
        if nve.name in agents.tokens:
            self.config["token_file"] = agents.tokens[nve.name]

    @property
    def log(self) -> Path:
        """Its log."""
        return Path(self.run.path, f"agent-{self.nve.name}.log")

    @property
    def pid(self) -> int | None:
        """Its process; None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self, *before: str) -> None:
        """Start it, by way of a command before its own if there is one, and wait until it answers. Raises NotReady."""
        path = f"{self.folder}/agent.json"
        Path(path).write_text(json.dumps(self.config), encoding="utf-8")
        self._process = self.run.spawn(
            [*before, sys.executable, "-m", "ryu_vmm.agent", "serve", "--config", path], namespace=self.nve.namespace,
            env={"PYTHONPATH": ROOT}, log=self.log.name,
        )
        wait_until(self.answers, 20, f"the agent of {self.nve.name} (see {self.log})", 0.02)

    def answers(self) -> bool:
        """Whether it can be asked."""
        try:
            return bool(self.ask("list")["nve"])
        except AgentError:
            return False

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Ask it. Raises AgentError."""
        return control.ask(self.config["run"], what, **arguments)

    def kill(self) -> None:
        """End it by SIGKILL; its tasks run on."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it by SIGTERM."""
        if self._process is not None:
            process, self._process = self._process, None
            self.run.end(process)

    def crash_host(self) -> None:
        """What a power failure does to its host: agent, tasks and their namespaces are gone; the disk is not."""
        self.kill()
        self.clear()

    def clear(self) -> None:
        """End its tasks and remove their namespaces and ports: nothing is left of them, as after a power failure."""
        prefix = str(self.config["namespaces"])
        for path in sorted(netns.NAMED.glob(f"{prefix}*")):
            for pid in host.processes_in(path.name):
                process = host.Process.of(pid)
                if process is not None:
                    process.end(0)
            netns.run(["ip", "netns", "del", path.name], check=False)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Its tasks by name, as `vmm-agent list` shows them."""
        return {row["name"]: row for row in self.ask("list")["tasks"]}


class Agents:
    """An agent on each NVE of a net that has started; a context manager.

    Args:
        net: the overlay.
        rest: base address of the NVA's REST interface.
        tokens: files with the agents' tokens, by NVE, where the NVA asks who is there.
        times: overrides of the agents' times (definition.Times).
    """

    def __init__(
        self, net: OverlayNet, rest: str, tokens: Mapping[str, str] | None = None, **times: float
    ) -> None:
        self.net, self.times, self.tokens = net, times, tokens or {}
        where = urlsplit(rest)
        self._nva = (str(where.hostname), int(where.port or 80))
        self.secret = f"{net.run_dir}/agents.secret"
        descriptor = os.open(self.secret, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        self.on = {nve.name: AgentOn(self, nve) for nve in net.nves}

    def address(self, nve: NVE) -> str:
        """The underlay address of an NVE."""
        return str(nve.ipv4 or nve.ipv6).partition("/")[0]

    def __enter__(self) -> Agents:
        address, port = self._nva
        try:
            for name, agent in self.on.items():
                self.net.lab.relay.ask(
                    "listen", nve=f"{name}/rest", namespace=agent.nve.namespace, port=_NVA_PORT, host=address,
                    to_port=port,
                )
                agent.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_details: object) -> None:
        for agent in self.on.values():
            agent.stop()
            agent.clear()

    def __getitem__(self, nve: str) -> AgentOn:
        return self.on[nve]

    def homes(self, task: str) -> list[str]:
        """The NVEs whose agents say that a task runs there."""
        found = []
        for name, agent in self.on.items():
            row = agent.tasks().get(task) if agent.pid is not None else None
            if row is not None and row["role"] == "home" and row["pid"] is not None:
                found.append(name)
        return found

    def await_home(self, task: str, nve: str | None = None, seconds: float = 30.0) -> str:
        """Wait until exactly one agent says that a task runs there (on `nve`), and none that it is on its way."""

        def settled() -> str | None:
            rows = {name: agent.tasks().get(task) for name, agent in self.on.items() if agent.pid is not None}
            roles = {name: row["role"] for name, row in rows.items() if row is not None and row["role"] != "left"}
            if len(roles) != 1 or set(roles.values()) != {"home"}:
                return None
            home = next(iter(roles))
            row = rows[home]
            return home if row is not None and row["pid"] is not None and nve in (None, home) else None

        return str(wait_until(settled, seconds, f"{task} at {nve or 'one place'}", 0.02))


