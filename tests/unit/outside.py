"""What NVEs have for layer 3, and the packets that are routed: ports, locators, a router of the underlay."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from ryu_vmm.emulation import packets
from ryu_vmm.emulation.tables import Tables
from ryu_vmm.flows import Flow
from ryu_vmm.model import Gateway, Nve

TUNNEL, ROUTED, ILA = 1, 2, 3


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def mac(n: int) -> bytes:
    return b"\x02\0\0\0\0" + bytes([n])


#: The underlay's router, where there is one: who leads to every locator.
ROUTER, ROUTER_MAC = ip("fd00:100::ff"), b"\x02\xbf\0\0\0\xff"
#: Networks' gateways, as far as they do not say otherwise.
GATEWAY = Gateway(ipv4=ip("169.254.1.1"), ipv6=ip("fe80::1"))


def locator(n: int) -> bytes:
    """The locator of n<n>."""
    return ip(f"fd00:1:0:{n}::")[:8]


def tables(flows: Iterable[Flow] = ()) -> Tables:
    """A switch's tables, in which one port is for tunnels without Ethernet headers."""
    return Tables(flows, routed=ROUTED)


def with_layer3(nve: Nve, router: bool) -> Nve:
    """An NVE with ports for all ways of layer 3 that its underlay allows."""
    nve = replace(nve, routed_port="gre")
    if nve.ipv6 is None:
        return nve
    return replace(nve, locator=locator(nve.dpid), ila_port="ila", next_hop=ROUTER if router else None)


def ports_of(nve: Nve) -> dict[str, int]:
    """The ports to the underlay that an NVE is registered with."""
    wanted = {"vxlan": TUNNEL, nve.routed_port: ROUTED, nve.ila_port: ILA}
    return {port: number for port, number in wanted.items() if port is not None}


def packet(
    src: bytes, dst: bytes, eth_src: bytes, eth_dst: bytes = GATEWAY.mac, ttl: int = 64, payload: bytes = b"x" * 20
) -> bytes:
    """A guest's UDP packet by way of its gateway, with right checksums."""
    family = 4 if len(src) == 4 else 6
    fields = {"eth_dst": eth_dst, "eth_src": eth_src, f"ipv{family}_src": src, f"ipv{family}_dst": dst}
    return packets.build(fields | {"ip_ttl": ttl, "udp_src": 4096, "udp_dst": 4096}, payload)
