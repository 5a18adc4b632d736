"""What the documentation cites as proof is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CITED = re.compile(r"\b(test_\w+\.py)(?:::(test_\w+))?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_cites_exists(page: Path) -> None:
    for file, name in CITED.findall(page.read_text()):
        found = list((ROOT / "tests").glob(f"*/{file}"))
        assert found, f"{page.name} cites {file}"
        there = not name or any(f"def {name}(" in path.read_text() for path in found)
        assert there, f"{page.name} cites {file}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    for tool in set(re.findall(r"\btools/(\w[\w./-]*\w)", page.read_text())):
        assert (ROOT / "tools" / tool).exists(), f"{page.name} names tools/{tool}"
