"""The WSGI application: from a request to a checked call, from a reply or an error to a response."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import webob
from webob.headers import EnvironHeaders

from ..audit import AuditTrail
from ..checking import check, strict_json
from ..credentials import redacted
from ..errors import InvalidInput, VmmError
from ..texts import printable
from .authentication import Access
from .contract import Call, Reply, Runtime, Shared
from .inquiry import Inquiry
from .problems import Problem, problem_of
from .routes import ROUTES, Route

__all__ = ["Application", "make_app"]

LOG = logging.getLogger(__name__)
#: Larger bodies are refused (413).
MAX_BODY = 1 << 20
JSON = "application/json"
#: Statuses after which a connection is over.
_LAST = (401, 429)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


def make_app(runtime: Runtime, access: Access | None = None, audit: AuditTrail | None = None) -> Application:
    """The REST API of an NVA as a WSGI application.

    Args:
        runtime: the NVA.
        access: who may ask; default: whoever asks is the local admin.
        audit: where changes and refused attempts are recorded; default: nowhere.
    """
    return Application(runtime, access, audit)


def respond(problem: Problem, request: webob.Request, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request with a problem."""
    return _problem_response(problem, request).send(request, start_response)


class Application:
    """WSGI callable; see :func:`make_app`."""

    def __init__(self, runtime: Runtime, access: Access | None = None, audit: AuditTrail | None = None) -> None:
        self.runtime = runtime
        self._shared = Shared(access or Access(), audit)
        self._table: dict[str, tuple[re.Pattern[str], dict[str, Route]]] = {}
        for route in ROUTES:
            pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(route.path)))
            self._table.setdefault(route.path, (pattern, {}))[1][route.method] = route

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = webob.Request(environ)
        inquiry = Inquiry(request.method, environ)
        problem: Problem | None = None
        try:
            response = self._respond(request, inquiry)
        except Problem as e:
            problem = e
        except (VmmError, TimeoutError) as e:
            problem = problem_of(e)
        except Exception:
            LOG.exception("%s %s failed", request.method, printable(redacted(str(environ.get("PATH_INFO")))))
            problem = Problem(500, "this is our fault; the log says more", "internal")
        status = response.status if problem is None else problem.status
        inquiry.record(self._shared.audit, status, problem)
        return response.send(request, start_response) if problem is None else respond(problem, request, start_response)

    def _respond(self, request: webob.Request, inquiry: Inquiry) -> _Response:
        route, parameters = self._authorised(request, inquiry)
        _negotiate(request, route)
        query, body = _query(request, route), _body(request, route, parameters)
        inquiry.body = body
        if route.roles is not None:  # what anybody may ask says it in its own words
            self.runtime.require()
        inquiry.begin(self._shared.audit)
        headers = EnvironHeaders(request.environ)
        call = Call(self.runtime, parameters, query, body, headers, self._shared, inquiry.principal)
        try:
            return _response(route.handler(call), route)
        except VmmError as e:
            raise call.scope.refusal(e) from e

    def _authorised(self, request: webob.Request, inquiry: Inquiry) -> tuple[Route, dict[str, str]]:
        """The route, if whoever asks may call it. Before that is known, nothing of the request is looked at."""
        principal = inquiry.principal = self._shared.access.identify(request.environ)
        try:
            route, parameters = self._route(request)
        except Problem:
            if principal is None:  # what there is, is nobody's business
                raise self._shared.access.missing() from None
            raise
        if route.roles is not None and principal is None:
            raise self._shared.access.missing()
        if route.roles is not None and principal is not None and principal.role not in route.roles:
            raise self._shared.access.forbidden(principal, f"{route.method} {route.path}")
        return route, parameters

    def _route(self, request: webob.Request) -> tuple[Route, dict[str, str]]:
        try:
            path = request.path_info
        except UnicodeError:
            raise Problem(400, "the path is not UTF-8") from None
        for pattern, methods in self._table.values():
            found = pattern.fullmatch(path)
            if found is None:
                continue
            method = "GET" if request.method == "HEAD" else request.method
            if method in methods:
                return methods[method], found.groupdict()
            allowed = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
            raise Problem(405, f"{request.method} is not for {path}; allowed: {allowed}", headers={"Allow": allowed})
        raise Problem(404, f"there is nothing at {path}", "no-such-path")


def _negotiate(request: webob.Request, route: Route) -> None:
    accept = request.headers.get("Accept", "").lower()
    if accept.strip() and not any(_accepts(accept, media) for media in route.produces):
        raise Problem(406, f"this is available as {' or '.join(route.produces)} only")


def _accepts(accept: str, media: str) -> bool:
    """Whether an Accept header has room for a media type: its most specific range decides (RFC 9110, 12.5.1).

    Parameters other than q are left aside: a client that wants version 2 of something is better served with
    what there is than not at all.
    """
    ranges = ["*/*", f"{media.partition('/')[0]}/*", media]
    best, allowed = -1, False
    for part in accept.split(","):
        wanted, *parameters = (piece.strip() for piece in part.split(";"))
        if wanted in ranges and ranges.index(wanted) >= best:
            best = ranges.index(wanted)
            quality = [p.partition("=")[2].strip() for p in parameters if p.startswith("q=")]
            allowed = not (quality and re.fullmatch(r"0(\.0*)?", quality[0]))
    return allowed


def _query(request: webob.Request, route: Route) -> Any:
    given: dict[str, str] = {}
    try:
        pairs = list(request.GET.items())
    except UnicodeError:
        raise Problem(400, "the query is not UTF-8") from None
    for name, value in pairs:
        if name in given:
            raise InvalidInput(f"query parameter {name} is given twice", field=name)
        given[name] = value
    return check(route.query, given, text=True)


def _body(request: webob.Request, route: Route, parameters: Mapping[str, str]) -> Any:
    content = _read(request)
    if route.body is None:
        if content.strip() not in (b"", b"{}"):
            raise Problem(400, "this request takes no body", "body-not-wanted")
        return None
    if not content.strip():
        if route.body_optional:
            return check(route.body, {})
        raise Problem(400, "a JSON document is needed", "body-missing")
    media = request.content_type.lower()
    if media != JSON and not media.endswith("+json"):
        # Also a guard: a web page can make a browser post anything but this media type without being asked.
        raise Problem(
            415,
            f"bodies are {JSON}, this one is {media or 'not labelled'}",
            headers={"Accept-Post" if request.method == "POST" else "Accept": JSON},
        )
    try:
        document = strict_json(content.decode())
    except UnicodeDecodeError as e:
        raise Problem(400, f"the body is not UTF-8 (byte {e.start})", "not-json") from None
    except ValueError as e:
        raise Problem(400, f"the body is not JSON: {e}", "not-json") from None
    if isinstance(document, list) and route.body_list is not None:
        return check(route.body_list, document)
    if route.method == "PUT" and isinstance(document, dict):
        wanted = parameters["name"]
        if document.setdefault("name", wanted) != wanted:
            raise InvalidInput(f"the name in the path is {wanted}", field="name")
    return check(route.body, document)


def _read(request: webob.Request) -> bytes:
    """The body, of at most MAX_BODY bytes. Nothing is read beyond that, and nothing without a known end."""
    environ = request.environ
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH") or ""
    too_large = Problem(413, f"bodies are limited to {MAX_BODY} bytes", headers={"Connection": "close"})
    if environ.get("HTTP_TRANSFER_ENCODING"):
        # eventlet's input knows where a chunked body ends; others may say so.
        if not (getattr(stream, "chunked_input", False) or environ.get("wsgi.input_terminated")):
            raise Problem(411, "chunked bodies are not taken here; send Content-Length")
        content: bytes = _patiently(stream, MAX_BODY + 1)
    elif not length:
        return b""
    else:
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise Problem(400, "Content-Length is not a number")
        if int(length) > MAX_BODY:
            raise too_large
        content = _patiently(stream, int(length))
        if len(content) < int(length):
            raise Problem(400, "the body is shorter than its Content-Length")
    if len(content) > MAX_BODY:
        raise too_large
    return content


def _patiently(stream: Any, most: int) -> bytes:
    try:
        content: bytes = stream.read(most)
    except TimeoutError:  # the server's patience has an end
        raise Problem(408, "the body did not come in time", headers={"Connection": "close"}) from None
    return content


@dataclass(slots=True)
class _Response:
    """What goes out. (webob's own would rewrite Location into an absolute address.)"""

    status: int
    headers: list[tuple[str, str]]
    body: Iterable[bytes]

    def send(self, request: webob.Request, start_response: StartResponse) -> Iterable[bytes]:
        close = request.environ.get("ryu_vmm.close")
        if close is not None and (self.status in _LAST or ("Connection", "close") in self.headers):
            # The server says so by itself; who shows no good credentials keeps no connection.
            close()
            self.headers = [header for header in self.headers if header != ("Connection", "close")]
        start_response(f"{self.status} {HTTPStatus(self.status).phrase}", self.headers)
        if not isinstance(self.body, Iterator):
            return [] if request.method == "HEAD" else self.body
        if request.method == "HEAD":
            _close(self.body)
            return []
        # eventlet's server saves small chunks up until told not to; WSGI (PEP 3333) would have each sent at once.
        request.environ["eventlet.minimum_write_chunk_size"] = 0
        return self.body


def _close(stream: Iterator[bytes]) -> None:
    close = getattr(stream, "close", None)
    if close is not None:
        close()


def _made(status: int, media: str, body: bytes | None, headers: Mapping[str, str]) -> _Response:
    listed = [("Cache-Control", "no-store"), *headers.items()]
    if body is None:
        return _Response(status, listed, [])
    return _Response(status, [("Content-Type", media), ("Content-Length", str(len(body))), *listed], [body])


def _response(reply: Reply, route: Route) -> _Response:
    if reply.stream is not None:
        headers = [("Content-Type", route.produces[0]), ("Cache-Control", "no-store"), *reply.headers.items()]
        return _Response(reply.status, headers, reply.stream)
    if reply.text is not None:
        return _made(reply.status, reply.media or route.produces[0], reply.text, reply.headers)
    body = None if reply.document is None else _json(reply.document)
    return _made(reply.status, JSON, body, reply.headers)


def _problem_response(problem: Problem, request: webob.Request) -> _Response:
    body = _json(problem.document(_instance(request)))
    return _made(problem.status, "application/problem+json", body, problem.headers)


def _instance(request: webob.Request) -> str:
    try:
        return str(request.path)
    except UnicodeError:
        return ""


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
