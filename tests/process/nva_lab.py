"""A real NVA and emulated switches around it, with TLS or without."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from benchmarks import overlay  # noqa: E402
from certificates.authority import CLIENT, SERVER, Authority  # noqa: E402

from ryu_vmm.emulation.client import Emulation  # noqa: E402
from topologies.ports import free_port  # noqa: E402

DEADLINE = 40.0  # seconds; a loaded machine is slow, a hang is endless
T = TypeVar("T")


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """What tools/ca makes; certificates of switches are added where they are needed."""
    authority = Authority(tmp_path_factory.mktemp("pki"))
    authority.issue("controller", "controller", SERVER)
    return authority


def files(pki: Authority, name: str | None, folder: Path | None = None) -> dict[str, str]:
    """TLS of an emulated switch whose certificate has that name; None: it has none."""
    found = {"ca": str((folder or pki.folder) / "ca.crt")}
    if name is not None:
        pki.issue(f"nve-{name}", name, CLIENT)
        found |= {kind: str(pki.folder / f"nve-{name}.{end}") for kind, end in (("key", "key"), ("certificate", "crt"))}
    return found


class Nva:
    """``ryu-manager ryu_vmm`` that forgets, its REST API, and the processes of emulated switches."""

    def __init__(self, start: Callable[..., Any], folder: Path, pki: Authority | None, **options: object) -> None:
        lines = ["[DEFAULT]"]
        if pki is not None:
            key, certificate, ca = (pki.folder / name for name in ("controller.key", "controller.crt", "ca.crt"))
            lines += [f"ctl_privkey = {key}", f"ctl_cert = {certificate}", f"ca_certs = {ca}"]
        lines += ["[vmm]", "store = :memory:", *(f"{name} = {value}" for name, value in options.items())]
        config = folder / "vmm.conf"
        config.write_text("\n".join(lines) + "\n")
        arguments = ["--config-file", str(config)]
        if pki is not None:
            self.ofp = free_port()
            arguments += ["--ofp-ssl-listen-port", str(self.ofp)]
        self.manager = start(*arguments, "ryu_vmm")
        if pki is None:
            self.ofp = self.manager.ofp
        self.manager.connect(self.manager.rest).close()
        self.manager.connect(self.ofp).close()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.manager.rest}/v1", timeout=DEADLINE, trust_env=False)
        self.emulations: list[Emulation] = []

    def emulation(self) -> Emulation:
        """One more process of emulated switches."""
        self.emulations.append(Emulation(("127.0.0.1", self.ofp)))
        return self.emulations[-1]

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def post(self, path: str, body: Any = None) -> Any:
        return self.http.post(path, json=body).raise_for_status().json()

    def put(self, path: str, body: Any) -> Any:
        return self.http.put(path, json=body).raise_for_status().json()

    def register(self, nves: int, guests: list[overlay.Guest] | None = None, **policy: object) -> None:
        """NVEs nve1 and so on, network vn1 with a policy, and guests in it."""
        for n in range(1, nves + 1):
            self.post("/nves", overlay.nve_body(n))
        self.post("/networks", overlay.network_body(**policy))
        if guests:
            self.post("/vms", [guest.body() for guest in guests])

    def wait(self, look: Callable[[], T | None], what: str) -> T:
        end = time.monotonic() + DEADLINE
        while not (found := look()):
            assert time.monotonic() < end, f"{what}: not within {DEADLINE} s\n{self.manager.text[-3000:]}"
            time.sleep(0.02)
        return found

    def synchronised(self, *numbers: int) -> None:
        """Wait until these NVEs are in sync and have acknowledged everything."""

        def done() -> bool:
            documents = [self.get(f"/nves/nve{n}") for n in numbers]
            generations = [document["generation"] for document in documents]
            return all(document["in_sync"] for document in documents) and all(
                generation["programmed"] == generation["realised"] for generation in generations
            )

        self.wait(done, f"NVEs {numbers} in sync")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of a kind so far."""
        found: list[dict[str, Any]] = self.get(f"/events?follow=0&kind={kind}&limit=1000")["items"]
        return found

    def event(self, kind: str, **fields: object) -> dict[str, Any]:
        """Wait for an event with these fields."""

        def look() -> dict[str, Any] | None:
            for event in self.events(kind):
                if all(event["fields"].get(name) == value for name, value in fields.items()):
                    return event
            return None

        return self.wait(look, f"{kind} {fields}")

    def close(self) -> None:
        for emulation in self.emulations:
            emulation.close()
        self.http.close()


@pytest.fixture
def nva(ryu_manager: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[..., Nva]]:
    """nva(pki or None, **options of [vmm])."""
    made: list[Nva] = []

    def start(pki: Authority | None = None, **options: object) -> Nva:
        made.append(Nva(ryu_manager, tmp_path, pki, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()
