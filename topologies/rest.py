"""The few calls of the NVA's REST interface that an orchestrator makes, over the standard library's HTTP
client.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from topologies import leftovers
from topologies.errors import ApiError, NotReady
from topologies.rundir import wait_until

if TYPE_CHECKING:
    from topologies.net import OverlayNet
    from topologies.nve import NVE
    from topologies.specs import VMSpec, VNSpec

_FINAL = ("settled", "aborted", "failed")


class Rest:
    """A client of the NVA at `base`, as "http://127.0.0.1:8080". Every request has `timeout` seconds, and shows `token`
    if there is one.
    """

    def __init__(self, base: str, timeout: float = 10.0, token: str | None = None) -> None:
        parts = urlsplit(base if "//" in base else f"http://{base}")
        if parts.scheme != "http" or not parts.hostname:
            raise ApiError(f"{base!r} is not an http:// address")
        self.base, self.timeout, self.token = base, timeout, token
        self._where = (parts.hostname, parts.port or 80)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make a request below /v1 and return the decoded answer (None where it has no body).

        Raises ApiError with the problem's own words for a status of 400 and above, or without any answer.
        """
        connection = http.client.HTTPConnection(*self._where, timeout=self.timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"} if data else {}
            if self.token is not None:
                headers["Authorization"] = f"Bearer {self.token}"
            connection.request(method, f"/v1{path}", data, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise ApiError(f"{method} {self.base}/v1{path}: no answer: {exc}") from exc
        finally:
            connection.close()
        try:
            document = json.loads(text) if text else None
        except ValueError:
            document = {"detail": text.decode(errors="replace")[:200]}
        if response.status >= 400:
            problem = document if isinstance(document, dict) else {"detail": str(document)}
            words = problem.get("detail") or problem.get("title") or response.reason
            extra = f" {problem['errors']}" if problem.get("errors") else ""
            raise ApiError(f"{method} /v1{path}: {response.status}: {words}{extra}", response.status, problem)
        return document

    # --- inventory ------------------------------------------------------------------------------------

    def add_nve(self, nve: NVE, how: str = "POST") -> Any:
        """Register an NVE (PUT: or replace it); the NVA finds its tunnel port by itself, and is told what it has for
        layer 3.
        """
        return self.call(how, "/nves" if how == "POST" else f"/nves/{quote(nve.name)}", {
            "name": nve.name, "dpid": nve.dpid, "ipv4": bare(nve.ipv4), "ipv6": bare(nve.ipv6), "tunnel_port": None,
            **nve.layer3(),
        })

    def add_network(self, vn: VNSpec) -> Any:
        """Register a VN."""
        return self.call("POST", "/networks", vn.body())

    def add_vm(self, spec: VMSpec, nve: str | None = None, attachments: Iterable[str] = ()) -> Any:
        """Register a VM where it is (`nve`: elsewhere than its spec says).

        `attachments` are NVEs where a port of its port's name is its own too, so that it may announce itself there
        without having asked.
        """
        return self.call("POST", "/vms", vm_body(
            spec, nve=nve or spec.nve, attachments=[{"nve": other, "port": spec.port} for other in attachments],
        ))

    def register(self, net: OverlayNet, attachments: bool = True) -> None:
        """Register all NVEs, VNs and VMs of a topology. Doing it again changes nothing.

        With `attachments` every VM may show up at every NVE, else only moves that were asked for are believed. What an
        earlier topology has left at the NVA makes room (leftovers.py). Raises ApiError, which says what to do.
        """
        try:
            self._register(net, attachments, "POST")
        except ApiError as exc:
            if exc.status != 409:
                raise
            leftovers.remove(self, net)
            self._register(net, attachments, "PUT")

    def _register(self, net: OverlayNet, attachments: bool, how: str) -> None:
        for nve in net.nves:
            self.add_nve(nve, how)
        for vn in net.topo.vn_specs:
            self.add_network(vn)
        everywhere = [nve.name for nve in net.nves] if attachments else []
        for vm in net.vms:
            found = self.add_vm(vm.spec, vm.nve.name, everywhere)
            if leftovers.moved_away(found, vm.nve.name, vm.spec.port):
                self.call("DELETE", f"/vms/{quote(vm.name)}")
                self.add_vm(vm.spec, vm.nve.name, everywhere)

    def await_synced(self, names: Iterable[str], seconds: float = 20.0) -> None:
        """Wait until NVEs of these names hold all that they were programmed with. Raises NotReady."""
        wanted = set(names)

        def synced() -> bool:
            known = {nve["name"]: nve for nve in self.call("GET", "/nves")["items"]}
            return wanted <= known.keys() and all(
                known[name]["in_sync"]
                and known[name]["generation"]["programmed"] == known[name]["generation"]["realised"]
                for name in wanted
            )

        wait_until(synced, seconds, f"{', '.join(sorted(wanted))} in sync", 0.02)

    # --- moves ----------------------------------------------------------------------------------------

    def start_move(self, vm: str, to: str, kind: str, port: str, **more: Any) -> dict[str, Any]:
        """Ask for a move; returns the move's document."""
        body = {"vm": vm, "to": to, "kind": kind, "ports": {"eth0": port}, **more}
        document: dict[str, Any] = self.call("POST", "/moves", body)
        return document

    def hook(self, move: str, name: str) -> Any:
        """Call a hook of a move: redirect, activate or abort."""
        return self.call("POST", f"/moves/{quote(str(move))}/{name}")

    def move(self, move: str) -> dict[str, Any]:
        """The move's document as it is now."""
        document: dict[str, Any] = self.call("GET", f"/moves/{quote(str(move))}")
        return document

    def await_move(self, move: str, done: Any, seconds: float, what: str) -> dict[str, Any]:
        """Poll a move until `done(document)`; raises NotReady after `seconds`, ApiError if the move ends
        otherwise.
        """
        deadline = time.monotonic() + seconds
        while True:
            document = self.move(move)
            if done(document):
                return document
            if document["state"] in ("aborted", "failed") or (document["state"] in _FINAL):
                raise ApiError(f"move {move} is {document['state']}, not {what}: {document.get('reason') or document}")
            if time.monotonic() >= deadline:
                raise NotReady(f"move {move}: not {what} within {seconds:g} s, but {document['state']}")
            time.sleep(0.01)


def vm_body(spec: VMSpec, **interface: Any) -> dict[str, Any]:
    """What registers a VM; `interface` overrides."""
    eth0 = {
        "name": "eth0", "network": spec.vn, "mac": spec.mac, "nve": spec.nve, "port": spec.port,
        "ipv4": [spec.ip] if spec.ip else [], "ipv6": [spec.ip6] if spec.ip6 else [],
        **({"dns": spec.dns} if spec.dns else {}), **interface,
    }
    return {"name": spec.name, "interfaces": [eth0], **({"leave": spec.leave} if spec.leave else {})}


def bare(address: str | None) -> str | None:
    """An address without its prefix length."""
    return address.partition("/")[0] if address else None
