"""Verbs about the credentials file. They work on the file itself, where the NVA is: no NVA is asked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from . import people
from .client import CONFLICT, NOT_FOUND
from .context import Context, Group, passing

__all__ = ["credentials"]

_SPAN = re.compile(r"(\d{1,6})([dh])")


class Moment(click.ParamType[datetime]):
    """A time to come: ``90d``, ``12h``, or RFC 3339."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it."""
        now = datetime.now(UTC).replace(microsecond=0)
        span = _SPAN.fullmatch(str(value))
        if span:
            return now + (timedelta(days=int(span[1])) if span[2] == "d" else timedelta(hours=int(span[1])))
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a span like 90d or 12h nor a time in RFC 3339", param, ctx)
        if found.tzinfo is None or found <= now:
            self.fail(f"{value!r} has no time zone or is past", param, ctx)
        return found


file_option = click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="VMM_CREDENTIALS",
    required=True,
    help="The credentials file; also $VMM_CREDENTIALS.",
)
expires_option = click.option("--expires", type=Moment(), help="Until when: 90d, 12h, or a time in RFC 3339.")


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[Any]:
    """The file's content, to be changed while nobody else does; written if the body does not raise."""
    from .. import credentials as kept  # loads pydantic, which no other verb should wait for

    guard = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        entries = list(kept.load(path).principals) if path.exists() else []
        yield entries
        kept.save(path, kept.File(principals=entries))
    finally:
        os.close(guard)


def _ends(message: str, code: int) -> click.exceptions.Exit:
    click.echo(f"vmm: {message}", err=True)
    return click.exceptions.Exit(code)


def _show(context: Context, name: str, token: str, number: str) -> None:
    """A token, this once: alone on standard output, so that it can be sent to where it belongs."""
    if context.as_json:
        context.show({"name": name, "id": number, "token": token}, str)
    else:
        click.echo(f"token {number} of {name}; it is shown this once:", err=True)
        click.echo(token)


def _checked(**facts: Any) -> Any:
    """A principal; InvalidInput says what does not fit."""
    from ..checking import check
    from ..credentials import Entry

    return check(Entry, {name: value for name, value in facts.items() if value not in (None, [], ())})


@click.group(cls=Group)
def credentials() -> None:
    """Who may use the NVA: principals, their roles, tokens and certificates, in a file on the NVA's machine.

    The NVA reads the file again whenever it changes.

    Example: vmm credentials list --file /etc/ryu_vmm/credentials.json
    """


@credentials.command("new")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(["admin", "tenant", "hypervisor", "reader"]))
@click.option("--tenant", help="Whose VMs it sees, for the role tenant. Default: NAME.")
@click.option("--nve", "nves", multiple=True, help="An NVE that a hypervisor speaks for; may be repeated.")
@click.option(
    "--port",
    "ports",
    multiple=True,
    help="Where a tenant may attach VMs, as NVE/PORT with wildcards, e.g. '*/acme-*'; may be repeated.",
)
@click.option(
    "--dns",
    multiple=True,
    help="Names that a tenant's interfaces may have, with wildcards, e.g. '*.acme.example.org'; may be repeated.",
)
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    help="A name in its client certificate: DNS:, URI:, IP:, EMAIL: or CN: and the name. May be repeated.",
)
@click.option("--no-token", is_flag=True, help="It has its certificate and no token.")
@click.option("--note", help="What it is for.")
@expires_option
@file_option
@passing
def new(
    context: Context,
    name: str,
    role: str,
    tenant: str | None,
    nves: tuple[str, ...],
    ports: tuple[str, ...],
    dns: tuple[str, ...],
    certificates: tuple[str, ...],
    no_token: bool,
    note: str | None,
    expires: datetime | None,
    file: Path,
) -> None:
    """Add a principal, and print its token, which is kept nowhere.

    Example: vmm credentials new acme --role tenant --port '*/acme-*' --file /etc/ryu_vmm/credentials.json
    """
    from ..credentials import new_token

    if no_token and not certificates:
        raise click.UsageError("--no-token needs a --certificate: by what else would it be known?")
    token, key = (None, None) if no_token else new_token()
    entry = _checked(
        name=name,
        role=role,
        tenant=tenant or (name if role == "tenant" else None),
        nves=list(nves),
        ports=list(ports),
        dns=list(dns),
        certificates=list(certificates),
        tokens=[] if key is None else [key],
        note=note,
        expires=expires,
    )
    with _changing(file) as entries:
        if any(other.name == name for other in entries):
            raise _ends(f"there is a principal {name} already", CONFLICT)
        entries.append(entry)
    if token is not None and key is not None:
        _show(context, name, token, key.id)
    else:
        context.done({"name": name, "id": None, "token": None}, f"{name} is known by its certificate")


@credentials.command("token")
@click.argument("name")
@expires_option
@file_option
@passing
def token(context: Context, name: str, expires: datetime | None, file: Path) -> None:
    """Give a principal a further token; those it has stay good until they are revoked.

    Example: vmm credentials token acme --expires 90d --file /etc/ryu_vmm/credentials.json
    """
    from ..credentials import new_token

    shown, key = new_token(expires)
    with _changing(file) as entries:
        at = _position(entries, name)
        entries[at] = entries[at].model_copy(update={"tokens": [*entries[at].tokens, key]})
    _show(context, name, shown, key.id)


@credentials.command("revoke")
@click.argument("number", metavar="TOKEN-ID")
@file_option
@passing
def revoke(context: Context, number: str, file: Path) -> None:
    """Take a token out of the file: from then on it is worth nothing.

    Example: vmm credentials revoke 0f3a91c2 --file /etc/ryu_vmm/credentials.json
    """
    with _changing(file) as entries:
        for at, entry in enumerate(entries):
            if any(key.id == number for key in entry.tokens):
                rest = [key for key in entry.tokens if key.id != number]
                entries[at] = entry.model_copy(update={"tokens": rest})
                break
        else:
            raise _ends("there is no token of this id", NOT_FOUND)
    context.done(None, f"token {number} of {entry.name} is revoked")


@credentials.command("remove")
@click.argument("name")
@file_option
@passing
def remove(context: Context, name: str, file: Path) -> None:
    """Remove a principal with all its tokens.

    Example: vmm credentials remove acme --file /etc/ryu_vmm/credentials.json
    """
    with _changing(file) as entries:
        del entries[_position(entries, name)]
    context.done(None, f"{name} is removed")


@credentials.command("list")
@file_option
@passing
def listing(context: Context, file: Path) -> None:
    """List principals, their roles, and the ids of their tokens. It also tells whether the file is good.

    Example: vmm credentials list --file /etc/ryu_vmm/credentials.json
    """
    from ..credentials import described, load

    items = [described(entry) for entry in load(file).principals]
    context.show({"items": items, "next": None}, lambda document: people.principals(document["items"]))


def _position(entries: list[Any], name: str) -> int:
    for at, entry in enumerate(entries):
        if entry.name == name:
            return at
    raise _ends(f"there is no principal {name}", NOT_FOUND)
