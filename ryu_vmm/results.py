"""What comes of an attempt to change something, in a word."""

from __future__ import annotations

import enum

__all__ = ["Result"]


class Result(enum.StrEnum):
    """What came of an attempt.

    done: it was. refused: it was asked for by somebody who may, and could not be. denied: who asked may not, or did not
    say who they are. failed: the NVA's fault. begun: it was about to be done; what came of it has not been recorded.
    """

    DONE = "done"
    REFUSED = "refused"
    DENIED = "denied"
    FAILED = "failed"
    BEGUN = "begun"
