"""The documentation is true where that can be checked: what it generates, cites, names and lists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CITED = re.compile(r"\b(test_\w+\.py)(?:::(test_\w+))?")


def test_generated_documentation_is_current() -> None:
    command = [sys.executable, str(ROOT / "tools" / "render_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_that_documents_name_are_there() -> None:
    named = {name for page in (ROOT / "docs").rglob("*.md") for name in re.findall(r"\btest_\w+", page.read_text())}
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {path.stem for path in files}
    there.update(name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    assert len(named) > 20
    assert named <= there, named - there


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


def test_every_kind_of_event_is_described() -> None:
    page = (ROOT / "docs" / "events.md").read_text()
    source = "".join(path.read_text() for path in sorted((ROOT / "ryu_vmm").glob("*.py")))
    told = set(re.findall(r"""\breport\(\s*"([a-z]+\.[a-z-]+)""", source))
    assert len(told) > 20
    assert [kind for kind in sorted(told) if f"`{kind}`" not in page] == []
    described = set(re.findall(r"`([a-z]+\.[a-z-]+)`", page)) - {"evacuation.md"}
    made = {f"{family}.{what}" for family in ("nve", "evacuation") for what in re.findall(r'"([a-z-]+)"', source)}
    assert described - told - made == set()


def test_every_module_has_its_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    modules = {path.stem for path in (ROOT / "ryu_vmm").glob("*.py")} - {"__init__", "__main__"}
    assert [name for name in sorted(modules) if f"`{name}`" not in page] == []
