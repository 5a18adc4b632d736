"""The NVA with its surroundings: clock, store, switches, event log.

Everything that happens goes through :meth:`Runtime.handle`: the core decides, the records are committed, and only then
is anything done. Nothing here imports Ryu; under ryu-manager the locks and waits below are eventlet's, since Ryu
patches the threading module.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from . import events as ev
from .catchup import CatchUp
from .effects import (
    Answer,
    Disconnect,
    Effect,
    Failed,
    Outcome,
    Program,
    Publish,
    ReadFlows,
    ReadMeters,
    ReadPorts,
    Record,
    Report,
    SendPacket,
)
from .errors import Conflict, DecodeError, NoAnswer, ShuttingDown, StoreUnavailable
from .eventlog import EventLog
from .failing import Failures
from .flows import FlowStats, Output
from .nva import Nva, Settings
from .seldom import Seldom
from .state import State
from .tables import COOKIE_WHY_MASK, Drop, Why, cookie, name_of, why_of
from .telling import Telling
from .wire.openflow import PacketIn, packet_out_prefix

LOG = logging.getLogger("ryu_vmm")
#: Seconds after which facts that were committed without waiting for the disk are brought there.
SYNC_AFTER = 0.25
#: Seconds until a store that failed is tried again.
RETRY_AFTER = 0.1
#: So many facts may wait for the store before further packets are dropped; other facts always wait.
PACKETS_WAITING = 10_000
#: Answers kept for each switch; more begin anew.
ANSWERS_KEPT = 4096
_QUESTION = cookie(Why.RESOLVE)
_LIFE = cookie(Why.LIFE) >> 40
_ANSWERED = frozenset(cookie(why) >> 40 for why in (Why.ANSWER, Why.ADVERTISE))
_CAUSES = {int(cause): name_of(cause) for cause in Drop}


class Store(Protocol):
    """Where records are kept; see store.py."""

    def load(self) -> Iterable[tuple[str, Any, Any]]: ...
    def commit(self, records: Iterable[Record], durable: bool = True) -> None: ...
    def sync(self) -> None: ...
    def check(self) -> str: ...
    def close(self) -> None: ...


class Runtime:
    """Owns the core and carries out what it asks for.

    Args:
        store: where records are kept.
        settings: times and limits of the core.
        publish: carries out Publish effects, without waiting; see naming.Publisher.

    Attributes:
        execute: carries out Program, SendPacket and ReadFlows effects; set it to southbound.Switchboard.execute.
        catch_up: says when time may pass after the process was held up; give it ``waits``.

    Raises:
        StoreUnavailable: the store cannot be read.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings | None = None,
        publish: Callable[[str, tuple[bytes, ...]], None] | None = None,
    ) -> None:
        self._store = store
        self._publish = publish or (lambda name, addresses: None)
        self.execute: Callable[[Effect], None] = lambda effect: None
        self._epoch = time.time() - time.monotonic()
        self.nva = Nva(settings)
        self.log = EventLog()
        self._telling = Telling(self.log, self.nva.settings.report_interval)
        self.started = self.now()
        self.failures = Failures(self._count)
        self._timer = threading.Event()
        self._waiting: deque[ev.Event] = deque()  # facts that are yet to be taken in, in order
        self._taking = False
        self._again_at = 0.0  # no fact is taken in before that, by the monotonic clock
        self._timers_at = 0.0  # nor are the core's timers run
        self._answers: dict[str, list[Any]] = {}
        self._asked = 0
        self._drops: dict[str, dict[str, int]] = {}
        self._given: dict[int, dict[tuple[int, bytes], bytes]] = {}
        self._answers_version = -1
        self._stopping = threading.Event()
        self.catch_up = CatchUp(self._stopping)
        self._sync_due = 0.0
        #: Packet-ins dropped unseen since too many waited, by NVE and port.
        self.shed_packets: Counter[tuple[str, str]] = Counter()
        #: What of the inventory file could not be taken at start: a line of text for each entry.
        self.refused: list[str] = []
        self._sheddings = Seldom(every=10.0)
        self._troubles = Seldom(every=10.0)
        restored = self.nva.restore(store.load(), self.now())
        store.commit(restored.records)
        for effect in restored.effects:
            self._try(effect)

    @property
    def state(self) -> State:
        """The core's state: read only."""
        return self.nva.state

    def now(self) -> float:
        """Seconds since the Unix epoch at start, counted on by a clock that never goes back."""
        return self._epoch + time.monotonic()

    @property
    def stopping(self) -> bool:
        """Whether the store is closed, or about to be: requests are refused."""
        return self._stopping.is_set()

    # --- events in ----------------------------------------------------------------------------------------------------
    def handle(self, event: ev.Event) -> Any:
        """Take in a request and return its reply.

        Raises:
            ShuttingDown: after :meth:`stop`.
            VmmError: it is refused, or its records could not be committed; nothing has changed.
        """
        self.require()
        return self._run(self.nva.handle(event, self.now()))

    def handle_all(self, requests: Sequence[ev.Request]) -> list[Any]:
        """Take in several requests as one, all or nothing; see Nva.handle_all."""
        self.require()
        replies: list[Any] = self._run(self.nva.handle_all(requests, self.now()))
        return replies

    def require(self) -> None:
        """Raise ShuttingDown after :meth:`stop`."""
        if self.stopping:
            raise ShuttingDown

    def event(self, event: ev.Event) -> None:
        """Take in a fact from a switch or the clock: it cannot be refused, so a store that fails is tried again.

        Facts are taken in in the order in which they came: one that has to wait makes all later ones wait. After
        :meth:`stop` there is nobody to take them in: switches tell the next NVA what is so.
        """
        if self.stopping:
            return
        if isinstance(event, ev.PacketSeen) and len(self._waiting) >= PACKETS_WAITING:
            self._count("drop.store-unavailable")
        elif not isinstance(event, ev.TimePassed) or not self._waiting:  # time comes again by itself
            self._waiting.append(event)
        if self._taking or time.monotonic() < self._again_at:
            return
        self._taking = True
        try:
            while self._waiting and self._take_in(self._waiting[0]):
                self._waiting.popleft()
        finally:
            self._taking = False

    def _take_in(self, event: ev.Event) -> bool:
        """Take in a fact; False if it must be tried again."""
        try:
            # Unless the core says so, nobody was promised anything: that it survives this process is enough for now,
            # and waiting for the disk loses packets. A power cut in the next moment brings back an old location; the
            # VM's next packet mends it.
            self._run(self.nva.handle(event, self.now()), durable=False)
        except StoreUnavailable as error:
            times = self._troubles.due("commit", time.monotonic())
            if times:
                LOG.error("%s; will try again%s", error.message, f" ({times} times so far)" if times > 1 else "")
            self._again_at = time.monotonic() + RETRY_AFTER
            self._timer.set()
            return False
        except Exception as error:
            # Undone whole by the core. What comes after it, and time, must go on.
            self._lost(event, error)
            if isinstance(event, ev.TimePassed):
                self._timers_at = time.monotonic() + 1.0
        return True

    def _lost(self, event: ev.Event, error: Exception) -> None:
        """A fact could not be taken in: it is told, and its switch has to say again what is so."""
        kind, dpid = type(event).__name__, getattr(event, "dpid", None)
        self.failures.note(kind, error)
        about = getattr(event, "name", None) if dpid is None else f"{dpid:016x}"
        told = {"what": kind, "about": about, "error": repr(error)[:200]}
        nve = None if dpid is None else self.state.by_dpid.get(dpid)
        self._telling.happened("nva.failed", {"nve": nve, **told}, self.now())
        whom = self.failures.to_ask(event)
        if whom is not None:
            self._ask_again(whom)

    def _ask_again(self, whom: int | str) -> None:
        """Have a switch connect anew, so that all it has is read; or a name published again."""
        if isinstance(whom, int):
            self._try(Disconnect(whom, "lost"))
        elif whom in self.state.names:
            self._try(Publish(whom, self.state.names[whom].wanted))

    def admits(self, dpid: int, names: tuple[str, ...] | None) -> bool:
        """Whether a connection may have that datapath id; ``names``: in its certificate, None: it has none."""
        return self.nva.switches.admits(dpid, names)

    def shed(self, dpid: int, packets: dict[int | None, int]) -> None:
        """Packet-ins that were dropped unseen, by port number (None: they were about moves and probes)."""
        name = self.state.by_dpid.get(dpid)
        for number, count in packets.items():
            port = "-" if number is None else self.state.by_number.get((name or "", number), "unknown")
            self.shed_packets[name or "unregistered", port] += count
            due = self._sheddings.due((dpid, port), time.monotonic(), count)
            if due:
                self.event(ev.PacketsShed(dpid, number, due))

    def packets(self, dpid: int, batch: Sequence[PacketIn]) -> list[bytes]:
        """Packet-ins of one read from a switch; returns packet-outs to write back at once.

        Questions about addresses that the directory can answer are answered here, without a step of the core: they
        change nothing. Neither do further signs of life of a guest that has been heard: its port hands over all that it
        sends until the port's new flows are in force. All else becomes an event.
        """
        out: list[bytes] = []
        answers = self._answers_for(dpid)
        answered = 0
        counters = self.nva.counters
        for packet in batch:
            if packet.cookie == _QUESTION:
                key = (packet.in_port, packet.frame)
                reply = answers.get(key)
                if reply is None:
                    reply = self._answer(dpid, packet)
                    if reply:
                        answers[key] = reply
                if reply:
                    out.append(reply)
                    answered += 1
                    continue
            elif packet.cookie >> 40 == _LIFE and self.nva.packets.is_home(dpid, packet.in_port, packet.frame):
                counters["packet_in.life"] = counters.get("packet_in.life", 0) + 1
                continue
            elif packet.cookie >> 40 in _ANSWERED and not self.nva.packets.is_news(dpid, packet.in_port):
                counters["packet_in.answer"] = counters.get("packet_in.answer", 0) + 1
                continue
            self.event(
                ev.PacketSeen(dpid, packet.in_port, packet.cookie, packet.frame, packet.tun_src, packet.tun_id)
            )
        if answered:
            counters["packet_in.resolve"] = counters.get("packet_in.resolve", 0) + answered
        return out

    def _answers_for(self, dpid: int) -> dict[tuple[int, bytes], bytes]:
        """Answers given to a switch's questions since the directory last changed: a guest asks the same in the same
        bytes, again and again."""
        if self._answers_version != self.state.version:
            self._answers_version = self.state.version
            self._given.clear()
        answers = self._given.setdefault(dpid, {})
        if len(answers) > ANSWERS_KEPT:
            answers.clear()
        return answers

    def _answer(self, dpid: int, packet: PacketIn) -> bytes:
        """The packet-out that answers a question; empty if the directory cannot answer it."""
        name = self.state.by_dpid.get(dpid)
        if name is None or self.nva.packets.hearing.is_new(name, packet.in_port):
            return b""  # that it was heard is to be recorded
        try:
            answered = self.nva.packets.resolver.answer(name, packet.in_port, packet.frame)
        except DecodeError:
            return b""  # counted by whoever looks closer
        if answered is None:
            return b""
        prefix = packet_out_prefix(0xFFFFFFFD, (Output(packet.in_port),), len(answered))
        return prefix + answered

    # --- effects out --------------------------------------------------------------------------------------------------
    def _run(self, outcome: Outcome, durable: bool = True) -> Any:
        durable = durable or outcome.promise
        try:
            self._store.commit(outcome.records, durable)
            if durable and self._sync_due and not outcome.records:
                # What is answered was so already, by facts that may not be on the disk yet; a promise has to be.
                self._store.sync()
                self._sync_due = 0.0
        except BaseException:
            self.nva.rollback()
            raise
        if outcome.records and not durable and not self._sync_due:
            self._sync_due = time.monotonic() + SYNC_AFTER
        for effect in outcome.effects:
            self._try(effect)
        self._timer.set()
        return outcome.reply

    def _try(self, effect: Effect) -> None:
        try:
            self._perform(effect)
        except Exception as error:  # it was decided and recorded: the others must be carried out all the same
            self.failures.note(type(effect).__name__, error, "effect.failed")
            whom = self.failures.unsaid(effect)
            if whom is not None:
                self._ask_again(whom)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Failed(what, error):
                self.failures.note(what, error)
            case Report(kind, fields):
                self._telling.happened(kind, fields, self.now())
            case Answer(token, value):
                self._answered(token, value)
            case Publish(name, addresses):
                self._publish(name, addresses)
            case Program() | SendPacket() | ReadFlows() | ReadMeters() | ReadPorts() | Disconnect():
                self.execute(effect)

    # --- questions to switches ----------------------------------------------------------------------------------------
    def verify(self, nve: str, timeout: float = 5.0) -> dict[str, Any]:
        """Compare all flows of an NVE with the desired ones.

        Args:
            nve: its name.
            timeout: seconds; comparisons that a change overtook are repeated within it.

        Raises:
            NotFound: no such NVE.
            Conflict: it is not connected and in sync.
            NoAnswer: no answer in time.
        """
        self.require()
        deadline = time.monotonic() + timeout
        while True:
            with self._asking("verify") as token:
                self._run(self.nva.verify(nve, token, self.now()))
                value = self._await(token, deadline)
            if value is not None:
                result: dict[str, Any] = value
                return result

    def flows(self, nve: str, timeout: float = 5.0) -> list[FlowStats]:
        """Our flows of an NVE as it reports them, with counters. Raises as :meth:`verify`."""
        if nve not in self.state.sessions:
            raise Conflict(f"NVE {nve} is not connected", nve=nve)
        with self._asking("flows") as token:
            self._read(nve, token, 0x766D << 48, 0xFFFF << 48)
            return list(self._await(token, time.monotonic() + timeout))

    def poll_drops(self) -> None:
        """Ask every NVE what it dropped, by cause; counters follow when the answers come, and go with the NVE."""
        for gone in self._drops.keys() - self.state.nves.keys():
            del self._drops[gone]
        for name in list(self.state.sessions):
            dpid = self.state.nves[name].dpid
            self.execute(ReadFlows(dpid, f"drops:{name}", cookie(Why.DROP), COOKIE_WHY_MASK, audit=True))

    def _read(self, nve: str, token: str, wanted: int, mask: int) -> None:
        self.execute(ReadFlows(self.state.nves[nve].dpid, token, wanted, mask))

    @contextmanager
    def _asking(self, kind: str) -> Iterator[str]:
        self._asked += 1
        token = f"{kind}:{self._asked}"
        self._answers[token] = [threading.Event(), None]
        try:
            yield token
        finally:
            del self._answers[token]

    def _await(self, token: str, deadline: float) -> Any:
        if not self._answers[token][0].wait(max(0.0, deadline - time.monotonic())):
            raise NoAnswer("the switch did not answer in time")
        return self._answers[token][1]

    def _answered(self, token: str, value: Any) -> None:
        kind, _, rest = token.partition(":")
        if kind == "drops":
            dropped: dict[str, int] = {}
            for stats in value:
                why = why_of(stats.flow.cookie)
                if why is not None and why[0] is Why.DROP and why[1] in _CAUSES:
                    cause = _CAUSES[why[1]]
                    dropped[cause] = dropped.get(cause, 0) + stats.packets
            if rest in self.state.nves:
                self._drops[rest] = dropped
        elif token in self._answers:
            self._answers[token][1] = value
            self._answers[token][0].set()

    def _count(self, name: str) -> None:
        self.nva.counters[name] = self.nva.counters.get(name, 0) + 1

    @property
    def counters(self) -> dict[str, int]:
        """What was counted: ``packet_in.<reason>``, ``drop.<cause>`` (by the NVA and by the switches), and others."""
        total = dict(self.nva.counters)
        if self.shed_packets:
            total["drop.shed"] = self.shed_packets.total()
        for dropped in self._drops.values():
            for cause, packets in dropped.items():
                total[f"drop.{cause}"] = total.get(f"drop.{cause}", 0) + packets
        return total

    @property
    def drops(self) -> dict[str, dict[str, int]]:
        """What switches have dropped, by NVE and cause, as they said last."""
        return self._drops

    def health(self) -> dict[str, Any]:
        """Whether the authority can do its work: the store takes writes, and how many NVEs are in sync."""
        store = "shutting down" if self.stopping else self._store.check()
        synced = sum(s.synced for s in self.state.sessions.values())
        return {
            "store": store,
            "ready": store == "ok",
            "nves": len(self.state.nves),
            "connected": len(self.state.sessions),
            "synced": synced,
            "retries": len(self._waiting),
            "failed": self.failures.recent,
            "inventory": list(self.refused),
        }

    # --- time ---------------------------------------------------------------------------------------------------------
    def run_timers(self) -> None:
        """Loop until :meth:`stop`: hand the core its deadlines, retry what the store refused, poll drop counters."""
        next_drops = time.monotonic()
        while not self._stopping.is_set():
            self._timer.wait(min(self._pause(), RETRY_AFTER) if self._sync_due else self._pause())
            self._timer.clear()
            if self._stopping.is_set():
                return
            if not self._pause():
                due = self.nva.next_timer()
                self.catch_up.run(0.0 if due is None else self.now() - due)
                self._telling.tell_held(self.now())
                self.event(ev.TimePassed())
            if self._sync_due and time.monotonic() >= self._sync_due:
                self._sync()
            for whom in self.failures.due():
                self._ask_again(whom)
            if time.monotonic() >= next_drops:
                next_drops = time.monotonic() + 10.0
                self.poll_drops()

    def _pause(self) -> float:
        """Seconds until a timer of the core is due or a fact that waits may be tried again; at most 1."""
        now, due, held = time.monotonic(), self.nva.next_timer(), self._telling.due()
        until = [now + 1.0]
        if held is not None:
            until.append(held - self._epoch)
        if due is not None:
            until.append(max(due - self._epoch, self._again_at, self._timers_at))
        if self._waiting:
            until.append(self._again_at)
        return max(0.0, min(until) - now)

    def _sync(self) -> None:
        self._sync_due = 0.0
        try:
            self._store.sync()
        except StoreUnavailable as error:
            LOG.error("%s; will try again", error.message)
            self._sync_due = time.monotonic() + 1.0

    def stop(self) -> None:
        """End :meth:`run_timers` and close the store."""
        self._stopping.set()
        self._timer.set()
        self._store.close()
