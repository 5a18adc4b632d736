"""A runtime for tests of REST, inventory and command line: real state and registry, no switch, no store.

Moves live by script: ``advance`` puts one into a state as the core would, with history and ledger.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ryu_vmm import events, model
from ryu_vmm.errors import Conflict, MoveStateConflict, NotFound, VmmError
from ryu_vmm.flows import FlowStats
from ryu_vmm.mobility import TABLE, MoveEvent
from ryu_vmm.registry import Registry
from ryu_vmm.state import State
from ryu_vmm.work import Settings, Work


class FakeLog:
    """A ring of events that can be waited for."""

    def __init__(self, size: int = 100) -> None:
        self._ring: deque[tuple[int, float, str, dict[str, object]]] = deque(maxlen=size)
        self._changed = threading.Condition()
        self.last = 0

    @property
    def first(self) -> int:
        return self._ring[0][0] if self._ring else self.last + 1

    def add(self, kind: str, **fields: object) -> None:
        with self._changed:
            self.last += 1
            self._ring.append((self.last, time.time(), kind, fields))
            self._changed.notify_all()

    def since(self, seq: int, limit: int = 1000) -> list[tuple[int, float, str, dict[str, object]]]:
        return list(itertools.islice((e for e in list(self._ring) if e[0] > seq), limit))

    def wait(self, seq: int, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.last > seq, timeout)


class FakeRuntime:
    """Registrations by the real Registry, moves by the real transition table without its actions."""

    def __init__(self) -> None:
        self.state = State()
        self.log = FakeLog()
        self.counters: dict[str, int] = {}
        self.started = time.time()
        self.fail: VmmError | None = None
        self.unhealthy: dict[str, object] = {}
        self.switch_flows: dict[str, list[FlowStats]] = {}
        self.differences: dict[str, list[str]] = {}
        self.lock = threading.RLock()
        self._work = Work(self.state, Settings(), counters=self.counters)
        self._registry = Registry(self._work)
        self._handlers: dict[type, Any] = {
            events.NveSubmitted: self._registry.nve_submitted,
            events.NveWithdrawn: self._registry.nve_withdrawn,
            events.NetworkSubmitted: self._registry.network_submitted,
            events.NetworkWithdrawn: self._registry.network_withdrawn,
            events.VmSubmitted: self._registry.vm_submitted,
            events.VmWithdrawn: self._registry.vm_withdrawn,
            events.MoveRequested: self._requested,
            events.RedirectRequested: lambda e: self._hook(e.move, MoveEvent.REDIRECT),
            events.ActivationReported: lambda e: self._hook(e.move, MoveEvent.ALIVE),
            events.AbortRequested: lambda e: self._hook(e.move, MoveEvent.ABORT, e.why),
        }

    def handle(self, event: events.Request) -> Any:
        return self.handle_all([event])[0]

    def handle_all(self, requests: Sequence[events.Request]) -> list[Any]:
        with self.lock:
            if self.fail is not None:
                raise self.fail
            self._work.begin(time.time())
            replies = []
            for index, request in enumerate(requests):
                try:
                    replies.append(self._handlers[type(request)](request))
                except VmmError as e:
                    self.state.undo()
                    if len(requests) > 1:
                        e.details["index"] = index
                    raise
            for request in requests:
                self.log.add("request", request=type(request).__name__)
            return replies

    def health(self) -> dict[str, object]:
        return {"store": "ok", **self.unhealthy}

    def verify(self, nve: str, timeout: float = 5.0) -> dict[str, object]:
        self._connected(nve)
        differences = self.differences.get(nve, [])
        return {
            "nve": nve,
            "in_sync": not differences,
            "differences": differences,
            "tunnel_to_tunnel": [],
            "flows": len(self.switch_flows.get(nve, [])),
        }

    def flows(self, nve: str, timeout: float = 5.0) -> list[FlowStats]:
        self._connected(nve)
        return self.switch_flows.get(nve, [])

    # --- what switches would do --------------------------------------------------------------------------
    def connect(self, nve: str, *ports: str, tunnel: int | None = 1) -> None:
        """The NVE connects with these ports, numbered from 10, and is in sync."""
        self.state.put("sessions", nve, model.Session(nve, tunnel, synced=True))
        self.state.put("generations", nve, (self.state.generation, self.state.generation))
        for number, name in enumerate(ports, 10):
            self.state.put("ports", model.Place(nve, name), model.Port(nve, name, number))

    def advance(self, number: int, state: model.MoveState, why: str = "", **changes: Any) -> model.Move:
        """Put a move into a state, with a step in its history and further changes of its fields."""
        with self.lock:
            move = self.state.moves[number]
            step = model.Step(state, time.time(), why)
            move = replace(move, state=state, history=(*move.history, step), **changes)
            self.state.put("moves", number, move)
            self.log.add("move.state", move=number, vm=move.vm, state=str(state))
            return move

    def _connected(self, nve: str) -> None:
        if nve not in self.state.nves:
            raise NotFound(f"there is no NVE {nve}", nve=nve)
        if nve not in self.state.sessions:
            raise Conflict(f"NVE {nve} is not connected", nve=nve)

    def _requested(self, event: events.MoveRequested) -> tuple[model.Move, bool]:
        state = self.state
        if event.request_id is not None and event.request_id in state.by_request:
            return state.moves[state.by_request[event.request_id]], False
        vm = state.vms.get(event.vm)
        if vm is None:
            raise NotFound(f"there is no VM {event.vm}", vm=event.vm)
        if event.to not in state.nves:
            raise NotFound(f"there is no NVE {event.to}", nve=event.to)
        interfaces = [state.interfaces[i] for i in vm.interfaces]
        for interface in interfaces:
            active = state.active_move(interface.id)
            if active is not None:
                raise Conflict(f"move {active[0].id} is already open for {event.vm}", move=active[0].id)
        number = max(state.moves, default=0) + 1
        now = time.time()
        legs = tuple(
            model.Leg(
                i.id,
                i.vni,
                i.location,
                model.Place(event.to, event.ports.get(i.name, i.location.port)),
                model.MARK_BASE + number,
            )
            for i in interfaces
        )
        move = model.Move(
            id=number,
            vm=event.vm,
            kind=event.kind,
            source=interfaces[0].location.nve,
            destination=event.to,
            legs=legs,
            state=model.MoveState.PREPARING,
            trigger="request",
            created=now,
            history=(model.Step(model.MoveState.PREPARING, now),),
            request_id=event.request_id,
            requested_by=event.requested_by,
        )
        state.put("moves", number, move)
        return move, True

    def _hook(self, number: int, event: MoveEvent, why: str = "") -> model.Move:
        move = self.state.moves.get(number)
        if move is None:
            raise NotFound(f"there is no move {number}", move=number)
        transition = TABLE[move.state][event]
        if transition.refuse:
            raise MoveStateConflict(transition.refuse, move=number, state=str(move.state))
        return self.advance(number, transition.to, why) if transition.to else move
