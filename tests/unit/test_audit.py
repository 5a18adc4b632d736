"""The audit: what is recorded, for how long, what is not in it, and what happens when it cannot be written."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from auth_lab import Clock, Town, town
from rest_lab import NVES, problem, vm

from ryu_vmm.audit import BURST, AuditTrail, Deed, Result
from ryu_vmm.errors import StoreUnavailable
from ryu_vmm.store import SqliteStore

__all__ = ["town"]


def deed(n: int = 0, result: Result = Result.DONE, **more: Any) -> Deed:
    facts: dict[str, Any] = {
        "at": 1000.0 + n, "principal": "ops", "role": "admin", "via": "token 00000000", "address": "192.0.2.1",
        "method": "POST", "path": f"/v1/vms/{n}", "body": None, "status": 201, "code": None, "result": result,
    }  # fmt: skip
    return Deed(**{**facts, **more})


def seen(town: Town) -> list[tuple[Any, ...]]:
    """Who, what, result and code of every entry, oldest first."""
    items = town.of("ops").get("/v1/audit").json()["items"]
    keys = ("principal", "method", "path", "status", "result", "code")
    return [tuple(item[key] for key in keys) for item in reversed(items)]


# --- what is recorded -------------------------------------------------------------------------------------------
def test_changes_and_refusals_are_recorded_and_nothing_else(town: Town) -> None:
    ops, acme, nobody = town.of("ops"), town.of("acme"), town.client()
    ops.get("/v1/vms")
    acme.get("/v1/vms/b-vm2")
    nobody.get("/v1/ready")
    ops.put("/v1/nves/nve9", json={**NVES[0], "name": "nve9", "dpid": "9", "ipv4": "192.0.2.9", "ipv6": None})
    ops.delete("/v1/nves/nve8")
    acme.delete("/v1/vms/b-vm2")
    acme.get("/v1/nves")
    acme.post("/v1/inventory", json={})
    nobody.get("/v1/vms")
    nobody.post("/v1/vms", json=vm(1))
    town.client("x").get("/v1/vms")
    ops.post("/v1/vms", content=b"{", headers={"Content-Type": "application/json"})
    ops.patch("/v1/vms/a-vm1")
    town.runtime.fail = StoreUnavailable("disk full")
    ops.delete("/v1/vms/a-vm1")
    town.runtime.fail = None
    assert seen(town) == [
        ("ops", "PUT", "/v1/nves/nve9", 201, "done", None),
        ("ops", "DELETE", "/v1/nves/nve8", 404, "refused", "not-found"),
        ("acme", "DELETE", "/v1/vms/b-vm2", 404, "refused", "not-found"),
        ("acme", "GET", "/v1/nves", 403, "denied", "forbidden"),
        ("acme", "POST", "/v1/inventory", 403, "denied", "forbidden"),
        (None, "GET", "/v1/vms", 401, "denied", "unauthorized"),
        (None, "POST", "/v1/vms", 401, "denied", "unauthorized"),
        (None, "GET", "/v1/vms", 401, "denied", "unauthorized"),
        ("ops", "POST", "/v1/vms", 400, "refused", "not-json"),
        ("ops", "PATCH", "/v1/vms/a-vm1", 405, "refused", "method-not-allowed"),
        ("ops", "DELETE", "/v1/vms/a-vm1", 503, "failed", "store-unavailable"),
    ]


def test_an_entry_says_who_what_when_and_from_where(town: Town) -> None:
    body = {"vm": "a-vm1", "to": "nve2"}
    client = town.client(town.tokens["acme"], address="2001:db8::7")
    client.post("/v1/moves", json=body)
    entry = town.of("ops").get("/v1/audit").json()["items"][0]
    key = town.people[1]["tokens"][0]["id"]
    assert (entry["principal"], entry["role"], entry["via"]) == ("acme", "tenant", f"token {key}")
    assert (entry["address"], entry["method"], entry["path"], entry["status"]) == (
        "2001:db8::7", "POST", "/v1/moves", 202,
    )  # fmt: skip
    assert json.loads(entry["body"]) == body
    assert entry["time"].startswith("20")
    assert abs(entry["at"] - town.runtime.now()) < 60


def test_long_bodies_come_down_to_numbers(town: Town) -> None:
    many = [{**vm(n, "nve3", network="o-net"), "name": f"v{n}"} for n in range(100, 140)]
    assert town.of("ops").post("/v1/vms", json=many).status_code == 201
    assert town.of("ops").post("/v1/inventory", json={"vms": many}).status_code == 200
    second, first = (item["body"] for item in town.of("ops").get("/v1/audit").json()["items"])
    assert first.endswith(',"v119","and 20 more"]')
    assert json.loads(second)["vms"] == "40 items"


def test_paging_and_filters(town: Town) -> None:
    for n in range(7):
        town.audit.add(deed(n, principal="a" if n % 2 else "b"))
    ops = town.of("ops")
    found, after = [], ""
    while True:
        page = ops.get(f"/v1/audit?limit=3{after}").json()
        found += [item["path"] for item in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == [f"/v1/vms/{n}" for n in reversed(range(7))]
    odd = ops.get("/v1/audit?principal=a").json()["items"]
    assert [item["path"] for item in odd] == ["/v1/vms/5", "/v1/vms/3", "/v1/vms/1"]
    assert ops.get("/v1/audit?result=denied").json()["items"] == []
    problem(ops.get("/v1/audit?after=x"), 422)
    problem(ops.get("/v1/audit?result=x"), 422)


def test_the_log_has_it_too(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ryu_vmm.audit")
    town.of("acme").delete("/v1/vms/a-vm1")
    town.client().delete("/v1/vms/b-vm2")
    assert [record.getMessage().rstrip() for record in caplog.records] == [
        "done acme from 192.0.2.7: DELETE /v1/vms/a-vm1: 204",
        "denied nobody from 192.0.2.7: DELETE /v1/vms/b-vm2: 401 unauthorized",
    ]


# --- what is not in it ------------------------------------------------------------------------------------------
def test_tokens_are_not_in_it(town: Town, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ops, secret = town.of("ops"), town.tokens["ops"]
    for _ in range(2):
        ops.delete(f"/v1/vms/{secret}")
        ops.post("/v1/vms", json={"name": secret})
        ops.post("/v1/moves/1/abort", json={"why": f"my token is {secret}, please"})
        town.client().get(f"/v1/vms/{secret}?token={secret}")
        town.client(secret[:-1]).post("/v1/vms", json={"name": secret})
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("ryu_vmm"))
    text = json.dumps(town.of("ops").get("/v1/audit").json()) + logged
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir()).decode("latin-1")
    assert "my token is ***, please" in text
    for part in (secret, secret[13:], secret[13:40]):
        assert part not in text
        assert part not in raw


# --- how long ---------------------------------------------------------------------------------------------------
def test_it_survives_and_is_only_added_to(tmp_path: Path) -> None:
    path = tmp_path / "vmm.sqlite"
    store = SqliteStore(path)  # beside the records, in one file
    first = AuditTrail(path)
    first.add(deed(1))
    first.close()
    store.close()
    store, second = SqliteStore(path), AuditTrail(path)
    second.add(deed(2))
    assert [row["path"] for row in second.page(10)] == ["/v1/vms/2", "/v1/vms/1"]
    assert [row["id"] for row in second.page(10)] == [2, 1]
    assert list(store.load()) == []
    with sqlite3.connect(path) as db, pytest.raises(sqlite3.IntegrityError, match="only added to"):
        db.execute("UPDATE audit SET principal = 'somebody else'")
    db.close()
    second.close()
    store.close()


def test_it_is_bounded_and_numbers_are_not_used_again(tmp_path: Path) -> None:
    audit = AuditTrail(tmp_path / "a.sqlite", keep=100, clock=(clock := Clock()))
    for n in range(350):
        audit.add(deed(n))
    rows = audit.page(1000)
    assert [row["path"] for row in rows] == [f"/v1/vms/{n}" for n in range(349, 249, -1)]
    for n in range(400):
        clock.now += 1
        audit.add(deed(n, Result.DENIED))
    denied, done = audit.page(1000, result="denied"), audit.page(1000, result="done")
    assert len(denied) == len(done) == 100, "who is refused does not push out what was done"
    assert denied[0]["id"] == 750
    audit.close()


def test_refusals_are_recorded_at_a_bounded_rate(tmp_path: Path) -> None:
    audit = AuditTrail(tmp_path / "a.sqlite", clock=(clock := Clock()))
    for n in range(BURST + 50):
        audit.add(deed(n, Result.DENIED))
        audit.add(deed(n))
    assert len(audit.page(10_000, result="denied")) == BURST
    assert len(audit.page(10_000, result="done")) == BURST + 50, "changes always are"
    assert audit.unrecorded == 50
    clock.now += 1
    audit.add(deed(1, Result.DENIED))
    assert audit.page(1)[0]["more"] == 50
    audit.add(deed(2, Result.DENIED))
    assert audit.page(1)[0]["more"] == 0
    audit.close()


# --- when it cannot be written ----------------------------------------------------------------------------------
def test_what_cannot_be_recorded_is_not_done(town: Town, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ops = town.of("ops")
    town.audit._db.execute("PRAGMA busy_timeout=1")
    other = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for name in ("a-vm1", "b-vm2"):
        document = problem(ops.delete(f"/v1/vms/{name}"), 503, "store-unavailable")
        assert "audit" in document["detail"]
        assert name in town.runtime.state.vms
    assert caplog.text.count("the audit cannot be written") == 1
    assert ops.get("/v1/vms").status_code == 200
    ready = ops.get("/v1/ready")
    assert ready.status_code == 503
    assert "audit" in ready.json()["why"][0]
    assert ops.get("/v1/health").json()["status"] == "failing"
    assert "vmm_audit_failing 1.0" in ops.get("/metrics").text
    other.execute("ROLLBACK")
    assert ops.get("/v1/ready").status_code == 200
    assert ops.delete("/v1/vms/b-vm2").status_code == 204
    assert "vmm_audit_failing 0.0" in ops.get("/metrics").text
    assert seen(town) == [("ops", "DELETE", "/v1/vms/b-vm2", 204, "done", None)]
    other.close()


def broken(audit: AuditTrail, how: str) -> Callable[[], object]:
    """Make an audit one that cannot be written; what is returned mends it."""
    db = audit._db
    match how:
        case "full":
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute(f"PRAGMA max_page_count={pages}")
            return lambda: db.execute("PRAGMA max_page_count=1000000")
        case "read-only":
            db.execute("PRAGMA query_only=1")
            return lambda: db.execute("PRAGMA query_only=0")
        case "gone":
            db.execute("ALTER TABLE audit RENAME TO elsewhere")
            return lambda: db.execute("ALTER TABLE elsewhere RENAME TO audit")
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["full", "read-only", "gone"])
def test_nothing_is_let_through_unrecorded(tmp_path: Path, how: str) -> None:
    audit = AuditTrail(tmp_path / "a.sqlite")
    mend = broken(audit, how)
    begun = refused = 0
    for n in range(200):
        try:
            entry = audit.begin(deed(n, status=0, result=Result.BEGUN, body="x" * 2000))
        except StoreUnavailable:
            refused += 1
        else:
            begun += 1
            audit.end(entry, deed(n))
    assert refused
    with pytest.raises(StoreUnavailable):
        audit.require()
    mend()
    audit.require()
    assert len(audit.page(1000, result="done")) == begun
    audit.end(audit.begin(deed(1, status=0, result=Result.BEGUN)), deed(1))
    assert len(audit.page(1000, result="done")) == begun + 1
    audit.close()


def test_what_came_of_it_is_recorded_once_it_can_be(tmp_path: Path) -> None:
    audit = AuditTrail(tmp_path / "a.sqlite")
    entry = audit.begin(deed(1, status=0, result=Result.BEGUN))
    audit._db.execute("PRAGMA query_only=1")
    audit.end(entry, deed(1))
    assert [(row["status"], row["result"]) for row in audit.page(5)] == [(0, "begun")], "until then it says so"
    with pytest.raises(StoreUnavailable):
        audit.begin(deed(2, status=0, result=Result.BEGUN))
    audit._db.execute("PRAGMA query_only=0")
    second = audit.begin(deed(2, status=0, result=Result.BEGUN))
    assert [row["result"] for row in audit.page(5)] == ["begun", "done"]
    audit.end(second, deed(2, Result.FAILED, status=503))
    assert [row["result"] for row in audit.page(5)] == ["failed", "done"]
    with pytest.raises(sqlite3.IntegrityError):
        audit._db.execute("UPDATE audit SET status = 204 WHERE id = ?", (second,))
    audit.close()


def test_a_process_that_ends_in_the_middle_leaves_what_was_begun(tmp_path: Path) -> None:
    audit = AuditTrail(tmp_path / "a.sqlite")
    entry = audit.begin(deed(1, status=0, result=Result.BEGUN))
    again = AuditTrail(tmp_path / "a.sqlite")
    assert [(row["id"], row["result"]) for row in again.page(5)] == [(entry, "begun")]
    again.close()
    audit.close()


def test_a_store_that_fails_is_no_trouble_of_the_audit(town: Town) -> None:
    ops = town.of("ops")
    town.runtime.fail = StoreUnavailable("disk full")
    assert ops.delete("/v1/vms/a-vm1").status_code == 503
    town.runtime.fail = None
    assert seen(town)[-1] == ("ops", "DELETE", "/v1/vms/a-vm1", 503, "failed", "store-unavailable")


def test_a_store_of_before_can_be_ended_in_as_well(tmp_path: Path) -> None:
    audit = AuditTrail(tmp_path / "a.sqlite")
    audit._db.execute("DROP TRIGGER audit_ends_once")
    audit._db.execute(
        "CREATE TRIGGER audit_is_final BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'it is only added to'); END"
    )
    audit.close()
    again = AuditTrail(tmp_path / "a.sqlite")
    again.end(again.begin(deed(1, status=0, result=Result.BEGUN)), deed(1))
    assert again.page(1)[0]["result"] == "done"
    again.close()


def test_files_that_are_no_audit(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no database at all, and long enough not to be taken for an empty one" * 10)
    with pytest.raises(StoreUnavailable, match="cannot open the audit"):
        AuditTrail(tmp_path / "x")
    with pytest.raises(StoreUnavailable):
        AuditTrail(tmp_path / "no" / "folder")
