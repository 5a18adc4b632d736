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

import logging
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .dnsupdate import FUDGE, Rejected, Server, Unanswered, zone_of
from .errors import VmmError
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

    ``limbo``: values in requests without an answer, and until when these may be carried out; None: an unknown value.
    """

    name: str
    zone: str | None
    wanted: Addresses
    due: float
    busy: bool = False
    fails: int = 0
    silent: bool = False  # it failed because no server answered
    repeats: int = 0
    limbo: dict[Addresses | None, float] = field(default_factory=dict)

    def doubtful(self, value: Addresses | None, now: float) -> float:
        """Until when another value than this (None: any) may still be carried out, 0 if none may."""
        self.limbo = {other: until for other, until in self.limbo.items() if until > now}
        return max((until for other, until in self.limbo.items() if value is None or other != value), default=0.0)


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
        self._running: Counter[str] = Counter()
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
                entry = self._names[name] = _Name(name, zone_of(name, self._zones), addresses, now)
                if not self._started:  # what a process before this one may have sent, nobody knows
                    entry.limbo[None] = now + FUDGE
            entry.wanted, entry.due, entry.fails, entry.repeats = addresses, now, 0, 0
            self._news.notify()

    # --- choosing -----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Send what is due, until :meth:`stop`."""
        self._started = True
        while True:
            with self._lock:
                refused, batches, due = self._choose(time.monotonic())
                if not (refused or batches or self._stopping):
                    self._news.wait(None if due == math.inf else max(0.0, due - time.monotonic()))
                if self._stopping:
                    return
            for entry in refused:
                where = f"zones are {', '.join(self._zones)}" if self._zones else "dns_servers is not set"
                self._say(NameFailed(entry.name, entry.wanted, f"not ours to publish: {where}", None))
            for zone, entries in batches:
                threading.Thread(target=self._work, args=(zone, entries), daemon=True).start()

    def stop(self) -> None:
        """End :meth:`run`; what has not been confirmed is published again after the next start."""
        with self._lock:
            self._stopping = True
            self._news.notify()

    def _choose(self, now: float) -> tuple[list[_Name], list[tuple[str, list[_Name]]], float]:
        """Names that no zone has, updates to begin with, and when the next one is due. Under the lock."""
        refused, ready, due = [], list[_Name](), math.inf
        done = []
        for entry in self._names.values():
            if entry.busy:
                continue
            if entry.due == math.inf:
                if not entry.doubtful(None, now):
                    done.append(entry.name)
            elif entry.due > now:
                due = min(due, entry.due)
            elif entry.zone is None or not self._servers:
                refused.append(entry)
            else:
                ready.append(entry)
        for name in [*done, *(entry.name for entry in refused)]:
            del self._names[name]
        batches: list[tuple[str, list[_Name]]] = []
        open_: dict[str, tuple[list[_Name], int]] = {}
        for entry in ready:
            zone = str(entry.zone)
            batch, size = open_.get(zone, ([], ADDRESSES))
            if not batch or len(batch) >= NAMES or size + len(entry.wanted) > ADDRESSES:
                if self._running[zone] >= LANES:
                    continue  # the end of one of them wakes us
                self._running[zone] += 1
                batch, size = [], 0
                batches.append((zone, batch))
            batch.append(entry)
            entry.busy = True
            open_[zone] = batch, size + len(entry.wanted)
        return refused, batches, due

    # --- sending ------------------------------------------------------------------------------------------------------
    def _work(self, zone: str, entries: list[_Name]) -> None:
        try:
            self._attempt(zone, entries, self._order())
        except Exception:
            LOG.exception("names could not be published")
            self._failed(entries, {e.name: e.wanted for e in entries}, "an error of ours; the log has it", False)
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
            except VmmError as e:
                answers.append(e.message)
            else:
                self._suspects.pop(server, None)
                self._confirmed(zone, entries, values)
                return
        if apart and len(entries) > 1:
            half = len(entries) // 2
            for part in (entries[:half], entries[half:]):
                self._attempt(zone, part, heard)
            return
        self._failed(entries, values, "; ".join(answers), not heard)

    def _unanswered(self, server: Server, entries: list[_Name], values: dict[str, Addresses], sent: bool) -> None:
        with self._lock:
            now = time.monotonic()
            self._suspects[server] = now + SUSPECT
            if sent:
                for entry in entries:
                    entry.limbo[values[entry.name]] = now + FUDGE

    # --- what came of it ----------------------------------------------------------------------------------------------
    def _confirmed(self, zone: str, entries: list[_Name], values: dict[str, Addresses]) -> None:
        with self._lock:
            now = time.monotonic()
            for entry in entries:
                value = values[entry.name]
                entry.busy, entry.fails = False, 0
                doubt = entry.doubtful(value, now)
                if entry.wanted != value:
                    entry.due = now
                elif doubt:
                    entry.due = min(now + AGAIN * 4**entry.repeats, doubt + AGAIN)
                    entry.repeats += 1
                else:
                    entry.due = math.inf
            for entry in self._names.values():
                if entry.silent and entry.fails and entry.zone == zone:  # the servers are there again
                    entry.due = min(entry.due, now)
            self._news.notify()
        for name, value in values.items():
            self._say(NamePublished(name, value))

    def _failed(self, entries: list[_Name], values: dict[str, Addresses], why: str, silent: bool) -> None:
        told = []
        with self._lock:
            now = time.monotonic()
            blur = random.uniform(0.9, 1.1)
            for entry in entries:
                entry.busy = False
                if entry.wanted == values[entry.name]:
                    pause = min(LAST, FIRST * 2 ** min(entry.fails, 16)) * blur
                    entry.fails, entry.due, entry.silent = entry.fails + 1, now + pause, silent
                    told.append(NameFailed(entry.name, entry.wanted, why, round(pause, 3)))
                else:
                    entry.due = now
            self._news.notify()
        for event in told:
            self._say(event)

    def _say(self, event: NamePublished | NameFailed) -> None:
        try:
            self.tell(event)
        except Exception:
            LOG.exception("%s of %s could not be told", type(event).__name__, event.name)
