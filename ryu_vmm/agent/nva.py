"""The NVA, as an agent needs it: who runs a task, which moves are open, and the three hooks of a move."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..cli.client import Client, Refused, Shown, Unreachable, at
from ..cli.tokens import check_url, guard_token, token_in
from ..errors import VmmError
from ..model import OFF
from ..texts import printable
from .definition import Configuration
from .faults import AgentError

__all__ = ["STEERED", "Authority", "Gone", "Overruled", "has_run_there"]

LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
#: States in which the destination has the task.
STEERED = ("steering", "draining", "settled")
#: The NVA is not there, or cannot now: it is asked again.
_NOT_NOW = (503, 504)


class Overruled(AgentError):
    """The NVA refuses, for good: the move is not in a state for that."""

    code = "overruled"


class Gone(AgentError):
    """The agent ends, and waits no longer."""

    code = "ending"


class Authority:
    """The NVA's REST interface, patiently: while it is away everything waits, nothing is guessed.

    Args:
        configuration: of the agent.
        ending: set when the agent ends; whoever waits gets Gone.
        moved: the newest move of a task of some name as it came here, as records have it.
    """

    def __init__(
        self, configuration: Configuration, ending: threading.Event, moved: Callable[[str], int] = lambda name: 0
    ) -> None:
        self._configuration = configuration
        self._ending = ending
        self._moved = moved
        self._clients = threading.local()

    @property
    def _client(self) -> Client:
        """This thread's client, made anew when what it shows has changed on the disk.

        Raises:
            Unreachable: what it shows cannot be read, which may pass. InvalidInput: its token would go out for all to
                read, which does not pass.
        """
        mine, stamp = self._clients, self._stamp()
        client: Client | None = getattr(mine, "client", None)
        if client is None or mine.stamp != stamp:
            try:
                shown = self._shown()
                made = Client(self._configuration.nva, 10.0, shown)
            except (OSError, VmmError, Unreachable) as e:
                if client is None:
                    raise Unreachable(f"what the agent shows the NVA cannot be read: {told(e)}") from None
                return client  # it is being written: the next question finds it whole
            self._guard(shown)
            if client is not None:
                client.close()
            client, mine.client, mine.stamp = made, made, stamp
        return client

    def _stamp(self) -> tuple[object, ...]:
        """What changes when one of the files does that say who the agent is."""
        c = self._configuration
        found: list[object] = []
        for path in (c.token_file, c.nva_cert, c.nva_key, c.nva_cacert):
            try:
                at = None if path is None else os.stat(path)
            except OSError as e:
                found.append(e.errno)
            else:
                found.append(at and (at.st_mtime_ns, at.st_ino, at.st_size, at.st_mode))
        return tuple(found)

    def _shown(self) -> Shown:
        c = self._configuration
        token = None if c.token_file is None else token_in(c.token_file)
        return Shown(token, c.nva_cert, c.nva_key, c.nva_cacert)

    def _guard(self, shown: Shown) -> None:
        if not self._configuration.plaintext:
            guard_token(self._configuration.nva, shown.token, "plaintext: true")

    def check(self) -> None:
        """Look whether the agent's files are there and its token is safe, without asking the NVA.

        Raises:
            AgentError, InvalidInput: a file is missing or of no use, or the token would go out for all to read.
        """
        check_url(self._configuration.nva)
        try:
            shown = self._shown()
            self._guard(shown)
            if self._configuration.nva.startswith("https:"):
                shown.context()
        except OSError as e:
            raise AgentError(f"{e.filename}: {e.strerror}") from None
        except Unreachable as e:
            raise AgentError(str(e)) from None

    def patiently(self, ask: Callable[[Client], _T], seconds: float | None = None) -> _T:
        """Ask until the NVA answers, and takes us for who we are, however long that is.

        Raises:
            Refused, Gone; Unreachable: after ``seconds``.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        pause, told = 0.05, False
        while True:
            try:
                return ask(self._client)
            except Refused as e:
                status = e.document.get("status")
                if status == 401:  # a token that has been replaced here or there, and not yet at the other end
                    self._clients.stamp = None
                elif status not in _NOT_NOW:
                    raise
                error: Exception = e
            except Unreachable as e:
                error = e
            if deadline is not None and time.monotonic() >= deadline:
                raise Unreachable(f"the NVA does not answer: {error}")
            if not told:
                LOG.warning("the NVA does not answer, waiting: %s", error)
                told = True
            if self._ending.wait(pause):
                raise Gone("the agent ends")
            pause = min(2 * pause, 1.0)

    def _found(self, path: str, seconds: float | None) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.patiently(lambda client: client.get(path), seconds)
        except Refused as e:
            if e.document.get("status") == 404:
                return None
            raise AgentError(f"the NVA refuses {path}: {e}") from None
        return found

    def vm(self, name: str, seconds: float | None = None) -> dict[str, Any] | None:
        """What the NVA knows of a task; None: nothing."""
        return self._found(at("vms", name), seconds)

    def nve(self, name: str) -> dict[str, Any] | None:
        """What the NVA knows of an NVE."""
        return self._found(at("nves", name), 10.0)

    def move(self, number: int, seconds: float | None = None) -> dict[str, Any] | None:
        """A move; None: there is no such one."""
        return self._found(at("moves", str(number)), seconds)

    def open_moves(self) -> list[dict[str, Any]]:
        """Open moves from and to this NVE. Raises Unreachable, Refused."""
        return list(self._client.items("/v1/moves", state="open", nve=self._configuration.nve))

    def register(self, body: dict[str, Any]) -> None:
        """Register a task where it is. Raises AgentError in the NVA's words, Unreachable."""
        try:
            self.patiently(lambda client: client.call("POST", "/v1/vms", body), 10.0)
        except Refused as e:
            hint = "; have it registered by an admin or its tenant, and set register_vm to false in its definition"
            denied = e.document.get("status") == 403
            raise AgentError(f"the NVA refuses to register {body['name']}: {e}{hint if denied else ''}") from None

    def withdraw(self, name: str) -> None:
        """Have the NVA forget a task. Raises AgentError in the NVA's words, Unreachable."""
        try:
            self.patiently(lambda client: client.call("DELETE", at("vms", name)), 10.0)
        except Refused as e:
            if e.document.get("status") != 404:
                raise AgentError(f"the NVA refuses to forget {name}: {e}") from None

    def ask_for_move(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for a move. Raises AgentError in the NVA's words, Unreachable."""
        try:
            found: dict[str, Any] = self.patiently(lambda client: client.call("POST", "/v1/moves", body), 10.0)
        except Refused as e:
            raise AgentError(f"the NVA refuses the move: {e}") from None
        return found

    def hook(self, move: int, name: str, body: Any = None, seconds: float | None = None) -> dict[str, Any]:
        """Call a hook of a move. Raises Overruled if the move's state forbids it, Unreachable, Gone."""
        try:
            found: dict[str, Any] = self.patiently(
                lambda client: client.call("POST", at("moves", str(move), name), body), seconds
            )
        except Refused as e:
            if e.document.get("status") in (404, 409):
                raise Overruled(f"move {move}: {e}") from None
            raise AgentError(f"the NVA refuses {name} of move {move}: {e}") from None
        return found

    def await_decision(self, number: int, seconds: float) -> None:
        """Wait until a move has ended, or its task runs at the destination; at most so long. Raises Gone."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.move(number)
            if found is None or not found["open"] or found["state"] in STEERED:
                return
            if self._ending.wait(0.05):
                raise Gone("the agent ends")

    def await_bound(self, name: str, seconds: float) -> bool:
        """Wait until the NVE takes what a task sends from its ports, at most so long; whether it does."""
        deadline = time.monotonic() + seconds
        bound = False
        while time.monotonic() < deadline:
            try:
                if not bound:
                    vm = self.vm(name, seconds) or {"interfaces": []}
                    bound = bool(vm["interfaces"]) and all(one["bound"] for one in vm["interfaces"])
                if bound:
                    generation = (self.nve(self._configuration.nve) or {}).get("generation", {})
                    if generation.get("realised", 0) >= generation.get("programmed", 1):
                        return True
            except Unreachable:
                return False
            if self._ending.wait(0.002):
                raise Gone("the agent ends")
        return False

    def home(self, name: str) -> str | None:
        """The NVE where the NVA says that a task runs; None: it does not say. Waits for the NVA.

        A task that it does not know is not elsewhere for that: its records may be new, or not for these credentials to
        see. And where it has a task that is not to be here, the task's ports have to be there, too.
        """
        me = self._configuration.nve
        try:
            found = self.vm(name)
        except AgentError as e:
            LOG.warning("where task %s is cannot be told: %s", name, told(e))
            return None
        if found is not None:
            nves = {str(one["nve"]) for one in found["interfaces"]}
            if me in nves:
                return me
            bound = all(one.get("bound") is True for one in found["interfaces"])
            return nves.pop() if bound and len(nves) == 1 else None
        # Who may see no other NVE's tasks sees at least that one has moved there from here.
        move = self._newest(name)
        if move is None or move["id"] <= self._moved(name):
            return None  # of a task of that name before this one
        away = move["destination"] != me and has_run_there(move)
        return str(move["destination"]) if away else None

    def newest_move(self, name: str) -> int:
        """The number of the newest move that is known of a task of that name, 0: none."""
        move = self._newest(name)
        return 0 if move is None else int(move["id"])

    def _newest(self, name: str) -> dict[str, Any] | None:
        try:
            moves = self.patiently(lambda client: list(client.items("/v1/moves", most=1, vm=name)))
        except Refused:
            return None
        return moves[0] if moves else None

    def await_move(
        self, number: int, done: Callable[[dict[str, Any]], bool], seconds: float, what: str
    ) -> dict[str, Any]:
        """Look at a move until ``done``. Raises Overruled if it ends before, AgentError after ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.move(number, seconds)
            if found is None:
                raise Overruled(f"move {number} is not known any more")
            if done(found):
                return found
            if not found["open"]:
                raise Overruled(f"move {number} has {found['state']}: {found.get('error') or 'called off'}")
            if time.monotonic() >= deadline:
                raise AgentError(f"move {number}: not {what} within {seconds:g} s")
            if self._ending.wait(0.005):
                raise Gone("the agent ends")


def has_run_there(move: dict[str, Any]) -> bool | None:
    """Whether a task ran at its move's destination, however the move ended; None: it was taken for off, and moved
    without anything having been started there."""
    steered = move["state"] in STEERED or any(step["state"] == "steering" for step in move.get("history") or ())
    return None if steered and move.get("activated_by") == OFF else steered


def told(error: BaseException) -> str:
    """An error in one line, for the other side and for the history of a move."""
    text = error.message if isinstance(error, VmmError) else f"{type(error).__name__}: {error}"
    return printable(" ".join(text.split()))[:200] or type(error).__name__
