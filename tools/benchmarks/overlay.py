"""An emulated overlay: NVEs with one tunnel port each, VMs behind them, and the frames that VMs send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ryu_vmm.emulation import packets

BROADCAST = b"\xff" * 6


@dataclass(frozen=True)
class Guest:
    """A VM with one interface. ``number`` from 1 on gives its addresses, ``nve`` is the number of its NVE."""

    number: int
    nve: int
    network: str = "vn1"

    @property
    def name(self) -> str:
        """Its name."""
        return f"vm{self.number}"

    @property
    def port(self) -> str:
        """Name of its port, wherever it is."""
        return f"tap{self.number}"

    @property
    def mac(self) -> bytes:
        """Its MAC address."""
        return b"\x02\0" + self.number.to_bytes(4, "big")

    @property
    def ipv4(self) -> bytes:
        """Its IPv4 address, 10.0.0.0/8."""
        return b"\x0a" + self.number.to_bytes(3, "big")

    def body(self) -> dict[str, Any]:
        """What REST takes."""
        interface = {
            "name": "eth0",
            "network": self.network,
            "mac": self.mac.hex(":"),
            "ipv4": [".".join(map(str, self.ipv4))],
            "nve": nve_name(self.nve),
            "port": self.port,
        }
        return {"name": self.name, "interfaces": [interface]}

    def asks_for(self, other: Guest) -> bytes:
        """Its ARP request for another's address."""
        return packets.build(
            {
                "eth_dst": BROADCAST,
                "eth_src": self.mac,
                "arp_op": 1,
                "arp_sha": self.mac,
                "arp_spa": self.ipv4,
                "arp_tpa": other.ipv4,
            }
        )

    def answer_for(self, other: Guest) -> bytes:
        """The ARP reply by which it ought to learn the other's address."""
        return packets.build(
            {
                "eth_dst": self.mac,
                "eth_src": other.mac,
                "arp_op": 2,
                "arp_sha": other.mac,
                "arp_spa": other.ipv4,
                "arp_tha": self.mac,
                "arp_tpa": self.ipv4,
            }
        )

    def announcement(self) -> bytes:
        """Its gratuitous ARP request."""
        return packets.build(
            {
                "eth_dst": BROADCAST,
                "eth_src": self.mac,
                "arp_op": 1,
                "arp_sha": self.mac,
                "arp_spa": self.ipv4,
                "arp_tpa": self.ipv4,
            }
        )


def nve_name(number: int) -> str:
    """Name of the NVE of that number, which is its dpid too."""
    return f"nve{number}"


def underlay(number: int) -> str:
    """Its underlay address."""
    return f"192.168.{number >> 8}.{number & 255}"


def nve_body(number: int) -> dict[str, Any]:
    """What REST takes."""
    return {"name": nve_name(number), "dpid": f"{number:016x}", "ipv4": underlay(number)}


def network_body(name: str = "vn1", vni: int = 100, **policy: object) -> dict[str, Any]:
    """What REST takes."""
    return {"name": name, "vni": vni} | ({"policy": policy} if policy else {})


def switch(number: int, guests: Sequence[Guest], eager: bool = False) -> dict[str, Any]:
    """The emulated switch of an NVE with the ports of those guests that are there."""
    ports = ["vxlan", *(guest.port for guest in guests if guest.nve == number)]
    return {"dpid": number, "ports": ports, "addresses": [underlay(number)], "eager": eager}
