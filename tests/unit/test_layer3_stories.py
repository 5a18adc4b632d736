"""Planned moves of tasks lose and double nothing, whatever the order in which switches hear of them, and what fails."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from l3story import TaskStory
from story import PATIENT
from test_packet_paths import FAULTS, LATER, STORY
from town import TIMES

from ryu_vmm.model import Distribution, Policy
from ryu_vmm.nva import Settings

_ours = settings(max_examples=30 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))


def told(story: list[tuple], times: Settings = PATIENT) -> None:  # type: ignore[type-arg]
    """A story, from its beginning to its end."""
    s = TaskStory(Policy(Distribution.PUSH, idle_timeout=1000), times)
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
@given(st.lists(LATER, max_size=40))
def test_deadlines_cost_no_packet(story: list[tuple]) -> None:  # type: ignore[type-arg]
    told(story, Settings())
