"""(e) Answers by flows: how many flows an edge has for them, and how long a real switch takes to be told them."""

from __future__ import annotations

import ipaddress
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator

from ryu_vmm import events as ev
from ryu_vmm.flows import Flow, FlowChange
from ryu_vmm.model import Interface, Network, Nve, Place
from ryu_vmm.nva import Nva
from ryu_vmm.pipeline import desired
from ryu_vmm.tables import RESOLVE, Why, why_of
from ryu_vmm.wire import base as of
from ryu_vmm.wire import openflow

from . import real_moves
from .controller import BenchError
from .report import Part, milliseconds, number

MEMBERS = (10, 100, 1000)
_ANSWERS = (Why.ANSWER, Why.ADVERTISE)


def parts(rounds: int, say: Callable[[str], None]) -> list[Part]:
    """The table of these figures, as far as they can be measured here."""
    missing = real_moves.impossible()
    if missing:
        say(f"answers are not measured: {missing}")
        return []
    return [measure(rounds, say)]


def measure(rounds: int, say: Callable[[str], None]) -> Part:
    """Program one real edge with networks of so many members, with answers and without; medians of ``rounds``."""
    from topologies import OverlayNet

    rows, data = [], {}
    with OverlayNet(nves=1, vms=0, controller=None) as net, _Switch(f"{net.nve('nve1').folder}/br-int.mgmt") as switch:
        for members in MEMBERS:
            every = list(desired(_nva(members).state, "nve1").values())
            bare = [flow for flow in every if not _answers(flow)]
            one = [flow for flow in every if flow.table == RESOLVE and flow.priority == 110][:3]
            took: dict[str, list[float]] = {"without": [], "with": [], "one": []}
            for _ in range(rounds):
                switch.clear()
                took["without"].append(switch.add(bare))
                switch.clear()
                took["with"].append(switch.add(every))
                switch.remove(one)
                took["one"].append(switch.add(one))
            medians = {name: statistics.median(found) for name, found in took.items()}
            data[str(members)] = {"flows": len(every), "without": len(bare), "seconds": medians}
            rows.append(
                [number(members), number(len(bare)), number(len(every))]
                + [milliseconds(medians[name]) for name in ("without", "with", "one")]
            )
            say(f"{members} members: {len(bare)} flows, {len(every)} with answers")
    columns = ["members", "flows without", "with answers", "ms without", "ms with", "ms for one member's answers"]
    notes = ["Members have an IPv4, an IPv6 and a link-local address; one is at the edge. Up to the barrier's reply."]
    return Part("answers", "Answers by flows on a real edge", columns, rows, notes, data)


def _answers(flow: Flow) -> bool:
    why = why_of(flow.cookie)
    return (why is not None and why[0] in _ANSWERS) or (flow.table == RESOLVE and flow.priority > 100)


def _nva(members: int) -> Nva:
    """A network with so many members, one of them at nve1, where there is a switch, the others at nve2."""
    nva = Nva()
    for n in (1, 2):
        nva.handle(ev.NveSubmitted(Nve(f"nve{n}", n, ipaddress.ip_address(f"192.168.0.{n}").packed, None)), 0.0)
    nva.handle(ev.NetworkSubmitted(Network("vn1", 100)), 0.0)
    ports = (ev.PortInfo(1, "vxlan", True), ev.PortInfo(2, "tap1", True))
    nva.handle(ev.NveConnected(1, ports), 0.0)
    for n in range(1, members + 1):
        low = n.to_bytes(2, "big")
        interface = Interface(
            *(f"vm{n}/eth0", f"vm{n}", "eth0", 100, b"\2\0\0\0" + low, (b"\x0a\0" + low,)),
            (ipaddress.ip_address("2001:db8::").packed[:14] + low,),
            Place("nve1" if n == 1 else "nve2", f"tap{n}"),
        )
        nva.handle(ev.VmSubmitted(f"vm{n}", (interface,)), 0.0)
    return nva


class _Switch:
    """The OpenFlow side of a real bridge, by its management socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(path)
        self._rest = b""
        self._socket.sendall(openflow.encode_hello(1))

    def __enter__(self) -> _Switch:
        return self

    def __exit__(self, *details: object) -> None:
        self._socket.close()

    def clear(self) -> None:
        """Remove all flows."""
        fixed = struct.pack("!QQBBHHHIIIHxx", 0, 0, 0xFF, of.FC_DELETE, 0, 0, 0, of.NO_BUFFER, of.ANY, of.ANY, 0)
        self._await(of.message(of.FLOW_MOD, 2, fixed + struct.pack("!HH4x", 1, 4)))

    def remove(self, flows: list[Flow]) -> None:
        """Remove these."""
        self._await(openflow.encode_flow_mods([FlowChange("delete", flow) for flow in flows], 3))

    def add(self, flows: list[Flow]) -> float:
        """Seconds until a barrier behind these has been answered. Raises BenchError if one is refused."""
        message = openflow.encode_flow_mods([FlowChange("add", flow) for flow in flows], 4)
        began = time.perf_counter()
        self._await(message)
        return time.perf_counter() - began

    def _await(self, message: bytes) -> None:
        self._socket.sendall(message + openflow.encode_barrier(5))
        for said in self._messages():
            if said[1] == of.ERROR:
                raise BenchError(f"the switch refuses a flow: {openflow.decode_error(said)}")
            if said[1] == of.BARRIER_REPLY:
                return

    def _messages(self) -> Iterator[bytes]:
        while True:
            while len(self._rest) < 8 or len(self._rest) < int.from_bytes(self._rest[2:4], "big"):
                data = self._socket.recv(65536)
                if not data:
                    raise BenchError("the switch has closed the connection")
                self._rest += data
            size = int.from_bytes(self._rest[2:4], "big")
            message, self._rest = self._rest[:size], self._rest[size:]
            if message[1] == of.ECHO_REQUEST:
                self._socket.sendall(openflow.encode_echo_reply(int.from_bytes(message[4:8], "big"), message[8:]))
            yield message
