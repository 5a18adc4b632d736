"""The picture of arrivals: well-formed, complete, and red where something is missing or came twice."""

from __future__ import annotations

from array import array
from xml.etree import ElementTree

import pytest

from topologies.traffic import plot
from topologies.traffic.arrivals import Arrivals
from topologies.traffic.plot import Band, PlotFlow, PlotMove

SVG = "{http://www.w3.org/2000/svg}"
RED = "#e0131a"
SENT = 2000
PERIOD = 1_000_000  # nanoseconds
START = 5_000_000_000


def flow(name: str = "flow", missing: frozenset[int] = frozenset(), again: tuple[int, ...] = ()) -> PlotFlow:
    """A datagram each millisecond from second 5 on, half a millisecond under way."""
    numbers = [n for n in range(SENT) if n not in missing]
    numbers = sorted([*numbers, *again])
    sent = array("Q", (START + n * PERIOD for n in numbers))
    return PlotFlow(name, Arrivals(1, array("Q", numbers), sent, array("Q", (at + PERIOD // 2 for at in sent))), SENT)


def move(name: str = "move 1: nve1 to nve2", at: float = 6.0) -> PlotMove:
    states = ("preparing", "prepared", "redirecting", "steering", "draining")
    bands = [Band(state, at + 0.05 * n, at + 0.05 * (n + 1)) for n, state in enumerate(states)]
    return PlotMove(name, bands, (at + 0.12, at + 0.15))


def red_marks(document: str) -> list[ElementTree.Element]:
    """What is red, but for the legend, which is above everything else."""
    found = [e for e in ElementTree.fromstring(document).iter() if e.get("stroke") == RED]
    return [e for e in found if e.tag == f"{SVG}path" or (e.tag == f"{SVG}circle" and float(e.get("cy", "0")) > 100)]


def test_the_picture_names_flows_states_and_moves_and_counts_what_arrived() -> None:
    names = ["vm2 to vm1, IPv4", "vm1 to vm2, IPv6"]
    moves = [move(), move("move 2: nve2 to nve1", 6.5)]
    root = ElementTree.fromstring(plot.draw("Title & <more>", [flow(name) for name in names], moves))
    words = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert "Title & <more>" in words
    assert "4,000 datagrams sent, 4,000 arrived, 0 lost, 0 duplicated" in words
    for name in names:
        assert words.count(name) == 2, "a lane in the overview and one beside the close-ups"
    for one in moves:
        assert one.name in words
        assert f"Close-up of {one.name}" in words
    for state in ("prepared", "redirecting", "steering", "draining"):
        assert words.count(state) == 3, "in the legend and in both close-ups"
    assert words.count("paused 30 ms") == 2


def test_nothing_is_red_where_nothing_is_wrong() -> None:
    assert red_marks(plot.draw("t", [flow()], [move()])) == []


def test_what_is_missing_is_red_at_the_time_it_was_sent() -> None:
    lossy = flow(missing=frozenset({1100, 1101}))
    assert plot.lost_at(lossy) == [pytest.approx(6.1), pytest.approx(6.101)]
    document = plot.draw("t", [lossy], [move()])
    assert len(red_marks(document)) == 2, "one path in the overview, one in the close-up"
    assert "2,000 datagrams sent, 1,998 arrived, 2 lost, 0 duplicated" in document


def test_what_is_missing_at_either_end_is_not_forgotten() -> None:
    assert len(plot.lost_at(flow(missing=frozenset({0, 1, SENT - 1})))) == 3


def test_what_came_twice_is_ringed() -> None:
    twice = flow(again=(1100,))
    assert plot.doubled_at(twice) == [pytest.approx(6.1005)]
    document = plot.draw("t", [twice], [move()])
    assert [mark.tag for mark in red_marks(document)] == [f"{SVG}circle"] * 2
    assert "2,000 arrived, 0 lost, 1 duplicated" in document


def test_a_flow_of_which_nothing_arrived_is_drawn_all_the_same() -> None:
    nothing = PlotFlow("silence", Arrivals(2, array("Q"), array("Q"), array("Q")), 10)
    document = plot.draw("t", [flow(), nothing], [move()])
    assert "2,010 datagrams sent, 2,000 arrived, 10 lost" in document
    ElementTree.fromstring(document)


def test_a_close_up_begins_before_the_redirect_and_ends_after_steering() -> None:
    low, high = move(at=6.0).window()
    assert low == pytest.approx(6.04)
    assert high == pytest.approx(6.32)


@pytest.mark.parametrize(("flows", "moves"), [([], [move()]), ([flow()], []), ([flow()], [PlotMove("m", [])])])
def test_nothing_to_draw_is_refused(flows: list[PlotFlow], moves: list[PlotMove]) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.draw("t", flows, moves)


def test_long_names_have_the_room_that_they_need() -> None:
    def edge(name: str) -> float:
        root = ElementTree.fromstring(plot.draw("t", [flow(name)], [move()]))
        [at, *_] = [float(node.get("x", "0")) for node in root.iter(f"{SVG}text") if node.text == name]
        return at

    assert edge("vm1 to vm2, IPv4") == 128
    long = "camera to somewhere, IPv4"
    assert edge(long) > 6.6 * len(long)
