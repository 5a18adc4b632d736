"""What unit tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Helpers beside the tests are imported by name, whatever directory pytest is started from.
sys.path.insert(0, str(Path(__file__).parent))

# The same examples at every run, so that a run's result is about the code; VMM_RANDOM=1 looks for new ones.
# What an example takes on the wall's clock is about the machine and who else runs on it, so it fails nothing.
_TIMELESS: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, database=None, **_TIMELESS)
settings.register_profile("random", derandomize=False, **_TIMELESS)
settings.load_profile("random" if os.environ.get("VMM_RANDOM") else "same")


@pytest.fixture
def runtime():
    """An empty runtime on emulated switches; see live.py."""
    from live import LiveRuntime

    return LiveRuntime()
