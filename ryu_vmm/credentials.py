"""Who may ask the NVA for something: the credentials file, tokens and their hashes.

The file is JSON and says of each principal its role and by what it is known::

    {"principals": [
      {"name": "ops", "role": "admin", "tokens": [{"id": "0f3a91c2", "hash": "scrypt:16384:8:1:..."}]},
      {"name": "acme", "role": "tenant", "tenant": "acme", "ports": ["*/acme-*"], "tokens": [...]},
      {"name": "host1", "role": "hypervisor", "nves": ["nve1"], "certificates": ["DNS:host1.example.org"]}]}

A token is ``vmm-ID-SECRET``: the id finds its one hash, so a guess costs at most one slow comparison. The secret has
256 random bits and is nowhere kept; its scrypt hash (RFC 7914) has a salt of its own. ``vmm credentials`` writes the
file.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from .checking import check, strict_json
from .errors import InvalidInput, VmmError
from .fields import Input, Name, Words
from .rest.roles import Role

__all__ = [
    "Credentials",
    "CredentialsUnusable",
    "Entry",
    "File",
    "Key",
    "KeyEntry",
    "Principal",
    "key_id",
    "load",
    "new_token",
    "parse",
    "redacted",
    "save",
    "slow_hash",
    "verify",
]

#: Cost of a hash: 16 MiB and some 50 ms (OWASP's least for scrypt is a little more memory, for secrets people choose).
COST, BLOCK, PARALLEL = 1 << 14, 8, 1
#: Larger files are refused before they are read.
MAX_BYTES = 4 << 20
_TOKEN = re.compile(r"vmm-([0-9a-f]{8})-([A-Za-z0-9_-]{43})")
_ANY_TOKEN = re.compile(r"vmm-[0-9a-f]{8}-[A-Za-z0-9_%-]{8,}")
_HASH = re.compile(r"scrypt:(\d{1,7}):(\d{1,2}):(\d{1,2}):([A-Za-z0-9+/]{22,}={0,2}):([A-Za-z0-9+/]{43}=)")
_IDENTITY = re.compile(r"(CN|DNS|URI|IP|EMAIL):[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")
_NAMES = re.compile(r"[a-z0-9_.*?\[\]-]{1,253}")
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]-]{1,63}/[!-.0-~]{1,63}")


class CredentialsUnusable(VmmError):
    """The credentials file cannot be read, is open to others, or is wrong."""

    code = "credentials-unusable"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may ask.

    Attributes:
        name: as in the credentials file; "local" for whoever is on this machine while there is none.
        role: what they may do.
        tenant: whose VMs they see, for the role of a tenant.
        nves: those that a hypervisor speaks for.
        ports: where a tenant may attach VMs, as NVE/PORT with ``*``, ``?`` and ``[...]``.
        dns: names that its interfaces may have in the domain name system, with the same.
        via: what they showed: ``token``, ``certificate`` or ``local``.
        key: id of the token, or the identity in the certificate.
    """

    name: str
    role: Role
    tenant: str | None = None
    nves: frozenset[str] = frozenset()
    ports: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    via: str = "local"
    key: str = ""


# --- the file ------------------------------------------------------------------------------------------------
def _hashed(given: str) -> str:
    # The value is not part of the message: somebody may have put the token itself here.
    if not _HASH.fullmatch(given):
        raise ValueError("is not a hash of the form scrypt:COST:BLOCK:PARALLEL:SALT:DIGEST")
    cost, block, parallel = (int(part) for part in given.split(":")[1:4])
    if cost < 2 or cost & (cost - 1) or not block or not parallel or cost * block * parallel > 1 << 20:
        raise ValueError("is a hash of unusable cost")
    return given


def _identity(given: str) -> str:
    if not _IDENTITY.fullmatch(given):
        raise ValueError("is not of the form CN:..., DNS:..., URI:..., IP:... or EMAIL:...")
    return given


def _pattern(given: str) -> str:
    if not _PATTERN.fullmatch(given):
        raise ValueError("is not of the form NVE/PORT, of which both may have wildcards")
    return given


def _names(given: str) -> str:
    if not _NAMES.fullmatch(given):
        raise ValueError("is not a name in lower case, which may have wildcards")
    return given


class KeyEntry(Input):
    """A token, by its id and hash."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    hash: Annotated[str, AfterValidator(_hashed)]
    created: AwareDatetime | None = None
    expires: AwareDatetime | None = None


class Entry(Input):
    """A principal as the file has it."""

    name: Name
    role: Role
    tenant: Name | None = None
    nves: list[Name] = []
    ports: list[Annotated[str, AfterValidator(_pattern)]] = []
    dns: list[Annotated[str, AfterValidator(_names)]] = []
    tokens: list[KeyEntry] = []
    certificates: list[Annotated[str, AfterValidator(_identity)]] = []
    expires: AwareDatetime | None = None
    note: Words | None = None

    @model_validator(mode="after")
    def _fitting(self) -> Entry:
        for what, role in (("tenant", Role.TENANT), ("nves", Role.HYPERVISOR)):
            if bool(getattr(self, what)) != (self.role is role):
                raise ValueError(f"{what} goes with the role {role} and with no other")
        for what in ("ports", "dns"):
            if getattr(self, what) and self.role is not Role.TENANT:
                raise ValueError(f"{what} are for tenants")
        return self


class File(Input):
    """The whole file."""

    principals: list[Entry] = []

    @model_validator(mode="after")
    def _distinct(self) -> File:
        seen: set[str] = set()
        for entry in self.principals:
            for what in (f"name {entry.name}", *(f"token id {key.id}" for key in entry.tokens), *entry.certificates):
                if what in seen:
                    raise ValueError(f"{what} occurs twice")
                seen.add(what)
        return self


@dataclass(frozen=True, slots=True)
class Key:
    """A token's hash, whom it stands for, and until when (Unix time, None: for good)."""

    principal: Principal
    hash: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the file comes to: keys by token id, and by identity in a certificate."""

    by_id: dict[str, Key] = field(default_factory=dict)
    by_identity: dict[str, Key] = field(default_factory=dict)

    @classmethod
    def of(cls, file: File) -> Credentials:
        """Index a file."""
        made = cls()
        for entry in file.principals:
            granted = (frozenset(entry.nves), tuple(entry.ports), tuple(entry.dns))
            whose = (entry.name, entry.role, entry.tenant, *granted)
            for key in entry.tokens:
                ends = [end.timestamp() for end in (entry.expires, key.expires) if end is not None]
                made.by_id[key.id] = Key(Principal(*whose, "token", key.id), key.hash, min(ends, default=None))
            for identity in entry.certificates:
                until = None if entry.expires is None else entry.expires.timestamp()
                made.by_identity[identity] = Key(Principal(*whose, "certificate", identity), "", until)
        return made


def load(path: str | Path) -> File:
    """Read and check the file. CredentialsUnusable says what is wrong, and never what is in it."""
    try:
        with open(path, "rb") as file:
            _guarded(path, os.fstat(file.fileno()))
            content = file.read(MAX_BYTES + 1)
    except OSError as e:
        raise CredentialsUnusable(f"credentials {path}: {e.strerror}", path=str(path)) from None
    if len(content) > MAX_BYTES:
        raise CredentialsUnusable(f"credentials {path}: larger than {MAX_BYTES >> 20} MiB", path=str(path))
    return parse(content, str(path))


def parse(content: bytes, path: str) -> File:
    """Check the content of a file. Raises as :func:`load`."""
    try:
        return check(File, strict_json(content.decode()))
    except UnicodeDecodeError:
        why = "not UTF-8"
    except json.JSONDecodeError as e:
        why = f"not JSON: {e.msg}, line {e.lineno}"
    except ValueError as e:
        why = f"not JSON: {e}"
    except InvalidInput as e:
        why = e.message
    raise CredentialsUnusable(redacted(f"credentials {path}: {why}"), path=path)


def _guarded(path: str | Path, found: os.stat_result) -> None:
    """Refuse a file that others than its owner and group may read, or than its owner may write."""
    if not stat.S_ISREG(found.st_mode):
        raise CredentialsUnusable(f"credentials {path}: not a regular file", path=str(path))
    if found.st_mode & 0o027:
        mode = stat.S_IMODE(found.st_mode)
        message = f"credentials {path}: open to others (mode {mode:04o}); chmod 0600, or 0640 for a group"
        raise CredentialsUnusable(message, path=str(path))
    if found.st_uid not in (0, os.geteuid()):
        raise CredentialsUnusable(f"credentials {path}: belongs to another user ({found.st_uid})", path=str(path))


def save(path: str | Path, file: File) -> None:
    """Write the file in one step, for its owner alone (a group that could read it still can). OSError."""
    target = Path(os.path.realpath(path))
    content = json.dumps(file.model_dump(mode="json", exclude_defaults=True), indent=2) + "\n"
    before = os.stat(target) if target.exists() else None
    descriptor, made = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as new:
            if before is not None and os.geteuid() == 0:
                os.fchown(new.fileno(), before.st_uid, before.st_gid)
            if before is not None and stat.S_IMODE(before.st_mode) == 0o640:
                os.fchmod(new.fileno(), 0o640)
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
        os.replace(made, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(made)
        raise


# --- tokens --------------------------------------------------------------------------------------------------
def new_token(expires: datetime | None = None) -> tuple[str, KeyEntry]:
    """A fresh token, which is shown once, and what is kept of it."""
    number, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    now = datetime.now(UTC).replace(microsecond=0)
    return f"vmm-{number}-{secret}", KeyEntry(id=number, hash=slow_hash(secret), created=now, expires=expires)


def key_id(token: str) -> str | None:
    """The id in a token, None if it is none of ours."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else found[1]


def slow_hash(secret: str, salt: bytes | None = None, cost: tuple[int, int, int] = (COST, BLOCK, PARALLEL)) -> str:
    """The salted scrypt hash of a token's secret part, as the file has it."""
    salt = salt or secrets.token_bytes(16)
    n, r, p = cost
    digest = hashlib.scrypt(secret.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r * p + (1 << 20), dklen=32)
    return f"scrypt:{n}:{r}:{p}:{base64.b64encode(salt).decode()}:{base64.b64encode(digest).decode()}"


def verify(token: str, kept: str) -> bool:
    """Whether a token has this hash. Slow by design; how long it takes does not depend on how much is right."""
    found, parts = _TOKEN.fullmatch(token), kept.split(":")
    if found is None or not _HASH.fullmatch(kept):
        return False
    cost = (int(parts[1]), int(parts[2]), int(parts[3]))
    return hmac.compare_digest(slow_hash(found[2], base64.b64decode(parts[4]), cost), kept)


def redacted(text: str, *secret: str) -> str:
    """A text without anything that looks like a token, nor the given secrets."""
    for word in secret:
        if word:
            text = text.replace(word, "***")
    return _ANY_TOKEN.sub("***", text)


def described(entry: Entry) -> dict[str, Any]:
    """A principal for people and programs: everything but the hashes."""
    document = entry.model_dump(mode="json", exclude={"tokens"})
    document["tokens"] = [key.model_dump(mode="json", exclude={"hash"}) for key in entry.tokens]
    return document
