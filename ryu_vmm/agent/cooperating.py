"""The driver for tasks that cooperate: their own state hook, and their sockets through TCP_REPAIR (cooperate.py)."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from . import host, sockets, tcp
from .cell import Cell
from .cooperate import VARIABLE, VERSION, Phase
from .definition import TaskDefinition
from .drivers import Driver, Package
from .faults import BadImage, HostError, TaskSilent, Unsupported
from .framing import Channel, Closed, Frame, FrameError
from .host import Process

__all__ = ["Cooperating"]


class Cooperating(Driver):
    """Talks to the task's process over its unix socket.

    Args:
        patience: seconds for each answer.
    """

    name = "cooperating"

    def __init__(self, patience: float) -> None:
        self._patience = patience

    def check(self) -> None:
        """TCP_REPAIR is part of every kernel with CONFIG_CHECKPOINT_RESTORE; it wants CAP_NET_ADMIN."""
        with socket.socket() as sock:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, 19, 1)
                sock.setsockopt(socket.IPPROTO_TCP, 19, 0)
            except OSError as e:
                raise Unsupported(f"TCP_REPAIR: {e.strerror}") from None

    # --- a process and its socket -------------------------------------------------------------------------------------
    def _spawn(self, cell: Cell, definition: TaskDefinition) -> Process:
        output = cell.folder / "output.log"
        environment = {**os.environ, **definition.environment, VARIABLE: str(cell.socket_path), "VMM_TASK": cell.name}
        environment.update([cell.mark])
        if definition.user is not None:
            self._give(cell, definition.user)
        with output.open("ab") as log, host.entered(cell.namespace):
            try:
                child = subprocess.Popen(
                    definition.command, cwd=definition.directory, env=environment, user=definition.user,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError, subprocess.SubprocessError) as e:
                raise HostError(f"{definition.command[0]}: {e}") from None
        process = Process.of(child.pid)
        if process is None:
            child.wait()
            raise TaskSilent(f"{cell.name}: the process ended with {child.returncode} at once: {self._words(cell)}")
        try:
            self._await_socket(cell, process)
        except BaseException:
            process.end(0)
            raise
        return process

    def _give(self, cell: Cell, user: int | str) -> None:
        import pwd

        number = user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
        os.chown(cell.folder, number, -1)

    def _await_socket(self, cell: Cell, process: Process) -> None:
        def there() -> bool:
            if not process.alive:
                raise TaskSilent(f"{cell.name}: the process has ended: {self._words(cell)}")
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(str(cell.socket_path)) == 0

        host.wait_until(there, self._patience, f"{cell.name}: the task's socket (it never called cooperate.join?)")

    def _words(self, cell: Cell) -> str:
        with contextlib.suppress(OSError):
            return (cell.folder / "output.log").read_text(errors="replace").strip()[-500:]
        return ""

    @contextmanager
    def _channel(self, cell: Cell) -> Iterator[Channel]:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel = Channel(sock, self._patience)
        try:
            sock.connect(str(cell.socket_found))
            yield channel
        except (OSError, Closed, FrameError) as e:
            raise TaskSilent(f"{cell.name}: {e}") from e
        finally:
            channel.close()

    def _ask(self, channel: Channel, cell: Cell, document: dict[str, Any], payload: bytes = b"",
             fds: list[int] | None = None) -> Frame:  # fmt: skip
        frame = channel.ask(document, payload, fds or [])
        if "error" in frame.document:
            frame.close()
            raise TaskSilent(f"{cell.name}: {document['do']}: {frame.document['error']}")
        return frame

    def _phase(self, channel: Channel, cell: Cell) -> Phase:
        frame = self._ask(channel, cell, {"do": "status"})
        if frame.document.get("version") != VERSION:
            raise TaskSilent(f"{cell.name}: speaks version {frame.document.get('version')}, not {VERSION}")
        try:
            return Phase(str(frame.document.get("phase")))
        except ValueError as e:
            raise TaskSilent(f"{cell.name}: {e}") from None

    def phase(self, cell: Cell) -> Phase:
        """Where the task's process says that it is. Raises TaskSilent."""
        with self._channel(cell) as channel:
            return self._phase(channel, cell)

    @contextmanager
    def _borrowed(self, frame: Frame) -> Iterator[tuple[dict[str, socket.socket], list[tuple[str, socket.socket]]]]:
        """The sockets of an answer, by key, and those accepted; our descriptors of them are closed afterwards."""
        keys, listeners = frame.document.get("sockets"), frame.document.get("accepted")
        if not isinstance(keys, list) or not isinstance(listeners, list) or len(set(map(str, keys))) != len(keys):
            frame.close()
            raise TaskSilent("the task's answer does not name its sockets")
        if len(keys) + len(listeners) != len(frame.fds):
            frame.close()
            raise TaskSilent(f"the task names {len(keys) + len(listeners)} sockets and sends {len(frame.fds)}")
        made: list[socket.socket] = []
        try:
            for fd in frame.fds:
                try:
                    made.append(socket.socket(fileno=fd))
                except OSError as e:
                    raise TaskSilent(f"what the task sends is no socket: {e}") from None
            named = {str(key): sock for key, sock in zip(keys, made, strict=False)}
            yield named, [(str(k), sock) for k, sock in zip(listeners, made[len(keys) :], strict=True)]
        finally:
            for sock in made:
                sock.close()
            for fd in frame.fds[len(made) :]:
                with contextlib.suppress(OSError):
                    os.close(fd)
            frame.fds.clear()

    # --- the driver's work --------------------------------------------------------------------------------------------
    def start(self, cell: Cell, definition: TaskDefinition) -> Process:
        process = self._spawn(cell, definition)
        with self._channel(cell) as channel:
            self._ask(channel, cell, {"do": "start"})
        return process

    def freeze(self, cell: Cell, process: Process) -> None:
        with self._channel(cell) as channel:
            if self._phase(channel, cell) is not Phase.FROZEN:
                self._ask(channel, cell, {"do": "freeze"}).close()

    def package(self, cell: Cell, process: Process) -> Package:
        with self._channel(cell) as channel:
            frame = self._ask(channel, cell, {"do": "sockets"})
            state = frame.payload
            with self._borrowed(frame) as (named, accepted):
                taken = sockets.take(named, accepted)
                new = taken.accepted[len(accepted) :]
                try:
                    if new:  # the task keeps them: should it run on here, or we end, they are not lost
                        keep = {"do": "keep", "accepted": [key for key, _ in new]}
                        self._ask(channel, cell, keep, fds=[sock.fileno() for _, sock in new]).close()
                finally:
                    for _, sock in new:
                        sock.close()
        document, blob = sockets.encode(taken.sockets)
        connections = sockets.open_connections(taken.sockets)
        return Package({"state": state, "sockets": document, "queues": blob}, connections)

    def thaw(self, cell: Cell, process: Process, dropped: bool = False) -> None:
        with self._channel(cell) as channel:
            if self._phase(channel, cell) is Phase.RUNNING:
                return
            frame = self._ask(channel, cell, {"do": "sockets"})
            gone = []
            with self._borrowed(frame) as (named, accepted):
                for key, sock in (*named.items(), *accepted):
                    if sock.type != socket.SOCK_STREAM:
                        continue
                    state = tcp.information(sock)[0]
                    if state in tcp.CARRIED:
                        tcp.leave_repair(sock)
                    elif state != tcp.LISTEN:
                        gone.append(key)
            self._ask(channel, cell, {"do": "thaw", "dropped": gone if dropped else []})

    def reset(self, cell: Cell, process: Process) -> int:
        count = 0
        with self._channel(cell) as channel:
            frame = self._ask(channel, cell, {"do": "sockets"})
            with self._borrowed(frame) as (named, accepted):
                for sock in (*named.values(), *(sock for _, sock in accepted)):
                    if sock.type == socket.SOCK_STREAM and tcp.information(sock)[0] in tcp.CARRIED:
                        tcp.leave_repair(sock)
                        tcp.abort(sock)
                        count += 1
        return count

    def prepare(self, cell: Cell, definition: TaskDefinition) -> Process:
        return self._spawn(cell, definition)

    def restore(
        self, cell: Cell, definition: TaskDefinition, parts: Mapping[str, bytes], waiting: Process | None,
        drop: bool = False, changes: Mapping[str, str] | None = None,
    ) -> Process:
        for name in ("state", "sockets", "queues"):
            if name not in parts:
                raise BadImage(f"the image has no part {name!r}")
        carried = sockets.decode(parts["sockets"], parts["queues"])
        carried, dropped = sockets.kept(carried, drop, changes or {})
        process = waiting if waiting is not None and waiting.alive else self._spawn(cell, definition)
        with host.entered(cell.namespace):
            made = sockets.make(carried)
        try:
            ordered = sorted(zip(carried, made, strict=True), key=lambda item: item[0].accepted)
            document = {
                "do": "restore",
                "sockets": [one.key for one, _ in ordered if not one.accepted],
                "accepted": [one.key for one, _ in ordered if one.accepted],
                "dropped": dropped,
            }
            with self._channel(cell) as channel:
                self._ask(channel, cell, document, parts["state"], [sock.fileno() for _, sock in ordered])
        finally:
            for sock in made:
                sock.close()
        return process

    def run(self, cell: Cell, process: Process, parts: Mapping[str, bytes]) -> None:
        carried = [one for one in sockets.decode(parts["sockets"], parts["queues"]) if one.connection is not None]
        known = {one.key: one.connection for one in carried if not one.accepted}
        new = [one.connection for one in carried if one.accepted]
        with self._channel(cell) as channel:
            if self._phase(channel, cell) is Phase.RUNNING:
                return
            with self._borrowed(self._ask(channel, cell, {"do": "sockets"})) as (named, accepted):
                pairs = [(sock, known.get(key)) for key, sock in named.items()]
                pairs += [(sock, one) for (_, sock), one in zip(accepted, new, strict=False)]
                for sock, connection in pairs:
                    if connection is not None and tcp.information(sock)[0] in tcp.CARRIED:
                        tcp.resume(sock, connection)
            self._ask(channel, cell, {"do": "run"})
