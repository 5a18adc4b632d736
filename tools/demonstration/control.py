"""A demonstration that is kept: how to drive it, a socket for those who do, and the other end of that socket."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topologies import MoveReport, OverlayNet, TopologyError
from topologies.cleanup import read
from topologies.rundir import BASE, PREFIX, start_time
from topologies.runner import OverlayCLI

from .account import Moved
from .ending import Ending, Interrupted
from .main_job import MOVER, make_move
from .narrator import Narrator

SOCKET = "demo.sock"
_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 120.0  # seconds that a move asked for from elsewhere may take
_END = 30.0  # seconds that ending may take


class NoSuch(Exception):
    """There is no kept demonstration of that description, or more than one."""


# --- the one that is kept ------------------------------------------------------------------------------------


class Server:
    """Takes moves from other processes, one at a time, as JSON lines over a socket in the run directory."""

    def __init__(self, net: OverlayNet) -> None:
        self._net = net
        self.busy = threading.Lock()
        self._closing = False
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(f"{net.run_dir}/{SOCKET}")
        os.chmod(f"{net.run_dir}/{SOCKET}", 0o600)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):  # who asked may have gone
                connection.settimeout(10)
                line = connection.makefile("rb").readline()
                connection.sendall(json.dumps(self._answer(line)).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            vm, to = str(request["vm"]), str(request["to"])
        except (ValueError, KeyError, TypeError):
            return {"error": "not a request for a move"}
        if not self.busy.acquire(blocking=False):
            return {"error": "it is busy with a move of its own; try again"}
        try:
            moved = make_move(self._net, Narrator(quiet=True), vm, to)
        except TopologyError as exc:
            return {"error": str(exc)}
        finally:
            self.busy.release()
        return {"report": moved.report.as_dict(), "document": moved.document}

    def close(self) -> None:
        """Take no more, and let a move that is under way come to its end."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(_END)


def guide(net: OverlayNet, narrator: Narrator, at_prompt: bool) -> None:
    """How to drive what is running, and how to end it."""
    base, run = net.need_rest().base, net.lab.run
    name = run.namespace_name(MOVER)
    vmm = f"{_ROOT}/.venv/bin/vmm --url {base}"
    here = f"{_ROOT}/tools/demo"
    post = "curl -s -X POST -H 'Content-Type: application/json'"
    typed = [f"move {MOVER} nve3          (at the prompt below)"] if at_prompt else []
    lines = {
        "Move a VM as a hypervisor does: request, redirect, pause, port, announcement": [
            f"{here} --move {MOVER} nve3", *typed,
        ],
        "Ask the NVA (docs/cli.md, docs/rest.md)": [
            f"{vmm} explain {MOVER}", f"{vmm} move list", f"{vmm} nve verify", f"curl -s {base}/v1/vms/{MOVER}",
            f"curl -sN {base}/v1/events",
        ],
        "Be the orchestrator yourself, step by step: request, look, change your mind": [
            f"{post} {base}/v1/moves -d '{{\"vm\": \"{MOVER}\", \"to\": \"nve3\"}}'", f"{vmm} move show ID",
            f"{post} {base}/v1/moves/ID/abort -d '{{\"why\": \"just looking\"}}'",
        ],
        "Enter a VM, look into a switch, read the NVA's log": [
            f"ip netns exec {name} bash", f"ip netns exec {name} ping -c 3 {net.vm('vm2').spec.ip6}",
            f"ovs-ofctl -O OpenFlow13 dump-flows unix:{run.path}/nve1/br-int.mgmt", f"tail -f {net.controllers[0].log}",
        ],
        "End it and remove everything": [
            "exit, or Ctrl-D        (at the prompt below)" if at_prompt else "Ctrl-C                 (here)",
            f"{here} --stop",
        ],
    }
    narrator.show()
    narrator.say(f"It keeps running (process {os.getpid()}). How to drive it:", "bold")
    for about, commands in lines.items():
        narrator.show()
        narrator.console.print(f"  {about}", style="cyan", soft_wrap=True)
        for command in commands:
            narrator.console.print(f"      {command}", soft_wrap=True, markup=False)
    narrator.show()


class _Prompt(OverlayCLI):
    """Mininet's command line, with moves."""

    prompt = "demo> "


def stay(net: OverlayNet, ending: Ending, at_prompt: bool) -> None:
    """Keep it until the user has had enough: the prompt's end, Ctrl-C, SIGTERM."""
    try:
        if at_prompt:
            ending.prompt(True)
            _Prompt(net)
            ending.prompt(False)
        else:
            while True:
                signal.pause()
    except Interrupted:
        ending.forget()  # that is how it is ended


# --- who drives it from elsewhere ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A demonstration that is kept running: its process, when that started, and its run directory."""

    pid: int
    started: int | None
    path: str


def kept() -> Iterator[Kept]:
    """All that run on this machine."""
    for path in sorted(glob.glob(f"{BASE}/{PREFIX}*/{SOCKET}")):
        found = read(os.path.dirname(path))
        if found.owner_alive:
            yield Kept(found.owner, start_time(found.owner), found.path)


def _the_one(pid: int | None) -> Kept:
    found = [one for one in kept() if pid in (None, one.pid)]
    if not found:
        which = f" of process {pid}" if pid is not None else ""
        raise NoSuch(f"no kept demonstration{which} is running (tools/demo --keep starts one)")
    if len(found) > 1:
        raise NoSuch(f"several are running; say which by --pid: {', '.join(str(one.pid) for one in found)}")
    return found[0]


def move_elsewhere(vm: str, to: str, pid: int | None) -> Moved:
    """Have a kept demonstration move a VM. Raises NoSuch, TopologyError with its reason."""
    one = _the_one(pid)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(f"{one.path}/{SOCKET}")
            sock.sendall(json.dumps({"vm": vm, "to": to}).encode() + b"\n")
            answer = json.loads(sock.makefile("rb").readline() or b"{}")
        except OSError as exc:
            raise TopologyError(f"the demonstration of process {one.pid} does not answer: {exc}") from exc
    if "report" not in answer:
        raise TopologyError(answer.get("error", f"the demonstration of process {one.pid} has ended"))
    answer["report"].pop("downtime")  # follows from the others
    return Moved(MoveReport(**answer["report"]), answer["document"])


def stop_elsewhere(pid: int | None) -> Kept:
    """End a kept demonstration and wait until it is gone. Raises NoSuch, TopologyError if it does not end."""
    one = _the_one(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(one.pid, signal.SIGTERM)
    deadline = time.monotonic() + _END
    while start_time(one.pid) == one.started and not _is_zombie(one.pid):
        if time.monotonic() > deadline:
            raise TopologyError(f"process {one.pid} has not ended within {_END:.0f} s")
        time.sleep(0.05)
    return one


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return True


def at_terminal() -> bool:
    """Is somebody there to type?"""
    return sys.stdin is not None and sys.stdin.isatty()
