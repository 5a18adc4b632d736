"""One decoder, in a process of its own: a crash of the interpreter, too, is an answer."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from decoders import Take, Target
from mutations import mutate

#: Seconds of processor time that one input may cost.
PATIENCE = 1.0
#: Bytes that the process may have beyond what it has when it begins.
MEMORY = 512 << 20
#: Inputs after which a target is made anew.
ANEW = 2000
#: Inputs kept because they led somewhere new.
KEPT = 4000
#: Times that a crash's input is tried to be made shorter.
SHORTER = 400
#: Different crashes after which nothing more is to be learned from a decoder.
ENOUGH = 20


class TooSlow(BaseException):
    """An input costs more than it may."""


@dataclass
class Report:
    """What became of a decoder's inputs. ``crashes``: where it happened -> file with the input."""

    tried: int = 0
    refused: int = 0
    ways: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    crashes: dict[str, str] = field(default_factory=dict)


class Fuzzer:
    """Tries inputs on a target.

    Args:
        target: what to try.
        dice: chance.
        crashes: the folder for what crashes.
        at_hand: a file that holds the input in hand, for whoever finds this process dead.
    """

    def __init__(self, target: Target, dice: random.Random, crashes: Path, at_hand: Path) -> None:
        self.target, self.dice, self.crashes = target, dice, crashes
        self.report = Report()
        self.corpus = list(target.seeds)
        self._ways: set[object] = set()
        self._take: Take = target.make()
        at_hand.parent.mkdir(parents=True, exist_ok=True)
        self._at_hand = os.open(at_hand, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)

    def run(self, seconds: float, inputs: int | None) -> Report:
        """Try until the time is over, or so many inputs."""
        until, queue = time.monotonic() + seconds, list(self.target.seeds)
        while time.monotonic() < until and (inputs is None or self.report.tried < inputs):
            if self.report.tried % ANEW == ANEW - 1:
                self._take = self.target.make()
            self.one(queue.pop() if queue else mutate(self.dice, self.corpus))
            if len(self.report.crashes) >= ENOUGH:
                break
        return self.report

    def one(self, data: bytes) -> None:
        """Try one input; keep it if it led somewhere new."""
        os.pwrite(self._at_hand, len(data).to_bytes(4, "big") + data, 0)
        began = time.process_time()
        crash, way = self._outcome(data)
        cost = time.process_time() - began
        report = self.report
        report.tried += 1
        report.slowest = max(report.slowest, cost)
        if crash:
            self._crashed(str(way), data)
        elif way not in self._ways:
            self._ways.add(way)
            report.ways = len(self._ways)
            if len(self.corpus) < KEPT:
                self.corpus.append(data)

    def _outcome(self, data: bytes) -> tuple[bool, object]:
        """Whether it crashed, and which way it went."""
        try:
            with _limited():
                found = self._take(data)
        except self.target.allowed as error:
            self.report.refused += 1
            return False, _way(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever else: that is what is looked for
            return True, _way(error)
        return False, found if isinstance(found, frozenset) else (type(found).__name__, _size(found))

    def _crashed(self, way: str, data: bytes) -> None:
        if way in self.report.crashes:
            return
        self._take = self.target.make()
        for _ in range(SHORTER):
            at = self.dice.randrange(len(data) + 1)
            shorter = data[:at] + data[at + self.dice.choice((1, 4, 16, 256, 4096)) :]
            if shorter != data and self._outcome(shorter) == (True, way):
                data = shorter
        name = self.target.name.replace(" ", "-").replace("(", "").replace(")", "").replace("'", "")
        file = self.crashes / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
        file.write_bytes(data)
        with contextlib.suppress(KeyboardInterrupt), file.with_suffix(".txt").open("w") as told:
            told.write(f"tools/fuzz --only '{self.target.name}' --replay {file}\n\n")
            try:
                with _limited():
                    self._take(data)
            except BaseException:
                traceback.print_exc(file=told)
        self.report.crashes[way] = str(file)


def _size(found: object) -> int:
    """How large a value is, roughly: twice as large is another way."""
    return len(found).bit_length() if isinstance(found, tuple | list | dict | bytes) else 0


def _way(error: BaseException) -> object:
    """Where an error came from: its type and the lines of ours that it passed."""
    lines: list[str] = []
    at: TracebackType | None = error.__traceback__
    while at is not None:
        name = at.tb_frame.f_code.co_filename
        if "ryu_vmm" in name:
            lines.append(f"{Path(name).name}:{at.tb_lineno}")
        at = at.tb_next
    return f"{type(error).__name__} {' '.join(lines[-3:])}"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit() -> None:
    """Set this process's limits."""

    def late(*_: object) -> None:
        raise TooSlow(f"more than {PATIENCE:g} s of processor time")

    signal.signal(signal.SIGPROF, late)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    sys.stdout.flush()
