"""The web server of ryu-manager, made fit to face a network: TLS, client certificates, and an end to every patience.

Each connection has a green thread of its own, TLS handshake included, so that nobody waits for a slow client. What a
client may take its time with is bounded: the handshake, a request's head, its body, being silent between requests, and
not reading what is sent. Certificates are read again when their files change.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import eventlet
import eventlet.wsgi
from eventlet.green import ssl
from ryu.lib import hub

from .credentials import redacted
from .errors import VmmError
from .rest.authentication import CERTIFICATE
from .rest.throttle import Buckets, source_of
from .unread import readable

__all__ = ["Listener", "Tls", "TlsUnusable"]

LOG = logging.getLogger("ryu_vmm.rest")
#: Seconds for a TLS handshake; for a request's head from its first byte on, and for the first of a connection to begin;
#: for a body; between requests; for a client to read.
HANDSHAKE, HEAD, BODY, IDLE, STALLED = 10.0, 10.0, 30.0, 60.0, 60.0
#: Seconds for a client that was refused to end what it is sending.
LINGER = 2.0
#: Connections at once, and of one address beyond this machine.
CONNECTIONS, SHARE = 512, 128
#: Longest line of a chunked body's own, in bytes, and what is still read of a body that nobody wants.
LINE, DISCARD = 1024, 4 << 20
#: Seconds before accepting is tried again after an error that passes.
RETRY = 0.5
#: Exceptions that a client is to blame for.
_CLIENTS = ("BrokenPipeError", "ConnectionResetError", "ConnectionAbortedError", "TimeoutError", "OSError", "ssl.")
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPROTO, errno.EPERM}


class TlsUnusable(VmmError):
    """A certificate, key or CA file cannot be used."""

    code = "tls-unusable"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files and rules of TLS.

    Attributes:
        cert, key: PEM files of the server; the key may be in the certificate's.
        client_ca: PEM file of the authorities for clients; None: clients are not asked for certificates.
        required: clients without a certificate are refused.
    """

    cert: str
    key: str | None = None
    client_ca: str | None = None
    required: bool = False

    def context(self) -> Any:
        """A context made of the files as they are. TlsUnusable."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        # Every connection proves itself anew: a resumed session would outlive its certificate.
        made.options |= ssl.OP_NO_TICKET
        made.num_tickets = 0

        def locked() -> str:
            raise ValueError("the key is locked by a passphrase")

        try:
            made.load_cert_chain(self.cert, self.key, password=locked)
        except (OSError, ValueError) as e:
            names = self.cert if self.key is None else f"{self.cert} and {self.key}"
            raise TlsUnusable(f"TLS cannot use {names}: {_reason(e)}") from e
        if self.client_ca is not None:
            try:
                made.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as e:
                raise TlsUnusable(f"TLS cannot use {self.client_ca}: {_reason(e)}") from e
            made.verify_mode = ssl.CERT_REQUIRED if self.required else ssl.CERT_OPTIONAL
        return made

    def look(self) -> tuple[object, ...]:
        """What tells that a file has changed."""
        found: list[object] = []
        for name in (self.cert, self.key, self.client_ca):
            try:
                status = None if name is None else os.stat(name)
            except OSError as e:
                found.append(e.errno)
            else:
                found.append(status and (status.st_mtime_ns, status.st_ino, status.st_size))
        return tuple(found)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)


class _Contexts:
    """The TLS context in force: made anew when a file changes, kept when that cannot be done."""

    def __init__(self, tls: Tls) -> None:
        self._tls, self._seen, self._context = tls, tls.look(), tls.context()

    def current(self) -> Any:
        seen = self._tls.look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = self._tls.context()
                LOG.info("certificates of REST read again")
            except TlsUnusable as e:
                LOG.error("%s; those read before stay in force", e.message)
        return self._context


class _Log:
    """What eventlet's server says, without anything that looks like a token."""

    def info(self, message: str, *args: Any) -> None:
        last = message.rstrip().rpartition("\n")[2]
        ours = message.startswith("Traceback") and not last.startswith(_CLIENTS)
        LOG.log(logging.ERROR if ours else logging.DEBUG, "%s", redacted(message))

    def error(self, message: str, *args: Any) -> None:
        LOG.warning("%s", redacted(message))

    def debug(self, message: str, *args: Any) -> None:
        LOG.debug("%s", redacted(message))


class _Accepting:
    """A listening socket that waits where a plain one's accept() fails for something that passes."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def accept(self) -> Any:
        while True:
            try:
                return self._sock.accept()
            except OSError as e:
                if e.errno not in _PASSING:
                    raise
                LOG.error("REST cannot accept a connection, trying on: %s", e.strerror)
                hub.sleep(RETRY)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Lines:
    """A connection's bytes, of which no line is longer than a line should be."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(LINE if size < 0 else min(size, LINE))
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Outgoing:
    """What is sent on a connection; a client that does not read it is not waited for forever, with TLS either."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def writelines(self, lines: Any) -> None:
        with eventlet.Timeout(STALLED, TimeoutError("the client does not read")):
            self._file.writelines(lines)

    def flush(self) -> None:
        with eventlet.Timeout(STALLED, TimeoutError("the client does not read")):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Body(eventlet.wsgi.Input):
    """A request's body, for which nobody waits forever."""

    def read(self, length: int | None = None) -> bytes:
        with eventlet.Timeout(BODY, TimeoutError("the body did not come in time")):
            content: bytes = super().read(length)
        return content

    def discard(self, buffer_size: int = 1 << 16) -> None:
        """Read what nobody wanted, so that the connection can go on. OSError: it is not worth that."""
        left = DISCARD
        with eventlet.Timeout(BODY, TimeoutError("the rest of a body did not come in time")):
            while chunk := super().read(buffer_size):
                left -= len(chunk)
                if left < 0:
                    raise ConnectionAbortedError(errno.ECONNABORTED, "a body larger than is worth reading")


class _Protocol(eventlet.wsgi.HttpProtocol):
    """One connection, from the TLS handshake to its end."""

    def __init__(self, conn_state: list[Any], server: Any) -> None:
        listener: Listener = server.environ["ryu_vmm.listener"]
        self._head: Any = None
        self._body: _Body | None = None
        self._served = 0
        self.conn_state = conn_state
        self.busy = True  # something of a request is there, and it has not been carried out
        address = conn_state[0]
        source = source_of(address[0]) if isinstance(address, tuple) else ""
        shared = source and not source.startswith(("127.", "::/64"))
        if shared and listener.connections[source] >= SHARE:
            return
        listener.connections[source] += 1
        listener.open.add(self)
        try:
            if listener.prepared(conn_state, source):
                super().__init__(conn_state, server)
        finally:
            listener.open.discard(self)
            listener.connections[source] -= 1
            if not listener.connections[source]:
                del listener.connections[source]

    def setup(self) -> None:
        super().setup()
        self.wfile: Any = _Outgoing(self.wfile)

    def _read_request_line(self) -> Any:
        self.connection.settimeout(IDLE if self._served else HEAD)
        self.busy = False
        try:
            if not self.rfile.peek(1):
                return b""
        except OSError:  # silent for too long, or gone
            return b""
        self.busy = True
        self._served += 1
        self._head = eventlet.Timeout(HEAD, TimeoutError("a request's head did not come in time"))
        return super()._read_request_line()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        finally:
            self._relax()

    def _relax(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def get_environ(self) -> dict[str, Any]:
        self._relax()
        environ: dict[str, Any] = super().get_environ()
        given = environ["eventlet.input"]
        body = _Body(
            _Lines(given.rfile), given.content_length, given.get_socket(), given.wfile, given.wfile_line,
            given.chunked_input,
        )  # fmt: skip
        environ["wsgi.input"] = environ["eventlet.input"] = self._body = body
        environ["ryu_vmm.close"] = self._close
        environ["ryu_vmm.done"] = self._done
        certificate: Any = getattr(self.connection, "getpeercert", dict)()
        if certificate:
            environ[CERTIFICATE] = certificate
        return environ

    def _close(self) -> None:
        """Have the connection end with this answer."""
        self.close_connection = 1

    def _done(self) -> None:
        """The request has been carried out; its answer may yet be on its way, for as long as a stream lasts."""
        self.busy = False

    def finish(self) -> None:
        """End the connection so that its last answer arrives, even where the client is still sending a body."""
        body = self._body
        if body is not None and self._served and not body.should_send_hundred_continue:
            try:
                with eventlet.Timeout(LINGER, TimeoutError()):
                    body.discard()
            except (OSError, ValueError):
                pass
        super().finish()

    def log_error(self, format: str, *args: Any) -> None:
        """A request that is none: nothing to tell anybody."""


class Listener(hub.WSGIServer):
    """ryu.app.wsgi.WSGIServer's place is taken by one of these.

    Args:
        where: host and port.
        application: the WSGI application.
        tls: files and rules; None: plain HTTP.
        failed: called when a TLS handshake fails.

    Raises:
        TlsUnusable: a file of ``tls`` cannot be used.
    """

    def __init__(
        self, where: tuple[str, int], application: Any, tls: Tls | None = None, failed: Callable[[], None] | None = None
    ) -> None:
        self._contexts = None if tls is None else _Contexts(tls)
        self._failed = failed or (lambda: None)
        self._told = Buckets(5, 0.05)
        self.connections: Counter[str] = Counter()
        self.open: set[_Protocol] = set()

        def carried_out(environ: dict[str, Any], start_response: Any) -> Any:
            try:
                return application(environ, start_response)
            finally:
                environ["ryu_vmm.done"]()

        super().__init__(where, carried_out)

    def __call__(self) -> None:
        self.serve_forever()

    def serve_forever(self) -> None:
        """Serve until the process ends."""
        scheme = "http" if self._contexts is None else "https"
        environ: dict[str, Any] = {"wsgi.url_scheme": scheme, "ryu_vmm.listener": self}
        if self._contexts is not None:
            environ["HTTPS"] = "on"
        eventlet.wsgi.server(
            _Accepting(self.server),
            self.handle,
            _Log(),
            environ=environ,
            protocol=_Protocol,
            max_size=CONNECTIONS,
            socket_timeout=STALLED,
            log_x_forwarded_for=False,
            debug=False,  # no tracebacks in answers
        )

    def waits(self) -> bool:
        """Whether any request, or part of one, is there that has not been carried out."""
        idle = [one.conn_state[1] for one in self.open if not one.busy]
        return len(idle) < len(self.open) or readable([self.server, *idle])

    def prepared(self, conn_state: list[Any], source: str) -> bool:
        """Whether a connection can be served: its TLS handshake is done."""
        sock = conn_state[1]
        if isinstance(conn_state[0], tuple):
            # A peer that is gone without a word is noticed by what is sent to it, streams' heartbeats included.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED * 1000))
        if self._contexts is None:
            return True
        try:
            with eventlet.Timeout(HANDSHAKE, TimeoutError(f"no handshake within {HANDSHAKE:g} s")):
                conn_state[1] = self._contexts.current().wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
                conn_state[1].settimeout(HANDSHAKE)
                conn_state[1].do_handshake()
        except (OSError, ValueError) as e:
            self._failed()
            if self._told.take(source, time.monotonic()):
                LOG.warning("TLS with %s failed: %s", conn_state[0], _reason(e))
            return False
        return True
