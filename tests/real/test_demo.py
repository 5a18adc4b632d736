"""The demonstration as a user runs it: what it says, what it writes, how it ends, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from topologies.rundir import command_of, start_time, wait_until

PROGRAM = Path(__file__).parents[2] / "tools" / "demo_main.py"
GENTLE = ("--rate", "1000")  # other tests may be running beside this


class Demo:
    """A demonstration under way, and what it owns outside its own process."""

    def __init__(self, *words: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *words, "--output", str(folder / "out")], cwd=folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.pid = self.process.pid
        self.lines: list[str] = []
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def until(self, words: str, seconds: float = 60) -> str:
        """Read on until a line holds the words; returns it."""
        end = time.monotonic() + seconds
        while True:
            line = self._queue.get(timeout=max(0.01, end - time.monotonic()))
            assert line is not None, f"ended without {words!r}:\n{''.join(self.lines)}{self.errors()}"
            self.lines.append(line)
            if words in line:
                return line

    def owned(self) -> list[dict[str, Any]]:
        """Every process that it has recorded as its own by now: pid, start time where it is known, command line."""
        entries = [json.loads(line) for line in (self.run / "owned").read_text().splitlines()]
        return [entry for entry in entries if "pid" in entry]

    @property
    def run(self) -> Path:
        """Its run directory."""
        return Path(f"/run/ryu_vmm-{self.pid}")

    def errors(self) -> str:
        """What it has written to standard error; ends when the process does."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self, seconds: float = 60) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        while (line := self._queue.get()) is not None:
            self.lines.append(line)
        return code

    def leaves_nothing(self, owned: list[dict[str, Any]]) -> None:
        """Neither its folder, nor a namespace, nor any of the processes it had recorded."""
        assert not self.run.exists()
        assert [name for name in os.listdir("/run/netns") if name.startswith(f"vmm{self.pid}-")] == []
        # Mininet's shells are told to end by their terminals' end, and nobody waits for them
        wait_until(lambda: not any(map(_lives, owned)), 10, "the end of every process that it had recorded", 0.05)


def _lives(entry: dict[str, Any]) -> bool:
    pid, started = entry["pid"], entry["started"]
    if started is None:
        return entry["command"] in command_of(pid)
    # one that has ended, and that init has not asked after yet, has no command line any more
    return start_time(pid) == started and command_of(pid) != ""


@contextmanager
def demo(*words: str, folder: Path) -> Iterator[Demo]:
    """Start one, and see to it that a failed test does not leave it running."""
    one = Demo(*words, folder=folder)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.terminate()
            try:
                one.process.wait(30)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
        for stream in (one.process.stdout, one.process.stderr):
            assert stream is not None
            stream.close()


@pytest.mark.parametrize("underlay", ["ipv4", "ipv6"])
def test_it_shows_two_moves_without_loss_and_removes_everything(tmp_path: Path, underlay: str) -> None:
    with demo(*GENTLE, "--underlay", underlay, folder=tmp_path) as one:
        one.until("Traffic on")
        owned = one.owned()
        assert len(owned) >= 18, "seven nodes' shells, six daemons, the NVA, two helpers, two instruments"
        assert sum(map(_lives, owned)) >= 18
        code = one.end()
        text = "".join(one.lines)
        assert (code, one.errors()) == (0, ""), text
        one.leaves_nothing(owned)
    for words in ("vm1 moves nve1 -> nve2", "vm1 moves nve2 -> nve1", "4 paths proven with packets of 1,450 bytes",
                  "3 NVEs confirmed", "s of silence", "What the switches counted", "What the receivers counted"):
        assert words in text
    assert "Traceback" not in text
    assert one.lines[-1].startswith("PASSED: ")
    assert one.lines[-1].endswith("all 3 switches in sync, no tunnel-to-tunnel flow left.\n")

    account = json.loads((tmp_path / "out" / "account.json").read_text())
    assert account["ok"]
    assert len(account["flows"]) == 8
    for flow in account["flows"]:
        assert flow["sent"] > 1000
        assert (flow["received"], flow["lost"], flow["duplicated"]) == (flow["sent"], 0, 0), flow["name"]
    for move in account["moves"]:
        ledger = move["nva"]["ledger"]
        assert move["nva"]["state"] == "settled"
        assert ledger["redirected"]["packets"] == ledger["arrived"]["packets"] > 0
        assert move["hypervisor"]["downtime"] >= 0.05
    assert [nve["nve"] for nve in account["nves"]] == ["nve1", "nve2", "nve3"]

    svg = (tmp_path / "out" / "arrivals.svg").read_text()
    words_drawn = [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert f"{account['sent']:,} datagrams sent, {account['sent']:,} arrived, 0 lost, 0 duplicated" in words_drawn
    assert {"move 1: nve1 to nve2", "move 2: nve2 to nve1", "redirecting", "draining"} <= set(words_drawn)


@pytest.mark.parametrize(("after", "number"), [
    ("Building an overlay", signal.SIGINT),
    ("Traffic on", signal.SIGINT),
    ("announced", signal.SIGTERM),
])
def test_interrupted_it_removes_everything(tmp_path: Path, after: str, number: signal.Signals) -> None:
    with demo(*GENTLE, folder=tmp_path) as one:
        one.until(after)
        deadline = time.monotonic() + 30
        while not one.run.exists() or len(one.owned()) < 3:  # in the middle, not before there is anything
            assert time.monotonic() < deadline
            time.sleep(0.01)
        owned = one.owned()
        one.process.send_signal(number)
        assert one.end(30) == 128 + number, "".join(one.lines)
        assert one.errors() == f"tools/demo: {number.name}: everything has been ended and removed\n"
        one.leaves_nothing(owned)


def test_kept_it_can_be_driven_and_ended_from_elsewhere(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for port in (6653, 8080):  # taken, by us or by somebody
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
                sock.listen()
            except OSError:
                sock.close()
        one = stack.enter_context(demo(*GENTLE, "--keep", folder=tmp_path))
        rest = one.until("(8080 is taken)").split()[1]
        one.until("PASSED: ")
        guide = one.until("--stop")
        assert guide.strip() == f"{PROGRAM.with_suffix('').parent}/demo --stop"
        owned = one.owned()

        def elsewhere(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, str(PROGRAM), *words, "--pid", str(one.pid)]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        def place() -> str:
            with urllib.request.urlopen(f"{rest}/vms/vm1", timeout=10) as answer:
                document: dict[str, Any] = json.load(answer)
            return str(document["interfaces"][0]["nve"])

        assert place() == "nve1"
        moved = elsewhere("--move", "vm1", "nve3", "--json")
        assert (moved.returncode, moved.stderr) == (0, "")
        assert json.loads(moved.stdout)["nva"]["state"] == "settled"
        assert place() == "nve3"
        refused = elsewhere("--move", "vm1", "nve3")
        assert refused.returncode == 1
        assert refused.stderr == "tools/demo: vm1 is at nve3 already\n"

        stopped = elsewhere("--stop")
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert one.end(10) == 0
        one.leaves_nothing(owned)
        again = elsewhere("--stop")
        assert again.returncode == 1
        assert "no kept demonstration" in again.stderr
