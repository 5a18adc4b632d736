"""Fill the generated parts of docs/rest.md and docs/cli.md from the route table, the models and the commands.

tools/render_reference.py          rewrite what is out of date
tools/render_reference.py --check  say what is, and exit with 1
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from ryu_vmm import errors, schema  # noqa: E402
from ryu_vmm.agent.definition import Configuration, TaskDefinition  # noqa: E402
from ryu_vmm.cli.root import vmm  # noqa: E402
from ryu_vmm.rest import documents, problems, queries, roles  # noqa: E402
from ryu_vmm.rest.openapi import document as openapi  # noqa: E402
from ryu_vmm.rest.roles import Role  # noqa: E402
from ryu_vmm.rest.routes import ROUTES, Route  # noqa: E402

BODIES = (
    schema.NveInput,
    schema.NetworkInput,
    schema.PolicyInput,
    schema.VmInput,
    schema.InterfaceInput,
    schema.PlaceInput,
    schema.MoveInput,
    schema.AbortInput,
    schema.EvacuationInput,
    schema.CancelInput,
    schema.ResumeInput,
    schema.InventoryInput,
)
REPLIES = (
    documents.NveDocument,
    documents.NetworkDocument,
    documents.VmDocument,
    documents.InterfaceDocument,
    documents.MoveDocument,
    documents.StepDocument,
    documents.LedgerDocument,
    documents.StaleDocument,
    documents.EvacuationDocument,
    documents.EvacueeCounts,
    documents.EvacueeDocument,
    documents.DirectoryEntry,
    documents.NameDocument,
    documents.NameFailure,
    documents.EventDocument,
    documents.AuditDocument,
    documents.VerifyDocument,
    documents.ExplainDocument,
    documents.FlowDocument,
    documents.HealthDocument,
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").strip() or " " for cell in row) + " |" for row in rows]
    return "\n".join(lines).replace("``", "`").replace("|   |", "|  |")


# --- REST -----------------------------------------------------------------------------------------------------
def routes() -> str:
    """Every route, by chapter."""
    rows = []
    for route in ROUTES:
        body = route.body.__name__ if route.body else ""
        if route.body_list is not None:
            body += " or a list"
        replies = ", ".join(f"{status} {named(kind)}".strip() for status, kind in route.replies.items())
        rows.append(
            (
                f"`{route.method}`",
                f"`{route.path}`",
                callers(route),
                route.summary,
                body,
                replies,
                ", ".join(map(str, route.problems)),
            )
        )
    return table(("method", "path", "for", "what it does", "body", "replies", "problems"), rows)


def callers(route: Route) -> str:
    """Who may call a route."""
    if route.roles is None:
        return "anybody"
    return "all" if route.roles == roles.ALL else ", ".join(role for role in Role if role in route.roles)


def named(kind: Any) -> str:
    """A reply's type for people."""
    if kind is None or kind is str or kind == dict[str, Any]:
        return ""
    arguments = get_args(kind)
    if arguments:
        return " or ".join(named(argument) for argument in arguments)
    name = str(kind.__name__)
    page = re.fullmatch(r"Page\[(\w+)\]", name)
    return f"list of {page[1]}" if page else name


def parameters() -> str:
    """Query parameters."""
    rows = []
    for route in ROUTES:
        if route.query is queries.NoQuery:
            continue
        operation = openapi()["paths"][route.path][route.method.lower()]
        for parameter in operation["parameters"]:
            if parameter["in"] == "query":
                kind = typed(parameter["schema"])
                rows.append((f"`{route.path}`", f"`{parameter['name']}`", kind, parameter.get("description", "")))
    return table(("path", "parameter", "type", "meaning"), rows)


def fields(models: tuple[type[BaseModel], ...]) -> str:
    """The fields of models, each under its name and first sentence."""
    parts = []
    schemas = openapi()["components"]["schemas"]
    for model in models:
        found = schemas[model.__name__]
        words = " ".join((model.__doc__ or "").split()).replace("``", "`")
        required = set(found.get("required", ()))
        rows = [
            (
                f"`{name}`",
                typed(spec),
                default(spec) if name not in required else "",
                spec.get("description", "") or schemas_words(spec, schemas),
            )
            for name, spec in found["properties"].items()
        ]
        head: Sequence[str] = ("field", "type", "default", "meaning")
        cells: Iterable[Sequence[str]] = rows
        if model.__name__.endswith("Document") or not any(row[2] for row in rows):
            head, cells = ("field", "type", "meaning"), [(a, b, d) for a, b, _, d in rows]
        parts.append(f"**{model.__name__}**: {words}\n\n{table(head, cells)}")
    return "\n\n".join(parts)


def keys(model: type[BaseModel]) -> str:
    """The keys of a file that people write, those of its parts included."""
    return table(("key", "type", "default", "meaning"), key_rows(model, ""))


def key_rows(model: type[BaseModel], prefix: str) -> Iterator[Sequence[str]]:
    """A row for each key of a model and of the models in it."""
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        spec = schema["properties"][name]
        inner = next(models_in(field.annotation), None)
        value = "required" if field.is_required() else "" if inner else default(spec)
        yield f"`{prefix}{name}`", kind(spec, inner), value, field.description or ""
        if inner is not None:
            yield from key_rows(inner, f"{prefix}{name}{'[]' if spec.get('type') == 'array' else ''}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def kind(spec: dict[str, Any], inner: type[BaseModel] | None) -> str:
    """What a key holds: as `typed`, a part of the file in a word."""
    if inner is not None:
        return "list of objects" if spec.get("type") == "array" else "object"
    return typed(spec)


def schemas_words(spec: dict[str, Any], schemas: dict[str, Any]) -> str:
    """The sentence that describes what a field holds, where the field itself has none."""
    for part in (spec, spec.get("items", {}), *spec.get("anyOf", ())):
        if "$ref" in part:
            words = schemas[part["$ref"].rpartition("/")[2]].get("description", "")
            return " ".join(words.split())
    return ""


def typed(spec: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in spec:
        target = openapi()["components"]["schemas"][spec["$ref"].rpartition("/")[2]]
        return typed(target) if "enum" in target else str(spec["$ref"].rpartition("/")[2])
    if "enum" in spec or "const" in spec:
        return " \\| ".join(f"`{word}`" for word in spec.get("enum", [spec.get("const")])).replace("\\|", "or")
    if "anyOf" in spec:
        return " or ".join(typed(part) for part in spec["anyOf"])
    if spec.get("type") == "array":
        return f"list of {typed(spec['items'])}"
    if spec.get("type") == "object":
        values = spec.get("additionalProperties")
        return f"object of {typed(values)}" if isinstance(values, dict) and values else "object"
    bounds = ""
    if "minimum" in spec:
        top = spec.get("maximum", spec.get("exclusiveMaximum", 0) - 1)
        bounds = f" {spec['minimum']}..{top}"
    return str(spec.get("type", "any")) + bounds


def default(spec: dict[str, Any]) -> str:
    """The default of a field."""
    value = spec.get("default")
    if value is None:
        return "null"
    if value in ([], {}):
        return "empty"
    return "its defaults" if isinstance(value, dict) else f"`{value}`"


def statuses() -> str:
    """Problems by status."""
    codes: dict[int, list[str]] = {}
    for kind, status in problems.STATUS.items():
        code = getattr(kind, "code", "switch-timeout")
        codes.setdefault(status, []).append(f"`{code}`")
    codes[errors_of(errors.MoveStateConflict)].append("`move-state`")
    codes[500].append("`internal`")
    codes[404].append("`no-such-path`")
    codes[400] = ["`bad-request`", "`not-json`", "`body-missing`", "`body-not-wanted`"]
    for status in (401, 403, 405, 406, 408, 411, 413, 415, 429):
        codes[status] = [f"`{problems.Problem(status, '').code}`"]
    codes[503].append("`service-unavailable`")
    codes[403].append("`foreign-origin`")
    codes[421] = ["`foreign-host`"]
    rows = [(str(s), HTTPStatus(s).phrase, ", ".join(codes[s])) for s in sorted(codes)]
    return table(("status", "title", "codes"), rows)


def errors_of(kind: type[Exception]) -> int:
    """The status of an error."""
    return next(problems.STATUS[base] for base in kind.__mro__ if base in problems.STATUS)


# --- vmm ------------------------------------------------------------------------------------------------------
def commands() -> str:
    """Every command as its help says."""
    return "\n\n".join(command(name, found) for name, found in walk(vmm, "vmm") if not isinstance(found, click.Group))


def walk(found: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it."""
    yield name, found
    if isinstance(found, click.Group):
        for verb in sorted(found.commands):
            yield from walk(found.commands[verb], f"{name} {verb}")


def command(name: str, found: click.Command) -> str:
    """A chapter about a command."""
    words, _, example = " ".join((found.help or "").split()).partition("Example: ")
    arguments = [p.make_metavar(click.Context(found)) for p in found.params if isinstance(p, click.Argument)]
    usage = " ".join([name, *arguments, *(["[OPTIONS]"] if own_options(found) else [])])
    lines = [f"### {name}", "", words.strip(), "", "```", usage, "```"]
    rows = []
    for option in own_options(found):
        spelled = ", ".join(option.opts)
        metavar = "" if option.is_flag else " " + option.make_metavar(click.Context(found))
        marks = [mark for mark, holds in (("required", option.required), ("may be repeated", option.multiple)) if holds]
        if option.show_default and option.default is not None:
            marks.append(f"default: {option.default}")
        helped = (option.help or "").replace(" May be repeated.", "").replace("; may be repeated.", ".")
        rows.append((f"`{spelled}{metavar}`", helped + (f" ({', '.join(marks)})" if marks else "")))
    if rows:
        lines += ["", table(("option", "meaning"), rows)]
    return "\n".join([*lines, "", f"    $ {example.strip()}"])


def own_options(found: click.Command) -> list[click.Option]:
    """The options of a command that not all have."""
    shared = {"url", "json", "timeout", "token_file", "cacert", "cert", "key", "plaintext"}
    return [p for p in found.params if isinstance(p, click.Option) and p.name not in shared]


PARTS: dict[str, Callable[[], str]] = {
    "routes": routes,
    "parameters": parameters,
    "bodies": lambda: fields(BODIES),
    "replies": lambda: fields(REPLIES),
    "statuses": statuses,
    "commands": commands,
    "agent": lambda: keys(Configuration),
    "task": lambda: keys(TaskDefinition),
}


def rendered(text: str) -> str:
    """The text with its generated parts made anew."""

    def fill(found: re.Match[str]) -> str:
        return f"<!-- BEGIN {found[1]} -->\n{PARTS[found[1]]()}\n<!-- END {found[1]} -->"

    return re.sub(r"<!-- BEGIN (\w+) -->\n.*?<!-- END \1 -->", fill, text, flags=re.DOTALL)


def main() -> int:
    """Rewrite, or check."""
    stale = 0
    for page in (ROOT / "docs" / name for name in ("rest.md", "cli.md", "tasks.md")):
        text = page.read_text()
        if rendered(text) != text:
            stale += 1
            print(f"{page.relative_to(ROOT)} is out of date")
            if "--check" not in sys.argv:
                page.write_text(rendered(text))
                print("  rewritten")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
