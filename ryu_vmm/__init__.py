"""A Network Virtualization Authority (RFC 8014) that moves virtual machines between Open vSwitch edges.

It implements draft-ietf-nvo3-vmm as a Ryu OpenFlow 1.3 application: ``ryu-manager ryu_vmm``.

Importing this package costs next to nothing and loads neither ryu, eventlet nor webob. ``VmmApp``, the class
ryu-manager looks for here, is loaded when it is first asked for (PEP 562).
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own constant; ryu_vmm.compat loads this package at every start of Python
if TYPE_CHECKING:
    from typing import Any

    from ryu_vmm.app import VmmApp

__all__ = ["VmmApp", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name != "VmmApp":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from ryu_vmm.app import VmmApp
    except AttributeError as e:
        # inspect.getmembers would take this for 'no such member', and ryu-manager would start without us.
        raise ImportError(f"ryu_vmm.app cannot be loaded: {e}") from e

    # Ryu's load_app takes only a class that says it was defined in the module named on the command line.
    VmmApp.__module__ = __name__
    globals()[name] = VmmApp
    return VmmApp


def __dir__() -> list[str]:
    # inspect.getmembers, by which Ryu finds the application, asks dir().
    return sorted({*globals(), *__all__})
