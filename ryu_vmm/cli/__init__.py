"""``vmm``, the command line: an HTTP client of the NVA's REST API.

Exit codes, for scripts: 0 done; 1 the operation failed (a move failed or was aborted, a verification found
differences, the NVA could not do it); 2 wrong usage; 3 the NVA cannot be reached; 4 not found; 5 conflict with the
present state; 6 invalid input; 7 not allowed; 130 interrupted.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of ``vmm``."""
    from .root import vmm

    vmm(prog_name="vmm")
