"""Switches that may not be what they seem: those that nobody has registered, and those that do not look their part."""

from __future__ import annotations

from collections.abc import Mapping

from .events import NveConnected
from .model import Place
from .work import Work

__all__ = ["doubt", "unregistered"]

#: Ports that are named in an event.
_NAMED = 8


def unregistered(work: Work, event: NveConnected, more: Mapping[str, object]) -> None:
    """A switch has connected whose datapath id no NVE has: it waits, untouched; say how it is registered."""
    state, dpid = work.state, f"{event.dpid:016x}"
    state.put("strangers", event.dpid, event)
    example = next((nve for nve in state.nves.values()), None)
    address = "--ipv6 ADDRESS" if example is not None and example.ipv4 is None else "--ipv4 ADDRESS"
    register = f"vmm nve add NAME --dpid {dpid} {address}"
    work.report("nve.unregistered", dpid=dpid, ports=_named(event), register=register, **more)


def doubt(work: Work, name: str, event: NveConnected) -> None:
    """A switch has connected as an NVE: if it shows no tunnel port and no guest's port, say that it may be another.

    Datapath ids such as 1, 2, 3 are what many programs begin with. It is taken in all the same: an edge without guests
    whose tunnel port is still to come looks no different, and flows of others are never touched.
    """
    state = work.state
    session = state.sessions.get(name)
    if session is None or session.tunnel is not None:
        return
    places = [Place(name, port.name) for port in event.ports]
    if any(place in state.by_place or place in state.attached for place in places):
        return
    port = state.nves[name].tunnel_port or "vxlan"
    remedy = (
        f"if it is {name}, it lacks its tunnel port (ovs-vsctl add-port BRIDGE {port} -- set Interface {port} "
        "type=vxlan options:remote_ip=flow options:local_ip=flow options:key=flow options:csum=true); if not, "
        "give it another datapath id"
    )
    work.count("nve.doubtful")
    work.report("nve.doubtful", nve=name, dpid=f"{event.dpid:016x}", ports=_named(event), remedy=remedy)


def _named(event: NveConnected) -> list[str]:
    return sorted(port.name for port in event.ports)[:_NAMED]
