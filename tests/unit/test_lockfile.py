"""Who holds a file is alone with what it stands for, and is named to the next one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ryu_vmm.agent.faults import AgentError
from ryu_vmm.agent.records import Journal
from ryu_vmm.errors import StoreUnavailable
from ryu_vmm.lockfile import Held, hold
from ryu_vmm.store import SqliteStore


def test_one_holds_it_until_it_is_closed(tmp_path: Path) -> None:
    held = hold(tmp_path / "lock")
    with pytest.raises(Held) as refused:
        hold(tmp_path / "lock")
    assert refused.value.owner == str(os.getpid())
    held.close()
    hold(tmp_path / "lock").close()


def test_a_store_and_an_agents_records_are_ones_alone(tmp_path: Path) -> None:
    store, path = SqliteStore(str(tmp_path / "a.db")), str(tmp_path / "a.db")
    with pytest.raises(StoreUnavailable, match=f"in use by another NVA .process {os.getpid()}"):
        SqliteStore(path)
    store.close()
    SqliteStore(path).close()
    records = Journal(tmp_path / "agent")
    records.claim()
    with pytest.raises(AgentError, match=f"another agent .process {os.getpid()}"):
        Journal(tmp_path / "agent").claim()
