"""A real name server and NVAs that publish names there."""

from __future__ import annotations

import re
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from nva_lab import Nva

from topologies.nameserver import NameServer

__all__ = ["Hole", "Publishing", "hole", "name_server", "publishing"]


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    """A name server in charge of example.org, in which other.example.org has records that are nobody's business."""
    with NameServer(records='web IN TXT "not ours"\nother IN A 192.0.2.99') as server:
        yield server


class Hole:
    """A server that takes connections and never says anything."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(64)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def hole() -> Iterator[Hole]:
    made = Hole()
    yield made
    made.close()


class Publishing:
    """An NVA that publishes, and what a test does with it."""

    def __init__(self, nva: Nva) -> None:
        self.nva = nva
        for n in (1, 2):
            nve = {"name": f"nve{n}", "dpid": f"{n:016x}", "ipv4": f"192.168.100.{n}"}
            nva.put(f"/nves/nve{n}", nve)
        nva.put("/networks/blue", {"name": "blue", "vni": 100})

    @staticmethod
    def body(vm: str, *addresses: str, dns: str | None = "", n: int = 1) -> dict[str, Any]:
        """A VM with a name, VM.example.org unless told otherwise."""
        interface = {
            "name": "eth0",
            "network": "blue",
            "mac": f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}",
            "ipv4": [a for a in addresses if ":" not in a],
            "ipv6": [a for a in addresses if ":" in a],
            "nve": "nve1",
            "port": f"tap-{vm}",
            "dns": f"{vm}.example.org" if dns == "" else dns,
        }
        return {"name": vm, "interfaces": [interface]}

    def put(self, vm: str, *addresses: str, dns: str | None = "", n: int = 1) -> None:
        self.nva.put(f"/vms/{vm}", self.body(vm, *addresses, dns=dns, n=n))

    def remove(self, vm: str) -> None:
        self.nva.http.delete(f"/vms/{vm}").raise_for_status()

    def name(self, name: str) -> dict[str, Any] | None:
        return next((item for item in self.nva.get("/names")["items"] if item["name"] == name), None)

    def published(self, name: str) -> dict[str, Any]:
        """Wait until a name is as it should be."""

        def look() -> dict[str, Any] | None:
            found = self.name(name)
            return found if found is not None and found["published"] else None

        return self.nva.wait(look, f"{name} published")

    def failure(self, name: str, why: str) -> dict[str, Any]:
        """Wait until a name's failure has these words in it."""

        def look() -> dict[str, Any] | None:
            found = self.name(name)
            failure: dict[str, Any] | None = found and found["failure"]
            return failure if failure is not None and re.search(why, failure["why"]) else None

        return self.nva.wait(look, f"{name} failing: {why}")

    def milliseconds(self, times: int = 50) -> float:
        """What REST takes to answer: the worst of so many."""
        worst = []
        for _ in range(times):
            begun = time.monotonic()
            self.nva.get("/names")
            worst.append(1000 * (time.monotonic() - begun))
        return statistics.quantiles(worst, n=10)[-1]


@pytest.fixture
def publishing(nva: Callable[..., Nva]) -> Callable[..., Publishing]:
    """publishing(*servers, key_file=..., **options): an NVA that tells these servers, by host and port."""

    def start(*servers: str, key_file: str, **options: object) -> Publishing:
        given = {
            "dns_servers": ", ".join(servers),
            "dns_zones": "example.org",
            "dns_key_file": key_file,
            "dns_timeout": 1.0,
            **options,
        }
        return Publishing(nva(**given))

    return start
