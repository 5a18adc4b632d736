"""What is no text, and numbers that nothing can hold, are refused where they come in; nobody else is concerned."""

from __future__ import annotations

import copy
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live import LiveRuntime
from rest_lab import NVES, problem, vm
from test_rest_fuzz import BODIES, places
from test_rest_http import raw

from ryu_vmm import inventory
from ryu_vmm.agent.definition import TaskDefinition, load
from ryu_vmm.agent.nva import told
from ryu_vmm.audit import AuditTrail, Deed, Result
from ryu_vmm.checking import check_fit
from ryu_vmm.cli.context import _cell
from ryu_vmm.credentials import CredentialsUnusable, parse
from ryu_vmm.effects import Record
from ryu_vmm.errors import InvalidInput
from ryu_vmm.eventlog import EventLog
from ryu_vmm.model import Vm
from ryu_vmm.rest import make_app
from ryu_vmm.runtime import Runtime
from ryu_vmm.store import SqliteStore
from ryu_vmm.telling import Telling
from ryu_vmm.texts import printable
from ryu_vmm.wire.openflow import decode_port

#: As JSON text: a half of a surrogate pair, NUL, numbers that no database has or that are none.
UNFIT = [r'"\ud800"', r'"a\udfffb"', r'"\u0000"', "9223372036854775808", "-" + "9" * 60, "1e999", "-1e999", "NaN"]
BAD_BODIES = {
    **BODIES,
    "/v1/evacuations": {"nve": "nve1", "to": ["nve2"], "parallel": 2, "request_id": "e", "requested_by": "ops"},
}


@pytest.fixture
def nva(tmp_path: Path) -> Iterator[httpx.Client]:
    """An NVA with store and audit in one file, as ryu-manager has them."""
    path = tmp_path / "vmm.sqlite"
    runtime, audit = Runtime(SqliteStore(path)), AuditTrail(path)
    transport = httpx.WSGITransport(app=make_app(runtime, None, audit), raise_app_exceptions=True)
    with httpx.Client(transport=transport, base_url="http://127.0.0.1") as client:
        for nve in NVES:
            assert client.post("/v1/nves", json=nve).status_code == 201
        assert client.post("/v1/networks", json={"name": "blue", "vni": 100}).status_code == 201
        assert client.post("/v1/vms", json=vm(1)).status_code == 201
        yield client
    runtime.stop()
    audit.close()


def send(client: httpx.Client, path: str, text: str, method: str = "POST") -> httpx.Response:
    return client.request(method, path, content=text, headers={"content-type": "application/json"})


def test_whatever_is_unfit_in_a_body_is_refused_by_its_place(nva: httpx.Client) -> None:
    asked = 0
    for path, body in BAD_BODIES.items():
        for where in places(body):
            for unfit in UNFIT if where else ():
                bad = copy.deepcopy(body)
                holder = bad
                for key in where[:-1]:
                    holder = holder[key]
                holder[where[-1]] = "HERE"
                refused = send(nva, path, json.dumps(bad).replace('"HERE"', unfit))
                if unfit == "NaN":
                    problem(refused, 400, "not-json")
                else:
                    named = [wrong["field"] for wrong in problem(refused, 422)["errors"]]
                    assert any(str(where[-1]) in field for field in named), (path, where, unfit, named)
                asked += 1
        innocent = nva.post("/v1/networks", json={"name": "blue", "vni": 100})
        assert innocent.status_code == 200, "nobody else is concerned"
    assert asked > 400


@pytest.mark.parametrize("name", [r"\ud800", r"\u0000"])
def test_names_of_fields_are_text_too(nva: httpx.Client, name: str) -> None:
    for path in ("/v1/vms", "/v1/moves"):
        body = json.dumps({**BODIES[path], "ports": {"HERE": "x"}} if path == "/v1/moves" else {"HERE": 1})
        problem(send(nva, path, body.replace("HERE", name)), 422)


def test_hooks_and_policies(nva: httpx.Client) -> None:
    problem(send(nva, "/v1/moves/1/abort", r'{"why": "\ud83d"}'), 422)
    problem(send(nva, "/v1/moves/1/abort", '{"why": "a\u0085b"}'), 422)
    problem(send(nva, "/v1/networks/red", r'{"vni": 7, "policy": {"mtu": 1e400}}', "PUT"), 422)
    assert send(nva, "/v1/moves/1/abort", '{"why": "\U0001f642"}').status_code == 404, "a whole character is text"


def test_what_is_nested_without_end(nva: httpx.Client) -> None:
    for depth in (70, 500, 5000, 100_000):
        refused = send(nva, "/v1/vms", '{"name":' + "[" * depth + "]" * depth + "}")
        assert refused.status_code in (400, 422), depth


def test_queries_and_paths(nva: httpx.Client) -> None:
    def status(method: str, path: str) -> int:
        return nva.request(method, path).status_code

    for text in ("%ed%a0%80", "%ff", "%00", "%c2%85", "a%0ab"):
        for query in (f"nve={text}", f"after={text}", f"{text}=1"):
            assert status("GET", f"/v1/moves?{query}") in (400, 422), query
        assert status("GET", f"/v1/events?follow=0&kind={text}") in (400, 422)
        for path in (f"/v1/vms/{text}", f"/v1/moves/{text}", f"/v1/evacuations/{text}"):
            assert status("GET", path) in (400, 404)
            assert status("DELETE", path) in (400, 404, 405)
        assert status("POST", f"/v1/moves/{text}/abort") in (400, 404)
    for number in ("9" * 19, "9" * 500, "-1", "0x1"):
        assert status("GET", f"/v1/moves/{number}") == 404
        assert status("GET", f"/v1/audit?after={number[:128]}") == 422


@pytest.mark.parametrize("odd", ["\x80\xff", "\xed\xa0\x80", "a\x00b", "x" * 5000])
def test_headers(runtime: LiveRuntime, odd: str) -> None:
    """As WSGI has them: bytes, each a character."""
    for name, path, least in (
        ("HTTP_AUTHORIZATION", "/v1/vms", 200),
        ("HTTP_HOST", "/v1/vms", 200),
        ("HTTP_LAST_EVENT_ID", "/v1/events", 422),
        ("CONTENT_LENGTH", "/v1/vms", 400),
        ("HTTP_ACCEPT", "/v1/vms", 406),
    ):
        status, _ = raw(runtime, "GET", path, QUERY_STRING="follow=0" if path == "/v1/events" else "", **{name: odd})
        assert int(status[:3]) == least, name


def test_the_audit_takes_whatever_was_asked_for(nva: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ryu_vmm.audit")
    nva.delete("/v1/vms/a%0aINFO%20ryu_vmm%3A%20a%20line%20of%20its%20own%1b[31m")
    nva.delete("/v1/vms/%ff%00")
    items = nva.get("/v1/audit").json()["items"][:2]
    assert [item["path"] for item in items] == [
        r"/v1/vms/?\x00", r"/v1/vms/a\nINFO ryu_vmm: a line of its own\x1b[31m"
    ]  # fmt: skip
    assert all("\n" not in record.getMessage() for record in caplog.records)
    trail = AuditTrail(":memory:")
    odd = ("\ud800", "\udcff", "token \ud800", "::1", "POST", "/\udcff", "\ud800")
    trail.add(Deed(0.0, *odd, 200, None, Result.DONE))
    trail.end(trail.begin(Deed(0.0, *odd)), Deed(0.0, *odd, 200, "\ud800", Result.DONE))
    assert len(trail.page(5)) == 2
    trail.close()


def test_a_record_that_cannot_be_kept_begins_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.sqlite")
    good = Record("vms", "good", Vm("good", ()))
    value, key = Record("vms", "bad", Vm("\ud800", ())), Record("vms", "\udcff", Vm("bad", ()))
    for bad in (value, key, Record("vms", "\udcff", None)):
        with pytest.raises(ValueError, match="surrogates"):
            store.commit([good, bad])
        assert not store._db.in_transaction
        assert list(store.load()) == []
        assert store.check() == "ok"
    store.commit([good])
    assert [key for _, key, _ in store.load()] == ["good"]
    store.close()


def test_a_transaction_that_somebody_left_open_is_nobody_elses(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.sqlite")
    store._db.execute("BEGIN IMMEDIATE")
    store._db.execute("INSERT INTO record VALUES ('vms', 'half', '[]')")
    store.commit([Record("vms", "good", Vm("good", ()))])
    store.close()
    with sqlite3.connect(tmp_path / "s.sqlite") as db:
        assert db.execute("SELECT key FROM record").fetchall() == [("good",)]
    db.close()


@pytest.mark.parametrize("name", ["i.yaml", "i.json"])
@pytest.mark.parametrize("escape", [r"\uD800", r"\0", r"\u0000"])
def test_inventory_files(tmp_path: Path, name: str, escape: str) -> None:
    if escape == r"\0" and name == "i.json":
        escape = r"\u0000"
    nve = '{"name": "a", "dpid": "1", "ipv4": "192.0.2.1",\n "certificate": "xHERE"}'
    (tmp_path / name).write_text('{"nves": [NVE]}'.replace("NVE", nve).replace("HERE", escape))
    with pytest.raises(InvalidInput, match=f"{name}:2: .*(certificate|escape)"):
        inventory.load(tmp_path / name)


def test_definitions_of_tasks_and_credentials(tmp_path: Path) -> None:
    task = {"name": "t", "command": ["a\0"], "interfaces": [], "environment": {"\0": ""}}
    (tmp_path / "t.json").write_text(json.dumps(task))
    with pytest.raises(InvalidInput) as refused:
        load(TaskDefinition, tmp_path / "t.json")
    listed = refused.value.details["errors"]
    assert [wrong["field"] for wrong in listed] == ["command[0]", r"environment.\x00"]  # type: ignore[attr-defined]
    with pytest.raises(CredentialsUnusable, match="note"):
        parse(rb'{"principals": [{"name": "a", "role": "admin", "note": "\ud800"}]}', "file")


def test_what_one_side_tells_the_other_can_be_kept() -> None:
    assert told(ValueError("a\x1b[31m\ud800\nb")) == r"ValueError: a\x1b[31m\ud800 b"
    assert printable("tap-vm1") == "tap-vm1"
    for unfit in ({"a": ["\udc80"]}, {"\ud800": 1}, [1 << 63], [float("inf")], {"a": {"b": "\0"}}):
        with pytest.raises(InvalidInput):
            check_fit(unfit)


def test_names_of_ports_are_what_a_log_can_show(caplog: pytest.LogCaptureFixture) -> None:
    """What a switch says is kept as it is, bytes that are no text as escapes; a log and a table show no controls."""

    def named(name: bytes) -> str:
        return decode_port((7).to_bytes(4, "big") + bytes(12) + name.ljust(16, b"\0") + bytes(32), 0).name

    assert named(b"tap-vm1") == "tap-vm1"
    assert named(b"t\xff\xfe") == r"t\xff\xfe"
    assert named(b"\xed\xa0\x80") == r"\xed\xa0\x80"
    assert named(b"a\nb\x1b[2J") == "a\nb\x1b[2J"
    caplog.set_level("INFO", "ryu_vmm")
    Telling(EventLog(), 10.0).happened("port.up", {"nve": "n1", "port": "a\nb\x1b[2J"}, 0.0)
    assert r"port=a\nb\x1b[2J" in caplog.records[-1].getMessage()
    assert _cell(["a\x1b[2J"]) == r"a\x1b[2J"


def test_words_of_the_command_line() -> None:
    for words in (["vm", "show", b"a\xff"], ["move", "start", b"\xff", "--to", "x"], ["nve", "verify", b"\xff"]):
        program = [sys.executable, "-c", "from ryu_vmm.cli import main; main()", "--url", "http://127.0.0.1:1"]
        done = subprocess.run([*program, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in (2, 6), done.stderr
        assert "Traceback" not in done.stderr
