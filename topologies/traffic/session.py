"""Starting and ending measurements from Python: who sends to whom, and what came of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

from topologies.errors import TopologyError
from topologies.helper import ROOT
from topologies.rundir import RunDir, start_time
from topologies.traffic.arrivals import Arrivals, Count, count, read
from topologies.traffic.packet import PORT

if TYPE_CHECKING:
    from topologies.vm import VM

Family = Literal[4, 6]


def start_process(module: str, config: dict[str, Any], folder: str, run: RunDir) -> subprocess.Popen[str]:
    """Start one instrument (`udpsend`, `udprecv`, `tcpstream`) and wait until it says that it is ready.

    It is recorded as the topology's own in `run`, so that a crash leaves nothing that is not found again.
    """
    path = f"{folder}/{module}.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    argv = [sys.executable, "-S", "-m", f"topologies.traffic.{module}", path]
    with open(f"{folder}/{module}.log", "ab") as log:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
    try:
        run.note(pid=child.pid, started=start_time(child.pid), command=" ".join(argv))
        answer(child, module, folder)
    except BaseException:
        child.kill()
        child.wait()
        raise
    return child


def answer(child: subprocess.Popen[str], module: str, folder: str) -> dict[str, Any]:
    """Read one line of JSON from an instrument. Raises TopologyError with its log if it ends instead."""
    stdout: IO[str] | None = child.stdout
    assert stdout is not None
    line = stdout.readline()
    if not line:
        code = child.wait()
        with open(f"{folder}/{module}.log", encoding="utf-8", errors="replace") as file:
            raise TopologyError(f"{module} ended with {code}: {file.read()[-2000:]}")
    result: dict[str, Any] = json.loads(line)
    return result


def finish(child: subprocess.Popen[str], module: str, folder: str) -> dict[str, Any]:
    """Tell an instrument to end, and return what it found."""
    child.send_signal(signal.SIGTERM)
    try:
        return answer(child, module, folder)
    finally:
        assert child.stdout is not None
        child.stdout.close()
        child.wait(10)


@dataclass(frozen=True)
class Pair:
    """One direction of traffic: numbered datagrams from one VM to another, at `rate` per second."""

    source: VM
    target: VM
    family: Family = 4
    rate: float = 2000.0
    size: int = 100

    @property
    def name(self) -> str:
        """For people: vm1 to vm2, IPv4."""
        return f"{self.source.name} to {self.target.name}, IPv{self.family}"


@dataclass(frozen=True)
class FlowResult:
    """What came of one direction."""

    name: str
    pair: Pair
    count: Count
    arrivals: Arrivals


@dataclass(frozen=True)
class Outcome:
    """What came of a session. `foreign` datagrams were nobody's; `dropped` ones a receiver's full buffer
    lost.
    """

    flows: list[FlowResult]
    foreign: int
    dropped: int
    samples: list[str]
    sender_lateness: float
    cpu: dict[str, float]

    @property
    def lost(self) -> int:
        """Datagrams that did not arrive, over all flows."""
        return sum(flow.count.lost for flow in self.flows)

    @property
    def duplicated(self) -> int:
        """Datagrams that arrived again, over all flows."""
        return sum(flow.count.duplicated for flow in self.flows)

    @property
    def reordered(self) -> int:
        """Datagrams that arrived after a later one, over all flows."""
        return sum(flow.count.reordered for flow in self.flows)

    @property
    def sent(self) -> int:
        """Datagrams sent, over all flows."""
        return sum(flow.count.sent for flow in self.flows)


def both_ways(one: VM, other: VM, family: Family = 4, rate: float = 2000.0, size: int = 100) -> list[Pair]:
    """Traffic in both directions between two VMs."""
    return [Pair(one, other, family, rate, size), Pair(other, one, family, rate, size)]


class UdpSession:
    """Numbered datagrams for any number of directions: one sending and one receiving process for all of them.

    Their sockets are opened inside the VMs' namespaces. `start()`, then whatever is to be measured, then
    `stop()`. As a context manager it is stopped, results thrown away, if the block fails.
    """

    def __init__(self, pairs: Sequence[Pair], folder: str | None = None, port: int = PORT, quiet: float = 1.0) -> None:
        if not pairs:
            raise TopologyError("a session needs at least one direction")
        self.pairs = list(pairs)
        self.port, self.quiet = port, quiet
        self._run: RunDir = pairs[0].source.lab.run
        self._temporary = tempfile.TemporaryDirectory(prefix="udp-", dir=self._run.path) if folder is None else None
        self.folder = folder or (self._temporary.name if self._temporary else "")
        self._sender: subprocess.Popen[str] | None = None
        self._receiver: subprocess.Popen[str] | None = None

    def start(self) -> UdpSession:
        """Bind the receivers, then start sending. Raises TopologyError."""
        listeners: dict[tuple[str, int], dict[str, Any]] = {}
        flows = []
        for number, pair in enumerate(self.pairs, 1):
            vn = _tag(pair)
            to = pair.target.spec.ip if pair.family == 4 else pair.target.spec.ip6
            source = pair.source.spec.ip if pair.family == 4 else pair.source.spec.ip6
            if not to or not source:
                raise TopologyError(f"{pair.name}: one of them has no such address")
            flows.append({
                "flow": number, "vn": vn, "to": to, "source": source, "port": self.port, "rate": pair.rate,
                "size": pair.size, "namespace": pair.source.namespace,
            })
            listener = listeners.setdefault((pair.target.name, pair.family), {
                "name": f"{pair.target.name}, IPv{pair.family}", "namespace": pair.target.namespace,
                "family": pair.family, "port": self.port, "flows": [],
            })
            listener["flows"].append({"flow": number, "vn": vn})
        receive = {"listeners": list(listeners.values()), "folder": self.folder, "quiet": self.quiet}
        self._receiver = start_process("udprecv", receive, self.folder, self._run)
        self._sender = start_process("udpsend", {"flows": flows}, self.folder, self._run)
        return self

    def stop(self) -> Outcome:
        """End sending, wait until nothing arrives any more, and count. Raises TopologyError."""
        assert self._sender is not None
        assert self._receiver is not None
        sent = finish(self._sender, "udpsend", self.folder)
        self._sender = None
        got = finish(self._receiver, "udprecv", self.folder)
        self._receiver = None
        flows = []
        for number, pair in enumerate(self.pairs, 1):
            arrivals = read(got["files"][str(number)])
            flows.append(FlowResult(pair.name, pair, count(arrivals, sent["flows"][str(number)]["sent"]), arrivals))
        outcome = Outcome(
            flows, sum(one["foreign"] for one in got["listeners"]), sum(one["drops"] for one in got["listeners"]),
            [sample for one in got["listeners"] for sample in one["samples"]], sent["worst_lateness"],
            {"udpsend": sent["cpu"], "udprecv": got["cpu"]},
        )
        self._tidy()
        return outcome

    def _tidy(self) -> None:
        for child in (self._sender, self._receiver):
            if child is not None:
                child.kill()
                child.wait()
                if child.stdout is not None:
                    child.stdout.close()
        self._sender = self._receiver = None
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> UdpSession:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self._tidy()


def _tag(pair: Pair) -> int:
    """What marks a datagram as of its VN: the VNI."""
    for vn in pair.source.net.topo.vn_specs:
        if vn.name == pair.source.spec.vn:
            return int(vn.vni)
    raise TopologyError(f"{pair.source.name}: no VN {pair.source.spec.vn}")


@dataclass(frozen=True)
class Stream:
    """A TCP connection from one VM to another: `stream` (records both ways, `rate` per second) or `idle`."""

    client: VM
    server: VM
    kind: Literal["stream", "idle"] = "stream"
    family: Family = 4
    rate: float = 200.0
    interval: float = 0.5

    @property
    def name(self) -> str:
        """For people: vm1 to vm2, IPv4, idle."""
        return f"{self.client.name} to {self.server.name}, IPv{self.family}, {self.kind}"


@dataclass(frozen=True)
class StreamResult:
    """What came of one connection: what each end saw (see `tcpstream.Seen`), and the worst of both."""

    name: str
    client: dict[str, Any]
    server: dict[str, Any]

    @property
    def errors(self) -> list[str]:
        """Everything that went wrong: wrong or missing records, resets, ends."""
        return [*self.client["errors"], *self.server["errors"]]

    @property
    def records(self) -> int:
        """Records that arrived intact and in order, both directions together."""
        return int(self.client["records"] + self.server["records"])

    @property
    def stall(self) -> float:
        """The longest time, in seconds, that either end waited for data."""
        return float(max(self.client["stall"], self.server["stall"]))


class TcpSession:
    """TCP connections that are opened once and kept; `start()`, whatever is to be survived, `stop()`."""

    def __init__(self, streams: Sequence[Stream], port: int = PORT + 1) -> None:
        self.streams, self.port = list(streams), port
        if not streams:
            raise TopologyError("a session needs at least one connection")
        self._run: RunDir = streams[0].client.lab.run
        self._temporary = tempfile.TemporaryDirectory(prefix="tcp-", dir=self._run.path)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> TcpSession:
        """Open all connections. Raises TopologyError."""
        specs = []
        for number, stream in enumerate(self.streams):
            to = stream.server.spec.ip if stream.family == 4 else stream.server.spec.ip6
            specs.append({
                "name": f"{number}", "kind": stream.kind, "to": to, "port": self.port + number,
                "server": stream.server.namespace, "client": stream.client.namespace, "rate": stream.rate,
                "interval": stream.interval,
            })
        self._process = start_process("tcpstream", {"streams": specs}, self._temporary.name, self._run)
        return self

    def stop(self) -> list[StreamResult]:
        """Count. Raises TopologyError."""
        assert self._process is not None
        process, self._process = self._process, None
        got = finish(process, "tcpstream", self._temporary.name)
        self._temporary.cleanup()
        return [
            StreamResult(stream.name, got[f"{number}"]["client"], got[f"{number}"]["server"])
            for number, stream in enumerate(self.streams)
        ]

    def __enter__(self) -> TcpSession:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._temporary.cleanup()
