"""Mininet's clean-up made harmless, before anything of ours can fail.

`mn` answers any exception with `mininet.clean.cleanup`, which ends processes by name (ryu-manager, ping, controller and
more), everybody's on the machine, and removes other people's links and files in /tmp. What a topology of ours has built
is recorded and taken down by name and number (`rundir`), so nothing is left for it to find.

`disarm` replaces its killers for the rest of this process. An error then ends `mn` with a message and an exit status
that is not 0.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, NoReturn

from mininet import clean

__all__ = ["disarm", "fail"]


def disarm() -> None:
    """Have no clean-up of Mininet's in this process touch what it has not built. Safe to call twice."""
    clean.sh = _nothing
    clean.killprocs = _nothing
    clean.cleanUpScreens = _nothing
    clean.cleanup = clean.Cleanup.cleanup = end
    main = sys.modules.get("__main__")
    if isinstance(main, ModuleType) and getattr(main, "MininetRunner", None) is not None:
        main.cleanup = end  # type: ignore[attr-defined]  # `mn` took the original's name over before we were there


def _nothing(*_words: Any, **_more: Any) -> str:
    return ""


def end(*_words: Any) -> None:
    """In the place of Mininet's clean-up: take down what this process built, and nothing else.

    Called while an exception is handled, as `mn` does, it ends the process: status 130 for Ctrl-C, else 1.
    """
    error = sys.exc_info()[1]
    _take_down()
    if isinstance(error, KeyboardInterrupt):
        raise SystemExit(130) from None
    if isinstance(error, Exception):
        raise SystemExit(1) from None


def fail(error: BaseException) -> NoReturn:
    """End the process with a message instead of an exception: status 1. What was built is taken down first."""
    _take_down()
    words = str(error) or type(error).__name__
    sys.stderr.write(f"mn: {words if isinstance(error, _ours()) else f'{type(error).__name__}: {words}'}\n")
    raise SystemExit(1) from None


def _ours() -> type[Exception]:
    from topologies.errors import TopologyError

    return TopologyError


def _take_down() -> None:
    net = sys.modules.get("topologies.net")
    if net is not None and hasattr(net, "stop_all"):
        net.stop_all()
