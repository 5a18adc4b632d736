"""The event stream over a real server: what is sent, resumed, missed, and noticed when nothing happens."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from live import LiveRuntime, serving
from rest_lab import client, lab, problem

from ryu_vmm.eventlog import EventLog
from ryu_vmm.rest import make_app, stream

__all__ = ["client", "lab"]


class Listener:
    """Reads messages of a stream; comments are kept apart."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()
        self.comments: list[str] = []

    def message(self) -> dict[str, Any]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if line.startswith(":"):
                self.comments.append(line[1:].strip())
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                document: dict[str, Any] = json.loads(fields["data"])
                assert (document["id"], document["kind"]) == (fields["id"], fields["event"])
                return document
            else:
                fields.pop("retry", None)
        raise AssertionError("the stream has ended")

    def comment(self) -> str:
        for line in self._lines:
            if line.startswith(":"):
                return line[1:].strip()
        raise AssertionError("the stream has ended")


@pytest.fixture
def url(runtime: LiveRuntime) -> Iterator[str]:
    with serving(make_app(runtime)) as found:
        yield found


@contextmanager
def listening(url: str, query: str = "", last: str | None = None) -> Iterator[Listener]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with httpx.stream("GET", f"{url}/v1/events{query}", headers=headers, timeout=30) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        listener = Listener(response)
        assert listener.comment() == "connected"
        yield listener


def happen(runtime: LiveRuntime, *numbers: int, kind: str = "test.it") -> None:
    for n in numbers:
        runtime.log.append(runtime.now(), kind, {"n": n})


def listed(url: str, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = httpx.get(f"{url}/v1/events?follow=0{query}").json()["items"]
    return items


def test_a_stream_starts_with_what_happens_next(url: str, runtime: LiveRuntime) -> None:
    happen(runtime, 1, 2)
    with listening(url) as listener:
        happen(runtime, 3)
        message = listener.message()
        assert message["fields"] == {"n": 3}
        assert message["kind"] == "test.it"
        assert message["time"].endswith("Z")
        happen(runtime, 4)
        assert listener.message()["fields"] == {"n": 4}


@pytest.mark.parametrize("how", ["header", "query"])
def test_a_stream_resumes_without_a_gap(url: str, runtime: LiveRuntime, how: str) -> None:
    happen(runtime, 1, 2, 3, 4)
    second = listed(url)[1]["id"]
    query, last = ("", second) if how == "header" else (f"?after={second}", None)
    with listening(url, query, last) as listener:
        assert [listener.message()["fields"]["n"] for _ in range(2)] == [3, 4]
        happen(runtime, 5)
        assert listener.message()["fields"]["n"] == 5


def test_a_client_learns_what_it_has_missed(url: str, runtime: LiveRuntime) -> None:
    happen(runtime, 1)
    first = listed(url)[0]["id"]
    runtime.log._ring = deque(maxlen=3)
    happen(runtime, *range(2, 10))
    with listening(url, last=first) as listener:
        assert listener.message()["kind"] == "gap"
        assert [listener.message()["fields"]["n"] for _ in range(3)] == [7, 8, 9]
    items = listed(url, f"&after={first}")
    assert [item["kind"] for item in items] == ["gap", "test.it", "test.it", "test.it"]
    assert listed(url, f"&after={items[0]['id']}") == items[1:]


@pytest.mark.parametrize("last", ["0.5", "abc.1"])
def test_a_client_learns_that_the_nva_was_started_anew(url: str, runtime: LiveRuntime, last: str) -> None:
    happen(runtime, 1, 2)
    with listening(url, last=last) as listener:
        gap = listener.message()
        assert (gap["kind"], gap["fields"]) == ("gap", {"why": "the NVA was started anew"})
        assert listener.message()["fields"]["n"] == 1


def test_events_that_come_too_fast_are_named(runtime: LiveRuntime) -> None:
    runtime.log = EventLog(5)
    app = make_app(runtime)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/v1/events", "wsgi.input": None, "SERVER_NAME": "x"}
    environ |= {"SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    chunks = iter(app(environ, lambda status, headers: None))
    next(chunks)
    happen(runtime, 1)
    assert b'"n":1' in next(chunks)
    happen(runtime, *range(2, 12))
    assert b"5 events came too fast" in next(chunks)
    assert next(chunks).count(b"test.it") == 10  # five events, each named twice


def test_silence_is_broken_by_comments(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT", 0.02)
    with listening(url) as listener:
        assert [listener.comment() for _ in range(3)] == ["nothing new"] * 3


def test_kinds_can_be_chosen(url: str, runtime: LiveRuntime) -> None:
    with listening(url, "?kind=move.") as listener:
        happen(runtime, 1)
        happen(runtime, 2, kind="move.state")
        assert listener.message()["fields"]["n"] == 2
    assert [item["fields"]["n"] for item in listed(url, "&kind=test")] == [1]


def test_a_list_comes_in_pages(url: str, runtime: LiveRuntime) -> None:
    happen(runtime, *range(500))
    seen: list[int] = []
    query = ""
    while True:
        document = httpx.get(f"{url}/v1/events?follow=0&limit=150{query}").json()
        seen += [item["fields"]["n"] for item in document["items"]]
        if document["next"] is None:
            break
        query = f"&after={document['next']}"
    assert seen == list(range(500))
    assert listed(url, "&limit=1")[0]["fields"]["n"] == 0


def test_ids_that_are_none(client: httpx.Client) -> None:
    for wrong in ("x", "1", "1.", "-1.5", "1.5.6"):
        problem(client.get(f"/v1/events?follow=0&after={wrong}"), 422)
    problem(client.get("/v1/events?follow=2"), 422)
    problem(client.get("/v1/events", headers={"Last-Event-ID": "?"}), 422)


def test_streams_are_limited_and_given_back(url: str, runtime: LiveRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS", 1)
    monkeypatch.setattr(stream, "HEARTBEAT", 0.01)
    with listening(url):
        refused = httpx.get(f"{url}/v1/events")
        assert problem(refused, 503)["detail"] == "1 event streams are open"
        assert refused.headers["retry-after"]
    done = threading.Event()
    for _ in range(200):  # the server notices at the next heartbeat that its client has gone
        with httpx.stream("GET", f"{url}/v1/events", timeout=30) as response:
            if response.status_code == 200:
                done.set()
                break
        threading.Event().wait(0.01)
    assert done.is_set()


def test_what_the_core_reports_can_be_said_in_json(lab: httpx.Client, runtime: LiveRuntime) -> None:
    lab.post("/v1/moves", json={"vm": "vm1", "to": "nve2"})
    runtime.disconnect("nve3")
    items = lab.get("/v1/events?follow=0").json()["items"]
    kinds = {item["kind"] for item in items}
    assert {"nve.connected", "nve.disconnected", "nve.synchronised", "move.state"} <= kinds
    move = next(item for item in items if item["kind"] == "move.state")
    assert move["fields"]["move"] == 1
