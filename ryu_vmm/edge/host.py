"""Commands on this host, and how they read for people."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..agent import host as agent
from ..agent.faults import HostError
from .plan import NOW, Step

__all__ = ["Host", "text"]

_SECONDS = 30
"""How long one command may take: ovs-vsctl waits until ovs-vswitchd has done what it asked."""


@dataclass(frozen=True)
class Host:
    """Where commands go. ``db`` is the address of Open vSwitch's database as ``ovs-vsctl --db`` takes it.

    Where it is ``unix:FOLDER/db.sock``, the daemons' other sockets are in that folder too. None: they are in
    $OVS_RUNDIR, else where Debian has them.
    """

    db: str | None = None

    @property
    def folder(self) -> Path:
        """Where Open vSwitch's sockets are."""
        if self.db and self.db.startswith("unix:"):
            return Path(self.db.removeprefix("unix:")).parent
        return Path(os.environ.get("OVS_RUNDIR", "/var/run/openvswitch"))

    @property
    def control(self) -> Path | None:
        """The newest control socket of an ovs-vswitchd there; None: there is none."""
        found = sorted(self.folder.glob("*vswitchd*.ctl"), key=lambda path: path.stat().st_mtime)
        return found[-1] if found else None

    def words(self, words: Iterable[str]) -> list[str]:
        """A command as it is for this host: with the database's address, and ovs-ofctl's way to a bridge."""
        program, *rest = words
        if self.db is None:
            return [program, *rest]
        if program == "ovs-vsctl":
            return [program, f"--db={self.db}", *rest]
        if program == "ovs-ofctl":
            at = next(n for n, word in enumerate(rest) if not word.startswith("-"))  # the command; the bridge follows
            rest[at + 1] = f"unix:{self.folder}/{rest[at + 1]}.mgmt"
        return [program, *rest]

    def run(self, *words: str) -> str:
        """Run a command and return what it printed. Raises HostError."""
        given = self.words(word.replace(NOW, str(int(time.time()))) for word in words)
        if given[0] == "ovs-vsctl":
            given.insert(1, f"--timeout={_SECONDS}")
        return self.execute(given)

    def execute(self, words: list[str]) -> str:
        """Run a command that is complete. Raises HostError."""
        return agent.run(*words, seconds=_SECONDS + 5)

    def do(self, step: Step) -> None:
        """Do a step of a plan. Raises HostError."""
        if not step.rows:
            self.run(*step.words)
            for command, name in zip(step.words, step.words[1:], strict=False):
                if command == "add-br":
                    self._made(name)
            return
        *head, bridge = step.words[:4]
        for row in self.run("ovs-vsctl", "get", "bridge", bridge, "controller").strip().strip("[]").split(", "):
            self.run(*head, row, *step.words[4:])

    def _made(self, bridge: str) -> None:
        # ovs-vsctl says so on standard error, and ends with 0
        if not self.run("ovs-vsctl", "get", "interface", bridge, "ofport").strip().isdecimal():
            kind = self.run("ovs-vsctl", "get", "bridge", bridge, "datapath_type").strip().strip('"') or "system"
            hint = "; where the kernel has no module openvswitch: --datapath-type netdev" if kind == "system" else ""
            raise HostError(f"Open vSwitch could not make {bridge} with its {kind} datapath (its log says why){hint}")

    def shown(self, step: Step, controllers: int = 1) -> str:
        """A step as a person types it. ``controllers``: how many rows it is for; one goes by its bridge's name."""
        if not step.rows or controllers == 1:
            return text(self.words(step.words))
        *head, bridge = step.words[:4]
        rows = text(self.words(("ovs-vsctl", "get", "bridge", bridge, "controller")))
        each = text(self.words((*head, "$row", *step.words[4:])))
        return f"for row in $({rows} | tr -d '[],'); do {each}; done"


def text(words: Iterable[str]) -> str:
    """A command as a person types it: a line for each of ovs-vsctl's own commands, and none much too long."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word == "--" or sum(map(len, lines[-1])) + len(lines[-1]) + len(word) > _WIDTH:
            lines.append([])
        # What the shell is to fill in stays as it is
        lines[-1].append(word if word == "$row" or NOW in word else shlex.quote(word))
    return " \\\n    ".join(map(" ".join, lines))


_WIDTH = 100
