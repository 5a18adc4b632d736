"""Who changed what, who tried to, and what came of it: a table that is only ever added to, beside the records.

Changes and refused attempts are bounded separately, so that nobody pushes the former out by piling up the latter, and
refused attempts are recorded at a bounded rate; those left out are counted in the next one that is not.
"""

from __future__ import annotations

import enum
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .credentials import redacted
from .errors import ShuttingDown, StoreUnavailable

__all__ = ["KEEP", "AuditTrail", "Deed", "Result"]

LOG = logging.getLogger("ryu_vmm.audit")
#: Changes kept, and as many refused attempts.
KEEP = 100_000
#: Refused attempts that are recorded at once, and a second from then on.
BURST, RATE = 200, 5.0
#: Characters of a request's body that are kept.
BODY = 2000
_COLUMNS = "at, principal, role, via, address, method, path, body, status, code, result, more"


class Result(enum.StrEnum):
    """What came of an attempt.

    done: it was. refused: it was asked for by somebody who may, and could not be. denied: who asked may not, or did not
    say who they are. failed: the NVA's fault.
    """

    DONE = "done"
    REFUSED = "refused"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Deed:
    """One attempt.

    Attributes:
        at: Unix time.
        principal, role, via: who, as what, by what they were known; None: nobody knows.
        address: where from.
        method, path: what.
        body: the document that came with it, as JSON text; None for none.
        status, code: what was answered; the code of a problem, else None.
        result: in a word.
        more: attempts of this kind before it that were not recorded.
    """

    at: float
    principal: str | None
    role: str | None
    via: str | None
    address: str
    method: str
    path: str
    body: str | None
    status: int
    code: str | None
    result: Result
    more: int = 0


class AuditTrail:
    """The record of deeds.

    Args:
        path: a SQLite file, which may be the store's; ``:memory:`` forgets.
        keep: deeds kept, changes and refused attempts each.
        clock: seconds, for the rate of refused attempts.

    Attributes:
        unrecorded: refused attempts that were not recorded, for their number.

    Raises:
        StoreUnavailable: the file cannot be opened.
    """

    def __init__(
        self, path: str | Path, keep: int = KEEP, *, clock: Callable[[], float] = time.monotonic, patience: float = 1.0
    ) -> None:
        self.keep = keep
        self.unrecorded = 0
        self._path, self._clock = str(path), clock
        self._lock = threading.Lock()
        self._room, self._at, self._left_out = float(BURST), clock(), 0
        self._trouble = ""
        self._closed = False
        self._since_trim = {True: 0, False: 0}
        try:
            self._db = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
            # A commit survives the end of this process; the disk has it soon after.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS audit (id INTEGER PRIMARY KEY AUTOINCREMENT, denied INTEGER NOT NULL, "
                "at REAL NOT NULL, principal TEXT, role TEXT, via TEXT, address TEXT NOT NULL, method TEXT NOT NULL, "
                "path TEXT NOT NULL, body TEXT, status INTEGER NOT NULL, code TEXT, result TEXT NOT NULL, "
                "more INTEGER NOT NULL)"
            )
            self._db.execute("CREATE INDEX IF NOT EXISTS audit_denied ON audit (denied, id)")
            # Not even this program changes what is written.
            self._db.execute(
                "CREATE TRIGGER IF NOT EXISTS audit_is_final BEFORE UPDATE ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END"
            )
        except sqlite3.Error as error:
            raise StoreUnavailable(f"cannot open the audit in {path}: {error}", path=str(path)) from error

    def require(self) -> None:
        """Raise StoreUnavailable if nothing can be recorded: then nothing may be changed either."""
        if self._closed:
            raise ShuttingDown
        if not self._trouble:
            return
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise StoreUnavailable(f"the audit cannot be written: {error}") from error
            self._trouble = ""

    def add(self, deed: Deed) -> None:
        """Record a deed, and log it. What cannot be recorded is logged as an error."""
        with self._lock:
            denied = deed.result is Result.DENIED
            if denied and not self._worth(deed):
                return
            more, self._left_out = (self._left_out, 0) if denied else (0, self._left_out)
            path = redacted(deed.path)[:512]
            body = None if deed.body is None else redacted(deed.body)[:BODY]
            who = deed.principal or "nobody"
            LOG.info(
                "%s %s from %s: %s %s: %d %s%s",
                deed.result, who, deed.address, deed.method, path, deed.status, deed.code or "",
                f" ({more} more before)" if more else "",
            )  # fmt: skip
            row = (
                denied, deed.at, deed.principal, deed.role, deed.via, deed.address, deed.method, path, body,
                deed.status, deed.code, str(deed.result), more,
            )  # fmt: skip
            if self._closed:
                return  # nothing was changed: whoever asks now is refused
            try:
                self._db.execute(
                    f"INSERT INTO audit (denied, {_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row
                )
                self._trim(denied)
                self._trouble = ""
            except sqlite3.Error as error:
                if not self._trouble:
                    LOG.error("the audit cannot be written: %s", error)
                self._trouble = str(error)

    def _worth(self, deed: Deed) -> bool:
        now = self._clock()
        self._room = min(float(BURST), self._room + (now - self._at) * RATE)
        self._at = now
        if self._room < 1:
            self._left_out += 1
            self.unrecorded += 1
            return False
        self._room -= 1
        return True

    def _trim(self, denied: bool) -> None:
        """Forget the oldest, now and then: the table is at most a hundredth larger than it may be."""
        self._since_trim[denied] += 1
        if self._since_trim[denied] * 100 < self.keep and self._since_trim[denied] > 1:
            return
        self._since_trim[denied] = 1
        oldest = "SELECT id FROM audit WHERE denied = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2"
        self._db.execute(f"DELETE FROM audit WHERE denied = ?1 AND id <= ({oldest})", (denied, self.keep))

    def page(
        self,
        limit: int,
        before: int | None = None,
        *,
        principal: str | None = None,
        result: str | None = None,
        method: str | None = None,
    ) -> list[dict[str, Any]]:
        """Up to ``limit`` deeds, newest first, with a number below ``before``. StoreUnavailable."""
        wanted = {"id <": before, "principal =": principal, "result =": result, "method =": method}
        given = {test: value for test, value in wanted.items() if value is not None}
        where = " AND ".join(f"{test} ?" for test in given) or "1"
        query = f"SELECT id, {_COLUMNS} FROM audit WHERE {where} ORDER BY id DESC LIMIT ?"
        names = ["id", *_COLUMNS.split(", ")]
        with self._lock:
            if self._closed:
                raise ShuttingDown
            try:
                rows = self._db.execute(query, (*given.values(), limit)).fetchall()
            except sqlite3.Error as error:
                raise StoreUnavailable(f"cannot read the audit: {error}") from error
        return [dict(zip(names, row, strict=True)) for row in rows]

    def close(self) -> None:
        """Close the file; further deeds are in the log only."""
        with self._lock:
            self._closed = True
            self._db.close()


def started_with(inventory: str, applied: Any) -> Deed:
    """The deed of whoever starts the NVA with an inventory file."""
    return Deed(
        at=time.time(), principal=None, role=None, via="inventory", address="-", method="START", path=inventory,
        body=text_of(applied), status=200, code=None, result=Result.DONE,
    )  # fmt: skip


def text_of(document: Any) -> str | None:
    """A request's document as it is kept: compact, of bounded length."""
    if document is None or document == {}:
        return None
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, default=str)
    return text if len(text) <= BODY else text[: BODY - 3] + "..."
