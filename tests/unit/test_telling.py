"""Nothing fills the event stream: what repeats is told at first, then now and then, and last as it is."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_lab import client, lab, problem
from test_faults import bring, three

from ryu_vmm import events as ev
from ryu_vmm.audit import AuditTrail, started_with
from ryu_vmm.errors import ShuttingDown
from ryu_vmm.eventlog import EventLog
from ryu_vmm.model import MoveState
from ryu_vmm.telling import BOUNDS, FURTHER, LONGEST, THINGS, Telling

__all__ = ["client", "lab"]

ROOT = Path(__file__).parents[2]
PAUSE = 10.0


def told(log: EventLog) -> list[tuple[float, str, object, object]]:
    return [(at, kind, fields.get("n"), fields.get("times")) for _, at, kind, fields in log.since(0, 100_000)]


def run(telling: Telling, kind: str, times: list[float], **fields: object) -> None:
    """It happens at these times; what is held back is told when it is due."""
    for n, now in enumerate(times):
        while (due := telling.due()) is not None and due <= now:
            telling.tell_held(due)
        telling.happened(kind, {**fields, "n": n}, now)


def test_bounds_are_of_kinds_that_there_are() -> None:
    """A slip in a name would leave a kind with another bound than was meant for it."""
    page = (ROOT / "docs" / "events.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    kinds = {kind for row in rows for kind in re.findall(r"`([a-z]+\.[a-z-]+)`", row)}
    assert set(BOUNDS) - kinds == set()
    assert sum(bound is None for bound in BOUNDS.values()) < len(BOUNDS) / 2


def test_what_goes_on_for_a_day_is_a_few_dozen_entries() -> None:
    log = EventLog(size=100_000)
    telling = Telling(log, PAUSE)
    run(telling, "nve.refused", [n / 4 for n in range(86_400 * 4)], nve="n1")
    entries = told(log)
    assert len(entries) < 50
    assert entries[:3] == [(0.0, "nve.refused", 0, None), (0.25, "nve.refused", 1, None), (0.5, "nve.refused", 2, None)]
    assert entries[3] == (PAUSE, "nve.refused", 39, 37)
    pauses = [b[0] - a[0] for a, b in pairwise(entries[3:])]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST
    assert sum(int(str(times or 1)) for *_, times in entries) == entries[-1][2] + 1  # none is forgotten


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.sampled_from(["nve.connected", "nve.disconnected"])), max_size=200))
def test_what_is_told_last_is_how_it_is(happened: list[tuple[float, str]]) -> None:
    log = EventLog()
    telling = Telling(log, PAUSE)
    now = 1000.0
    for n, (after, kind) in enumerate(happened):
        now += after
        while (due := telling.due()) is not None and due <= now:
            telling.tell_held(due)
        telling.happened(kind, {"nve": "n1", "n": n}, now)
    while (due := telling.due()) is not None:
        telling.tell_held(due)
    entries = told(log)
    assert sum(int(str(times or 1)) for *_, times in entries) == len(happened)
    if happened:
        assert entries[-1][1:3] == (happened[-1][1], len(happened) - 1)


PATH = {"source": "n1", "destination": "n2", "way": "by VXLAN"}


@pytest.mark.parametrize(("kinds", "fields"), [
    (("tunnel.failed", "tunnel.restored"), PATH),
    (("tunnel.failed", "tunnel.unknown"), PATH),
    (("tunnel.missing", "tunnel.found"), {"nve": "n1"}),
])  # fmt: skip
def test_what_fails_and_works_in_turn_is_told_last_as_it_is(kinds: tuple[str, str], fields: dict[str, object]) -> None:
    for times in (40, 41):
        log = EventLog()
        telling = Telling(log, PAUSE)
        for n in range(times):
            telling.happened(kinds[n % 2], {**fields, "n": n}, 1000.0 + n / 10)
        while (due := telling.due()) is not None:
            telling.tell_held(due)
        assert told(log)[-1][1:3] == (kinds[(times - 1) % 2], times - 1)


def test_what_is_counted_already_is_told_with_its_count() -> None:
    log = EventLog()
    telling = Telling(log, PAUSE)
    run(telling, "admission.dropped", [n / 100 for n in range(50)], nve="n1", port="tap1")
    assert len(told(log)) == 50 and all(times is None for *_, times in told(log))


def test_one_things_noise_is_not_anothers() -> None:
    log = EventLog()
    telling = Telling(log, PAUSE)
    run(telling, "nve.refused", [n / 10 for n in range(50)], nve="n1")
    before = log.last
    telling.happened("nve.refused", {"nve": "n2"}, 5.0)
    telling.happened("move.closed", {"move": 1}, 5.0)
    assert log.last == before + 2


def test_after_a_silence_it_is_told_at_once_again() -> None:
    log = EventLog()
    telling = Telling(log, PAUSE)
    run(telling, "nve.unregistered", [0.0, 1.0, 2.0, 500.0], dpid="01")
    assert told(log) == [
        (0.0, "nve.unregistered", 0, None), (PAUSE, "nve.unregistered", 2, 2), (500.0, "nve.unregistered", 3, None),
    ]  # fmt: skip


def test_a_thousand_strangers_share_a_bound() -> None:
    """Whoever connects with ever other datapath ids fills neither the stream nor the memory."""
    log = EventLog(size=100_000)
    telling = Telling(log, PAUSE)
    for n in range(3 * THINGS):
        telling.happened("nve.unregistered", {"dpid": f"{n:016x}", "n": n}, n / 10_000)
    assert log.last <= THINGS + 1
    telling.tell_held(PAUSE + 1)
    assert told(log)[-1][2:] == (3 * THINGS - 1, 2 * THINGS - 1)


def test_a_kind_that_nobody_thought_of_is_bounded_too() -> None:
    log = EventLog()
    telling = Telling(log, PAUSE)
    run(telling, "new.kind", [n / 100 for n in range(500)], nve="n1")
    assert log.last == FURTHER.burst


# --- where it happens -----------------------------------------------------------------------------------------
def test_counters_that_cannot_be_read_are_told_once_and_when_they_can_be_again() -> None:
    w = three()
    move = bring(w, "draining")
    w.reports.clear()
    w.disconnect("n1")
    w.advance(3.0)
    blind = [fields for kind, fields in w.reports if kind == "move.blind"]
    assert [(fields["move"], fields["nve"]) for fields in blind] == [(move.id, "n1")]
    w.disconnect("n2")
    w.advance(3.0)
    blind = [fields["nve"] for kind, fields in w.reports if kind == "move.blind"]
    assert blind == ["n1", "n2"]
    for name in ("n1", "n2"):
        w.connect(name)
    w.advance(20.0)
    assert sorted(str(f["nve"]) for kind, f in w.reports if kind == "move.sighted") == ["n1", "n2"]
    assert len([kind for kind, _ in w.reports if kind == "move.blind"]) == 2
    assert w.current(move).state is MoveState.SETTLED


def test_a_switch_that_comes_and_goes_leaves_a_few_lines(lab, runtime) -> None:  # type: ignore[no-untyped-def]
    for _ in range(100):
        runtime.disconnect("nve3")
        runtime.connect("nve3")
    entries = [e for e in lab.get("/v1/events?follow=0&kind=nve.").json()["items"] if e["fields"].get("nve") == "nve3"]
    assert len(entries) <= 15
    runtime._telling.tell_held(runtime.now() + 60)
    last = lab.get("/v1/events?follow=0&kind=nve.").json()["items"][-1]
    assert (last["kind"], last["fields"]["nve"]) == ("nve.synchronised", "nve3")
    assert last["fields"]["times"] > 200


# --- the end --------------------------------------------------------------------------------------------------
def test_a_request_during_shutdown_is_told_so(lab, runtime) -> None:  # type: ignore[no-untyped-def]
    move = lab.post("/v1/moves", json={"vm": "vm1", "to": "nve2"}).json()["id"]
    runtime.stop()
    for method, path, body in [
        ("GET", "/v1/vms", None), ("GET", "/v1/moves/1", None), ("POST", f"/v1/moves/{move}/abort", {}),
        ("POST", "/v1/moves", {"vm": "vm1", "to": "nve2"}), ("POST", "/v1/nves/nve1/verify", None),
        ("PUT", "/v1/networks/green", {"vni": 9}), ("DELETE", "/v1/vms/vm3", None), ("GET", "/v1/audit", None),
        ("GET", "/v1/events?follow=0", None),
    ]:  # fmt: skip
        answer = lab.request(method, path, json=body)
        document = problem(answer, 503, "shutting-down")
        assert "shutting down" in document["detail"]
        assert answer.headers["retry-after"] == "1"
    assert lab.get("/v1/ready").status_code == 503
    assert lab.get("/v1/health").json()["status"] == "failing"
    with pytest.raises(ShuttingDown):
        runtime.handle(ev.NveWithdrawn("nve1"))
    before = dict(runtime.state.sessions)
    runtime.event(ev.NveDisconnected(1))  # its connection is closed with the rest: nobody takes that in
    assert dict(runtime.state.sessions) == before


def test_the_audit_does_not_mind_its_end(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.sqlite")
    trail.close()
    trail.add(started_with("lab.yaml", {}))
    for ask in (trail.require, lambda: trail.page(1)):
        with pytest.raises(ShuttingDown):
            ask()
