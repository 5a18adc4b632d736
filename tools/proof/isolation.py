"""Two networks with the same addresses: whatever a VM sends carries its network's mark, and nobody else may see it.

Marked datagrams (see topologies.traffic.packet) go to single VMs, to everybody and to groups; questions for addresses
that nobody has carry the mark in the address that they ask for. The detector listens below the VMs' IP stacks, where
also frames for other MAC addresses are seen.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from topologies import VM, MoveReport
from topologies.traffic.packet import HEADER, MAGIC
from topologies.traffic.session import Outcome, UdpSession, both_ways

from . import raw
from .ears import Ears
from .lab import Lab

_MARK = int.from_bytes(MAGIC, "big")
_RATE = 300.0  # datagrams per second in each direction
_EVERY = 0.02  # seconds between the broadcasts of a VM
_LD_W, _LD_H, _LD_B, _JEQ, _JSET, _RET = 0x20, 0x28, 0x30, 0x15, 0x45, 0x06
_PACKET_TYPE = 0xFFFFF004  # the ancillary word that says which way a frame goes
_ALL, _NONE = 0xFFFF, 0


def _suspicious(tag: int) -> list[raw.Instruction]:
    """A filter: everything sent to all or to groups, and single VMs' datagrams with another network's mark."""
    return [
        (_LD_B, 0, 0, _PACKET_TYPE), (_JEQ, 12, 0, 4),  # outgoing: no
        (_LD_B, 0, 0, 0), (_JSET, 11, 0, 1),  # to a group: yes
        (_LD_H, 0, 0, 12), (_JEQ, 0, 4, raw.IPV4),
        (_LD_W, 0, 0, 42), (_JEQ, 0, 6, _MARK), (_LD_W, 0, 0, 46), (_JEQ, 4, 5, tag),
        (_LD_W, 0, 0, 62), (_JEQ, 0, 2, _MARK), (_LD_W, 0, 0, 66), (_JEQ, 0, 1, tag),
        (_RET, 0, 0, _NONE), (_RET, 0, 0, _ALL),
    ]


def tag_of(frame: bytes) -> tuple[int, int, int] | None:
    """(network's mark, sender's number, sequence number) of a marked frame, None if it bears no mark."""
    kind = raw.kind_of(frame)
    if kind == raw.ARP and len(frame) >= 42 and frame[38:41] == b"\x0a\0\0" and frame[41] >= 200:
        return 100 * (frame[41] - 199), 0, 0
    if kind == raw.IPV6 and len(frame) >= 78 and frame[20] == 58 and frame[54] == 135 and frame[74:76] == b"\xde\xad":
        return int.from_bytes(frame[76:78], "big"), 0, 0
    at = 42 if kind == raw.IPV4 else 62
    if kind not in (raw.IPV4, raw.IPV6) or len(frame) < at + HEADER.size or frame[at : at + 4] != MAGIC:
        return None
    _, tag, sender, number, _ = HEADER.unpack_from(frame, at)
    return tag, sender, number


@dataclass
class Seen:
    """What the detector saw. own: marked frames to groups, by (receiver, sender's number, sequence number)."""

    foreign: list[str] = field(default_factory=list)
    foreign_kinds: Counter[str] = field(default_factory=Counter)
    questions: Counter[str] = field(default_factory=Counter)
    own: Counter[tuple[str, int, int]] = field(default_factory=Counter)


class Detector(Ears):
    """Listens at all VMs' cards; a context manager."""

    def __init__(self, vms: Sequence[VM], tags: dict[str, int]) -> None:
        super().__init__([raw.Card(vm, _suspicious(tags[vm.spec.vn])) for vm in vms], "detector")
        self.seen = Seen()
        self._tags = tags

    def heard(self, card: raw.Card, frame: bytes) -> None:
        self._take(card.vm.name, self._tags[card.vm.spec.vn], frame)

    def _take(self, name: str, tag: int, frame: bytes) -> None:
        found = tag_of(frame)
        if found is None:
            return
        mark, sender, number = found
        if mark != tag:
            self.seen.foreign.append(f"{name}: {frame[:90].hex()}")
            to = "group" if frame[0] & 1 else "single"
            self.seen.foreign_kinds["question" if not sender else to] += 1
        elif sender:
            self.seen.own[(name, sender, number)] += 1
        else:
            self.seen.questions[name] += 1


class Beacons:
    """Every VM speaks to everybody of its network: broadcast, multicast, questions that nobody can answer."""

    def __init__(self, vms: Sequence[VM], tags: dict[str, int]) -> None:
        self.sent: dict[int, int] = {}
        self.numbers: dict[int, VM] = {}
        self._vms, self._tags = list(vms), tags
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._speak, name="beacons")

    def _frames(self, vm: VM, sender: int, number: int) -> list[bytes]:
        spec, tag = vm.spec, self._tags[vm.spec.vn]
        assert spec.ip is not None
        assert spec.ip6 is not None
        own, four, six = raw.mac(spec.mac), raw.ip(spec.ip), raw.ip(spec.ip6)
        payload = HEADER.pack(MAGIC, tag, sender, number, time.monotonic_ns())
        match number % 4:
            case 0 | 2:
                return [raw.udp4(raw.BROADCAST, own, four, b"\xff" * 4, payload)]
            case 1:
                return [raw.udp6(b"\x33\x33\0\0\0\1", own, six, raw.ALL_NODES, payload)]
        # besides a group of their own: questions, which bear no number
        return [
            raw.udp4(b"\x01\0\x5e\x01\x02\x03", own, four, bytes((239, 1, 2, 3)), payload),
            raw.arp(1, own, four, bytes(6), bytes((10, 0, 0, 199 + tag // 100))),
            raw.solicitation(own, six, six[:12] + b"\xde\xad" + tag.to_bytes(2, "big")),
        ]

    def _speak(self) -> None:
        cards = [raw.Card(vm) for vm in self._vms]
        try:
            due, number = time.monotonic(), 0
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                for sender, card in enumerate(cards, 1):
                    for frame in self._frames(card.vm, sender, number):
                        card.send(frame)
                    self.sent[sender] = number + 1
                    self.numbers[sender] = card.vm
                number += 1
                due += _EVERY
        finally:
            for card in cards:
                card.sock.close()

    def __enter__(self) -> Beacons:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


@dataclass(frozen=True)
class Isolated:
    """What came of it. broadcasts: sent to all or a group, times receivers; lost and doubled of these."""

    moves: list[MoveReport]
    traffic: Outcome
    seen: Seen
    broadcasts: int
    lost: int
    doubled: int
    wrong: list[str]

    def problems(self) -> list[str]:
        """What should not be so, in words."""
        found = list(self.wrong)
        if self.seen.foreign:
            found.append(f"{len(self.seen.foreign)} frames of another network: {self.seen.foreign[:3]}")
        if self.traffic.foreign:
            found.append(f"{self.traffic.foreign} datagrams of another network: {self.traffic.samples}")
        idle = [flow.name for flow in self.traffic.flows if not flow.count.received]
        if idle:
            found.append(f"nothing arrived from {idle}, so nothing is shown")
        if not self.broadcasts or not self.seen.questions:
            found.append("no broadcasts or no questions arrived, so nothing is shown")
        return found


def tags(lab: Lab) -> dict[str, int]:
    """The mark of each network: its VNI."""
    return {vn.name: vn.vni for vn in lab.net.topo.vn_specs}


def session(lab: Lab) -> UdpSession:
    """Datagrams both ways between the first VM of each network and all others of it, IPv4 and IPv6."""
    pairs = []
    for vn in tags(lab):
        first, *others = [vm for vm in lab.net.vms if vm.spec.vn == vn]
        for n, other in enumerate(others):
            pairs += both_ways(first, other, 4 if n % 2 else 6, _RATE)
    return UdpSession(pairs, quiet=0.5)


def run(
    lab: Lab, rounds: Sequence[tuple[bool, str]] = ((True, "garp-request"), (False, "rarp")), **options: Any
) -> Isolated:
    """Move the first VM of each network, both at the same time, once for each (planned, announcement).

    `options` as for `topologies.move.move`.
    """
    movers = [next(vm for vm in lab.net.vms if vm.spec.vn == vn) for vn in tags(lab)]
    reports: list[MoveReport] = []
    wrong: list[str] = []
    with Detector(lab.net.vms, tags(lab)) as detector, session(lab) as traffic:
        with Beacons(lab.net.vms, tags(lab)) as beacons:
            time.sleep(0.5)  # before
            for planned, announce in rounds:
                after = lab.nva.last_event()

                def move(vm: VM, step: int, how: tuple[bool, str] = (planned, announce)) -> MoveReport:
                    return vm.move(lab.next_nve(vm, step), announce=how[1], planned=how[0], **options)

                with ThreadPoolExecutor(len(movers)) as pool:
                    reports += pool.map(move, movers, range(1, len(movers) + 1))
                for vm in movers:
                    opened = lab.nva.await_event("move.state", after, vm=vm.name, state="draining")
                    lab.await_closed(opened["fields"]["move"])
                wrong += lab.verify()
            time.sleep(0.3)  # after
        outcome = traffic.stop()  # returns when nothing arrives any more, so the broadcasts are there too
    peers = {vn: [vm for vm in lab.net.vms if vm.spec.vn == vn] for vn in tags(lab)}
    expected = [
        (vm.name, sender, number)
        for sender, count in beacons.sent.items()
        for vm in peers[beacons.numbers[sender].spec.vn] if vm is not beacons.numbers[sender]
        for number in range(count)
    ]
    lost = sum(detector.seen.own[key] == 0 for key in expected)
    doubled = sum(max(0, detector.seen.own[key] - 1) for key in expected)
    return Isolated(reports, outcome, detector.seen, len(expected), lost, doubled, wrong)


def leak(lab: Lab, seconds: float = 1.0) -> tuple[Seen, int]:
    """Make one NVE hand everything that a VM of the first network sends to one of the second, and say what was seen.

    That is what the detector is there to find: (what it saw, foreign datagrams that a VM's own socket received).
    """
    one, two = lab.net.vms[0], lab.net.vms[1]
    if one.nve is not two.nve or one.spec.vn == two.spec.vn:
        raise AssertionError("the leak needs two VMs of different networks at one NVE")
    nve = one.nve
    port, other = nve.ofport(one.spec.port), nve.ofport(two.spec.port)
    sources = [vm for vm in lab.net.vms if vm.spec.vn == one.spec.vn and vm is not one]
    pairs = both_ways(one, sources[0], 4, _RATE)
    victim = both_ways(two, next(vm for vm in lab.net.vms if vm.spec.vn == two.spec.vn and vm is not two), 4, _RATE)
    # what the first VM sends; and what comes to it through its own port's deliver flow
    nve.ofctl("add-flow", f"table=0,priority=1000,cookie=0xbad,in_port={port},"
              f"actions=output:{other},set_field:{tags(lab)[one.spec.vn]}->tun_id,goto_table:10")
    nve.ofctl("add-flow", f"table=40,priority=1000,cookie=0xbad,tun_id={tags(lab)[one.spec.vn]},"
              f"dl_dst={one.spec.mac},actions=output:{port},output:{other}")
    try:
        with (
            Detector(lab.net.vms, tags(lab)) as detector, UdpSession([*pairs, *victim], quiet=0.3) as traffic,
            Beacons(lab.net.vms, tags(lab)),
        ):
            time.sleep(seconds)
            outcome = traffic.stop()
    finally:
        nve.ofctl("del-flows", "cookie=0xbad/-1")
    return detector.seen, outcome.foreign
