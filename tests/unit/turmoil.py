"""A town where everything goes wrong: the store, the connections, the switches and the authority itself.

What the real runtime promises is played here without its threads: requests are on the disk before they are answered,
facts a little later; a fact whose record cannot be committed is tried again before any later one; whoever starts the
authority again gives it what is on the disk, and the switches' connections are new.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from outside import ILA, ports_of
from outside import tables as made_of
from town import NVES, Town
from tried import fault
from watch import Watch
from world import Box

from ryu_vmm import events as ev
from ryu_vmm.effects import Record
from ryu_vmm.errors import StoreUnavailable
from ryu_vmm.flows import Flow, Output, match
from ryu_vmm.model import Policy
from ryu_vmm.nva import Nva, Settings
from ryu_vmm.store import _ADAPTERS, MemoryStore

REQUESTS = get_args(ev.Request)
#: Seconds until facts are on the disk.
SYNC_AFTER = 0.25
#: Flows that are not ours, and must be left alone whatever happens.
FOREIGN = (
    Flow(0, 65000, match(in_port=4000), (Output(1),), cookie=0x1234),
    Flow(60, 7, match(in_port=99), cookie=0x766C << 48),
)


class Disk(MemoryStore):
    """Records of which the last facts may not have reached the disk, and which can be full.

    Attributes:
        failing: so many commits fail from now on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failing = 0
        self._unsynced: list[dict[tuple[str, Any], Any]] = []

    def commit(self, records: Iterable[Record], durable: bool = True) -> None:
        rows = list(records)
        if not rows:
            if durable:  # a promise that needs no record is made of facts that must not be lost any more
                self.sync()
            return
        if self.failing:
            self.failing -= 1
            raise StoreUnavailable("the disk is full")
        before = {(r.table, r.key): self.rows.get((r.table, r.key)) for r in rows}
        super().commit(rows)
        if durable:
            self._unsynced.clear()
        else:
            self._unsynced.append(before)

    def sync(self) -> None:
        self._unsynced.clear()

    def lose(self, count: int) -> bool:
        """The machine loses power: the last ``count`` commits of facts, if they are not on the disk, never were."""
        lost = self._unsynced[-count:] if count else []
        for before in reversed(lost):
            super().commit([Record(table, key, value) for (table, key), value in before.items()])
        self._unsynced.clear()
        return bool(lost)

    def load(self) -> Iterator[tuple[str, Any, Any]]:
        """All records, as text that has been read again."""
        for table, key, value in super().load():
            adapter = _ADAPTERS[table]
            yield table, key, adapter.validate_json(adapter.dump_json((value,)))[0]


class Turmoil(Town):
    """Towns in which nothing can be relied upon.

    Attributes:
        deaf: NVEs of which the NVA hears nothing for now; what they say waits in ``up``.
        watch: sees every step, and objects.
        said: the last packets that were handed over, with the epochs at that moment.
        tainted: NVEs whose tables are not what anybody told them, until they have been read back.
    """

    def __init__(self, policy: Policy | None = None, settings: Settings | None = None, **more: object) -> None:
        self.deaf: set[str] = set()
        self.up: dict[str, list[tuple[ev.Event, dict[str, int]]]] = {}  # with the epochs when it was said
        self.tainted: set[str] = set()
        self.said: deque[tuple[ev.PacketSeen, dict[str, int]]] = deque(maxlen=16)
        self.synced_at = 0.0
        self.patience = settings
        self.stuck = False
        self.watch: Watch | None = None
        super().__init__(policy, settings=settings, **more)
        disk = Disk()
        disk.rows.update(self.store.rows)
        self.store: Disk = disk
        for box in self.boxes.values():
            for flow in FOREIGN:
                box.tables.add(flow)
        self.watch = Watch(self)

    # --- the core, and the store beside it ----------------------------------------------------------------------------
    def handle(self, event: ev.Event) -> object:
        """Requests at once, facts in the order in which they came."""
        if self.watch is None:
            return super().handle(event)
        if isinstance(event, REQUESTS):
            reply = self._step(event)
        else:
            reply = None
            if not isinstance(event, ev.TimePassed) or not self._events:
                self._events.append(event)
        self._pump()
        return reply

    def _pump(self) -> None:
        if self.watch is None:
            return super()._pump()
        if self._running or self.stuck:
            return None
        self._running = True
        try:
            while self._events:
                self._step(self._events[0])
                self._events.popleft()
        except StoreUnavailable:
            self.stuck = True  # it is tried again as time goes by
        finally:
            self._running = False
        return None

    def _step(self, event: ev.Event) -> object:
        if self.watch is None:
            return super()._step(event)
        outcome = self.nva.handle(event, self.now)
        try:
            self.store.commit(outcome.records, durable=isinstance(event, REQUESTS))
        except StoreUnavailable:
            self.nva.rollback()
            self.watch.undone()
            raise
        self.watch.step(event, outcome)
        for effect in outcome.effects:
            self._carry_out(effect)
        return outcome.reply

    def advance(self, seconds: float, step: float = 0.05) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            self.stuck = False
            if self.now >= self.synced_at + SYNC_AFTER:
                self.store.sync()
                self.synced_at = self.now
            self.handle(ev.TimePassed())

    def skip(self, seconds: float) -> None:
        """Let time pass, in steps from one deadline to the next."""
        end = self.now + seconds
        while self.now < end:
            due = self.nva.next_timer()
            until = end if due is None else min(end, max(due, self.now + 0.001))
            self.advance(until - self.now, step=until - self.now)

    def restart(self, lost: int = 0, landed: int = 0) -> None:
        """The authority is killed and started again.

        Args:
            lost: commits of facts that had not reached the disk, and never do.
            landed: messages to each switch that arrive there nevertheless.
        """
        for box in self.boxes.values():
            box.connected = False
        for name, box in self.boxes.items():
            for _ in range(min(landed, len(box.inbox))):
                self._at_switch(box.inbox.popleft())
            self._forget_connection(name)
        self._events.clear()
        self.stuck = False
        lost_any = self.store.lose(lost)
        self.nva = Nva(self.patience)
        self.nva.restore(list(self.store.load()), self.now)
        assert self.watch is not None
        self.watch.restarted(lost_any)

    # --- switches -----------------------------------------------------------------------------------------------------
    def _reply(self, box: Box, event: ev.Event) -> None:
        if not box.connected:
            return
        epochs = {i: interface.epoch for i, interface in self.nva.state.interfaces.items()}
        if isinstance(event, ev.PacketSeen):
            self.said.append((event, epochs))
        if box.nve.name in self.deaf:
            self.up.setdefault(box.nve.name, []).append((event, epochs))
        else:
            self._events.append(event)

    def _forget_connection(self, name: str) -> None:
        box = self.boxes[name]
        box.inbox.clear()
        box.held_barriers.clear()
        self.up.pop(name, None)
        self.said = deque((what for what in self.said if what[0].dpid != box.nve.dpid), maxlen=self.said.maxlen)

    def listen_to(self, name: str, index: int | None = None, again: bool = False) -> None:
        """Let the NVA hear what an NVE has said: all, and from now on at once, or one thing before others.

        Barrier replies and packets may come in any order, and twice; all else in that in which it was sent.
        """
        waiting = self.up.get(name, [])
        if index is None:
            self.deaf.discard(name)
            self.up.pop(name, None)
            for event, epochs in waiting:
                self._hear(event, epochs)
        elif waiting:
            at = index % len(waiting)
            loose = isinstance(waiting[at][0], ev.BarrierReplied | ev.PacketSeen)
            if not loose:
                at = next(n for n, (e, _) in enumerate(waiting) if not isinstance(e, ev.BarrierReplied | ev.PacketSeen))
            event, epochs = waiting[at]
            if not (loose and again):
                del waiting[at]
            self._hear(event, epochs)

    def hear_again(self, index: int) -> None:
        """A packet that was handed over before comes once more."""
        if self.said:
            self._hear(*self.said[index % len(self.said)])

    def _hear(self, event: ev.Event, epochs: dict[str, int]) -> None:
        """Late news changes the place of nothing that has moved since, unless it is nowhere."""
        before, alone = dict(self.nva.state.interfaces), not self._events
        self._events.append(event)
        self._pump()
        if not alone or self._events or not isinstance(event, ev.PacketSeen) or self.nva.state.trusting:
            return
        for i, now in self.nva.state.interfaces.items():
            was = before.get(i)
            if was is not None and epochs.get(i, was.epoch) < was.epoch and self.nva.state.port_at(was.location):
                assert now.location == was.location, f"{i} moved by what was said in epoch {epochs[i]}"

    def release(self, name: str) -> None:
        box = self.boxes[name]
        self.hold_barriers.discard(name)
        held, box.held_barriers = box.held_barriers, []
        for generation in held:
            self._reply(box, ev.BarrierReplied(box.nve.dpid, generation))
        self._pump()

    def disconnect(self, name: str) -> None:
        if not self.boxes[name].connected and self.watch is not None:
            return
        self._forget_connection(name)
        super().disconnect(name)

    def connect(self, name: str, tables: str = "kept", seed: int = 0) -> None:
        """A switch connects, with its tables ``kept``, in ``part``, ``empty``, or those of an``other`` one."""
        box = self.boxes[name]
        if self.watch is None:
            return super().connect(name)
        fault(f"reconnected, tables: {tables}", self.nva.state)
        self._forget_connection(name)
        if tables != "kept":
            self._damage(box, tables, seed)
            self.tainted.add(name)
        box.connected = True
        ports = tuple(ev.PortInfo(number, port, True) for port, number in box.ports.items())
        self._reply(box, ev.NveConnected(box.nve.dpid, ports, meters=262144 if self.meters else 0))
        self._pump()
        return None

    def _damage(self, box: Box, tables: str, seed: int) -> None:
        dice = random.Random(seed)
        if tables == "part":
            for flow in box.tables.flows:
                if flow not in FOREIGN and dice.random() < 0.4:
                    box.tables.delete(flow.match, flow.table, flow.priority)
            return
        held = self.boxes[NVES[seed % len(NVES)]].tables.flows if tables == "other" else []
        box.tables = made_of([*FOREIGN, *(flow for flow in held if flow not in FOREIGN)])
        if tables == "empty" and dice.random() < 0.5:  # its daemon is new: ports have other numbers
            for port in [p for p in box.ports if box.ports[p] > ILA]:
                del box.ports[port]
                box.number(port)

    def plug(self, nve: str, port: str) -> None:
        box = self.boxes[nve]
        self._reply(box, ev.PortChanged(box.nve.dpid, ev.PortInfo(box.number(port), port, True)))
        self._pump()

    def unplug(self, nve: str, port: str) -> None:
        box = self.boxes[nve]
        number = box.ports.pop(port)
        self._reply(box, ev.PortChanged(box.nve.dpid, ev.PortInfo(number, port, True), gone=True))
        self._pump()

    def link(self, nve: str, port: str, up: bool) -> None:
        """A port's link goes up or down; its number stays."""
        box = self.boxes[nve]
        self._reply(box, ev.PortChanged(box.nve.dpid, ev.PortInfo(box.ports[port], port, up)))
        self._pump()

    # --- calm ---------------------------------------------------------------------------------------------------------
    def calm(self) -> None:
        """All faults are over: everybody is connected, all messages arrive, and time passes."""
        self.store.failing = 0
        self.stuck = False
        self.cut.clear()
        for name, box in self.boxes.items():
            box.tables.refuses, box.tables.room = (lambda flow: None), {}
            self.late.discard(name)
            self.land(name)
            self.listen_to(name)
            self.release(name)
            if not box.connected:
                self.connect(name)
            for port, number in ports_of(box.nve).items():
                box.ports.setdefault(port, number)
                self.plug(name, port)
        self._pump()
        self.skip(1500)
        self.tainted.clear()
