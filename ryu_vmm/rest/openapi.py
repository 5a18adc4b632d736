"""The OpenAPI 3.1 document, made of the route table and the pydantic models."""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Any, get_args

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from .. import __version__
from .documents import ProblemDocument
from .queries import NoQuery
from .routes import ROUTES, Route

__all__ = ["document"]

_REF = "#/components/schemas/{model}"
#: Problems that any request with a body may meet, and any at all.
_BODY_PROBLEMS = (400, 413, 415, 422)
_ANY_PROBLEMS = (406,)
#: Those of routes that are not for anybody.
_ACCESS_PROBLEMS = (401, 403, 429)
_PATH_PARAMETERS = {
    "name": {"type": "string", "description": "name of the object"},
    "id": {"type": "integer", "description": "number of the move or evacuation"},
}


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The whole document. It is made once; do not change it."""
    schemas = _Schemas()
    operations = [(route, _operation(route)) for route in ROUTES]
    wanted = [key for route in ROUTES for key in _types(route)]
    problem: tuple[Any, JsonSchemaMode] = (ProblemDocument, "serialization")
    schemas.generate([problem, *wanted])
    paths: dict[str, Any] = {}
    for route, operation in operations:
        _add_schemas(operation, route, schemas)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "ryu_vmm",
            "version": __version__,
            "summary": "A Network Virtualization Authority that moves VMs between Open vSwitch edges",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in ROUTES)],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "of the credentials file"},
                "certificate": {"type": "mutualTLS", "description": "whose name is in the credentials file"},
            },
            "schemas": schemas.definitions,
            "responses": {
                "Problem": {
                    "description": "What is wrong (RFC 9457)",
                    "content": {"application/problem+json": {"schema": schemas.of(*problem)}},
                }
            },
        },
    }


class _Schemas:
    """JSON schemas of types, with everything that has a name among the definitions."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self._found: dict[Any, dict[str, Any]] = {}

    def generate(self, wanted: list[tuple[Any, JsonSchemaMode]]) -> None:
        inputs: dict[Any, tuple[Any, JsonSchemaMode]] = {(repr(kind), mode): (kind, mode) for kind, mode in wanted}
        generator = GenerateJsonSchema(by_alias=True, ref_template=_REF)
        found, definitions = generator.generate_definitions(
            [(key, mode, TypeAdapter(kind).core_schema) for key, (kind, mode) in inputs.items()]
        )
        self.definitions = {str(name): schema for name, schema in definitions.items()}
        self._found = {key: schema for (key, _), schema in found.items()}

    def of(self, kind: Any, mode: str) -> dict[str, Any]:
        return self._found[(repr(kind), mode)]


def _types(route: Route) -> list[tuple[Any, JsonSchemaMode]]:
    """The types whose schemas a route needs."""
    found: list[tuple[Any, JsonSchemaMode]] = [
        (kind, "serialization") for kind in route.replies.values() if kind not in (None, str)
    ]
    found += [(kind, "validation") for kind in (route.body, route.body_list) if kind is not None]
    return found


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]}
            for name in re.findall(r"\{(\w+)\}", route.path)
        ],
        "responses": {},
        # Where the NVA has no credentials nobody is asked.
        "security": [] if route.roles is None else [{"token": []}, {"certificate": []}, {}],
    }
    if route.roles is not None:
        operation["x-roles"] = sorted(route.roles)
    if route.query is not NoQuery:
        operation["parameters"] += _parameters(route)
    return operation


def _operation_id(route: Route) -> str:
    words = re.findall(r"\w+", route.path.removeprefix("/v1/"))
    return "_".join([route.method.lower(), *(words or ["root"])])


def _parameters(route: Route) -> list[dict[str, Any]]:
    # The models of query strings refer to nothing but enumerations, which are put in place.
    whole = TypeAdapter(route.query).json_schema(mode="validation")
    definitions = whole.get("$defs", {})
    found = []
    for name, schema in whole["properties"].items():
        described = schema.pop("description", None)
        parameter = {"name": name, "in": "query", "required": False, "schema": _inlined(schema, definitions)}
        if described:
            parameter["description"] = described
        found.append(parameter)
    return found


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return definitions[schema["$ref"].rpartition("/")[2]]
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def _add_schemas(operation: dict[str, Any], route: Route, schemas: _Schemas) -> None:
    if route.body is not None:
        schema = schemas.of(route.body, "validation")
        if route.body_list is not None:
            schema = {"oneOf": [schema, schemas.of(route.body_list, "validation")]}
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": schema}},
        }
    for status, kind in route.replies.items():
        operation["responses"][str(status)] = _reply(route, status, kind, schemas)
    problems = {*route.problems, *_ANY_PROBLEMS, *(() if route.roles is None else _ACCESS_PROBLEMS)}
    if route.body is not None:
        problems.update(_BODY_PROBLEMS)
    if route.query is not NoQuery:
        problems.add(422)
    for status in sorted(problems - set(route.replies)):
        operation["responses"][str(status)] = {"$ref": "#/components/responses/Problem"}


def _reply(route: Route, status: int, kind: Any, schemas: _Schemas) -> dict[str, Any]:
    reply: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if route.location and status in (201, 202):
        reply["headers"] = {"Location": {"schema": {"type": "string", "format": "uri-reference"}}}
    if kind is None:
        return reply
    reply["content"] = {}
    for media in route.produces:
        is_json = media.endswith("json") and kind is not str
        reply["content"][media] = {"schema": schemas.of(kind, "serialization") if is_json else {"type": "string"}}
    return reply


def names_of(kind: Any) -> str:
    """A type's name for the reference: ``Page[MoveDocument]``, ``VmDocument or BulkDocument``."""
    arguments = get_args(kind)
    if arguments and not hasattr(kind, "model_fields"):
        return " or ".join(names_of(argument) for argument in arguments)
    return getattr(kind, "__name__", str(kind))
