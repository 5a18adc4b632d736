"""What property tests have tried so far in this process, for whoever runs them in numbers (tools/soak)."""

from __future__ import annotations

from collections import Counter

from ryu_vmm.state import State

#: "examples", "steps", "frames": how many; "moves <state>": how moves ended.
TRIED: Counter[str] = Counter()
#: (fault, state of a move that was open at that moment)
FAULTS: Counter[tuple[str, str]] = Counter()


def fault(name: str, state: State) -> None:
    """A fault is about to happen: it does at the state of every move that is open, or at ``none``."""
    TRIED["faults"] += 1
    FAULTS.update((name, at) for at in {move.state.value for move in state.open_moves()} or {"none"})


def ended(state: State) -> None:
    """An example is over."""
    TRIED.update(f"moves {move.state}" for move in state.moves.values())
