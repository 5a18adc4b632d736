"""What somebody has wished."""

from __future__ import annotations

from dataclasses import dataclass

from .networks import Network
from .places import Interface, Nve, Vm


@dataclass(frozen=True, slots=True)
class Wish:
    """What was submitted last: an NVE, a network, or a VM with its interfaces, as they were given."""

    nve: Nve | None = None
    network: Network | None = None
    vm: Vm | None = None
    interfaces: tuple[Interface, ...] = ()
