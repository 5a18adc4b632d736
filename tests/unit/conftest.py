"""A runtime without switches or store: what the layers above the core are tested against."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Helpers beside the tests are imported by name, whatever directory pytest is started from.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def runtime():
    """An empty fake runtime; see rest_fake.py."""
    from rest_fake import FakeRuntime

    return FakeRuntime()
