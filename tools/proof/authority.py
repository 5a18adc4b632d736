"""A `ryu-manager ryu_vmm` on ports of its own, with a store, a configuration and a log of its own."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from topologies.controller import ryu_manager
from topologies.errors import ApiError
from topologies.ports import free_port
from topologies.rest import Rest
from topologies.rundir import wait_until

_STARTING = 40.0  # seconds; a loaded machine is slow, a hang is endless
_ENDING = 15.0
_SAMPLE = re.compile(r'(\w+)\{(?:\w+)="([^"]*)"\} (\S+)')


class Unhealthy(Exception):
    """The authority has ended by itself, or its log holds what must not be there."""


class Authority:
    """One NVA process; a context manager.

    Args:
        folder: where its configuration, store and log are kept.
        tls: folder in which tools/ca has made certificates: switches have to connect over TLS.
        options: lines of the [vmm] group of its configuration.
    """

    def __init__(self, folder: Path, tls: Path | None = None, **options: object) -> None:
        self.folder = folder
        self._tls = tls
        self.store = folder / "nva.sqlite"
        self.log = folder / "nva.log"
        self.port, self.rest_port = free_port(), free_port()
        self.rest = Rest(f"http://127.0.0.1:{self.rest_port}", timeout=20.0)
        self._options = {"store": self.store, **options}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where switches connect to."""
        return "127.0.0.1", self.port

    @property
    def pid(self) -> int:
        """Of its process. Raises Unhealthy where there is none."""
        if self._process is None:
            raise Unhealthy("the NVA is not running")
        return self._process.pid

    @property
    def base(self) -> str:
        """The address of its REST interface."""
        return self.rest.base

    def start(self) -> None:
        """Start it and wait until it takes requests. Raises Unhealthy, NotReady."""
        config = self.folder / "nva.conf"
        groups = {"DEFAULT": self._defaults(), "vmm": self._options}
        lines = []
        for group, given in groups.items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in given.items())]
        config.write_text("\n".join(lines) + "\n")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM", ryu_manager(), "--config-file", str(config)),  # ends with us
                    *("--ofp-listen-host", "127.0.0.1", f"--ofp-{self._kind}-listen-port", str(self.port)),
                    *("--wsapi-host", "127.0.0.1", "--wsapi-port", str(self.rest_port), "ryu_vmm"),
                ],
                cwd=self.folder,
                env={name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._ready, _STARTING, f"the NVA's REST interface at {self.base}", 0.05)

    @property
    def _kind(self) -> str:
        return "tcp" if self._tls is None else "ssl"

    def _defaults(self) -> dict[str, object]:
        if self._tls is None:
            return {}
        files = {"ctl_privkey": "controller.key", "ctl_cert": "controller.crt", "ca_certs": "ca.crt"}
        return {name: self._tls / file for name, file in files.items()}

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise Unhealthy(f"the NVA ended with {self._process.returncode}:\n{self.tail()}")
        try:
            self.rest.call("GET", "/ready")
        except ApiError:
            return False
        return True

    def stop(self) -> None:
        """End it by SIGTERM. Raises Unhealthy if it does not end well, or said something it must not say."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            code = process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Unhealthy(f"the NVA did not end within {_ENDING:g} s of SIGTERM:\n{self.tail()}") from None
        if code:
            raise Unhealthy(f"the NVA ended with {code}:\n{self.tail()}")
        self.check()

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would; `start` starts it again on the same store and ports."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def check(self) -> None:
        """Raises Unhealthy if the log holds a traceback."""
        text = self.log.read_text(errors="replace")
        at = text.find("Traceback")
        if at >= 0:
            raise Unhealthy(f"the NVA's log holds a traceback:\n{text[max(0, at - 500) : at + 3000]}")

    def tail(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # --- questions ----------------------------------------------------------------------------------------------------
    def events(self, after: str | None = None, kind: str = "") -> list[dict[str, Any]]:
        """The event stream so far, oldest first: after the event of that id, of kinds that start so."""
        found: list[dict[str, Any]] = []
        while True:
            place = f"&after={after}" if after else ""
            page = self.rest.call("GET", f"/events?follow=0&limit=10000&kind={kind}{place}")
            found += page["items"]
            after = page["next"]
            if after is None:
                return found

    def last_event(self) -> str | None:
        """The id of the newest event."""
        found = self.events()
        return str(found[-1]["id"]) if found else None

    def await_event(self, kind: str, after: str | None, seconds: float = 10.0, **fields: object) -> dict[str, Any]:
        """The first event of a kind, with these fields, after the event of that id. Raises NotReady."""

        def found() -> dict[str, Any] | None:
            for event in self.events(after, kind):
                if event["kind"] == kind and fields.items() <= event["fields"].items():
                    return event
            return None

        event: dict[str, Any] = wait_until(found, seconds, f"event {kind} {fields}", 0.05)
        return event

    def counters(self, family: str) -> dict[str, int]:
        """Counters by label: family `drops` (by cause), `packet_ins` (by reason) or `occurrences` (by name)."""
        with urllib.request.urlopen(f"{self.base}/metrics", timeout=10) as response:
            text = response.read().decode()
        return {label: int(float(value)) for name, label, value in _SAMPLE.findall(text)
                if name == f"vmm_{family}_total"}

    def __enter__(self) -> Authority:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self.stop()
            return
        error.add_note(f"the NVA's last words:\n{self.tail()}")
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_ENDING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
