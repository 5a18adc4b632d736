"""What it costs to notice a corrupted network number: tunnel checksums, or knowing every sender, on real edges."""

from __future__ import annotations

import os
import re
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .controller import BenchError
from .report import Part, number, ratio

if TYPE_CHECKING:
    from topologies import NVE, OverlayNet

_SENDERS = 1000
_VNI = 100
_RATE = 20_000  # packets/s: what two edges and a sender in Python carry on one processor
_BATCH = 200
_TICKS = os.sysconf("SC_CLK_TCK")
_PORTS = {"vxlan": 1, "gre": 2}

#: What is compared: its name, whether tunnels have checksums, whether the receiver knows senders by MAC.
_WAYS = (("none", False, False), ("tunnel checksum", True, False), (f"{_SENDERS:,} senders known", False, True))


def measure(rounds: int, seconds: float, say: Callable[[str], None]) -> list[Part]:
    """Processor time of both edges per packet, without a check and with either, over IPv4 and IPv6."""
    from topologies import OverlayNet
    from topologies.errors import TopologyError

    rows = []
    data = {}
    try:
        for underlay in ("ipv4", "ipv6"):
            with OverlayNet(nves=2, vms=2, underlay=underlay, attach="veth", routed="gre", controller=None) as net:
                for tunnel in _PORTS:
                    for size in (100, 1400):
                        costs = _compare(net, tunnel, size, rounds, seconds)
                        base = statistics.median(costs[_WAYS[0][0]])
                        cells = [statistics.median(found) for found in costs.values()]
                        rows.append([underlay, tunnel, number(size), *(f"{cell:.2f}" for cell in cells),
                                     *(ratio(cell / base) for cell in cells[1:])])  # fmt: skip
                        data[f"{underlay} {tunnel} {size}"] = costs
                        say(f"checksums, {tunnel} over {underlay}, {size} bytes: {', '.join(rows[-1][3:])}")
    except TopologyError as error:
        raise BenchError(f"real NVEs: {error}") from error
    return [Part(
        "checksum", "Noticing a corrupted network number: processor time of both edges per packet",
        ["underlay", "tunnel", "bytes", *(f"{name}, us" for name, _, _ in _WAYS),
         *(f"x, {name}" for name, _, _ in _WAYS[1:])],
        rows,
        [f"{_RATE:,} packets/s, {rounds} rounds of {seconds:g} s in turn, medians; user and system time of both "
         "ovs-vswitchd. Senders known: a flow for each at the receiving edge, matched by MAC; it has no meaning for "
         "tunnels without Ethernet header. Over IPv6 Open vSwitch sends VXLAN with checksums in any case."],
        data,
    )]  # fmt: skip


def _compare(net: OverlayNet, tunnel: str, size: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    costs: dict[str, list[float]] = {name: [] for name, _, _ in _WAYS}
    for _ in range(rounds):
        for name, checked, known in _WAYS:
            for nve in net.nves:
                nve.vsctl("set", "Interface", tunnel, f"options:csum={str(checked).lower()}")
            _program(net, tunnel, known)
            costs[name].append(_cost(net, size, seconds))
    return costs


def _program(net: OverlayNet, tunnel: str, known: bool) -> None:
    """nve1 sends everything from its guest to nve2, which takes it from the tunnel for its own."""
    here, there = net.nves
    one, two = ((nve.ipv4 or nve.ipv6 or "").partition("/")[0] for nve in (here, there))
    field = "tun_ipv6" if ":" in one else "tun"
    ends = f"set_field:{_VNI}->tun_id,set_field:{one}->{field}_src,set_field:{two}->{field}_dst"
    port = _PORTS[tunnel]
    senders = [net.vms[0].spec.mac, *(f"02:ff:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(1, _SENDERS))]
    matches = [f",dl_src={mac}" for mac in senders] if known and tunnel == "vxlan" else [""]
    source, sink = (nve.ofport(vm.spec.port) for nve, vm in zip(net.nves, net.vms, strict=True))
    deliver = f"set_field:{net.vms[1].spec.mac}->eth_dst,output:{sink}"
    for nve, flows in (
        (here, [f"in_port={source},actions={ends},output:{port}"]),
        (there, [f"in_port={port},tun_id={_VNI},{field}_src={one}{match},actions={deliver}" for match in matches]),
    ):
        nve.ofctl("del-flows")
        nve.ofctl("add-flows", "-", stdin="\n".join(flows))


def _cost(net: OverlayNet, size: int, seconds: float) -> float:
    """Microseconds of both vswitchds per packet that arrived."""
    from topologies import netns
    from topologies.rundir import wait_until

    sender, receiver = net.vms
    head = bytes.fromhex(receiver.spec.mac.replace(":", "") + sender.spec.mac.replace(":", "")) + b"\x08\x00"
    body = bytes.fromhex("4500") + (size - 14).to_bytes(2, "big") + bytes(4) + b"\x40\x11" + bytes(10)
    frame = (head + body).ljust(size, b"\0")
    with netns.entered(sender.namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind(("eth0", 0))
        before = _arrived(net)
        wait_until(lambda: sock.send(frame) and _arrived(net) > before, 10, "the first packet at the other edge", 0.05)
        arrived, used, began = _arrived(net), _used(net), time.monotonic()
        sent = 0
        while (now := time.monotonic()) < began + seconds:
            for _ in range(_BATCH):
                sock.send(frame)
            sent += _BATCH
            time.sleep(max(0.0, began + sent / _RATE - now))
    wait_until(lambda: _arrived(net) - arrived >= 0.9 * sent, 10, "the packets at the other edge", 0.05)
    return (_used(net) - used) * 1e6 / (_arrived(net) - arrived)


def _arrived(net: OverlayNet) -> int:
    found = re.search(r"tx pkts=(\d+)", net.nves[1].ofctl("dump-ports", net.vms[1].spec.port))
    return int(found[1]) if found else 0


def _used(net: OverlayNet) -> float:
    return sum(_processor(nve) for nve in net.nves)


def _processor(nve: NVE) -> float:
    """Seconds of processor time of an edge's vswitchd."""
    words = Path(f"/proc/{nve.switch_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS
