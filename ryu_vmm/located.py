"""YAML and JSON text as plain data that remembers its lines.

A ``LineOf`` tells in which line, counted from 1, the value at a path of keys and indexes stands (or the
nearest thing above it that is there at all).
"""

from __future__ import annotations

import itertools
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import yaml

from .checking import shortened, strict_json
from .errors import InvalidInput

__all__ = ["LineOf", "fault", "from_json", "from_yaml"]

LineOf = Callable[[Sequence[str | int]], int | None]
_YAML_TAG = "tag:yaml.org,2002:"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNFINISHED = object()
_BLANK = re.compile(r"[\s,:]*")
#: What is nested deeper is no inventory. libyaml composes recursively, in C, and would end the process.
_DEEPEST = 64
#: Values that a document may have, with what aliases stand for written out.
_MOST = 5_000_000


class _Loader(_LOADER):  # type: ignore[misc]
    """A safe loader that notices in time how deep it gets."""

    depth = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """Called before a node is composed."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.YAMLError("nested too deeply")
        super().descend_resolver(current_node, current_index)

    def ascend_resolver(self) -> None:
        """Called once it is."""
        self.depth -= 1
        super().ascend_resolver()


def fault(name: str, line: int | None, why: str) -> NoReturn:
    """Raise InvalidInput for a line of a file."""
    where = f"{name}:{line}" if line else name
    raise InvalidInput(f"{where}: {why}", file=name, errors=[{"field": "", "line": line, "why": why}])


def from_json(text: str, name: str) -> tuple[Any, LineOf]:
    """JSON text; InvalidInput names the line where it is not JSON."""
    try:
        document = strict_json(text)
    except json.JSONDecodeError as e:
        fault(name, e.lineno, f"not JSON: {e.msg}")
    except ValueError as e:
        fault(name, None, f"not JSON: {e}")

    positions = _Positions(text)
    return document, positions.line_of


class _Positions:
    """Where the values of a valid JSON text stand. What has been looked through is not looked through again: a file may
    have 10,000 faults."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._children: dict[int, dict[str | int, tuple[int, int]]] = {}
        self._breaks: list[int] | None = None

    def line_of(self, path: Sequence[str | int]) -> int:
        """The line of a member or element; of its nearest ancestor if it is not there."""
        at = value = self._skip(0)
        for part in path:
            found = self._of(value).get(part)
            if found is None:
                break
            at, value = found
        if self._breaks is None:
            self._breaks = [found.start() for found in re.finditer("\n", self._text)]
        return bisect_left(self._breaks, at) + 1

    def _of(self, at: int) -> dict[str | int, tuple[int, int]]:
        """The members or elements of what begins there: where each begins, and its value."""
        if at not in self._children:
            self._children[at] = dict(self._look(at))
        return self._children[at]

    def _look(self, at: int) -> Iterator[tuple[str | int, tuple[int, int]]]:
        text, decode = self._text, json.JSONDecoder().raw_decode
        if text[at] not in "[{":
            return
        child = self._skip(at + 1)
        for n in itertools.count():
            if text[child] in "]}":
                return
            key, start = n, child
            if text[at] == "{":
                key, child = decode(text, child)
                child = self._skip(child)
            yield key, (start, child)
            child = self._skip(decode(text, child)[1])

    def _skip(self, at: int) -> int:
        found = _BLANK.match(self._text, at)
        return found.end() if found else at


def from_yaml(text: str, name: str) -> tuple[Any, LineOf]:
    """One YAML document, its scalars left as text but for null; InvalidInput names the line of a fault."""
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        fault(name, mark.line + 1 if mark else None, f"not YAML: {e.problem or e.context}")
    except yaml.YAMLError as e:
        fault(name, None, f"not YAML: {str(e).splitlines()[0]}")

    def line_of(path: Sequence[str | int]) -> int | None:
        node = root
        if node is None:
            return None
        line = node.start_mark.line + 1
        for part in path:
            line_and_node = _child(node, part)
            if line_and_node is None:
                break
            line, node = line_and_node
        return int(line)

    return (None if root is None else _plain(root, name, {})[0]), line_of


def _child(node: Any, part: str | int) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        value = node.value[part]
        return value.start_mark.line + 1, value
    return None


def _plain(node: Any, name: str, made: dict[int, Any]) -> tuple[Any, int]:
    """Dicts, lists, text and None of a YAML node, and how many of them there are with every alias written out.

    Text is not interpreted: see schema.py for why.
    """
    if id(node) in made:  # an alias: made once, and never inside itself
        if made[id(node)] is _UNFINISHED:
            fault(name, node.start_mark.line + 1, "an alias refers to what it is part of")
        found: tuple[Any, int] = made[id(node)]
        return found
    made[id(node)] = _UNFINISHED
    line = node.start_mark.line + 1
    if not node.tag.startswith(_YAML_TAG) or node.tag.startswith(f"{_YAML_TAG}python"):
        fault(name, line, f"unknown YAML tag {shortened(node.tag)}")
    plain: Any
    size = 1
    if isinstance(node, yaml.ScalarNode):
        plain = None if node.tag == f"{_YAML_TAG}null" else node.value
    elif isinstance(node, yaml.SequenceNode):
        plain = []
        for item in node.value:
            value, values = _plain(item, name, made)
            plain.append(value)
            size += values
    else:
        plain = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                fault(name, key_node.start_mark.line + 1, "a key that is not text")
            if key_node.value in plain:
                fault(name, key_node.start_mark.line + 1, f"key {key_node.value!r} occurs twice")
            plain[key_node.value], values = _plain(value_node, name, made)
            size += values
    if size > _MOST:
        fault(name, line, "aliases make it too large")
    made[id(node)] = plain, size
    return plain, size
