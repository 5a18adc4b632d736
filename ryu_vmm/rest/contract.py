"""What REST needs of the runtime, and what a handler is given and gives back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..audit import AuditTrail
from ..credentials import Principal
from ..events import Request
from ..flows import FlowStats
from ..state import State
from .authentication import LOCAL, Access
from .scopes import Scope, scope_of

__all__ = ["Call", "EventLog", "Reply", "Runtime", "Shared"]


class EventLog(Protocol):
    """A ring of what happened. ``seq`` counts from 1."""

    @property
    def first(self) -> int:
        """Lowest seq still held; ``last + 1`` if none is."""

    @property
    def last(self) -> int:
        """Highest seq given out; 0 if none was."""

    def since(self, seq: int, limit: int) -> Sequence[tuple[int, float, str, Mapping[str, object]]]:
        """Up to ``limit`` entries after ``seq``: (seq, Unix time, kind, fields)."""

    def wait(self, seq: int, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for an entry after ``seq``; whether there is one."""


class Runtime(Protocol):
    """The running NVA."""

    @property
    def state(self) -> State: ...
    @property
    def log(self) -> EventLog: ...
    @property
    def counters(self) -> Mapping[str, int]: ...
    @property
    def shed_packets(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def drops(self) -> Mapping[str, Mapping[str, int]]: ...
    @property
    def started(self) -> float: ...
    def require(self) -> None: ...
    def handle(self, event: Request) -> Any: ...
    def handle_all(self, requests: Sequence[Request]) -> list[Any]: ...
    def health(self) -> Mapping[str, Any]: ...
    def verify(self, nve: str, timeout: float = 5.0) -> Mapping[str, Any]: ...
    def flows(self, nve: str, timeout: float = 5.0) -> Sequence[FlowStats]: ...


@dataclass(slots=True)
class Shared:
    """What one application remembers between requests.

    Attributes:
        access: who may ask.
        audit: where changes and refused attempts are recorded.
        streams: open event streams by the principal's name.
        figures: made when first asked for.
    """

    access: Access = field(default_factory=Access)
    audit: AuditTrail | None = None
    streams: Counter[str] = field(default_factory=Counter)
    figures: Any = None


@dataclass(slots=True)
class Call:
    """One request, checked.

    Attributes:
        runtime: the NVA.
        parameters: of the path, as text.
        query: the route's query model.
        body: the route's body model, or None.
        headers: of the request, by name in any case.
        shared: what the application remembers.
        principal: who asks; None: somebody who shows nothing, where nobody needs to.
        scope: what of the state they see.
    """

    runtime: Runtime
    parameters: dict[str, str]
    query: Any
    body: Any
    headers: Mapping[str, str]
    shared: Shared = field(default_factory=Shared)
    principal: Principal | None = LOCAL
    scope: Scope = field(init=False)

    def __post_init__(self) -> None:
        self.scope = scope_of(self.principal, self.runtime.state)

    @property
    def state(self) -> State:
        """The state as it is now."""
        return self.runtime.state


@dataclass(slots=True)
class Reply:
    """What a handler answers.

    Attributes:
        document: JSON value; None for no body.
        status: HTTP status.
        headers: further headers.
        stream: chunks of a body of the route's own media type, instead of a document.
        text: a body of the route's own media type, instead of a document.
        media: media type of ``text``, where it is not the route's.
    """

    document: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stream: Iterable[bytes] | None = None
    text: bytes | None = None
    media: str | None = None
