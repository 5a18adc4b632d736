"""Whose certificate is whose, and reports that are made seldom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import World

from ryu_vmm import events as ev
from ryu_vmm.model import Nve
from ryu_vmm.seldom import Seldom


@pytest.mark.parametrize(
    ("certificate", "names", "expected"),
    [
        (None, None, True),  # no TLS
        (None, (), False),
        (None, ("nve1",), True),
        (None, ("nve2", "nve1"), True),
        (None, ("NVE1",), False),
        (None, ("nve1.example.org",), False),
        ("host", None, False),
        ("host", ("host",), True),
        ("host", ("nve1",), False),
        ("*", ("nve1",), False),
    ],
)
def test_who_is_an_nve(certificate: str | None, names: tuple[str, ...] | None, expected: bool) -> None:
    assert Nve("nve1", 1, b"\1\2\3\4", certificate=certificate).is_of(names) is expected


def test_a_switch_that_is_another_is_never_programmed() -> None:
    world = World(nves=2)
    one, two = world.boxes["n1"].nve, world.boxes["n2"].nve
    switches = world.nva.switches
    assert switches.admits(one.dpid, ("n1",)) and not switches.admits(one.dpid, ("n2",))
    assert switches.admits(999, ("n1",))  # nobody's
    world.handle(ev.NveDisconnected(two.dpid))
    before = len(world.reports)
    outcome = world.nva.handle(ev.NveConnected(two.dpid, (), 0, ("n1",)), world.now)
    assert "n2" not in world.nva.state.sessions
    kinds = [(e.kind, e.fields["certificate_of"]) for e in outcome.effects if hasattr(e, "kind")]
    assert kinds == [("nve.impostor", "n1")]
    assert any(type(e).__name__ == "Disconnect" and e.dpid == two.dpid for e in outcome.effects)
    assert len(world.reports) == before


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from("ab")), max_size=60))
def test_every_occurrence_is_told_once_and_no_report_comes_too_soon(steps: list[tuple[float, str]]) -> None:
    seldom = Seldom(every=10.0)
    now, happened, told, last = 0.0, {"a": 0, "b": 0}, {"a": 0, "b": 0}, {}
    for pause, key in steps:
        now += pause
        happened[key] += 1
        times = seldom.due(key, now)
        if times:
            assert key not in last or now - last[key] >= 10.0
            told[key] += times
            last[key] = now
            assert told[key] == happened[key]
        else:
            assert key in last and now - last[key] < 10.0


def test_what_is_remembered_is_bounded() -> None:
    seldom = Seldom(every=10.0, keys=3)
    for number in range(1000):
        assert seldom.due(number, 0.0) == 1
    assert len(seldom._known) <= 3
