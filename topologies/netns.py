"""Network namespaces: entering one for a moment, and running `ip` inside one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from ryu_vmm.agent.namespaces import NAMED, entered
from topologies.errors import CommandError

__all__ = ["NAMED", "entered", "exists", "inside", "ip_batch", "path_of", "run", "sysctl"]


def path_of(name: str) -> str:
    """Path of the named namespace's handle."""
    return str(NAMED / name)


def exists(name: str) -> bool:
    """Is there a namespace of that name?"""
    return os.path.exists(path_of(name))


def run(argv: Sequence[str], *, check: bool = True, stdin: str | None = None, timeout: float = 30.0) -> str:
    """Run a program to its end and return what it printed.

    Raises CommandError (with the program's own words) when it fails and `check` holds.
    """
    try:
        done = subprocess.run(
            list(argv), input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
            stdin=None if stdin is not None else subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as exc:
        raise CommandError(f"{' '.join(argv)}: no end within {timeout} s") from exc
    except OSError as exc:
        raise CommandError(f"{argv[0]}: {exc.strerror}") from exc
    if check and done.returncode != 0:
        raise CommandError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip() or done.returncode}")
    return done.stdout


def ip_batch(name: str | None, *lines: str) -> None:
    """Run several `ip` commands in one process, inside the namespace `name` (None: none in particular)."""
    where = ["-n", name] if name else []
    run(["ip", *where, "-batch", "-"], stdin="\n".join(lines) + "\n")


def inside(name: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in the namespace, without a shell and without a new mount space."""
    return ["nsenter", f"--net={path_of(name)}", "--", *argv]


def sysctl(name: str, values: dict[str, object]) -> None:
    """Set sysctls inside the namespace; keys are paths below /proc/sys, as `net/ipv4/ip_forward`."""
    with entered(name):
        for key, value in values.items():
            with open("/proc/sys/" + key, "w", encoding="ascii") as file:
                file.write(str(value))
