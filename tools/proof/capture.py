"""What an NVE's underlay link carries: every frame taken apart, every checksum in it verified.

Written for the measurements, from the RFCs, and without the NVA's codecs: VXLAN (RFC 7348), GRE with a key (RFC 2890),
IPv4, IPv6, UDP, TCP, ICMP and ICMPv6.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType

from topologies import NVE, netns
from topologies.frames import checksum

ETHERNET = 14
IPV4, IPV6 = 0x0800, 0x86DD
TCP, UDP, ICMP, ICMPV6, GRE, FRAGMENT = 6, 17, 1, 58, 47, 44
VXLAN_PORT = 4789
_ETH_P_ALL, _PACKET_OUTGOING = 3, 4
_SO_RCVBUFFORCE = 33
_BUFFER = 64 << 20
_ROOM = 2048
_KEY, _KEY_AND_CHECKSUM = b"\x20\0", b"\xa0\0"


@dataclass(frozen=True)
class Packet:
    """An IP packet. `hops`: TTL or hop limit; `length`: bytes with its header; `body`: what follows the IP header.

    `wrong` says which checksums are not right; of fragments only the IPv4 header's is looked at.
    """

    src: str
    dst: str
    protocol: int
    hops: int
    length: int
    body: bytes
    fragment: bool = False
    wrong: tuple[str, ...] = ()

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.src else 4

    @property
    def ports(self) -> tuple[int, int] | None:
        """(source, destination) of TCP and UDP."""
        if self.fragment or self.protocol not in (TCP, UDP) or len(self.body) < 4:
            return None
        found: tuple[int, int] = struct.unpack_from("!HH", self.body)
        return found

    @property
    def payload(self) -> bytes:
        """Of UDP; of anything else, all."""
        return self.body[8:] if self.protocol == UDP else self.body


@dataclass(frozen=True)
class Carried:
    """A frame on the underlay: `how` its packet is carried ("vxlan", "gre" or "plain"), and what it is.

    `length`: of the whole frame, from the destination MAC on and without a frame check sequence. `vni`: of tunnels.
    `outer`: the packet of the underlay. `inner`: in a tunnel the packet inside (None: it is not IP), else `outer`.
    `macs`: the frame's destination and source. `wrong`: all checksums that are not right, outside and
    inside. `sent`: it leaves the NVE. `at`: when, in monotonic seconds. `data`: the whole frame.
    """

    how: str
    length: int
    outer: Packet
    inner: Packet | None
    vni: int | None = None
    macs: bytes = b""
    sent: bool = False
    wrong: tuple[str, ...] = ()
    at: float = field(default=0.0, compare=False)
    data: bytes = field(default=b"", compare=False, repr=False)


def packet(data: bytes, kind: int) -> Packet | None:
    """An IP packet taken apart; None for what is none, or is cut short."""
    if kind == IPV4 and len(data) >= 20 and data[0] >> 4 == 4:
        return _packet4(data)
    if kind == IPV6 and len(data) >= 40 and data[0] >> 4 == 6:
        return _packet6(data)
    return None


def _packet4(data: bytes) -> Packet | None:
    head = (data[0] & 15) * 4
    length = int.from_bytes(data[2:4], "big")
    if head < 20 or not head <= length <= len(data):
        return None
    wrong: tuple[str, ...] = () if checksum(data[:head]) == 0 else ("IPv4 header",)
    fragment = bool(int.from_bytes(data[6:8], "big") & 0x3FFF)
    body = data[head:length]
    src, dst = data[12:16], data[16:20]
    if not fragment:
        wrong += _upper(data[9], src + dst, body, six=False)
    here, there = (socket.inet_ntop(socket.AF_INET, one) for one in (src, dst))
    return Packet(here, there, data[9], data[8], length, body, fragment, wrong)


def _packet6(data: bytes) -> Packet | None:
    length = 40 + int.from_bytes(data[4:6], "big")
    if length > len(data):
        return None
    src, dst, protocol, body = data[8:24], data[24:40], data[6], data[40:length]
    fragment = protocol == FRAGMENT
    wrong = () if fragment else _upper(protocol, src + dst, body, six=True)
    here, there = (socket.inet_ntop(socket.AF_INET6, one) for one in (src, dst))
    return Packet(here, there, protocol, data[7], length, body, fragment, wrong)


def _upper(protocol: int, addresses: bytes, body: bytes, *, six: bool) -> tuple[str, ...]:
    """Which checksum of the upper layer is wrong. UDP over IPv4 may have none (RFC 768), over IPv6 it must."""
    name = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMPv6"}.get(protocol)
    if name is None or protocol == (ICMP if six else ICMPV6):
        return ()
    if protocol == UDP and body[6:8] == b"\0\0":
        return ("UDP: none",) if six else ()
    if protocol == ICMP:
        pseudo = b""
    else:
        pseudo = addresses + struct.pack("!II", len(body), protocol)  # sums up to the same in either family
    return () if checksum(pseudo + body) == 0 else (name,)


def carried(frame: bytes) -> Carried | None:
    """A frame of the underlay taken apart; None for what is no IP."""
    outer = packet(frame[ETHERNET:], int.from_bytes(frame[12:14], "big"))
    if outer is None:
        return None
    found = Carried("plain", len(frame), outer, outer, macs=frame[:12], wrong=outer.wrong, data=frame)
    if outer.fragment:
        return found
    if outer.protocol == GRE and outer.body[:2] in (_KEY, _KEY_AND_CHECKSUM):
        head = 8 if outer.body[:2] == _KEY else 12  # RFC 2784 section 2.1, RFC 2890: the checksum comes first
        if len(outer.body) >= head:
            [kind], [vni] = struct.unpack_from("!H", outer.body, 2), struct.unpack_from("!I", outer.body, head - 4)
            if head == 12 and checksum(outer.body):
                found = replace(found, wrong=(*found.wrong, "GRE"))
            return _tunnelled(found, "gre", vni, packet(outer.body[head:], kind))
    if outer.protocol == UDP and outer.ports and outer.ports[1] == VXLAN_PORT and len(outer.body) >= 16 + ETHERNET:
        inside = outer.body[16:]
        vni = int.from_bytes(outer.body[12:15], "big")
        return _tunnelled(found, "vxlan", vni, packet(inside[ETHERNET:], int.from_bytes(inside[12:14], "big")))
    return found


def _tunnelled(found: Carried, how: str, vni: int, inner: Packet | None) -> Carried:
    inside = tuple(f"inner {one}" for one in inner.wrong) if inner else ()
    return replace(found, how=how, vni=vni, inner=inner, wrong=found.wrong + inside)


class Capture:
    """Frames on an NVE's underlay link, both ways, from the moment of entering the context manager until `stop`."""

    def __init__(self, nve: NVE) -> None:
        self.nve = nve
        self._raw: list[tuple[float, bool, bytes]] = []
        self._ending = threading.Event()
        with netns.entered(nve.namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.bind(("und0", _ETH_P_ALL))
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._read, name=f"capture-{nve.name}", daemon=True)

    def _read(self) -> None:
        while not self._ending.is_set():
            if select.select([self._socket], [], [], 0.05)[0]:
                self._drain()
        self._drain()  # what has come since the last look is seen as well

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self._socket.recvfrom(_ROOM)
                self._raw.append((time.monotonic(), address[2] == _PACKET_OUTGOING, frame))

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.stop()

    def stop(self) -> list[Carried]:
        """End it; all IP packets that were seen, in order."""
        self._ending.set()
        self._thread.join()
        self._socket.close()
        return self.seen()

    def seen(self) -> list[Carried]:
        """All IP packets seen so far, in order."""
        found = []
        for at, sent, frame in list(self._raw):
            one = carried(frame)
            if one is not None:
                found.append(replace(one, sent=sent, at=at))
        return found

    def await_seen(self, wanted: Callable[[Carried], bool], seconds: float = 3.0) -> Carried | None:
        """The first that is wanted, None if there was none within so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            for one in self.seen():
                if wanted(one):
                    return one
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.02)
