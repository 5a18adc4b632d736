"""What a move waits for is said in every state, to programs and to people, and watching ends with a closed ledger."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from cli_lab import Nva, lab, nva
from live import LiveRuntime, ticking

from ryu_vmm import events as ev
from ryu_vmm.cli import awaited, client, watch
from ryu_vmm.model import MoveState
from ryu_vmm.rest import views
from ryu_vmm.rest.documents import EvacuationDocument, MoveDocument

__all__ = ["lab", "nva"]


def document(lab: Nva, number: int = 1) -> Any:
    found = lab.json(f"move show {number}")
    MoveDocument.model_validate(found)
    return found


def waits(lab: Nva) -> tuple[Any, Any]:
    found = document(lab)
    assert (found["until"] is not None) == found["open"]
    return found["waiting_for"], found["waiting_on"]


def test_every_state_of_a_hot_move_says_what_it_waits_for(lab: Nva) -> None:
    runtime = lab.runtime
    lab.run("vm add web-3 --network blue --mac 02:00:00:00:00:03 --ip 10.0.0.3 --nve nve3 --port tap-3")
    runtime.hold.add("nve2")
    lab.run("move start web-1 --to nve2")
    assert waits(lab) == ("switches", ["nve2"])
    assert "waits for answers of nve2, until" in lab.run("move show 1").stdout

    runtime.hold.clear()
    runtime.event(ev.BarrierReplied(2, runtime.state.generations["nve2"][0]))
    runtime.until(lambda: runtime.the(1).state is MoveState.PREPARED)
    assert waits(lab) == ("redirect", ["nve1"])
    text = lab.run("move show 1").stdout
    assert re.search(r"web-1 is about to be paused, until \d\d:\d\d:\d\d\.\d+: vmm move redirect 1\n", text)

    runtime.plug("nve2", "tap-1")
    runtime.hold.add("nve1")
    lab.run("move redirect 1")
    runtime.until(lambda: runtime.the(1).redirect == "source")
    assert waits(lab) == ("switches", ["nve1"])
    runtime.hold.clear()
    runtime.event(ev.BarrierReplied(1, runtime.state.generations["nve1"][0]))
    runtime.until(lambda: runtime.the(1).redirect == "in-force")
    assert waits(lab) == ("activate", ["nve2"])
    assert ": vmm move activate 1\n" in lab.run("move show 1").stdout

    runtime.hold.add("nve3")
    lab.run("move activate 1")
    assert waits(lab) == ("switches", ["nve3"])
    runtime.hold.clear()
    runtime.event(ev.BarrierReplied(3, runtime.state.generations["nve3"][0]))
    assert waits(lab) == ("silence", ["nve1"])

    runtime.hold.add("nve1")
    runtime.until(lambda: runtime.the(1).state is MoveState.SETTLED)
    assert waits(lab) == ("switches", ["nve1"])  # the ledger is open until the source has confirmed
    assert "to close its ledger" in lab.run("move show 1").stdout
    runtime.hold.clear()
    runtime.event(ev.BarrierReplied(1, runtime.state.generations["nve1"][0]))
    assert waits(lab) == (None, [])
    assert "waits" not in lab.run("move show 1").stdout


def test_probes_are_waited_for_by_path(lab: Nva) -> None:
    lab.runtime.boxes["nve3"].nve = lab.runtime.boxes["nve3"].nve.__class__("nve3", 3)  # its tunnels lead nowhere
    lab.run("move start web-1 --to nve3")
    what, on = waits(lab)
    assert (what, "nve3" in on) == ("probes", True)


def test_a_cold_move_waits_for_the_vm_at_its_destination(lab: Nva) -> None:
    lab.run("move start web-1 --to nve2 --kind cold")
    lab.runtime.until(lambda: lab.runtime.the(1).state is MoveState.PREPARED)
    assert waits(lab) == ("activate", ["nve2"])


def test_an_end_that_is_away_is_named(lab: Nva) -> None:
    lab.runtime.hold.add("nve2")
    lab.run("move start web-1 --to nve2")
    lab.runtime.disconnect("nve2")
    assert waits(lab) == ("switches", ["nve2"])


def test_what_is_waited_for_outlives_a_restart(lab: Nva) -> None:
    lab.run("move start web-1 --to nve2")
    lab.runtime.until(lambda: lab.runtime.the(1).state is MoveState.PREPARED)
    again = LiveRuntime(lab.runtime._store)
    found = views.move(again.state, again.the(1))
    assert (found["waiting_for"], found["until"] is not None) == ("redirect", True)


# --- watching -------------------------------------------------------------------------------------------------
def test_watching_says_which_hook_is_missing(lab: Nva) -> None:
    """Once each, with its deadline and the command: the commands shown are what carries the move on."""
    runtime = lab.runtime

    def by_hand() -> None:
        runtime.until(lambda: 1 in runtime.state.moves and runtime.the(1).state is MoveState.PREPARED)
        runtime.plug("nve2", "tap-1")
        while not seen["redirect"].wait(0.01):
            pass
        runtime.handle(ev.RedirectRequested(1))
        while not seen["activate"].wait(0.01):
            pass
        runtime.handle(ev.ActivationReported(1))

    seen = {name: threading.Event() for name in ("redirect", "activate")}
    real = awaited.hook

    def hook(document: Any) -> str:
        words = real(document)
        for name, event in seen.items():
            if words.endswith(f": vmm move {name} 1"):
                event.set()
        return words

    thread = threading.Thread(target=by_hand, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch, ticking(runtime):
        patch.setattr(awaited, "hook", hook)
        text = lab.run("move start web-1 --to nve2 --watch").stdout
    thread.join(5)
    for name in seen:
        assert len(re.findall(rf"^move 1 waits for .*, until [\d:.]+: vmm move {name} 1$", text, re.MULTILINE)) == 1
    assert "LEDGER " in text
    assert "counting" not in text


def test_watching_ends_with_a_closed_ledger(lab: Nva) -> None:
    """Settled comes before the last barrier: nobody is shown a ledger that still counts."""
    runtime = lab.runtime
    lab.run("move start web-1 --to nve2")
    runtime.until(lambda: runtime.the(1).state is MoveState.PREPARED)
    runtime.plug("nve2", "tap-1")
    lab.run("move activate 1")
    runtime.until(lambda: runtime.the(1).state is MoveState.DRAINING)
    runtime.hold.add("nve3")
    runtime.until(lambda: runtime.the(1).state is MoveState.SETTLED)
    runtime.hold.add("nve1")
    still_open = not runtime.the(1).ledger.closed
    real, looked = client.Client.get, []

    def get(self: client.Client, path: str, **query: Any) -> Any:
        looked.append(path)
        if len(looked) == 4:
            runtime.hold.clear()
            for n in (1, 2, 3):
                runtime.event(ev.BarrierReplied(n, runtime.state.generations[f"nve{n}"][0]))
        return real(self, path, **query)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client.Client, "get", get)
        patch.setattr(watch, "INTERVAL", 0.001)
        found = lab.json("move watch 1")
    assert found["ledger"]["closed"]
    assert (len(looked) >= 4) == still_open


def test_watching_names_who_keeps_a_ledger_open_and_ends(lab: Nva, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL", 0.001)
    monkeypatch.setattr(watch, "CLOSING", 0.02)
    lab.run("move start web-1 --to nve2")
    lab.runtime.disconnect("nve2")
    lab.run("move abort 1")
    result = lab.run("move watch 1", client.FAILED)
    assert "the ledger of move 1 waits for nve2" in result.stderr


def test_an_evacuation_says_which_hooks_are_missing(lab: Nva) -> None:
    lab.run("evacuate nve1 --to nve2")
    lab.runtime.until(lambda: lab.runtime.the(1).state is MoveState.PREPARED)
    found = lab.json("evacuation show 1")
    EvacuationDocument.model_validate(found)
    (row,) = found["vms"]
    assert (row["waiting_for"], row["waiting_on"]) == ("redirect", ["nve1"])
    assert re.search(r"vmm move redirect 1 +\d\d:\d\d:\d\d", lab.run("evacuation show 1").stdout)

    def by_hand() -> None:
        lab.runtime.handle(ev.RedirectRequested(1))
        lab.runtime.unplug("nve1", "tap-1")
        lab.runtime.plug("nve2", "tap-1")
        lab.runtime.until(lambda: lab.runtime.the(1).redirect == "in-force")
        while not told.wait(0.01):
            pass
        lab.runtime.handle(ev.ActivationReported(1))

    told, real = threading.Event(), awaited.hook

    def hook(document: Any) -> str:
        words = real(document)
        if words.endswith(": vmm move activate 1"):
            told.set()
        return words

    thread = threading.Thread(target=by_hand, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch, ticking(lab.runtime):
        patch.setattr(awaited, "hook", hook)
        text = lab.run("evacuation watch 1").stdout
    thread.join(5)
    assert re.search(r"^move 1 waits for web-1 .*: vmm move activate 1$", text, re.MULTILINE)
    assert lab.json("move show 1")["ledger"]["closed"]
