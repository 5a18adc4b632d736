"""Which MAC answers for an address: the one place that says so.

What the NVA answers (resolver.py), what edges answer by flows, and what is announced because it has changed
(announcing.py) all ask here, so that no two of them ever say different things.
"""

from __future__ import annotations

from .addresses import mac_of_link_local
from .state import State


def answering(state: State, vni: int, address: bytes) -> bytes | None:
    """The MAC at which the guests of a network reach an address (4 or 16 bytes); None: nobody has it.

    The gateway's for its own addresses, and in a layer 3 network for everybody's: whoever holds others to be on its
    link reaches them all the same. Else one of the interface that :func:`holder` names.
    """
    gateway = state.gateway(vni)
    if gateway is not None and is_gateway(state, vni, address):
        return gateway.mac
    if state.is_l3(vni):
        within = any(address in subnet for subnet in state.networks[vni].subnets)
        return gateway.mac if gateway is not None and (within or reached(state, vni, address) is not None) else None
    owner, held = state.by_ip.get((vni, address)), state.holder_of(vni, address)
    if owner is not None:
        return state.interfaces[owner].mac
    if held is not None:
        return held.mac
    mac = mac_of_link_local(address)
    return None if mac is None or state.mac_owner(vni, mac) is None else mac


def is_gateway(state: State, vni: int, address: bytes) -> bool:
    """Whether an address is that of a network's router itself (RFC 4861 section 4.4: the router flag)."""
    gateway = state.gateway(vni)
    return gateway is not None and address in (gateway.ipv4, gateway.ipv6)


def holder(state: State, vni: int, address: bytes) -> str | None:
    """The id of the interface of a network that has an address.

    That is one of its registered addresses, a shared one that it holds, or the link-local address that one of its MACs
    makes: what admission lets an interface speak for, it is found at.
    """
    found, held = state.by_ip.get((vni, address)), state.holder_of(vni, address)
    if found is not None:
        return found
    if held is not None:
        return held.interface
    mac = mac_of_link_local(address)
    return None if mac is None else state.mac_owner(vni, mac)


def reached(state: State, vni: int, address: bytes) -> str | None:
    """The id of the interface in a network's domain that packets to a registered or shared address are routed to."""
    held = (state.holder_of(each, address) for each in state.domain(vni))
    return state.owner(vni, address) or next((row.interface for row in held if row is not None), None)
