"""The NVA's REST API: a plain WSGI application, mounted by whoever runs a server.

``make_app(runtime)`` makes it. Reading order: ``routes`` (the one table of what there is), ``handlers``, ``app``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import make_app

__all__ = ["make_app"]


def __getattr__(name: str) -> Any:
    # webob is loaded only where the application is made: views and documents are of use without it.
    if name == "make_app":
        from .app import make_app

        return make_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
