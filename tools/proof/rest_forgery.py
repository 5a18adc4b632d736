"""Everybody who may not, at every door: each route of REST is tried with every credential that does not suffice.

``attempts(url, ...)`` tries; ``rest_stage.Stage`` sets up an NVA with people, networks and VMs to try it on. What is
believed is judged twice: by the answers, and by what the admin finds changed afterwards.

    tools/forge [--text] [--json FILE]
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import itertools
import json
import os
import re
import secrets
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import machine, report
from benchmarks.report import Part

from ryu_vmm.rest.roles import Role
from ryu_vmm.rest.routes import ROUTES, Route

from .authority import Unhealthy
from .rest_stage import Stage

__all__ = ["Forger", "attempts"]

#: Seconds that an answer may take.
PATIENCE = 20.0
#: Statuses that refuse whoever asks, not what is asked for.
DENIED = (401, 403, 429)
#: Wrong credentials that one source address shows; more would be refused for their number alone.
PER_SOURCE = 8


@dataclass(frozen=True)
class Show:
    """What somebody shows.

    Attributes:
        kind: in words, for the table.
        headers: of the request.
        certificate: PEM file with certificate and key.
        role: what it makes them; None: nobody.
    """

    kind: str
    headers: tuple[tuple[str, str], ...] = ()
    certificate: Path | None = None
    role: Role | None = None


@dataclass
class Forger:
    """Makes the attempts and keeps count.

    Args:
        url: of an NVA on 127.0.0.0/8 (each few attempts come from another address of it).
        cacert: PEM file with the authority of its certificate.

    Attributes:
        tried, believed: attempts by kind; of these, those that were let in, in words.
        refused: answers by status, 0 for a connection that was not even made.
    """

    url: str
    cacert: Path | None = None
    tried: Counter[str] = field(default_factory=Counter)
    believed: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    _sources: Iterator[str] = field(default_factory=lambda: _addresses())
    _source: str = ""
    _left: int = 0

    def ask(self, method: str, target: str, show: Show, body: Any = None, *, gently: bool = False) -> tuple[int, bytes]:
        """One request on a connection of its own; status 0: there was none. ``gently``: from our usual address."""
        parts = urlsplit(self.url)
        if not gently and not self._left:
            self._source, self._left = next(self._sources), PER_SOURCE
        self._left -= not gently
        where = ("127.0.0.1", 0) if gently else (self._source, 0)
        host, port = str(parts.hostname), parts.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=None if self.cacert is None else str(self.cacert))
            if show.certificate is not None:
                context.load_cert_chain(show.certificate)
            connection = http.client.HTTPSConnection(
                host, port, timeout=PATIENCE, source_address=where, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=PATIENCE, source_address=where)
        content = b"" if body is None else json.dumps(body).encode()
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in show.headers:
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            response = connection.getresponse()
            return response.status, response.read(65536)
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def attempt(
        self, kind: str, method: str, target: str, show: Show, body: Any = None, fine: Iterable[int] = ()
    ) -> None:
        """An attempt that must be denied (or end with one of ``fine``)."""
        status, said = self.ask(method, target, show, body)
        self.tried[kind] += 1
        self.refused[status] += 1
        # No answer at all is one to a certificate that is not believed, and a fault to anything else.
        refusals = (*DENIED, *fine) if show.certificate is None else (0, *DENIED, *fine)
        if status not in refusals:
            self.believed.append(f"{kind} as {show.kind}: {method} {target}: {status} {said[:200]!r}")

    def listing(self, kind: str, target: str, show: Show, hidden: Iterable[str]) -> None:
        """A list, in which somebody else's names must not be."""
        status, said = self.ask("GET", target, show)
        self.tried[kind] += 1
        self.refused[status] += 1
        told = [name for name in hidden if f'"{name}"'.encode() in said]
        if status != 200 or told:
            self.believed.append(f"{kind} as {show.kind}: GET {target}: {status}, names {told}")


def _addresses() -> Iterator[str]:
    """Addresses of this machine, over and over."""
    return itertools.cycle(f"127.{a}.{b}.{c}" for a in range(1, 20) for b in range(1, 250) for c in range(1, 250))


# --- what is tried ------------------------------------------------------------------------------------------------
def forged(known: Mapping[str, str], certificates: Mapping[str, Path]) -> list[Show]:
    """What nobody may be let in by, made of what is good. ``known``: tokens by name; ``certificates``: bad ones."""
    good = next(iter(known.values()))
    basic = base64.b64encode(f"admin:{good}".encode()).decode()
    bearers = {
        "no token": None,
        "an empty token": "Bearer ",
        "a made-up token": f"Bearer vmm-{secrets.token_hex(4)}-{secrets.token_urlsafe(32)}",
        "a known id, a made-up secret": f"Bearer {good[:13]}{secrets.token_urlsafe(32)}",
        "a token cut short": f"Bearer {good[:-1]}",
        "a token made longer": f"Bearer {good}A",
        "a token in capitals": f"Bearer {good.upper()}",
        "two tokens": f"Bearer {good}, Bearer {good}",
        "a token of another scheme": f"Basic {basic}",
        "a web token without signature": "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ.",
    }
    shows = [Show(kind, () if text is None else (("Authorization", text),)) for kind, text in bearers.items()]
    names = {
        "a header of a proxy": (
            ("X-Remote-User", "admin"),
            ("X-Forwarded-User", "admin"),
            ("X-Forwarded-For", "127.0.0.1"),
        ),
        "a certificate in a header": (("X-SSL-Client-Cert", "CN=admin"), ("ryu-vmm-certificate", "CN:admin")),
        "a token in a cookie": (("Cookie", f"token={good}"), ("X-API-Key", good)),
        "another host": (("Host", "localhost"), ("X-Forwarded-Host", "localhost")),
    }
    shows += [Show(kind, headers) for kind, headers in names.items() if kind != "another host"]
    return shows + [Show(kind, certificate=path) for kind, path in certificates.items()]


def bodies(route: Route, tag: str) -> Any:
    """A body that would change something, were it taken."""
    interface = {"name": "eth0", "network": "a-net", "mac": "02:00:00:00:0f:01", "nve": "nve1", "port": f"tap-{tag}"}
    return {
        "NveInput": {"name": tag, "dpid": "f0f0", "ipv4": "192.0.2.240"},
        "NetworkInput": {"name": tag, "vni": 4040},
        "VmInput": {"name": tag, "interfaces": [interface]},
        "MoveInput": {"vm": "b-vm", "to": "nve1"},
        "InventoryInput": {"networks": [{"name": tag, "vni": 4041}]},
        "EvacuationInput": {"nve": "nve2"},
    }.get(route.body.__name__ if route.body else "", None if route.body is None else {})


def target(route: Route, theirs: Mapping[str, str]) -> str:
    """A path of the route, about things that are there. ``theirs``: names by chapter, ``moves`` a number."""
    name = theirs.get(route.tag, "1")
    return re.sub(r"\{\w+\}", name, route.path) + ("?follow=0" if route.path == "/v1/events" else "")


def disguised(path: str) -> Iterable[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """The same path in other clothes: method, request target, headers."""
    bare, _, query = path.partition("?")
    tail = f"?{query}" if query else ""
    last = bare.rsplit("/", 1)
    yield from (("GET", clothes + tail, ()) for clothes in {
        "/" + bare, bare + "/", bare + "/.", "/v1/health/.." + bare, "/v1/ready/../.." + bare, "/." + bare,
        bare.upper(), bare + ";x=/v1/ready", bare + "%00", f"{last[0]}/%{ord(last[1][:1] or 'x'):02x}{last[1][1:]}",
        bare.replace("/", "%2f"), "http://127.0.0.1" + bare, bare + "#/v1/ready",
    })  # fmt: skip
    for method in ("HEAD", "OPTIONS", "TRACE", "PATCH", "get", "CONNECT", "PROPFIND"):
        yield method, bare + tail, ()
    for header in ("X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL", "Forwarded"):
        yield "GET", bare + tail, ((header, "/v1/ready"),)


def attempts(
    url: str,
    known: Mapping[str, str],
    *,
    cacert: Path | None = None,
    certificates: Mapping[str, Path] | None = None,
    theirs: Mapping[str, str] | None = None,
    forger: Forger | None = None,
    routes: Iterable[Route] = ROUTES,
) -> tuple[int, int]:
    """Try every route with every credential that does not suffice.

    Args:
        url: of the NVA, which has credentials configured.
        known: tokens that are good: ``admin`` first, then any of ``tenant``, ``hypervisor``, ``reader``.
        cacert: PEM file with the authority of the NVA's certificate.
        certificates: client certificates that nobody may be known by, in words.
        theirs: names of things that are not the tenant's nor the hypervisor's: ``nves``, ``networks``, ``vms``,
            ``moves``.
        forger: keeps count and says more.
        routes: those to try.

    Returns:
        How many attempts were tried, and how many believed: let in, or followed by a change that the admin finds.
    """
    made = forger or Forger(url, cacert)
    theirs = theirs or {}
    admin = Show("admin", (("Authorization", f"Bearer {known['admin']}"),), role=Role.ADMIN)
    before = _everything(made, admin)
    shows = forged(known, certificates or {})
    for n, route in enumerate(routes):
        if route.roles is None:
            continue
        path, body = target(route, theirs), bodies(route, f"forged-{n}")
        for show in shows:
            made.attempt("forged or missing credentials", route.method, path, show, body)
        query = f"{path}{'&' if '?' in path else '?'}access_token={known['admin']}"
        made.attempt("forged or missing credentials", route.method, query, Show("a token in the query"), body)
        for role, token in known.items():
            show = Show(role, (("Authorization", f"Bearer {token}"),), role=Role(role))
            if show.role not in route.roles:
                made.attempt("a role that does not suffice", route.method, path, show, body)
            elif show.role in (Role.TENANT, Role.HYPERVISOR) and route.tag in theirs:
                if route.method != "GET" or "{" in route.path:
                    # 404: it does not exist for them; 409: the name is taken; 422: what it refers to is not there
                    made.attempt("somebody else's", route.method, path, show, body, fine=(404, 409, 422))
                else:
                    made.listing("somebody else's", path, show, theirs.values())
        if route.method == "GET":
            for method, clothes, headers in disguised(path):
                # whatever it is taken for, it is answered without telling anything
                made.attempt(
                    "paths and methods in disguise", method, clothes, Show("nobody", headers), fine=(400, 404, 405, 501)
                )
    if _everything(made, admin) != before:
        made.believed.append("something was changed")
    return made.tried.total(), len(made.believed)


def _everything(forger: Forger, admin: Show) -> dict[str, Any]:
    """All that could have been changed, as the admin sees it."""
    found = {}
    for path in ("/v1/nves", "/v1/networks", "/v1/vms", "/v1/moves", "/v1/evacuations"):
        status, said = forger.ask("GET", f"{path}?limit=10000", admin, gently=True)
        if status != 200:
            raise Unhealthy(f"the admin is not let in: GET {path}: {status} {said[:200]!r}")
        items = json.loads(said)["items"]
        for item in items:
            for changing in ("generation", "history", "ledger", "connected", "in_sync"):
                item.pop(changing, None)
        found[path] = items
    return found


# --- the figures -----------------------------------------------------------------------------------------------
def run(folder: Path) -> Part:
    """Set the stage, try everything, and say what came of it."""
    with Stage(folder) as stage:
        forger = Forger(stage.url, stage.cacert)
        begun = time.monotonic()
        tried, believed = attempts(
            stage.url,
            stage.known,
            cacert=stage.cacert,
            certificates=stage.certificates,
            theirs=stage.theirs,
            forger=forger,
        )
        seconds = time.monotonic() - begun
        audited = stage.left()
    leaked = [name for name, token in stage.known.items() if token[13:] in audited]
    rows = [(kind, report.number(count)) for kind, count in forger.tried.items()]
    notes = [
        f"believed: {believed}",
        "answered with: "
        + ", ".join(f"{status or 'no connection'} {count}x" for status, count in sorted(forger.refused.items())),
        f"tokens found in log, store and audit afterwards: {len(leaked)}",
        f"{seconds:.0f} s",
        *forger.believed[:20],
    ]
    data = {"tried": tried, "believed": believed, "leaked": leaked, "what": forger.believed}
    return Part(
        "forgery",
        "REST: unauthorised attempts",
        ("attempts with", "tried"),
        [*rows, ("all", report.number(tried))],
        notes,
        data,
    )


def main() -> int:
    """Command line of ``tools/forge``; 1 if anything was believed."""
    parser = argparse.ArgumentParser(
        prog="tools/forge", description="Try every route of REST with what does not suffice."
    )
    parser.add_argument("--text", action="store_true", help="plain text instead of Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vmm-forge-") as folder:
        part = run(Path(folder))
    print((report.text if given.text else report.markdown)([part], machine.facts()))
    if given.json is not None:
        with contextlib.closing(given.json.open("w")) as file:
            json.dump(part.data, file, indent=2)
    return 1 if part.data["believed"] or part.data["leaked"] else 0


if __name__ == "__main__":
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    sys.exit(main())
