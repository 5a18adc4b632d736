"""The driver for tasks that know nothing of all this: CRIU, on hosts where ``criu check`` passes.

CRIU (criu.org) writes a process tree's state, TCP connections included (``--tcp-established``), to a folder, and makes
it again from there. The network namespace is ours, not CRIU's: it is named as external and handed over as a descriptor.
The cell's filter is the lock of the network, so CRIU is told not to make one (``--network-lock skip``, CRIU 3.17).
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from . import host
from .cell import Cell
from .definition import TaskDefinition
from .drivers import Driver, Package
from .faults import BadImage, HostError, TaskSilent, Unsupported
from .host import Process

__all__ = ["Criu", "dump_words", "restore_words"]

_KEY = "extRootNetNS"
_MOST = 4096  # files of one dump


def dump_words(program: str, pid: int, folder: Path, namespace: int) -> list[str]:
    """The command that writes a process tree's state; ``namespace``: the inode of its network namespace."""
    return [
        program, "dump", "--tree", str(pid), "--images-dir", str(folder), "--leave-stopped", "--tcp-established",
        "--network-lock", "skip", "--shell-job", "--file-locks", "--external", f"net[{namespace}]:{_KEY}",
        "--log-file", "dump.log", "--verbosity=2",
    ]  # fmt: skip


def restore_words(program: str, folder: Path, descriptor: int, pidfile: Path) -> list[str]:
    """The command that makes it again, stopped, in the namespace that ``descriptor`` is of."""
    return [
        program, "restore", "--images-dir", str(folder), "--restore-detached", "--leave-stopped", "--tcp-established",
        "--network-lock", "skip", "--shell-job", "--file-locks", "--inherit-fd", f"fd[{descriptor}]:{_KEY}",
        "--pidfile", str(pidfile), "--log-file", "restore.log", "--verbosity=2",
    ]  # fmt: skip


class Criu(Driver):
    """Runs the program ``criu``.

    Args:
        program: its name or path.
    """

    name = "criu"

    def __init__(self, program: str) -> None:
        self._program = program

    def check(self) -> None:
        """Raises Unsupported with what ``criu check`` said."""
        try:
            done = subprocess.run([self._program, "check"], capture_output=True, text=True,
                                  errors="backslashreplace", timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            raise Unsupported(f"the driver criu cannot be used here: {self._program} check: {e}") from None
        if done.returncode:
            said = "; ".join(line.strip() for line in (done.stdout + done.stderr).splitlines() if "rror" in line)
            raise Unsupported(
                f"the driver criu cannot be used here: {self._program} check: {said or f'status {done.returncode}'}"
            )

    def start(self, cell: Cell, definition: TaskDefinition) -> Process:
        self.check()
        with (cell.folder / "output.log").open("ab") as log, host.entered(cell.namespace):
            environment = {**os.environ, **definition.environment}
            environment.update([cell.mark])
            try:
                child = subprocess.Popen(
                    definition.command, cwd=definition.directory, env=environment,
                    user=definition.user, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError, subprocess.SubprocessError) as e:
                raise HostError(f"{definition.command[0]}: {e}") from None
        process = Process.of(child.pid)
        if process is None:
            raise TaskSilent(f"{cell.name}: the process ended with {child.wait()} at once")
        return process

    def freeze(self, cell: Cell, process: Process) -> None:
        for pid in host.processes_in(cell.namespace):
            member = Process.of(pid)
            if member is not None:
                member.kill(signal.SIGSTOP)

    def package(self, cell: Cell, process: Process) -> Package:
        folder = cell.folder / "criu"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        inode = host.path_of(cell.namespace).stat().st_ino
        self._criu(dump_words(self._program, process.pid, folder, inode), folder / "dump.log")
        return Package({"criu": _packed(folder)})

    def thaw(self, cell: Cell, process: Process, dropped: bool = False) -> None:
        for pid in host.processes_in(cell.namespace):
            member = Process.of(pid)
            if member is not None:
                member.kill(signal.SIGCONT)

    def reset(self, cell: Cell, process: Process) -> int:
        """By the kernel's own means (``ss --kill``, sock_diag's SOCK_DESTROY): the task's sockets are not ours."""
        with host.entered(cell.namespace):
            before = host.run("ss", "-Htn", "state", "connected")
            host.run("ss", "-KHtn", "state", "connected")
        return len(before.splitlines())

    def prepare(self, cell: Cell, definition: TaskDefinition) -> Process | None:
        self.check()
        return None

    def restore(
        self, cell: Cell, definition: TaskDefinition, parts: Mapping[str, bytes], waiting: Process | None,
        drop: bool = False, changes: Mapping[str, str] | None = None,
    ) -> Process:
        if changes:
            raise Unsupported("a task of the driver criu cannot change its addresses")
        if "criu" not in parts:
            raise BadImage("the image has no part 'criu'")
        folder = cell.folder / "criu"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        _unpack(parts["criu"], folder)
        pidfile = folder / "pid"
        descriptor = os.open(host.path_of(cell.namespace), os.O_RDONLY)
        try:
            words = restore_words(self._program, folder, descriptor, pidfile)
            self._criu(words, folder / "restore.log", (descriptor,))
        finally:
            os.close(descriptor)
        process = Process.of(int(pidfile.read_text()))
        if process is None:
            raise TaskSilent(f"{cell.name}: what criu has restored has ended")
        if drop:
            self.reset(cell, process)
        return process

    def run(self, cell: Cell, process: Process, parts: Mapping[str, bytes]) -> None:
        self.thaw(cell, process)

    def _criu(self, words: list[str], log: Path, descriptors: tuple[int, ...] = ()) -> None:
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="backslashreplace", timeout=300,
                                  check=False, pass_fds=descriptors)
        except (OSError, subprocess.TimeoutExpired) as e:
            raise HostError(f"{words[0]} {words[1]}: {e}") from None
        if done.returncode:
            said = done.stderr.strip()
            with contextlib.suppress(OSError):
                said = "; ".join(line for line in log.read_text().splitlines() if "Error" in line) or said
            raise HostError(f"{words[0]} {words[1]}: {said or f'status {done.returncode}'}")


def _packed(folder: Path) -> bytes:
    """The image files of a folder, logs and such left out."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path in sorted(folder.glob("*.img")):
            archive.add(path, arcname=path.name)
    return file.getvalue()


def _unpack(data: bytes, folder: Path) -> None:
    """Plain files with plain names only. Raises BadImage."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = archive.getmembers()
            if len(members) > _MOST:
                raise BadImage("a dump of criu with too many files")
            for member in members:
                name = member.name
                if not member.isfile() or "/" in name or not name.endswith(".img") or name.startswith("."):
                    raise BadImage(f"a dump of criu with a member {name!r}")
                content = archive.extractfile(member)
                assert content is not None
                with (folder / name).open("xb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, OSError, EOFError) as e:
        raise BadImage(f"the dump of criu: {e}") from None
