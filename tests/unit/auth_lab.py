"""An NVA with two tenants, whose REST interface asks who is there, and everybody who may come."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import LiveRuntime
from rest_lab import NVES, vm

from ryu_vmm import credentials, inventory
from ryu_vmm.audit import AuditTrail
from ryu_vmm.rest import make_app
from ryu_vmm.rest.authentication import CERTIFICATE, Access, Keyring

#: Hashes that cost nothing: what slow ones cost is not what is tested.
CHEAP = (2, 8, 1)
PEOPLE: dict[str, dict[str, Any]] = {
    "ops": {"role": "admin"},
    "acme": {
        "role": "tenant", "tenant": "acme", "ports": ["*/acme-*"], "dns": ["*.acme.example.org", "www.example.org"],
    },
    "beta": {"role": "tenant", "tenant": "beta"},
    "host1": {"role": "hypervisor", "nves": ["nve1"], "certificates": ["DNS:host1.example.org"]},
    "host3": {"role": "hypervisor", "nves": ["nve3"]},
    "eyes": {"role": "reader"},
}


def token() -> tuple[str, dict[str, Any]]:
    """A token and what the file keeps of it."""
    number, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    return f"vmm-{number}-{secret}", {"id": number, "hash": credentials.slow_hash(secret, cost=CHEAP)}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Town:
    """The NVA and its callers.

    Attributes:
        tokens: by name of the principal.
        access, audit, runtime, app: what asks, what records, the NVA, the WSGI application.
        file: the credentials file.
        clock: what limits of failures go by.
    """

    def __init__(self, runtime: LiveRuntime, folder: Path) -> None:
        self.runtime, self.file, self.clock = runtime, folder / "credentials.json", Clock()
        self.tokens: dict[str, str] = {}
        self.people: list[dict[str, Any]] = []
        for name, facts in PEOPLE.items():
            self.tokens[name], kept = token()
            self.people.append({"name": name, "tokens": [kept], **facts})
        self.write()
        self.access = Access(Keyring(self.file), clock=self.clock)
        self.audit = AuditTrail(folder / "audit.sqlite", clock=self.clock)
        self.app = make_app(runtime, self.access, self.audit)
        self._clients: list[httpx.Client] = []

    def write(self) -> None:
        credentials.save(self.file, credentials.parse(json.dumps({"principals": self.people}).encode(), "x"))

    def client(self, given: str | None = None, *, address: str = "192.0.2.7", certificate: Any = None) -> httpx.Client:
        """A client that shows a token, a certificate, or nothing."""

        def app(environ: dict[str, Any], start: Any) -> Any:
            environ["REMOTE_ADDR"] = address
            if certificate is not None:
                environ[CERTIFICATE] = certificate
            return self.app(environ, start)

        headers = {} if given is None else {"Authorization": f"Bearer {given}"}
        made = httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://nva", headers=headers)
        self._clients.append(made)
        return made

    def of(self, name: str) -> httpx.Client:
        """The client of a principal."""
        return self.client(self.tokens[name])

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.audit.close()


@pytest.fixture
def town(runtime: LiveRuntime, tmp_path: Path) -> Iterator[Town]:
    """Networks of acme (a-vm1 on nve1), beta (b-vm2 on nve2) and the operator (o-vm3 on nve3); three NVEs."""
    networks = [
        {"name": "a-net", "vni": 1, "tenant": "acme"},
        {"name": "b-net", "vni": 2, "tenant": "beta"},
        {"name": "o-net", "vni": 3},
    ]
    vms = [
        {**vm(1, "nve1", network="a-net", port="acme-1"), "name": "a-vm1"},
        {**vm(2, "nve2", network="b-net", port="beta-1"), "name": "b-vm2"},
        {**vm(3, "nve3", network="o-net", port="o-1"), "name": "o-vm3"},
    ]
    whole = json.dumps({"nves": NVES, "networks": networks, "vms": vms})
    inventory.apply(runtime, inventory.parse(whole, yaml_syntax=False))
    for nve, port in (("nve1", "acme-1"), ("nve2", "beta-1"), ("nve3", "o-1")):
        runtime.connect(nve, port)
    made = Town(runtime, tmp_path)
    yield made
    made.close()
