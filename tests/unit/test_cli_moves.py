"""Moves on the command line: watched to their end, driven by hand."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from cli_lab import Nva, lab, nva
from live import LiveRuntime, ticking

from ryu_vmm.cli import client, watch
from ryu_vmm.model import MoveState

__all__ = ["lab", "nva"]


# --- moves ----------------------------------------------------------------------------------------------------
def hypervisor(runtime: LiveRuntime, ok: bool = True) -> threading.Thread:
    """Does its part of move 1 in the background: redirect, pause, activate; or gives up."""

    def work() -> None:
        from ryu_vmm import events as ev

        runtime.until(lambda: 1 in runtime.state.moves and runtime.the(1).state is MoveState.PREPARED)
        if not ok:
            runtime.handle(ev.AbortRequested(1, "no room"))
            return
        runtime.plug("nve2", "tap-1")
        runtime.handle(ev.RedirectRequested(1))
        runtime.until(lambda: runtime.the(1).redirect == "in-force")
        runtime.handle(ev.ActivationReported(1))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_watching_a_move_to_its_end(lab: Nva) -> None:
    thread = hypervisor(lab.runtime)
    with ticking(lab.runtime):
        text = lab.run("move start web-1 --to nve2 --watch").stdout
    thread.join(5)
    states = re.findall(r"^[\d:.]+ move 1 (\w+)", text, re.MULTILINE)
    assert states == ["preparing", "prepared", "redirecting", "steering", "draining", "settled"]
    assert "LEDGER" in text
    assert re.search(r"not accounted for +0", text)
    for nve, role in (("nve1", "source"), ("nve2", "destination")):
        assert re.search(rf"{nve} +{role} +yes", text)
    shown = lab.run("move show 1").stdout
    assert "move 1: web-1 nve1 -> nve2" in shown
    assert "1" in lab.run("move list").stdout
    assert lab.json("move list --limit 1")["items"][0]["id"] == 1


def test_watching_a_move_that_is_aborted(lab: Nva) -> None:
    thread = hypervisor(lab.runtime, ok=False)
    with ticking(lab.runtime):
        text = lab.run("move start web-1 --to nve2 --watch", client.FAILED).stdout
    thread.join(5)
    assert "move 1 aborted (no room)" in text
    assert lab.json("move watch 1", client.FAILED)["state"] == "aborted"


def test_watching_on_a_terminal(lab: Nva, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    thread = hypervisor(lab.runtime)
    with ticking(lab.runtime):
        text = lab.run("move start web-1 --to nve2 --watch").stdout
    thread.join(5)
    assert "\x1b[" in text
    assert "settled" in text
    assert "LEDGER" in text


def test_watching_outlives_a_restart(lab: Nva, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.run("move start web-1 --to nve2")
    real, broken = client.Client.get, []

    def get(self: client.Client, path: str, **query: Any) -> Any:
        if path == "/v1/moves/1" and 0 < len(broken) < 4:
            broken.append(path)
            raise client.Unreachable("no NVA: connection refused")
        if not broken:
            broken.append(path)
        elif lab.runtime.the(1).open:
            lab.run("move abort 1")
        return real(self, path, **query)

    monkeypatch.setattr(client.Client, "get", get)
    monkeypatch.setattr(watch, "INTERVAL", 0.001)
    result = lab.run("move watch 1", client.FAILED)
    assert result.stderr.count("connection refused; waiting") == 1
    assert "move 1 aborted" in result.stdout


def test_watching_gives_up_in_the_end(lab: Nva, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.run("move start web-1 --to nve2")
    real = client.Client.get
    calls: list[str] = []

    def get(self: client.Client, path: str, **query: Any) -> Any:
        calls.append(path)
        if len(calls) > 1:
            raise client.Unreachable("no NVA: connection refused")
        return real(self, path, **query)

    monkeypatch.setattr(client.Client, "get", get)
    monkeypatch.setattr(watch, "INTERVAL", 0.001)
    monkeypatch.setattr(watch, "PATIENCE", 0.02)
    lab.run("move watch 1", client.UNREACHABLE)


def test_hooks_by_hand(lab: Nva) -> None:
    started = lab.json("move start web-1 --to nve2 --request-id r1 --requested-by me --port eth0=tap-x")
    assert (started["requested_by"], started["legs"][0]["destination"]["port"]) == ("me", "tap-x")
    assert lab.json("move start web-1 --to nve2 --request-id r1 --port eth0=tap-x")["id"] == started["id"]
    lab.run("move start web-1 --to nve2 --request-id r1", client.CONFLICT)  # another one, by the same name
    lab.runtime.until(lambda: lab.runtime.the(1).state is MoveState.PREPARED)
    lab.runtime.plug("nve2", "tap-x")
    assert "move 1 is redirecting" in lab.run("move redirect 1").stdout
    assert "move 1 is " in lab.run("move activate 1").stdout
    lab.run("move abort 1", client.CONFLICT)
    lab.run("move start web-2 --to nve3 --kind cold")
    assert lab.json("move abort 2 --why changed")["history"][-1]["why"] == "changed"


def test_a_move_is_given_another_port(lab: Nva) -> None:
    lab.run("move start web-1 --to nve2")
    assert "eth0 at vnet7 on nve2" in lab.run("move amend 1 --port eth0=vnet7").stdout
