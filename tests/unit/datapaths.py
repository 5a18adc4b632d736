"""A switch's datapath as the switchboard has it, over a socket that goes nowhere."""

from __future__ import annotations

from typing import Any

from ryu_vmm import compat  # noqa: F401 - before any of Ryu

# isort: split
from ryu.base import app_manager
from ryu.controller import ofp_handler
from ryu.controller.handler import MAIN_DISPATCHER
from ryu.ofproto import ofproto_v1_3, ofproto_v1_3_parser

from ryu_vmm.effects import ReadFlows
from ryu_vmm.southbound.board import Switchboard
from ryu_vmm.southbound.datapath import VmmDatapath
from ryu_vmm.wire import base


class Nowhere:
    """A socket that takes everything and says nothing."""

    fd = None

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None

    def send(self, data: bytes) -> int:
        return len(data)


class Deaf:
    """A sink that takes what it is told."""

    def event(self, event: object) -> None:
        hash(type(event))

    def packets(self, dpid: int, batch: object) -> list[bytes]:
        return []

    def admits(self, dpid: int, names: object) -> bool:
        return True


class Connected(VmmDatapath):
    """A datapath whose handshake is over, with questions outstanding."""

    def again(self) -> None:
        """As it is when nothing is known of what comes next."""
        self.set_state(MAIN_DISPATCHER)
        self._told = True
        for number in range(1, 9):
            self._batches.add(number, number, ())
            self._barriers[number] = (number, number)
        self._readings.clear()
        self.xid = 0
        self.read_flows(ReadFlows(1, "sync"))
        self._meters.readings[1] = ("meters", {}, 1)
        self._outbox.clear()

    def set_state(self, state: str) -> None:
        self.state = state


def ready() -> None:
    """Have what Ryu's datapaths look for when they are made."""
    if app_manager.lookup_service_brick("ofp_event") is None:
        app_manager.register_app(ofp_handler.OFPHandler())


def speaks_13(made: VmmDatapath) -> None:
    """A switch has said hello in OpenFlow 1.3."""
    made.ofproto, made.ofproto_parser = ofproto_v1_3, ofproto_v1_3_parser
    assert made.ofproto.OFP_VERSION == base.VERSION


def connected() -> Connected:
    """A connected switch."""
    ready()
    Connected.board = Switchboard(Deaf())  # type: ignore[arg-type]
    made = Connected(Nowhere(), ("192.0.2.1", 6653))
    made.id = 1
    speaks_13(made)
    return made
