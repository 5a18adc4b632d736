"""An NVA with TLS, credentials and something to steal, for rest_forgery.py."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from ryu_vmm import credentials

from .authority import Unhealthy, free_port, ryu_manager

__all__ = ["Stage"]


class Stage:
    """An NVA with TLS, credentials and something to steal; a context manager.

    Attributes:
        url, cacert, known, certificates, theirs: as :func:`attempts` takes them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.cacert = folder / "ca.pem"
        self.known: dict[str, str] = {}
        self.certificates: dict[str, Path] = {}
        self.theirs = {"nves": "nve2", "networks": "b-net", "vms": "b-vm", "moves": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stage:
        server = self._certificates()
        self._credentials()
        self._inventory()
        config = self.folder / "vmm.conf"
        config.write_text(
            f"[vmm]\nstore = {self.folder}/vmm.sqlite\ncredentials = {self.folder}/credentials.json\n"
            f"inventory = {self.folder}/inventory.json\nrest_cert = {server}\nrest_client_ca = {self.cacert}\n"
        )
        with (self.folder / "nva.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM", ryu_manager(), "--config-file", str(config)),
                    *("--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", str(free_port())),
                    *("--wsapi-host", "127.0.0.1", "--wsapi-port", str(self.port), "ryu_vmm"),
                ],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 40
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise Unhealthy((self.folder / "nva.log").read_text()[-2000:])
            time.sleep(0.05)
        return self

    def _ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.cacert))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)
        try:
            connection.request("GET", "/v1/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def left(self) -> str:
        """All that the NVA has written: log, store, audit."""
        return "".join(
            path.read_bytes().decode("latin-1") for path in self.folder.glob("*") if path.name[:3] in ("nva", "vmm")
        )

    def _certificates(self) -> Path:
        ours, foreign, now = trustme.CA(), trustme.CA(), datetime.now(UTC)
        ours.cert_pem.write_to_path(self.cacert)

        def issued(name: str, by: trustme.CA, *identities: str, **more: Any) -> Path:
            path = self.folder / f"{name}.pem"
            by.issue_cert(*identities, **more).private_key_and_cert_chain_pem.write_to_path(path)
            path.chmod(0o600)
            return path

        old = {"not_before": now - timedelta(days=2), "not_after": now - timedelta(minutes=1)}
        self.certificates = {
            "a certificate of a foreign authority": issued("foreign", foreign, "admin.example.org"),
            "an expired certificate": issued("expired", ours, "admin.example.org", **old),
            "a certificate of nobody here": issued("nobody", ours, "nobody.example.org"),
            "a certificate with the name elsewhere": issued("name", ours, "x.org", common_name="admin.example.org"),
        }
        return issued("server", ours, "127.0.0.1")

    def _credentials(self) -> None:
        people = {
            "admin": {"role": "admin", "certificates": ["DNS:admin.example.org"]},
            "tenant": {"role": "tenant", "tenant": "acme"},
            "hypervisor": {"role": "hypervisor", "nves": ["nve1"]},
            "reader": {"role": "reader"},
        }
        entries = []
        for name, facts in people.items():
            self.known[name], key = credentials.new_token()
            entries.append(credentials.Entry.model_validate({"name": name, "tokens": [key], **facts}))
        credentials.save(self.folder / "credentials.json", credentials.File(principals=entries))

    def _inventory(self) -> None:
        def vm(name: str, network: str, n: int) -> dict[str, Any]:
            place = {"nve": f"nve{n}", "port": f"tap-{name}"}
            return {
                "name": name,
                "interfaces": [{"name": "eth0", "network": network, "mac": f"02:00:00:00:00:0{n}", **place}],
            }

        whole = {
            "nves": [{"name": f"nve{n}", "dpid": str(n), "ipv4": f"192.0.2.{n}"} for n in (1, 2)],
            "networks": [
                {"name": f"{who}-net", "vni": n, "tenant": t} for n, who, t in ((1, "a", "acme"), (2, "b", "beta"))
            ],
            "vms": [vm("a-vm", "a-net", 1), vm("b-vm", "b-net", 2)],
        }
        (self.folder / "inventory.json").write_text(json.dumps(whole))
