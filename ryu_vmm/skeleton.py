"""Units ("base",), what every NVE has, whatever is there, and ("expecting",)."""

from __future__ import annotations

from collections.abc import Iterator

from . import guard, replies
from .flows import Action, Flow, ToNva, match
from .limits import PROBE_METER
from .model import PROBE_IDENTIFIER, PROBE_PROTOCOL, PROBE_VNI
from .routing import ila_mac
from .state import State
from .tables import (
    ADMIT,
    CLASSIFY,
    DELIVER,
    ETH_ARP,
    ETH_IPV6,
    ETH_PROBE,
    ETH_RARP,
    FLOOD,
    HEAD,
    MULTICAST,
    REMOTE,
    RESOLVE,
    ROUTE,
    TAGGED,
    Drop,
    Why,
    cookie,
    drop,
    forgeries,
    metered,
)


def announcements(
    table: int,
    priority: int,
    actions: tuple[Action, ...] = (ToNva(HEAD),),
    why: int = cookie(Why.ANNOUNCE),
    **fields: int | tuple[int, int],
) -> Iterator[Flow]:
    """Flows that hand announcements, of whatever form, to the NVA and nowhere else."""
    for kind in (
        {"eth_type": ETH_ARP},
        {"eth_type": ETH_RARP},
        {"eth_type": ETH_IPV6, "ip_proto": 58, "icmpv6_type": 136},
    ):
        yield Flow(table, priority, match(**fields, **kind), actions, cookie=why)


def flows(state: State, nve: str, tunnel: int | None) -> Iterator[Flow]:
    """What every NVE has."""
    yield drop(CLASSIFY, 0, (), Drop.UNKNOWN_PORT)
    yield from _underlay(state, nve)
    if tunnel is not None:
        # Probes that prove a tunnel outside of moves, whoever sends them: the NVA knows its own.
        for port in {tunnel, state.sessions[nve].routed} - {None}:
            yield _probes(state, nve, in_port=port, eth_type=ETH_PROBE, tun_id=PROBE_VNI)
    tagged = forgeries(state, nve, 0)
    if tagged:
        announced = cookie(Why.DROP, Drop.VLAN_TAGGED)
        yield from announcements(ADMIT, 221, tagged, announced, vlan_vid=TAGGED)
    yield drop(ADMIT, 220, match(vlan_vid=TAGGED), Drop.VLAN_TAGGED)
    yield drop(ADMIT, 210, match(eth_dst=(b"\x01\x80\xc2\0\0\0", b"\xff" * 5 + b"\xf0")), Drop.LINK_LOCAL_CONTROL)
    yield drop(ADMIT, 0, (), Drop.SPOOFED_MAC)
    yield from guard.flows(tagged)
    yield from replies.base(state.sessions[nve])
    yield Flow(RESOLVE, 0, (), goto=ROUTE, cookie=cookie(Why.BASE))
    yield Flow(ROUTE, 0, (), goto=DELIVER, cookie=cookie(Why.BASE))
    yield drop(DELIVER, 210, match(metadata=REMOTE, vlan_vid=TAGGED), Drop.VLAN_TAGGED)
    yield Flow(DELIVER, 200, match(eth_dst=MULTICAST), goto=FLOOD, cookie=cookie(Why.BASE))
    yield drop(DELIVER, 5, match(metadata=REMOTE), Drop.MISDELIVERED)
    yield drop(DELIVER, 0, (), Drop.UNKNOWN_DESTINATION)
    yield drop(FLOOD, 0, (), Drop.NO_FLOOD)


def expecting(state: State, nve: str) -> Iterator[Flow]:
    """A VM may announce itself, once, before the flows of its brand-new port are there."""
    if state.expecting(nve):
        yield from announcements(CLASSIFY, 5)


def _probes(state: State, nve: str, **fields: int | bytes | None) -> Flow:
    """What takes probes in; a switch that cannot limit them hands none over. Dropping them is no drop."""
    counted = metered(state, nve, PROBE_METER)
    if not counted:
        return Flow(CLASSIFY, 15, match(**fields), cookie=cookie(Why.BASE))
    return Flow(CLASSIFY, 15, match(**fields), (*counted, ToNva(64)), cookie=cookie(Why.PROBE))


def _underlay(state: State, nve: str) -> Iterator[Flow]:
    """What comes in from the underlay and is nobody's."""
    session, own = state.sessions[nve], state.nves[nve]
    for port in (session.tunnel, session.routed):
        if port is not None:
            yield drop(CLASSIFY, 10, match(in_port=port), Drop.UNKNOWN_VNI)
    if session.ila is None:
        return
    # What the underlay's bridge floods comes here as well, and is no drop.
    yield Flow(CLASSIFY, 10, match(in_port=session.ila), cookie=cookie(Why.BASE))
    if own.locator is not None:
        under = (own.locator + bytes(8), b"\xff" * 8 + bytes(8))
        on = match(in_port=session.ila, eth_type=ETH_IPV6, ipv6_dst=under)
        yield drop(CLASSIFY, 11, on, Drop.UNKNOWN_LOCATOR)
        to = own.locator + PROBE_IDENTIFIER
        yield _probes(state, nve, in_port=session.ila, eth_type=ETH_IPV6, ip_proto=PROBE_PROTOCOL, ipv6_dst=to)
    on = match(in_port=session.ila, eth_dst=ila_mac(own), eth_type=ETH_IPV6, ip_proto=58, icmpv6_type=136)
    yield Flow(CLASSIFY, 89, on, (ToNva(HEAD),), cookie=cookie(Why.HOP))
