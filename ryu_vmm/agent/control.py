"""An agent's own door: a unix socket on its host, where `vmm-agent` asks. One JSON document a frame (framing.py)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..checking import check, check_fit
from ..cli.client import Unreachable
from ..errors import VmmError
from .agent import Agent
from .definition import TaskDefinition
from .faults import AgentError
from .framing import Channel, Closed, FrameError
from .nva import told
from .records import Record

__all__ = ["Door", "ask", "door_of"]

LOG = logging.getLogger(__name__)


def door_of(run: str) -> Path:
    """Where an agent listens whose run directory that is."""
    return Path(run) / "agent.sock"


def ask(run: str, what: str, seconds: float = 60.0, **arguments: Any) -> dict[str, Any]:
    """Ask the agent of this host. Raises AgentError in its words, or if there is none."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel = Channel(sock, seconds)
    try:
        sock.connect(str(door_of(run)))
        frame = channel.ask({"do": what, **arguments})
    except (OSError, Closed, FrameError) as e:
        raise AgentError(f"no agent at {door_of(run)}: {e}") from None
    finally:
        channel.close()
    frame.close()
    if "refused" in frame.document:
        raise AgentError(str(frame.document["refused"]))
    return frame.document


class Door:
    """Answers at the agent's unix socket, which is root's alone.

    Args:
        agent: to be asked.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        path = door_of(agent.configuration.run)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(old)
        self._listener.listen(16)
        threading.Thread(target=self._serve, name="door", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(Channel(sock, 120.0),), daemon=True).start()

    def _answer(self, channel: Channel) -> None:
        try:
            frame = channel.receive()
            frame.close()
            request = dict(frame.document)
            method = _METHODS.get(str(request.pop("do", None)))
            try:
                check_fit(request)
                if method is None:
                    raise AgentError("there is no such request")
                channel.send(method(self._agent, **request))
            except (VmmError, OSError, Unreachable, TypeError) as e:
                channel.send({"refused": told(e)})
        except (Closed, FrameError, TimeoutError) as e:
            LOG.info("at the door: %s", told(e))
        except Exception as e:
            LOG.exception("a request at the door")
            with contextlib.suppress(Closed, TimeoutError):
                channel.send({"refused": told(e)})
        finally:
            channel.close()


def _described(agent: Agent, record: Record) -> dict[str, Any]:
    process = agent.tasks.process(record)
    return {
        "name": record.name,
        "role": record.role.value,
        "driver": record.definition.driver,
        "pid": None if process is None else process.pid,
        "namespace": agent.tasks.cell(record.name).namespace,
        "addresses": [text for one in record.definition.interfaces for text in one.addresses],
        "move": None if record.leg is None else record.leg.move,
        "peer": None if record.leg is None else record.leg.peer,
        "step": None if record.leg is None else record.leg.step.value,
        "why": record.why,
        "reports": agent.tasks.reports.get(record.name, []),
    }


def _list(agent: Agent) -> dict[str, Any]:
    rows = [_described(agent, record) for record in agent.tasks.records()]
    return {"nve": agent.configuration.nve, "pid": os.getpid(), "tasks": rows, "halted": agent.tasks.halted}


def _run(agent: Agent, definition: dict[str, Any]) -> dict[str, Any]:
    return _described(agent, agent.run(check(TaskDefinition, definition)))


def _move(agent: Agent, task: str, to: str, **policy: Any) -> dict[str, Any]:
    return agent.move(task, to, **policy)


def _stop(agent: Agent, task: str, remove: bool = False) -> dict[str, Any]:
    agent.end(task, remove)
    return {"stopped": task}


def _show(agent: Agent, task: str) -> dict[str, Any]:
    return _described(agent, agent.tasks.need(task))


def _halt(agent: Agent, at: str) -> dict[str, Any]:
    agent.tasks.halts.add(at)
    return {"halts": sorted(agent.tasks.halts)}


def _proceed(agent: Agent) -> dict[str, Any]:
    agent.tasks.proceed()
    return {}


_METHODS: dict[str, Callable[..., dict[str, Any]]] = {
    "list": _list, "run": _run, "move": _move, "stop": _stop, "show": _show, "halt": _halt, "proceed": _proceed,
}  # fmt: skip
