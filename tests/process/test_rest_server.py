"""REST on the web server of a real ryu-manager: what only that server can get wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ryu_vmm.emulation.client import Emulation

BIN = Path(sys.executable).parent
DEADLINE = 60.0  # seconds
NVE = {"name": "nve1", "dpid": "1", "ipv4": "192.168.100.1"}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {DEADLINE} s"
        time.sleep(0.01)


@pytest.fixture
def nva(ryu_manager: Callable[..., Any], tmp_path: Path) -> Any:
    """An NVA that forgets, once it answers."""
    config = tmp_path / "vmm.conf"
    config.write_text("[vmm]\nstore = :memory:\n")
    manager = ryu_manager("--config-file", str(config), "ryu_vmm")
    manager.connect(manager.rest).close()
    return manager


@pytest.fixture
def client(nva: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{nva.rest}", timeout=DEADLINE, trust_env=False, verify=False) as made:
        yield made


def vmm(nva: Any, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "vmm"), "--url", f"http://127.0.0.1:{nva.rest}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def documents(stream: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in stream.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_events_come_as_they_happen(nva: Any, client: httpx.Client) -> None:
    assert client.post("/v1/nves", json=NVE).status_code == 201
    with client.stream("GET", "/v1/events?kind=nve.") as stream, Emulation(("127.0.0.1", nva.ofp)) as switches:
        found = documents(stream)
        switches.add([{"dpid": 1, "ports": ["vxlan", "tap-1"], "addresses": ["192.168.100.1"]}])
        kinds = [next(found)["kind"] for _ in range(2)]
        assert kinds == ["nve.connected", "nve.synchronised"]
        other = client.get("/v1/nves/nve1")
        assert other.json()["in_sync"], "an open stream holds up others"


def test_many_streams_at_once(nva: Any, client: httpx.Client) -> None:
    client.post("/v1/nves", json=NVE)
    with Emulation(("127.0.0.1", nva.ofp)) as switches:
        streams = [client.stream("GET", "/v1/events?kind=nve.connected") for _ in range(20)]
        opened = [stream.__enter__() for stream in streams]
        switches.add([{"dpid": 1, "ports": ["vxlan"], "addresses": ["192.168.100.1"]}])
        seen = [next(documents(stream)) for stream in opened]
        for stream in streams:
            stream.__exit__(None, None, None)
    assert {document["kind"] for document in seen} == {"nve.connected"}
    assert len({document["id"] for document in seen}) == 1


def test_a_stream_says_something_at_once(client: httpx.Client) -> None:
    with client.stream("GET", "/v1/events", headers={"Last-Event-ID": "0.5"}) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        assert next(documents(stream))["kind"] == "gap"


def test_chunked_bodies(client: httpx.Client) -> None:
    def body(text: str) -> Iterator[bytes]:
        for n in range(0, len(text), 10):
            yield text[n : n + 10].encode()

    headers = {"Content-Type": "application/json"}
    network = json.dumps({"name": "blue", "vni": 100})
    assert client.post("/v1/networks", content=body(network), headers=headers).status_code == 201
    spaces = network + " " * (1 << 20)
    response = client.post("/v1/networks", content=body(spaces), headers=headers)
    assert response.status_code == 413


def test_a_connection_survives_what_is_refused(client: httpx.Client) -> None:
    for _ in range(3):
        wrong = client.post("/v1/networks", content=b"x" * 5000, headers={"Content-Type": "text/plain"})
        assert wrong.status_code == 415
        assert client.post("/v1/nothing", content=b"y" * 5000).status_code == 404
        assert client.head("/v1/nves").content == b""
        assert client.get("/v1/nves").json()["items"] == []


def test_locations_and_problems(client: httpx.Client) -> None:
    made = client.post("/v1/nves", json=NVE)
    assert (made.status_code, httpx.URL(made.headers["location"]).path) == (201, "/v1/nves/nve1")
    missing = client.get("/v1/vms/nobody")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert client.delete("/v1/nves/nve1").status_code == 204
    assert client.get("/metrics").text.startswith("# HELP")


def test_sigterm_ends_it_with_a_stream_open(nva: Any, client: httpx.Client) -> None:
    with client.stream("GET", "/v1/events") as stream:
        assert next(stream.iter_lines())
        assert nva.end() == 0
    assert "did not" not in nva.text, "something had to be given up"


def test_vmm(nva: Any, client: httpx.Client) -> None:
    added = vmm(nva, "network", "add", "blue", "--vni", "100")
    assert (added.returncode, added.stderr) == (0, "")
    assert json.loads(vmm(nva, "status", "--json").stdout)["networks"] == 1
    assert vmm(nva, "network", "show", "red").returncode == 4
    follower = subprocess.Popen(
        [str(BIN / "vmm"), "events", "--follow", "--url", f"http://127.0.0.1:{nva.rest}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: "\nvmm_event_streams 1.0\n" in client.get("/metrics").text, "the stream is open")
        assert nva.end() == 0
        _, said = follower.communicate(timeout=DEADLINE)
    finally:
        follower.kill()
        follower.wait()
    assert (follower.returncode, "vmm: the" in said) == (3, True), said
    gone = vmm(nva, "status")
    assert (gone.returncode, "no NVA at" in gone.stderr) == (3, True)
