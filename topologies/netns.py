"""Network namespaces: entering one for a moment, and running `ip` inside one."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from topologies.errors import CommandError

NETNS_DIR = "/run/netns"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def path_of(name: str) -> str:
    """Path of the named namespace's handle."""
    return f"{NETNS_DIR}/{name}"


def exists(name: str) -> bool:
    """Is there a namespace of that name?"""
    return os.path.exists(path_of(name))


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        err = ctypes.get_errno()
        raise OSError(err, os.strerror(err), "setns")


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Put the calling thread into the namespace for the `with` block, then back.

    Sockets and taps opened inside stay in that namespace. Raises OSError where the namespace is missing.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path_of(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


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
