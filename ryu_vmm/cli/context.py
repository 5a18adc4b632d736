"""What all commands share: their options, their output, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import click
import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import VmmError
from .client import FAILED, INVALID, UNREACHABLE, Client, Refused, Unreachable

__all__ = ["Command", "Context", "Group", "console", "passing", "table"]

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass
class Context:
    """Options that every command takes, and the client made of them."""

    url: str = DEFAULT_URL
    as_json: bool = False
    timeout: float = 10.0
    _client: Client | None = None

    @property
    def client(self) -> Client:
        """The client; made when it is first needed."""
        if self._client is None:
            try:
                parsed = httpx.URL(self.url)
            except httpx.InvalidURL as e:
                raise click.UsageError(f"--url: {e}") from e
            if parsed.scheme not in ("http", "https") or not parsed.host:
                raise click.UsageError(f"--url: {self.url} is not an http URL")
            self._client = Client(self.url, self.timeout)
            click.get_current_context().find_root().call_on_close(self._client.close)
        return self._client

    def show(self, document: Any, render: Callable[[Any], object]) -> None:
        """Print a document: itself with --json, else what ``render`` makes of it."""
        if self.as_json:
            print_json(document)
            return
        rendered = render(document)
        for part in rendered if isinstance(rendered, list) else [rendered]:
            console().print(part)

    def done(self, document: Any, words: str) -> None:
        """Say that something is done: the document with --json, else ``words``."""
        if self.as_json:
            if document is not None:
                print_json(document)
        else:
            click.echo(words)


def print_json(document: Any) -> None:
    """Print a document as JSON."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def console(stderr: bool = False) -> Console:
    """A console on standard output (or error); wide enough for any table where nobody's window is the limit."""
    file = sys.stderr if stderr else sys.stdout
    made = Console(file=file, highlight=False)
    return made if made.is_terminal else Console(file=file, highlight=False, width=240)


def table(title: str, *columns: str, rows: Iterable[Iterable[object]], right: Iterable[str] = ()) -> Table:
    """A table; None is shown as a dash, ``right`` names columns of numbers."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(_cell(cell)) for cell in row))
    return made


def _cell(value: object) -> str:
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


# --- options and ends -----------------------------------------------------------------------------------------
def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, _: click.Parameter, value: Any) -> None:
        # Given before the verb or after it: what is said last holds, and what is not said changes nothing.
        if value is not None and value is not False:
            setattr(context.ensure_object(Context), name, value)

    return callback


def _shared(envvar: str | None = None) -> list[click.Option]:
    # The environment counts where the command line begins only: what is said there holds for the verbs after it.
    return [
        click.Option(
            ["--url"],
            envvar=envvar,
            expose_value=False,
            callback=_set("url"),
            help=f"Where the NVA is; also $VMM_URL. Default: {DEFAULT_URL}",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_set("as_json"),
            help="Print the NVA's document.",
        ),
        click.Option(
            ["--timeout"],
            type=click.FloatRange(min=0, min_open=True),
            expose_value=False,
            callback=_set("timeout"),
            help="Seconds to wait for an answer. Default: 10",
        ),
    ]


class Command(click.Command):
    """A command with the shared options, whose errors become exit codes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared()

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; errors of ours end it with a message and their exit code."""
        try:
            return super().invoke(ctx)
        except Refused as e:
            _refused(ctx.ensure_object(Context), e)
        except Unreachable as e:
            _end(str(e), UNREACHABLE)
        except VmmError as e:
            _end(e.message, INVALID)
        except OSError as e:
            if isinstance(e, BrokenPipeError):
                raise
            _end(f"{e.filename or 'error'}: {e.strerror or e}", FAILED)


class Group(click.Group):
    """A group with the shared options."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, envvar: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared(envvar)


#: Passes the :class:`Context` as first argument.
passing = click.make_pass_decorator(Context, ensure=True)


def _refused(context: Context, refusal: Refused) -> NoReturn:
    document = refusal.document
    if context.as_json:
        print_json(document)
        sys.exit(refusal.exit_code)
    lines = [str(document.get("detail") or document.get("title"))]
    errors = document.get("errors") or []
    if len(errors) > 1 or (errors and errors[0]["why"] not in lines[0]):
        lines += [f"  {wrong['field'] or 'document'}: {wrong['why']}" for wrong in errors]
    _end("\n".join(lines), refusal.exit_code)


def _end(message: str, code: int) -> NoReturn:
    click.echo(f"vmm: {message}", err=True)
    sys.exit(code)
