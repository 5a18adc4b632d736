"""Evacuations on the command line: begun, watched, cancelled, resumed."""

from __future__ import annotations

import re
import threading

import pytest
from cli_lab import Nva, lab, nva
from live import LiveRuntime, ticking

from ryu_vmm import events as ev
from ryu_vmm.cli import client
from ryu_vmm.model import MoveState

__all__ = ["lab", "nva"]


@pytest.fixture
def house(lab: Nva) -> Nva:
    """web-1, web-3, web-4 on nve1, which may go anywhere."""
    for n in (1, 3, 4):
        lab.run(f"vm add web-{n} --network blue --mac 02:00:00:00:00:0{n} --ip 10.0.0.{n} --nve nve1 --port tap-{n} "
                "--replace")  # fmt: skip
        lab.runtime.plug("nve1", f"tap-{n}")
    return lab


def hypervisors(runtime: LiveRuntime, number: int = 1, ok: bool = True) -> threading.Thread:
    """Carry out what the evacuation opens, in the background; or give up each time."""

    def over() -> bool:
        for move in list(runtime.state.open_moves()):
            if move.state is MoveState.PREPARED:
                if not ok:
                    runtime.handle(ev.AbortRequested(move.id, "no room"))
                    continue
                leg = move.legs[0]
                runtime.handle(ev.RedirectRequested(move.id))
                runtime.unplug(*leg.src)
                runtime.plug(*leg.dst)
                runtime.handle(ev.ActivationReported(move.id))
        found = runtime.state.evacuations.get(number)
        return found is not None and not found.state.open

    thread = threading.Thread(target=lambda: runtime.until(over, 20), daemon=True)
    thread.start()
    return thread


def test_watched_to_its_end(house: Nva) -> None:
    thread = hypervisors(house.runtime)
    with ticking(house.runtime):
        text = house.run("evacuate nve1 --parallel 2 --requested-by me --watch").stdout
    thread.join(5)
    assert re.search(r"^[\d:]+ web-1 \w+ to nve\d by move \d; \d of 3 off nve1$", text, re.MULTILINE)
    assert "evacuation 1: nve1 -> all other NVEs (hot, 2 at a time) done after" in text
    assert re.search(r"^web-3 +moved +nve\d +\d +\w+ +1 +- *$", text, re.MULTILINE)
    assert "3 moved" in text
    assert re.search(r"1 +nve1 +all others +done +3 +3 +0 +0 ", house.run("evacuation list").stdout)
    assert "evacuation 1: nve1" in house.run("evacuation show 1").stdout
    assert house.json("evacuation show 1")["requested_by"] == "me"
    assert house.json("evacuation list --state open")["items"] == []
    assert house.json("vm list --nve nve1")["items"] == []


def test_watched_on_a_terminal(house: Nva, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    thread = hypervisors(house.runtime)
    with ticking(house.runtime):
        text = house.run("evacuate nve1 --to nve2 --to nve3 --watch").stdout
    thread.join(5)
    assert "\x1b[" in text
    assert "nve1 -> nve2, nve3" in text
    assert re.search(r"\d of 3 off", text)
    assert "moved" in text


def test_what_fails_is_named(house: Nva) -> None:
    thread = hypervisors(house.runtime, ok=False)
    with ticking(house.runtime):
        text = house.run("evacuate nve1 --attempts 1 --watch", client.FAILED).stdout
    thread.join(5)
    assert "incomplete" in text
    assert re.search(r"web-1 +failed +nve\d +\d +aborted +1 +move \d to nve\d aborted: no room", text)
    assert house.json("evacuation watch 1", client.FAILED)["counts"]["failed"] == 3


def test_cancelled_and_resumed(house: Nva) -> None:
    assert "evacuation 1 of nve1 is running: 3 VMs" in house.run("evacuate nve1 --parallel 1 --to nve2").stdout
    assert house.json("evacuate nve2 --request-id r")["id"] == house.json("evacuate nve2 --request-id r")["id"] == 2
    house.run("evacuate nve1", client.CONFLICT)
    house.run("evacuate nve9", client.NOT_FOUND)
    house.run("evacuate nve3 --to nve3", client.INVALID)
    document = house.json("evacuation cancel 1 --abort --why no")
    assert (document["state"], document["history"][-1]["why"]) == ("cancelled", "no")
    house.run("evacuation cancel 2 --abort")
    document = house.json("evacuation resume 1 --to nve3 --parallel 2")
    assert (document["state"], document["to"], document["parallel"]) == ("running", ["nve3"], 2)
    thread = hypervisors(house.runtime)
    with ticking(house.runtime):
        house.run("evacuation resume 1 --watch")
    thread.join(5)
    assert "done" in house.run("evacuation list --nve nve1").stdout
    house.run("evacuation show 9", client.NOT_FOUND)


def test_what_holds_it_up_is_said(house: Nva) -> None:
    house.runtime.disconnect("nve2")
    house.runtime.disconnect("nve3")
    house.run("evacuate nve1 --request-id r")
    assert "waiting: not connected and in sync: nve2, nve3" in house.run("evacuation show 1").stdout
    house.runtime.connect("nve2")
    thread = hypervisors(house.runtime)
    with ticking(house.runtime):
        assert "3 moved" in house.run("evacuation watch 1").stdout
    thread.join(5)
