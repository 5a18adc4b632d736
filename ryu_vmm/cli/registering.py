"""What verbs about NVEs, networks and VMs have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .client import at
from .context import Context


class Attachment(click.ParamType[tuple[str, str]]):
    """``LEFT=RIGHT``."""

    name = "pair"

    def __init__(self, left: str, right: str) -> None:
        self.left, self.right = left, right

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """How it is written."""
        return f"{self.left}={self.right}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split it."""
        left, equals, right = str(value).partition("=")
        if not (left and equals and right):
            self.fail(f"{value!r} is not of the form {self.left}={self.right}", param, ctx)
        return left, right


def submit(context: Context, what: str, body: dict[str, Any], replace: bool) -> None:
    """POST an object, or PUT it with --replace, and say what came of it."""
    name = body["name"]
    known = {"nves": "NVE", "networks": "network", "vms": "VM"}[what]
    if replace:
        document = context.client.call("PUT", at(what, name), body)
    else:
        document = context.client.call("POST", f"/v1/{what}", body)
    context.done(document, f"{known} {name} is registered")


def removing(what: str, noun: str) -> Callable[[Context, str], None]:
    """The body of a ``remove`` verb."""

    def remove(context: Context, name: str) -> None:
        context.client.call("DELETE", at(what, name))
        context.done(None, f"{noun} {name} is removed")

    return remove


replace_option = click.option("--replace", is_flag=True, help="Change it if it exists with other content.")
