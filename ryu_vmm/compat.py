"""Mends that Ryu 4.34 needs on a current Python and eventlet, applied when the module concerned is imported.

``install()`` is called by a .pth file at interpreter start. It only puts a finder on ``sys.meta_path``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["install"]


def _mend_eventlet_wsgi(module: Any) -> None:
    if not hasattr(module, "ALREADY_HANDLED"):
        module.ALREADY_HANDLED = []


MENDS: dict[str, Callable[[Any], None]] = {"eventlet.wsgi": _mend_eventlet_wsgi}


class _Finder:
    """Finds nothing itself: lets the finders after it find a module named in MENDS and mends it once executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        mend = MENDS.get(name)
        if mend is None:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, _Finder) or (spec := finder.find_spec(name, path, target)) is None:
                continue
            loader: Any = spec.loader
            execute = loader.exec_module

            def execute_and_mend(module: ModuleType) -> None:
                del loader.exec_module
                execute(module)
                mend(module)

            loader.exec_module = execute_and_mend
            return spec
        return None


def install() -> None:
    """Put the mends in place for modules imported from now on. Calling it again changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
