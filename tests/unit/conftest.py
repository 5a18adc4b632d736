"""What unit tests share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Helpers beside the tests are imported by name, whatever directory pytest is started from.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def runtime():
    """An empty runtime on emulated switches; see live.py."""
    from live import LiveRuntime

    return LiveRuntime()
