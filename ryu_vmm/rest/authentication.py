"""Who asks: tokens and client certificates against the credentials file.

A token that was found good once is known again by an HMAC under a key of this process, so the slow hash is computed
once per token and not once per request. One that was found wrong is known again as well. Sources that have failed too
often are refused without any computing, but for tokens that are known to be good: whoever shares an address with an
attacker is not locked out by them.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
import ssl
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..credentials import Credentials, CredentialsUnusable, Key, Principal, key_id, load, verify
from .problems import Problem
from .roles import Role
from .throttle import Buckets, source_of

__all__ = ["CERTIFICATE", "LOCAL", "OUTCOMES", "Access", "Keyring", "identities"]

LOG = logging.getLogger(__name__)
T = TypeVar("T")
#: Where the server puts a verified client certificate, as ssl.SSLSocket.getpeercert() has it.
CERTIFICATE = "ryu_vmm.certificate"
#: Whoever asks while there are no credentials: they can only be on this machine.
LOCAL = Principal("local", Role.ADMIN)
#: Failures that a source has at once, and so many a second again.
FAILURES, FORGIVEN = 10, 0.2
#: Tokens remembered as good, and as wrong.
REMEMBERED = 4096
#: Slow hashes computed at once, beside whatever the NVA has to do, and how many may wait for their turn.
AT_ONCE, IN_LINE = 1, 16
#: What identifications come to, as they are counted.
OUTCOMES = (
    "token", "certificate", "missing", "malformed", "unknown-token", "wrong-token", "expired", "foreign-certificate",
    "ambiguous-certificate", "handshake-failed", "throttled", "busy", "forbidden", "slow-hash",
)  # fmt: skip
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
_KINDS = {"DNS": "DNS", "URI": "URI", "IP Address": "IP", "email": "EMAIL"}


class Offload(Protocol):
    """Runs what computes for long, where it does not keep others waiting."""

    def __call__(self, function: Callable[[], T], /) -> T: ...


class Keyring:
    """The credentials in force: those of a file, read again whenever it changes.

    A file that has become unusable changes nothing: the credentials read last stay in force, and ``trouble`` says why.

    Raises:
        CredentialsUnusable: at the start, the file is.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.trouble = ""
        self.version = 0
        self._seen: object = self._look()
        self._content = Credentials.of(load(self.path))

    def _look(self) -> object:
        try:
            found = os.stat(self.path)
        except OSError as e:
            return e.errno
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size, found.st_mode, found.st_uid)

    @property
    def content(self) -> Credentials:
        """The credentials as of now."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._content = Credentials.of(load(self.path))
            except CredentialsUnusable as e:
                self.trouble = e.message
                LOG.error("%s; those read before stay in force", e.message)
            else:
                self.trouble = ""
                self.version += 1
                LOG.info("credentials %s read again", self.path)
        return self._content


class Access:
    """Finds out who asks.

    Args:
        keyring: the credentials; None: whoever asks is the local admin.
        offload: runs slow hashes; default: right here.
        clock: seconds, for limits; wall: Unix time, for expiry.

    Attributes:
        counters: identifications by outcome.
    """

    def __init__(
        self,
        keyring: Keyring | None = None,
        *,
        offload: Offload | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.keyring = keyring
        self.counters: Counter[str] = Counter()
        self.failures = Buckets(FAILURES, FORGIVEN)
        self._offload: Offload = offload or (lambda function: function())
        self._clock, self._wall = clock, wall
        self._secret = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, str] = OrderedDict()  # HMAC of a token -> the hash it was found to have
        self._wrong: OrderedDict[bytes, None] = OrderedDict()  # HMACs of a token and the hash it does not have
        self._turn = threading.BoundedSemaphore(AT_ONCE)
        self._in_line = 0

    @property
    def open(self) -> bool:
        """Whether nobody is asked who they are."""
        return self.keyring is None

    # --- who ------------------------------------------------------------------------------------------------------
    def identify(self, environ: Mapping[str, Any]) -> Principal | None:
        """Who sends a request; None: they show nothing. Problem 401: what they show is wrong; 429, 503: not now."""
        if self.keyring is None:
            return LOCAL
        content = self.keyring.content
        given, certificate = environ.get("HTTP_AUTHORIZATION"), environ.get(CERTIFICATE)
        if given is not None:
            return self._by_token(content, given, source_of(environ.get("REMOTE_ADDR") or ""))
        if certificate:
            return self._by_certificate(content, certificate)
        return None

    def holds(self, principal: Principal) -> bool:
        """Whether somebody who was identified would be again: for what lasts, such as a stream."""
        if self.keyring is None:
            return True
        content = self.keyring.content
        keys = content.by_identity if principal.via == "certificate" else content.by_id
        found = keys.get(principal.key)
        return found is not None and found.principal == principal and not self._over(found)

    def _over(self, key: Key) -> bool:
        return key.until is not None and self._wall() >= key.until

    def _by_certificate(self, content: Credentials, certificate: Mapping[str, Any]) -> Principal:
        found = {id(key): key for name in identities(certificate) if (key := content.by_identity.get(name))}
        principals = {key.principal.name for key in found.values()}
        if not found:
            raise self._failed("foreign-certificate", "nobody here is known by this client certificate")
        if len(principals) > 1:
            raise self._failed("ambiguous-certificate", "this client certificate is that of several")
        key = next(iter(found.values()))
        ends = certificate.get("notAfter")  # it may end while its connection lasts
        if self._over(key) or (ends and self._wall() >= ssl.cert_time_to_seconds(ends)):
            raise self._failed("expired", "these credentials have expired")
        self.counters["certificate"] += 1
        return key.principal

    def _by_token(self, content: Credentials, given: str, source: str) -> Principal:
        now = self._clock()
        bearer = _BEARER.fullmatch(given)
        token = bearer[1] if bearer else ""
        number = key_id(token)
        key = None if number is None else content.by_id.get(number)
        digest = hmac.digest(self._secret, token.encode(), "sha256")
        if key is not None and self._good.get(digest) == key.hash and not self._over(key):
            self._good.move_to_end(digest)
            self.counters["token"] += 1
            return key.principal
        if self.failures.level(source, now) < 1:
            self.counters["throttled"] += 1
            wait = max(1, round(self.failures.wait(source, now) + 0.5))
            raise Problem(429, "too many wrong credentials from this address", headers={"Retry-After": str(wait)})
        if bearer is None or number is None:
            raise self._failed("malformed", "this is not a token of ours", source)
        if key is None:
            raise self._failed("unknown-token", "this token is not known", source)
        wrong = hmac.digest(self._secret, f"{token} {key.hash}".encode(), "sha256")
        if wrong in self._wrong or not self._slowly(token, key.hash):
            _remember(self._wrong, wrong, None)
            raise self._failed("wrong-token", "this token is not known", source)
        if self._over(key):
            raise self._failed("expired", "these credentials have expired", source)
        _remember(self._good, digest, key.hash)
        self.counters["token"] += 1
        return key.principal

    def _slowly(self, token: str, kept: str) -> bool:
        with self._in_turn():
            self.counters["slow-hash"] += 1
            return self._offload(lambda: verify(token, kept))

    @contextmanager
    def _in_turn(self) -> Any:
        if self._in_line >= IN_LINE:
            self.counters["busy"] += 1
            raise Problem(503, "too many tokens are being verified", headers={"Retry-After": "1"})
        self._in_line += 1
        try:
            with self._turn:
                yield
        finally:
            self._in_line -= 1

    def handshake_failed(self) -> None:
        """A TLS handshake came to nothing: no certificate, a wrong one, or no TLS at all."""
        self.counters["handshake-failed"] += 1

    def missing(self) -> Problem:
        """The refusal of whoever shows nothing."""
        self.counters["missing"] += 1
        return unauthorised("credentials are needed: a bearer token or a client certificate")

    def forbidden(self, principal: Principal, what: str) -> Problem:
        """The refusal of somebody whose role does not do."""
        self.counters["forbidden"] += 1
        return Problem(403, f"{what} is not for the role {principal.role}", details={"role": principal.role})

    def _failed(self, outcome: str, why: str, source: str | None = None) -> Problem:
        self.counters[outcome] += 1
        if source is not None:
            self.failures.take(source, self._clock())
        return unauthorised(why, invalid=True)


def unauthorised(why: str, *, invalid: bool = False) -> Problem:
    """The refusal of whoever has not shown who they are (RFC 6750, section 3)."""
    challenge = 'Bearer realm="ryu_vmm"' + (', error="invalid_token"' if invalid else "")
    return Problem(401, why, headers={"WWW-Authenticate": challenge})


def _remember(memory: OrderedDict[bytes, Any], digest: bytes, value: Any) -> None:
    memory[digest] = value
    memory.move_to_end(digest)
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)


def identities(certificate: Mapping[str, Any]) -> Iterable[str]:
    """Whom a certificate is for, as the credentials file spells it.

    >>> list(identities({"subject": ((("commonName", "h1"),),), "subjectAltName": (("DNS", "h1.example.org"),)}))
    ['CN:h1', 'DNS:h1.example.org']
    """
    for relative in certificate.get("subject", ()):
        for name, value in relative:
            if name == "commonName":
                yield f"CN:{value}"
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in _KINDS:
            yield f"{_KINDS[kind]}:{value}"
