"""Everything that a running NVA holds, found by looking: attributes of the core, its parts and the runtime."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any


def held(*roots: object) -> Iterator[str]:
    """``Class.attribute`` of whatever the objects that can be reached from these hold beside one another."""
    seen: dict[int, object] = {}
    waiting = list(roots)
    found: dict[str, None] = {}
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        for name, value in _attributes(thing):
            if _is_part(value):
                waiting.append(value)
            elif not callable(value):
                found[f"{_owner(thing, name).__name__}.{name}"] = None
    yield from sorted(found)


def _attributes(thing: object) -> list[tuple[str, Any]]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    names = {**getattr(thing, "__dict__", {}), **{name: getattr(thing, name) for name in slots if hasattr(thing, name)}}
    return list(names.items())


def _owner(thing: object, name: str) -> type:
    return type(thing)


def _is_part(value: object) -> bool:
    """Whether something is a part of the NVA, and no value or configuration."""
    kind = type(value)
    if not kind.__module__.startswith("ryu_vmm") or isinstance(value, enum.Enum | tuple):
        return False
    return not getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)
