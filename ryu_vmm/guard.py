"""Table guard: what only routers and DHCP servers may say, and packets that hide what they say.

Common to all ports of an NVE, so its flows are there once. What a single port may say about itself is admission.py's.
A port that may be a router or a DHCP server says so in ``metadata``, which its classification writes.

* Router advertisements and redirects, ICMPv6 (RFC 6105) and ICMP, and DHCP from or to where servers and clients
  listen: dropped unless allowed. By both ports, since a client's socket looks at its own port alone.
* Neighbor discovery in fragments (RFC 6980), and fragments that show no ICMPv6 header: dropped.
* IPv6 whose chain of headers cannot be followed: dropped. Behind extension headers that can, the same rules hold.
* The unspecified address as a source: only where it has to be (duplicate address detection, MLD, router solicitation).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from .flows import Action, Flow, match
from .model import Allowed
from .tables import (
    ETH_IPV4,
    ETH_IPV6,
    GUARD,
    RESOLVE,
    Drop,
    Why,
    cookie,
    drop,
)

#: Bits of ``metadata`` by what they allow.
MAY = {Allowed.ROUTER: 4, Allowed.DHCP_SERVER: 8}
_NO_ROUTER, _NO_DHCP = ((0, MAY[allowed]) for allowed in (Allowed.ROUTER, Allowed.DHCP_SERVER))
_ICMPV6 = {"eth_type": ETH_IPV6, "ip_proto": 58}
_ICMP = {"eth_type": ETH_IPV4, "ip_proto": 1}
_FRAGMENT = (1, 1)
#: Multicast listener reports and dones, router and neighbor solicitations: sent before there is an address.
_FROM_NOWHERE = (131, 132, 133, 135, 143)


@functools.cache
def flows(sampled: tuple[Action, ...] = ()) -> tuple[Flow, ...]:
    """The flows of table guard that do not depend on any port; ``sampled``: actions for what they drop."""
    return tuple(_flows(sampled))


def _flows(sampled: tuple[Action, ...]) -> Iterator[Flow]:
    for hidden in (0, 134, 135, 136, 137):  # 0 is no message: the header is in another fragment
        yield drop(GUARD, 150, match(**_ICMPV6, ip_frag=_FRAGMENT, icmpv6_type=hidden), Drop.FRAGMENTED_ND, sampled)
    yield drop(GUARD, 150, match(eth_type=ETH_IPV6, ip_proto=0), Drop.BROKEN_HEADERS, sampled)
    for on, cause in (
        (match(metadata=_NO_ROUTER, **_ICMPV6, icmpv6_type=134), Drop.ROUTER_ADVERTISEMENT),
        (match(metadata=_NO_ROUTER, **_ICMP, icmpv4_type=9), Drop.ROUTER_ADVERTISEMENT),
        (match(metadata=_NO_ROUTER, **_ICMPV6, icmpv6_type=137), Drop.ICMP_REDIRECT),
        (match(metadata=_NO_ROUTER, **_ICMP, icmpv4_type=5), Drop.ICMP_REDIRECT),
    ):
        yield drop(GUARD, 145, on, cause, sampled)
    for eth_type, server, client in ((ETH_IPV4, 67, 68), (ETH_IPV6, 547, 546)):
        udp: dict[str, Any] = {"metadata": _NO_DHCP, "eth_type": eth_type, "ip_proto": 17}
        yield drop(GUARD, 145, match(**udp, udp_src=server), Drop.DHCP_SERVER, sampled)
        yield drop(GUARD, 145, match(**udp, udp_dst=client), Drop.DHCP_SERVER, sampled)
    for kind in _FROM_NOWHERE:
        yield Flow(GUARD, 125, match(**_ICMPV6, ipv6_src=0, icmpv6_type=kind), goto=RESOLVE, cookie=cookie(Why.BASE))
    yield drop(GUARD, 124, match(eth_type=ETH_IPV6, ipv6_src=0), Drop.SPOOFED_ADDRESS, sampled)
    yield Flow(GUARD, 0, (), goto=RESOLVE, cookie=cookie(Why.BASE))
