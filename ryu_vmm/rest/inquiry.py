"""One request as the audit sees it: who, what, from where, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from ..audit import AuditTrail, Deed, Result, text_of
from ..credentials import Principal
from ..texts import printable
from .problems import Problem

__all__ = ["Inquiry"]

_DENIED = (401, 403, 429)
#: Items of a list that are named in the audit; of more, only their number is.
NAMED = 20


class Inquiry:
    """Gathers what the audit wants to know while a request is answered.

    Attributes:
        principal: who asks, once that is known.
        body: the checked body, once there is one.
        changes: whether it may change anything.
    """

    def __init__(self, method: str, environ: Mapping[str, Any]) -> None:
        self._method, self._environ = method, environ
        self.principal: Principal | None = None
        self.body: Any = None
        self._entry: int | None = None
        self.changes = method not in ("GET", "HEAD", "OPTIONS")

    def begin(self, audit: AuditTrail | None) -> None:
        """Record that it is about to change something. StoreUnavailable: it cannot be recorded, so it may not."""
        if audit is not None and self.changes and self._entry is None:
            self._entry = audit.begin(self._deed())

    def record(self, audit: AuditTrail | None, status: int, problem: Problem | None) -> None:
        """Record what came of it, if it changes anything or was refused because of who asked."""
        denied = status in _DENIED
        if audit is None or not (self.changes or denied):
            return
        result = Result.DENIED if denied else Result.DONE if status < 400 else Result.REFUSED
        if status >= 500:
            result = Result.FAILED
        deed = replace(self._deed(), status=status, code=None if problem is None else problem.code, result=result)
        if self._entry is None:
            audit.add(deed)
        else:
            audit.end(self._entry, deed)

    def _deed(self) -> Deed:
        who = self.principal
        path = str(self._environ.get("PATH_INFO") or "")
        return Deed(
            at=time.time(),
            principal=None if who is None else who.name,
            role=None if who is None else str(who.role),
            via=None if who is None else f"{who.via} {who.key}".strip(),
            address=str(self._environ.get("REMOTE_ADDR") or "-")[:64],
            method=self._method[:16],
            path=printable(path.encode("latin-1", "replace").decode("utf-8", "replace")),
            body=text_of(_document(self.body)),
        )


def _document(body: Any) -> Any:
    """A body as a document: lists of many items come down to their number."""
    if isinstance(body, Sequence) and not isinstance(body, str):
        shown = [_document(item) for item in body[:NAMED]]
        return shown if len(body) <= NAMED else [*(item.get("name") for item in shown), f"and {len(body) - NAMED} more"]
    if not isinstance(body, BaseModel):
        return None
    fields = {name: getattr(body, name) for name in type(body).model_fields}
    if any(isinstance(value, list) and len(value) > NAMED for value in fields.values()):
        return {name: f"{len(value)} items" if isinstance(value, list) else value for name, value in fields.items()}
    return body.model_dump(mode="json", exclude_defaults=True)
