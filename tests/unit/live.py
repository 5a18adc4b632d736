"""A real runtime on emulated switches, and a real HTTP server before it: what REST and command line are tested on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from outside import ROUTED, TUNNEL, ports_of
from world import Box

from ryu_vmm import events as ev
from ryu_vmm.effects import Effect, Program, ReadFlows, ReadMeters, ReadPorts, SendPacket
from ryu_vmm.emulation.tables import Out
from ryu_vmm.emulation.tables import ToNva as Handed
from ryu_vmm.errors import NotFound
from ryu_vmm.model import Move
from ryu_vmm.nva import Settings
from ryu_vmm.runtime import Runtime
from ryu_vmm.store import MemoryStore

#: Short, so that a move settles while a test waits.
QUICK = Settings(prepare_deadline=20.0, quiet_time=0.05, poll_interval=0.01, probe_interval=0.01, redirect_guard=0.0)


class LiveRuntime(Runtime):
    """The runtime with switches made of tables that answer at once.

    Attributes:
        boxes: switches by NVE name.
        mute: NVEs whose switches do not answer questions.
        hold: NVEs whose barrier replies do not come.
    """

    def __init__(self, store: Any = None) -> None:
        self.boxes: dict[str, Box] = {}
        self.mute: set[str] = set()
        self.hold: set[str] = set()
        self.fail: Exception | None = None
        self._queue: deque[ev.Event] = deque()
        self._lock = threading.RLock()
        self._busy = 0
        super().__init__(store or MemoryStore(), QUICK)
        self.execute = self._carry_out

    # --- the runtime's own interface, one thread at a time -----------------------------------------------------
    def handle(self, event: ev.Event) -> Any:
        return self._alone(lambda: super(LiveRuntime, self).handle(event))

    def handle_all(self, requests: Sequence[ev.Request]) -> list[Any]:
        replies: list[Any] = self._alone(lambda: super(LiveRuntime, self).handle_all(requests))
        return replies

    def event(self, event: ev.Event) -> None:
        self._alone(lambda: super(LiveRuntime, self).event(event))

    def _alone(self, do: Callable[[], Any]) -> Any:
        with self._lock:
            if self.fail is not None:
                raise self.fail
            self._busy += 1
            try:
                result = do()
            finally:
                self._busy -= 1
            self._drain()
            return result

    def _drain(self) -> None:
        while self._queue and not self._busy:
            self.event(self._queue.popleft())

    # --- switches ------------------------------------------------------------------------------------------------
    def connect(self, name: str, *ports: str) -> None:
        """The switch of a registered NVE connects, with a tunnel port and these."""
        box = self.boxes[name] = Box(self.state.nves[name], ports=ports_of(self.state.nves[name]), connected=True)
        for port in ports:
            box.ports[port] = _next(box)
        infos = tuple(ev.PortInfo(number, port, True) for port, number in box.ports.items())
        self.event(ev.NveConnected(box.nve.dpid, infos, meters=262144))

    def disconnect(self, name: str) -> None:
        self.boxes[name].connected = False
        self.event(ev.NveDisconnected(self.boxes[name].nve.dpid))

    def plug(self, name: str, port: str) -> None:
        box = self.boxes[name]
        number = box.ports.setdefault(port, _next(box))
        self.event(ev.PortChanged(box.nve.dpid, ev.PortInfo(number, port, True)))

    def unplug(self, name: str, port: str) -> None:
        box = self.boxes[name]
        self.event(ev.PortChanged(box.nve.dpid, ev.PortInfo(box.ports.pop(port), port, True), gone=True))

    def send(self, name: str, port: str, frame: bytes) -> None:
        """A frame comes in at a VM's port."""
        box = self.boxes[name]
        with self._lock:
            self._emit(box, box.tables.run(frame, in_port=box.ports[port], now=self.now()), box.ports[port])
            self._drain()

    def _carry_out(self, effect: Effect) -> None:
        with self._lock:
            match effect:
                case Program(dpid, generation, changes):
                    box = self._box(dpid)
                    for change in changes:
                        box.tables.change(change, self.now())
                    if box.connected and box.nve.name not in self.hold:
                        self._queue.append(ev.BarrierReplied(dpid, generation))
                case ReadFlows(dpid, token, cookie, mask, _, generation):
                    box = self._box(dpid)
                    chosen = box.tables.select(cookie=cookie, cookie_mask=mask)
                    if box.connected and box.nve.name not in self.mute:
                        stats = tuple(entry.stats(self.now()) for entry in chosen)
                        self._queue.append(ev.FlowsRead(dpid, token, stats, generation))
                case ReadMeters(dpid, token):
                    box = self._box(dpid)
                    if box.connected and box.nve.name not in self.mute:
                        self._queue.append(ev.MetersRead(dpid, token, dict(box.tables.meters)))
                case ReadPorts(dpid, token, port):
                    box = self._box(dpid)
                    if box.connected and box.nve.name not in self.mute:
                        found = box.tables.traffic.read(box.ports.values(), port)
                        self._queue.append(ev.PortsRead(dpid, token, found))
                case SendPacket(dpid, actions, frame, in_port):
                    box = self._box(dpid)
                    self._emit(box, box.tables.execute(actions, frame, in_port=in_port, now=self.now()))
            self._drain()

    def _box(self, dpid: int) -> Box:
        return next(box for box in self.boxes.values() if box.nve.dpid == dpid)

    def _emit(self, box: Box, results: list[object], in_port: int = 0) -> None:
        for result in results:
            if isinstance(result, Out) and result.port in (TUNNEL, ROUTED):
                at = {address: b for b in self.boxes.values() for address in (b.nve.ipv4, b.nve.ipv6)}
                peer = at.get(result.tun_dst)
                if peer is not None:
                    arrived = peer.tables.run(
                        result.frame,
                        in_port=result.port,
                        tun_id=result.tun_id,
                        tun_src=result.tun_src,
                        now=self.now(),
                    )
                    self._emit(peer, arrived, result.port)
            elif isinstance(result, Handed) and box.connected:
                source = None
                for field, width in (("tun_ipv4_src", 4), ("tun_ipv6_src", 16)):
                    if field in result.context:
                        source = result.context[field].to_bytes(width, "big")
                self._queue.append(
                    ev.PacketSeen(box.nve.dpid, result.in_port or in_port, result.cookie or 0, result.frame, source)
                )

    # --- time --------------------------------------------------------------------------------------------------------
    def until(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Let the core's deadlines pass until the condition holds; AssertionError if it does not in time."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            self.event(ev.TimePassed())
            time.sleep(0.002)

    def the(self, number: int) -> Move:
        """A move as it is now."""
        if number not in self.state.moves:
            raise NotFound(f"there is no move {number}")
        return self.state.moves[number]


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Tests say what went wrong themselves."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


def _next(box: Box) -> int:
    """The number of a port that appears."""
    return max(9, *box.ports.values()) + 1


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve a WSGI application on loopback; yields its URL."""
    server = make_server("127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def ticking(runtime: LiveRuntime) -> Iterator[None]:
    """Let the core's time pass in the background."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.005):
            runtime.event(ev.TimePassed())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)
