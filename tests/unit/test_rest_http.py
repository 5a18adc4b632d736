"""HTTP under the REST API: methods, media types, bodies of every kind, and what happens when something fails."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from live import LiveRuntime
from rest_lab import NVES, client, lab, problem

from ryu_vmm.errors import StoreUnavailable
from ryu_vmm.rest import make_app
from ryu_vmm.rest.problems import STATUS

__all__ = ["client", "lab"]


# --- HTTP itself ----------------------------------------------------------------------------------------------
def test_unknown_paths_and_methods(lab: httpx.Client) -> None:
    problem(lab.get("/v1/nothing"), 404, "no-such-path")
    problem(lab.get("/v1/vms/"), 404, "no-such-path")
    problem(lab.get("/v1/vms/a/b"), 404, "no-such-path")
    response = lab.patch("/v1/vms/vm1", json={})
    problem(response, 405)
    assert response.headers["allow"] == "DELETE, GET, HEAD, PUT"
    response = lab.delete("/v1/moves")
    problem(response, 405)
    assert response.headers["allow"] == "GET, HEAD, POST"


def test_head_is_get_without_a_body(lab: httpx.Client) -> None:
    response = lab.head("/v1/vms")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) == len(lab.get("/v1/vms").content)
    assert lab.head("/v1/vms/none").status_code == 404


def test_media_types(lab: httpx.Client) -> None:
    problem(lab.get("/v1/vms", headers={"Accept": "text/html"}), 406)
    problem(lab.get("/v1/vms", headers={"Accept": "*/*, application/json;q=0"}), 406)
    for accept in ("*/*", "application/json", "text/html, Application/*;q=0.1", "", "*/*;q=0, application/json;v=2"):
        assert lab.get("/v1/vms", headers={"Accept": accept}).status_code == 200
    body = json.dumps({"name": "green", "vni": 7})
    for media in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = lab.post("/v1/networks", content=body, headers={"Content-Type": media})
        problem(response, 415)
        assert response.headers["accept-post"] == "application/json"
    for media in ("application/json; charset=utf-8", "application/vnd.x+json"):
        response = lab.post("/v1/networks", content=body, headers={"Content-Type": media})
        assert response.status_code in (200, 201)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b"\xff\xfe{}",
        b'{"name": "a", "name": "b", "vni": 1}',
        b'{"name": "a", "vni": NaN}',
        b"[" * 50_000,
        b'{"name": "a", "vni": 1} x',
        b'{"vni": ' + b"9" * 5000 + b"}",
    ],
)
def test_bodies_that_are_no_json(client: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    problem(client.post("/v1/networks", content=body, headers=headers), 400)
    assert client.get("/v1/networks").json()["items"] == []


@pytest.mark.parametrize("body", [b"5", b"null", b'"x"', b"[]", b'[{"name": "a", "vni": 1}]', b"{}"])
def test_bodies_that_are_no_network(client: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    problem(client.post("/v1/networks", content=body, headers=headers), 422)


def test_large_bodies(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    fits = b'{"name": "green", "vni": 7}'.ljust(1 << 20)
    assert client.post("/v1/networks", content=fits, headers=headers).status_code == 201
    problem(client.post("/v1/networks", content=fits + b" ", headers=headers), 413)

    def without_end() -> Iterator[bytes]:
        yield b"{}"

    problem(client.post("/v1/networks", content=without_end(), headers=headers), 411)


def raw(runtime: LiveRuntime, method: str, path: str, body: bytes = b"", **environ: str) -> tuple[str, Any]:
    """A request as a server would hand it over, however odd; status line and document."""
    seen: list[str] = []
    content = make_app(runtime)(
        {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "SERVER_NAME": "nva",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "CONTENT_TYPE": "application/json",
            **environ,
        },
        lambda line, headers: seen.append(line),
    )
    return seen[0], json.loads(b"".join(content))


@pytest.mark.parametrize(
    ("length", "status"),
    [("100", "400"), ("-5", "400"), ("1e3", "400"), ("9" * 30, "400"), ("9" * 12, "413"), ("2", "422")],
)
def test_a_content_length_that_lies(runtime: LiveRuntime, length: str, status: str) -> None:
    line, document = raw(runtime, "POST", "/v1/networks", b"{}", CONTENT_LENGTH=length)
    assert line.startswith(status)
    assert document["status"] == int(status)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/v1/vms/\xff", "", "400"),
        ("/v1/vms/\x00", "", "404"),
        ("/v1/vms/\n", "", "404"),
        ("/v1/vms", "nve=%ff", "4"),
        ("/v1/vms", "%ff=1", "4"),
        ("/v1/vms", "&&==&", "4"),
        ("", "", "404"),
    ],
)
def test_bytes_that_mean_nothing(runtime: LiveRuntime, path: str, query: str, status: str) -> None:
    line, _ = raw(runtime, "GET", path, QUERY_STRING=query)
    assert line.startswith(status)


# --- when something fails -------------------------------------------------------------------------------------
def test_a_store_that_fails_refuses_and_changes_nothing(lab: httpx.Client, runtime: LiveRuntime) -> None:
    runtime._store.commit = lambda *_: (_ for _ in ()).throw(StoreUnavailable("disk is full"))  # type: ignore[method-assign]
    response = lab.post("/v1/networks", json={"name": "green", "vni": 7})
    assert problem(response, 503, "store-unavailable")["detail"] == "disk is full"
    assert response.headers["retry-after"]
    problem(lab.post("/v1/moves", json={"vm": "vm1", "to": "nve2"}), 503)
    problem(lab.delete("/v1/vms/vm1"), 503)
    del runtime._store.commit
    problem(lab.get("/v1/networks/green"), 404)
    assert lab.get("/v1/moves").json()["items"] == []
    assert lab.post("/v1/networks", json={"name": "green", "vni": 7}).status_code == 201


def test_a_fault_of_ours_says_nothing_about_itself(
    lab: httpx.Client, runtime: LiveRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.fail = RuntimeError("secret")
    document = problem(lab.delete("/v1/vms/vm1"), 500, "internal")
    assert "secret" not in json.dumps(document)
    assert "secret" in caplog.text


def test_every_error_of_ours_has_a_status() -> None:
    from ryu_vmm import errors

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.VmmError):
            assert any(base in STATUS for base in kind.__mro__), name


def test_health_and_readiness(client: httpx.Client, runtime: LiveRuntime) -> None:
    assert client.get("/v1/health").json()["status"] == "ok"
    client.post("/v1/nves", json=NVES[0])
    document = client.get("/v1/health").json()
    assert (document["status"], document["nves"]) == (
        "degraded",
        {"registered": 1, "connected": 0, "in_sync": 0, "refusing": 0, "lacking": []},
    )
    runtime.connect("nve1")
    assert client.get("/v1/health").json()["status"] == "ok"
    assert client.get("/v1/ready").json() == {"ready": True, "why": []}
    runtime._store.check = lambda: "database is locked"  # type: ignore[method-assign]
    assert client.get("/v1/health").json()["status"] == "failing"
    response = client.get("/v1/ready")
    assert (response.status_code, response.json()["why"]) == (503, ["store: database is locked"])


def test_the_entry_names_only_what_there_is(client: httpx.Client) -> None:
    for name, link in client.get("/v1").json()["links"].items():
        assert client.head(link).status_code in (200, 405), name
    assert client.get("/").json() == client.get("/v1").json()
