"""A frame of the underlay, layer by layer, for people to read."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from proof.capture import ETHERNET, GRE, IPV4, UDP, VXLAN_PORT

_KINDS = {0x0800: "IPv4", 0x86DD: "IPv6"}
_UDP_HEADER, _VXLAN_HEADER = 8, 8
_GRE_CHECKSUM = 0x8000  # flag of GRE (RFC 2890): a checksum comes before the key


@dataclass(frozen=True)
class Layer:
    """One header, or the payload, and in lines what it says. `inner`: it belongs to the packet as the guest sent it."""

    name: str
    data: bytes
    meaning: tuple[str, ...]
    inner: bool


def layers(frame: bytes) -> list[Layer]:
    """Take a frame with a UDP datagram apart, whatever it is carried in. ValueError: it is something else."""
    inner = _is_plain(frame)
    found = [_ethernet(frame, inner=False)]
    kind, rest = int.from_bytes(frame[12:14], "big"), frame[ETHERNET:]
    while True:
        header, protocol, rest = _ip(rest, kind, inner)
        found.append(header)
        if protocol == GRE:
            key = 8 if int.from_bytes(rest[:2], "big") & _GRE_CHECKSUM else 4
            network = int.from_bytes(rest[key : key + 4], "big")
            found.append(Layer("GRE", rest[: key + 4], (f"network {network}",), False))
            kind, rest, inner = int.from_bytes(rest[2:4], "big"), rest[key + 4 :], True
            continue
        if protocol != UDP:
            raise ValueError(f"IP protocol {protocol}")
        source, target = (int.from_bytes(rest[at : at + 2], "big") for at in (0, 2))
        found.append(Layer("UDP", rest[:_UDP_HEADER], (f"port {source} to {target}",), inner))
        rest = rest[_UDP_HEADER:]
        if inner or target != VXLAN_PORT:
            found.append(Layer("payload", rest, ("what the sender wrote",), True))
            return found
        vni = int.from_bytes(rest[4:7], "big")
        found.append(Layer("VXLAN", rest[:_VXLAN_HEADER], (f"network {vni}",), False))
        rest, inner = rest[_VXLAN_HEADER:], True
        found.append(_ethernet(rest, inner=False))
        kind, rest = int.from_bytes(rest[12:14], "big"), rest[ETHERNET:]


def _is_plain(frame: bytes) -> bool:
    """It is in no tunnel, so its IP header is the guest's own."""
    four = int.from_bytes(frame[12:14], "big") == IPV4
    protocol = frame[ETHERNET + 9] if four else frame[ETHERNET + 6]
    head = ETHERNET + ((frame[ETHERNET] & 15) * 4 if four else 40)
    return protocol == UDP and int.from_bytes(frame[head + 2 : head + 4], "big") != VXLAN_PORT


def _ethernet(data: bytes, inner: bool) -> Layer:
    return Layer("Ethernet", data[:ETHERNET], (f"{data[6:12].hex(':')} to {data[:6].hex(':')}",), inner)


def _ip(data: bytes, kind: int, inner: bool) -> tuple[Layer, int, bytes]:
    """(header, protocol, what follows)."""
    if kind == IPV4:
        size, family, at, length, hops, protocol = (data[0] & 15) * 4, socket.AF_INET, 12, 4, data[8], data[9]
        words = "TTL"
    else:
        size, family, at, length, hops, protocol = 40, socket.AF_INET6, 8, 16, data[7], data[6]
        words = "hop limit"
    if kind not in _KINDS or len(data) < size:
        raise ValueError(f"Ethernet type {kind:#06x}")
    source, target = (socket.inet_ntop(family, data[n : n + length]) for n in (at, at + length))
    says = (f"{source} to {target}", f"{words} {hops}") if kind == IPV4 else (source, f"to {target}", f"{words} {hops}")
    return Layer(_KINDS[kind], data[:size], says, inner), protocol, data[size:]
