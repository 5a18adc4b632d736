"""What stands before the web server, and on which addresses it may listen at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from auth_lab import Town, town
from rest_lab import problem

from ryu_vmm import config
from ryu_vmm.rest.authentication import Access
from ryu_vmm.rest.guard import Guard

__all__ = ["town"]


def hello(environ: dict[str, Any], start: Any) -> list[bytes]:
    """Another application."""
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


@pytest.fixture
def guarded(town: Town) -> Iterator[Any]:
    """Makes clients of another application behind the guard."""
    made: list[httpx.Client] = []

    def client(name: str | None = None, access: Access | None = None, base: str = "http://127.0.0.1") -> httpx.Client:
        app = Guard(hello, access or town.access, town.audit)
        headers = {} if name is None else {"Authorization": f"Bearer {town.tokens[name]}"}
        made.append(httpx.Client(transport=httpx.WSGITransport(app=app), base_url=base, headers=headers))
        return made[-1]

    yield client
    for one in made:
        one.close()


def test_other_applications_are_for_admins(guarded: Any, town: Town) -> None:
    for path in ("/hello", "/v1x", "/v2/vms", "/metrics/", "//v1/vms", "/V1/vms", "/stats/flowentry/add"):
        problem(guarded().post(path), 401)
        for name in ("acme", "eyes", "host1"):
            problem(guarded(name).post(path), 403)
        assert guarded("ops").post(path).text == "hello"
    recorded = town.of("ops").get("/v1/audit?result=done").json()["items"]
    assert [(a["principal"], a["path"]) for a in recorded][-1] == ("ops", "/hello")
    assert len(recorded) == 7


def test_our_own_paths_ask_by_themselves(guarded: Any) -> None:
    for path in ("/", "/v1", "/v1/vms", "/v1/a/b", "/metrics"):
        assert guarded().get(path).text == "hello", "it is the REST application's turn to ask"


def test_without_credentials_only_this_machine_is_served(guarded: Any) -> None:
    for base in ("http://127.0.0.1:8080", "http://localhost", "http://nva.localhost:1", "http://[::1]:80", "http://10.1.2.3"):
        assert guarded(access=Access(), base=base).get("/v1").status_code == 200
    for base in ("http://evil.example", "http://localhost.evil.example", "http://127.0.0.1.evil.example:8080"):
        assert problem(guarded(access=Access(), base=base).get("/v1"), 421)["code"] == "foreign-host"
    assert guarded("ops", base="http://evil.example").get("/v1").status_code == 200, "who they are decides, if asked"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:81", "https://127.0.0.1", ""])
def test_pages_of_others_change_nothing(guarded: Any, origin: str) -> None:
    for client in (guarded(access=Access()), guarded("ops")):
        refused = problem(client.post("/v1/moves/1/abort", headers={"Origin": origin}), 403)
        assert refused["code"] == "foreign-origin"
        assert client.get("/v1", headers={"Origin": origin}).status_code == 200
        assert client.post("/v1/x", headers={"Origin": "http://127.0.0.1"}).text == "hello"


# --- where it may listen ----------------------------------------------------------------------------------------
def options(**given: Any) -> Any:
    facts = {"credentials": None, "rest_cert": None, "rest_key": None, "rest_client_ca": None}
    return SimpleNamespace(**{**facts, "rest_client_required": False, "rest_plaintext": False, **given})


LOCAL = ["127.0.0.1", "127.9.9.9", "::1", "localhost", "/tmp/vmm.sock", "::ffff:127.0.0.1"]
PUBLIC = ["0.0.0.0", "::", "", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "no.such.host.invalid", "fe80::1%lo"]


@pytest.mark.parametrize("host", LOCAL)
def test_this_machine_needs_no_credentials(host: str) -> None:
    assert config.exposure(host, options()) is None


@pytest.mark.parametrize("host", PUBLIC)
def test_the_network_does(host: str) -> None:
    assert "set credentials" in str(config.exposure(host, options()))
    assert "set credentials" in str(config.exposure(host, options(rest_cert="c", rest_client_ca="a")))
    assert "set credentials" in str(config.exposure(host, options(rest_plaintext=True)))
    assert "set rest_cert" in str(config.exposure(host, options(credentials="f")))
    assert config.exposure(host, options(credentials="f", rest_cert="c")) is None
    assert config.exposure(host, options(credentials="f", rest_plaintext=True)) is None


def test_a_name_that_is_both_is_not_local(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, 0, 0, "", (address, 0)) for address in ("127.0.0.1", "192.0.2.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: both)
    assert not config.is_local("both.example")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: both[:1])
    assert config.is_local("one.example")
