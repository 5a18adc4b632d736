"""Every error that ryu_vmm raises on purpose, in one tree.

    VmmError
    ├── InvalidInput        what was sent cannot be taken, and which field is at fault
    ├── NotFound            no such NVE, network, VM, move
    ├── Conflict            well-formed, but the present state forbids it
    │   ├── MoveStateConflict   a hook that does not fit the move's state
    │   └── TooManyMoves        so many moves are open that no mark is left for another
    ├── NoAnswer            a switch did not answer in time
    ├── StoreUnavailable    the record could not be committed; nothing was done
    │   └── ShuttingDown        the NVA is about to end, and takes no requests any more
    └── DecodeError         bytes from a switch or a guest that are not what they claim

Errors speak to the caller: a stable ``code``, a sentence, and the identifiers involved in ``details``.
HTTP statuses are no business of this module; ``ryu_vmm.rest`` maps them.
"""

from __future__ import annotations


class VmmError(Exception):
    """Root of the tree.

    Attributes:
        code: stable identifier of the kind of error, for programs.
        message: one sentence for people.
        details: identifiers and values involved, JSON-compatible.
    """

    code = "error"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidInput(VmmError):
    """The input itself is wrong. ``field`` names the culprit in dotted form."""

    code = "invalid-input"

    def __init__(self, message: str, field: str = "", **details: object) -> None:
        super().__init__(message, **details)
        self.field = field


class NotFound(VmmError):
    """The named object does not exist."""

    code = "not-found"


class Conflict(VmmError):
    """The request is well-formed, but the present state forbids it."""

    code = "conflict"


class MoveStateConflict(Conflict):
    """A hook was called that the move's state does not allow."""

    code = "move-state"


class TooManyMoves(Conflict):
    """Every mark for redirected packets is in use; one is free when a move ends."""


class StoreUnavailable(VmmError):
    """The store could not commit (disk full, database locked); nothing was changed."""

    code = "store-unavailable"


class ShuttingDown(StoreUnavailable):
    """The NVA is about to end: nothing is done any more; the next one will take the request."""

    code = "shutting-down"

    def __init__(self) -> None:
        super().__init__("the NVA is shutting down and takes no more requests; ask again once it is back")


class NoAnswer(VmmError):
    """A switch was asked and did not answer in time."""

    code = "no-answer"


class DecodeError(VmmError):
    """Bytes from a switch or a guest are malformed; ``cause`` is the counter they are counted under."""

    code = "decode"

    def __init__(self, message: str, cause: str = "malformed", **details: object) -> None:
        super().__init__(message, **details)
        self.cause = cause
