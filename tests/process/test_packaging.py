"""The wheel: what an ordinary `pip install` puts in place, and takes away again. No network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
STATE = "import sys, json; print(json.dumps(['ryu_vmm.compat' in sys.modules, sys.flags.no_site]))"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """pip of this environment, acting on an empty one."""
    target = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", target)

    def call(*args: str | Path) -> str:
        return run(sys.executable, "-m", "pip", "--python", target / "bin/python", *args)

    call.python = target / "bin/python"  # type: ignore[attr-defined]
    return call


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged, so that building leaves nothing in the working tree."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "ryu_vmm", copy / "ryu_vmm", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source)
    (path,) = folder.iterdir()
    return path


def test_the_wheel_holds_every_module_and_the_hook(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        hook = archive.read("ryu_vmm_compat.pth")
    assert hook == b"import ryu_vmm.compat; ryu_vmm.compat.install()\n"
    assert packed == {"ryu_vmm_compat.pth"} | {
        str(path.relative_to(source)) for path in (source / "ryu_vmm").rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def editable_wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install -e .` builds (PEP 660) and installs."""
    folder = tmp_path_factory.mktemp("editable")
    code = f"import setuptools.build_meta as backend; backend.build_editable({str(folder)!r})"
    run(sys.executable, "-c", code, cwd=source)
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("kind", ["wheel", "editable_wheel"])
def test_the_hook_is_there_after_installing_and_gone_after_removing(
    pip: Callable[..., str], kind: str, request: pytest.FixtureRequest
) -> None:
    python: Path = pip.python  # type: ignore[attr-defined]
    assert json.loads(run(python, "-c", STATE)) == [False, 0]
    pip("install", "-q", "--no-deps", "--no-index", request.getfixturevalue(kind))
    assert json.loads(run(python, "-c", STATE)) == [True, 0]
    assert (python.parent / "vmm").exists()
    pip("uninstall", "-q", "-y", "ryu-vmm")
    assert json.loads(run(python, "-c", STATE)) == [False, 0]
    assert not list(python.parents[1].rglob("*ryu_vmm*"))
