"""A task that the NVA does not know: no copy of it is ended, and none begun, on that account."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from ryu_vmm.agent.agent import Agent
from ryu_vmm.agent.arrival import Arrival
from ryu_vmm.agent.definition import Configuration, TaskDefinition
from ryu_vmm.agent.departure import Departure
from ryu_vmm.agent.nva import Authority
from ryu_vmm.agent.records import Leg, Record, Role, Step
from ryu_vmm.agent.tasks import Tasks
from ryu_vmm.cli.client import Unreachable

DEFINITION: Any = {"name": "web", "command": ["true"], "interfaces": [{"network": "blue", "mac": "02:00:00:00:00:09"}]}


class Answers:
    """An NVA that says what a test wants, over HTTP.

    Attributes:
        said: path -> (status, document), a problem where the status says so.
        tokens: those shown, in order.
        asked: paths, in order.
    """

    def __init__(self) -> None:
        self.said: dict[str, tuple[int, Any]] = {}
        self.good: str | None = None
        self.tokens: list[str] = []
        self.asked: list[str] = []
        answers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                answers.tokens.append(token)
                answers.asked.append(self.path.partition("?")[0])
                status, document = answers.said.get(self.path.partition("?")[0], (404, {"detail": "not there"}))
                if answers.good not in (None, token):
                    status, document = 401, {"detail": "this token is not known"}
                body = json.dumps({**document, "status": status} if status >= 400 else document).encode()
                self.send_response(status)
                kind = "application/problem+json" if status >= 400 else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - http.server's names

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def at(self, *nves: str, bound: bool = True) -> None:
        """The task is known, with an interface at each of these NVEs."""
        self.said["/v1/vms/web"] = (200, {"interfaces": [{"nve": nve, "bound": bound} for nve in nves]})

    def moves(self, *rows: dict[str, Any]) -> None:
        """The moves that are to be seen, newest first."""
        self.said["/v1/moves"] = (200, {"items": list(rows[:1]), "next": None})
        for row in rows:
            self.said[f"/v1/moves/{row['id']}"] = (200, row)


@pytest.fixture
def nva() -> Iterator[Answers]:
    made = Answers()
    made.moves()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def configuration(tmp_path: Path, nva: Answers) -> Configuration:
    (tmp_path / "secret").write_text("s" * 32)
    (tmp_path / "secret").chmod(0o600)
    return Configuration(
        nve="n1", nva=nva.url, listen="127.0.0.1", port=0, secret_file=str(tmp_path / "secret"),
        state=str(tmp_path / "state"), run=str(tmp_path / "run"),
    )  # fmt: skip


@pytest.fixture
def tasks(configuration: Configuration, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    """Of an agent that only notes what it would do to processes."""
    made = Tasks(configuration)
    for name in ("leave", "resume", "begin", "forget", "cell", "process"):
        monkeypatch.setattr(made, name, Mock(name=name))
    return made


def move(state: str, source: str = "n1", destination: str = "n2", number: int = 7, vm: str = "web") -> dict[str, Any]:
    is_open = state not in ("settled", "aborted", "failed")
    return {"id": number, "vm": vm, "source": source, "destination": destination, "state": state, "open": is_open}


def record(role: Role, peer: str = "n2", step: Step = Step.OPENED) -> Record:
    leg = None if role is Role.HOME else Leg(move=7, peer=peer, step=step)
    return Record(definition=DEFINITION, role=role, leg=leg)


RAN = {**move("failed"), "history": [{"state": state} for state in ("steering", "draining", "failed")]}
SEEN: dict[str, tuple[Callable[[Answers], object], str | None]] = {
    "nothing": (lambda nva: None, None),
    "here": (lambda nva: nva.at("n1"), "n1"),
    "here, and its port is not": (lambda nva: nva.at("n1", bound=False), "n1"),
    "an interface here and one elsewhere": (lambda nva: nva.at("n2", "n1"), "n1"),
    "elsewhere, where it runs": (lambda nva: nva.at("n2"), "n2"),
    "elsewhere, of which nothing is known": (lambda nva: nva.at("n2", bound=False), None),
    "at two places elsewhere": (lambda nva: nva.at("n2", "n3"), None),
    "a move away from here": (lambda nva: nva.moves(move("settled"), move("failed", number=6)), "n2"),
    "a move away from here that has failed": (lambda nva: nva.moves(move("failed")), None),
    "a move away from here that has failed after it ran there": (lambda nva: nva.moves(RAN), "n2"),
    "nothing, and no moves either": (lambda nva: nva.said.pop("/v1/moves"), None),
    "a move to here": (lambda nva: nva.moves(move("settled", "n2", "n1")), None),
}


@pytest.mark.parametrize("seen", SEEN)
def test_where_a_task_is(nva: Answers, configuration: Configuration, seen: str) -> None:
    """Who is told of no other NVE's tasks still sees the moves from and to its own."""
    told, home = SEEN[seen]
    told(nva)
    assert Authority(configuration, threading.Event()).home("web") == home


@pytest.mark.parametrize("changes", [{"moved": 7}, {"moved": 9}])
def test_a_move_of_before_has_taken_nothing_away(nva: Answers, tasks: Tasks, changes: dict[str, Any]) -> None:
    """A task of that name has moved away and ended there; this one was started since, and the NVA has forgotten it."""
    nva.moves(move("settled"))
    agent = Agent(tasks.configuration)
    agent.tasks = tasks
    doubles: Any = tasks
    agent._at_home(tasks.put(record(Role.HOME).model_copy(update=changes)))
    assert not doubles.leave.called
    assert tasks.is_unsure("web")
    nva.moves(move("settled", number=10), move("settled"))
    agent._at_home(tasks.need("web"))
    assert doubles.leave.called


def test_a_move_of_what_was_taken_for_off_started_nothing(nva: Answers, configuration: Configuration) -> None:
    nva.moves({**move("settled"), "activated_by": "off"})
    assert Authority(configuration, threading.Event()).home("web") is None


def test_a_task_that_is_run_anew_has_moved_nowhere_yet(
    nva: Answers, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    nva.moves(move("settled", number=12))
    nva.said["/v1/vms"] = (201, {})
    nva.at("n1")
    agent = Agent(configuration)
    made = agent.tasks
    for name in ("cell", "stray"):
        monkeypatch.setattr(made, name, Mock(name=name, return_value=None if name == "stray" else Mock()))
    monkeypatch.setattr(made, "drivers", {"cooperating": Mock(), "criu": Mock()})
    monkeypatch.setattr(made, "started", Mock(return_value=None))
    agent.run(TaskDefinition.model_validate(DEFINITION))
    assert made.need("web").moved == 12
    made.put(made.need("web"), leg=Leg(move=15, peer="n2", step=Step.OPENED))
    assert made.begin(made.need("web").definition).moved == 15, "nor has one that begins anew after a move"


def test_an_answer_of_another_version_says_nothing(nva: Answers, configuration: Configuration) -> None:
    nva.said["/v1/vms/web"] = (200, {"interfaces": [{"nve": "n2"}]})
    assert Authority(configuration, threading.Event()).home("web") is None


@pytest.mark.parametrize("seen", SEEN)
def test_a_task_at_home(nva: Answers, configuration: Configuration, tasks: Tasks, seen: str) -> None:
    told, home = SEEN[seen]
    told(nva)
    agent = Agent(configuration)
    agent.tasks = tasks
    agent._at_home(tasks.put(record(Role.HOME)))
    doubles: Any = tasks
    assert doubles.leave.called == (home == "n2")
    assert doubles.resume.called == (home == "n1")
    assert not doubles.begin.called
    assert tasks.is_unsure("web") == (home is None)
    nva.at("n1")
    agent._at_home(record(Role.HOME))
    assert doubles.resume.called, "known again, it goes on"


VERDICTS: dict[str, tuple[list[dict[str, Any]], str, str]] = {  # moves; verdict of the source, of the destination
    "steering": ([move("steering")], "there", "here"),
    "prepared": ([move("prepared")], "open", "open"),
    "settled": ([move("settled")], "there", "here"),
    "aborted": ([move("aborted")], "here", "there"),
    "failed": ([move("failed")], "here", "there"),
    "failed after it ran there": ([RAN], "there", "here"),
    "taken for off": ([{**move("settled"), "activated_by": "off"}], "unknown", "unknown"),
    "no such move": ([], "unknown", "unknown"),
    "a move of another task with its number": ([move("settled", vm="db")], "unknown", "unknown"),
    "a move between others with its number": ([move("steering", "n3", "n4")], "unknown", "unknown"),
}


@pytest.mark.parametrize("seen", VERDICTS)
def test_what_becomes_of_a_move(nva: Answers, configuration: Configuration, seen: str) -> None:
    moves, source, destination = VERDICTS[seen]
    for row in moves:
        nva.said[f"/v1/moves/{row['id']}"] = (200, row)
    assert Tasks(configuration).verdict(record(Role.LEAVING)) == source
    there = Tasks(configuration.model_copy(update={"nve": "n2", "state": configuration.state + "2"}))
    assert there.verdict(record(Role.ARRIVING, peer="n1")) == destination


@pytest.mark.parametrize("status", [404, 409])
def test_a_source_keeps_what_the_nva_does_not_know(nva: Answers, tasks: Tasks, status: int) -> None:
    nva.said["/v1/moves/7/abort"] = (status, {"detail": "there is no move 7"})
    doubles: Any = tasks
    mine = tasks.put(record(Role.LEAVING))
    Departure(tasks, {"id": 7, "destination": "n2"}).decide(mine, "agent started anew")
    assert not doubles.leave.called, "another copy may be all that there is, or this one"
    assert not doubles.resume.called
    assert tasks.need("web").role is Role.LEAVING
    nva.at("n1")
    Departure(tasks, {"id": 7, "destination": "n2"}).decide(mine, "agent started anew")
    assert doubles.resume.called


def test_the_number_of_a_move_may_be_anothers_by_now(nva: Answers, tasks: Tasks) -> None:
    """The NVA's records are new: no hook of a move that was means one of somebody else's."""
    nva.moves(move("prepared", vm="db"))
    for hook in ("abort", "activate"):
        nva.said[f"/v1/moves/7/{hook}"] = (200, move("prepared", vm="db"))
    Departure(tasks, {"id": 7, "destination": "n2"}).decide(tasks.put(record(Role.LEAVING)), "agent started anew")
    Arrival(tasks).finish(record(Role.ARRIVING, "n1", Step.RECEIVED), {})
    Arrival(tasks).discard(record(Role.ARRIVING, "n1", Step.OFFERED))
    assert not [path for path in nva.asked if path.endswith(("abort", "activate"))]
    doubles: Any = tasks
    assert not doubles.resume.called
    assert tasks.is_unsure("web")
    nva.moves(move("prepared"))
    Departure(tasks, {"id": 7, "destination": "n2"}).decide(tasks.need("web"), "agent started anew")
    assert nva.asked[-1] == "/v1/moves/7/abort"


def test_a_source_that_has_sent_nothing_goes_on(nva: Answers, tasks: Tasks) -> None:
    departure = Departure(tasks, {"id": 7, "destination": "n2"})
    departure._kept = True
    departure.decide(tasks.put(record(Role.LEAVING)), "the other agent is away")
    doubles: Any = tasks
    assert doubles.resume.called
    assert not doubles.leave.called


@pytest.mark.parametrize("step", [Step.RECEIVED, Step.INSTANTIATE, Step.START])
def test_a_destination_keeps_the_image_of_what_the_nva_does_not_know(nva: Answers, tasks: Tasks, step: Step) -> None:
    doubles: Any = tasks
    doubles.process.return_value = None
    Arrival(tasks).recover(tasks.put(record(Role.ARRIVING, "n1", step)))
    assert not doubles.forget.called
    assert not doubles.begin.called
    Arrival(tasks).recover(record(Role.ARRIVING, "n1", Step.OFFERED))
    assert doubles.forget.called, "of what was only offered there is nothing to keep"


def test_a_destination_that_may_not_run_it_yet(nva: Answers, tasks: Tasks) -> None:
    Arrival(tasks).finish(record(Role.ARRIVING, "n1", Step.RECEIVED), {})
    doubles: Any = tasks
    assert not doubles.forget.called
    assert tasks.is_unsure("web")


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_refusal_says_nothing_of_where_a_task_is(
    nva: Answers, configuration: Configuration, tasks: Tasks, status: int
) -> None:
    nva.said["/v1/vms/web"] = (status, {"detail": "no"})
    agent = Agent(configuration)
    agent.tasks = tasks
    doubles: Any = tasks
    agent._at_home(record(Role.HOME))
    assert not doubles.leave.called
    assert not doubles.resume.called
    assert tasks.is_unsure("web"), "it is asked for again"


def test_a_token_is_read_again_when_it_changes(nva: Answers, configuration: Configuration, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    file.chmod(0o600)
    nva.at("n1")
    nva.good = "old"
    authority = Authority(configuration.model_copy(update={"token_file": str(file)}), threading.Event())
    assert authority.home("web") == "n1"
    nva.good = "new"  # there first, and here a moment later
    threading.Timer(0.2, lambda: file.write_text("new\n")).start()
    assert authority.home("web") == "n1"
    assert nva.tokens[0] == "old"
    assert nva.tokens[-1] == "new"
    file.unlink()  # while it is being replaced, the old one is shown
    assert authority.home("web") == "n1"
    file.write_text("")
    file.chmod(0o600)
    assert authority.home("web") == "n1"


def test_a_token_that_stays_wrong_is_told(nva: Answers, configuration: Configuration, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("wrong\n")
    file.chmod(0o600)
    nva.good = "right"
    authority = Authority(configuration.model_copy(update={"token_file": str(file)}), threading.Event())
    with pytest.raises(Unreachable, match="this token is not known"):
        authority.vm("web", 0.2)
