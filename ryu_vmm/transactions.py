"""Transactions of SQLite files that never stay open."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

__all__ = ["transaction"]


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, synchronous: str | None = None) -> Iterator[None]:
    """All that is written inside, or nothing of it: whatever is raised, no transaction stays open for whoever is next.

    ``synchronous``: as SQLite's pragma has it, from now on; None: as it is.

    Raises:
        sqlite3.Error: it could not be written, and was not.
    """
    if db.in_transaction:  # a rollback that failed; it must not become part of this one
        db.execute("ROLLBACK")
    if synchronous is not None:
        db.execute(f"PRAGMA synchronous={synchronous}")
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise
