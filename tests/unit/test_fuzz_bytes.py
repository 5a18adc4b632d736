"""Bytes from switches, clients and files: only documented errors come out. tools/fuzz goes on where this test ends."""

from __future__ import annotations

import contextlib
import logging
import random

import pytest
from decoders import Target, targets
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mutations import mutate

TARGETS = targets()


@pytest.fixture(autouse=True)
def _silence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def given_to(target: Target, data: bytes, take) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(*target.allowed):
        take(data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_meant_is_taken(name: str) -> None:
    """Of what a decoder is made for, it takes at least one; a target that refuses everything would try nothing."""
    target = TARGETS[name]
    take, taken = target.make(), 0
    for seed in target.seeds:
        with contextlib.suppress(*target.allowed):
            take(seed)
            taken += 1
    assert taken


@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors_come_out(name: str) -> None:
    target = TARGETS[name]
    take = target.make()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=300), st.integers(0, 1 << 32)))
    @example(b"")
    @example(b"[" * 50000)
    @example(b"a: " * 5000)
    def tried(given: bytes | int) -> None:
        """Noise, or something that was right before it was changed."""
        data = given if isinstance(given, bytes) else mutate(random.Random(given), target.seeds)
        given_to(target, data, take)

    tried()
