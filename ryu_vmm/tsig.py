"""The key that updates of names are signed with (TSIG, RFC 8945), from a file as ``tsig-keygen`` writes it.

    key "nva" {
            algorithm hmac-sha256;
            secret "bm90IGEgcmVhbCBzZWNyZXQsIGJ1dCBvZiAzMiBieXQ=";
    };

That is named.conf's ``key`` statement, comments included. Nothing here repeats a secret: neither errors nor ``repr``.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

import dns.exception
import dns.name
import dns.tsig

from .errors import VmmError

__all__ = ["ALGORITHMS", "Key", "KeyFile", "KeyUnusable", "parse_key", "read_key"]

LOG = logging.getLogger("ryu_vmm.names")
#: What a signature may be made with: RFC 8945 section 6 says of all others that they need not be there or must not.
ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512")
#: Shortest secret, in bytes: half of SHA-256's digest. ``tsig-keygen`` makes as many as the digest has.
SHORTEST = 16
#: Longest file, in bytes.
LONGEST = 1 << 16
_TOKEN = re.compile(
    r"""(?P<space> \s+ | \#[^\n]* | //[^\n]* | /\*.*?\*/ )
      | (?P<mark> [{};] )
      | "(?P<quoted> [^"\\\n]* )"
      | (?P<word> [^\s{};"\#/]+ (?: /(?![/*]) [^\s{};"\#/]* )* )""",
    re.VERBOSE | re.DOTALL,
)


class KeyUnusable(VmmError):
    """A key file cannot be read, is open to everybody, or does not hold one usable key."""

    code = "key-unusable"


@dataclass(frozen=True, slots=True)
class Key:
    """A TSIG key. ``name``: absolute, lower case, without final dot; ``algorithm``: one of ALGORITHMS."""

    name: str
    algorithm: str
    secret: bytes = field(repr=False)

    def for_dnspython(self) -> dns.tsig.Key:
        """The same for dnspython, whose ``repr`` shows the secret: keep it out of what is logged or raised."""
        return dns.tsig.Key(dns.name.from_text(self.name), self.secret, self.algorithm)


def read_key(path: str) -> Key:
    """The key in a file. KeyUnusable says what is wrong with it, and where."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise KeyUnusable(f"key file {path} is not a regular file", path=path)
            if status.st_mode & stat.S_IRWXO:
                mode = stat.S_IMODE(status.st_mode)
                raise KeyUnusable(f"key file {path} is open to every user (mode {mode:04o}); chmod o= it", path=path)
            content = os.read(descriptor, LONGEST + 1)
        finally:
            os.close(descriptor)
    except OSError as e:
        raise KeyUnusable(f"key file {path} cannot be read: {e.strerror}", path=path) from e
    if len(content) > LONGEST:
        raise KeyUnusable(f"key file {path} is longer than a key statement", path=path)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise KeyUnusable(f"key file {path} is not text", path=path) from None
    try:
        return parse_key(text)
    except KeyUnusable as e:
        raise KeyUnusable(f"key file {path}: {e.message}", path=path) from None


def parse_key(text: str) -> Key:
    """The one ``key`` statement in a text. KeyUnusable, without any of the text but plain words of its grammar."""
    tokens = _Tokens(text)
    tokens.expect("key")
    given, _ = tokens.word("the key's name")
    tokens.expect("{")
    clauses: dict[str, str] = {}
    while True:
        word, line = tokens.next("algorithm, secret or }")
        if word == "}":
            break
        if word not in ("algorithm", "secret"):
            raise KeyUnusable(f"line {line}: here should be algorithm, secret or }}")
        if word in clauses:
            raise KeyUnusable(f"line {line}: {word} a second time")
        clauses[word], _ = tokens.word(f"the {word}")
        tokens.expect(";")
    tokens.expect(";")
    if not tokens.ended:
        raise KeyUnusable(f"line {tokens.line}: something follows the key statement; one key is all there may be")
    for word in ("algorithm", "secret"):
        if word not in clauses:
            raise KeyUnusable(f"the key statement has no {word}")
    return Key(_name(given), _algorithm(clauses["algorithm"]), _secret(clauses["secret"]))


class _Tokens:
    """The tokens of a text with their lines, comments left out."""

    def __init__(self, text: str) -> None:
        self._found = list(self._scan(text))
        self._at = 0
        self._last = text.count("\n") + 1

    @staticmethod
    def _scan(text: str) -> Iterator[tuple[str, bool, int]]:
        at = 0
        while at < len(text):
            line = text.count("\n", 0, at) + 1
            match = _TOKEN.match(text, at)
            if match is None:
                what = {'"': "a quotation mark without its other one", "/": "a comment without its end"}
                raise KeyUnusable(f"line {line}: {what.get(text[at], 'this is not a key statement')}")
            at = match.end()
            if match["space"] is None:
                quoted = match["quoted"] is not None
                yield match["quoted"] if quoted else match[0], quoted, line

    @property
    def ended(self) -> bool:
        return self._at == len(self._found)

    @property
    def line(self) -> int:
        return self._last if self.ended else self._found[self._at][2]

    def next(self, wanted: str) -> tuple[str, int]:
        """The next one that is not quoted, in lower case, and its line."""
        text, quoted, line = self._take(wanted)
        if quoted:
            raise KeyUnusable(f"line {line}: here should be {wanted}")
        return text.lower(), line

    def expect(self, wanted: str) -> None:
        """Take this one."""
        found, line = self.next(wanted)
        if found != wanted:
            raise KeyUnusable(f"line {line}: here should be {wanted}")

    def word(self, what: str) -> tuple[str, int]:
        """A word, quoted or not."""
        text, quoted, line = self._take(what)
        if not quoted and text in "{};":
            raise KeyUnusable(f"line {line}: {what} is missing")
        return text, line

    def _take(self, wanted: str) -> tuple[str, bool, int]:
        if self.ended:
            raise KeyUnusable(f"line {self._last}: it ends where {wanted} should be")
        self._at += 1
        return self._found[self._at - 1]


def _name(given: str) -> str:
    try:
        name = dns.name.from_text(given)
    except (dns.exception.DNSException, UnicodeError):
        raise KeyUnusable("the key's name is not a domain name") from None
    if name == dns.name.root:
        raise KeyUnusable("the key has no name")
    return name.to_text(omit_final_dot=True).lower()


def _algorithm(given: str) -> str:
    name = given.lower().removesuffix(".")
    if name not in ALGORITHMS:
        raise KeyUnusable(f"its algorithm is none of {', '.join(ALGORITHMS)}")
    return name


def _secret(given: str) -> bytes:
    try:
        secret = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise KeyUnusable("the secret is not base64") from None
    if len(secret) < SHORTEST:
        raise KeyUnusable(f"the secret has {8 * len(secret)} bits; it takes {8 * SHORTEST}")
    return secret


class KeyFile:
    """The key in a file, read again when the file changes, and kept when it cannot be used any more.

    Args:
        path: the file.

    Raises:
        KeyUnusable: it cannot be used now.
    """

    def __init__(self, path: str) -> None:
        self._path, self._seen, self._key = path, self._look(path), read_key(path)

    @staticmethod
    def _look(path: str) -> tuple[int, ...]:
        try:
            status = os.stat(path)
        except OSError as e:
            return (e.errno or 0,)
        return status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode

    def current(self) -> Key:
        """The key as it is now."""
        seen = self._look(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._key = read_key(self._path)
                LOG.info("key %s read again from %s", self._key.name, self._path)
            except KeyUnusable as e:
                LOG.error("%s; the key read before stays in use", e.message)
        return self._key
