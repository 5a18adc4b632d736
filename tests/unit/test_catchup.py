"""Deadlines do not pass while what would have met them waits to be taken in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from world import ip

from ryu_vmm import catchup
from ryu_vmm import events as ev
from ryu_vmm.catchup import CatchUp
from ryu_vmm.model import Nve
from ryu_vmm.runtime import Runtime
from ryu_vmm.store import MemoryStore

HELD_UP = 10 * catchup.LATE


class Looks:
    """Whether anything waits, look by look; after these: ``last``. ``count``: how often it was asked."""

    def __init__(self, *found: bool, last: bool = False) -> None:
        self.found, self.last, self.count = list(found), last, 0

    def __call__(self) -> bool:
        self.count += 1
        return self.found.pop(0) if self.found else self.last


def made(looks: Looks) -> CatchUp:
    catch_up = CatchUp(threading.Event())
    catch_up.waits = looks
    return catch_up


def test_who_is_in_time_looks_at_nothing() -> None:
    looks = Looks(last=True)
    made(looks).run(catchup.LATE / 2)
    assert looks.count == 0


def test_what_is_on_its_way_from_hand_to_hand_is_waited_for() -> None:
    """A connection is accepted, and not yet read; a request is read, and not yet carried out."""
    looks = Looks(True, False, True, False, False)
    made(looks).run(HELD_UP)
    assert looks.count == 5


def test_a_flood_holds_time_back_once_and_then_no_more() -> None:
    looks = Looks(last=True)
    catch_up = made(looks)
    catch_up.run(HELD_UP)
    asked = looks.count
    catch_up.run(HELD_UP)
    assert looks.count == asked + 1  # it still waits: time passes at once
    looks.last = False
    catch_up.run(HELD_UP)
    looks.found, looks.count = [True, True, True], 0
    catch_up.run(HELD_UP)
    assert looks.count == 3 + catchup.LOOKS  # the flood is over: time is held back again


def test_who_stops_waits_for_nothing() -> None:
    catch_up = made(Looks(last=True))
    catch_up._stopping.set()
    catch_up.run(HELD_UP)
    assert not catch_up._flooded


@contextmanager
def timers(run: Runtime) -> Iterator[None]:
    thread = threading.Thread(target=run.run_timers, daemon=True)
    thread.start()
    try:
        yield
    finally:
        run.stop()
        thread.join(20)


def test_the_core_hears_what_waited_before_it_hears_that_time_has_passed() -> None:
    run = Runtime(MemoryStore())
    heard: list[ev.Event] = []
    told = threading.Event()
    take = run.event

    def event(event: ev.Event) -> None:
        take(event)
        heard.append(event)
        if isinstance(event, ev.TimePassed):
            told.set()

    def waits() -> bool:
        """What waits is read by somebody else between two looks."""
        if not heard:
            event(ev.NveConnected(1, ()))
            return True
        return False

    run.event = event  # type: ignore[method-assign]
    run.catch_up.waits = waits
    run.handle(ev.NveSubmitted(Nve("n1", 1, ip("192.168.100.1"))))
    run.state.put("clock", ("resync", "n1"), run.now() - HELD_UP)
    with timers(run):
        assert told.wait(20)
    assert [type(one) for one in heard[:2]] == [ev.NveConnected, ev.TimePassed]
