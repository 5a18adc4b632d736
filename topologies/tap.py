"""TAP devices: creating one inside a namespace, without starting any program."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from topologies import netns

QUEUE = 10_000  # frames a tap holds while nobody reads it: 5 s at 2,000 frames/s
MOST_QUEUE = 1_000_000  # that anybody may ask for
KERNEL_QUEUE = 1_000  # what the kernel gives a tap that nobody gives another
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFF_UP, _IFF_PROMISC = 0x1, 0x100
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCSIFMTU, _SIOCSIFHWADDR, _SIOCSIFTXQLEN = 0x8922, 0x8924, 0x8943
_ARPHRD_ETHER = 1


def _request(sock: socket.socket, call: int, ifname: str, payload: bytes) -> bytes:
    return fcntl.ioctl(sock, call, struct.pack("16s24s", ifname.encode(), payload))


def open_tap(
    namespace: str, ifname: str, mac: str, mtu: int, promiscuous: bool = False, queue: int = QUEUE
) -> int:
    """Create the tap in the namespace, bring it up and return its non-blocking descriptor.

    `promiscuous` spares a switch port the change when OVS opens it (see `TapLink` for why that matters). One
    frame per read and write, without packet information and without offloads, so what is written carries
    complete checksums. The device goes when the descriptor is closed. `ifname` has at most 15 characters.
    Raises OSError (busy name, missing namespace) or ValueError (name too long).
    """
    if len(ifname.encode()) > 15:
        raise ValueError(f"interface name {ifname!r} is longer than 15 characters")
    with netns.entered(namespace):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", ifname.encode(), _IFF_TAP | _IFF_NO_PI))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                address = struct.pack("H6s", _ARPHRD_ETHER, bytes.fromhex(mac.replace(":", "")))
                _request(sock, _SIOCSIFHWADDR, ifname, address)
                _request(sock, _SIOCSIFMTU, ifname, struct.pack("i", mtu))
                _request(sock, _SIOCSIFTXQLEN, ifname, struct.pack("i", queue))
                extra = _IFF_PROMISC if promiscuous else 0
                flags = struct.unpack("16xH22x", _request(sock, _SIOCGIFFLAGS, ifname, b""))[0]
                _request(sock, _SIOCSIFFLAGS, ifname, struct.pack("H", flags | extra | _IFF_UP))
        except BaseException:
            os.close(fd)
            raise
    return fd


def hypervisor_mac(mac: str) -> str:
    """The MAC of the hypervisor's side of a VM's tap: the VM's with fe: in front, as libvirt does it.

    Nobody sends to it; it only must differ from the VM's own.
    """
    return "fe" + mac[2:]
