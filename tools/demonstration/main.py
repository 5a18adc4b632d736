"""From the command line to the exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from topologies import OverlayNet, TopologyError

from . import account, control, machine, main_job, picture
from .ending import Ending, Interrupted
from .narrator import Narrator, complain
from .options import Options, parse
from .overlay import left_behind, overlay


def main(arguments: Sequence[str]) -> int:
    """Run `tools/demo`; returns its exit code."""
    options = parse(arguments)
    try:
        machine.check()
        if options.move:
            return _move(options)
        if options.stop:
            one = control.stop_elsewhere(options.pid)
            Narrator().show(f"The demonstration of process {one.pid} has ended and removed everything.")
            return 0
        return _layer3(options) if options.layer3 else _demonstrate(options)
    except (machine.Unfit, control.NoSuch, TopologyError, OSError) as exc:
        complain(str(exc))
        return 1


def _move(options: Options) -> int:
    assert options.move is not None
    moved = control.move_elsewhere(*options.move, options.pid)
    narrator = Narrator(quiet=options.json)
    main_job.tell(narrator, moved)
    if options.json:
        print(json.dumps({"hypervisor": moved.report.as_dict(), "nva": moved.document}, indent=2))
    return 0


def _layer3(options: Options) -> int:
    from .layer3.story import AgentError, demonstrate  # what it needs is not for the other one to load

    machine.check(machine.LAYER3)
    try:
        return demonstrate(options)
    except AgentError as exc:
        raise TopologyError(f"an agent: {exc}") from exc


def _demonstrate(options: Options) -> int:
    narrator = Narrator(quiet=options.json)
    ending = Ending()
    found: account.Account | None = None
    net: OverlayNet | None = None
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            net = stack.enter_context(overlay(options, narrator))
            stack.callback(ending.closing)
            server = control.Server(net) if options.keep else None
            if server is not None:
                stack.callback(server.close)
                stack.callback(ending.closing)
            found = _main_job(net, options, narrator, server)
            if options.keep:
                _stay(net, options, narrator, ending, found)
    except Interrupted as exc:
        complain(f"{exc}: everything has been ended and removed")
        return 128 + exc.number
    left = left_behind(net)
    narrator.show()
    if left:
        found.problems.append(f"left behind: {', '.join(left)}")
    else:
        narrator.say("All processes ended, namespaces and files removed")
    if options.json and not options.keep:
        print(json.dumps(_document(found, net, options, narrator), indent=2))
    if left or not options.keep:
        _conclude(found, narrator)
    return 1 if found.faults() else 128 + ending.number if ending.number else 0


def _main_job(
    net: OverlayNet, options: Options, narrator: Narrator, server: control.Server | None
) -> account.Account:
    """What is shown in any case. While it is at work, nobody else moves anything."""
    with ExitStack() as stack:
        if server is not None:
            stack.enter_context(server.busy)
        found = main_job.run(net, options, narrator)
    narrator.show()
    narrator.show(account.tables(found, narrator.console))
    narrator.show()
    files = picture.write(found, options.output)
    document = options.output / "account.json"
    document.write_text(json.dumps(found.document(), indent=2) + "\n", encoding="utf-8")
    narrator.say("Written:")
    for path in files:
        narrator.detail("picture", _short(path))
    narrator.detail("account", _short(document))
    return found


def _stay(
    net: OverlayNet, options: Options, narrator: Narrator, ending: Ending, found: account.Account
) -> None:
    at_prompt = control.at_terminal() and not options.json
    if options.json:
        print(json.dumps(_document(found, net, options, narrator), indent=2), flush=True)
    else:
        _conclude(found, narrator)
        control.guide(net, narrator, at_prompt)
    control.stay(net, ending, at_prompt)


def _conclude(found: account.Account, narrator: Narrator) -> None:
    narrator.show()
    narrator.console.print(found.verdict(), style="bold red" if found.faults() else "bold green", soft_wrap=True)


def _document(found: account.Account, net: OverlayNet, options: Options, narrator: Narrator) -> dict[str, Any]:
    return {
        **found.document(),
        "underlay": options.underlay,
        "rate": options.rate,
        "seconds": round(narrator.seconds, 1),
        "process": os.getpid(),
        "openflow": f"127.0.0.1:{net.controllers[0].port}",
        "rest": net.need_rest().base,
        "output": str(options.output.resolve()),
    }


def _short(path: Path) -> str:
    """Relative to where the user is, if it is below."""
    full = path.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)
