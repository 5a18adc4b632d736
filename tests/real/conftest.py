"""What the tests with real switches share. They need root, and say so instead of passing without it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Helpers beside the tests, the topologies, and the scenarios of tools/prove are imported by name, whatever directory
# pytest is started from.
ROOT = Path(__file__).parents[2]
for folder in (Path(__file__).parent, ROOT, ROOT / "tools"):
    sys.path.insert(0, str(folder))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests build network namespaces: run them as root, or deselect them with -m 'not real'")
