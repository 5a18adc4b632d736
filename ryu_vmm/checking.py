"""Checking what was sent: documents against models, text against JSON, and refusals that name every field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from .errors import InvalidInput
from .nearest import did_you_mean
from .texts import no_text, printable

__all__ = ["check", "check_fit", "error", "field_path", "refuse", "shortened", "strict_json"]

_T = TypeVar("_T")
#: At most this many wrong fields are named in one refusal.
MAX_ERRORS = 100
#: No document of ours is nested as deeply.
MAX_DEPTH = 64
_LARGEST = 1 << 63
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def check(wanted: type[_T], given: object, *, text: bool = False) -> _T:
    """``given`` as ``wanted`` (a model or e.g. ``list[VmInput]``).

    ``text``: numbers may be written as text. InvalidInput lists every wrong field in ``details["errors"]``. Whatever
    is wanted, what no file, database or message can hold is refused: see :func:`_unfit`.
    """
    check_fit(given)
    adapter = _ADAPTERS.get(wanted)
    if adapter is None:
        adapter = _ADAPTERS[wanted] = TypeAdapter(wanted)
    try:
        checked: _T = adapter.validate_python(given, context={"text": text})
    except ValidationError as e:
        refuse(
            error(field_path(wrong["loc"]), _why(wrong, wanted))
            for wrong in e.errors(include_url=False, include_input=False)
        )
    return checked


def check_fit(document: object) -> None:
    """Refuse a document that has something no file, database or message can hold. InvalidInput names the fields."""
    if not _fits(document):
        refuse(islice(_unfit(document), MAX_ERRORS))


def _fits(document: object) -> bool:
    """Whether :func:`_unfit` finds nothing, at a fraction of its cost: 100,000 VMs have a million values."""
    level, texts = [document], []
    for _ in range(MAX_DEPTH + 1):
        deeper: list[object] = []
        for value in level:
            if isinstance(value, str):
                texts.append(value)
            elif isinstance(value, dict):
                texts += [key for key in value if isinstance(key, str)]
                deeper += value.values()
            elif isinstance(value, list | tuple):
                deeper += value
            elif isinstance(value, int | float) and not -_LARGEST <= value < _LARGEST:  # NaN is not, either
                return False
        level = deeper
        if not level:
            return no_text("".join(texts)) is None
    return False


def _unfit(given: object) -> Iterator[dict[str, str]]:
    """What in a document nothing can hold, wherever it is: text that is none, in names of fields as well, numbers of
    more than 64 bits, numbers that are none, and what is nested without end."""
    waiting: list[tuple[tuple[str | int, ...], object]] = [((), given)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, str):
            why = no_text(value)
        elif isinstance(value, int):
            why = None if -_LARGEST <= value < _LARGEST else "is a number of more than 64 bits"
        elif isinstance(value, float):
            why = None if -_LARGEST <= value < _LARGEST else "is no number that means anything here"
        elif isinstance(value, dict | list | tuple):
            why = None if len(where) < MAX_DEPTH else "is nested too deeply"
            if why is None:
                inner = value.items() if isinstance(value, dict) else enumerate(value)
                waiting += reversed([((*where, _step(key)), item) for key, item in inner])
                names = [key for key in value if isinstance(key, str)] if isinstance(value, dict) else []
                odd = [(key, no_text(key)) for key in names]
                yield from (error(field_path((*where, _step(key))), f"its name {why}") for key, why in odd if why)
        else:
            continue
        if why is not None:
            yield error(field_path(where[:4] if len(where) >= MAX_DEPTH else where), why)


def _step(key: object) -> str | int:
    return key if isinstance(key, int) else printable(str(key))


def refuse(errors: Iterable[Mapping[str, str]]) -> NoReturn:
    """Raise InvalidInput for these (field, why) pairs, of which there must be at least one."""
    listed = list(errors)
    first = listed[0]
    message = f"{first['field']}: {first['why']}" if first["field"] else first["why"]
    if len(listed) > 1:
        message += f" (and {len(listed) - 1} more)"
    raise InvalidInput(message, field=first["field"], errors=listed[:MAX_ERRORS])


def field_path(loc: Sequence[str | int]) -> str:
    """A place in a document in dotted form.

    >>> field_path(("vms", 3, "interfaces", 0, "mac"))
    'vms[3].interfaces[0].mac'
    """
    path = ""
    for part in loc:
        if part != "[key]":
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def strict_json(text: str) -> Any:
    """JSON of RFC 8259 with unique member names. ValueError (JSONDecodeError where a position is known)."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise ValueError(f"member {twice!r} occurs twice in one object")
        return made

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def shortened(text: object) -> str:
    """``repr`` of at most 60 characters, for messages."""
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def error(field: str, why: str) -> dict[str, str]:
    """One wrong field, as refusals list it."""
    return {"field": field, "why": why}


def _known(wanted: Any, loc: Sequence[str | int]) -> set[str]:
    """The names of the fields that there are at a place in a document."""
    models = list(_models(wanted))
    for part in loc:
        inner = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        models = [found for annotation in inner for found in _models(annotation)] if inner else models
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation: itself, or what it may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _why(wrong: Mapping[str, Any], wanted: Any) -> str:
    kind, message = wrong["type"], str(wrong["msg"])
    if kind == "extra_forbidden":
        *where, name = wrong["loc"]
        return "unknown field" + did_you_mean(str(name), _known(wanted, where))
    if kind == "missing":
        return "is missing"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "is not an object"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
