"""Planned moves of tasks lose and double nothing, whatever the order in which switches hear of them, and what fails."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from l3story import Readdressed, TaskStory
from story import PATIENT
from test_packet_paths import FAULTS, LATER, STORY, nve
from town import TIMES

from ryu_vmm.model import Answer, Distribution, Leave, Policy
from ryu_vmm.nva import Settings

_ours = settings(max_examples=30 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))


SILENCE = st.tuples(st.sampled_from(["fall silent", "answer again"]), nve)
FOREVER = Leave(Answer.FORWARD, 86400)


def told(story: list[tuple], times: Settings = PATIENT, kind: type[TaskStory] = TaskStory) -> None:  # type: ignore[type-arg]
    """A story, from its beginning to its end."""
    s = kind(Policy(Distribution.PUSH, idle_timeout=1000, leave=FOREVER), times)
    for action in story:
        s.do(action)
        s.talk()
    s.end()


def test_an_uneventful_story() -> None:
    told([])


@_ours
@given(st.lists(STORY, max_size=40))
def test_planned_moves_of_tasks_lose_and_double_nothing(story: list[tuple]) -> None:  # type: ignore[type-arg]
    told(story)


@_ours
@given(st.lists(FAULTS, max_size=40))
def test_faults_cost_no_packet_but_what_they_drop(story: list[tuple]) -> None:  # type: ignore[type-arg]
    told(story)


@_ours
@given(st.lists(st.one_of(LATER, LATER, SILENCE), max_size=40))
def test_deadlines_cost_no_packet(story: list[tuple]) -> None:  # type: ignore[type-arg]
    told(story, Settings())


@_ours
@given(st.lists(STORY, max_size=40))
def test_packets_for_addresses_that_were_left_are_forwarded(story: list[tuple]) -> None:  # type: ignore[type-arg]
    told(story, kind=Readdressed)


@_ours
@given(st.lists(FAULTS, max_size=40))
def test_faults_cost_no_packet_for_addresses_that_were_left(story: list[tuple]) -> None:  # type: ignore[type-arg]
    told(story, kind=Readdressed)


@pytest.mark.parametrize(
    "story",
    [
        # Kept by one move, changed by the next: the address is in the subnet of neither end
        [("evacuate", "n2", 2), ("go far", 3, "n3", "activate")],
        # Forwarded to where it is being redirected
        [("go on", 4, "n3", "data"), ("go far", 4, "n4", "rarp")],
        [("go far", 4, "n4", "rarp"), ("go on", 4, "n3", "data"), ("go far", 4, "n4", "rarp")],
        # One address, left at one NVE, in two networks
        [("go far", 1, "n1", "garp"), ("go far", 1, "n3", "garp"), ("go far", 4, "n2", "garp")],
        # Back to where it left an address
        [("go far", 4, "n3", "rarp"), ("wait", 2.0), ("go far", 4, "n1", "garp"), ("wait", 2.0)],
        [
            ("go far", 1, "n3", "na"),
            ("go far", 1, "n4", "na"),
            ("late", "n2"),
            ("go far", 1, "n2", "na"),
            ("wait", 2.0),
        ],
    ],
)
def test_addresses_that_were_left_are_forwarded_through_moves_that_follow(story: list[tuple]) -> None:  # type: ignore[type-arg]
    told(story, kind=Readdressed)
