"""The command ``vmm-agent``."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from .. import __version__
from ..errors import InvalidInput, VmmError
from ..logs import formatter
from .agent import Agent
from .control import Door, ask
from .definition import Configuration, TaskDefinition, load

__all__ = ["main"]

_RUN = "/run/ryu_vmm/agent"


class _Commands(click.Group):
    """Errors in one line, with an exit code: 1 the operation failed, 2 wrong usage, 6 invalid input."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InvalidInput as e:
            click.echo(f"vmm-agent: {e.message}", err=True)
            for wrong in e.details.get("errors") or []:  # type: ignore[attr-defined]
                click.echo(f"  {wrong['field']}: {wrong['why']}", err=True)
            raise click.exceptions.Exit(6) from None
        except VmmError as e:
            click.echo(f"vmm-agent: {e.message}", err=True)
            raise click.exceptions.Exit(1) from None
        except OSError as e:
            click.echo(f"vmm-agent: {e.filename or 'error'}: {e.strerror or e}", err=True)
            raise click.exceptions.Exit(1) from None

@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="ryu-vmm", prog_name="vmm-agent")
@click.option("--run", "run_", default=_RUN, show_default=True, envvar="VMM_AGENT_RUN", help="Its run directory.")
@click.option("--json", "as_json", is_flag=True, help="Print documents as JSON.")
@click.pass_context
def main(context: click.Context, run_: str, as_json: bool) -> None:
    """Run tasks on this host and move them to others, their connections with them.

    \b
    Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 6 invalid input.
    """
    context.obj = (run_, as_json)


@main.command()
@click.option("--config", required=True, type=click.Path(dir_okay=False), help="The agent's configuration.")
@click.option("--verbose", is_flag=True, help="Log more.")
@click.option("--log-json", is_flag=True, help="Log lines are JSON objects.")
def serve(config: str, verbose: bool, log_json: bool) -> None:
    """Be the agent of this host until SIGTERM. Its tasks go on without it.

    Example: vmm-agent serve --config /etc/ryu_vmm/agent.yaml
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter(log_json))
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    agent = Agent(load(Configuration, config))
    agent.start()
    door = Door(agent)
    ended.wait()
    door.close()
    agent.stop()


def _show(context: click.Context, document: dict[str, Any], text: str) -> None:
    if context.obj[1]:
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(text)


@main.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.pass_context
def run(context: click.Context, file: str) -> None:
    """Start the task that FILE defines, and register it with the NVA.

    Example: vmm-agent run web.json
    """
    definition = load(TaskDefinition, file)
    document = ask(context.obj[0], "run", definition=definition.model_dump(mode="json"))
    _show(context, document, f"{document['name']} runs, process {document['pid']}")


@main.command("list")
@click.pass_context
def list_(context: click.Context) -> None:
    """Show the tasks that this host knows.

    Example: vmm-agent list
    """
    document = ask(context.obj[0], "list")
    if context.obj[1]:
        click.echo(json.dumps(document, indent=1))
        return
    table = Table("task", "is", "process", "addresses", "move", "step", "why", box=None)
    for one in document["tasks"]:
        where = f"{one['move']} ({one['peer']})" if one["move"] else ""
        table.add_row(one["name"], one["role"], str(one["pid"] or ""), " ".join(one["addresses"]), where,
                      one["step"] or "", one["why"])
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@main.command()
@click.argument("task")
@click.argument("to", metavar="NVE")
@click.option("--connections", type=click.Choice(["keep", "migrate", "drop"]), help="What becomes of its connections.")
@click.option("--address", type=click.Choice(["keep", "change"]), help="Whether it gets an address of the destination.")
@click.pass_context
def move(context: click.Context, task: str, to: str, connections: str | None, address: str | None) -> None:
    """Move TASK, which runs here, to NVE. ``vmm move show`` and ``vmm move watch`` follow the move.

    Example: vmm-agent move web nve2 --connections keep
    """
    document = ask(context.obj[0], "move", task=task, to=to, connections=connections, address=address)
    _show(context, document, f"move {document['id']} of {task} to {to} is open")


@main.command()
@click.argument("task")
@click.option("--remove", is_flag=True, help="Forget it, here and at the NVA.")
@click.pass_context
def stop(context: click.Context, task: str, remove: bool) -> None:
    """Stop TASK: SIGTERM, then SIGKILL.

    Example: vmm-agent stop web --remove
    """
    _show(context, ask(context.obj[0], "stop", task=task, remove=remove), f"{task} has ended")
