"""A real ryu-manager whose REST interface asks who comes, over TLS, and certificates for everybody."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import trustme
from click.testing import CliRunner

from ryu_vmm.cli.root import vmm as command

BIN = Path(sys.executable).parent
DEADLINE = 40.0  # seconds


class Authorities:
    """A CA of ours and a foreign one, and the files that a server and its clients need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ours, self.foreign = trustme.CA(), trustme.CA()
        self.ca = folder / "ca.pem"
        self.ours.cert_pem.write_to_path(self.ca)
        self.server = self.issue("server", "localhost", "127.0.0.1")

    def issue(self, name: str, *identities: str, by: trustme.CA | None = None, **more: Any) -> Path:
        """A certificate with its key and chain, in one file."""
        path = self.folder / f"{name}.pem"
        made = (by or self.ours).issue_cert(*identities, **more)
        made.private_key_and_cert_chain_pem.write_to_path(path)
        path.chmod(0o600)
        return path

    def expired(self, name: str, identity: str) -> Path:
        """A certificate that was good until a minute ago."""
        now = datetime.now(UTC)
        return self.issue(name, identity, not_before=now - timedelta(days=2), not_after=now - timedelta(minutes=1))

    def context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """What a client uses."""
        made = ssl.create_default_context(cafile=str(self.ca))
        if certificate is not None:
            made.load_cert_chain(certificate)
        return made


@dataclass
class Run:
    """What became of a command."""

    code: int
    stdout: str
    stderr: str


def vmm(*words: str, env: dict[str, str] | None = None, stdin: str = "") -> Run:
    """The command line, in this process: its start takes longer than all that it does."""
    kept: dict[str, str | None] = {name: None for name in os.environ if name.startswith("VMM_")}
    done = CliRunner(env={**kept, **(env or {})}).invoke(command, list(words), input=stdin, catch_exceptions=False)
    return Run(done.exit_code, done.stdout, done.stderr)


def vmm_process(*words: str, env: dict[str, str]) -> Run:
    """The command line as somebody calls it."""
    done = subprocess.run(
        [str(BIN / "vmm"), *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("VMM_")}, **env},
    )
    return Run(done.returncode, done.stdout, done.stderr)


class Place:
    """A credentials file, certificates, and the NVA behind them.

    Attributes:
        tokens: by the principal's name.
    """

    def __init__(self, folder: Path, start: Callable[..., Any]) -> None:
        self.folder, self._start = folder, start
        self.authorities = Authorities(folder)
        self.credentials = folder / "credentials.json"
        self.tokens: dict[str, str] = {}
        self.manager: Any = None

    def admit(self, name: str, *words: str) -> None:
        """Have ``vmm credentials new`` make a principal."""
        made = vmm("credentials", "new", name, "--file", str(self.credentials), *words)
        assert made.code == 0, made.stderr
        if "--no-token" not in words:
            self.tokens[name] = made.stdout.strip()

    def start(self, *app: str, **options: object) -> Any:
        """Start ryu-manager; options of [vmm], of which None are left out."""
        given: dict[str, object] = {
            "store": self.folder / "vmm.sqlite",
            "credentials": self.credentials,
            "rest_cert": self.authorities.server,
            "rest_client_ca": self.authorities.ca,
            **options,
        }
        config = self.folder / "vmm.conf"
        lines = [f"{name} = {value}" for name, value in given.items() if value is not None]
        config.write_text("\n".join(["[vmm]", *lines, ""]))
        self.manager = self._start("--config-file", str(config), *(app or ("ryu_vmm",)))
        return self.manager

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.manager.rest}"

    def client(self, token: str | None = None, certificate: Path | None = None) -> httpx.Client:
        """A client that shows what it is given."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        context = self.authorities.context(certificate)
        return httpx.Client(base_url=self.url, verify=context, headers=headers, timeout=DEADLINE, trust_env=False)

    def raw(self) -> socket.socket:
        """A connection without TLS."""
        sock: socket.socket = self.manager.connect(self.manager.rest)
        sock.settimeout(DEADLINE)
        return sock

    def secure(self, certificate: Path | None = None) -> ssl.SSLSocket:
        """A connection with TLS, to send what no HTTP client would."""
        return self.authorities.context(certificate).wrap_socket(self.raw(), server_hostname="127.0.0.1")

    def vmm(
        self, *words: str, token: str | None = None, env: dict[str, str] | None = None, process: bool = False
    ) -> Run:
        """The command line against this NVA; ``process``: in a process of its own."""
        given = {"VMM_URL": self.url, "VMM_CACERT": str(self.authorities.ca), **(env or {})}
        if token is not None:
            given["VMM_TOKEN"] = token
        return vmm_process(*words, env=given) if process else vmm(*words, env=given)

    def written(self) -> str:
        """All that the NVA has left behind: output, store, audit."""
        files = [path for path in self.folder.iterdir() if path.name.startswith(("vmm.sqlite", "ryu-manager"))]
        return "".join(path.read_bytes().decode("latin-1") for path in files) + self.manager.text
