"""Emulated switches as a process of their own, told what to do by lines of JSON on standard input.

A command is an object with ``do`` and its arguments; its answer is one line with ``ok``, and either the
command's results or ``error``. Times in answers are in seconds. :class:`ryu_vmm.emulation.client.Emulation`
speaks this.
"""

from __future__ import annotations

import ipaddress
import json
import os
import selectors
import ssl
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from ..wire import agent
from . import load
from .farm import Farm, clock
from .flood import Flood
from .session import Session
from .switch import Switch
from .tables import Dropped, Out, Result


class Service:
    """Carries commands out on a farm."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.done = False

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        """The answer to one command."""
        arguments = dict(command)
        name = arguments.pop("do", None)
        method: Callable[..., dict[str, Any]] | None = getattr(self, f"do_{name}", None)
        if method is None:
            return {"ok": False, "error": f"unknown command {name!r}"}
        try:
            return {"ok": True, **method(**arguments)}
        except (KeyError, ValueError, TypeError, OSError, load.NoPacketIn) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    # --- switches -----------------------------------------------------------------------------------------
    def do_add(self, switches: list[dict[str, Any]]) -> dict[str, Any]:
        """Add switches: ``dpid``, ``ports`` (names), ``tunnel``, ``addresses`` (text), ``eager``, ``faults``.

        ``routed``, ``ila``: names of such ports; ``locator``: a /64 as text; ``nd``: see Switch.

        ``tls``: files of its ``key`` and ``certificate`` (both may be left out), and ``ca`` of the controller's.
        """
        for given in switches:
            arguments = dict(given)
            files = arguments.pop("tls", None)
            arguments["tls"] = None if files is None else _context(files)
            faults = arguments.pop("faults", {})
            addresses = tuple(ipaddress.ip_address(a).packed for a in arguments.pop("addresses", ()))
            if (locator := arguments.pop("locator", None)) is not None:
                arguments["locator"] = ipaddress.IPv6Network(locator).network_address.packed[:8]
            switch = Switch(addresses=addresses, **arguments)
            _order(switch, faults)
            self.farm.add(switch)
        return {"switches": len(self.farm.fabric.switches)}

    def do_ready(self, timeout: float = 30.0) -> dict[str, Any]:
        """Wait until all switches are connected and have been asked for their features."""
        start = clock()
        if not self.farm.run(lambda: self.farm.ready, timeout):
            raise OSError(f"{len(self.farm.links)} of {len(self.farm.fabric.switches)} switches connected")
        return {"seconds": clock() - start}

    def do_quiet(self, idle: float = 0.3, timeout: float = 30.0) -> dict[str, Any]:
        """Wait until the controller has sent nothing but echo requests for ``idle`` seconds."""
        start = clock()
        while True:
            since = clock() - max(start, self.farm.heard)
            left = start + timeout - clock()
            if since >= idle or left <= 0:
                return {"quiet": since >= idle, "seconds": max(start, self.farm.heard) - start}
            self.farm.run(lambda: False, min(idle - since, left))

    def do_port(self, dpid: int, name: str, state: str) -> dict[str, Any]:
        """Change a port: ``up``, ``down`` or ``gone``."""
        switch = self._switch(dpid)
        if state == "gone":
            switch.remove_port(name, clock())
            return {}
        return {"number": switch.set_port(name, state == "up", clock()).number}

    def do_faults(self, dpid: int, **faults: Any) -> dict[str, Any]:
        """Order faults (see :class:`ryu_vmm.emulation.faults.Faults`)."""
        switch = self._switch(dpid)
        _order(switch, faults)
        self.farm.refresh(dpid)
        return {"faults": asdict(switch.faults)}

    def do_cut(self, dpid: int) -> dict[str, Any]:
        """Close a switch's connection."""
        self.farm.cut(dpid)
        return {}

    def do_count(self) -> dict[str, Any]:
        """What has happened so far, over all switches."""
        received: dict[str, int] = {}
        counts: dict[str, int] = {}
        for switch in self.farm.fabric.switches.values():
            for kind, number in switch.received.items():
                received[str(kind)] = received.get(str(kind), 0) + number
            for name, number in switch.counts.items():
                counts[name] = counts.get(name, 0) + number
        fabric = self.farm.fabric
        return {
            "received": received,
            "counts": counts,
            "lost": dict(fabric.lost),
            "delivered": sum(fabric.delivered.values()),
            "connections_lost": self.farm.losses,
        }

    def do_flows(self, dpid: int) -> dict[str, Any]:
        """How many flows a switch has."""
        return {"flows": len(self._switch(dpid).tables)}

    # --- packets ------------------------------------------------------------------------------------------
    def do_inject(self, dpid: int, port: str, frame: str) -> dict[str, Any]:
        """A frame (hexadecimal) comes in on a port; what becomes of it on this switch."""
        switch = self._switch(dpid)
        results = switch.inject(bytes.fromhex(frame), switch.port_named(port).number, clock())
        return {"results": [_describe(result) for result in results]}

    def do_send(
        self, dpid: int, port: str, frames: list[str], expected: int = 1, timeout: float = 10.0
    ) -> dict[str, Any]:
        """Frames (hexadecimal) come in on a port; those that leave any port, by whatever way they got there.

        Waits until ``expected`` have left, which are ``delivered`` as [dpid, port name, frame] in order, or until time
        is up.
        """
        fabric, delivered = self.farm.fabric, list[tuple[int, str, str]]()

        def left(switch: Switch, number: int, frame: bytes, now: float) -> None:
            delivered.append((switch.dpid, switch.ports[number].name, frame.hex()))

        fabric.on_frame, before = left, fabric.on_frame
        try:
            switch = self._switch(dpid)
            for frame in frames:
                switch.inject(bytes.fromhex(frame), switch.port_named(port).number, clock())
            self.farm.run(lambda: len(delivered) >= expected, timeout)
        finally:
            fabric.on_frame = before
        return {"delivered": delivered}

    def do_move(self, dpid: int, port: str, frame: str, watch: list[int], timeout: float = 30.0) -> dict[str, Any]:
        """A VM announces itself on a port: seconds until each watched switch has taken the change over.

        That is when the switch has answered the first barrier after a flow mod that came after the
        announcement.
        """
        times: dict[int, float] = {}
        missing = set(watch)

        def on_barrier(session: Session, now: float) -> None:
            if session.barrier.flow_mods and session.switch.dpid in missing:
                missing.discard(session.switch.dpid)
                times[session.switch.dpid] = now

        sessions = [self.farm.links[d].session for d in watch]
        for session in sessions:
            if session is None:
                raise OSError("a switch to watch is not connected")
            session.on_barrier = on_barrier
        try:
            switch = self._switch(dpid)
            start = clock()
            switch.inject(bytes.fromhex(frame), switch.port_named(port).number, start)
            self.farm.run(lambda: not missing, timeout)
        finally:
            for session in sessions:
                if session is not None:
                    session.on_barrier = None
        return {"seconds": {str(d): at - start for d, at in times.items()}, "missing": sorted(missing)}

    def do_load(
        self,
        frames: dict[str, list[tuple[str, str]]],
        window: int,
        seconds: float,
        warm_up: float = 1.0,
        sample: int = 1000,
        keep: int = 400,
    ) -> dict[str, Any]:
        """Packet-ins as fast as they are answered: ``frames`` by dpid as (port name, hexadecimal frame).

        ``answers`` are at most ``keep`` sampled ones, each as (dpid, number of the frame that it answers,
        what came out on the switch).
        """
        pairs = {
            int(dpid): [(self._switch(int(dpid)).port_named(p).number, bytes.fromhex(f)) for p, f in given]
            for dpid, given in frames.items()
        }
        result = load.run(self.farm, pairs, window, seconds, warm_up, sample)
        answers = []
        for dpid, number, message in result.samples[:: max(1, len(result.samples) // keep)]:
            packet = agent.decode_packet_out(message)
            out = self._switch(dpid).tables.execute(packet.actions, packet.frame, packet.in_port, clock())
            answers.append((dpid, number % len(pairs[dpid]), [_describe(r) for r in out]))
        return {
            "rate": result.rate,
            "answered": result.answered,
            "total": result.total,
            "seconds": result.seconds,
            "latencies": result.latencies,
            "per_switch": result.per_switch,
            "lost": result.lost,
            "answers": answers,
        }

    def do_flood(
        self, dpid: int, frames: list[tuple[str, str]] | None = None, rate: float | None = None
    ) -> dict[str, Any]:
        """A switch floods the controller with packet-ins of (port name, hexadecimal frame), over and over.

        ``rate`` in packets a second; default: as fast as the connection takes them. Without frames it stops; ``sent``
        says how many there were so far.
        """
        before = self.farm.links[dpid].flood
        flood = None
        if frames:
            switch = self._switch(dpid)
            pairs = [(switch.port_named(port).number, bytes.fromhex(frame)) for port, frame in frames]
            flood = Flood(load.requests_of(self.farm, dpid, pairs), rate, {port for port, _ in pairs})
        self.farm.flood(dpid, flood)
        return {"sent": 0 if before is None else before.sent}

    def do_stop(self) -> dict[str, Any]:
        """End."""
        self.done = True
        return {}

    def _switch(self, dpid: int) -> Switch:
        return self.farm.fabric.switches[dpid]


def _order(switch: Switch, faults: dict[str, Any]) -> None:
    for name, value in faults.items():
        if name not in switch.faults.__dataclass_fields__:
            raise ValueError(f"there is no fault {name}")
        if name == "error":
            value = tuple(value)
        elif name in ("ignore", "refuse_nth"):  # JSON has no numbers for keys
            value = {int(kind): count for kind, count in value.items()}
        setattr(switch.faults, name, value)


def _context(files: dict[str, str]) -> ssl.SSLContext:
    """TLS as Open vSwitch speaks it: the controller's certificate has to be of its authority, whatever its name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(files["ca"])
    if "certificate" in files:
        context.load_cert_chain(files["certificate"], files["key"])
    return context


def _describe(result: Result) -> dict[str, Any]:
    if isinstance(result, Out):
        told = {"out": result.port, "frame": result.frame.hex()}
        if result.tun_dst is not None:
            told |= {"tun_id": result.tun_id, "tun_dst": str(ipaddress.ip_address(result.tun_dst))}
        return told
    return {"dropped" if isinstance(result, Dropped) else "nva": result.cookie}


def serve(controller: tuple[str, int], commands: TextIO = sys.stdin, answers: TextIO = sys.stdout) -> None:
    """Carry out commands until ``stop`` or the end of the input; switches are served all the while."""
    farm = Farm(controller)
    service = Service(farm)
    descriptor = commands.fileno()
    os.set_blocking(descriptor, False)
    lines: list[bytes] = []
    rest = b""

    def read() -> None:
        nonlocal rest
        data = os.read(descriptor, 1 << 20)
        if not data:
            service.done = True
        *whole, rest = (rest + data).split(b"\n")
        lines.extend(whole)

    farm.selector.register(descriptor, selectors.EVENT_READ, read)
    try:
        while not service.done or lines:
            farm.run(lambda: bool(lines) or service.done, 3600.0)
            if lines:
                answers.write(json.dumps(service.handle(json.loads(lines.pop(0)))) + "\n")
                answers.flush()
            farm.flush()
    finally:
        farm.close()
