"""Many emulated switches in one process: one selector loop, one connection from each to its controller."""

from __future__ import annotations

import errno
import heapq
import itertools
import selectors
import socket
import ssl
import time
from collections.abc import Callable

from ..wire import base as of
from ..wire import frames
from .fabric import Fabric
from .flood import Flood
from .session import Session
from .switch import Switch

#: Connections being set up at the same time; a listen queue is not endless.
_AT_ONCE = 32
#: Bytes read from one switch before the others get their turn: this many, divided among them.
_READ = 1 << 20
#: Seconds between looks for flows whose time is up.
_TICK = 0.25
#: Bytes that the system may hold of what a switch sends.
_BUFFER = 1 << 17
#: Seconds between pieces of a flood of a given rate.
_POUR = 0.002
_ECHO, _PACKET_OUT = bytes([of.ECHO_REQUEST]), bytes([of.PACKET_OUT])
_PROBE = frames.build_probe(b"?", frames.PROBE_MTU[0])[:14]
_AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
clock = time.monotonic


class Link:
    """A switch's socket towards the controller."""

    __slots__ = ("connected", "receive", "rest", "session", "sock", "switch", "writing")

    def __init__(self, switch: Switch, sock: socket.socket) -> None:
        self.switch = switch
        self.sock = sock
        self.session: Session | None = None
        self.connected = False
        self.receive: Callable[[bytes, float], None] | None = None  # in place of the session's, under load
        self.rest = b""  # what the socket did not take yet
        self.writing = False

    @property
    def flood(self) -> Flood | None:
        """What it floods the controller with."""
        return None if self.session is None else self.session.flood


class Farm:
    """Runs switches against a controller.

    Args:
        controller: (address, port) that all of them connect to.
        reconnect: seconds after which a lost connection is tried again (None: never).

    ``run`` works until a condition holds; nothing happens outside of it.
    """

    def __init__(self, controller: tuple[str, int], reconnect: float | None = 0.5) -> None:
        self.controller = controller
        self.reconnect = reconnect
        self.fabric = Fabric()
        self.links: dict[int, Link] = {}
        self.selector = selectors.DefaultSelector()
        self.heard = clock()  # when a controller last sent more than what it always sends
        self.losses = 0  # connections lost or refused
        self._waiting: list[Switch] = []
        self._setting_up: set[int] = set()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.after(_TICK, self._tick)
        self._awake: dict[Session, None] = {}  # with something to send, in order

    # --- switches -----------------------------------------------------------------------------------------
    def add(self, switch: Switch) -> None:
        """Put a switch into the overlay and connect it, as soon as the loop runs."""
        self.fabric.add(switch)
        switch.wake = self._wake
        self._waiting.append(switch)

    @property
    def ready(self) -> bool:
        """Whether every switch is connected and has been asked for its features."""
        return len(self.links) == len(self.fabric.switches) and all(
            link.session is not None and link.session.ready for link in self.links.values()
        )

    def refresh(self, dpid: int) -> None:
        """A switch's faults have changed: it may be deaf or mute by now, or no longer."""
        link = self.links.get(dpid)
        if link is not None and link.connected:
            self._register(link)
            self.send(link, b"")

    def flood(self, dpid: int, flood: Flood | None) -> None:
        """Have a switch flood its controller from now on, or stop it."""
        link = self.links[dpid]
        assert link.session is not None
        link.session.flood = flood
        self.send(link, b"")
        if flood is not None and flood.rate is not None:
            self._pour(link, flood)

    def _pour(self, link: Link, flood: Flood) -> None:
        if link.flood is flood and self.links.get(link.switch.dpid) is link:
            if not link.rest:
                self.send(link, flood.block(clock()))
            self.after(_POUR, lambda: self._pour(link, flood))

    def cut(self, dpid: int) -> None:
        """Close a switch's connection; it comes back after ``reconnect`` seconds."""
        self._close(self.links[dpid])

    def close(self) -> None:
        """Close all connections for good."""
        self.reconnect = None
        for link in list(self.links.values()):
            self._close(link)
        self._waiting.clear()
        self._timers.clear()
        self.selector.close()

    # --- loop ---------------------------------------------------------------------------------------------
    def run(self, until: Callable[[], bool], timeout: float) -> bool:
        """Serve the switches until the condition holds (true) or ``timeout`` seconds are over (false).

        The condition is looked at whenever something has happened; the mere passing of time is nothing.
        """
        deadline = clock() + timeout
        while not until():
            now = clock()
            if now >= deadline:
                return False
            self.step(deadline - now)
        return True

    def after(self, delay: float, call: Callable[[], None]) -> None:
        """Call this in ``delay`` seconds."""
        heapq.heappush(self._timers, (clock() + delay, next(self._order), call))

    def step(self, timeout: float) -> None:
        """One turn: wait for at most ``timeout`` seconds, then serve whatever is there."""
        now = clock()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        while self._waiting and len(self._setting_up) < _AT_ONCE:
            self._connect(self._waiting.pop(0))
        self.flush()
        if self._timers:
            timeout = min(timeout, max(0.0, self._timers[0][0] - clock()))
        for key, events in self.selector.select(timeout):
            if isinstance(key.data, Link):
                self._serve(key.data, events)
            else:
                key.data()
            # at once, as a switch would: serving a thousand others first may take longer than patience lasts
            self.flush()

    def flush(self) -> None:
        """Send what waits in the sessions."""
        while self._awake:
            awake, self._awake = self._awake, {}
            for session in awake:
                link = self.links.get(session.switch.dpid)
                if link is not None and link.session is session:
                    self._flush(link, session)

    def _flush(self, link: Link, session: Session) -> None:
        due = session.due(clock())
        if due is not None:
            self.after(max(0.0, due - clock()), lambda: self._wake(session))
        if session.out:
            data = b"".join(session.out)
            session.out.clear()
            self.send(link, data)

    def _wake(self, session: Session) -> None:
        self._awake[session] = None

    def _tick(self) -> None:
        now = clock()
        for switch in self.fabric.switches.values():
            if switch.expiring:
                switch.expire(now)
        self.after(_TICK, self._tick)

    def _connect(self, switch: Switch) -> None:
        family = socket.AF_INET6 if ":" in self.controller[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Loopback would take megabytes, which no network between two machines does
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        link = Link(switch, sock)
        self.links[switch.dpid] = link
        self._setting_up.add(switch.dpid)
        error = sock.connect_ex(self.controller)
        if error not in (0, errno.EINPROGRESS):
            self._close(link, registered=False)
            return
        self.selector.register(sock, selectors.EVENT_WRITE, link)
        link.writing = True

    def _serve(self, link: Link, events: int) -> None:
        if not link.connected:
            if link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._close(link)
                return
            if not self._secured(link):
                return
            link.connected = True
            link.session = link.switch.connect()
            self._wake(link.session)
            link.writing = False
            self._register(link)
            return
        if events & selectors.EVENT_WRITE:
            self.send(link, b"" if link.flood is None or link.rest else link.flood.block(clock()))
        if events & selectors.EVENT_READ:
            self._read(link)

    def _secured(self, link: Link) -> bool:
        """Whether TLS is up, where the switch speaks it; else that goes on when the socket is ready."""
        context = link.switch.tls
        if context is None:
            return True
        try:
            if not isinstance(link.sock, ssl.SSLSocket):
                self.selector.unregister(link.sock)
                link.sock = context.wrap_socket(link.sock, do_handshake_on_connect=False)
                self.selector.register(link.sock, selectors.EVENT_READ, link)
            link.sock.do_handshake()
        except ssl.SSLWantReadError:
            self.selector.modify(link.sock, selectors.EVENT_READ, link)
            return False
        except ssl.SSLWantWriteError:
            self.selector.modify(link.sock, selectors.EVENT_WRITE, link)
            return False
        except OSError:
            self._close(link)
            return False
        return True

    def _register(self, link: Link) -> None:
        """Have the selector wait for what this switch waits for."""
        events = selectors.EVENT_WRITE if link.writing else 0
        if not link.switch.faults.deaf:
            events |= selectors.EVENT_READ
        registered = link.sock in self.selector.get_map()
        if not events:
            if registered:
                self.selector.unregister(link.sock)
        elif registered:
            self.selector.modify(link.sock, events, link)
        else:
            self.selector.register(link.sock, events, link)

    def _read(self, link: Link) -> None:
        sock = link.sock
        while self._take(link) and isinstance(sock, ssl.SSLSocket) and sock.pending():
            pass  # what TLS has decoded already wakes no selector

    def _take(self, link: Link) -> bool:
        """Read once and handle it; False: nothing more can be read now."""
        session = link.session
        assert session is not None
        try:
            data = link.sock.recv(max(_READ // (1 + len(self.links)), 1 << 13))
        except _AGAIN:
            return False
        except OSError:
            data = b""
        if not data:
            self._close(link)
            return False
        now = clock()
        if not _goes_on_always(data):
            self.heard = now
        (link.receive or session.receive)(data, now)
        if session.ready:
            self._setting_up.discard(link.switch.dpid)
        if session.closing:
            self._close(link)
        return not session.closing and self.links.get(link.switch.dpid) is link

    def send(self, link: Link, data: bytes) -> None:
        """Send bytes on a connection, now or when it takes them."""
        data = link.rest + data if link.rest else data
        mute = link.switch.faults.mute
        try:
            sent = link.sock.send(data) if data and not mute else 0
        except _AGAIN:
            sent = 0
        except OSError:
            self._close(link)
            return
        link.rest = data[sent:]
        flooding = link.flood is not None and link.flood.rate is None
        writing = (bool(link.rest) or flooding) and not mute
        if writing != link.writing:
            link.writing = writing
            self._register(link)

    def _close(self, link: Link, registered: bool = True) -> None:
        if self.links.get(link.switch.dpid) is not link:
            return
        del self.links[link.switch.dpid]
        self._setting_up.discard(link.switch.dpid)
        self.losses += 1
        if registered and link.sock in self.selector.get_map():
            self.selector.unregister(link.sock)
        link.sock.close()
        if link.session is not None:
            link.switch.disconnect(link.session)
        if self.reconnect is not None:
            self.after(self.reconnect, lambda: self._waiting.append(link.switch))


def _goes_on_always(data: bytes) -> bool:
    """Whether a controller has sent what it sends at rest as well: echo requests, or probes of tunnels."""
    at = 0
    while at < len(data):
        kind, size = data[at + 1 : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if kind != _ECHO and (kind != _PACKET_OUT or _PROBE not in data[at : at + size]):
            return False
        at += max(8, size)
    return True
