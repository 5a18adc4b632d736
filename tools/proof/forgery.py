"""Forged frames from guests' ports and from the underlay, with traffic running: none is believed, all are counted."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ryu_vmm.tables import Drop
from topologies import VM, VMSpec, netns
from topologies.errors import NotReady
from topologies.rundir import wait_until
from topologies.traffic.session import Outcome, UdpSession, both_ways

from . import raw
from .ears import Ears
from .forgeries import MARK, Forgery, Tunnelled, Who, claims, others, tunnelled
from .lab import Lab

#: How often each kind is sent.
TIMES = 5
#: Options under which every kind is heard of, and a flood is one.
OPTIONS = {"forgery_rate": 200, "offender_rate": 30, "report_interval": 1, "silence_time": 30}
_RATE = 250.0
_EVIL = "evil0"


def guests() -> list[VMSpec]:
    """vm1 and vm2 in vn1, on nve1 and nve2; vm3 and vm4 in vn2, on nve3 and nve1; vm5, never registered, on nve1."""
    homes = [("vn1", "nve1"), ("vn1", "nve2"), ("vn2", "nve3"), ("vn2", "nve1"), ("vn1", "nve1")]
    found = []
    for n, (vn, nve) in enumerate(homes, 1):
        k = int(vn[2:])
        found.append(
            VMSpec(
                f"vm{n}", vn=vn, nve=nve, mac=f"02:00:00:00:{k:02x}:{n:02x}", ipv4=f"10.0.{k - 1}.{n}/24",
                ipv6=f"2001:db8:0:{k - 1}::{n}/64",
            )
        )
    return found


@contextlib.contextmanager
def laboratory(**options: Any) -> Iterator[Lab]:
    """Three edges, two networks, five guests of which one is nobody's."""
    with Lab(nves=3, vms=guests(), vns=2, register=False, **{**OPTIONS, **options}) as lab:
        for nve in lab.net.nves:
            lab.net.need_rest().add_nve(nve)
        for vn in lab.net.topo.vn_specs:
            lab.net.need_rest().add_network(vn)
        for spec in lab.net.topo.vm_specs[:4]:
            lab.post("/vms", lab.body(spec))
        lab.await_synced()
        yield lab


class Watcher(Ears):
    """Looks for forged frames at the cards of all guests; a context manager.

    ``delivered``: (guest, name of the forgery).
    """

    def __init__(self, vms: Sequence[VM]) -> None:
        super().__init__([raw.Card(vm) for vm in vms], "watcher")
        self.forged: dict[bytes, str] = {}
        self.delivered: list[tuple[str, str]] = []

    def expect(self, name: str, frame: bytes) -> None:
        """From now on this is a forgery; a tag may have been taken off on the way."""
        for shape in {frame, frame[:12] + frame[16:] if frame[12:14] == b"\x81\0" else frame}:
            self.forged[shape.ljust(60, b"\0")] = name

    def heard(self, card: raw.Card, frame: bytes) -> None:
        name = self.forged.get(frame.ljust(60, b"\0"))
        if name is not None or MARK in frame:
            self.delivered.append((card.vm.name, name or "marked data"))


class Intruder:
    """A host on the underlay that is no NVE; a context manager."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._namespace = lab, lab.net.underlay.namespace
        self._sock: socket.socket

    def __enter__(self) -> Intruder:
        netns.ip_batch(
            self._namespace,
            f"link add {_EVIL} mtu 1600 type veth peer name {_EVIL}p mtu 1600",
            f"link set {_EVIL}p master br0 up",
            f"link set {_EVIL} up",
        )
        with netns.entered(self._namespace):
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sock.bind((_EVIL, 0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()
        netns.ip_batch(self._namespace, f"link del {_EVIL}")

    def send(self, packet: Tunnelled, edge: str) -> None:
        """Send a VXLAN packet to an edge."""
        nve = self._lab.net.nve(edge)
        text = netns.run(["ip", "-n", nve.namespace, "link", "show", "br-ext"])
        found = re.search(r"link/ether ([0-9a-f:]+)", text)
        assert found is not None
        address = raw.ip(nve.ipv4.partition("/")[0])
        source = packet.source or address
        self._sock.send(Tunnelled(
            source, packet.vni, packet.inner, packet.cause, packet.flags, packet.reserved
        ).packet(raw.mac(found[1]), address))  # fmt: skip


@dataclass
class Row:
    """One group of attempts: kinds and frames tried; what came of them."""

    name: str
    kinds: int = 0
    tried: int = 0
    moved: int = 0  # directory entries changed, moves opened or activated
    delivered: int = 0  # frames that reached a guest
    counted: int = 0  # by the switches, under the causes that they ought to be
    heard: int = 0  # reported as events
    expected_heard: int | None = 0  # None: a limited number of them
    problems: list[str] = field(default_factory=list)

    @property
    def believed(self) -> int:
        """What ought to be 0."""
        return self.moved + self.delivered

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "believed": self.believed}


@dataclass
class Found:
    """All that was tried."""

    rows: list[Row] = field(default_factory=list)
    traffic: Outcome | None = None
    flood: tuple[int, float] | None = None  # packets that reached the NVA, seconds
    wrong: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = [f"{row.name}: {problem}" for row in self.rows for problem in row.problems]
        found += [f"{row.name}: {row.believed} believed" for row in self.rows if row.believed]
        found += [
            f"{row.name}: {row.heard} of {row.expected_heard} reported"
            for row in self.rows if row.expected_heard is not None and row.heard < row.expected_heard
        ]
        if self.traffic is not None and (self.traffic.lost or self.traffic.duplicated or not self.traffic.sent):
            traffic = self.traffic
            found.append(f"of {traffic.sent} datagrams {traffic.lost} lost, {traffic.duplicated} doubled")
        return [*found, *self.wrong]


class Forger:
    """Tries forgeries in a lab and counts what comes of them."""

    def __init__(self, lab: Lab, watcher: Watcher, intruder: Intruder) -> None:
        self._lab, self._watcher, self._intruder = lab, watcher, intruder
        self.found = Found()

    @contextlib.contextmanager
    def _row(self, name: str, kinds: int, times: int = TIMES) -> Iterator[Row]:
        """Counts around a group of attempts."""
        lab, row = self._lab, Row(name, kinds, kinds * times)
        before, delivered = self._directory(), len(self._watcher.delivered)
        after = lab.nva.last_event()
        yield row
        if row.expected_heard:
            with contextlib.suppress(NotReady):
                wait_until(lambda: self._heard(after) >= (row.expected_heard or 0), 6, "events", 0.2)
        time.sleep(0.3)  # for what must not come
        row.heard = self._heard(after)
        changed = self._directory()
        row.moved = sum(changed[key] != value for key, value in before.items()) + len(changed) - len(before)
        arrived = self._watcher.delivered[delivered:]
        row.delivered = len(arrived)
        row.problems += [f"{guest} got {what}" for guest, what in sorted(set(arrived))[:5]]
        self.found.rows.append(row)

    def _heard(self, after: str | None) -> int:
        return sum(e["fields"]["count"] for e in self._lab.nva.events(after, "announcement.refused"))

    def _directory(self) -> dict[str, object]:
        """Where everybody is, and which moves there are in which state."""
        entries = self._lab.get("/directory")["items"]
        moves = self._lab.get("/moves")["items"]
        return {
            **{f"{e['vm']}/{e['interface']}": (e["nve"], e["port"], e["epoch"]) for e in entries},
            **{f"move {m['id']}": m["state"] for m in moves},
        }

    def from_port(self, name: str, vm: VM, forgeries: dict[str, Forgery], cause: Drop | None = None) -> None:
        """Send forgeries from a guest's port; ``cause``: one for all, where the port is nobody's."""
        lab = self._lab
        causes = sorted({cause or forgery.cause for forgery in forgeries.values()})
        before = {each: lab.dropped(each) for each in causes}
        with self._row(name, len(forgeries)) as row, raw.Card(vm) as card:
            row.expected_heard = sum(TIMES for forgery in forgeries.values() if forgery.heard)
            for kind, forgery in forgeries.items():
                self._watcher.expect(kind, forgery.frame)
                for _ in range(TIMES):
                    card.send(forgery.frame)
                time.sleep(0.03)  # below the rate at which forgeries are handed over
            self._count(row, before, {
                each: TIMES * sum((cause or forgery.cause) is each for forgery in forgeries.values()) for each in causes
            })  # fmt: skip

    def _count(self, row: Row, before: dict[Drop, int], wanted: dict[Drop, int]) -> None:
        """Wait for the switches' counters, which Open vSwitch refreshes now and then."""
        for cause, least in wanted.items():
            with contextlib.suppress(NotReady):
                self._lab.await_dropped(cause, before[cause] + least)
            grown = self._lab.dropped(cause) - before[cause]
            row.counted += grown
            if grown < least:
                row.problems.append(f"{grown} of {least} counted as {cause.name}")

    def from_underlay(self, name: str, edge: str, packets: dict[str, Tunnelled]) -> None:
        """Send VXLAN packets to an edge."""
        lab = self._lab
        causes = sorted({packet.cause for packet in packets.values() if packet.cause is not None})
        before = {cause: lab.dropped(cause) for cause in causes}
        with self._row(name, len(packets)) as row:
            for kind, packet in packets.items():
                self._watcher.expect(kind, packet.inner)
                for _ in range(TIMES):
                    self._intruder.send(packet, edge)
            self._count(row, before, {
                cause: TIMES * sum(packet.cause is cause for packet in packets.values()) for cause in causes
            })  # fmt: skip

    def flood(self, vm: VM, forgery: Forgery, frames: int) -> tuple[int, float]:
        """As many forgeries as a guest can send: (packets handed to the NVA, seconds)."""
        lab = self._lab
        handed, started = lab.nva.counters("packet_ins").get("drop", 0), time.monotonic()
        after = lab.nva.last_event()
        with self._row("flood of one kind", 1, frames) as row, raw.Card(vm) as card:
            row.expected_heard = None
            before = lab.dropped(forgery.cause)
            for sent in range(frames):
                card.send(forgery.frame)
                if not sent % 100:  # for long enough that it is more than what is allowed at once
                    time.sleep(0.01)
            self._count(row, {forgery.cause: before}, {forgery.cause: frames // 10})  # the card drops what is too much
        seconds = time.monotonic() - started
        reached = lab.nva.counters("packet_ins").get("drop", 0) - handed
        if reached > OPTIONS["forgery_rate"] * (seconds + 2):
            row.problems.append(f"{reached} packets in {seconds:.1f} s reached the NVA")
        try:
            lab.nva.await_event("port.offender", after, nve=vm.nve.name, port=vm.spec.port)
        except NotReady:
            row.problems.append("no offender was reported")
        if len(lab.nva.events(after, "announcement.refused")) > 3 + seconds:
            row.problems.append("the flood became a flood of events")
        return reached, seconds


def run(lab: Lab, flood: int = 30_000) -> Found:
    """Try everything, with traffic between vm1 and vm2."""
    me, peer, twin, nobody = (lab.vm(name) for name in ("vm1", "vm2", "vm4", "vm5"))
    pairs = both_ways(me, peer, 4, _RATE) + both_ways(me, peer, 6, _RATE)
    # what guests drop before they know each other's MAC addresses is not ours
    lab.net.await_pings([me, peer])
    with Watcher(lab.net.vms) as watcher, Intruder(lab) as intruder, UdpSession(pairs, quiet=0.5) as traffic:
        forger = Forger(lab, watcher, intruder)
        forger.from_port("a guest's port: announcements", me, claims(Who.of(me), Who.of(peer)))
        forger.from_port("a guest's port: other packets", me, others(Who.of(me), Who.of(peer)))
        strange = {
            name: forgery for name, forgery in claims(Who.of(nobody), Who.of(peer)).items()
            if not name.startswith("NS")  # from nobody's port no question passes, and none is an announcement
        }
        forger.from_port("a port of nobody", nobody, strange, Drop.UNKNOWN_PORT)
        _beside_a_move(lab, forger)
        addresses = [raw.ip(lab.net.nve(name).ipv4.partition("/")[0]) for name in ("nve2", "nve3")]
        vnis = [vn.vni for vn in lab.net.topo.vn_specs]
        member, outsider = addresses
        stranger = member[:3] + b"\x4d"
        forger.from_underlay("the underlay, to an edge of both networks", "nve1",
                             tunnelled(member, outsider, stranger, vnis[0], 4711, Who.of(me)))
        forger.from_underlay("the underlay, to an edge of one network", "nve2",
                             tunnelled(raw.ip(lab.net.nve("nve1").ipv4.partition("/")[0]), outsider, stranger,
                                       vnis[0], vnis[1], Who.of(peer)))
        forger.found.traffic = traffic.stop()
        if flood:
            forgery = claims(Who.of(twin), Who.of(lab.vm("vm3")))["GARP request of the victim"]
            forger.found.flood = forger.flood(twin, forgery, flood)
    forger.found.wrong += lab.verify()
    return forger.found


def _beside_a_move(lab: Lab, forger: Forger) -> None:
    """A move of vm2 to the port of the guest that is nobody's waits to be activated; then it is aborted."""
    peer, nobody = lab.vm("vm2"), lab.vm("vm5")
    move = lab.post("/moves", {"vm": "vm2", "to": "nve1", "ports": {"eth0": nobody.spec.port}})
    lab.await_state(move["id"], "prepared")
    mark = lab.move(move["id"])["legs"][0]["mark"]
    # but for what is the VM's own in each header that the NVA reads: there, whatever it sends shows that it runs
    lies = claims(Who.of(peer), Who.of(lab.vm("vm1")))
    lies.pop("NA behind an extension header")
    forger.from_port("a move's destination, in other names", nobody, lies)
    forger.from_port("another port, for the VM that moves", lab.vm("vm4"), {
        name: forgery for name, forgery in claims(Who.of(lab.vm("vm4")), Who.of(peer)).items() if "victim" in name
    })  # fmt: skip
    outsider = raw.ip(lab.net.nve("nve3").ipv4.partition("/")[0])
    source = raw.ip(lab.net.nve("nve2").ipv4.partition("/")[0])
    data = tunnelled(source, outsider, outsider, 1, 1, Who.of(peer))["a VNI of nobody"].inner
    forger.from_underlay("a move's mark from an NVE that is not its source", "nve1", {
        "the mark": Tunnelled(outsider, mark, data, Drop.UNKNOWN_VNI),
    })  # fmt: skip
    lab.post(f"/moves/{move['id']}/abort")
    lab.await_closed(move["id"])
    forger.from_underlay("its mark after its end, from its source", "nve1", {
        "the mark": Tunnelled(source, mark, data, Drop.UNKNOWN_VNI),
    })  # fmt: skip


__all__ = ["Forger", "Found", "Row", "laboratory", "run"]
