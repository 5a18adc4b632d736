"""Bytes of one connection to a switch, in and out, without ever making anybody else wait."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from socket import SHUT_RDWR, SHUT_WR, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import TYPE_CHECKING, Any, ClassVar

from ryu.controller.controller import Datapath
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER
from ryu.lib import hub

from ..errors import DecodeError
from ..wire import openflow
from ..wire.outbox import Outbox

if TYPE_CHECKING:
    from .board import Switchboard

LOG = logging.getLogger("ryu_vmm.southbound")

READ_SIZE = 65536
"""Bytes read at a time."""
READ_AT_ONCE = 65536
"""Bytes that are taken in before other connections get their turn: some milliseconds' work."""
BUFFERS = 1 << 18
"""Bytes that the system may hold for a connection each way: what is urgent waits behind them."""
CONGESTED = 1 << 17
"""Bytes that wait to be sent, beyond which a switch is given no answers to packets until it has taken some."""
FLUSH_AT_ONCE = 16384
"""Bytes that are written out of turn."""
_AGAIN = (TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def certified_names(socket: Any) -> tuple[str, ...] | None:
    """The names in a peer's verified certificate: its DNS names, else its common names (RFC 6125 section 6.4.4).

    None: the connection is not TLS. Empty: there is no certificate, or no name in it.
    """
    if not isinstance(socket, ssl.SSLSocket):
        return None
    certificate: dict[str, Any] = socket.getpeercert() or {}
    alternatives = certificate.get("subjectAltName", ())
    dns = tuple(name for kind, name in alternatives if kind == "DNS")
    subject = certificate.get("subject", ())
    return dns or tuple(name for part in subject for kind, name in part if kind == "commonName")


class Connection(Datapath):  # type: ignore[misc]
    """Ryu's Datapath with its reading, sending and watching replaced. Ryu calls ``serve`` and ``close``.

    ``socket`` is a green socket, ``address`` the peer's.
    """

    board: ClassVar[Switchboard]
    xid: int

    def __init__(self, socket: Any, address: Any) -> None:
        self._outbox = Outbox()
        self._wake = hub.Semaphore(0)
        self._awake = False  # the sender has been woken and has not run yet
        self._writing = False
        self._last = False  # nothing is sent after what waits now
        self._progress = 0  # grows with every byte read, and with every one written that had to wait for room
        self._waits_since = 0.0  # since when the peer has made no room for what is being written, 0: it has
        self.names = certified_names(socket)
        super().__init__(socket, address)
        for option in (SO_RCVBUF, SO_SNDBUF):
            socket.setsockopt(SOL_SOCKET, option, BUFFERS)
        # Only greenlets of our own wait for the peer, and close() ends their waiting.
        socket.settimeout(None)
        self._raw = None if isinstance(socket, ssl.SSLSocket) else getattr(socket, "fd", None)

    def next_xid(self) -> int:
        """A transaction id from Ryu's own counter, so that no other application's request has it too."""
        self.xid = (self.xid + 1) & 0xFFFFFFFF
        return self.xid

    def next_xids(self, count: int) -> int:
        """The first of so many transaction ids in a row."""
        if self.xid + count > 0xFFFFFFFF:
            self.xid = 0
        first = self.xid + 1
        self.xid += count
        return first

    @property
    def name(self) -> str:
        """The datapath id as text, as far as it is known."""
        return "unknown" if self.id is None else f"{self.id:016x}"

    @property
    def congested(self) -> bool:
        """Whether so much waits to be sent that nothing should be added but what is urgent."""
        return self._outbox.size > CONGESTED

    def close(self) -> None:
        """End the connection now; what still waits to be sent is dropped."""
        self.set_state(DEAD_DISPATCHER)
        self._outbox.clear()
        self._shut(SHUT_RDWR)
        self._wake_sender()

    def fail(self, why: str, text: str) -> None:
        """End the connection because of the peer: counted as ``closed.<why>``, logged as ``text``."""
        self.board.counters[f"closed.{why}"] += 1
        LOG.error("connection from %s (datapath %s) closed: %s", self.address, self.name, text)
        self.close()

    def take_in(self, data: bytes) -> tuple[int, int]:
        """Handle all whole messages: (bytes they were, bytes that the next one needs).

        Raises:
            DecodeError: it cannot be told where the next message begins.
        """
        raise NotImplementedError

    def overdue(self, since: float) -> str:
        """What the switch was asked for before that moment and ought to have answered by now; empty: nothing."""
        raise NotImplementedError

    def _shut(self, how: int) -> None:
        with contextlib.suppress(EOFError, OSError):  # the peer was faster
            self.socket.shutdown(how)

    def _echo_request_loop(self) -> None:
        """Watch: the handshake must come to an end, and later there must be progress or an answer."""
        board = self.board
        deadline = time.monotonic() + board.handshake_within
        seen, silent = -1, 0
        while self.state != DEAD_DISPATCHER:
            hub.sleep(board.echo_interval)
            now = time.monotonic()
            if self._waits_since and now - self._waits_since > board.stuck_after and self.state != DEAD_DISPATCHER:
                self.fail("stuck", f"for more than {board.stuck_after:g} s it has taken nothing of what waits")
            if self.state != MAIN_DISPATCHER:
                if now > deadline and self.state != DEAD_DISPATCHER:
                    self.fail("handshake", "no handshake in time")
                continue
            # What it has not been sent yet it need not answer.
            if not self._outbox and (missing := self.overdue(now - board.answer_within)):
                self.fail("unanswered", f"for more than {board.answer_within:g} s it has not answered: {missing}")
                continue
            # Looks are counted, not seconds: after a pause of our own every connection still gets its chances.
            silent = silent + 1 if self._progress == seen else 0
            seen = self._progress
            if silent > board.echo_misses:
                self.fail("silent", "no sign of life")
            elif silent:
                self.send(openflow.encode_echo_request(self.next_xid()))

    # --- sending ----------------------------------------------------------------------------------------------
    def send(self, buf: bytes | bytearray, close_socket: bool = False) -> bool:
        """Queue bytes; never waits. False: the connection is at its end. ``close_socket``: these are the last."""
        if self.state == DEAD_DISPATCHER or self._last:
            return False
        self._outbox.put(bytes(buf))
        if self._outbox.size > self.board.send_cap or self._outbox.changes > self.board.flow_cap:
            self._last = True
            # Later, as the sink would hear of the end from within its own call of execute().
            text = f"it lets more than {self.board.send_cap} bytes or {self.board.flow_cap} flow changes wait"
            hub.spawn(self.fail, "slow", text)
            return False
        self._last = close_socket
        self._wake_sender()
        return True

    def _wake_sender(self) -> None:
        if not self._awake:
            self._awake = True
            self._wake.release()

    def _send_loop(self) -> None:
        try:
            while self.state != DEAD_DISPATCHER:
                self._wake.acquire()
                self._awake = False
                self._writing = True
                while data := self._outbox.take():
                    self._write(data)
                    hub.sleep(0)
                self._writing = False
                if self._last:
                    self._shut(SHUT_WR)
                    return
        except (EOFError, OSError) as error:
            LOG.debug("connection from %s: %s", self.address, error)
            self.close()
        except Exception as error:
            LOG.exception("sending to datapath %s", self.name)
            self.fail("sender", f"nothing can be sent to it: {error!r}")

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            began = time.monotonic()
            self._waits_since = self._waits_since or began
            try:
                sent = self.socket.send(rest)
            except _AGAIN:
                continue
            self._waits_since = 0.0
            if time.monotonic() - began > 0.001:
                self._progress += sent  # there was no room, and the peer made some: it lives
            rest = rest[sent:]

    def flush(self) -> None:
        """Write what waits now, if that needs no waiting and is not much; leave the rest to the sender."""
        written = 0
        while self._raw is not None and not self._writing and written < FLUSH_AT_ONCE:
            data = self._outbox.take()
            if not data:
                return
            try:
                sent = self._raw.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # the reader will see it too
            if sent < len(data):
                self._outbox.put_back(data[sent:])
                break
            written += sent
        if self._outbox:
            self._wake_sender()

    # --- receiving --------------------------------------------------------------------------------------------
    def _recv_loop(self) -> None:
        try:
            self._read()
        finally:
            with contextlib.suppress(OSError):
                self.socket.close()

    def _read(self) -> None:
        pending = bytearray()
        wanted = count = 0
        while self.state != DEAD_DISPATCHER:
            try:
                data = self.socket.recv(READ_SIZE)
            except _AGAIN:
                continue
            except (EOFError, OSError):
                return
            if not data:
                return
            self._progress += len(data)
            if pending:
                pending += data
                if len(pending) < wanted:
                    continue
                data = bytes(pending)
            try:
                used, wanted = self.take_in(data)
            except DecodeError as error:
                self.board.counters[f"malformed.{error.cause}"] += 1
                self.fail("framing", error.message)
                return
            pending = bytearray(data[used:])
            count += used
            if count >= READ_AT_ONCE:
                count = 0
                hub.sleep(0)
