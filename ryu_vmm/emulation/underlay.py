"""The underlay's Ethernet between the NVEs' outer bridges (br-ext), which packets of ILA cross as they are.

Each NVE has a bridge with three ports: the underlay's wire, its host's IPv6 stack, and a patch to the NVE's inner
bridge. The outer bridge learns MACs and floods what it does not know; above that, one flow hands every IPv6 packet for
the NVE's locator to the patch, wherever it came from (and drops it where that was the patch). Hosts answer neighbor
solicitations for their address and take nothing else. Routers of the underlay, if there are any, forward to locators.

No I/O and no clock: a frame crosses at once, and all that it makes others say with it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

from ..errors import DecodeError
from ..wire import frames, ip

Name = TypeVar("Name", bound=Hashable)
_LOCATOR = 8
_ETHERNET = 14
_DST6 = slice(38, 54)
_NO_ADDRESS = bytes(16)


class Host(NamedTuple):
    """An NVE's outer bridge and host: its MAC, its IPv6 address, the 64 bits of its locator (None: it has none)."""

    mac: bytes
    address: bytes
    locator: bytes | None


class _Place(NamedTuple):
    """A port: that of an NVE's ``patch`` or ``host``, or a ``router``'s."""

    kind: str
    name: Any


class Underlay(Generic[Name]):
    """The wire and everybody at it, by the names that the caller gives.

    Attributes:
        hosts: of the NVEs.
        silent: names whose hosts do not answer neighbor solicitations.
        reaches: whether the wire carries frames from one name to another; routers reach everybody.
        lost: packets that went nowhere, by cause.
    """

    def __init__(self) -> None:
        self.hosts: dict[Name, Host] = {}
        self.silent: set[Name] = set()
        self.reaches: Callable[[Name, Name], bool] = lambda a, b: True
        self.lost: Counter[str] = Counter()
        self._routers: dict[Hashable, tuple[bytes, bytes]] = {}  # MAC, address
        self._learned: dict[bytes, _Place] = {}
        self._waiting: deque[tuple[_Place, bytes]] = deque()
        self._arrived: list[tuple[Name, bytes]] = []

    def join(self, name: Name, mac: bytes, address: bytes, locator: bytes | None = None) -> None:
        """Connect an NVE, or change what it has. ``locator``: 8 bytes."""
        if locator is not None and len(locator) != _LOCATOR:
            raise ValueError(f"a locator of {len(locator)} bytes")
        self.leave(name)
        self.hosts[name] = Host(mac, address, locator)
        self._learned[mac] = _Place("host", name)

    def leave(self, name: Name) -> None:
        """Disconnect an NVE; nobody remembers what was behind it."""
        self.hosts.pop(name, None)
        self._learned = {mac: place for mac, place in self._learned.items() if place.name != name}

    def route(self, name: Hashable, mac: bytes, address: bytes) -> None:
        """Connect a router, which knows the way to every locator."""
        self._routers[name] = (mac, address)
        self._learned[mac] = _Place("router", name)

    def send(self, name: Name, frame: bytes) -> list[tuple[Name, bytes]]:
        """An NVE's inner bridge sends a frame by its patch port; what comes in by whose patch port, in order."""
        self._arrived = []
        if name not in self.hosts or len(frame) < _ETHERNET:
            self.lost["not connected" if name not in self.hosts else "malformed"] += 1
            return []
        self._waiting.append((_Place("patch", name), frame))
        while self._waiting:
            self._bridge(*self._waiting.popleft())
        return self._arrived

    def _bridge(self, source: _Place, frame: bytes) -> None:
        if not frame[6] & 1:
            self._learned[frame[6:12]] = source
        if source.kind != "router" and self._hands_over(source.name, frame):
            if source.kind == "host":
                self._arrived.append((source.name, frame))
            else:
                self.lost["own locator"] += 1
            return
        known = None if frame[0] & 1 else self._learned.get(frame[:6])
        targets = [known] if known is not None else self._everybody()
        met = set()
        for place in targets:
            if place == source:
                continue
            far = "router" not in (place.kind, source.kind) and place.name != source.name
            if far and not self.reaches(source.name, place.name):
                self.lost["cut"] += 1
            elif place.kind != "router" and place.name != source.name and self._hands_over(place.name, frame):
                if place.name not in met:
                    met.add(place.name)
                    self._arrived.append((place.name, frame))
            elif place.kind == "patch":
                self._arrived.append((place.name, frame))
            else:
                self._stack(place, frame)

    def _everybody(self) -> list[_Place]:
        ports = [_Place(kind, name) for name in self.hosts for kind in ("patch", "host")]
        return ports + [_Place("router", name) for name in self._routers]

    def _hands_over(self, name: Name, frame: bytes) -> bool:
        """The flow of an outer bridge: whether it gives a frame to its patch port."""
        locator = self.hosts[name].locator
        dst = frame[_DST6]
        return locator is not None and frame[12:14] == frames.ETH_IPV6 and len(dst) == 16 and dst[:_LOCATOR] == locator

    def _stack(self, place: _Place, frame: bytes) -> None:
        """What a host or a router makes of a frame."""
        mac, address = self._routers[place.name] if place.kind == "router" else self.hosts[place.name][:2]
        if frame[:6] != mac and not frame[0] & 1:
            return
        try:
            if frames.classify(frame) in (frames.Kind.NS, frames.Kind.DAD):
                asked = frames.parse_nd(frame)
                if asked.target == address and place.name not in self.silent:
                    self._waiting.append((place, _advertisement(asked, mac)))
            elif place.kind == "router" and frame[:6] == mac:
                self._forward(place, mac, frame)
        except DecodeError:
            self.lost["malformed"] += 1

    def _forward(self, place: _Place, mac: bytes, frame: bytes) -> None:
        packet = ip.parse_ip(frame)
        to = next((host for host in self.hosts.values() if host.locator == packet.dst[:_LOCATOR]), None)
        after = ip.routed(frame)
        if to is None or after is None:
            self.lost["no route" if to is None else "hop limit"] += 1
            return
        self._waiting.append((place, to.mac + mac + after[12:]))


def _advertisement(asked: frames.Nd, mac: bytes) -> bytes:
    if asked.src == _NO_ADDRESS:
        return frames.build_na_for_dad(asked.target, mac)
    return frames.build_na(asked.target, mac, asked.src, asked.lladdr or asked.eth_src)
