"""How NVEs reach each other over the underlay, and where things are."""

from __future__ import annotations

from typing import NamedTuple

from .flows import Action, Output, SetField, set_field
from .model import Interface, Place
from .state import State


class Path(NamedTuple):
    """Underlay addresses from one NVE to another; ``family`` is 4 or 6."""

    family: int
    here: bytes
    there: bytes


def path(state: State, here: str, there: str) -> Path | None:
    """How two NVEs reach each other: IPv4 if both have it, else IPv6 if both have it, else None."""
    a, b = state.nves.get(here), state.nves.get(there)
    if a is None or b is None:
        return None
    if a.ipv4 and b.ipv4:
        return Path(4, a.ipv4, b.ipv4)
    if a.ipv6 and b.ipv6:
        return Path(6, a.ipv6, b.ipv6)
    return None


def tunnel_to(way: Path, vni: int | None, port: int) -> tuple[Action, ...]:
    """Actions that send a packet through the tunnel (``vni`` None: the packet carries its VNI already)."""
    family = f"tun_ipv{way.family}_"
    head: tuple[Action, ...] = () if vni is None else (set_field("tun_id", vni),)
    return (*head, SetField(family + "src", way.here), SetField(family + "dst", way.there), Output(port))


def exit_to(state: State, here: str, there: str, vni: int) -> int | None:
    """The number of the tunnel port by which a network's packets go from one NVE to another.

    Those of a layer 3 network need no Ethernet header, where both NVEs have a port for tunnels without.
    """
    session = state.sessions.get(here)
    if session is None:
        return None
    return session.routed if state.is_l3(vni) and is_routed(state, here, there) else session.tunnel


def is_routed(state: State, here: str, there: str) -> bool:
    """Whether an NVE sends what needs no Ethernet header to another one without: both have a port for that."""
    session, offer = state.sessions.get(here), state.offers.get(there)
    return session is not None and session.routed is not None and offer is not None and offer.routed


def entries(state: State, nve: str, vni: int) -> tuple[int, ...]:
    """The numbers of the tunnel ports by which a network's packets may come: whatever their senders have chosen."""
    session = state.sessions[nve]
    both = (session.tunnel, session.routed if state.is_l3(vni) else None)
    return tuple(port for port in both if port is not None)


def from_peer(way: Path) -> dict[str, bytes]:
    return {f"tun_ipv{way.family}_src": way.there}


# --- where things are -------------------------------------------------------------------------------------------------
def target(state: State, interface: Interface) -> Place:
    """Where packets for an interface should go from a source NVE's point of view: newest destination wins."""
    active = state.active_move(interface.id)
    if active is not None and active[0].redirect.at_source:
        return active[1].dst
    return interface.location
