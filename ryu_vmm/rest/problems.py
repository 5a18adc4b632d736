"""Errors as problem details (RFC 9457), and the only place that knows which HTTP status an error has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from .. import errors
from .views import plain

__all__ = ["STATUS", "Problem", "problem_of"]

#: HTTP status of each error; a subclass that is not listed has its base's.
STATUS: dict[type[Exception], int] = {
    errors.InvalidInput: 422,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.StoreUnavailable: 503,
    errors.NoAnswer: 504,
    errors.VmmError: 500,
    TimeoutError: 504,
}


class Problem(Exception):
    """A reply that says what is wrong.

    Args:
        status: HTTP status code.
        code: stable identifier, the last part of ``type``; default: the status's phrase.
        detail: one sentence for people.
        headers: further headers of the reply.
        errors: wrong fields as ``{"field", "why"}``.
        details: identifiers and values involved.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        code: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or HTTPStatus(status).phrase.lower().replace(" ", "-")
        self.headers = dict(headers or {})
        self.errors = errors
        self.details = dict(details or {})

    def document(self, instance: str) -> dict[str, Any]:
        """The body of the reply to a request for ``instance``."""
        document: dict[str, Any] = {
            "type": f"urn:ryu-vmm:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = self.errors
        if self.details:
            document["details"] = plain(self.details)
        return document


def problem_of(error: errors.VmmError | TimeoutError) -> Problem:
    """What an error of ours comes to over HTTP."""
    status = next(STATUS[base] for base in type(error).__mro__ if base in STATUS)
    if isinstance(error, TimeoutError):
        return Problem(status, str(error) or "a switch did not answer in time", "switch-timeout")
    details = dict(error.details)
    listed = details.pop("errors", None)
    wrong: list[dict[str, str]] = []
    field = getattr(error, "field", "") or details.pop("field", "")
    if isinstance(listed, list):
        wrong = [{"field": dotted(str(e["field"])), "why": str(e["why"])} for e in listed]
    elif field:
        wrong = [{"field": dotted(str(field)), "why": error.message}]
    headers = {"Retry-After": "1"} if status == 503 else {}
    return Problem(status, error.message, error.code, headers=headers, errors=wrong, details=details)


def dotted(field: str) -> str:
    """One spelling of field paths: ``interfaces.0.mac`` becomes ``interfaces[0].mac``."""
    return re.sub(r"(?:^|\.)(\d+)(?=\.|\[|$)", r"[\1]", field)
