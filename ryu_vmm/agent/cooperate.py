"""What a program calls to be a task that moves: a few functions, the standard library only.

    task = cooperate.join(save)             # None: not started by an agent
    begun = task.begin()                    # waits for the agent's word
    if begun.state is None: ...             # anew, from its definition
    else: ...                               # where it stopped: begun.state, begun.sockets, begun.accepted
    ...
    selector.register(task, EVENT_READ)     # in its main loop; when readable:
    again = task.serve()                    # blocks while the task is frozen; not None when it has been and runs again

``save`` is called when the task is to stop. It returns bytes that say all the program needs to go on elsewhere, and its
sockets by keys of its own choice. From then on, until ``serve`` returns, the program must not touch these sockets. If
it goes on here after all, they are as they were; if it goes on elsewhere, this process is ended, and a new one there
gets the bytes and sockets with the same keys, connected to the same peers. Connections that were waiting in a
listening socket come as ``accepted``; those that the move's policy has closed are named in ``dropped``.

Programs in other languages speak the protocol themselves: docs/tasks.md describes it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .framing import Channel, Closed, Frame, FrameError

__all__ = ["VARIABLE", "VERSION", "Phase", "Resumed", "Saved", "Task", "join"]

#: Name of the environment variable with the path where the task listens for its agent.
VARIABLE = "VMM_TASK_SOCKET"
VERSION = 1
#: Seconds that one frame may take, once it has begun.
_PATIENCE = 30.0


class Phase(StrEnum):
    """Where a task's process is."""

    WAITING = "waiting"  # started; the agent has not said how it begins
    RESTORED = "restored"  # it has its state and sockets, and does not run yet
    RUNNING = "running"
    FROZEN = "frozen"


@dataclass
class Saved:
    """What a task needs to go on elsewhere."""

    state: bytes
    sockets: Mapping[str, socket.socket] = field(default_factory=dict)


@dataclass
class Resumed:
    """How a task begins, or goes on after it was frozen.

    Attributes:
        state: what ``save`` returned where the task was before; None: begin anew. After a freeze that led nowhere None.
        sockets: those of ``save``, by key; after a freeze that led nowhere empty: the program has them.
        accepted: (key of the listening socket, connection) that had not been accepted.
        dropped: keys of connections that are closed now.
    """

    state: bytes | None = None
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    accepted: list[tuple[str, socket.socket]] = field(default_factory=list)
    dropped: frozenset[str] = frozenset()


class Task:
    """This process, as its agent sees it. ``fileno`` is readable when ``serve`` should be called.

    Args:
        path: of the unix socket where the agent connects; made here.
        save: see the module's text.
    """

    def __init__(self, path: str, save: Callable[[], Saved]) -> None:
        self._save = save
        self.phase = Phase.WAITING
        self._saved: Saved | None = None
        self._resumed = Resumed()
        self._kept: list[tuple[str, socket.socket]] = []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(4)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._channels: dict[int, Channel] = {}

    def fileno(self) -> int:
        """Readable when the agent wants something."""
        return self._poll.fileno()

    def begin(self) -> Resumed:
        """Wait until the agent says that the task runs, and how it begins."""
        resumed = None
        while resumed is None:
            resumed = self._turn(None)
        return resumed

    def serve(self) -> Resumed | None:
        """Answer the agent. Blocks while the task is frozen; returns how it goes on if it was."""
        resumed = self._turn(0)
        while self.phase is not Phase.RUNNING:
            resumed = self._turn(None)
        return resumed

    def close(self) -> None:
        """Stop listening."""
        for channel in self._channels.values():
            channel.close()
        self._listener.close()
        self._poll.close()

    # --- the agent's questions ----------------------------------------------------------------------------------------
    def _turn(self, seconds: float | None) -> Resumed | None:
        resumed = None
        for fd, _ in self._poll.poll(seconds):
            if fd == self._listener.fileno():
                with contextlib.suppress(OSError):
                    sock, _ = self._listener.accept()
                    channel = Channel(sock, _PATIENCE)
                    self._channels[sock.fileno()] = channel
                    self._poll.register(sock, select.EPOLLIN)
                continue
            resumed = self._answer(fd, self._channels[fd]) or resumed
        return resumed

    def _answer(self, fd: int, channel: Channel) -> Resumed | None:
        try:
            frame = channel.receive()
            try:
                return self._do(channel, frame)
            finally:
                frame.close()
        except (Closed, FrameError, TimeoutError):  # an agent that has died: the next one connects anew
            self._poll.unregister(fd)
            del self._channels[fd]
            channel.close()
            return None

    def _do(self, channel: Channel, frame: Frame) -> Resumed | None:
        what = str(frame.document.get("do"))
        wanted, method = _ANSWERS.get(what, ((), None))
        if method is None:
            channel.send({"error": f"there is no {what!r} in version {VERSION}"})
        elif self.phase not in wanted:
            channel.send({"error": f"{what} does not fit a task that is {self.phase.value}", "phase": self.phase.value})
        else:
            return method(self, channel, frame)
        return None

    def _status(self, channel: Channel, _frame: Frame) -> None:
        channel.send({"phase": self.phase.value, "pid": os.getpid(), "version": VERSION})

    def _freeze(self, channel: Channel, _frame: Frame) -> None:
        try:
            self._saved = self._save()
        except Exception as e:  # whatever it is, the program runs on here and the agent is told
            channel.send({"error": f"save: {type(e).__name__}: {e}"})
            return
        self.phase = Phase.FROZEN
        self._sockets(channel, _frame)

    def _sockets(self, channel: Channel, _frame: Frame) -> None:
        """State and sockets; also for an agent that has been started anew meanwhile."""
        sockets = self._resumed.sockets if self._saved is None else dict(self._saved.sockets)
        accepted = self._resumed.accepted if self._saved is None else self._kept
        channel.send(
            {"phase": self.phase.value, "sockets": list(sockets), "accepted": [key for key, _ in accepted]},
            b"" if self._saved is None else self._saved.state,
            [sock.fileno() for sock in (*sockets.values(), *(sock for _, sock in accepted))],
        )

    def _keep(self, channel: Channel, frame: Frame) -> None:
        """Connections that the agent has accepted meanwhile: they are kept here, where they outlive the agent."""
        self._kept += _resumed(frame).accepted
        channel.send({"phase": self.phase.value})

    def _restore(self, channel: Channel, frame: Frame) -> None:
        self._resumed = _resumed(frame)
        self._resumed.state = frame.payload
        self.phase = Phase.RESTORED
        channel.send({"phase": self.phase.value})

    def _run(self, channel: Channel, _frame: Frame) -> Resumed:
        return self._go(channel, self._resumed)

    def _start(self, channel: Channel, _frame: Frame) -> Resumed:
        return self._go(channel, Resumed())

    def _thaw(self, channel: Channel, frame: Frame) -> Resumed:
        return self._go(channel, Resumed(accepted=self._kept, dropped=frozenset(frame.document.get("dropped", []))))

    def _go(self, channel: Channel, resumed: Resumed) -> Resumed:
        self.phase = Phase.RUNNING
        self._saved, self._resumed, self._kept = None, Resumed(), []
        with contextlib.suppress(Closed, TimeoutError):  # it asks again what has become of us
            channel.send({"phase": self.phase.value})
        return resumed


_Method = Callable[[Task, Channel, Frame], Resumed | None]
_ANY = tuple(Phase)
_ANSWERS: dict[str, tuple[tuple[Phase, ...], _Method]] = {
    "status": (_ANY, Task._status),
    "start": ((Phase.WAITING,), Task._start),
    "restore": ((Phase.WAITING,), Task._restore),
    "run": ((Phase.RESTORED,), Task._run),
    "freeze": ((Phase.RUNNING,), Task._freeze),
    "sockets": ((Phase.FROZEN, Phase.RESTORED), Task._sockets),
    "keep": ((Phase.FROZEN,), Task._keep),
    "thaw": ((Phase.FROZEN,), Task._thaw),
}


def _resumed(frame: Frame) -> Resumed:
    """Sockets and accepted connections of a frame: descriptors in the order in which the document names them."""
    document: dict[str, Any] = frame.document
    keys, listeners = list(document.get("sockets", [])), list(document.get("accepted", []))
    if len(keys) + len(listeners) != len(frame.fds):
        raise FrameError(f"{len(keys)} sockets and {len(listeners)} connections, {len(frame.fds)} descriptors")
    made = []
    for fd in frame.fds:
        sock = socket.socket(fileno=fd)
        sock.setblocking(os.get_blocking(fd))  # as it is: Python believes that what it is given blocks
        made.append(sock)
    frame.fds.clear()  # they are the sockets' now
    found = Resumed(sockets=dict(zip(keys, made, strict=False)))
    found.accepted = list(zip(listeners, made[len(keys) :], strict=True))
    found.dropped = frozenset(document.get("dropped", []))
    return found


def join(save: Callable[[], Saved], path: str | None = None) -> Task | None:
    """The task that this process is; None if no agent started it."""
    path = path or os.environ.get(VARIABLE)
    return None if path is None else Task(path, save)
