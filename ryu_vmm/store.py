"""What survives: records in one SQLite file.

WAL journal: a commit that has returned survives the end of this process, and a durable one that of the machine. One
process at a time owns a store; a second one is refused by a lock beside the file, since two authorities over the same
switches would fight.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import ConfigDict, TypeAdapter

from .domains import Hop, Offer
from .effects import Record
from .errors import StoreUnavailable
from .lockfile import Held, hold
from .model import (
    Changed,
    Evacuation,
    Evacuee,
    Frozen,
    Holder,
    Interface,
    Left,
    Move,
    Network,
    Nve,
    Place,
    Published,
    Sought,
    Vanished,
    Vm,
    Wish,
)
from .transactions import transaction

_VERSION = 1
_CONFIG = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex")
# In a one-element tuple, because pydantic lets a plain dataclass inherit a configuration but not be given one.
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "nves": TypeAdapter(tuple[Nve], config=_CONFIG),
    "networks": TypeAdapter(tuple[Network], config=_CONFIG),
    "vms": TypeAdapter(tuple[Vm], config=_CONFIG),
    "interfaces": TypeAdapter(tuple[Interface], config=_CONFIG),
    "moves": TypeAdapter(tuple[Move], config=_CONFIG),
    "evacuations": TypeAdapter(tuple[Evacuation], config=_CONFIG),
    "evacuees": TypeAdapter(tuple[Evacuee], config=_CONFIG),
    "offers": TypeAdapter(tuple[Offer], config=_CONFIG),
    "hops": TypeAdapter(tuple[Hop], config=_CONFIG),
    "left": TypeAdapter(tuple[Left], config=_CONFIG),
    "holders": TypeAdapter(tuple[Holder], config=_CONFIG),
    "changed": TypeAdapter(tuple[Changed], config=_CONFIG),
    "vanished": TypeAdapter(tuple[Vanished], config=_CONFIG),
    "heard": TypeAdapter(tuple[bool], config=_CONFIG),
    "sought": TypeAdapter(tuple[Sought], config=_CONFIG),
    "frozen": TypeAdapter(tuple[Frozen], config=_CONFIG),
    "thawed": TypeAdapter(tuple[float], config=_CONFIG),
    "overheard": TypeAdapter(tuple[float], config=_CONFIG),
    "silenced": TypeAdapter(tuple[float], config=_CONFIG),
    "muted": TypeAdapter(tuple[float], config=_CONFIG),
    "names": TypeAdapter(tuple[Published], config=_CONFIG),
    "numbers": TypeAdapter(tuple[int], config=_CONFIG),
    "slots": TypeAdapter(tuple[int], config=_CONFIG),
    "wishes": TypeAdapter(tuple[Wish], config=_CONFIG),
}
_INT_KEYS = ("networks", "moves", "evacuations", "overheard")
_PLACE_KEYS = ("silenced", "muted")

Row = tuple[str, Any, Any]


def _key(table: str, key: str) -> Any:
    """A record's key, from the file's. ValueError: it is none."""
    if table in _PLACE_KEYS:
        nve, port = key.split("/", 1)
        return Place(nve, port)
    return int(key) if table in _INT_KEYS else key


def _row(record: Record) -> tuple[str, str, str | None]:
    """A record as the file has it: kind, key, document. ValueError: it is none that could be kept."""
    key = "/".join(record.key) if isinstance(record.key, Place) else str(record.key)
    key.encode()
    if record.value is None:
        return record.table, key, None
    return record.table, key, _ADAPTERS[record.table].dump_json((record.value,)).decode()


class MemoryStore:
    """A store that forgets: for tests and for trying things out."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, Any], Any] = {}

    def load(self) -> Iterator[Row]:
        """All records, in an order in which they can be taken in."""
        order = list(_ADAPTERS)
        for (table, key), value in sorted(self.rows.items(), key=lambda item: order.index(item[0][0])):
            yield table, key, value

    def commit(self, records: Iterable[Record], durable: bool = True) -> None:
        """Apply all records or none."""
        for record in records:
            if record.value is None:
                self.rows.pop((record.table, record.key), None)
            else:
                self.rows[(record.table, record.key)] = record.value

    def sync(self) -> None:
        """Nothing to do."""

    def check(self) -> str:
        """"ok"."""
        return "ok"

    def close(self) -> None:
        """Nothing to do."""


class SqliteStore:
    """Records in a SQLite file.

    Args:
        path: the file; its folder is created if it is missing.
        patience: seconds to wait for a lock that another program holds on the database. The whole authority waits
            as long, so keep it short.

    Raises:
        StoreUnavailable: the file is in use by another authority, is not a store, or cannot be opened.
    """

    def __init__(self, path: str | Path, patience: float = 0.1) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None
        self._failed = False  # the last commit did
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._claim()
            self._db = sqlite3.connect(self.path, timeout=patience, isolation_level=None, check_same_thread=False)
            os.chmod(self.path, 0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            self._release()
            raise StoreUnavailable(f"cannot open store {self.path}: {error}", path=str(self.path)) from error
        except StoreUnavailable:
            self._release()
            raise

    def _claim(self) -> IO[str]:
        try:
            return hold(self.path.with_name(self.path.name + ".lock"))
        except Held as held:
            message = f"store {self.path} is in use by another NVA (process {held.owner})"
            raise StoreUnavailable(message, path=str(self.path)) from None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise StoreUnavailable(f"store {self.path} was written by a newer version ({version})", version=version)
        if version == 0:
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StoreUnavailable(f"{self.path} is some other program's database", path=str(self.path))
            columns = "kind TEXT, key TEXT, doc TEXT, PRIMARY KEY (kind, key)"
            self._db.execute(f"CREATE TABLE record ({columns}) WITHOUT ROWID")
            self._db.execute(f"PRAGMA user_version={_VERSION}")

    def load(self) -> Iterator[Row]:
        """All records, referred-to before referring.

        Raises:
            StoreUnavailable: a record cannot be read.
        """
        for table, adapter in _ADAPTERS.items():
            try:
                for key, doc in self._db.execute("SELECT key, doc FROM record WHERE kind = ?", (table,)):
                    yield table, _key(table, key), adapter.validate_json(doc)[0]
            except (sqlite3.Error, ValueError) as error:
                raise StoreUnavailable(f"cannot read {table} from {self.path}: {error}", table=table) from error

    def commit(self, records: Iterable[Record], durable: bool = True) -> None:
        """Apply all records or none.

        On return they survive the end of this process; if ``durable``, also that of the machine, else so after
        :meth:`sync`.

        Raises:
            StoreUnavailable: disk full, database locked; nothing was changed.
            ValueError: a record is none that could be kept; nothing was begun.
        """
        rows = [_row(record) for record in records]  # all of it, before anything is begun
        if not rows:
            return
        try:
            with transaction(self._db, "FULL" if durable else "NORMAL"):
                for table, key, doc in rows:
                    if doc is None:
                        self._db.execute("DELETE FROM record WHERE kind = ? AND key = ?", (table, key))
                    else:
                        self._db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", (table, key, doc))
            self._failed = False
        except sqlite3.Error as error:
            self._failed = True
            raise StoreUnavailable(f"cannot commit to {self.path}: {error}", path=str(self.path)) from error

    def sync(self) -> None:
        """Bring to the disk what was committed without waiting for it. Raises StoreUnavailable."""
        try:
            with open(self.path.with_name(self.path.name + "-wal"), "rb") as journal:
                os.fsync(journal.fileno())
        except FileNotFoundError:
            return  # no journal: all of it is in the file
        except OSError as error:
            raise StoreUnavailable(f"cannot write {self.path}: {error}", path=str(self.path)) from error

    def check(self) -> str:
        """"ok" if a write would be taken now, else what is wrong."""
        try:
            with transaction(self._db):
                if self._failed:  # whether there is room on the disk by now, only writing tells
                    self._db.execute(f"PRAGMA user_version={_VERSION}")
            self._failed = False
        except sqlite3.Error as error:
            return str(error)
        return "ok"

    def close(self) -> None:
        """Close the file and give up the lock."""
        self._db.close()
        self._release()
