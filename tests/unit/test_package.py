"""What `import ryu_vmm` gives and costs, and the import hook of ryu_vmm.compat on modules of our own."""

from __future__ import annotations

import importlib
import importlib.machinery
import inspect
import os
import subprocess
import sys
import types
from typing import TYPE_CHECKING

import pytest

import ryu_vmm
from ryu_vmm import compat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def modules_after(code: str) -> set[str]:
    """Modules a bare interpreter, without site-packages' start-up hooks, has loaded after `code`."""
    root = os.path.dirname(os.path.dirname(ryu_vmm.__file__))
    code = f"import sys; sys.path.insert(0, {root!r}); {code}; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_and_the_hook_load_nothing() -> None:
    before = modules_after("pass")
    after = modules_after("import ryu_vmm, ryu_vmm.compat; ryu_vmm.compat.install()")
    assert after - before == {"ryu_vmm", "ryu_vmm.compat", "__future__"}


def test_the_application_is_loaded_on_demand_and_says_it_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("ryu_vmm.app")
    exec("class VmmApp: pass", stand_in.__dict__)
    monkeypatch.setitem(sys.modules, "ryu_vmm.app", stand_in)
    monkeypatch.delitem(ryu_vmm.__dict__, "VmmApp", raising=False)
    # how Ryu's load_app looks for it
    found = inspect.getmembers(ryu_vmm, lambda m: inspect.isclass(m) and m.__module__ == "ryu_vmm")
    assert found == [("VmmApp", stand_in.VmmApp)]
    assert ryu_vmm.__dict__.pop("VmmApp") is stand_in.VmmApp  # and not looked up twice


def test_a_broken_application_is_an_import_error_not_an_absent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise AttributeError("a mistake at import time")

    monkeypatch.setitem(sys.modules, "ryu_vmm.app", Broken("ryu_vmm.app"))
    monkeypatch.delitem(ryu_vmm.__dict__, "VmmApp", raising=False)
    with pytest.raises(ImportError):
        _ = ryu_vmm.VmmApp


def test_names() -> None:
    assert set(ryu_vmm.__all__) <= set(dir(ryu_vmm))
    assert not hasattr(ryu_vmm, "no_such_name")
    with pytest.raises(AttributeError, match="module 'ryu_vmm' has no attribute 'no_such_name'"):
        _ = ryu_vmm.no_such_name


# ------------------------------------------------------------------------------------------ the hook


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A module `mended_sample`, a mend for it, and the list of what happened."""
    happened: list[str] = []

    def mend(module: types.ModuleType, execute: compat.Execute) -> None:
        happened.append(f"before {hasattr(module, 'VALUE')}")
        execute(module)
        happened.append(f"after {hasattr(module, 'VALUE')}")

    (tmp_path / "mended_sample.py").write_text("VALUE = 1\n")
    (tmp_path / "other_sample.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(compat.MENDS, "mended_sample", mend)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    compat.install()
    yield happened
    for name in ("mended_sample", "other_sample"):
        sys.modules.pop(name, None)


def test_a_mend_is_applied_around_execution(hooked: list[str]) -> None:
    module = importlib.import_module("mended_sample")
    assert hooked == ["before False", "after True"]
    assert isinstance(module.__loader__, importlib.machinery.SourceFileLoader)
    assert "exec_module" not in vars(module.__loader__)  # the loader is as it was
    importlib.import_module("mended_sample")
    assert hooked == ["before False", "after True"]
    importlib.reload(module)
    assert hooked == ["before False", "after True", "before True", "after True"]


def test_other_modules_are_left_alone(hooked: list[str]) -> None:
    importlib.import_module("other_sample")
    assert hooked == []


def test_installing_again_changes_nothing(hooked: list[str]) -> None:
    before = list(sys.meta_path)
    compat.install()
    assert sys.meta_path == before
    importlib.import_module("mended_sample")
    assert hooked == ["before False", "after True"]


def test_a_failing_module_fails_as_it_would(hooked: list[str], tmp_path: Path) -> None:
    (tmp_path / "mended_sample.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("mended_sample")
    assert hooked == ["before False"]
    assert "mended_sample" not in sys.modules


def test_an_absent_module_is_absent(hooked: list[str], tmp_path: Path) -> None:
    (tmp_path / "mended_sample.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="No module named 'mended_sample'"):
        importlib.import_module("mended_sample")
    assert hooked == []
