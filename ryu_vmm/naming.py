"""The publisher of names: has name servers take what the core wants names to stand for, and says what came of it.

It runs beside the core in ryu-manager: :meth:`Publisher.publish` only notes what is wanted, threads (eventlet's there)
send it, and what came of it goes back to the core as an event. Updates of one zone that are wanted at the same time
travel together; where one name spoils it for the others, they are tried apart. Servers are tried in turn, those that
have not answered lately last. What fails is tried again after growing pauses, and at once when a server is heard again.

The newest value wins: a name has one update on its way at a time, made from what is wanted when it is sent. Still, a
request that nobody answered may be carried out late, up to FUDGE seconds after it was signed. Where it carried another
value than the one that was confirmed after it, the newer one is therefore said again until that time is over.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .dnsupdate import FUDGE, Rejected, Server, Unanswered, zone_of
from .events import NameFailed, NamePublished

__all__ = ["Publisher", "Sender"]

LOG = logging.getLogger("ryu_vmm.names")
Addresses = tuple[bytes, ...]

#: Updates of a zone that may be on their way at once: who finds them all waiting for an answer waits as well.
LANES = 8
#: So many names, and so many addresses, travel in one update: it has to fit into 65,535 bytes.
NAMES, ADDRESSES = 100, 1000
#: Seconds until the first retry, which double up to the last.
FIRST, LAST = 0.5, 15.0
#: Seconds for which a server that has not answered is tried after the others.
SUSPECT = 30.0
#: Seconds until a value is said again that an older one may overtake; four times as many from one to the next.
AGAIN = 1.0


class Sender(Protocol):
    """What carries an update out; see dnsupdate.Updater."""

    def send(self, server: Server, zone: str, names: Mapping[str, Sequence[bytes]]) -> None: ...


@dataclass(slots=True)
class _Name:
    """A name and what is under way for it. Times are of the monotonic clock; ``due`` is inf where nothing is to do.

    ``queued``: it waits for an update to travel in; ``busy``: that is on its way, or what came of it is yet to be told.
    ``silent``: it failed because no server answered. ``limbo``: values in requests without an answer, and until when
    these may be carried out; None: an unknown value.
    """

    name: str
    zone: str | None
    wanted: Addresses
    due: float = math.inf
    queued: bool = False
    busy: bool = False
    fails: int = 0
    silent: bool = False
    repeats: int = 0
    limbo: dict[Addresses | None, float] = field(default_factory=dict)

    def doubtful(self, value: Addresses, now: float) -> float:
        """Until when another value than this may still be carried out, 0 if none may."""
        self.limbo = {other: until for other, until in self.limbo.items() if until > now}
        return max((until for other, until in self.limbo.items() if other != value), default=0.0)


class Publisher:
    """Publishes names.

    Args:
        sender: sends updates.
        servers: tried in this order.
        zones: names in none of them are refused; lower case, without final dot.
    """

    def __init__(self, sender: Sender | None, servers: Sequence[Server], zones: Sequence[str]) -> None:
        self._sender, self._servers, self._zones = sender, tuple(servers), tuple(zones)
        self._names: dict[str, _Name] = {}
        self._agenda: list[tuple[float, int, _Name]] = []  # a heap; may hold times that are no longer an entry's
        self._numbers = itertools.count()
        self._queues: dict[str, deque[_Name]] = defaultdict(deque)  # by zone
        self._running: Counter[str] = Counter()
        self._silent: dict[str, set[str]] = defaultdict(set)  # names by zone
        self._suspects: dict[Server, float] = {}
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._stopping = False
        self._started = False
        #: Takes the events; set before :meth:`run`.
        self.tell: Callable[[NamePublished | NameFailed], None] = lambda event: None

    def publish(self, name: str, addresses: Addresses) -> None:
        """Have a name stand for these addresses from now on; none: remove its address records. Never waits."""
        with self._lock:
            now = time.monotonic()
            entry = self._names.get(name)
            if entry is None:
                entry = self._names[name] = _Name(name, zone_of(name, self._zones), addresses)
                if not self._started:  # what a process before this one may have sent, nobody knows
                    entry.limbo[None] = now + FUDGE
            entry.wanted, entry.fails, entry.repeats = addresses, 0, 0
            if not (entry.busy or entry.queued):
                self._schedule(entry, now)

    def stop(self) -> None:
        """End :meth:`run`; what has not been confirmed is published again after the next start."""
        with self._lock:
            self._stopping = True
            self._news.notify()

    # --- choosing -----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Send what is due, until :meth:`stop`."""
        self._started = True
        while True:
            with self._lock:
                refused, batches = self._choose(time.monotonic())
                if not (refused or batches or self._stopping):
                    due = self._agenda[0][0] if self._agenda else math.inf
                    self._news.wait(None if due == math.inf else max(0.0, due - time.monotonic()))
                if self._stopping:
                    return
            for entry in refused:
                where = f"zones are {', '.join(self._zones)}" if self._zones else "dns_servers is not set"
                self._say(NameFailed(entry.name, entry.wanted, f"not ours to publish: {where}", None))
            for zone, entries in batches:
                threading.Thread(target=self._work, args=(zone, entries), daemon=True).start()

    def _schedule(self, entry: _Name, due: float) -> None:
        """Have a name's value sent at some time. Under the lock."""
        entry.due = due
        heapq.heappush(self._agenda, (due, next(self._numbers), entry))
        self._news.notify()

    def _choose(self, now: float) -> tuple[list[_Name], list[tuple[str, list[_Name]]]]:
        """Names that no zone has, and updates to begin with. Under the lock."""
        refused = []
        while self._agenda and self._agenda[0][0] <= now:
            entry = heapq.heappop(self._agenda)[2]
            if entry.due > now or entry.busy or entry.queued or self._names.get(entry.name) is not entry:
                continue
            if entry.zone is None or not self._servers:
                del self._names[entry.name]
                refused.append(entry)
            else:
                entry.queued = True
                self._queues[entry.zone].append(entry)
        batches = []
        for zone, queue in self._queues.items():
            while queue and self._running[zone] < LANES:  # the end of one of them wakes us
                batches.append((zone, self._batch(queue)))
                self._running[zone] += 1
        return refused, batches

    def _batch(self, queue: deque[_Name]) -> list[_Name]:
        batch: list[_Name] = []
        size = 0
        while queue and len(batch) < NAMES and (not batch or size + len(queue[0].wanted) <= ADDRESSES):
            entry = queue.popleft()
            entry.queued, entry.busy = False, True
            size += len(entry.wanted)
            batch.append(entry)
        return batch

    # --- sending ------------------------------------------------------------------------------------------------------
    def _work(self, zone: str, entries: list[_Name]) -> None:
        try:
            self._attempt(zone, entries, self._order())
        except Exception:
            LOG.exception("names could not be published")
            rest = [entry for entry in entries if entry.busy]
            self._failed(zone, rest, {e.name: e.wanted for e in rest}, "an error of ours; the log has it", False)
        finally:
            with self._lock:
                self._running[zone] -= 1
                self._news.notify()

    def _order(self) -> list[Server]:
        now = time.monotonic()
        return sorted(self._servers, key=lambda server: self._suspects.get(server, 0.0) > now)

    def _attempt(self, zone: str, entries: list[_Name], servers: Iterable[Server]) -> None:
        """Try servers in turn, and entries apart where one of them may be why all were refused."""
        assert self._sender is not None
        answers: list[str] = []
        heard: list[Server] = []
        apart = False
        values: dict[str, Addresses] = {}
        for server in servers:
            with self._lock:
                values = {entry.name: entry.wanted for entry in entries}
            try:
                self._sender.send(server, zone, values)
            except Unanswered as e:
                answers.append(f"{server}: {e.message}")
                self._unanswered(server, entries, values, e.sent)
            except Rejected as e:
                answers.append(f"{server}: {e.message}")
                heard.append(server)
                apart = apart or e.by_name
            else:
                self._suspects.pop(server, None)
                self._confirmed(zone, entries, values)
                return
        if apart and len(entries) > 1:
            half = len(entries) // 2
            for part in (entries[:half], entries[half:]):
                self._attempt(zone, part, heard)
            return
        self._failed(zone, entries, values, "; ".join(answers), not heard)

    def _unanswered(self, server: Server, entries: list[_Name], values: dict[str, Addresses], sent: bool) -> None:
        with self._lock:
            now = time.monotonic()
            self._suspects[server] = now + SUSPECT
            if sent:
                for entry in entries:
                    entry.limbo[values[entry.name]] = now + FUDGE

    # --- what came of it ----------------------------------------------------------------------------------------------
    # A name is busy until that has been told: nothing about a newer value can be told before.
    def _confirmed(self, zone: str, entries: list[_Name], values: dict[str, Addresses]) -> None:
        for entry in entries:
            value = values[entry.name]
            self._say(NamePublished(entry.name, value))
            with self._lock:
                now = time.monotonic()
                entry.busy, entry.fails, entry.due = False, 0, math.inf
                doubt = entry.doubtful(value, now)
                if entry.wanted != value:
                    self._schedule(entry, now)
                elif doubt:
                    self._schedule(entry, min(now + AGAIN * 4**entry.repeats, doubt + AGAIN))
                    entry.repeats += 1
                elif entry.limbo:  # the same value may be carried out late, and then another one be wanted
                    self._schedule(entry, max(entry.limbo.values()))
                else:
                    del self._names[entry.name]
        with self._lock:
            now = time.monotonic()
            for name in self._silent.pop(zone, ()):  # the servers are there again
                waiting = self._names.get(name)
                if waiting is not None and waiting.silent and not (waiting.busy or waiting.queued):
                    waiting.silent = False
                    self._schedule(waiting, now)

    def _failed(
        self, zone: str, entries: list[_Name], values: dict[str, Addresses], why: str, silent: bool
    ) -> None:
        blur = random.uniform(0.9, 1.1)
        for entry in entries:
            value = values[entry.name]
            pause = min(LAST, FIRST * 2 ** min(entry.fails, 16)) * blur
            if entry.wanted == value:
                self._say(NameFailed(entry.name, value, why, round(pause, 3)))
            with self._lock:
                now = time.monotonic()
                entry.busy, entry.silent = False, silent
                if entry.wanted != value:
                    pause = 0.0
                else:
                    entry.fails += 1
                    if silent:
                        self._silent[zone].add(entry.name)
                self._schedule(entry, now + pause)

    def _say(self, event: NamePublished | NameFailed) -> None:
        try:
            if not self._stopping:
                self.tell(event)
        except Exception:
            LOG.exception("%s of %s could not be told", type(event).__name__, event.name)
        time.sleep(0)  # an update of many names is many steps of the core: others have their turn in between
