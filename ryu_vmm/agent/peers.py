"""Agents talking to each other: frames over TCP, with TLS and certificates of both, or authenticated by a secret.

A frame is the length of a JSON document and of a payload (four bytes each, network order), the document, the payload,
and with a shared secret HMAC-SHA256 over direction, number of the frame, and all of it. The keys are of this connection
alone: they follow from the secret and a random number of each side, so nothing can be replayed. Without TLS nothing is
kept from who listens on the underlay.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import socket
import ssl
import struct
from typing import Any

from ..checking import check_fit
from ..errors import InvalidInput
from .definition import Configuration
from .faults import PeerError

__all__ = ["Peer", "answer", "call", "check", "listener", "secret_of"]

_HEAD = struct.Struct("!II")
_HELLO = b"vmm-agent 1\n"
MAX_DOCUMENT, CHUNK = 1 << 20, 1 << 20
_NONCE, _MAC = 32, 32


class Peer:
    """A connection to another agent, which is who it says. ``nve``: that agent's."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        sock.settimeout(seconds)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.nve = ""
        self._keys: tuple[bytes, bytes] | None = None
        self._sent = self._received = 0

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self.sock.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def share(self, secret: bytes, client: bool) -> None:
        """Exchange random numbers and make the connection's keys. Whoever lacks the secret fails at the first frame."""
        mine = os.urandom(_NONCE)
        self._write(_HELLO + mine)
        if self._exactly(len(_HELLO)) != _HELLO:
            raise PeerError("what answers is not an agent, or one that uses TLS")
        theirs = self._exactly(_NONCE)
        both = mine + theirs if client else theirs + mine
        up, down = (hmac.digest(secret, b"vmm-agent " + way + both, "sha256") for way in (b"up", b"down"))
        self._keys = (up, down) if client else (down, up)

    # --- frames -------------------------------------------------------------------------------------------------------
    def send(self, document: dict[str, Any], payload: bytes = b"") -> None:
        """Send a frame. Raises PeerError."""
        text = json.dumps(document, separators=(",", ":")).encode()
        data = _HEAD.pack(len(text), len(payload)) + text + payload
        if self._keys is not None:
            data += hmac.digest(self._keys[0], self._sent.to_bytes(8, "big") + data, "sha256")
        self._sent += 1
        self._write(data)

    def receive(self, seconds: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next frame; ``seconds``: for its first byte. Raises PeerError."""
        usual = self.sock.gettimeout()
        try:
            if seconds is not None:
                self.sock.settimeout(seconds)
            head = self._exactly(_HEAD.size)
        finally:
            self.sock.settimeout(usual)
        length, size = _HEAD.unpack(head)
        if length > MAX_DOCUMENT or size > CHUNK:
            raise PeerError(f"a frame of {length} + {size} bytes is too large")
        text, payload = self._exactly(length), self._exactly(size)
        if self._keys is not None:
            counted = self._received.to_bytes(8, "big") + head + text + payload
            if not hmac.compare_digest(self._exactly(_MAC), hmac.digest(self._keys[1], counted, "sha256")):
                raise PeerError("what answers does not know the secret")
        self._received += 1
        try:
            document = json.loads(text)
            check_fit(document)
        except (ValueError, RecursionError, InvalidInput):
            document = None
        if not isinstance(document, dict):
            raise PeerError("a frame without a document")
        return document, payload

    def hear(self, seconds: float | None = None) -> dict[str, Any]:
        """The next frame's document. Raises PeerError, also for one that reports an error."""
        document, _ = self.receive(seconds)
        if "error" in document:
            raise PeerError(str(document["error"]))
        return document

    def _write(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as e:
            raise PeerError(f"the other agent: {e}") from None

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                part = self.sock.recv(min(size - len(data), CHUNK))
            except OSError as e:
                raise PeerError(f"the other agent: {e}") from None
            if not part:
                raise PeerError("the other agent has closed the connection")
            data += part
        return bytes(data)


def secret_of(configuration: Configuration) -> bytes | None:
    """The shared secret; None where there are certificates. Raises PeerError if it is short or others can read it."""
    path = configuration.secret_file
    if path is None:
        return None
    try:
        if os.stat(path).st_mode & 0o077:
            raise PeerError(f"{path} can be read by others: chmod 600")
        with open(path, "rb") as file:
            secret = file.read().strip()
    except OSError as e:
        raise PeerError(f"{path}: {e.strerror}") from None
    if len(secret) < 32:
        raise PeerError(f"{path}: a secret has 32 bytes or more")
    return secret


def check(configuration: Configuration) -> None:
    """Look whether what agents know each other by can be used. Raises PeerError."""
    secret_of(configuration)
    _context(configuration, server=True)


def _context(configuration: Configuration, server: bool) -> ssl.SSLContext | None:
    tls = configuration.tls
    if tls is None:
        return None
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(tls.cert, tls.key)
        context.load_verify_locations(tls.ca)
    except (OSError, ValueError) as e:
        raise PeerError(f"TLS with {tls.cert}, {tls.key} and {tls.ca}: {e}") from None
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def listener(configuration: Configuration) -> socket.socket:
    """Where other agents connect. Raises PeerError."""
    family = socket.AF_INET6 if ":" in configuration.listen else socket.AF_INET
    try:
        return socket.create_server((configuration.listen, configuration.port), family=family, backlog=64)
    except OSError as e:
        raise PeerError(f"{configuration.listen} port {configuration.port}: {e.strerror}") from None


def call(configuration: Configuration, nve: str, where: tuple[str, int]) -> Peer:
    """Connect to the agent of an NVE. Raises PeerError."""
    seconds = configuration.times.peer
    context = _context(configuration, server=False)
    try:
        sock = socket.create_connection(where, timeout=seconds)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=nve)  # its certificate names its NVE
    except (OSError, ValueError) as e:
        raise PeerError(f"the agent of {nve} at {where[0]} port {where[1]}: {e}") from None
    peer = Peer(sock, seconds)
    try:
        secret = secret_of(configuration)
        if secret is not None:
            peer.share(secret, client=True)
        peer.send({"hello": configuration.nve})
        name = peer.hear().get("hello")
        if name != nve:
            raise PeerError(f"the agent at {where[0]} port {where[1]} is {name}'s, not {nve}'s")
    except BaseException:
        peer.close()
        raise
    peer.nve = nve
    return peer


def answer(configuration: Configuration, sock: socket.socket) -> Peer:
    """The other end of ``call``, of an accepted connection. Raises PeerError; the socket is closed then."""
    seconds = configuration.times.peer
    sock.settimeout(seconds)
    try:
        context = _context(configuration, server=True)
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True)
    except (OSError, ValueError) as e:
        sock.close()
        raise PeerError(f"TLS: {e}") from None
    peer = Peer(sock, seconds)
    try:
        secret = secret_of(configuration)
        if secret is not None:
            peer.share(secret, client=False)
        name = str(peer.hear().get("hello"))
        if isinstance(sock, ssl.SSLSocket) and name not in _names(sock):
            raise PeerError(f"the certificate shown is not {name}'s")
        peer.send({"hello": configuration.nve})
    except BaseException:
        peer.close()
        raise
    peer.nve = name
    return peer


def _names(sock: ssl.SSLSocket) -> list[str]:
    certificate: Any = sock.getpeercert() or {}
    return [name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"]
