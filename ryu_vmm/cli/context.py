"""What all commands share: their options, their output, and how they end."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import InvalidInput, VmmError
from ..texts import printable
from .client import FAILED, INVALID, UNREACHABLE, Client, Refused, Shown, Unreachable
from .tokens import check_url, checked_token, guard_token, token_in

__all__ = ["Command", "Context", "Group", "among", "console", "passing", "table"]

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass
class Context:
    """Options that every command takes, and the client made of them."""

    url: str = DEFAULT_URL
    as_json: bool = False
    timeout: float = 10.0
    token_file: str | None = None
    cert: str | None = None
    key: str | None = None
    cacert: str | None = None
    plaintext: bool = False
    _client: Client | None = None

    @property
    def client(self) -> Client:
        """The client; made when it is first needed."""
        if self._client is None:
            if self.key is not None and self.cert is None:
                raise click.UsageError("--key is of no use without --cert")
            try:
                check_url(self.url)
                token = self._token()
                if not self.plaintext:
                    guard_token(self.url, token, "--plaintext")
            except InvalidInput as e:
                raise click.UsageError(e.message) from None
            self._client = Client(self.url, self.timeout, Shown(token, self.cert, self.key, self.cacert))
            click.get_current_context().find_root().call_on_close(self._client.close)
        return self._client

    def _token(self) -> str | None:
        """The token: of the file that was named, else of the environment. None: there is none."""
        if self.token_file is None:
            given = os.environ.get("VMM_TOKEN", "").strip()
            return checked_token(given, "$VMM_TOKEN") if given else None
        if self.token_file == "-":
            return checked_token(sys.stdin.readline(), "standard input")
        return token_in(self.token_file)

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
        return printable(", ".join(map(str, value)))
    return printable(str(value))


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
        _file_option("token_file", envvar, "First line is the token that says who you are; - is standard input."),
        _file_option("cacert", envvar, "PEM file with the authority of the NVA's certificate."),
        _file_option("cert", envvar, "PEM file with your certificate."),
        _file_option("key", envvar, "PEM file with its key, where that is not in --cert."),
        click.Option(
            ["--plaintext"],
            is_flag=True,
            expose_value=False,
            callback=_set("plaintext"),
            help="Send the token without TLS, too.",
        ),
    ]


def _file_option(name: str, envvar: str | None, words: str) -> click.Option:
    variable = f"VMM_{name.upper()}"
    return click.Option(
        [f"--{name.replace('_', '-')}"],
        envvar=variable if envvar else None,
        metavar="FILE",
        expose_value=False,
        callback=_set(name),
        help=f"{words} Also ${variable}.",
    )


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
        except UnicodeEncodeError as e:
            around = str(e.object)[max(0, e.start - 20) : e.end + 20]
            _end(f"'{printable(around)}' is not UTF-8 text", INVALID)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as e:
            context = ctx.ensure_object(Context)
            if context._client is None or not context._client.answered:
                raise
            # Documents are taken as the API has them. One that is not is another version's, or no NVA's at all.
            _end(f"what answers at {context.url} is not an NVA of this version ({e!r:.100})", UNREACHABLE)


class Group(click.Group):
    """A group with the shared options."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, envvar: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared(envvar)


#: Passes the :class:`Context` as first argument.


def among(words: type[enum.StrEnum]) -> click.Choice[str]:
    """One of an enumeration's words."""
    return click.Choice([word.value for word in words])


passing = click.make_pass_decorator(Context, ensure=True)


def _refused(context: Context, refusal: Refused) -> NoReturn:
    document = refusal.document
    if context.as_json:
        print_json(document)
        sys.exit(refusal.exit_code)
    lines = [str(document.get("detail") or document.get("title"))]
    told = document.get("errors")
    errors = [e for e in told if isinstance(e, dict) and {"field", "why"} <= e.keys()] if isinstance(told, list) else []
    if len(errors) > 1 or (errors and str(errors[0]["why"]) not in lines[0]):
        lines += [f"  {wrong['field'] or 'document'}: {wrong['why']}" for wrong in errors]
    if document.get("status") == 401:
        lines.append("  who you are is shown by --token-file, $VMM_TOKEN_FILE, $VMM_TOKEN, or --cert and --key")
    _end("\n".join(lines), refusal.exit_code)


def _end(message: str, code: int) -> NoReturn:
    click.echo(f"vmm: {message}", err=True)
    sys.exit(code)
