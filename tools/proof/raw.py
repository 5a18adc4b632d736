"""Frames as VMs send and see them: packet sockets in the VMs' namespaces, and bytes built without the NVA's help."""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType

from topologies import VM, netns
from topologies.frames import checksum

BROADCAST = b"\xff" * 6
ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
ARP, RARP, IPV4, IPV6 = 0x0806, 0x8035, 0x0800, 0x86DD
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_ARP = struct.Struct("!6s6sHHHBBH6s4s6s4s")

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


class Card:
    """A VM's network card, as seen by a packet socket on it; a context manager.

    Frames that others of the VM's processes send are not received. `program` is a classic BPF filter.
    """

    def __init__(self, vm: VM, program: list[Instruction] | None = None) -> None:
        self.vm = vm
        with netns.entered(vm.namespace):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        if program:
            code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
            memory = ctypes.create_string_buffer(code)
            head = struct.pack("HxxxxxxP" if ctypes.sizeof(ctypes.c_void_p) == 8 else "HxxP", len(program),
                               ctypes.addressof(memory))
            self.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        self.sock.bind(("eth0", _ETH_P_ALL))  # only from here on does anything arrive
        self.sock.setblocking(False)

    def send(self, frame: bytes) -> None:
        """Send a frame as it is."""
        self.sock.send(frame)

    def read(self) -> bytes | None:
        """The next frame that has arrived, None if none has."""
        while True:
            try:
                frame, address = self.sock.recvfrom(2048)
            except BlockingIOError:
                return None
            if address[2] != _PACKET_OUTGOING:
                return frame

    def await_frame(self, wanted: Callable[[bytes], bool], seconds: float = 3.0) -> bytes | None:
        """The first frame that is wanted, None if none came within so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            frame = self.read()
            if frame is not None:
                if wanted(frame):
                    return frame
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            select.select([self.sock], [], [], left)

    def during(self, seconds: float) -> list[bytes]:
        """All frames that arrive within so many seconds."""
        found: list[bytes] = []
        self.await_frame(lambda frame: found.append(frame) or False, seconds)  # type: ignore[func-returns-value]
        return found

    def __enter__(self) -> Card:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()


# --- addresses ----------------------------------------------------------------------------------------------------
def mac(text: str) -> bytes:
    """A MAC address's bytes."""
    return bytes.fromhex(text.replace(":", ""))


def ip(text: str) -> bytes:
    """An IPv4 or IPv6 address's bytes."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def kind_of(frame: bytes) -> int:
    """The Ethernet type."""
    return int.from_bytes(frame[12:14], "big")


# --- building -----------------------------------------------------------------------------------------------------
def ethernet(dst: bytes, src: bytes, kind: int, payload: bytes) -> bytes:
    """A frame, padded to the least length."""
    return (dst + src + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def arp(
    operation: int, sha: bytes, spa: bytes, tha: bytes, tpa: bytes, dst: bytes = BROADCAST, kind: int = ARP
) -> bytes:
    """An ARP or RARP packet (RFC 826, RFC 903)."""
    return ethernet(dst, sha, kind, struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sha + spa + tha + tpa)


class ArpFields:
    """An ARP or RARP packet taken apart."""

    def __init__(self, frame: bytes) -> None:
        fields = _ARP.unpack_from(frame)
        self.dst, self.src, self.kind = fields[:3]
        self.operation = int(fields[7])
        self.sha, self.spa, self.tha, self.tpa = fields[8:12]


def udp4(dst_mac: bytes, src_mac: bytes, src: bytes, dst: bytes, payload: bytes, port: int = 5009) -> bytes:
    """A UDP datagram over IPv4, without the checksum that UDP does not need there."""
    body = struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0, src, dst)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return ethernet(dst_mac, src_mac, IPV4, head + body)


def ipv6(dst_mac: bytes, src_mac: bytes, src: bytes, dst: bytes, protocol: int, body: bytes, at: int = 2) -> bytes:
    """An IPv6 packet whose upper layer has its checksum `at` so many bytes of `body`. Hop limit 255."""
    pseudo = src + dst + struct.pack("!II", len(body), protocol)
    body = body[:at] + b"\0\0" + body[at + 2 :]
    body = body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]
    head = struct.pack("!IHBB", 0x60000000, len(body), protocol, 255) + src + dst
    return ethernet(dst_mac, src_mac, IPV6, head + body)


def udp6(dst_mac: bytes, src_mac: bytes, src: bytes, dst: bytes, payload: bytes, port: int = 5009) -> bytes:
    """A UDP datagram over IPv6."""
    return ipv6(dst_mac, src_mac, src, dst, 17, struct.pack("!HHHH", port, port, 8 + len(payload), 0) + payload, at=6)


def solicitation(src_mac: bytes, src: bytes, target: bytes) -> bytes:
    """A neighbor solicitation to the target's solicited-node address (RFC 4861)."""
    group = ip("ff02::1:ff00:0")[:13] + target[13:]
    option = b"" if not any(src) else b"\1\1" + src_mac
    body = struct.pack("!BBHI", 135, 0, 0, 0) + target + option
    return ipv6(b"\x33\x33" + group[12:], src_mac, src, group, 58, body)


def advertised(frame: bytes) -> tuple[bytes, bytes, int] | None:
    """(target, its link-layer address, flags) of a neighbor advertisement; None for any other frame."""
    if kind_of(frame) != IPV6 or len(frame) < 86 or frame[20] != 58 or frame[54] != 136:
        return None
    return frame[62:78], frame[80:86], frame[58]


def solicited(frame: bytes) -> bytes | None:
    """The target of a neighbor solicitation; None for any other frame."""
    if kind_of(frame) != IPV6 or len(frame) < 78 or frame[20] != 58 or frame[54] != 135:
        return None
    return frame[62:78]
