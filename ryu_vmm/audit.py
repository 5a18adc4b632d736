"""Who changed what, who tried to, and what came of it: a table that is only ever added to, beside the records.

What is about to change something is recorded before (:meth:`AuditTrail.begin`), and what came of it is put in once. So
nothing is changed that nothing can be recorded of, and where the second does not come about, the first says so.

Changes and refused attempts are bounded separately, so that nobody pushes the former out by piling up the latter, and
refused attempts are recorded at a bounded rate; those left out are counted in the next one that is not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .credentials import redacted
from .errors import ShuttingDown, StoreUnavailable
from .results import Result
from .texts import printable
from .transactions import transaction

__all__ = ["KEEP", "AuditTrail", "Deed", "Result", "started_with", "text_of"]

LOG = logging.getLogger("ryu_vmm.audit")
#: Changes kept, and as many refused attempts.
KEEP = 100_000
#: Refused attempts that are recorded at once, and a second from then on.
BURST, RATE = 200, 5.0
#: Characters of a request's body that are kept.
BODY = 2000
#: What came of changes that could not be recorded when it should have been; as many requests are answered at a time.
OWED = 1000
_COLUMNS = "at, principal, role, via, address, method, path, body, status, code, result, more"
#: Of an entry that ends, what must stay as it was.
_OTHER = " OR ".join(
    f"NEW.{name} IS NOT OLD.{name}"
    for name in ("id", "denied", *_COLUMNS.split(", "))
    if name not in ("status", "code", "result", "body")
) + " OR OLD.body IS NOT NULL AND NEW.body IS NOT OLD.body"


@dataclass(frozen=True, slots=True)
class Deed:
    """One attempt.

    Attributes:
        at: Unix time.
        principal, role, via: who, as what, by what they were known; None: nobody knows.
        address: where from.
        method, path: what.
        body: the document that came with it, as JSON text; None for none.
        status, code: what was answered, 0: nothing yet; the code of a problem, else None.
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
    status: int = 0
    code: str | None = None
    result: Result = Result.BEGUN
    more: int = 0


class AuditTrail:
    """The record of deeds.

    Args:
        path: a SQLite file, which may be the store's; ``:memory:`` forgets.
        keep: deeds kept, changes and refused attempts each.
        clock: seconds, for the rate of refused attempts.
        patience: seconds to wait for a lock that another program holds on the file; the whole authority waits as long.

    Attributes:
        unrecorded: attempts that changed nothing and were not recorded, for their number or as nothing could be.

    Raises:
        StoreUnavailable: the file cannot be opened.
    """

    def __init__(
        self, path: str | Path, keep: int = KEEP, *, clock: Callable[[], float] = time.monotonic, patience: float = 0.1
    ) -> None:
        self.keep = keep
        self.unrecorded = 0
        self._path, self._clock = str(path), clock
        self._lock = threading.Lock()
        self._room, self._at, self._left_out = float(BURST), clock(), 0
        self._trouble = ""
        self._owed: deque[tuple[int | None, Deed]] = deque(maxlen=OWED)
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
            # Not even this program changes what is written; what came of what was begun is put in once.
            self._db.execute("DROP TRIGGER IF EXISTS audit_is_final")
            self._db.execute(
                "CREATE TRIGGER IF NOT EXISTS audit_ends_once BEFORE UPDATE ON audit "
                f"WHEN OLD.result != 'begun' OR {_OTHER} BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END"
            )
        except sqlite3.Error as error:
            raise StoreUnavailable(f"cannot open the audit in {path}: {error}", path=str(path)) from error

    @property
    def trouble(self) -> str:
        """Why it cannot be written, as it turned out last; empty: it can."""
        return self._trouble

    def require(self) -> None:
        """Raise StoreUnavailable if nothing can be recorded: then nothing may be changed either.

        What could not be recorded before is recorded first. That there is room for more, only :meth:`begin` tells.
        """
        if self._closed:
            raise ShuttingDown
        with self._lock:
            if not self._trouble:
                return
            try:
                self._pay()
                with transaction(self._db):  # an entry is written and taken out again, whatever its size
                    written = self._insert(False, Deed(0.0, None, None, None, "-", "-", "-", "x" * BODY), 0)
                    self._db.execute("DELETE FROM audit WHERE id = ?", (written,))
            except sqlite3.Error as error:
                raise self._in_trouble(error) from error
            self._trouble = ""

    def begin(self, deed: Deed) -> int:
        """Record that something is about to be done; the number of its entry, for :meth:`end`.

        Raises:
            StoreUnavailable: nothing can be recorded, so it may not be done.
            ShuttingDown: after :meth:`close`.
        """
        with self._lock:
            if self._closed:
                raise ShuttingDown
            try:
                self._pay()
                number = self._insert(False, deed, 0)
            except sqlite3.Error as error:
                raise self._in_trouble(error) from error
            self._trouble = ""
            self._trim(False)
            return number

    def end(self, number: int, deed: Deed) -> None:
        """Record what came of what was begun, and log it. If it cannot be now, it is as soon as anything can."""
        if deed.result is Result.DENIED:  # who asked may not: it is bounded with the other refused attempts
            with self._lock, contextlib.suppress(sqlite3.Error):
                self._db.execute("DELETE FROM audit WHERE id = ? AND result = 'begun'", (number,))
            self.add(deed)
            return
        with self._lock:
            _log(deed, 0)
            if self._closed:
                return
            self._owed.append((number, deed))
            self._try_to_pay()

    def add(self, deed: Deed) -> None:
        """Record a deed that nobody has begun, and log it. One that changed something is recorded later, if it cannot
        be now; of others it is counted that they were not."""
        with self._lock:
            denied = deed.result is Result.DENIED
            if denied and not self._worth(deed):
                return
            more, self._left_out = (self._left_out, 0) if denied else (0, self._left_out)
            _log(deed, more)
            if self._closed:
                return  # nothing was changed: whoever asks now is refused
            if deed.result is Result.DONE:
                self._owed.append((None, deed))
                self._try_to_pay()
                return
            try:
                self._insert(denied, deed, more)
                self._trouble = ""
                self._trim(denied)
            except sqlite3.Error as error:
                self.unrecorded += 1
                self._in_trouble(error)

    def _pay(self) -> None:
        """Record what could not be recorded when it should have been. sqlite3.Error: it still cannot be."""
        while self._owed:
            number, deed = self._owed[0]
            if number is None:
                self._insert(False, deed, 0)
                self._trim(False)
            else:
                self._db.execute(
                    "UPDATE audit SET status = ?, code = ?, result = ?, body = coalesce(body, ?) "
                    "WHERE id = ? AND result = 'begun'",
                    _fit(deed.status, deed.code, deed.result, _body(deed), number),
                )
            self._owed.popleft()

    def _try_to_pay(self) -> None:
        try:
            self._pay()
            self._trouble = ""
        except sqlite3.Error as error:
            self._in_trouble(error)

    def _in_trouble(self, error: sqlite3.Error) -> StoreUnavailable:
        if not self._trouble:
            LOG.error("the audit cannot be written: %s", error)
        self._trouble = str(error)
        return StoreUnavailable(f"the audit cannot be written: {error}")

    def _insert(self, denied: bool, deed: Deed, more: int) -> int:
        row = _fit(
            denied, deed.at, deed.principal, deed.role, deed.via, deed.address, deed.method, _shown(deed), _body(deed),
            deed.status, deed.code, deed.result, more,
        )  # fmt: skip
        made = self._db.execute(f"INSERT INTO audit (denied, {_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)
        return int(made.lastrowid or 0)

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
        """Forget the oldest, now and then: the table is at most a hundredth larger than it may be. If that fails, it is
        tried again; what was recorded is."""
        self._since_trim[denied] += 1
        if self._since_trim[denied] * 100 < self.keep and self._since_trim[denied] > 1:
            return
        self._since_trim[denied] = 1
        oldest = "SELECT id FROM audit WHERE denied = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2"
        try:
            self._db.execute(f"DELETE FROM audit WHERE denied = ?1 AND id <= ({oldest})", (denied, self.keep))
        except sqlite3.Error as error:
            self._since_trim[denied] = self.keep
            LOG.warning("old entries of the audit stay: %s", error)

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


def started_with(inventory: str, applied: Any = None) -> Deed:
    """The deed of whoever starts the NVA with an inventory file; ``applied``: what came of it, None: it is to begin."""
    done = applied is not None
    return Deed(
        at=time.time(), principal=None, role=None, via="inventory", address="-", method="START", path=inventory,
        body=text_of(applied), status=200 if done else 0, result=Result.DONE if done else Result.BEGUN,
    )  # fmt: skip


def _shown(deed: Deed) -> str:
    return redacted(deed.path)[:512]


def _body(deed: Deed) -> str | None:
    return None if deed.body is None else redacted(deed.body)[:BODY]


def _fit(*values: str | float | None) -> list[str | float | None]:
    """Values as SQLite takes them, whatever is in them: what is no text is kept as escapes."""
    return [v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for v in values]


def _log(deed: Deed, more: int) -> None:
    who = f"{deed.principal or 'nobody'} from {deed.address}"
    before = f" ({more} more before)" if more else ""
    done = f"{deed.result} {who}: {deed.method} {_shown(deed)}: {deed.status} {deed.code or ''}{before}"
    LOG.info("%s", printable(done))


def text_of(document: Any) -> str | None:
    """A request's document as it is kept: compact, of bounded length."""
    if document is None or document == {}:
        return None
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, default=str)
    return text if len(text) <= BODY else text[: BODY - 3] + "..."
