"""Answers to the command line: from an NVA, from one of another version, or from something else altogether."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
from click.testing import CliRunner

from ryu_vmm.cli import client as client_module
from ryu_vmm.cli.root import vmm as command

#: Commands, each of which is given every answer.
COMMANDS = (
    "nve list",
    "nve show nve1",
    "network list",
    "vm list",
    "vm show vm1",
    "move list",
    "move show 1",
    "move start vm1 --to nve2",
    "directory",
    "explain vm1",
    "events",
    "audit",
    "status",
    "evacuation list",
    "nve verify nve1",
)


def documents() -> tuple[bytes, ...]:
    """Bodies that a real NVA sends, each behind the number of the command it answers and a status."""
    from live import LiveRuntime
    from rest_lab import NVES, vm

    from ryu_vmm import inventory
    from ryu_vmm.rest import make_app

    runtime = LiveRuntime()
    whole = {"nves": NVES, "networks": [{"name": "blue", "vni": 100}], "vms": [vm(n, f"nve{n}") for n in (1, 2)]}
    inventory.apply(runtime, inventory.parse(json.dumps(whole)))
    for n in (1, 2, 3):
        runtime.connect(f"nve{n}", f"tap-vm{n}")
    found = []
    with httpx.Client(transport=httpx.WSGITransport(app=make_app(runtime)), base_url="http://nva") as http:
        http.post("/v1/moves", json={"vm": "vm1", "to": "nve2"})
        paths = ["nves", "nves/nve1", "networks", "vms", "vms/vm1", "moves", "moves/1", "moves/1", "directory"]
        paths += ["vms/vm1/explain", "events?follow=0", "audit", "health", "evacuations", "moves/99"]
        for number, path in enumerate(paths):
            found.append(bytes([number, 0]) + http.get(f"/v1/{path}").content)
    return tuple(found)


def cli() -> Callable[[bytes], frozenset[str]]:
    """Every answer ends a command in one of the documented ways: the first byte chooses it, the second the status."""
    statuses = (200, 201, 202, 204, 400, 404, 409, 422, 500, 503)
    answer: list[httpx.Response] = []

    class Mocked(httpx.Client):
        def __init__(self, **more: Any) -> None:
            more.pop("verify", None)
            super().__init__(transport=httpx.MockTransport(lambda _: answer[0]), **more)

    def take(data: bytes) -> frozenset[str]:
        number, status, body = *data[:2].ljust(2, b"\0"), data[2:]
        media = ("application/json", "application/problem+json", "text/html", "text/event-stream")[status % 4]
        answer[:] = [httpx.Response(statuses[status % 10], headers={"content-type": media}, content=body)]
        real = client_module.httpx.Client
        client_module.httpx.Client = Mocked  # type: ignore[misc]
        ends: set[str] = set()
        try:
            line = COMMANDS[number % len(COMMANDS)].split()
            for more in ([], ["--json"]):
                result = CliRunner(env={"VMM_URL": "http://nva"}).invoke(command, [*line, *more])
                if result.exception is not None and not isinstance(result.exception, SystemExit):
                    raise result.exception
                assert 0 <= result.exit_code <= 7
                ends.add(f"{line[:2]} {result.exit_code} {result.stderr[-30:]}")
        finally:
            client_module.httpx.Client = real  # type: ignore[misc]
        return frozenset(ends)

    return take
