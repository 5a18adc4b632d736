"""What stands before everything that ryu-manager's web server offers.

Other Ryu applications may offer paths of their own there, without asking who comes: as soon as there are credentials,
those are for admins. And a web page that somebody has open in a browser on this machine must not speak in their name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

import webob

from ..audit import AuditTrail
from ..errors import StoreUnavailable
from .app import respond
from .authentication import Access
from .inquiry import Inquiry
from .problems import Problem, problem_of
from .roles import Role

__all__ = ["Guard"]

_OURS = re.compile(r"/|/metrics|/v1(/.*)?", re.DOTALL)


class Guard:
    """A WSGI application before another.

    Args:
        application: what is guarded; it asks by itself on the paths that are ours.
        access: who may ask.
        audit: where refused attempts and changes are recorded.
        host: the name that the server listens on.
    """

    def __init__(
        self, application: Callable[..., Any], access: Access, audit: AuditTrail | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._application, self._access, self._audit, self._host = application, access, audit, host

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        inquiry = Inquiry(environ.get("REQUEST_METHOD") or "", environ)
        try:
            self._check_browser(environ, inquiry.changes)
            if self._access.open or _OURS.fullmatch(environ.get("PATH_INFO") or "/"):
                found: Iterable[bytes] = self._application(environ, start_response)
                return found
            inquiry.principal = self._access.identify(environ)
            if inquiry.principal is None:
                raise self._access.missing()
            if inquiry.principal.role is not Role.ADMIN:
                raise self._access.forbidden(inquiry.principal, "what other applications offer here")
            inquiry.begin(self._audit)
        except (Problem, StoreUnavailable) as error:
            problem = error if isinstance(error, Problem) else problem_of(error)
            inquiry.record(self._audit, problem.status, problem)
            return respond(problem, webob.Request(environ), start_response)

        def started(status: str, *rest: Any) -> Any:
            inquiry.record(self._audit, int(status.partition(" ")[0]), None)
            return start_response(status, *rest)

        answer: Iterable[bytes] = self._application(environ, started)
        return answer

    def _check_browser(self, environ: dict[str, Any], changes: bool) -> None:
        """Refuse what only a browser sends that was led here by somebody else's page."""
        host, origin = environ.get("HTTP_HOST"), environ.get("HTTP_ORIGIN")
        if changes and origin is not None and origin != f"{environ.get('wsgi.url_scheme')}://{host}":
            raise Problem(403, "pages of other origins may not change anything here", "foreign-origin")
        if self._access.open and host is not None and not self._is_here(_name_of(host)):
            # A name in somebody's DNS may have been pointed here (DNS rebinding), an address cannot.
            why = "without credentials only requests to an address, or to localhost, are served"
            raise Problem(421, why, "foreign-host")

    def _is_here(self, name: str) -> bool:
        if name in ("localhost", self._host.lower()) or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name_of(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]
