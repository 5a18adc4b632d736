"""tools/fuzz finds what it is there for: errors, inputs that take too long, and the end of the process."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from decoders import Target

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from fuzzing.__main__ import fuzz, table
from fuzzing.worker import ENOUGH, Fuzzer


def crashing(data: bytes) -> None:
    if len(data) > 2 and data[2] == 0xFF:
        raise KeyError("unforeseen")
    if data[:1] == b"x":
        raise ValueError("documented")


def hanging(data: bytes) -> None:
    while data[:1] == b"h":
        pass


def dying(data: bytes) -> None:
    if data[-1:] == b"d":
        os.kill(os.getpid(), signal.SIGKILL)


def options(tmp_path: Path, inputs: int = 300) -> argparse.Namespace:
    return argparse.Namespace(seed=1, crashes=tmp_path, inputs=inputs)


def test_an_undocumented_error_is_found_and_its_input_made_short(tmp_path: Path) -> None:
    target = Target("crashing", lambda: crashing, (b"x" + bytes(40), bytes(40)), (ValueError,))
    report = Fuzzer(target, random.Random(1), tmp_path, tmp_path / "hand").run(60, 5000)
    assert report.refused > 100 and len(report.crashes) == 1
    (file,) = report.crashes.values()
    data = Path(file).read_bytes()
    assert data[2] == 0xFF and len(data) <= 8
    assert "KeyError: 'unforeseen'" in Path(file).with_suffix(".txt").read_text()


def test_an_input_that_takes_too_long_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzzing.worker.PATIENCE", 0.1)
    monkeypatch.setattr("fuzzing.worker.SHORTER", 3)
    report = fuzz(Target("hanging", lambda: hanging, (b"h", b"i")), options(tmp_path, 40), 30)
    assert [way.split()[0] for way in report.crashes] == ["TooSlow"]


def test_the_end_of_the_process_is_found(tmp_path: Path) -> None:
    report = fuzz(Target("dying", lambda: dying, (b"alive", b"dead")), options(tmp_path), 30)
    ((way, file),) = report.crashes.items()
    assert way == "process ended by signal 9"
    assert Path(file).read_bytes()[-1:] == b"d"
    assert "1" in table({"dying": report}).rows[-1] and ENOUGH > 1
