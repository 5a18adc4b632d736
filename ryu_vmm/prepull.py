"""What a VM's old edge has asked in a pulled network, its new one gets unasked.

An NVE of a pulled network asks the NVA for each destination on first use, and what its guests send meanwhile goes to
the NVA packet by packet. A VM that comes speaks at once, with all that has waited in it during its pause: a burst that
no queue of questions can hold. So the destination of a move knows beforehand what the source knew, and the guests that
the source needed not ask for, being theirs. What is not used goes again by its idle timeout.
"""

from __future__ import annotations

from .model import Distribution, Move
from .state import State

__all__ = ["follow"]


def follow(state: State, move: Move) -> None:
    """Have the destination of a move know whom the VM may be talking to."""
    for leg in move.legs:
        network = state.networks.get(leg.vni)
        if network is None or network.policy.distribution is not Distribution.PULL:
            continue
        moving = {other.interface for other in move.legs}
        asked = (i for i in state.pulled_at(leg.src.nve) if state.interfaces[i].vni == leg.vni)
        for i in {*asked, *state.located(leg.vni, leg.src.nve)} - moving:
            if state.interfaces[i].location.nve != leg.dst.nve:
                state.put("pulled", (leg.dst.nve, i), True)
