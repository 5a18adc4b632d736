"""The switchboard: all connected switches by datapath id, and the NVA on the other side."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from ryu.controller import controller

from ..effects import Effect, Program, ReadFlows, ReadMeters, SendPacket
from ..events import SwitchEvent
from ..wire import openflow
from ..wire.openflow import PacketIn
from .datapath import VmmDatapath

LOG = logging.getLogger("ryu_vmm.southbound")

ECHO_WITHIN = 1.0
"""Seconds that a connection has to prove itself when another one claims to be the same switch."""


class Sink(Protocol):
    """Who is told what happens. Called from the connections' greenlets; must not wait for a switch."""

    def event(self, event: SwitchEvent) -> None:
        """Take in an event: any switch event but PacketSeen."""

    def packets(self, dpid: int, batch: Sequence[PacketIn]) -> list[bytes]:
        """Take in the packet-ins of one read; returns encoded packet-outs for the same switch."""


class Switchboard:
    """All switches. One per process.

    Args:
        sink: who is told what happens.
        send_cap: bytes that may wait for a switch to take them; one that lets more pile up is disconnected.
        flow_cap: flows that the answer to one ReadFlows may have; a switch that sends more is disconnected.
        echo_interval: seconds between looks at whether a connection shows progress; while it does not, it is sent
            echo requests, and after ``echo_misses`` in a row without progress it is closed.
        handshake_within: seconds until a new connection must have told its features and ports.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        send_cap: int = 64 << 20,
        flow_cap: int = 2_000_000,
        echo_interval: float = 5.0,
        echo_misses: int = 3,
        handshake_within: float = 20.0,
    ) -> None:
        self.sink = sink
        self.send_cap = send_cap
        self.flow_cap = flow_cap
        self.echo_interval = echo_interval
        self.echo_misses = echo_misses
        self.handshake_within = handshake_within
        #: ``malformed.<cause>``, ``error.<type>.<code>``, ``closed.<why>``, ``sink-failed``, ``forward-dropped``,
        #: ``unsent``, ``refused``, ``replaced``
        self.counters: Counter[str] = Counter()
        self.datapaths: dict[int, VmmDatapath] = {}
        self._disputed: set[int] = set()
        self._stock: Any = None

    def install(self) -> None:
        """Have Ryu make our datapaths from now on. Calling it again changes nothing."""
        if self._stock is None:
            ours = type("VmmDatapath", (VmmDatapath,), {"board": self})

            def connected(socket: Any, address: Any) -> None:
                with contextlib.closing(ours(socket, address)) as datapath:
                    datapath.serve()

            # Not Datapath itself: its __init__ finds its own class by that name.
            self._stock = controller.datapath_connection_factory
            controller.datapath_connection_factory = connected

    def close(self) -> None:
        """Undo :meth:`install` and close all connections. The switches keep their flows."""
        if self._stock is not None:
            controller.datapath_connection_factory, self._stock = self._stock, None
        for datapath in list(self.datapaths.values()):
            datapath.close()

    def execute(self, effect: Effect) -> None:
        """Carry out a Program, SendPacket, ReadFlows or ReadMeters, in order per switch. Never waits.

        For a switch that is not connected it is counted as ``unsent``: its flows are read when it comes back.
        """
        if not isinstance(effect, (Program, SendPacket, ReadFlows, ReadMeters)):
            raise TypeError(f"not an effect on a switch: {effect!r}")
        datapath = self.datapaths.get(effect.dpid)
        if datapath is None:
            self.counters["unsent"] += 1
        elif isinstance(effect, Program):
            datapath.program(effect.changes, effect.generation)
            # Now, not when the sender's turn comes: that of the switch in hand may have many packets more to tell, and
            # while it does, packets go the old way at all others.
            datapath.flush()
        elif isinstance(effect, SendPacket):
            datapath.send(openflow.encode_packet_out(effect.in_port, effect.actions, effect.frame))
        elif isinstance(effect, ReadMeters):
            datapath.read_meters(effect.token)
        else:
            datapath.read_flows(effect.token, effect.cookie, effect.cookie_mask)

    # --- for the datapaths ------------------------------------------------------------------------------------
    def emit(self, event: SwitchEvent) -> None:
        """Tell the sink."""
        try:
            self.sink.event(event)
        except Exception:
            self.counters["sink-failed"] += 1
            LOG.exception("%s could not be taken in", type(event).__name__)

    def answer(self, dpid: int, batch: Sequence[PacketIn]) -> list[bytes]:
        """The sink's answers to packet-ins."""
        try:
            return self.sink.packets(dpid, batch)
        except Exception:
            self.counters["sink-failed"] += 1
            LOG.exception("%d packet-ins of %016x could not be taken in", len(batch), dpid)
            return []

    def admit(self, newcomer: VmmDatapath) -> bool:
        """Whether a connection may be the switch it says it is: one that is there and lives keeps the place."""
        dpid = newcomer.id
        while (present := self.datapaths.get(dpid)) is not None:
            first = dpid not in self._disputed
            self._disputed.add(dpid)
            if present.answers(ECHO_WITHIN):
                self.counters["refused"] += 1
                if first:
                    LOG.error(
                        "datapath %016x: %s refused, since the connection from %s lives (further ones: debug)",
                        dpid,
                        newcomer.address,
                        present.address,
                    )
                else:
                    LOG.debug("datapath %016x: %s refused", dpid, newcomer.address)
                return False
            if self.datapaths.get(dpid) is present:
                self.counters["replaced"] += 1
                LOG.warning("datapath %016x: %s replaces %s", dpid, newcomer.address, present.address)
                present.close()
        self._disputed.discard(dpid)
        self.datapaths[dpid] = newcomer
        return True

    def dismiss(self, datapath: VmmDatapath) -> bool:
        """Forget a connection; False if it was none of those admitted."""
        if self.datapaths.get(datapath.id) is not datapath:
            return False
        del self.datapaths[datapath.id]
        return True
