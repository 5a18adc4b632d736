"""The record of deeds keeps as many as it is told to, and is in no trouble about it."""

from __future__ import annotations

import logging

import pytest

from ryu_vmm.audit import AuditTrail, Deed, Result


def test_the_oldest_entries_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    trail = AuditTrail(":memory:", keep=5)
    for n in range(40):
        asked = ("ops", "admin", "local", "127.0.0.1", "POST", f"/v1/{n}", None)
        trail.add(Deed(float(n), *asked, 200, None, Result.DONE))
    assert [deed["path"] for deed in trail.page(100)][:5] == [f"/v1/{n}" for n in range(39, 34, -1)]
    assert len(trail.page(100)) <= 6
    assert caplog.records == []
    trail.close()
